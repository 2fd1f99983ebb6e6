//! Moves of prices by market events: beyond the circuit breaker's limit they are held, on every path that
//! prices, until someone decides or newer facts say otherwise.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use pricing_core::audit::{Action, Origin};
use pricing_core::cache::Now;
use pricing_core::engine::{Engine, HoldDecision};
use pricing_core::store::{AuditFilter, StoreSettings};
use pricing_domain::facts::market_event::{Change, EventId, MarketEvent};
use pricing_domain::facts::product::{Product, ProductDraft, ProductId};
use pricing_domain::facts::signal::{Signal, SignalKind, Subject};
use pricing_e2e::{HttpClient, RedisServer, ServiceProcess, eventually};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::fleet::{Fleet, Member, Service};
use crate::support::{Stores, new_policy, open_engine, shared_postgres, sqlite_url};

const PATIENCE: Duration = Duration::from_secs(60);

const COSTS: &str = "
name: costs
market:
  - { name: cost, cost_plus: 40% }
circuit_breaker: { moved_products: 20%, moved_by: 10% }
";

/// Processes on a private Redis and a SQLite file, with ten products at 70.00 that cost 50.
struct Shop {
    stores: Stores,
    fleet: Fleet,
    api: Member,
    _listener: Member,
    workers: Vec<Member>,
}

impl Shop {
    async fn start(products: usize, workers: usize) -> Result<Self> {
        let stores = Stores::start().await?;
        stores.store().await?.publish_policy(&new_policy(COSTS), None, Utc::now()).await?;
        let fleet = Fleet::new(&stores.redis.url(), &stores.database_url());
        let (api, listener) = (fleet.start(Service::Api).await?, fleet.start(Service::Listener).await?);
        let mut running = Vec::new();
        for _ in 0..workers {
            running.push(fleet.start(Service::Worker).await?);
        }
        let rows: String = (0..products).map(|number| format!("P-{number},USD,60,50\n")).collect();
        let csv = format!("product_id,currency,base_price,unit_cost\n{rows}");
        let request = api.client.request(reqwest::Method::POST, "/api/v1/products/import");
        let reply = api.client.send(request.header("content-type", "text/csv").body(csv)).await?;
        ensure!(reply.body["failed"] == 0, "{}", reply.text);
        Ok(Self { stores, fleet, api, _listener: listener, workers: running })
    }

    fn client(&self) -> &HttpClient {
        &self.api.client
    }

    /// Publishes a cost of each product, with identifiers that begin like this.
    async fn publish(&self, id: &str, products: std::ops::Range<usize>, cost: &str) -> Result<()> {
        let cost: Value = serde_json::from_str(cost)?;
        let events: Vec<Value> = products
            .map(|number| {
                json!({
                    "specversion": "1.0", "id": format!("{id}-{number}"), "source": "/test",
                    "time": Utc::now().to_rfc3339(), "type": "pricing.unit_cost.v1",
                    "data": {"product_id": format!("P-{number}"), "cost": cost},
                })
            })
            .collect();
        for event in events {
            let reply = self.client().post("/api/v1/publish-market-event", &event).await?;
            ensure!(reply.status == 200, "{}", reply.text);
        }
        Ok(())
    }

    async fn applied(&self, events: u64) -> Result<()> {
        eventually("the events are applied", PATIENCE, async || {
            let applied = self.workers[0].metric("pricing_events_applied_total", "\"applied\"").await?;
            ensure!(applied == events, "{applied}");
            Ok(())
        })
        .await
    }

    async fn held(&self) -> Result<Value> {
        let reply = self.client().get("/api/v1/held-moves?limit=1000").await?;
        ensure!(reply.status == 200, "{}", reply.text);
        Ok(reply.body)
    }

    async fn decide(&self, decision: &str, body: Value) -> Result<Value> {
        let path = format!("/api/v1/held-moves/{decision}?by=zoe");
        let reply = self.client().post(&path, &body).await?;
        ensure!(reply.status == 200, "{}", reply.text);
        Ok(reply.body)
    }

    /// Waits until so many products have each of these prices at an API.
    async fn prices_become(&self, client: &HttpClient, expected: &[(&str, usize)]) -> Result<()> {
        let expected: BTreeMap<String, usize> =
            expected.iter().map(|(price, products)| ((*price).to_owned(), *products)).collect();
        let all: usize = expected.values().sum();
        eventually("the products have these prices", PATIENCE, async || {
            let mut found = BTreeMap::new();
            for number in 0..all {
                let reply = client.price(&format!("P-{number}"), "NY", false).await?;
                *found.entry(reply.body["final_price"].to_string()).or_default() += 1;
            }
            ensure!(found == expected, "{found:?}");
            Ok(())
        })
        .await
    }

    async fn recalculate(&self) -> Result<()> {
        let reply = self.client().post("/api/v1/recalculations", &json!({})).await?;
        let task_id = reply.body["task_id"].as_str().context("no task_id")?.to_owned();
        eventually("the recalculation is done", PATIENCE, async || {
            let reply = self.client().get(&format!("/api/v1/recalculations/{task_id}")).await?;
            ensure!(reply.body["state"] == "done", "{}", reply.text);
            Ok(())
        })
        .await
    }
}

#[tokio::test]
async fn costs_in_cents_move_a_fifth_of_the_products_and_the_others_wait() -> Result<()> {
    let shop = Shop::start(10, 1).await?;
    let client = shop.client();
    shop.prices_become(client, &[("70.0", 10)]).await?;
    shop.publish("cents", 0..10, "0.50").await?;
    shop.applied(10).await?;
    shop.prices_become(client, &[("0.7", 2), ("70.0", 8)]).await?;

    let held = shop.held().await?;
    let moves = held["moves"].as_array().context("no moves")?;
    assert_eq!((&held["count"], moves.len()), (&json!(8), 8), "{held}");
    assert_eq!(moves[0]["list_price"], json!(70.0));
    let reason = moves[0]["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("by -99% from 70.00 to 0.70 USD; events have moved 2 of 10 products"),
        "{reason}"
    );
    let page = client.get("/api/v1/held-moves?limit=3").await?.body;
    assert_eq!((&page["count"], &page["next_after"]), (&json!(8), &page["moves"][2]["product_id"]));
    let ready = client.get("/readyz").await?.body;
    assert_eq!(ready["status"], json!("ready"), "{ready}");
    assert!(ready["checks"].to_string().contains("wait for a decision: 8"), "{ready}");
    assert_eq!(shop.workers[0].metric("pricing_event_holds_total", "").await?, 8);
    eventually("the worker has counted what is held", PATIENCE, async || {
        ensure!(shop.workers[0].metric("pricing_event_moves_held", "").await? == 8);
        Ok(())
    })
    .await?;

    let url = format!("http://{}", shop.api.address());
    let mut listing = ServiceProcess::start("pricing", &[("PRICING_URL", &url)], &["approve"])?;
    ensure!(listing.wait(PATIENCE).await?.success());
    let listed = listing.output()?;
    assert!(listed.contains("8 moves of prices by market events are held:"), "{listed}");
    assert_eq!(listed.matches("from 70.00 to 0.70 USD").count(), 8, "{listed}");

    // The other paths that price know the hold: a recalculation; an API that has no price in memory when
    // Redis has none; a new row.
    shop.recalculate().await?;
    shop.prices_become(client, &[("0.7", 2), ("70.0", 8)]).await?;
    redis::cmd("FLUSHALL").query_async::<()>(&mut shop.stores.redis.connection().await?).await?;
    let api = shop.fleet.start(Service::Api).await?;
    shop.prices_become(&api.client, &[("0.7", 2), ("70.0", 8)]).await?;
    let product = json!({"currency": "USD", "base_price": 61, "unit_cost": 50});
    let first = moves[0]["product_id"].as_str().context("no product")?.to_owned();
    let put = client.put(&format!("/api/v1/products/{first}"), &product).await?;
    ensure!(put.status == 200, "{}", put.text);
    shop.prices_become(client, &[("0.7", 2), ("70.0", 8)]).await?;
    Ok(())
}

#[tokio::test]
async fn a_held_move_waits_for_a_decision_or_for_the_right_facts() -> Result<()> {
    let shop = Shop::start(10, 1).await?;
    let client = shop.client();
    shop.publish("cents", 0..10, "0.50").await?;
    shop.applied(10).await?;
    shop.prices_become(client, &[("0.7", 2), ("70.0", 8)]).await?;
    let held = shop.held().await?;
    let ids: Vec<&str> = held["moves"]
        .as_array()
        .context("no moves")?
        .iter()
        .filter_map(|held| held["product_id"].as_str())
        .collect();

    let approved = shop.decide("approve", json!({"product_ids": [ids[0], ids[1], "unknown"]})).await?;
    assert_eq!(approved, json!({"moves": 2}));
    shop.prices_become(client, &[("0.7", 4), ("70.0", 6)]).await?;
    let history = client.get(&format!("/api/v1/products/{}/history", ids[0])).await?.body;
    assert_eq!(history["changes"][0]["cause"], json!("approved by zoe"), "{history}");
    assert_eq!(shop.decide("approve", json!({"product_ids": [ids[0]]})).await?, json!({"moves": 0}));

    assert_eq!(shop.decide("reject", json!({"product_ids": [ids[2], ids[3]]})).await?, json!({"moves": 2}));
    assert_eq!(shop.held().await?["count"], json!(4));
    shop.recalculate().await?;
    shop.prices_become(client, &[("0.7", 4), ("70.0", 6)]).await?;

    // Another wrong cost changes nothing, the right one ends a hold whatever was decided.
    let number = |id: &str| id.trim_start_matches("P-").parse::<usize>();
    let (rejected, waiting) = (number(ids[2])?, number(ids[4])?);
    shop.publish("again", rejected..rejected + 1, "0.60").await?;
    shop.publish("again", waiting..waiting + 1, "0.60").await?;
    // The recalculation was requested by an event, too.
    shop.applied(13).await?;
    shop.prices_become(client, &[("0.7", 4), ("70.0", 6)]).await?;
    shop.publish("right", rejected..rejected + 1, "51").await?;
    shop.publish("right", waiting..waiting + 1, "51").await?;
    shop.prices_become(client, &[("0.7", 4), ("70.0", 4), ("71.4", 2)]).await?;
    assert_eq!(shop.held().await?["count"], json!(3));

    let url = format!("http://{}", shop.api.address());
    let arguments = ["approve", "events", "--by", "zoe"];
    let mut approving = ServiceProcess::start("pricing", &[("PRICING_URL", &url)], &arguments)?;
    ensure!(approving.wait(PATIENCE).await?.success());
    assert!(approving.output()?.contains("3 moves of prices are approved"), "{}", approving.output()?);
    shop.prices_become(client, &[("0.7", 7), ("70.0", 1), ("71.4", 2)]).await?;
    // What was rejected may still be approved, by name.
    assert_eq!(shop.decide("approve", json!({"product_ids": [ids[3]]})).await?, json!({"moves": 1}));
    shop.prices_become(client, &[("0.7", 8), ("71.4", 2)]).await?;
    for (path, body, status) in [
        ("/api/v1/held-moves/approve", json!({}), 422),
        ("/api/v1/held-moves/approve?by=zoe", json!({"product_ids": []}), 422),
        ("/api/v1/held-moves/reject?by=zoe", json!({"products": ["P-1"]}), 422),
    ] {
        let reply = client.post(path, &body).await?;
        assert_eq!(reply.status, status, "{path}: {}", reply.text);
    }
    assert_eq!(client.get("/api/v1/held-moves?limit=1001").await?.status, 422);
    Ok(())
}

#[tokio::test]
async fn workers_that_are_killed_lose_no_event_and_pass_no_limit() -> Result<()> {
    let mut shop = Shop::start(50, 2).await?;
    for round in 0..5 {
        shop.publish("cents", round * 10..round * 10 + 10, "0.50").await?;
        let worker = &mut shop.workers[round % 2];
        worker.kill()?;
        worker.start_again()?;
    }
    for worker in &mut shop.workers {
        worker.wait_until_ready().await?;
    }
    eventually("every event has moved a price or is held", PATIENCE, async || {
        let held = shop.held().await?;
        ensure!(held["count"] == json!(40), "{}", held["count"]);
        Ok(())
    })
    .await?;
    // A new API has nothing in memory.
    let api = shop.fleet.start(Service::Api).await?;
    shop.prices_become(&api.client, &[("0.7", 10), ("70.0", 40)]).await?;
    let moved =
        shop.stores.store().await?.begin().await?.count_event_moves(100_000, Utc::now() - HOUR).await?;
    assert_eq!(moved, 10);
    Ok(())
}

const HOUR: chrono::TimeDelta = chrono::TimeDelta::hours(1);

fn products(count: usize) -> Result<Vec<Product>> {
    let drafts = (0..count).map(|number| {
        let draft = format!(
            r#"{{"product_id":"P-{number:03}","currency":"USD","base_price":60,"unit_cost":50,"category":"kitchen"}}"#
        );
        let draft: ProductDraft = serde_json::from_str(&draft)?;
        draft.check().map_err(|problems| anyhow::anyhow!("{problems:?}"))
    });
    drafts.collect()
}

fn cost_event(id: &str, product: &ProductId, cents: i64) -> MarketEvent {
    let subject = Subject::Product(product.to_string());
    let now = Utc::now();
    MarketEvent {
        id: EventId { source: "/test".to_owned(), id: id.to_owned() },
        time: now,
        change: Change::Signal(Signal::new(subject, SignalKind::UnitCost, Decimal::new(cents, 2), now)),
    }
}

/// An engine in this process, whose policy in use is this one.
async fn engine(url: &str, redis: &RedisServer, policy: &str) -> Result<Engine> {
    let store = pricing_core::store::Store::open(url, StoreSettings::default()).await?;
    store.publish_policy(&new_policy(policy), None, Utc::now()).await?;
    open_engine(url, redis, "held:").await
}

async fn list_price(engine: &Engine, id: &ProductId) -> Result<String> {
    let price = engine.store.stored_price(id).await?.context("no price")?;
    Ok(price.entry.list_price.to_string())
}

async fn apply(engine: &Engine, id: &str, product: &ProductId, cents: i64) -> Result<()> {
    engine.apply_events(vec![cost_event(id, product, cents)], None, true).await?;
    Ok(())
}

#[tokio::test]
async fn workers_that_apply_events_at_once_do_not_pass_the_limit_together() -> Result<()> {
    const PRODUCTS: usize = 60;
    let redis = RedisServer::start().await?;
    let url = shared_postgres().await?.create_database("events_at_once").await?;
    let first = engine(&url, &redis, COSTS).await?;
    let second = open_engine(&url, &redis, "held:").await?;
    let catalogue = products(PRODUCTS)?;
    first.put_products(catalogue.clone(), "test").await?;
    let applied = catalogue.chunks(3).enumerate().map(|(number, chunk)| {
        let engine = if number % 2 == 0 { &first } else { &second };
        let events =
            chunk.iter().map(|product| cost_event(product.product_id.as_str(), &product.product_id, 50));
        engine.apply_events(events.collect(), None, true)
    });
    futures::future::try_join_all(applied).await?;
    let mut moved = 0;
    for product in &catalogue {
        match list_price(&first, &product.product_id).await?.as_str() {
            "0.70" => moved += 1,
            other => assert_eq!(other, "70.00"),
        }
    }
    assert_eq!((moved, first.store.count_held_moves().await?), (12, 48));
    Ok(())
}

#[tokio::test]
async fn small_moves_add_up_and_a_product_that_counts_may_move_on() -> Result<()> {
    let redis = RedisServer::start().await?;
    let directory = tempfile::tempdir()?;
    let engine = engine(&sqlite_url(&directory.path().join("catalogue.db")), &redis, COSTS).await?;
    let catalogue = products(5)?;
    engine.put_products(catalogue.clone(), "test").await?;
    let ids: Vec<&ProductId> = catalogue.iter().map(|product| &product.product_id).collect();
    for (step, cents) in [5_400, 5_800, 6_200].into_iter().enumerate() {
        apply(&engine, &format!("first-{step}"), ids[0], cents).await?;
        apply(&engine, &format!("second-{step}"), ids[1], cents).await?;
    }
    assert_eq!(list_price(&engine, ids[0]).await?, "86.80", "one of five may move");
    assert_eq!(list_price(&engine, ids[1]).await?, "75.60", "8 % is not far, 16 % are");
    assert_eq!(engine.store.count_held_moves().await?, 1);
    // A read that finds no cached price keeps it, and so does the end of the price's validity.
    engine.reprice_expired(Utc::now()).await?;
    let read = engine.read(ids[1].as_str(), Now::read(&engine.clock)).await;
    assert!(read.is_ok_and(|read| read.entry.list_price == Decimal::new(7_560, 2)));
    // The seller's own word on the cost ends it: both facts say the same then.
    let mut stated = catalogue[1].clone();
    stated.unit_cost = Some(Decimal::from(55));
    engine.put_products(vec![stated], "test").await?;
    assert_eq!(list_price(&engine, ids[1]).await?, "77.00");
    let facts = engine.store.facts(std::slice::from_ref(ids[1]), Utc::now()).await?.known;
    assert!(
        facts[0].held.is_none() && facts[0].price.as_ref().is_some_and(|price| price.event_hold.is_none())
    );
    Ok(())
}

#[tokio::test]
async fn a_new_policy_prices_held_products_by_the_facts_they_keep() -> Result<()> {
    let redis = RedisServer::start().await?;
    let url = shared_postgres().await?.create_database("held_and_published").await?;
    let engine = engine(&url, &redis, COSTS).await?;
    let catalogue = products(5)?;
    engine.put_products(catalogue.clone(), "test").await?;
    for product in &catalogue {
        apply(&engine, product.product_id.as_str(), &product.product_id, 50).await?;
    }
    assert_eq!(engine.store.count_held_moves().await?, 4);
    // Without a circuit breaker nothing more is held, and what is held stays held.
    let higher = "name: higher\nmarket:\n  - { name: cost, cost_plus: 50% }\n";
    engine.store.publish_policy(&new_policy(higher), None, Utc::now()).await?;
    engine.policies.refresh().await?;
    let policy = std::sync::Arc::clone(engine.policies.snapshot().current());
    let scope = pricing_domain::facts::recalculation::RecalculationScope::All;
    let mut simulator = engine.simulator(policy, scope, Utc::now());
    let simulated = simulator.next_page().await?;
    assert!(
        simulated.iter().skip(1).all(|price| price.simulated_list_price == Decimal::new(7_500, 2)),
        "{simulated:?}"
    );
    let last = &catalogue[4].product_id;
    apply(&engine, "again", last, 60).await?;
    assert_eq!(list_price(&engine, last).await?, "75.00");
    assert_eq!(engine.store.count_held_moves().await?, 4);
    assert_eq!(engine.decide_held_moves(None, HoldDecision::Approve, "zoe", &Origin::engine()).await?, 4);
    let decided = AuditFilter { action: Some(Action::MovesApprove), ..AuditFilter::default() };
    let decided = engine.store.recorded_changes(&decided, None, 10).await?;
    let named = decided.first().and_then(|change| change.after.as_deref()).unwrap_or_default();
    assert!(decided.len() == 1 && named.contains(last.as_str()), "{decided:?}");
    assert_eq!(list_price(&engine, last).await?, "0.90");
    Ok(())
}
