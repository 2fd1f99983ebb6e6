//! Three services go on through a fail-over: behind one address, and with Sentinels.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use pricing_core::store::{Store, StoreSettings};
use pricing_e2e::{
    ChaosProxy, HttpClient, RedisSentinel, RedisServer, ServiceProcess, eventually, free_port,
    user_of_sentinel,
};
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
struct Services {
    members: [Member; 3],
    store: Store,
    _directory: tempfile::TempDir,
}

impl Services {
    async fn start(redis_url: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let database = sqlite_url(&directory.path().join("catalogue.db"));
        let store = Store::open(&database, StoreSettings::default()).await?;
        store.publish_policy(&new_policy(POLICY), None, Utc::now()).await?;
        let fleet = Fleet::new(redis_url, &database).with("PRICING_L1_MAX_STALENESS", "1h");
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

    fn client(&self) -> &HttpClient {
        &self.members[0].client
    }

    /// An event, a product and a recalculation arrive, each from its beginning to its end.
    async fn work(&self, round: &str) -> Result<()> {
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
        let task = eventually("a recalculation is taken", patience, async || {
            let reply = client.post("/api/v1/recalculations", &json!({})).await?;
            ensure!(reply.status == 202, "{}", reply.text);
            Ok(reply.body["task_id"].as_str().context("no task")?.to_owned())
        })
        .await?;
        eventually("the recalculation is done", patience, async || {
            let reply = client.get(&format!("/api/v1/recalculations/{task}")).await?;
            ensure!(reply.body["state"] == "done", "{}", reply.text);
            Ok(())
        })
        .await
    }

    /// Publishes events without a pause until it is stopped, each until it is acknowledged or refused.
    fn publish_all_the_time(&self) -> Publishing {
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
    async fn have_applied(&self, ids: &[String]) -> Result<()> {
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
}

struct Publishing {
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
    acknowledged: Arc<Mutex<Vec<String>>>,
}

impl Publishing {
    fn acknowledged(&self) -> Vec<String> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many more events are acknowledged.
    async fn goes_on(&self) -> Result<()> {
        let before = self.acknowledged().len();
        eventually("events are acknowledged", HEALING_PATIENCE, async || {
            let now = self.acknowledged().len();
            ensure!(now >= before + EVENTS, "{before}, and now {now}");
            Ok(())
        })
        .await
    }

    /// Stops, and returns the events that were acknowledged.
    async fn end(self) -> Result<Vec<String>> {
        self.stop.store(true, Ordering::Relaxed);
        let acknowledged = Arc::clone(&self.acknowledged);
        self.task.await?;
        let acknowledged = acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(acknowledged)
    }
}

/// A master with a replica, and three Sentinels that watch them. Servers and Sentinels ask for passwords.
struct Watched {
    master: RedisServer,
    replica: RedisServer,
    sentinels: Vec<RedisSentinel>,
}

impl Watched {
    async fn start() -> Result<Self> {
        let starting = (RedisServer::start_restricted(), RedisServer::start_restricted());
        let (master, replica) = tokio::try_join!(starting.0, starting.1)?;
        replica.follow(&master).await?;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(RedisSentinel::start(&master, 2, &user_of_sentinel()?).await?);
        }
        for sentinel in &sentinels {
            sentinel.wait_for(1, 2).await?;
        }
        Ok(Self { master, replica, sentinels })
    }

    fn url(&self) -> String {
        let hosts: Vec<String> =
            self.sentinels.iter().map(|sentinel| sentinel.address().to_string()).collect();
        format!(
            "redis+sentinel://pricing:p%40ss%3A1@{}/{}/0?sentinel_user=pricing-sentinel&sentinel_password=p%40ss%3A1",
            hosts.join(","),
            RedisSentinel::MASTER
        )
    }

    /// Waits until all Sentinels name the former replica.
    async fn has_failed_over(&self) -> Result<()> {
        eventually("the Sentinels name the other server", PATIENCE, async || {
            for sentinel in &self.sentinels {
                let named = sentinel.master_port().await?;
                ensure!(named == self.replica.port(), "one names {named}");
            }
            Ok(())
        })
        .await
    }
}

fn event(id: &str, product: &str, price: &str) -> serde_json::Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/test", "type": "pricing.competitor_price.v1",
        "time": Utc::now().to_rfc3339(),
        "data": {"product_id": product, "competitor": "acme", "price": price},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn services_follow_a_fail_over_behind_one_address_and_heal_from_silence() -> Result<()> {
    let (a, b) = tokio::try_join!(RedisServer::start(), RedisServer::start())?;
    let proxy = ChaosProxy::start(a.address()).await?;
    let services = Services::start(&format!("redis://{}", proxy.address())).await?;
    b.follow(&a).await?;
    services.work("before").await?;
    // The old master keeps its connections and is a replica now.
    b.promote().await?;
    proxy.redirect(b.address());
    a.follow(&b).await?;
    services.work("fail-over").await?;
    proxy.silence_open();
    services.work("silence").await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_event_is_lost_when_sentinels_fail_over() -> Result<()> {
    let watched = Watched::start().await?;
    // A master without its replica takes no writes, so a former one takes none that would be lost.
    for server in [&watched.master, &watched.replica] {
        let mut require = redis::cmd("CONFIG");
        require.arg("SET").arg("min-replicas-to-write").arg(1);
        require.exec_async(&mut server.connection().await?).await?;
    }
    let services = Services::start(&watched.url()).await?;
    let publishing = services.publish_all_the_time();
    publishing.goes_on().await?;
    watched.sentinels[0].fail_over().await?;
    watched.has_failed_over().await?;
    publishing.goes_on().await?;
    services.work("after").await?;
    let acknowledged = publishing.end().await?;
    services.have_applied(&acknowledged).await
}

#[tokio::test(flavor = "multi_thread")]
async fn services_heal_when_the_master_is_killed() -> Result<()> {
    let mut watched = Watched::start().await?;
    let services = Services::start(&watched.url()).await?;
    services.work("before").await?;
    watched.master.kill()?;
    watched.has_failed_over().await?;
    services.work("killed").await?;
    // A Sentinel that does not answer does not matter.
    watched.sentinels.remove(0);
    let mut members = services.members;
    members[2].kill()?;
    members[2].start_again()?;
    members[2].wait_until_ready().await?;
    for member in &members {
        let said = member.process.output()?;
        assert!(!said.contains("p@ss") && !said.contains("p%40ss"), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn pricing_up_takes_sentinels_and_the_doctor_finds_it_well() -> Result<()> {
    let watched = Watched::start().await?;
    let directory = tempfile::tempdir()?;
    let directory = directory.path().to_str().context("a path of text")?;
    let listen = format!("127.0.0.1:{}", free_port()?);
    let redis_url = watched.url();
    let arguments =
        ["up", "--listen", &listen, "--data-dir", directory, "--no-sample", "--redis-url", &redis_url];
    let mut process = ServiceProcess::start("pricing", &[], &arguments)?;
    let url = format!("http://{listen}");
    process.wait_until_ready(&url).await?;
    eventually("it says where Redis is", PATIENCE, async || {
        let said = process.output()?;
        ensure!(said.contains("redis+sentinel://…@127.0.0.1:"), "so far: {said}");
        assert!(!said.contains("p%40ss"), "{said}");
        Ok(())
    })
    .await?;
    let mut doctor = ServiceProcess::start("pricing", &[("PRICING_URL", &url)], &["doctor"])?;
    ensure!(doctor.wait(PATIENCE).await?.success(), "{}", doctor.output()?);
    Ok(())
}
