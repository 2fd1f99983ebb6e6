//! Redis fails over by Sentinels under load, again and again: by command, and because the master is killed.
//!
//! A master and a replica (`--replicas N` for more), each with `min-replicas-to-write 1`, and three
//! Sentinels; API, worker and listener with `PRICING_REDIS_REPLICAS=1`, which nothing restarts. A killed
//! master is started again when another server has been promoted, as a supervisor does; Sentinels make it a
//! replica. The new master *is there* when it takes a write, which needs its replica.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_core::keys::{DEFAULT_PREFIX, MessageKeys};
use pricing_core::store::{Store, StoreSettings};
use pricing_e2e::judge::{Judge, come_to_rest};
use pricing_e2e::market::{Market, POLICY, import_market};
use pricing_e2e::steady_load::{Failure, Gateway, Reads, WriteLog, publish, sell};
use pricing_e2e::{Fleet, Member, PostgresServer, RedisSentinel, RedisServer, Service, eventually};
use redis::aio::MultiplexedConnection;
use redis::streams::StreamRangeReply;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::options::Options;
use crate::verdict::{Verdict, publish_policy, quote};

const PRODUCTS: usize = 500;
const READS: u32 = 2_000;
const CONNECTIONS: u32 = 16;
const EVENTS: u64 = 200;
const SOLD: u64 = 5;
const SECONDS: u64 = 120;
const REPLICAS: usize = 1;
const SENTINELS: usize = 3;
/// How long writes may be refused once the new master is there.
const PROMISED: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(120);
const SETTING: &str = "--min-replicas-to-write 1";

/// How a fail-over begins.
#[derive(Debug, Clone, Copy)]
enum Cause {
    Command,
    Kill,
}

const CAUSES: [Cause; 4] = [Cause::Command, Cause::Kill, Cause::Command, Cause::Kill];

impl Cause {
    fn name(self) -> &'static str {
        match self {
            Self::Command => "SENTINEL FAILOVER",
            Self::Kill => "kill -9 of the master",
        }
    }
}

/// The servers and their Sentinels.
struct Watched {
    servers: Vec<RedisServer>,
    /// The place of the master in `servers`.
    master: usize,
    sentinels: Vec<RedisSentinel>,
}

/// A fail-over.
struct FailOver {
    cause: Cause,
    began: Instant,
    promoted: Instant,
    /// When the new master took a write.
    there: Instant,
}

impl Watched {
    async fn start(replicas: usize) -> Result<Self> {
        let mut servers = vec![RedisServer::start_with(&[SETTING]).await?];
        for _ in 0..replicas {
            servers.push(RedisServer::start_with(&[SETTING]).await?);
        }
        let (master, others) = servers.split_first().context("no master")?;
        for replica in others {
            replica.follow(master).await?;
        }
        let mut sentinels = Vec::new();
        for _ in 0..SENTINELS {
            sentinels.push(RedisSentinel::start(master, 2, "").await?);
        }
        for sentinel in &sentinels {
            sentinel.wait_for(replicas, SENTINELS - 1).await?;
        }
        Ok(Self { servers, master: 0, sentinels })
    }

    fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|one| one.address().to_string()).collect();
        format!("redis+sentinel://{}/{}/0", hosts.join(","), RedisSentinel::MASTER)
    }

    fn master(&self) -> Result<&RedisServer> {
        self.servers.get(self.master).context("no master")
    }

    /// The place of a server that was promoted.
    async fn promoted(&self) -> Result<usize> {
        eventually("a replica is promoted", PATIENCE, async || {
            for (place, server) in self.servers.iter().enumerate() {
                if place != self.master && server.is_master().await.unwrap_or(false) {
                    return Ok(place);
                }
            }
            anyhow::bail!("all are replicas")
        })
        .await
    }

    /// Makes a replica the master, one way or the other, and waits until it takes writes.
    async fn fail_over(&mut self, cause: Cause) -> Result<FailOver> {
        println!("{}", cause.name());
        let first = self.sentinels.first().context("no Sentinel")?;
        // It refuses while the last one is not long over, or no replica is in step.
        first.wait_for(self.servers.len() - 1, SENTINELS - 1).await?;
        let began = match cause {
            Cause::Command => {
                eventually("a Sentinel begins", PATIENCE, async || {
                    first.fail_over().await?;
                    Ok(Instant::now())
                })
                .await?
            }
            Cause::Kill => {
                self.servers.get_mut(self.master).context("no master")?.kill()?;
                Instant::now()
            }
        };
        let promoted = self.promoted().await?;
        let promoted_at = Instant::now();
        if matches!(cause, Cause::Kill) {
            self.servers.get_mut(self.master).context("no master")?.restart().await?;
        }
        self.master = promoted;
        let master = self.master()?;
        eventually("the new master takes a write", PATIENCE, async || {
            ensure!(master.takes_writes().await?, "it does not");
            Ok(())
        })
        .await?;
        Ok(FailOver { cause, began, promoted: promoted_at, there: Instant::now() })
    }
}

/// The three services, on one database.
struct Services {
    members: Vec<Member>,
    url: String,
    _postgres: PostgresServer,
}

impl Services {
    async fn start(redis_url: &str) -> Result<Self> {
        let postgres = PostgresServer::start().await?;
        let url = postgres.create_database("failover").await?;
        let fleet = Fleet::new(redis_url, &url).with("PRICING_REDIS_REPLICAS", "1");
        let mut members = Vec::new();
        for service in [Service::Api, Service::Worker, Service::Listener] {
            members.push(fleet.start(service).await?);
        }
        Ok(Self { members, url, _postgres: postgres })
    }

    fn api(&self) -> Result<&Member> {
        self.members.first().context("no API")
    }
}

/// Runs the fail-overs under load, and judges.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut verdict = Verdict::default();
    let mut watched = Watched::start(options.replicas(REPLICAS)).await?;
    let services = Services::start(&watched.url()).await?;
    let api = services.api()?;
    publish_policy(&api.client, POLICY).await?;
    import_market(&api.client, PRODUCTS).await?;

    let (log, stop) = (WriteLog::default(), CancellationToken::new());
    let gateway = Gateway::to([&api.client]);
    let reads = Reads {
        address: api.address(),
        connections: CONNECTIONS,
        per_second: options.reads(READS),
        products: PRODUCTS,
    };
    let reading = tokio::spawn(reads.run(stop.clone()));
    let events = options.events(EVENTS);
    let market = Market::new(PRODUCTS, fastrand::Rng::with_seed(11));
    let publishing = tokio::spawn(publish(market, gateway.clone(), events, log.clone(), stop.clone()));
    let selling = tokio::spawn(sell(gateway, SOLD, log.clone(), stop.clone()));

    let pause = options.length(SECONDS) / (u32::try_from(CAUSES.len())? + 1);
    let mut fail_overs = Vec::new();
    for cause in CAUSES {
        sleep(pause).await;
        fail_overs.push(watched.fail_over(cause).await.with_context(|| cause.name())?);
    }
    sleep(pause).await;
    stop.cancel();
    publishing.await??;
    selling.await??;
    let reads = reading.await??;

    verdict.none("read fails", &reads.failures);
    let longest = report(&fail_overs, &log, &mut verdict);
    judge(&services, &watched, &log, &fail_overs, &mut verdict).await?;
    verdict.end()?;
    println!(
        "\nRESULT {} fail-overs, by command and by kill -9 in turns, at {events} events/s and {} reads/s: {} events \
         acknowledged, none lost; {} writes refused, the last of them {:.1} s after the new master was there; {} \
         reads, none failed, 99 % within {:.1} ms; no process restarted; no wrong price",
        fail_overs.len(),
        options.reads(READS),
        log.acknowledged_count(),
        log.refusals().len(),
        longest.as_secs_f64(),
        reads.latencies.count(),
        reads.latencies.permille(990).as_secs_f64() * 1e3,
    );
    Ok(())
}

/// Prints the fail-overs. Returns the longest time of refusals after a new master was there.
fn report(fail_overs: &[FailOver], log: &WriteLog, verdict: &mut Verdict) -> Duration {
    let refusals = log.refusals();
    let mut longest = Duration::ZERO;
    for (number, one) in fail_overs.iter().enumerate() {
        let end = fail_overs.get(number + 1).map(|next| next.began);
        let of_this = |at: Instant| at >= one.began && end.is_none_or(|end| at < end);
        let refused: Vec<Failure> = refusals.iter().filter(|refusal| of_this(refusal.at)).cloned().collect();
        let last = refused.iter().map(|refusal| refusal.at.saturating_duration_since(one.there)).max();
        let last = last.unwrap_or_default();
        longest = longest.max(last);
        println!(
            "{}: promoted after {:.1} s, takes writes after {:.1} s; refused until {:.2} s later; {}",
            one.cause.name(),
            (one.promoted - one.began).as_secs_f64(),
            (one.there - one.began).as_secs_f64(),
            last.as_secs_f64(),
            quote(&refused),
        );
        let kept = if last <= PROMISED { Ok(()) } else { Err(anyhow::anyhow!("{last:?}")) };
        verdict.promise("writes are refused for 5 s at most once the new master is there", kept);
    }
    longest
}

/// Prints when the lost events had been acknowledged.
fn report_lost(lost: &[usize], log: &WriteLog, fail_overs: &[FailOver]) {
    let acknowledged = log.acknowledged_at();
    println!("{} of {} acknowledged events are lost", lost.len(), acknowledged.len());
    for at in lost.iter().filter_map(|place| acknowledged.get(*place)) {
        let nearest = fail_overs.iter().min_by_key(|one| {
            at.saturating_duration_since(one.began).max(one.began.saturating_duration_since(*at))
        });
        let Some(one) = nearest else { continue };
        let (after, before) =
            (at.saturating_duration_since(one.began), one.began.saturating_duration_since(*at));
        println!(
            "           one was acknowledged {:+.1} ms after: {}",
            (after.as_secs_f64() - before.as_secs_f64()) * 1e3,
            one.cause.name()
        );
    }
}

/// The identifiers of the events that are in the stream.
async fn kept_ids(connection: &mut MultiplexedConnection) -> Result<HashSet<String>> {
    let log = MessageKeys::new(DEFAULT_PREFIX).event_log();
    let kept: StreamRangeReply =
        redis::cmd("XRANGE").arg(log).arg("-").arg("+").query_async(connection).await?;
    let fields = kept.ids.iter().flat_map(|entry| entry.map.values().cloned());
    let texts = fields.filter_map(|field| redis::from_redis_value::<String>(field).ok());
    let ids = texts.filter_map(|text| {
        let event: Value = serde_json::from_str(&text).ok()?;
        Some(event.get("id")?.as_str()?.to_owned())
    });
    Ok(ids.collect())
}

async fn judge(
    services: &Services,
    watched: &Watched,
    log: &WriteLog,
    fail_overs: &[FailOver],
    verdict: &mut Verdict,
) -> Result<()> {
    for member in &services.members {
        let runs = if member.runs() { Ok(()) } else { Err(anyhow::anyhow!(member.output()?)) };
        verdict.promise(&format!("{} runs without a restart", member.service().program()), runs);
        let errors = member.output()?.lines().filter(|line| line.contains("ERROR")).count();
        println!("           {errors} errors logged");
    }
    let api = &services.api()?.client;
    let mut connection = watched.master()?.connection().await?;
    verdict.promise("everything is done", come_to_rest(&mut connection, api, PATIENCE).await);
    let store = Store::open(&services.url, StoreSettings::default()).await?;
    let events = log.acknowledged();
    let judge = Judge { store: &store, events: &events, products: PRODUCTS };
    let lost = judge.lost().await?;
    report_lost(&lost, log, fail_overs);
    let known = kept_ids(&mut connection).await?;
    let kept = lost.iter().filter_map(|place| events.get(*place)).filter(|event| known.contains(&event.id));
    println!("           {} of these are in the stream of the present master", kept.count());
    verdict.promise("every acknowledged event is applied", judge.events_were_applied().await);
    verdict.promise("each price is that of the events", judge.prices_are_those_of_the_events().await);
    verdict.promise("each history is whole, with no change twice", judge.history_is_whole().await);
    verdict.promise(
        "every served price is the stored one",
        judge.served_prices_are_the_stored_ones(&[api]).await,
    );
    verdict.promise("each written product is served", log.is_served(api).await);
    Ok(())
}
