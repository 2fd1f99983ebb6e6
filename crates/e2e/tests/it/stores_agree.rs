//! SQLite and PostgreSQL give the same prices and explanations, and a stored price can be computed again.

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use pricing_core::engine::Engine;
use pricing_domain::facts::product::{Product, ProductDraft, ProductId, WrittenNumber};
use pricing_domain::facts::signal::{Signal, SignalKind, Subject};
use pricing_domain::facts::time_zone::TimeZones;
use pricing_domain::policy::PricingPolicy;
use pricing_domain::pricing::replay::RecordedExplanation;
use pricing_e2e::RedisServer;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rust_decimal::Decimal;
use tempfile::TempDir;

use crate::support::{new_policy, open_engine, shared_postgres, sqlite_url};

/// Policies tried, each on this many products: 10,000 prices in all.
const POLICIES: usize = 20;
const PRODUCTS_EACH: usize = 500;

/// A database with everything needed to price in it.
struct Pricing {
    engine: Engine,
    _files: TempDir,
}

impl Pricing {
    async fn open(url: &str, files: TempDir, redis: &RedisServer, prefix: &str) -> Result<Self> {
        Ok(Self { engine: open_engine(url, redis, prefix).await?, _files: files })
    }

    /// Publishes the policy, then writes signals and products, which prices them.
    async fn write(&self, policy: &str, products: &[Product], signals: &[Signal]) -> Result<i64> {
        let version = self.engine.store.publish_policy(&new_policy(policy), None, Utc::now()).await?;
        let version = version.context("not published")?;
        self.engine.policies.refresh().await?;
        let mut transaction = self.engine.store.begin().await?;
        transaction.put_signals(signals).await?;
        transaction.commit().await?;
        self.engine.put_products(products.to_vec(), "test").await?;
        Ok(version)
    }

    async fn explanation(&self, id: &ProductId) -> Result<String> {
        self.engine.store.explanation(id).await?.with_context(|| format!("{id} has no explanation"))
    }
}

#[tokio::test]
async fn both_stores_give_the_same_prices_and_each_can_be_computed_again() -> Result<()> {
    let redis = RedisServer::start().await?;
    let (sqlite_files, postgres_files) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let sqlite_file = sqlite_url(&sqlite_files.path().join("catalogue.db"));
    let sqlite = Pricing::open(&sqlite_file, sqlite_files, &redis, "sqlite:").await?;
    let database = shared_postgres().await?.create_database("stores_agree").await?;
    let postgres = Pricing::open(&database, postgres_files, &redis, "postgres:").await?;
    let mut runner = TestRunner::deterministic();
    for round in 0..POLICIES {
        let source = generate(&mut runner, any_policy())?;
        let products = generate(&mut runner, proptest::collection::vec(any_product(), PRODUCTS_EACH))?;
        let products = numbered(round, products)?;
        let signals = generate(&mut runner, proptest::collection::vec(any_signal(round), PRODUCTS_EACH))?;
        let version = sqlite.write(&source, &products, &signals).await?;
        assert_eq!(postgres.write(&source, &products, &signals).await?, version);
        let policy = PricingPolicy::from_yaml(&source, version, &TimeZones::bundled())
            .map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        for product in &products {
            let id = &product.product_id;
            let stored = sqlite.explanation(id).await?;
            ensure!(
                timeless(&stored)? == timeless(&postgres.explanation(id).await?)?,
                "{id} differs:\n{stored}"
            );
            compute_again(&sqlite, id, &stored, &policy).await?;
        }
    }
    Ok(())
}

/// Prices the recorded facts again: the same explanation, byte for byte, and the same price as is stored.
async fn compute_again(store: &Pricing, id: &ProductId, stored: &str, policy: &PricingPolicy) -> Result<()> {
    let recorded: RecordedExplanation = serde_json::from_str(stored)?;
    let again = recorded.replay(policy)?;
    ensure!(
        serde_json::to_string(&again.explanation)? == *stored,
        "{id} is explained differently:\n{stored}"
    );
    let entry = store.engine.store.stored_price(id).await?.context("no stored price")?.entry;
    ensure!(
        again.amount.to_string() == entry.list_price.to_string(),
        "{id}: {} is not {}",
        again.amount,
        entry.list_price
    );
    Ok(())
}

/// The explanation without the instants of its pricing and of the request, which differ between the stores.
fn timeless(explanation: &str) -> Result<String> {
    let mut timeless = explanation.to_owned();
    for key in ["\"priced_at\":\"", "\"cost_stated_at\":\""] {
        if let Some((before, rest)) = timeless.split_once(key) {
            let (_, after) = rest.split_once('"').context("no end of the instant")?;
            timeless = format!("{before}{after}");
        }
    }
    Ok(timeless)
}

fn generate<S: Strategy>(runner: &mut TestRunner, strategy: S) -> Result<S::Value> {
    let tree = strategy.new_tree(runner).map_err(|reason| anyhow::anyhow!("nothing generated: {reason}"))?;
    Ok(tree.current())
}

fn numbered(round: usize, drafts: Vec<ProductDraft>) -> Result<Vec<Product>> {
    let numbered = drafts.into_iter().enumerate().map(|(number, draft)| {
        let product_id = Some(format!("R{round}-{number}"));
        let checked = ProductDraft { product_id, ..draft }.check();
        checked.map_err(|problems| anyhow::anyhow!("{problems:?}"))
    });
    numbered.collect()
}

prop_compose! {
    fn any_product()(
        currency in proptest::sample::select(vec![("USD", 2), ("JPY", 0), ("BHD", 3)]),
        base in 100_u32..1_000_000,
        cost in proptest::option::of(1_u64..900_000_000),
        floor in proptest::option::of(50_u32..500_000),
        category in proptest::option::of(proptest::sample::select(vec!["toys", "ünïcode", "\"quoted\", 'too'"])),
        name in "\\PC{1,40}",
    ) -> ProductDraft {
        let (code, exponent) = currency;
        let amount = |units: u32| WrittenNumber(Decimal::new(units.into(), exponent).to_string());
        let cost = cost.map(|millionths| WrittenNumber(Decimal::new(i64::try_from(millionths).unwrap_or(1), 6).to_string()));
        ProductDraft {
            name: Some(name),
            category: category.map(str::to_owned),
            currency: Some(code.to_owned()),
            base_price: Some(amount(base)),
            unit_cost: cost,
            floor_price: floor.map(amount),
            ..ProductDraft::default()
        }
    }
}

fn any_signal(round: usize) -> impl Strategy<Value = Signal> {
    let subject = prop_oneof![
        (0..PRODUCTS_EACH).prop_map(move |number| Subject::Product(format!("R{round}-{number}"))),
        Just(Subject::Category("toys".to_owned())),
    ];
    let kind = proptest::sample::select(vec![
        (SignalKind::CompetitorPrice, "shop a"),
        (SignalKind::CompetitorPrice, "shop b"),
        (SignalKind::DemandIndex, ""),
        (SignalKind::StockLevel, ""),
        (SignalKind::UnitCost, ""),
    ]);
    (subject, kind, 1_i64..5_000_000, 0_u32..4, 0_i64..1_000).prop_map(
        |(subject, (kind, source), units, scale, second)| {
            let observed_at = DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(second);
            Signal {
                source: source.to_owned(),
                in_stock: (kind == SignalKind::CompetitorPrice).then_some(units % 2 == 0),
                ..Signal::new(subject, kind, Decimal::new(units, scale).normalize(), observed_at)
            }
        },
    )
}

fn any_policy() -> impl Strategy<Value = String> {
    let rule = proptest::sample::select(vec![
        "match: { reference: competitor.min, offset: -0.01 }, when: competitor.min != null",
        "set_to: competitor.median",
        "adjust: +6%, when: (stock.level ?? 100) < 10",
        "multiply_by: demand.index ?? 1",
        "cost_plus: 20%",
        "target_margin: 33.3%, when: product.unit_cost != null",
        "set_to: product.base_price / 3",
        "adjust: -7.5%, when: product.category == 'toys'",
    ]);
    let guardrails =
        proptest::sample::select(vec!["{}", "{ min_margin: 10% }", "{ max_step: 15%, max_daily_move: 30% }"]);
    let rounding = proptest::sample::select(vec![
        "{}",
        "{ mode: half_up, ending: 0.99 }",
        "{ mode: down, increment: 0.05 }",
    ]);
    (proptest::collection::vec(rule, 1..5), guardrails, rounding).prop_map(|(rules, guardrails, rounding)| {
        let mut policy = "name: generated\nmarket:\n".to_owned();
        for (number, rule) in rules.iter().enumerate() {
            policy.push_str(&format!("  - {{ name: rule {number}, {rule} }}\n"));
        }
        policy + &format!("guardrails: {guardrails}\nrounding: {rounding}\n")
    })
}
