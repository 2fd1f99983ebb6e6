//! A range of a run that is delivered more than once, on both databases.

use std::sync::Arc;

use anyhow::{Context, Result};
use chrono::Utc;
use pricing_core::engine::{Engine, RangeDone};
use pricing_core::jobs::queue::JobQueue;
use pricing_core::jobs::{Job, PRICED_BEFORE, Range};
use pricing_core::store::RunRequest;
use pricing_domain::facts::product::{Product, ProductDraft, ProductId};
use pricing_domain::facts::recalculation::{RecalculationScope, RunState};
use pricing_e2e::RedisServer;
use pricing_worker::jobs::Recalculator;
use pricing_worker::metrics::RecalculationMetrics;
use pricing_worker::runner::Delivery;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::support::{new_policy, open_engine, shared_postgres, sqlite_url};

/// Raises each price in effect by a percent, once it is published.
pub(super) const CLIMBING: &str = "
name: climbing
market:
  - { name: climb, when: price.current != null, multiply_by: price.current * 1.01 / price.now }
";

fn product(number: usize) -> Result<Product> {
    let draft = format!(r#"{{"product_id":"P-{number}","currency":"USD","base_price":100}}"#);
    let draft: ProductDraft = serde_json::from_str(&draft)?;
    draft.check().map_err(|problems| anyhow::anyhow!("{problems:?}"))
}

/// Requests a run of all products.
async fn request(engine: &Engine, task_id: &str) -> Result<()> {
    let request = RunRequest {
        task_id: task_id.to_owned(),
        scope: RecalculationScope::All,
        requested_at: Utc::now(),
        approved_by: None,
    };
    engine.store.request_run(&request).await?;
    Ok(())
}

/// Delivers a range to the engine.
async fn deliver(engine: &Engine, range: &Range) -> Result<RangeDone> {
    let turn = Arc::new(Semaphore::new(1)).acquire_owned().await?;
    Ok(engine.recalculate_range(range.clone(), "w".to_owned(), turn).await?)
}

async fn moves_its_prices_once(engine: &Engine) -> Result<()> {
    let store = &engine.store;
    let products = (0..10).map(product).collect::<Result<Vec<_>>>()?;
    engine.put_products(products, "test").await?;
    let version = store.publish_policy(&new_policy(CLIMBING), None, Utc::now()).await?.context("not new")?;
    engine.policies.refresh().await?;
    request(engine, "T-1").await?;
    assert!(store.begin_run("T-1", 1, version, 10, Utc::now()).await?);

    let product_ids = (0..10).map(|number| ProductId::parse(&format!("P-{number}")));
    let product_ids = product_ids.collect::<Result<Vec<_>, _>>()?;
    let range = Range {
        task_id: "T-1".to_owned(),
        run_number: 1,
        policy_version: version,
        release: false,
        product_ids,
    };
    let (one, other) = tokio::join!(deliver(engine, &range), deliver(engine, &range));
    let done = RangeDone::Done { products: 10, changed: 10 };
    let outcomes = [one?, other?];
    assert!(outcomes.contains(&done) && outcomes.contains(&RangeDone::Repeated), "{outcomes:?}");
    assert_eq!(deliver(engine, &range).await?, RangeDone::Repeated);
    let priced_before = Range { run_number: PRICED_BEFORE, ..range.clone() };
    assert_eq!(deliver(engine, &priced_before).await?, RangeDone::Repeated);
    assert!(store.finish_run("T-1", 1, RunState::Failed, Some("test"), Utc::now()).await?);
    assert_eq!(deliver(engine, &range).await?, RangeDone::Repeated);

    for product_id in &range.product_ids {
        let changes = store.price_changes(product_id, 10).await?;
        let prices: Vec<String> = changes
            .iter()
            .filter_map(|change| change.new_list_price)
            .map(|price| price.to_string())
            .collect();
        assert_eq!(prices, ["101.00", "100.00"], "{product_id}");
    }
    assert_eq!(store.run("T-1").await?.context("no run")?.products_done, 10);
    Ok(())
}

#[tokio::test]
async fn a_range_that_is_delivered_again_moves_its_prices_once() -> Result<()> {
    let redis = RedisServer::start().await?;
    let files = tempfile::tempdir()?;
    let sqlite = sqlite_url(&files.path().join("catalogue.db"));
    moves_its_prices_once(&open_engine(&sqlite, &redis, "sqlite:").await?).await?;
    let postgres = shared_postgres().await?.create_database("range_delivered_again").await?;
    moves_its_prices_once(&open_engine(&postgres, &redis, "postgres:").await?).await
}

#[tokio::test]
async fn a_run_fails_with_the_publication_of_a_range_that_was_priced_before() -> Result<()> {
    let redis = RedisServer::start().await?;
    let files = tempfile::tempdir()?;
    let engine = open_engine(&sqlite_url(&files.path().join("catalogue.db")), &redis, "test:").await?;
    let store = engine.store.clone();
    request(&engine, "T-1").await?;
    assert!(store.begin_run("T-1", 1, 1, 10, Utc::now()).await?);
    assert!(store.begin_run("T-1", 2, 1, 10, Utc::now()).await?);
    let worker = Recalculator {
        metrics: Arc::new(RecalculationMetrics::new(&engine.registry)),
        queue: JobQueue::new(&engine.redis, &engine.keys),
        redis: engine.redis.clone(),
        keys: engine.keys.clone(),
        owner: "w".to_owned(),
        range_turns: Arc::new(Semaphore::new(1)),
        shutdown: CancellationToken::new(),
        engine,
    };
    let range = Range {
        task_id: "T-1".to_owned(),
        run_number: PRICED_BEFORE,
        policy_version: 1,
        release: false,
        product_ids: vec![ProductId::parse("P-1")?],
    };
    let reason = "redis refuses writes".to_owned();
    worker.handle(Delivery::DeadLetter { job: Job::Range(range), reason }).await?;
    let run = store.run("T-1").await?.context("no run")?;
    assert_eq!(run.state, RunState::Failed);
    assert_eq!(run.reason.as_deref(), Some("a part of it failed: redis refuses writes"));
    Ok(())
}
