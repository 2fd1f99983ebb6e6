//! How long one price and one quote take: `cargo bench -p pricing-core`.
//!
//! Beside each stands the bare decimal arithmetic of the same steps, so that a figure means something on any
//! machine: read them as ratios within one run.

#![expect(clippy::expect_used, reason = "a bench that cannot start has nothing to measure")]

use chrono::{DateTime, Utc};
use divan::{Bencher, black_box};
use pricing_core::domain::money::Currency;
use pricing_core::domain::policy::{DEFAULT_POLICY, PricingPolicy};
use pricing_core::domain::price::{Facts, Previous, PriceEntry, price};
use pricing_core::domain::product::{Product, ProductId};
use pricing_core::domain::quote::{Shopper, quote};
use pricing_core::domain::signal::{CompetitorPrice, Signals};
use rust_decimal::Decimal;

fn main() {
    divan::main();
}

fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH
}

fn policy(rules: &str, count: usize, list: &str) -> PricingPolicy {
    let rules: Vec<String> = (0..count).map(|number| format!("  - {{ name: r{number}, {rules} }}")).collect();
    PricingPolicy::from_yaml(&format!("name: bench\n{list}:\n{}\n", rules.join("\n")), 1)
        .expect("the policy is right")
}

fn product() -> Product {
    Product {
        product_id: ProductId::parse("P-1").expect("an identifier"),
        name: "Kettle".to_owned(),
        category: Some("Kitchen".to_owned()),
        brand: Some("Brand".to_owned()),
        currency: Currency::from_code("USD").expect("a currency"),
        base_price: Decimal::new(5199, 2),
        unit_cost: Some(Decimal::new(3000, 2)),
        floor_price: Some(Decimal::new(2000, 2)),
        ceiling_price: Some(Decimal::new(9000, 2)),
        minimum_advertised_price: None,
        attributes: Default::default(),
    }
}

fn signals() -> Signals {
    let price = |competitor: &str, cents| CompetitorPrice {
        competitor: competitor.to_owned(),
        price: Decimal::new(cents, 2),
        in_stock: None,
        observed_at: None,
    };
    Signals {
        competitor_prices: vec![price("a", 4810), price("b", 5020), price("c", 4999)],
        demand_index: Some(Decimal::new(11, 1)),
        stock_level: Some(Decimal::from(50)),
        unit_cost: None,
        demand_observed_at: None,
        units_sold: None,
    }
}

fn entry() -> PriceEntry {
    PriceEntry {
        product_id: ProductId::parse("P-1").expect("an identifier"),
        category: Some("Kitchen".into()),
        currency: Currency::from_code("USD").expect("a currency"),
        base_price: Decimal::new(5199, 2),
        list_price: Decimal::new(5199, 2),
        lowest: Some(Decimal::new(2000, 2)),
        highest: None,
        policy_version: 1,
        revision: 1,
        valid_until: None,
    }
}

const SHOPPER: Shopper<'static> =
    Shopper { location: "NY", prime: true, quantity: 3, channel: None, segment: None, location_factor: None };

fn bench_price(bencher: Bencher<'_, '_>, policy: &PricingPolicy) {
    let (product, signals) = (product(), signals());
    let price_before = Decimal::new(5000, 2);
    let previous = Some(Previous {
        list_price: price_before,
        opening_price: price_before,
        changed_at: None,
        streak: None,
    });
    bencher.bench_local(|| {
        let facts = Facts { product: black_box(&product), signals: black_box(&signals), previous };
        price(&facts, policy, now()).amount
    });
}

#[divan::bench]
fn price_default_policy(bencher: Bencher<'_, '_>) {
    let policy = PricingPolicy::from_yaml(DEFAULT_POLICY, 1).expect("the policy is right");
    bench_price(bencher, &policy);
}

#[divan::bench]
fn price_10_rules(bencher: Bencher<'_, '_>) {
    bench_price(bencher, &policy("when: stock.level > 10 and demand.index > 1, adjust: +0.5%", 10, "market"));
}

#[divan::bench]
fn price_10_rules_bare_arithmetic(bencher: Bencher<'_, '_>) {
    let factor = Decimal::new(1_005, 3);
    bencher.bench_local(|| {
        let (stock, demand) = (black_box(Decimal::from(50)), black_box(Decimal::new(11, 1)));
        let mut price = black_box(Decimal::new(5199, 2));
        for _ in 0..10 {
            if stock > Decimal::TEN && demand > Decimal::ONE {
                price = price.checked_mul(factor).unwrap_or(price);
            }
        }
        price.round_dp(2)
    });
}

#[divan::bench]
fn quote_default_policy(bencher: Bencher<'_, '_>) {
    let policy = PricingPolicy::from_yaml(DEFAULT_POLICY, 1).expect("the policy is right");
    let entry = entry();
    bencher.bench_local(|| quote(black_box(&entry), &policy, black_box(&SHOPPER), now(), None));
}

#[divan::bench]
fn quote_5_rules(bencher: Bencher<'_, '_>) {
    let policy = policy("when: shopper.prime and shopper.quantity >= 2, adjust: -1%", 5, "offer");
    let entry = entry();
    bencher.bench_local(|| quote(black_box(&entry), &policy, black_box(&SHOPPER), now(), None));
}

#[divan::bench]
fn quote_5_rules_bare_arithmetic(bencher: Bencher<'_, '_>) {
    let factor = Decimal::new(99, 2);
    bencher.bench_local(|| {
        let (prime, quantity) = (black_box(true), black_box(Decimal::from(3)));
        let mut price = black_box(Decimal::new(5199, 2));
        for _ in 0..5 {
            if prime && quantity >= Decimal::TWO {
                price = price.checked_mul(factor).unwrap_or(price);
            }
        }
        price.round_dp(2)
    });
}
