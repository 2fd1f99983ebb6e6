//! A fault each minute under a steady load of reads, events, product writes and imports.
//!
//! Two processes of each service run on PostgreSQL, and Redis is behind a proxy. Faults of processes strike
//! the second of each pair, so that the first lives from the beginning to the end: its memory is measured
//! ([`memory`]). After each fault ([`faults`]) `/readyz` has to say `ready` again, and five seconds later
//! no API may serve a price older than what was stored when they began.

mod faults;
mod memory;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_core::store::{Store, StoreSettings};
use pricing_e2e::judge::{Judge, come_to_rest};
use pricing_e2e::market::{Market, POLICY, import_market};
use pricing_e2e::steady_load::{Failure, Gateway, ReadReport, Reads, WriteLog, publish, sell};
use pricing_e2e::{ChaosProxy, Fleet, HttpClient, Member, PostgresServer, RedisServer, Service, eventually};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::options::Options;
use crate::verdict::{Verdict, publish_policy, quote};
use faults::Fault;
use memory::Memory;

pub(crate) const MINUTES: u64 = 20;
const MINUTE: Duration = Duration::from_secs(60);
const PRODUCTS: usize = 400;
const READS: u32 = 200;
const CONNECTIONS: u32 = 4;
const EVENTS: u64 = 30;
const SOLD: u64 = 5;
/// The oldest price that may be served when nothing is broken.
const STALEST: Duration = Duration::from_secs(5);
const READY_PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(120);
pub(crate) const DATABASE: &str = "soak";

/// Two processes of a service: the first is never struck.
pub(crate) struct Pair {
    pub(crate) steady: Member,
    pub(crate) struck: Member,
}

impl Pair {
    async fn start(fleet: &Fleet, service: Service) -> Result<Self> {
        Ok(Self { steady: fleet.start(service).await?, struck: fleet.start(service).await? })
    }
}

/// Everything that can be struck.
pub(crate) struct Arena {
    pub(crate) apis: Pair,
    pub(crate) workers: Pair,
    pub(crate) listeners: Pair,
    pub(crate) redis: RedisServer,
    pub(crate) proxy: ChaosProxy,
    pub(crate) postgres: PostgresServer,
}

impl Arena {
    pub(crate) fn pair(&mut self, service: Service) -> &mut Pair {
        match service {
            Service::Api => &mut self.apis,
            Service::Worker => &mut self.workers,
            Service::Listener => &mut self.listeners,
        }
    }

    fn members(&self) -> [&Member; 6] {
        let (apis, workers, listeners) = (&self.apis, &self.workers, &self.listeners);
        [&apis.steady, &apis.struck, &workers.steady, &workers.struck, &listeners.steady, &listeners.struck]
    }

    fn clients(&self) -> [&HttpClient; 2] {
        [&self.apis.steady.client, &self.apis.struck.client]
    }

    /// Waits until every service says that it is ready.
    async fn is_ready(&self) -> Result<()> {
        for member in self.members() {
            let program = member.service().program();
            eventually(&format!("{program} says it is ready"), READY_PATIENCE, async || {
                let said = member.client.get("/readyz").await?;
                ensure!(said.text.contains("\"status\":\"ready\""), "{}", said.text);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

/// When something was broken, from the strike until everything was ready again.
struct Broken {
    fault: Fault,
    from: Instant,
    to: Instant,
}

/// The load, and what it writes down.
struct Load {
    log: WriteLog,
    stop: CancellationToken,
    /// Of the API that is never struck, and of the other one.
    readers: Vec<JoinHandle<Result<ReadReport>>>,
    writers: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    fn start(arena: &Arena, options: &Options) -> Self {
        let (log, stop) = (WriteLog::default(), CancellationToken::new());
        let gateway = Gateway::to(arena.clients());
        let readers = [&arena.apis.steady, &arena.apis.struck].map(|api| {
            let reads = Reads {
                address: api.address(),
                connections: CONNECTIONS,
                per_second: options.reads(READS),
                products: PRODUCTS,
            };
            tokio::spawn(reads.run(stop.clone()))
        });
        let market = Market::new(PRODUCTS, fastrand::Rng::with_seed(13));
        let events = options.events(EVENTS);
        let publishing = tokio::spawn(publish(market, gateway.clone(), events, log.clone(), stop.clone()));
        let selling = tokio::spawn(sell(gateway, SOLD, log.clone(), stop.clone()));
        Self { log, stop, readers: readers.into(), writers: vec![publishing, selling] }
    }

    async fn end(self) -> Result<(WriteLog, Vec<ReadReport>)> {
        self.stop.cancel();
        for writer in self.writers {
            writer.await??;
        }
        let mut reports = Vec::new();
        for reader in self.readers {
            reports.push(reader.await??);
        }
        Ok((self.log, reports))
    }
}

/// Runs for so many minutes, and judges.
pub(crate) async fn run(minutes: u64, options: &Options) -> Result<()> {
    let mut verdict = Verdict::default();
    let postgres = PostgresServer::start().await?;
    let url = postgres.create_database(DATABASE).await?;
    let redis = RedisServer::start().await?;
    let proxy = ChaosProxy::start(redis.address()).await?;
    let fleet = Fleet::new(&format!("redis://{}", proxy.address()), &url);
    let apis = Pair::start(&fleet, Service::Api).await?;
    let workers = Pair::start(&fleet, Service::Worker).await?;
    let listeners = Pair::start(&fleet, Service::Listener).await?;
    let mut arena = Arena { apis, workers, listeners, redis, proxy, postgres };
    publish_policy(&arena.apis.steady.client, POLICY).await?;
    import_market(&arena.apis.steady.client, PRODUCTS).await?;

    let (memory, sampled) = (Memory::default(), CancellationToken::new());
    watch(&arena, &memory);
    let sampling = tokio::spawn(memory.clone().sample(sampled.clone()));
    let load = Load::start(&arena, options);
    let began = Instant::now();
    let mut broken = Vec::new();
    for minute in 1..=minutes {
        sleep_until(began + MINUTE * u32::try_from(minute)?).await;
        // On a host that is busy with something else, one may take longer than its minute.
        if began.elapsed() >= MINUTE * u32::try_from(minutes + 1)? {
            println!("the time is over after {} faults", broken.len());
            break;
        }
        let fault = Fault::of_minute(minute);
        println!("minute {minute}: {}", fault.name());
        let from = Instant::now();
        let struck = fault.strike(&mut arena).await;
        verdict.promise(&format!("minute {minute}, {}: /readyz says what is true", fault.name()), struck);
        watch(&arena, &memory);
        verdict.promise("everything says it is ready again", arena.is_ready().await);
        broken.push(Broken { fault, from, to: Instant::now() });
        verdict.promise("5 s later, no served price is older", check_prices(&arena, &url).await);
    }
    sleep(MINUTE / 2).await;
    sampled.cancel();
    sampling.await?;
    let (log, reports) = load.end().await?;
    judge(&arena, &url, &log, &mut verdict).await?;
    judge_reads(&reports, &broken, &mut verdict);
    let steepest = memory.judge(&mut verdict);
    verdict.end()?;
    println!(
        "\nRESULT {minutes} minutes, {} faults, at {} events/s and {} reads/s at each of two APIs: {} events acknowledged, \
         all applied once; {} writes refused meanwhile and accepted when repeated; {} reads at the API that was \
         not struck, {} failed; no served price older than 5 s on firm ground; steepest memory {steepest}",
        broken.len(),
        options.events(EVENTS),
        options.reads(READS),
        log.acknowledged_count(),
        log.refusals().len(),
        reports.first().map_or(0, |report| report.latencies.count()),
        reports.first().map_or(0, |report| report.failures.len()),
    );
    Ok(())
}

/// Has the memory of every process sampled from now on.
fn watch(arena: &Arena, memory: &Memory) {
    for (member, place) in arena.members().into_iter().zip(["", ", struck"].into_iter().cycle()) {
        memory.watch(member, place);
    }
}

/// What is stored now is served by every API five seconds later, or something newer.
async fn check_prices(arena: &Arena, url: &str) -> Result<()> {
    let store = Store::open(url, StoreSettings::default()).await?;
    let judge = Judge { store: &store, events: &[], products: PRODUCTS };
    let stored = judge.stored_prices().await?;
    sleep(STALEST).await;
    let checked = judge.no_price_is_older(&arena.clients(), &stored).await;
    store.close().await;
    checked
}

async fn judge(arena: &Arena, url: &str, log: &WriteLog, verdict: &mut Verdict) -> Result<()> {
    let api = &arena.apis.steady.client;
    let rested = come_to_rest(&mut arena.redis.connection().await?, api, PATIENCE).await;
    verdict.promise("everything is done at the end", rested);
    let store = Store::open(url, StoreSettings::default()).await?;
    let events = log.acknowledged();
    let judge = Judge { store: &store, events: &events, products: PRODUCTS };
    verdict.promise("every acknowledged event is applied", judge.events_were_applied().await);
    verdict.promise("each price is that of the events", judge.prices_are_those_of_the_events().await);
    verdict.promise("each history is whole, with no change twice", judge.history_is_whole().await);
    verdict.promise(
        "every served price is the stored one",
        judge.served_prices_are_the_stored_ones(&arena.clients()).await,
    );
    for api in arena.clients() {
        verdict.promise("each written product is served", log.is_served(api).await);
    }
    Ok(())
}

/// Reads fail only while their API is struck; those of the other one never.
fn judge_reads(reports: &[ReadReport], broken: &[Broken], verdict: &mut Verdict) {
    for (report, is_struck) in reports.iter().zip([false, true]) {
        let explained = |failure: &Failure| {
            let during = broken.iter().find(|one| one.from <= failure.at && failure.at <= one.to);
            is_struck && during.is_some_and(|one| one.fault.strikes(Service::Api))
        };
        let unexplained: Vec<Failure> =
            report.failures.iter().filter(|failure| !explained(failure)).cloned().collect();
        let explained = report.failures.len() - unexplained.len();
        let which = if is_struck { "that is struck" } else { "that is not struck" };
        println!(
            "reads at the API {which}: {} answered, {explained} failed during its faults; {}",
            report.latencies.count(),
            quote(&unexplained)
        );
        verdict.none(&format!("read fails at the API {which} without its fault"), &unexplained);
    }
}

/// The state of a service, as `/readyz` has it.
pub(crate) async fn readiness(member: &Member) -> Result<serde_json::Value> {
    let said = member.client.get("/readyz").await?;
    ensure!(said.body.is_object(), "{}", said.text);
    Ok(said.body)
}

/// Waits until a check of `/readyz` has failed.
pub(crate) async fn reports(member: &Member, check: &str) -> Result<()> {
    eventually(&format!("/readyz names {check}"), Duration::from_secs(30), async || {
        let said = readiness(member).await?;
        let checks = said.get("checks").and_then(serde_json::Value::as_array).context("no checks")?;
        let of_name = checks.iter().find(|one| one.get("name").is_some_and(|name| name == check));
        let status = of_name.and_then(|one| one.get("status")).context("no such check")?;
        ensure!(status == "failed", "{said}");
        ensure!(said.get("status").is_some_and(|status| status != "ready"), "{said}");
        Ok(())
    })
    .await
}

/// A service is ready, as the fault does not affect it; a busy host may let a check run into its time limit.
pub(crate) async fn stays_ready(member: &Member) -> Result<()> {
    eventually("/readyz says ready during the fault", Duration::from_secs(15), async || {
        let said = readiness(member).await?;
        ensure!(said.get("status").is_some_and(|status| status == "ready"), "{said}");
        Ok(())
    })
    .await
}
