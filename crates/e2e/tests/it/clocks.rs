//! Processes whose clock is wrong: they say so, and write nothing of the future.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use pricing_core::store::{Store, StoreSettings};
use pricing_domain::facts::product::ProductId;
use pricing_e2e::{SetClock, eventually};
use serde_json::{Value, json};

use crate::fleet::{Fleet, Member, Service};
use crate::support::{Stores, new_policy, shared_postgres};

const PATIENCE: Duration = Duration::from_secs(60);
const POLICY: &str = "name: clocks\nmarket: [{ name: cost, set_to: product.unit_cost * 2 }]\n";

/// Services with right clocks, and one of them again with a wrong one.
struct World {
    api: Member,
    wrong: Member,
    store: Store,
    _others: Vec<Member>,
    _stores: Stores,
    _clock: SetClock,
}

impl World {
    /// A wrong API beside right services, or a wrong worker beside a right API.
    async fn start(database: &str, wrong: Service, difference: TimeDelta) -> Result<Self> {
        let url = shared_postgres().await?.create_database(database).await?;
        let store = Store::open(&url, StoreSettings::default()).await?;
        store.publish_policy(&new_policy(POLICY), None, Utc::now()).await?;
        let stores = Stores::start().await?;
        let fleet = Fleet::new(&stores.redis.url(), &url);
        let clock = SetClock::wrong_by(difference)?;
        let with_clock =
            clock.environment().iter().fold(fleet.clone(), |fleet, (name, value)| fleet.with(name, value));
        let api = fleet.start(Service::Api).await?;
        let mut others = vec![fleet.start(Service::Listener).await?];
        if wrong != Service::Worker {
            others.push(fleet.start(Service::Worker).await?);
        }
        let wrong = with_clock.start(wrong).await?;
        Ok(Self { api, wrong, store, _others: others, _stores: stores, _clock: clock })
    }

    async fn put(&self, id: &str) -> Result<()> {
        let product = json!({"currency": "USD", "base_price": 10, "unit_cost": 5});
        let reply = self.api.client.put(&format!("/api/v1/products/{id}"), &product).await?;
        ensure!(reply.status == 201, "{}", reply.text);
        Ok(())
    }

    async fn costs(&self, id: &str, expected: f64) -> Result<()> {
        eventually(&format!("{id} costs {expected}"), PATIENCE, async || {
            let reply = self.api.client.price(id, "NY", false).await?;
            ensure!(reply.body["final_price"] == json!(expected), "{}", reply.text);
            Ok(())
        })
        .await
    }

    /// No row of the history is of the future or stands before its predecessor.
    async fn history_is_in_order(&self, id: &str) -> Result<()> {
        let changes = self.store.price_changes(&ProductId::parse(id)?, 100).await?;
        let instants: Vec<DateTime<Utc>> = changes.iter().rev().map(|change| change.changed_at).collect();
        assert!(instants.is_sorted(), "{instants:?}");
        let last = *instants.last().context("no history")?;
        assert!(last <= Utc::now() + TimeDelta::seconds(1), "{instants:?}");
        Ok(())
    }
}

/// Publishes a cost without a time.
async fn publish_cost(api: &Member, event_id: &str, id: &str, cost: u32) -> Result<()> {
    let event = json!({
        "specversion": "1.0", "id": event_id, "source": "/test", "type": "pricing.unit_cost.v1",
        "data": {"product_id": id, "cost": cost},
    });
    let reply = api.client.post("/api/v1/publish-market-event", &event).await?;
    ensure!(reply.status == 200, "{}", reply.text);
    Ok(())
}

async fn check_of(member: &Member, name: &str) -> Result<Value> {
    let readiness = member.client.get("/readyz").await?;
    let checks = readiness.body["checks"].as_array().cloned().unwrap_or_default();
    checks.into_iter().find(|check| check["name"] == name).with_context(|| readiness.text)
}

#[tokio::test]
async fn an_api_that_is_a_day_ahead_or_behind_says_so_and_freezes_no_fact() -> Result<()> {
    for (database, days, said) in [("api_ahead", 1, "ahead"), ("api_behind", -1, "behind")] {
        let world = World::start(database, Service::Api, TimeDelta::days(days)).await?;
        world.put("T-1").await?;
        publish_cost(&world.wrong, "1", "T-1", 100).await?;
        world.costs("T-1", 200.0).await?;
        publish_cost(&world.api, "2", "T-1", 2).await?;
        world.costs("T-1", 4.0).await?;
        publish_cost(&world.wrong, "3", "T-1", 3).await?;
        world.costs("T-1", 6.0).await?;
        world.history_is_in_order("T-1").await?;
        let clock = check_of(&world.wrong, "clock").await?;
        assert_eq!(clock["status"], "failed", "{clock}");
        let detail = clock["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(said), "{detail}");
        assert_eq!(world.wrong.client.get("/readyz").await?.body["status"], "degraded");
        assert_eq!(check_of(&world.api, "clock").await?["status"], "ok");
        let output = world.wrong.process.output()?;
        assert!(output.contains("this process's clock is 86"), "{output}");
        let metrics = world.wrong.client.get("/metrics").await?.text;
        let difference =
            metrics.lines().find_map(|line| line.strip_prefix("pricing_clock_difference_seconds{"));
        let difference = difference.or_else(|| {
            metrics.lines().find_map(|line| line.strip_prefix("pricing_clock_difference_seconds "))
        });
        let difference: f64 = difference.context("no metric")?.rsplit(' ').next().unwrap_or("").parse()?;
        assert!((difference - 86_400.0).abs() < 2.0, "{difference}");
    }
    Ok(())
}

#[tokio::test]
async fn a_worker_that_is_a_day_ahead_writes_no_history_of_the_future() -> Result<()> {
    let world = World::start("worker_ahead", Service::Worker, TimeDelta::days(1)).await?;
    world.put("T-1").await?;
    for (number, cost) in [(1, 100), (2, 2), (3, 30)] {
        publish_cost(&world.api, &number.to_string(), "T-1", cost).await?;
        world.costs("T-1", f64::from(cost * 2)).await?;
        // A change by a process with a right clock, right after.
        let product = json!({"currency": "USD", "base_price": 10, "unit_cost": 5});
        assert_eq!(world.api.client.put("/api/v1/products/T-1", &product).await?.status, 200);
        world.costs("T-1", 10.0).await?;
    }
    world.history_is_in_order("T-1").await?;
    let reply = world.api.client.post("/api/v1/recalculations", &json!({})).await?;
    let task_id = reply.body["task_id"].as_str().context("no task_id")?.to_owned();
    let run = eventually("the run is done", PATIENCE, async || {
        let run = world.api.client.get(&format!("/api/v1/recalculations/{task_id}")).await?.body;
        ensure!(run["state"] == "done", "{run}");
        Ok(run)
    })
    .await?;
    let instant = |field: &str| run[field].as_str().and_then(|text| text.parse::<DateTime<Utc>>().ok());
    assert!(instant("requested_at") <= instant("started_at"), "{run}");
    assert!(instant("started_at") <= Some(Utc::now() + TimeDelta::seconds(1)), "{run}");
    Ok(())
}
