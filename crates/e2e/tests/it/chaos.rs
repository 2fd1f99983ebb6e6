//! Every process is killed again and again while the market moves; afterwards nothing is lost and nothing was
//! done twice.
//!
//! A failure names its seed, which fixes the events and the order of the blows, not the instants at which the
//! machine lets them happen.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use futures::StreamExt;
use pricing_core::keys::{DEFAULT_PREFIX, MessageKeys};
use pricing_core::store::{PriceChange, Store, StoreSettings};
use pricing_domain::facts::Facts;
use pricing_domain::facts::product::ProductId;
use pricing_domain::facts::signal::{Signal, SignalKind, Signals, Subject};
use pricing_domain::facts::time_zone::TimeZones;
use pricing_domain::policy::PricingPolicy;
use pricing_domain::pricing::price::price;
use pricing_e2e::{ChaosProxy, HttpClient, RedisServer, eventually};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::fleet::{Fleet, Member, Service};
use crate::support::{new_policy, shared_postgres, sqlite_url};

/// Without limits on moves, so that a price depends on the facts alone and not on the way that led to them.
const POLICY: &str = "
name: chaos
market:
  - { name: match, when: competitor.min != null and (stock.level ?? 100) > 20, match: { reference: competitor.min, offset: -0.01 } }
  - { name: demand, when: demand.index != null, multiply_by: demand.index }
  - { name: scarcity, when: (stock.level ?? 100) < 10, adjust: +6% }
guardrails: { min_margin: 10% }
rounding: { mode: half_even }
";

/// How long the engine may take to become idle afterwards.
const REST_PATIENCE: Duration = Duration::from_secs(120);
/// How long one event may take to be acknowledged, whatever is down.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(60);
/// Requests under way at a time.
const PUBLISHERS: usize = 64;

struct Plan {
    events: usize,
    per_second: u64,
    products: usize,
    /// How often each of API, listener, worker and Redis is killed.
    kills_each: usize,
    cuts: usize,
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Kill(Service),
    KillRedis,
    Cut,
    Recalculate,
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_done_twice_when_everything_dies_on_sqlite() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let database = sqlite_url(&directory.path().join("catalogue.db"));
    run(&Plan { events: 4_000, per_second: 500, products: 400, kills_each: 1, cuts: 1, seed: 1 }, &database)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_done_twice_when_everything_dies_on_postgres() -> Result<()> {
    let database = shared_postgres().await?.create_database("chaos").await?;
    run(&Plan { events: 4_000, per_second: 500, products: 400, kills_each: 1, cuts: 1, seed: 2 }, &database)
        .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: ./dev chaos runs it"]
async fn nothing_is_lost_or_done_twice_in_a_long_bad_day() -> Result<()> {
    let full =
        |seed| Plan { events: 20_000, per_second: 1_000, products: 2_000, kills_each: 3, cuts: 2, seed };
    let seed = Utc::now().timestamp().unsigned_abs();
    let directory = tempfile::tempdir()?;
    run(&full(seed), &sqlite_url(&directory.path().join("catalogue.db"))).await?;
    let database = shared_postgres().await?.create_database("bad_day").await?;
    run(&full(seed + 1), &database).await
}

async fn run(plan: &Plan, database_url: &str) -> Result<()> {
    survive(plan, database_url).await.with_context(|| format!("with seed {}", plan.seed))
}

async fn survive(plan: &Plan, database_url: &str) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let store = Store::open(database_url, StoreSettings::default()).await?;
    store.publish_policy(&new_policy(POLICY), None, Utc::now()).await?;
    let redis = RedisServer::start().await?;
    let proxy = ChaosProxy::start(redis.address()).await?;
    let fleet = Fleet::new(&format!("redis://{}", proxy.address()), database_url);
    let mut arena = Arena {
        apis: vec![fleet.start(Service::Api).await?, fleet.start(Service::Api).await?],
        workers: vec![fleet.start(Service::Worker).await?, fleet.start(Service::Worker).await?],
        listeners: vec![fleet.start(Service::Listener).await?, fleet.start(Service::Listener).await?],
        redis,
        proxy,
        tasks: Vec::new(),
    };
    import_products(&arena, plan.products).await?;
    let events = events(plan, &mut random);
    let blows = blows(plan, &mut random);

    let clients = arena.apis.iter().map(|api| api.client.clone()).collect();
    let published = Arc::new(AtomicUsize::new(0));
    let publishing = publish(events.clone(), clients, plan.per_second, Arc::clone(&published));
    let striking = async {
        for (number, blow) in blows.iter().enumerate() {
            let due = plan.events * (number + 1) / (blows.len() + 1);
            eventually("enough events are published", PUBLISH_PATIENCE * 2, async || {
                ensure!(published.load(Ordering::Relaxed) >= due, "{published:?} of {due}");
                Ok(())
            })
            .await?;
            arena.strike(*blow, &mut random).await.with_context(|| format!("blow {number}: {blow:?}"))?;
        }
        Ok(())
    };
    tokio::try_join!(publishing, striking)?;
    arena.come_to_rest().await?;
    let judge = Judge { store, events: &events, redis: &arena.redis };
    judge.events_were_applied_once().await?;
    judge.signals_and_prices_are_those_of_the_events(plan.products).await?;
    judge.history_is_whole(plan.products).await?;
    judge.runs_did_not_overlap(&arena.tasks).await?;
    judge.caches_agree(&arena, plan.products).await
}

struct Arena {
    apis: Vec<Member>,
    workers: Vec<Member>,
    listeners: Vec<Member>,
    redis: RedisServer,
    proxy: ChaosProxy,
    /// The requested recalculations.
    tasks: Vec<String>,
}

impl Arena {
    async fn strike(&mut self, blow: Blow, random: &mut fastrand::Rng) -> Result<()> {
        let pause = Duration::from_millis(random.u64(0..1_500));
        match blow {
            Blow::Kill(service) => {
                let members = match service {
                    Service::Api => &mut self.apis,
                    Service::Worker => &mut self.workers,
                    Service::Listener => &mut self.listeners,
                };
                let victim = random.usize(0..members.len());
                let victim = members.get_mut(victim).context("no process to kill")?;
                victim.kill()?;
                sleep_until(Instant::now() + pause).await;
                victim.start_again()?;
                victim.wait_until_ready().await
            }
            Blow::KillRedis => {
                self.redis.kill()?;
                sleep_until(Instant::now() + pause).await;
                self.redis.restart().await
            }
            Blow::Cut => {
                self.proxy.cut().await;
                sleep_until(Instant::now() + pause).await;
                self.proxy.restore().await
            }
            Blow::Recalculate => {
                let client = self.apis.first().context("no API")?.client.clone();
                let task = eventually("a recalculation is asked for", PUBLISH_PATIENCE, async || {
                    let reply = client.post("/api/v1/recalculations", &json!({})).await?;
                    ensure!(reply.status == 202, "{}", reply.text);
                    Ok(reply.body["task_id"].as_str().context("no task")?.to_owned())
                })
                .await?;
                self.tasks.push(task);
                Ok(())
            }
        }
    }

    /// Waits until no event and no job is outstanding.
    async fn come_to_rest(&self) -> Result<()> {
        let mut connection = self.redis.connection().await?;
        let at_rest = eventually("nothing is left to do", REST_PATIENCE, async || {
            let groups: Vec<HashMap<String, redis::Value>> = redis::cmd("XINFO")
                .arg("GROUPS")
                .arg("market_events:log")
                .query_async(&mut connection)
                .await?;
            for group in &groups {
                for field in ["pending", "lag"] {
                    let value = group.get(field).context("no such field")?;
                    ensure!(*value == redis::Value::Int(0), "{field} is {value:?}");
                }
            }
            let jobs = self.jobs().await?;
            ensure!(jobs["outstanding"] == 0, "{jobs}");
            Ok(())
        });
        if let Err(error) = at_rest.await {
            let left = self.what_is_left().await?;
            return Err(error.context(format!("{left}\n---\n{}", self.output())));
        }
        let dead: usize = redis::cmd("XLEN").arg("market_events:dead").query_async(&mut connection).await?;
        ensure!(dead == 0, "{dead} messages are dead");
        let jobs = self.jobs().await?;
        ensure!(jobs["dead"] == 0, "jobs are dead: {jobs}");
        Ok(())
    }

    /// The recalculations, and everything in the queue.
    async fn what_is_left(&self) -> Result<String> {
        let mut left = Vec::new();
        for task_id in &self.tasks {
            let path = format!("/api/v1/recalculations/{task_id}");
            left.push(self.apis.first().context("no API")?.client.get(&path).await?.text);
        }
        let mut connection = self.redis.connection().await?;
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg(format!("{}*", MessageKeys::new(DEFAULT_PREFIX).queue()))
            .query_async(&mut connection)
            .await?;
        for key in keys {
            let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut connection).await?;
            let content = match kind.as_str() {
                "list" => redis::Cmd::lrange(&key, 0, 20),
                "set" => redis::Cmd::srandmember_multiple(&key, 20),
                "zset" => redis::Cmd::zrange_withscores(&key, 0, 20),
                _ => continue,
            };
            let content: Vec<String> = content.query_async(&mut connection).await?;
            left.push(format!("{kind} {key}: {content:?}"));
        }
        Ok(left.join("\n"))
    }

    /// The output of the services.
    fn output(&self) -> String {
        let members = self.listeners.iter().chain(&self.workers).chain(&self.apis);
        members.map(|member| member.process.output().unwrap_or_default()).collect::<Vec<_>>().join("\n---\n")
    }

    async fn jobs(&self) -> Result<Value> {
        let reply = self.apis.first().context("no API")?.client.get("/api/v1/jobs").await?;
        ensure!(reply.status == 200, "{}", reply.text);
        Ok(reply.body)
    }
}

/// An event as it is published, and the signal it stands for.
#[derive(Debug, Clone)]
struct Published {
    body: Value,
    id: String,
    signal: Signal,
}

async fn import_products(arena: &Arena, products: usize) -> Result<()> {
    let mut rows = "product_id,currency,base_price,unit_cost,floor_price,ceiling_price\n".to_owned();
    for number in 0..products {
        rows.push_str(&format!("P-{number},USD,{}.99,10,12,400\n", 20 + number % 200));
    }
    let client = &arena.apis.first().context("no API")?.client;
    let request = client.request(reqwest::Method::POST, "/api/v1/products/import");
    let reply = client.send(request.header("content-type", "text/csv").body(rows)).await?;
    ensure!(reply.status == 200 && reply.body["failed"] == 0, "{}", reply.text);
    Ok(())
}

/// Events about one moment in the past, shuffled a little, so that older ones come after newer ones.
fn events(plan: &Plan, random: &mut fastrand::Rng) -> Vec<Published> {
    let beginning = Utc::now() - TimeDelta::hours(1);
    let events = (0..plan.events).map(|number| {
        let product_id = format!("P-{}", random.usize(0..plan.products));
        // No two at the same instant, and up to a hundred events out of order.
        let place = number + random.usize(0..100);
        let micros = i64::try_from(place * 1_000_000 + number).unwrap_or_default();
        let time = (beginning + TimeDelta::microseconds(micros / 1_000)).trunc_subsecs(6);
        let units = random.i64(1_500..30_000);
        let (kind, event_type, source, value, data) = match random.u8(0..4) {
            0 | 1 => {
                let competitor = format!("shop-{}", random.u8(0..3));
                let value = Decimal::new(units, 2);
                let data =
                    json!({"product_id": product_id, "competitor": competitor, "price": number_of(value)});
                (SignalKind::CompetitorPrice, "pricing.competitor_price.v1", competitor, value, data)
            }
            2 => {
                let value = Decimal::new(units % 60, 0);
                let data = json!({"product_id": product_id, "level": number_of(value)});
                (SignalKind::StockLevel, "pricing.stock_level.v1", String::new(), value, data)
            }
            _ => {
                let value = Decimal::new(800 + units % 500, 3);
                let data = json!({"product_id": product_id, "index": number_of(value)});
                (SignalKind::DemandIndex, "pricing.demand_index.v1", String::new(), value, data)
            }
        };
        let id = format!("event-{number}");
        let body = json!({
            "specversion": "1.0", "id": id, "source": "/chaos", "type": event_type,
            "time": time.to_rfc3339(), "data": data,
        });
        let subject = Subject::Product(product_id);
        Published {
            body,
            id,
            signal: Signal {
                source,
                event_source: Some("/chaos".to_owned()),
                ..Signal::new(subject, kind, value, time)
            },
        }
    });
    events.collect()
}

fn number_of(value: Decimal) -> Value {
    serde_json::from_str(&value.to_string()).unwrap_or(Value::Null)
}

fn blows(plan: &Plan, random: &mut fastrand::Rng) -> Vec<Blow> {
    let mut blows = Vec::new();
    for _ in 0..plan.kills_each {
        blows.extend([Blow::Kill(Service::Api), Blow::Kill(Service::Worker), Blow::Kill(Service::Listener)]);
        blows.extend([Blow::KillRedis, Blow::Recalculate, Blow::Recalculate]);
    }
    blows.extend(std::iter::repeat_n(Blow::Cut, plan.cuts));
    for place in (1..blows.len()).rev() {
        blows.swap(place, random.usize(0..=place));
    }
    blows
}

/// Publishes every event until it is acknowledged, and one in fifty of them twice.
async fn publish(
    events: Vec<Published>,
    clients: Vec<HttpClient>,
    per_second: u64,
    published: Arc<AtomicUsize>,
) -> Result<()> {
    let started = Instant::now();
    let clients = Arc::new(clients);
    let repeated = events.clone().into_iter().step_by(50);
    let paced = events.into_iter().chain(repeated).enumerate().map(|(number, event)| {
        let (clients, published) = (Arc::clone(&clients), Arc::clone(&published));
        let due =
            started + Duration::from_micros(1_000_000 / per_second * u64::try_from(number).unwrap_or(0));
        async move {
            sleep_until(due).await;
            let tries = AtomicUsize::new(number);
            eventually("the event is acknowledged", PUBLISH_PATIENCE, async || {
                let client = &clients[tries.fetch_add(1, Ordering::Relaxed) % clients.len()];
                let reply = client.post("/api/v1/publish-market-event", &event.body).await?;
                ensure!(reply.status == 200, "{} {}", reply.status, reply.text);
                Ok(())
            })
            .await?;
            published.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    });
    let results: Vec<Result<()>> = futures::stream::iter(paced).buffer_unordered(PUBLISHERS).collect().await;
    results.into_iter().collect()
}

/// Compares the final state with the published events.
struct Judge<'a> {
    store: Store,
    events: &'a [Published],
    redis: &'a RedisServer,
}

impl Judge<'_> {
    async fn events_were_applied_once(&self) -> Result<()> {
        let ids: Vec<(&str, &str)> = self.events.iter().map(|event| ("/chaos", event.id.as_str())).collect();
        let mut transaction = self.store.begin().await?;
        let is_new = transaction.record_events(&ids, Utc::now()).await?;
        let lost = is_new.iter().filter(|is_new| **is_new).count();
        ensure!(lost == 0, "{lost} of {} acknowledged events were not applied", ids.len());
        Ok(())
    }

    async fn signals_and_prices_are_those_of_the_events(&self, products: usize) -> Result<()> {
        let policy = PricingPolicy::from_yaml(POLICY, 1, &TimeZones::bundled())
            .map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        let mut newest: BTreeMap<(String, &'static str, String), &Signal> = BTreeMap::new();
        for signal in self.events.iter().map(|event| &event.signal) {
            let (_, subject) = signal.subject.parts();
            let kept = newest
                .entry((subject.to_owned(), signal.kind.name(), signal.source.clone()))
                .or_insert(signal);
            if kept.observed_at < signal.observed_at {
                *kept = signal;
            }
        }
        let mut expected: HashMap<String, Vec<Signal>> = HashMap::new();
        for ((subject, _, _), signal) in newest {
            expected.entry(subject).or_default().push(signal.clone());
        }
        for number in 0..products {
            let id = product_id(number)?;
            let product = self.store.product(&id).await?.context("no product")?;
            let expected = expected.remove(id.as_str()).unwrap_or_default();
            let expected = Signals::of_product(expected, Some(&product), Utc::now());
            let stored = self.store.signals(&id, Utc::now()).await?;
            ensure!(stored == expected, "{id}: {stored:?}, expected {expected:?}");
            let facts = Facts { product: &product, signals: &expected, previous: None };
            let expected = price(&facts, &policy, Utc::now()).amount;
            let entry = self.store.stored_price(&id).await?.context("no price")?.entry;
            ensure!(entry.list_price == expected, "{id} costs {}, expected {expected}", entry.list_price);
        }
        Ok(())
    }

    async fn history_is_whole(&self, products: usize) -> Result<()> {
        for number in 0..products {
            let id = product_id(number)?;
            let mut changes = self.store.price_changes(&id, u32::MAX >> 1).await?;
            changes.reverse();
            let current = self.store.stored_price(&id).await?.context("no price")?.entry;
            check_history(&changes, current.list_price).with_context(|| format!("{id}: {changes:#?}"))?;
        }
        Ok(())
    }

    async fn runs_did_not_overlap(&self, tasks: &[String]) -> Result<()> {
        let mut runs = Vec::new();
        for task in tasks {
            let run = eventually("the recalculation has ended", REST_PATIENCE, async || {
                let run = self.store.run(task).await?.with_context(|| format!("{task} is unknown"))?;
                let run = match &run.follow_up {
                    Some(follow_up) => self.store.run(follow_up).await?.context("no follow-up")?,
                    None => run,
                };
                ensure!(run.state.is_final(), "{run:?}");
                Ok(run)
            })
            .await?;
            ensure!(run.state.name() == "done", "{run:?}");
            runs.push(run);
        }
        runs.sort_by_key(|run| run.run_number);
        runs.dedup_by_key(|run| run.run_number);
        for pair in runs.windows(2) {
            ensure!(pair[0].finished_at <= pair[1].started_at, "two runs overlap: {pair:#?}");
        }
        Ok(())
    }

    /// Redis and the memory of both APIs hold what the database holds.
    async fn caches_agree(&self, arena: &Arena, products: usize) -> Result<()> {
        let _ = self.redis;
        for number in 0..products {
            let id = product_id(number)?;
            let stored = self.store.stored_price(&id).await?.context("no price")?.entry;
            for api in &arena.apis {
                let reply = api.client.price(id.as_str(), "NY", false).await?;
                ensure!(reply.body["revision"] == stored.revision, "{id}: {}, stored {stored:?}", reply.text);
            }
        }
        Ok(())
    }
}

fn check_history(changes: &[PriceChange], current: Decimal) -> Result<()> {
    let (floor, ceiling): (Decimal, Decimal) = (12.into(), 400.into());
    let mut before: Option<Decimal> = None;
    let mut last: Option<(i64, DateTime<Utc>)> = None;
    for change in changes {
        ensure!(change.old_list_price == before, "a gap at revision {}", change.revision);
        ensure!(change.new_list_price != before, "a duplicate at revision {}", change.revision);
        ensure!(last.is_none_or(|(revision, _)| revision < change.revision), "revisions go back");
        let amount = change.new_list_price.context("it was removed")?;
        ensure!((floor..=ceiling).contains(&amount), "{amount} is outside the guardrails");
        before = change.new_list_price;
        last = Some((change.revision, change.changed_at));
    }
    ensure!(before == Some(current), "the history ends with {before:?}, the price is {current}");
    Ok(())
}

fn product_id(number: usize) -> Result<ProductId> {
    Ok(ProductId::parse(&format!("P-{number}"))?)
}
