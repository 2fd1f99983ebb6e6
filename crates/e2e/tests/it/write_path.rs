//! Prices follow the market: from a published event to the price at every API, and recalculations of all
//! products, with real processes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::{TimeDelta, Utc};
use pricing_core::store::{Store, StoreSettings};
use pricing_domain::facts::product::ProductId;
use pricing_e2e::{PostgresServer, eventually};
use serde_json::{Value, json};

use crate::fleet::{Fleet, Member, Service};
use crate::support::{Stores, new_policy};

mod facts;
mod limits_on_moves;
mod limits_over_days;
mod postgres;
mod ranges;
mod runs;

const PATIENCE: Duration = Duration::from_secs(60);

/// A policy that follows the cheapest competitor, without limits on moves.
const FOLLOWING: &str = "
name: following
market:
  - { name: match, when: competitor.min != null, match: { reference: competitor.min } }
  - { name: demand, when: demand.index != null, multiply_by: demand.index }
offer:
  - { name: location, multiply_by: location.factor ?? 1 }
";

/// One of everything, on SQLite, with this policy.
struct Engine {
    stores: Stores,
    fleet: Fleet,
    api: Member,
    listener: Member,
    worker: Member,
}

impl Engine {
    async fn start(policy: &str) -> Result<Self> {
        let stores = Stores::start().await?;
        let database_url = stores.database_url();
        Self::start_on(stores, &database_url, policy).await
    }

    /// The same on another database.
    async fn start_on(stores: Stores, database_url: &str, policy: &str) -> Result<Self> {
        Self::start_with(stores, database_url, policy, &[]).await
    }

    /// The same with further environment variables.
    async fn start_with(
        stores: Stores,
        database_url: &str,
        policy: &str,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let store = Store::open(database_url, StoreSettings::default()).await?;
        store.publish_policy(&new_policy(policy), None, Utc::now()).await?;
        // Whatever is seen in memory must have come by a notice.
        let mut fleet = Fleet::new(&stores.redis.url(), database_url).with("PRICING_L1_MAX_STALENESS", "1h");
        for (variable, value) in settings {
            fleet = fleet.with(variable, value);
        }
        let api = fleet.start(Service::Api).await?;
        let listener = fleet.start(Service::Listener).await?;
        let worker = fleet.start(Service::Worker).await?;
        Ok(Self { stores, fleet, api, listener, worker })
    }

    async fn store(&self) -> Result<Store> {
        self.stores.store().await
    }

    /// Imports products P-0 and so on at 100 USD.
    async fn import(&self, products: usize) -> Result<()> {
        let mut rows = "product_id,currency,base_price,category,floor_price\n".to_owned();
        for number in 0..products {
            rows.push_str(&format!("P-{number},USD,100,category-{},1\n", number % 10));
        }
        let request = self.api.client.request(reqwest::Method::POST, "/api/v1/products/import");
        let reply = self.api.client.send(request.header("content-type", "text/csv").body(rows)).await?;
        ensure!(reply.status == 200 && reply.body["failed"] == 0, "{}", reply.text);
        Ok(())
    }

    async fn publish(&self, id: &str, event_type: &str, data: Value) -> Result<()> {
        let event = json!({
            "specversion": "1.0", "id": id, "source": "/test", "time": Utc::now().to_rfc3339(),
            "type": format!("pricing.{event_type}.v1"), "data": data,
        });
        let reply = self.api.client.post("/api/v1/publish-market-event", &event).await?;
        ensure!(reply.status == 200, "{}", reply.text);
        Ok(())
    }

    async fn request_recalculation(&self, body: Value) -> Result<String> {
        let reply = self.api.client.post("/api/v1/recalculations", &body).await?;
        ensure!(reply.status == 202, "{} {}", reply.status, reply.text);
        Ok(reply.body["task_id"].as_str().context("no task_id")?.to_owned())
    }

    /// Waits until the recalculation has ended. Returns its last state.
    async fn ended(&self, task_id: &str) -> Result<Value> {
        eventually("the recalculation has ended", PATIENCE, async || {
            let reply = self.api.client.get(&format!("/api/v1/recalculations/{task_id}")).await?;
            ensure!(reply.status == 200, "{}", reply.text);
            let state = reply.body["state"].as_str().unwrap_or_default();
            ensure!(["done", "skipped", "failed"].contains(&state), "{}", reply.text);
            Ok(reply.body)
        })
        .await
    }
}

async fn price_becomes(api: &Member, product_id: &str, expected: f64) -> Result<()> {
    eventually(&format!("{product_id} costs {expected}"), PATIENCE, async || {
        let reply = api.client.price(product_id, "NY", false).await?;
        ensure!(reply.body["final_price"] == json!(expected), "{}", reply.text);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_event_becomes_a_price_at_every_api_and_a_repetition_changes_nothing() -> Result<()> {
    let engine = Engine::start(FOLLOWING).await?;
    engine.import(10).await?;
    let other = engine.fleet.start(Service::Api).await?;
    eventually("the API has subscribed, and emptied its memory", PATIENCE, async || {
        ensure!(other.metric("pricing_l1_flushes_total", "").await? > 0);
        Ok(())
    })
    .await?;
    price_becomes(&other, "P-1", 100.0).await?;
    let reads_beyond_memory = async || {
        let name = "pricing_price_reads_total";
        Ok::<_, anyhow::Error>(other.metric(name, "l2").await? + other.metric(name, "catalogue").await?)
    };
    let before = reads_beyond_memory().await?;
    let data = json!({"product_id": "P-1", "competitor": "acme", "price": 41.95});
    engine.publish("1", "competitor_price", data.clone()).await?;
    price_becomes(&other, "P-1", 41.95).await?;
    assert_eq!(reads_beyond_memory().await?, before, "the notice has brought the price");
    price_becomes(&engine.api, "P-1", 41.95).await?;
    engine
        .publish("1", "competitor_price", json!({"product_id": "P-1", "competitor": "acme", "price": 1}))
        .await?;
    engine
        .publish("2", "competitor_price", json!({"product_id": "P-2", "competitor": "acme", "price": 50}))
        .await?;
    price_becomes(&other, "P-2", 50.0).await?;
    price_becomes(&other, "P-1", 41.95).await?;
    let changes = engine.store().await?.price_changes(&ProductId::parse("P-1")?, 10).await?;
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(changes[0].cause.contains("/test"), "{changes:?}");
    Ok(())
}

#[tokio::test]
async fn an_older_event_never_wins_over_a_newer_one() -> Result<()> {
    let engine = Engine::start(FOLLOWING).await?;
    engine.import(2).await?;
    let publish = async |id: &str, age_minutes: i64, price: u32| {
        let event = json!({
            "specversion": "1.0", "id": id, "source": "/test", "type": "pricing.competitor_price.v1",
            "time": (Utc::now() - TimeDelta::minutes(age_minutes)).to_rfc3339(),
            "data": {"product_id": "P-0", "competitor": "acme", "price": price},
        });
        let reply = engine.api.client.post("/api/v1/publish-market-event", &event).await?;
        ensure!(reply.status == 200, "{}", reply.text);
        Ok(())
    };
    publish("newer", 1, 60).await?;
    price_becomes(&engine.api, "P-0", 60.0).await?;
    publish("older", 5, 30).await?;
    engine
        .publish("other", "competitor_price", json!({"product_id": "P-1", "competitor": "a", "price": 9}))
        .await?;
    price_becomes(&engine.api, "P-1", 9.0).await?;
    price_becomes(&engine.api, "P-0", 60.0).await
}

#[tokio::test]
async fn what_was_known_in_another_currency_does_not_count() -> Result<()> {
    let engine = Engine::start(FOLLOWING).await?;
    engine.import(2).await?;
    let data = json!({"product_id": "P-1", "competitor": "acme", "price": 48.10});
    engine.publish("1", "competitor_price", data).await?;
    price_becomes(&engine.api, "P-1", 48.1).await?;
    let product = json!({"currency": "JPY", "base_price": 7500, "floor_price": 1});
    let reply = engine.api.client.put("/api/v1/products/P-1", &product).await?;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let reply = engine.api.client.price("P-1", "NY", false).await?;
    assert_eq!((&reply.body["final_price"], &reply.body["currency"]), (&json!(7500), &json!("JPY")));
    Ok(())
}

#[tokio::test]
async fn locations_categories_and_policies_act_as_they_should() -> Result<()> {
    let engine = Engine::start(FOLLOWING).await?;
    engine.import(20).await?;
    price_becomes(&engine.api, "P-3", 100.0).await?;
    engine.publish("1", "location_factor", json!({"location": "NY", "factor": 0.5})).await?;
    price_becomes(&engine.api, "P-3", 50.0).await?;
    engine.publish("2", "demand_index", json!({"category": "category-3", "index": 1.2})).await?;
    price_becomes(&engine.api, "P-3", 60.0).await?;
    price_becomes(&engine.api, "P-13", 60.0).await?;
    price_becomes(&engine.api, "P-4", 50.0).await?;
    let store = engine.store().await?;
    let doubling = "name: doubling\nmarket:\n  - { name: double, multiply_by: 2 }\n";
    let version = store.publish_policy(&new_policy(doubling), None, Utc::now()).await?;
    engine.publish("3", "policy_published", json!({"version": version})).await?;
    for number in 0..20 {
        price_becomes(&engine.api, &format!("P-{number}"), 200.0).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_event_about_an_unknown_product_is_reported_and_not_retried() -> Result<()> {
    let engine = Engine::start(FOLLOWING).await?;
    engine.import(1).await?;
    engine
        .publish("1", "competitor_price", json!({"product_id": "P-9", "competitor": "acme", "price": 5}))
        .await?;
    eventually("it is counted", PATIENCE, async || {
        let unknown = engine.worker.metric("pricing_events_applied_total", "unknown_product").await?;
        ensure!(unknown == 1, "{unknown}");
        Ok(())
    })
    .await?;
    let jobs = engine.api.client.get("/api/v1/jobs").await?.body;
    assert_eq!((&jobs["outstanding"], &jobs["dead"]), (&json!(0), &json!(0)));
    assert!(engine.worker.process.output()?.contains("P-9"));
    // The fact is kept: the product may be sold later.
    let product = json!({"currency": "USD", "base_price": 10, "floor_price": 1});
    assert_eq!(engine.api.client.put("/api/v1/products/P-9", &product).await?.status, 201);
    price_becomes(&engine.api, "P-9", 5.0).await
}

#[tokio::test]
async fn what_is_published_while_no_listener_runs_is_applied_when_one_does() -> Result<()> {
    const EVENTS: usize = 10_000;
    let mut engine = Engine::start(FOLLOWING).await?;
    engine.import(500).await?;
    engine.listener.kill()?;
    for batch in 0..EVENTS / 1_000 {
        let events: Vec<Value> = (0..1_000)
            .map(|number| {
                let number = batch * 1_000 + number;
                json!({
                    "specversion": "1.0", "id": number.to_string(), "source": "/test",
                    "type": "pricing.competitor_price.v1", "time": Utc::now().to_rfc3339(),
                    "data": {"product_id": format!("P-{}", number % 500), "competitor": "acme", "price": 20 + number % 70},
                })
            })
            .collect();
        let request = engine.api.client.request(reqwest::Method::POST, "/api/v1/publish-market-event");
        let request = request.header("content-type", "application/cloudevents-batch+json");
        let reply = engine.api.client.send(request.body(serde_json::to_string(&events)?)).await?;
        ensure!(reply.status == 200, "{}", reply.text);
    }
    engine.listener.start_again()?;
    engine.listener.wait_until_ready().await?;
    eventually("all are applied", PATIENCE, async || {
        let applied = engine.worker.metric("pricing_events_applied_total", "\"applied\"").await?;
        ensure!(applied == EVENTS as u64, "{applied}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_database_that_takes_no_writes_for_a_while_costs_no_event() -> Result<()> {
    const DATABASE: &str = "takes_no_writes";
    let postgres = PostgresServer::start().await?;
    let url = postgres.create_database(DATABASE).await?;
    let engine = Engine::start_on(Stores::start().await?, &url, FOLLOWING).await?;
    engine.import(3).await?;
    let end_sessions =
        format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{DATABASE}'");
    let set = async |read_only: &str| {
        let setting = format!("ALTER DATABASE {DATABASE} SET default_transaction_read_only = {read_only}");
        postgres.execute("postgres", &setting).await?;
        postgres.execute("postgres", &end_sessions).await
    };
    set("on").await?;
    engine
        .publish("1", "competitor_price", json!({"product_id": "P-1", "competitor": "acme", "price": 5}))
        .await?;
    eventually("the worker has tried", PATIENCE, async || {
        let failed = engine.worker.metric("pricing_job_duration_seconds_count", "\"failed\"").await?;
        // The first may have been in a session that was ended.
        let dead = engine.worker.metric("pricing_jobs_buried_total", "").await?;
        ensure!(failed > 2 || dead > 0);
        Ok(())
    })
    .await?;
    set("off").await?;
    price_becomes(&engine.api, "P-1", 5.0).await?;
    assert_eq!(engine.worker.metric("pricing_jobs_buried_total", "").await?, 0);
    Ok(())
}

#[tokio::test]
async fn listener_and_worker_outlive_redis_and_go_on_when_it_is_back() -> Result<()> {
    let mut engine = Engine::start(FOLLOWING).await?;
    engine.import(5).await?;
    engine.stores.redis.kill()?;
    let event = json!({
        "specversion": "1.0", "id": "1", "source": "/test", "type": "pricing.competitor_price.v1",
        "data": {"product_id": "P-1", "competitor": "acme", "price": 5},
    });
    let reply = engine.api.client.post("/api/v1/publish-market-event", &event).await?;
    assert_eq!(reply.status, 503, "{}", reply.text);
    engine.stores.redis.restart().await?;
    eventually("it is published", PATIENCE, async || {
        engine
            .publish("1", "competitor_price", json!({"product_id": "P-1", "competitor": "acme", "price": 5}))
            .await
    })
    .await?;
    price_becomes(&engine.api, "P-1", 5.0).await?;
    assert!(engine.worker.terminate().await?);
    assert!(engine.listener.terminate().await?);
    Ok(())
}
