//! Side by side: the older version and this one on one database and one Redis, under load.
//!
//! For each database and each service there is a phase of its own, with an empty database: the older
//! version runs alone; this version is started beside it and migrates the tables under load; then one
//! service is the older version's only, the two others are this version's only, and there is an API of
//! each, so that both write and read what the other wrote. Then the upgrade is completed. A last phase goes
//! back instead: this version's processes are stopped while the older ones still run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use pricing_core::store::{Store, StoreSettings};
use pricing_e2e::judge::{Judge, come_to_rest};
use pricing_e2e::market::{Market, POLICY, Published, import_market};
use pricing_e2e::steady_load::{Gateway, PUBLISHERS, ReadReport, Reads, WriteLog, publish, sell};
use pricing_e2e::{Fleet, HttpClient, Member, PostgresServer, RedisServer, Service};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::options::Options;
use crate::verdict::{Verdict, publish_policy, recalculate};

const PRODUCTS: usize = 300;
const READS: u32 = 200;
const CONNECTIONS: u32 = 4;
const EVENTS: u64 = 50;
const SOLD: u64 = 10;
/// How long versions run side by side in one phase: two minutes for the three services.
const SECONDS: u64 = 40;
/// The older version alone, and this one alone at the end.
const ALONE: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(120);
const QUOTED_LINES: usize = 20;
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// What a phase does after the versions have run side by side.
#[derive(Clone, Copy)]
enum Course {
    /// This service is the older one, until it is upgraded, too.
    Older(Service),
    /// Everything is upgraded, and then the older processes, which still run, are all that is left.
    Back,
}

impl Course {
    const ALL: [Self; 4] =
        [Self::Older(Service::Listener), Self::Older(Service::Worker), Self::Older(Service::Api), Self::Back];

    fn name(self) -> String {
        match self {
            Self::Older(service) => format!("{} older", service.program()),
            Self::Back => "back to the older version".to_owned(),
        }
    }

    fn keeps(self, service: Service) -> bool {
        match self {
            Self::Older(older) => older == service,
            Self::Back => true,
        }
    }
}

/// Where a phase keeps its data.
#[expect(clippy::large_enum_variant, reason = "there is one")]
enum Database {
    Sqlite(tempfile::TempDir),
    Postgres { server: PostgresServer, databases: usize },
}

impl Database {
    /// The address of an empty database.
    async fn create(&mut self) -> Result<String> {
        Ok(match self {
            Self::Sqlite(directory) => {
                *directory = tempfile::tempdir()?;
                format!("sqlite://{}", directory.path().join("catalogue.db").display())
            }
            Self::Postgres { server, databases } => {
                *databases += 1;
                server.create_database(&format!("upgrade_{databases}")).await?
            }
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "SQLite",
            Self::Postgres { .. } => "PostgreSQL",
        }
    }
}

#[derive(Default)]
struct Totals {
    events: usize,
    writes: usize,
    reads: usize,
    refused: usize,
}

/// Runs every phase on both databases.
pub(crate) async fn run(older: &str, options: &Options) -> Result<()> {
    let older = PathBuf::from(older);
    let length = options.length(SECONDS);
    let mut verdict = Verdict::default();
    let mut totals = Totals::default();
    let sqlite = Database::Sqlite(tempfile::tempdir()?);
    let postgres = Database::Postgres { server: PostgresServer::start().await?, databases: 0 };
    for mut database in [sqlite, postgres] {
        for course in Course::ALL {
            println!("\n{}, {}", database.name(), course.name());
            let url = database.create().await?;
            let phase = Phase::start(&url, &older, options).await?;
            let outcome = phase.go(course, length, &mut verdict, &mut totals).await;
            let what = format!("{}, {}: it runs to its end", database.name(), course.name());
            verdict.promise(&what, outcome);
        }
    }
    verdict.end()?;
    println!(
        "\nRESULT SQLite and PostgreSQL, each service {} s the older one, and back: {} events and {} writes of products \
         acknowledged, all applied once; {} reads at the API of each version; {} requests failed; every served \
         price was the stored one; no error logged",
        length.as_secs(),
        totals.events,
        totals.writes,
        totals.reads,
        totals.refused,
    );
    Ok(())
}

/// The services of one version.
struct Version {
    api: Member,
    worker: Option<Member>,
    listener: Option<Member>,
}

impl Version {
    /// Consumers first: a service understands what an older one sends.
    async fn start(fleet: &Fleet) -> Result<Self> {
        Ok(Self {
            worker: Some(fleet.start(Service::Worker).await?),
            listener: Some(fleet.start(Service::Listener).await?),
            api: fleet.start(Service::Api).await?,
        })
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        self.worker.iter().chain(&self.listener).chain([&self.api])
    }

    /// Stops the worker or the listener.
    async fn stop(&mut self, service: Service, verdict: &mut Verdict) -> Result<()> {
        let place = match service {
            Service::Worker => &mut self.worker,
            Service::Listener => &mut self.listener,
            Service::Api => return Ok(()),
        };
        let Some(mut member) = place.take() else { return Ok(()) };
        stop(&mut member, verdict).await
    }
}

/// The last lines that a service has said.
fn end_of_output(member: &Member) -> Result<String> {
    let said = member.output()?;
    let lines: Vec<&str> = said.lines().rev().take(QUOTED_LINES).collect();
    Ok(lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
}

async fn stop(member: &mut Member, verdict: &mut Verdict) -> Result<()> {
    let program = member.service().program();
    let ended = tokio::time::timeout(STOP_PATIENCE, member.terminate()).await;
    let ended = ended.context("it does not end")?.and_then(|in_order| {
        anyhow::ensure!(in_order, "it ended with an error: {}", member.output()?);
        Ok(())
    });
    verdict.promise(&format!("{program} stops in order"), ended);
    verdict.no_errors_logged(member, |_| false)
}

struct Phase {
    redis: RedisServer,
    url: String,
    newer: Fleet,
    old: Version,
    market: Market,
    rates: Rates,
}

/// Requests in a second.
#[derive(Clone, Copy)]
struct Rates {
    reads: u32,
    events: u64,
}

/// The load of a phase, on APIs that change.
struct Load {
    log: WriteLog,
    gateway: Gateway,
    stop: CancellationToken,
    readers: Vec<JoinHandle<Result<ReadReport>>>,
    writers: Vec<JoinHandle<Result<()>>>,
    reads: u32,
}

impl Load {
    fn start(api: &Member, market: impl Iterator<Item = Published> + Send + 'static, rates: Rates) -> Self {
        let (log, stop) = (WriteLog::default(), CancellationToken::new());
        let gateway = Gateway::to([&api.client]);
        let publishing =
            tokio::spawn(publish(market, gateway.clone(), rates.events, log.clone(), stop.clone()));
        let selling = tokio::spawn(sell(gateway.clone(), SOLD, log.clone(), stop.clone()));
        let (readers, writers) = (Vec::new(), vec![publishing, selling]);
        let mut load = Self { log, gateway, stop, readers, writers, reads: rates.reads };
        load.read(api, &load.stop.clone());
        load
    }

    /// Reads from one more API.
    fn read(&mut self, api: &Member, stop: &CancellationToken) {
        let reads = Reads {
            address: api.address(),
            connections: CONNECTIONS,
            per_second: self.reads,
            products: PRODUCTS,
        };
        self.readers.push(tokio::spawn(reads.run(stop.clone())));
    }

    /// Waits for the answers to the reads from the API that was added last, whose token is cancelled.
    async fn end_last_reader(&mut self, verdict: &mut Verdict, totals: &mut Totals) -> Result<()> {
        if let Some(reader) = self.readers.pop() {
            count_reads(&reader.await??, verdict, totals);
        }
        Ok(())
    }

    /// Ends the load and adds its figures.
    async fn end(self, verdict: &mut Verdict, totals: &mut Totals) -> Result<WriteLog> {
        self.stop.cancel();
        for writer in self.writers {
            writer.await??;
        }
        for reader in self.readers {
            count_reads(&reader.await??, verdict, totals);
        }
        let refusals = self.log.refusals();
        verdict.none("write is refused", &refusals);
        totals.refused += refusals.len();
        totals.events += self.log.acknowledged_count();
        totals.writes += self.log.sold().len();
        Ok(self.log)
    }
}

fn count_reads(report: &ReadReport, verdict: &mut Verdict, totals: &mut Totals) {
    totals.reads += report.latencies.count();
    totals.refused += report.failures.len();
    verdict.none("read fails", &report.failures);
}

impl Phase {
    async fn start(url: &str, older: &Path, options: &Options) -> Result<Self> {
        let redis = RedisServer::start().await?;
        let newer = Fleet::new(&redis.url(), url);
        let old = Version::start(&newer.clone().of_build(older)).await?;
        publish_policy(&old.api.client, POLICY).await?;
        import_market(&old.api.client, PRODUCTS).await?;
        let rates = Rates { reads: options.reads(READS), events: options.events(EVENTS) };
        let market = Market::new(PRODUCTS, fastrand::Rng::with_seed(7));
        Ok(Self { redis, url: url.to_owned(), newer, old, market, rates })
    }

    async fn go(
        mut self,
        course: Course,
        length: Duration,
        verdict: &mut Verdict,
        totals: &mut Totals,
    ) -> Result<()> {
        let mut load = Load::start(&self.old.api, self.market.clone(), self.rates);
        sleep(ALONE).await;
        let mut new = Version::start(&self.newer).await?;
        load.gateway.lead_to([&self.old.api.client, &new.api.client]);
        let of_new = load.stop.child_token();
        load.read(&new.api, &of_new);
        for service in [Service::Worker, Service::Listener] {
            if course.keeps(service) {
                // In `Back`, both versions have both.
                if matches!(course, Course::Older(_)) {
                    new.stop(service, verdict).await?;
                }
            } else {
                self.old.stop(service, verdict).await?;
            }
        }
        println!("   side by side for {} s", length.as_secs());
        for api in [&self.old.api.client, &new.api.client] {
            let patience = PATIENCE + length;
            let ((), done) = tokio::join!(sleep(length / 2), recalculate(api, patience));
            let worker = new.worker.as_ref().or(self.old.worker.as_ref());
            let said = worker.map_or(Ok(String::new()), end_of_output)?;
            verdict.promise("a recalculation is done", done.context(said));
        }
        match course {
            Course::Older(_) => {
                let events = self.judge_mixed(load, &new, verdict, totals).await?;
                self.complete(new, events, verdict, totals).await
            }
            Course::Back => {
                load.gateway.lead_to([&self.old.api.client]);
                of_new.cancel();
                load.end_last_reader(verdict, totals).await?;
                stop(&mut new.api, verdict).await?;
                new.stop(Service::Listener, verdict).await?;
                new.stop(Service::Worker, verdict).await?;
                sleep(ALONE).await;
                let log = load.end(verdict, totals).await?;
                self.judge(&log, log.acknowledged(), &[&self.old.api.client], verdict).await
            }
        }
    }

    /// Ends the load while both versions run, and judges what they made of it.
    async fn judge_mixed(
        &self,
        load: Load,
        new: &Version,
        verdict: &mut Verdict,
        totals: &mut Totals,
    ) -> Result<Vec<Published>> {
        let log = load.end(verdict, totals).await?;
        let events = log.acknowledged();
        self.judge(&log, events.clone(), &[&self.old.api.client, &new.api.client], verdict).await?;
        for member in self.old.members().chain(new.members()) {
            verdict.no_errors_logged(member, |_| false)?;
        }
        Ok(events)
    }

    /// Upgrades what is still older, under load, and judges once more.
    async fn complete(
        mut self,
        mut new: Version,
        mut events: Vec<Published>,
        verdict: &mut Verdict,
        totals: &mut Totals,
    ) -> Result<()> {
        // Of those that were drawn and never published, there are no more than can be under way.
        let market = self.market.clone().skip(events.len() + 2 * PUBLISHERS);
        let load = Load::start(&new.api, market, self.rates);
        for (service, place) in [(Service::Worker, &mut new.worker), (Service::Listener, &mut new.listener)] {
            if place.is_none() {
                *place = Some(self.newer.start(service).await?);
                self.old.stop(service, verdict).await?;
            }
        }
        stop(&mut self.old.api, verdict).await?;
        let done = recalculate(&new.api.client, PATIENCE).await;
        verdict.promise("a recalculation is done by this version", done);
        sleep(ALONE).await;
        let log = load.end(verdict, totals).await?;
        events.extend(log.acknowledged());
        self.judge(&log, events, &[&new.api.client], verdict).await?;
        for member in new.members() {
            verdict.no_errors_logged(member, |_| false)?;
        }
        Ok(())
    }

    async fn judge(
        &self,
        log: &WriteLog,
        events: Vec<Published>,
        apis: &[&HttpClient],
        verdict: &mut Verdict,
    ) -> Result<()> {
        let first = apis.first().context("no API")?;
        come_to_rest(&mut self.redis.connection().await?, first, PATIENCE).await?;
        let store = Store::open(&self.url, StoreSettings::default()).await?;
        println!("   {} events acknowledged so far", events.len());
        let judge = Judge { store: &store, events: &events, products: PRODUCTS };
        verdict.promise("every acknowledged event is applied", judge.events_were_applied().await);
        verdict.promise("each price is that of the events", judge.prices_are_those_of_the_events().await);
        verdict.promise("each history is whole, with no change twice", judge.history_is_whole().await);
        verdict.promise(
            "every served price is the stored one, at both versions",
            judge.served_prices_are_the_stored_ones(apis).await,
        );
        for api in apis {
            verdict.promise("each written product is served", log.is_served(api).await);
        }
        store.close().await;
        Ok(())
    }
}
