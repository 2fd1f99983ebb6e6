//! Every process is killed again and again while the market moves; afterwards nothing is lost and nothing was
//! done twice.
//!
//! A failure names its seed, which fixes the events and the order of the blows, not the instants at which the
//! machine lets them happen.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use pricing_core::keys::{DEFAULT_PREFIX, MessageKeys};
use pricing_core::store::{Store, StoreSettings};
use pricing_e2e::judge::{Judge, come_to_rest};
use pricing_e2e::market::{Market, POLICY, Published, import_market};
use pricing_e2e::steady_load::{Gateway, WriteLog, publish};
use pricing_e2e::{ChaosProxy, RedisServer, eventually};
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, Member, Service};
use crate::support::{new_policy, shared_postgres, sqlite_url};

/// How long the engine may take to become idle afterwards.
const REST_PATIENCE: Duration = Duration::from_secs(120);
/// How long one request may be refused, and how long the next blow may have to wait, whatever is down.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(60);

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
    let first = arena.apis.first().context("no API")?;
    import_market(&first.client, plan.products).await?;
    let events: Vec<Published> = Market::new(plan.products, random.fork()).take(plan.events).collect();
    let blows = blows(plan, &mut random);

    let gateway = Gateway::to(arena.apis.iter().map(|api| &api.client));
    let log = WriteLog::default();
    // One in fifty of them is published twice.
    let published = events.clone().into_iter().chain(events.clone().into_iter().step_by(50));
    let never = CancellationToken::new();
    let publishing = publish(published, gateway, plan.per_second, log.clone(), never);
    let striking = async {
        for (number, blow) in blows.iter().enumerate() {
            let due = plan.events * (number + 1) / (blows.len() + 1);
            eventually("enough events are published", PUBLISH_PATIENCE * 2, async || {
                let published = log.acknowledged_count();
                ensure!(published >= due, "{published} of {due}");
                Ok(())
            })
            .await?;
            arena.strike(*blow, &mut random).await.with_context(|| format!("blow {number}: {blow:?}"))?;
        }
        Ok(())
    };
    tokio::try_join!(publishing, striking)?;
    arena.come_to_rest().await?;
    let judge = Judge { store: &store, events: &events, products: plan.products };
    judge.events_were_applied().await?;
    judge.signals_are_those_of_the_events().await?;
    judge.prices_are_those_of_the_events().await?;
    judge.history_is_whole().await?;
    runs_did_not_overlap(&store, &arena.tasks).await?;
    // Redis and the memory of both APIs hold what the database holds.
    let apis: Vec<_> = arena.apis.iter().map(|api| &api.client).collect();
    judge.served_prices_are_the_stored_ones(&apis).await
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
        let api = &self.apis.first().context("no API")?.client;
        let at_rest = come_to_rest(&mut self.redis.connection().await?, api, REST_PATIENCE).await;
        if let Err(error) = at_rest {
            let left = self.what_is_left().await?;
            return Err(error.context(format!("{left}\n---\n{}", self.output())));
        }
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

async fn runs_did_not_overlap(store: &Store, tasks: &[String]) -> Result<()> {
    let mut runs = Vec::new();
    for task in tasks {
        let run = eventually("the recalculation has ended", REST_PATIENCE, async || {
            let run = store.run(task).await?.with_context(|| format!("{task} is unknown"))?;
            let run = match &run.follow_up {
                Some(follow_up) => store.run(follow_up).await?.context("no follow-up")?,
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
