//! Recalculations of the whole catalogue or some of it, with real processes.
//!
//! Where a test needs a run that is under way, it keeps the run from ending, by row locks that its ranges
//! wait for ([`Held`]); how fast the host is makes no difference.

use anyhow::{Context, Result, ensure};
use chrono::{SubsecRound, TimeDelta, Utc};
use pricing_core::jobs::queue::JobQueue;
use pricing_core::jobs::{Job, NewJob};
use pricing_core::keys::{DEFAULT_PREFIX, MessageKeys};
use pricing_core::redis::RedisConnection;
use pricing_core::store::{Store, StoreSettings, StoreTransaction};
use pricing_domain::facts::market_event::EventDraft;
use pricing_domain::facts::product::ProductId;
use pricing_e2e::eventually;
use serde_json::json;

use super::ranges::CLIMBING;
use super::{Engine, FOLLOWING, PATIENCE, price_becomes};
use crate::fleet::Service;
use crate::support::{Stores, new_policy, shared_postgres};

/// Twelve ranges: as many as are enqueued at a time.
const PRODUCTS: usize = 12_000;
/// Jobs that a worker runs at a time: too few for all enqueued ranges besides the coordinator, and with two
/// workers enough that requests are handled meanwhile.
const CONCURRENCY: &str = "10";

/// Locks on some products of each range: no range ends while they are held.
struct Held {
    transaction: StoreTransaction,
}

impl Held {
    async fn take(engine: &HeldEngine) -> Result<Self> {
        Self::take_from(engine, "").await
    }

    /// Locks on some products of each range that ends with this product or a later one.
    async fn take_from(engine: &HeldEngine, first: &str) -> Result<Self> {
        // The database ends what idles for longer than a statement may take.
        let settings = StoreSettings { statement_timeout: PATIENCE * 3, ..StoreSettings::default() };
        let store = Store::open(&engine.database_url, settings).await?;
        let mut transaction = store.begin().await?;
        let mut products = Vec::new();
        for number in (0..PRODUCTS).step_by(100) {
            products.push(ProductId::parse(&format!("P-{number}"))?);
        }
        products.retain(|product| product.as_str() >= first);
        transaction.lock_products(&products).await?;
        Ok(Self { transaction })
    }

    async fn release(self) -> Result<()> {
        Ok(self.transaction.commit().await?)
    }
}

/// An engine on PostgreSQL, which locks single rows.
struct HeldEngine {
    engine: Engine,
    database_url: String,
}

impl HeldEngine {
    async fn start(database: &str) -> Result<Self> {
        Self::start_with_policy(database, FOLLOWING).await
    }

    async fn start_with_policy(database: &str, policy: &str) -> Result<Self> {
        let database_url = shared_postgres().await?.create_database(database).await?;
        let settings = [("PRICING_WORKER_CONCURRENCY", CONCURRENCY), ("PRICING_DATABASE_CONNECTIONS", "12")];
        let engine = Engine::start_with(Stores::start().await?, &database_url, policy, &settings).await?;
        engine.import(PRODUCTS).await?;
        Ok(Self { engine, database_url })
    }

    /// Requests a run and waits until it is under way.
    async fn begin_run(&self) -> Result<String> {
        let task_id = self.engine.request_recalculation(json!({})).await?;
        eventually("the run is under way", PATIENCE, async || {
            let reply = self.engine.api.client.get(&format!("/api/v1/recalculations/{task_id}")).await?;
            ensure!(reply.body["state"] == "running", "{}", reply.text);
            Ok(())
        })
        .await?;
        Ok(task_id)
    }
}

#[tokio::test]
async fn two_workers_share_a_run_and_requests_meanwhile_are_coalesced_into_one_more() -> Result<()> {
    let held = HeldEngine::start("two_workers_share_a_run").await?;
    let engine = &held.engine;
    let _second = engine.fleet.start(Service::Worker).await?;
    let store = Store::open(&held.database_url, StoreSettings::default()).await?;
    let policy = "name: raise\nmarket:\n  - { name: raise, multiply_by: 2 }\n";
    store.publish_policy(&new_policy(policy), None, Utc::now()).await?;

    let locks = Held::take(&held).await?;
    let first = held.begin_run().await?;
    let mut skipped = Vec::new();
    for _ in 0..2 {
        let request = engine.request_recalculation(json!({})).await?;
        skipped.push(engine.ended(&request).await?);
    }
    locks.release().await?;

    for request in &skipped {
        assert_eq!(request["state"], "skipped", "{request}");
        assert!(request["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{request}");
    }
    assert_eq!(skipped[0]["follow_up_task_id"], skipped[1]["follow_up_task_id"]);
    let done = engine.ended(&first).await?;
    assert_eq!((&done["state"], &done["products_done"]), (&json!("done"), &json!(PRODUCTS)), "{done}");
    assert_eq!(done["progress_percent"], 100);
    assert_eq!(done["workers"].as_object().map(serde_json::Map::len), Some(2), "{done}");
    // A coordinator that loses its lease on a busy host begins the run again; each price has still changed
    // only once.
    let changes = store.price_changes(&ProductId::parse("P-1")?, 10).await?;
    assert_eq!(changes.len(), 2, "{changes:?}");
    let follow_up = skipped[0]["follow_up_task_id"].as_str().context("no follow-up")?;
    let follow_up = engine.ended(follow_up).await?;
    let outcome = (&follow_up["state"], &follow_up["prices_changed"]);
    assert_eq!(outcome, (&json!("done"), &json!(0)), "{follow_up}");
    price_becomes(&engine.api, "P-11999", 200.0).await
}

#[tokio::test]
async fn a_run_whose_coordinator_is_killed_is_finished_by_another_worker() -> Result<()> {
    let mut held = HeldEngine::start("a_run_whose_coordinator_is_killed").await?;
    let locks = Held::take(&held).await?;
    let task_id = held.begin_run().await?;
    held.engine.worker.kill()?;
    locks.release().await?;
    let _other = held.engine.fleet.start(Service::Worker).await?;
    let done = held.engine.ended(&task_id).await?;
    assert_eq!((&done["state"], &done["products_done"]), (&json!("done"), &json!(PRODUCTS)), "{done}");
    Ok(())
}

#[tokio::test]
async fn an_interrupted_run_moves_each_price_once() -> Result<()> {
    let mut held = HeldEngine::start_with_policy("an_interrupted_run", CLIMBING).await?;
    // A policy that is new reads the price in effect.
    let store = Store::open(&held.database_url, StoreSettings::default()).await?;
    store.publish_policy(&new_policy(CLIMBING), None, Utc::now()).await?;
    let locks = Held::take_from(&held, "P-5").await?;
    let task_id = held.begin_run().await?;
    let path = format!("/api/v1/recalculations/{task_id}");
    eventually("some ranges are done", PATIENCE, async || {
        let reply = held.engine.api.client.get(&path).await?;
        ensure!(reply.body["products_done"].as_u64() >= Some(2_000), "{}", reply.text);
        Ok(())
    })
    .await?;
    held.engine.worker.kill()?;
    locks.release().await?;
    let _other = held.engine.fleet.start(Service::Worker).await?;

    let done = held.engine.ended(&task_id).await?;
    let counts = (&done["products_done"], &done["prices_changed"]);
    assert_eq!((&done["state"], counts), (&json!("done"), (&json!(PRODUCTS), &json!(PRODUCTS))), "{done}");
    for number in (0..PRODUCTS).step_by(50) {
        let changes = store.price_changes(&ProductId::parse(&format!("P-{number}"))?, 10).await?;
        assert_eq!(changes.len(), 2, "{changes:?}");
    }
    price_becomes(&held.engine.api, "P-1", 101.0).await?;
    price_becomes(&held.engine.api, "P-9999", 101.0).await
}

#[tokio::test]
async fn a_range_that_redis_has_lost_does_not_keep_its_run_waiting() -> Result<()> {
    let held = HeldEngine::start("a_range_that_redis_has_lost").await?;
    let keys = MessageKeys::new(DEFAULT_PREFIX);
    // Takes out a range that waits.
    let lose = redis::Script::new(
        "for _, task in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
           if string.find(task, 'range:', 1, true) == 1 then
             redis.call('LREM', KEYS[1], 0, task)
             return redis.call('SREM', KEYS[2], task)
           end
         end
         return 0",
    );
    let redis = held.engine.stores.redis.connection().await?;
    let locks = Held::take(&held).await?;
    let task_id = held.begin_run().await?;
    // More ranges are enqueued than one worker runs at a time.
    eventually("a range waits, and is lost", PATIENCE, async || {
        let mut lose = lose.key(format!("{}:active", keys.queue()));
        lose.key(keys.queue_window("ranges"));
        ensure!(lose.invoke_async::<u32>(&mut redis.clone()).await? == 1);
        Ok(())
    })
    .await?;
    locks.release().await?;
    let done = held.engine.ended(&task_id).await?;
    assert_eq!((&done["state"], &done["products_done"]), (&json!("done"), &json!(PRODUCTS)), "{done}");
    Ok(())
}

#[tokio::test]
async fn a_recalculation_can_be_of_some_products_and_says_what_is_wrong_with_a_request() -> Result<()> {
    let engine = Engine::start(FOLLOWING).await?;
    engine.import(30).await?;
    for (body, products) in [
        (json!({"category": "category-1"}), 3),
        (json!({"product_ids": ["P-1", "P-2", "P-1"]}), 2),
        (json!({}), 30),
    ] {
        let task_id = engine.request_recalculation(body).await?;
        let done = engine.ended(&task_id).await?;
        assert_eq!((&done["state"], &done["products_done"]), (&json!("done"), &json!(products)), "{done}");
    }
    for (body, status) in [
        (json!({"category": ""}), 422),
        (json!({"product_ids": []}), 422),
        (json!({"product_ids": ["a b"]}), 422),
        (json!({"product_ids": ["P-1"], "category": "toys"}), 422),
        (json!({"products": ["P-1"]}), 422),
        (json!([1]), 400),
    ] {
        let reply = engine.api.client.post("/api/v1/recalculations", &body).await?;
        assert_eq!(reply.status, status, "{body}: {}", reply.text);
    }
    let unknown = engine.api.client.get("/api/v1/recalculations/none").await?;
    assert_eq!(
        (unknown.status.as_u16(), &unknown.body["type"]),
        (404, &json!("/problems/recalculation-not-found"))
    );
    Ok(())
}

#[tokio::test]
async fn a_request_that_found_a_dead_holder_of_the_lease_is_not_forgotten() -> Result<()> {
    let engine = Engine::start(FOLLOWING).await?;
    engine.import(10).await?;
    let keys = MessageKeys::new(DEFAULT_PREFIX);
    let mut redis = engine.stores.redis.connection().await?;
    let mut hold = redis::cmd("SET");
    hold.arg(keys.lease("recalculation")).arg("a worker that died").arg("PX").arg(4_000);
    hold.exec_async(&mut redis).await?;
    let task_id = engine.request_recalculation(json!({})).await?;
    let skipped = engine.ended(&task_id).await?;
    assert_eq!(skipped["state"], "skipped", "{skipped}");
    let follow_up = skipped["follow_up_task_id"].as_str().context("no follow-up")?;
    let done = engine.ended(follow_up).await?;
    assert_eq!((&done["state"], &done["products_done"]), (&json!("done"), &json!(10)), "{done}");
    Ok(())
}

#[tokio::test]
async fn events_that_ask_for_more_runs_than_may_wait_do_not_hold_them_up() -> Result<()> {
    let mut engine = Engine::start(FOLLOWING).await?;
    engine.import(10).await?;
    engine.worker.kill()?;
    // More jobs than one worker does at a time, each about more categories than the queue takes runs.
    let redis = RedisConnection::open(&engine.stores.redis.url())?;
    let queue = JobQueue::new(&redis, &MessageKeys::new(DEFAULT_PREFIX));
    for number in 0..8 {
        let events = (0..6).map(|category| {
            let event = json!({
                "specversion": "1.0", "id": format!("{number}-{category}"), "source": "/test",
                "time": Utc::now().to_rfc3339(), "type": "pricing.demand_index.v1",
                "data": {"category": format!("category-{category}"), "index": 2},
            });
            let checked = serde_json::from_value::<EventDraft>(event)?.check(Utc::now());
            checked.map_err(|problems| anyhow::anyhow!("{problems:?}"))
        });
        let job = Job::ApplyEvents { events: events.collect::<Result<_>>()?, published_at: None };
        queue.enqueue(&NewJob { task_id: format!("events-{number}"), job }).await?;
    }
    engine.worker.start_again()?;
    engine.worker.wait_until_ready().await?;
    for number in 0..6 {
        price_becomes(&engine.api, &format!("P-{number}"), 200.0).await?;
    }
    // None of them was held up until its time was over.
    let failed = engine.worker.metric("pricing_job_duration_seconds_count", "\"failed\"").await?;
    assert_eq!(failed, 0);
    Ok(())
}

#[tokio::test]
async fn prices_that_expire_are_recalculated_once_across_all_workers() -> Result<()> {
    let engine = Engine::start(FOLLOWING).await?;
    let _second = engine.fleet.start(Service::Worker).await?;
    let store = engine.store().await?;
    // Enough for one import, however busy the host.
    let soon = Utc::now() + TimeDelta::seconds(10);
    let policy = format!(
        "name: timed\nmarket:\n  - {{ name: sale, until: \"{}\", adjust: -10% }}\n",
        soon.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
    );
    let publish = engine.api.client.request(reqwest::Method::POST, "/api/v1/policies?author=test");
    let publish = publish.header("content-type", "application/yaml").body(policy);
    let reply = engine.api.client.send(publish).await?;
    assert_eq!(reply.status, 201, "{}", reply.text);
    engine.import(50).await?;
    let id = ProductId::parse("P-7")?;
    // No request reads it: a worker computes it, and its history has one row for it.
    eventually("the sale has ended in the database", PATIENCE, async || {
        let price = store.stored_price(&id).await?.context("no price")?.entry.list_price;
        ensure!(price == 100.into(), "{price}");
        Ok(())
    })
    .await?;
    let changes = store.price_changes(&id, 10).await?;
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert_eq!(changes[0].cause, "time");
    // As of the instant at which it fell due, whenever the worker got to it.
    assert_eq!(changes[0].changed_at, soon.trunc_subsecs(3), "{changes:?}");
    Ok(())
}
