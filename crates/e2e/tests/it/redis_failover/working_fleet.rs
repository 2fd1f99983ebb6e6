//! Three services that are at work while a test does something to their Redis.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use pricing_core::store::{Store, StoreSettings};
use pricing_e2e::{HttpClient, ServiceProcess, eventually};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::fleet::{Fleet, Member, Service};
use crate::support::{new_policy, sqlite_url};

/// The promise behind one address is five seconds; a busy host needs more.
const HEALING_PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(120);
const POLICY: &str = "
name: following
market:
  - { name: match, when: competitor.min != null, match: { reference: competitor.min } }
rounding: { mode: half_even }
";
const PRODUCTS: usize = 40;
/// Events in a second.
const EVENT_INTERVAL: Duration = Duration::from_millis(50);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How many events there are before and after a fail-over, at least.
const EVENTS: usize = 60;

/// API, worker and listener.
pub(super) struct Services {
    pub(super) members: [Member; 3],
    store: Store,
    _directory: tempfile::TempDir,
}

impl Services {
    /// Starts them with a few products, whose prices follow events.
    pub(super) async fn start(redis_url: &str) -> Result<Self> {
        Self::start_with(redis_url, &[]).await
    }

    /// [`start`](Self::start) with these variables.
    pub(super) async fn start_with(redis_url: &str, variables: &[(&str, &str)]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let database = sqlite_url(&directory.path().join("catalogue.db"));
        let store = Store::open(&database, StoreSettings::default()).await?;
        store.publish_policy(&new_policy(POLICY), None, Utc::now()).await?;
        let fleet = Fleet::new(redis_url, &database).with("PRICING_L1_MAX_STALENESS", "1h");
        let fleet = variables.iter().fold(fleet, |fleet, (name, value)| fleet.with(name, value));
        let members = [
            fleet.start(Service::Api).await?,
            fleet.start(Service::Worker).await?,
            fleet.start(Service::Listener).await?,
        ];
        let services = Self { members, store, _directory: directory };
        let mut rows = "product_id,currency,base_price,floor_price\n".to_owned();
        for number in 0..PRODUCTS {
            rows.push_str(&format!("P-{number},USD,100,1\n"));
        }
        let client = services.client();
        let request = client.request(reqwest::Method::POST, "/api/v1/products/import");
        let reply = client.send(request.header("content-type", "text/csv").body(rows)).await?;
        ensure!(reply.status == 200 && reply.body["failed"] == 0, "{}", reply.text);
        Ok(services)
    }

    pub(super) fn client(&self) -> &HttpClient {
        &self.members[0].client
    }

    /// An event, a product and a recalculation arrive, each from its beginning to its end.
    pub(super) async fn work(&self, round: &str) -> Result<()> {
        let outcome = self.work_within(round, HEALING_PATIENCE).await;
        outcome.with_context(|| {
            let outputs = self.members.iter().map(|member| member.process.output().unwrap_or_default());
            outputs.collect::<Vec<_>>().join("\n---\n")
        })
    }

    async fn work_within(&self, round: &str, patience: Duration) -> Result<()> {
        let client = self.client();
        let cents = 1_000 + round.bytes().map(u64::from).sum::<u64>();
        let price = format!("{}.{:02}", cents / 100, cents % 100);
        let product = json!({"currency": "USD", "base_price": 50, "floor_price": 1});
        eventually("a product is written", patience, async || {
            let reply = client.put(&format!("/api/v1/products/{round}"), &product).await?;
            ensure!(reply.status.is_success(), "{}", reply.text);
            Ok(())
        })
        .await?;
        eventually("an event is acknowledged", patience, async || {
            let reply = client.post("/api/v1/publish-market-event", &event(round, round, &price)).await?;
            ensure!(reply.status == 200, "{}", reply.text);
            Ok(())
        })
        .await?;
        // The API holds the first price in memory: the change has to come as a notification.
        eventually("the event's price is served", patience, async || {
            let reply = client.price(round, "NY", false).await?;
            ensure!(reply.text.contains(&price), "not {price}: {}", reply.text);
            Ok(())
        })
        .await?;
        let mut task = eventually("a recalculation is taken", patience, async || {
            let reply = client.post("/api/v1/recalculations", &json!({})).await?;
            ensure!(reply.status == 202, "{}", reply.text);
            Ok(reply.body["task_id"].as_str().context("no task")?.to_owned())
        })
        .await?;
        eventually("the recalculation is done", patience, async || {
            let reply = client.get(&format!("/api/v1/recalculations/{task}")).await?;
            // If a run held the lease as its Redis was killed, another run does the work of this one.
            if let Some(follow_up) = reply.body["follow_up_task_id"].as_str() {
                task = follow_up.to_owned();
            }
            ensure!(reply.body["state"] == "done", "{}", reply.text);
            Ok(())
        })
        .await
    }

    /// Publishes events without a pause until it is stopped, each until it is acknowledged or refused.
    pub(super) fn publish_all_the_time(&self) -> Publishing {
        let (client, stop) = (self.client().clone(), Arc::new(AtomicBool::new(false)));
        let (stopped, acknowledged) = (Arc::clone(&stop), Arc::<Mutex<Vec<String>>>::default());
        let kept = Arc::clone(&acknowledged);
        let task = tokio::spawn(async move {
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                number += 1;
                let id = format!("event-{number}");
                let product = format!("P-{}", number % PRODUCTS);
                let body = event(&id, &product, &format!("20.{:02}", number % 100));
                let reply = client.post("/api/v1/publish-market-event", &body).await;
                if reply.is_ok_and(|reply| reply.status == 200) {
                    acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(id);
                }
                sleep(EVENT_INTERVAL).await;
            }
        });
        Publishing { stop, task, acknowledged: kept }
    }

    /// Waits until all of these events are applied.
    pub(super) async fn have_applied(&self, ids: &[String]) -> Result<()> {
        let ids: Vec<(&str, &str)> = ids.iter().map(|id| ("/test", id.as_str())).collect();
        eventually("every acknowledged event is applied", PATIENCE, async || {
            // The database has one writer at a time, and the worker shall be it.
            sleep(LOOK_INTERVAL).await;
            let mut transaction = self.store.begin().await?;
            let is_new = transaction.record_events(&ids, Utc::now()).await?;
            let lost = is_new.iter().filter(|is_new| **is_new).count();
            ensure!(lost == 0, "{lost} of {} are not", ids.len());
            Ok(())
        })
        .await
    }

    /// Waits until `pricing doctor` finds that all served prices are the stored ones, and nothing else wrong.
    /// Returns what it says.
    pub(super) async fn are_well(&self) -> Result<String> {
        let url = format!("http://{}", self.members[0].address());
        eventually("the doctor finds nothing wrong", PATIENCE, async || {
            let environment = [("PRICING_URL", url.as_str())];
            let mut doctor = ServiceProcess::start("pricing", &environment, &["doctor", "--prices"])?;
            let code = doctor.wait(PATIENCE).await?;
            let said = doctor.output()?;
            ensure!(code.success() && said.contains("what is served is what is stored"), "{said}");
            Ok(said)
        })
        .await
    }
}

/// Events that are published all the time.
pub(super) struct Publishing {
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
    acknowledged: Arc<Mutex<Vec<String>>>,
}

impl Publishing {
    pub(super) fn acknowledged(&self) -> Vec<String> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many more events are acknowledged.
    pub(super) async fn goes_on(&self) -> Result<()> {
        let before = self.acknowledged().len();
        eventually("events are acknowledged", HEALING_PATIENCE, async || {
            let now = self.acknowledged().len();
            ensure!(now >= before + EVENTS, "{before}, and now {now}");
            Ok(())
        })
        .await
    }

    /// Stops, and returns the events that were acknowledged.
    pub(super) async fn end(self) -> Result<Vec<String>> {
        self.stop.store(true, Ordering::Relaxed);
        let acknowledged = Arc::clone(&self.acknowledged);
        self.task.await?;
        let acknowledged = acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(acknowledged)
    }
}

/// A competitor's price, which is the product's new price.
pub(super) fn event(id: &str, product: &str, price: &str) -> serde_json::Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/test", "type": "pricing.competitor_price.v1",
        "time": Utc::now().to_rfc3339(),
        "data": {"product_id": product, "competitor": "acme", "price": price},
    })
}
