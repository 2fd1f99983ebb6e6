//! A load that continues through faults: what is refused is counted with its instant, and does not end it.
//!
//! Reads and events are due at fixed instants, whether or not earlier ones were answered in time (see
//! [`open_loop`](crate::open_loop)). A write that is refused is repeated until it is accepted, as callers do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::http_client::HttpClient;
use crate::judge::served_price;
use crate::market::{Published, import};
use crate::open_loop::Latencies;
use crate::wire_client::{WireClient, post};

/// A read that takes longer has failed.
const READ_PATIENCE: Duration = Duration::from_secs(5);
/// A write that takes longer is repeated.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// A write that is refused for so long, whatever is down, is an error.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(120);
/// The pause of a caller before it repeats a write.
const REPEAT_PAUSE: Duration = Duration::from_millis(200);
/// Events under way at a time.
pub const PUBLISHERS: usize = 64;
/// Products that are written one by one, and products that are imported.
const WRITTEN: usize = 50;
const IMPORTED: usize = 100;
/// One in so many writes is an import.
const IMPORT_EVERY: usize = 10;

/// A request that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When the answer came, or did not.
    pub at: Instant,
    /// The status, or why there was none.
    pub what: String,
}

/// Price requests to one API.
#[derive(Debug, Clone)]
pub struct Reads {
    /// `127.0.0.1:8000`.
    pub address: String,
    /// The number of connections; each waits for a response before its next request.
    pub connections: u32,
    /// The total rate of requests.
    pub per_second: u32,
    /// The number of the market's products, which are read in turns.
    pub products: usize,
}

/// What became of reads.
#[derive(Debug, Default)]
pub struct ReadReport {
    /// Reads that were answered with a price: their latencies.
    pub latencies: Latencies,
    /// All others.
    pub failures: Vec<Failure>,
}

impl Reads {
    /// Reads until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) -> Result<ReadReport> {
        ensure!(self.per_second > 0 && self.connections > 0, "no reads");
        let began = Instant::now();
        let mut connections = JoinSet::new();
        for first in 0..self.connections {
            connections.spawn(read(self.clone(), first, began, stop.clone()));
        }
        let (mut latencies, mut failures) = (Vec::new(), Vec::new());
        while let Some(finished) = connections.join_next().await {
            let (answered, failed) = finished?;
            latencies.extend(answered);
            failures.extend(failed);
        }
        failures.sort_by_key(|failure| failure.at);
        Ok(ReadReport { latencies: latencies.into(), failures })
    }

    /// The request with this number.
    fn request(&self, number: u64) -> Vec<u8> {
        let product = usize::try_from(number).unwrap_or_default() % self.products.max(1);
        let body = json!({"product_id": format!("P-{product}"), "user_location": "NY"});
        post("/api/v1/price", "application/json", &body.to_string())
    }
}

/// One connection's share of the reads, opened again after each failure.
async fn read(
    reads: Reads,
    first: u32,
    began: Instant,
    stop: CancellationToken,
) -> (Vec<Duration>, Vec<Failure>) {
    let (mut latencies, mut failures) = (Vec::new(), Vec::new());
    let mut open: Option<WireClient> = None;
    for number in (u64::from(first)..).step_by(reads.connections as usize) {
        let due = began + Duration::from_micros(1_000_000 * number / u64::from(reads.per_second));
        if stop.run_until_cancelled(sleep_until(due)).await.is_none() {
            break;
        }
        // Timers are late, which is not counted if the connection was free in time.
        let from = due.max(Instant::now() - Duration::from_millis(2));
        let asked = timeout(READ_PATIENCE, ask(open.take(), &reads, number)).await;
        match asked.unwrap_or_else(|_| bail!("no answer within {READ_PATIENCE:?}")) {
            Ok(client) => {
                open = Some(client);
                latencies.push(from.elapsed());
            }
            Err(error) => failures.push(Failure { at: Instant::now(), what: format!("{error:#}") }),
        }
    }
    (latencies, failures)
}

async fn ask(open: Option<WireClient>, reads: &Reads, number: u64) -> Result<WireClient> {
    let mut client = match open {
        Some(client) => client,
        None => WireClient::connect(&reads.address).await?,
    };
    let answer = client.ask(&reads.request(number)).await?;
    if answer.status != 200 {
        bail!("{} {}", answer.status, String::from_utf8_lossy(answer.body));
    }
    Ok(client)
}

/// The APIs that get the writes, as behind a load balancer; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Gateway(Arc<Mutex<Vec<HttpClient>>>);

impl Gateway {
    /// These APIs.
    pub fn to<'a>(apis: impl IntoIterator<Item = &'a HttpClient>) -> Self {
        Self(Arc::new(Mutex::new(apis.into_iter().cloned().collect())))
    }

    /// From now on these get the writes.
    pub fn lead_to<'a>(&self, apis: impl IntoIterator<Item = &'a HttpClient>) {
        *locked(&self.0) = apis.into_iter().cloned().collect();
    }

    /// The API of this turn.
    fn api(&self, turn: usize) -> Result<HttpClient> {
        let apis = locked(&self.0);
        apis.get(turn % apis.len().max(1)).cloned().context("no API")
    }
}

/// What became of writes; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct WriteLog {
    acknowledged: Arc<Mutex<Vec<(Published, Instant)>>>,
    refusals: Arc<Mutex<Vec<Failure>>>,
    sold: Arc<Mutex<BTreeMap<String, String>>>,
}

impl WriteLog {
    /// The events that were acknowledged so far.
    pub fn acknowledged(&self) -> Vec<Published> {
        locked(&self.acknowledged).iter().map(|(event, _)| event.clone()).collect()
    }

    /// When each of them was, in the same order.
    pub fn acknowledged_at(&self) -> Vec<Instant> {
        locked(&self.acknowledged).iter().map(|(_, at)| *at).collect()
    }

    /// How many were.
    pub fn acknowledged_count(&self) -> usize {
        locked(&self.acknowledged).len()
    }

    /// Every write that was refused, also if it was accepted when it was repeated.
    pub fn refusals(&self) -> Vec<Failure> {
        locked(&self.refusals).clone()
    }

    /// The base price that each product of the seller was last given, and that was accepted.
    pub fn sold(&self) -> BTreeMap<String, String> {
        locked(&self.sold).clone()
    }

    /// The API serves each product of the seller at the price that was last accepted.
    pub async fn is_served(&self, api: &HttpClient) -> Result<()> {
        for (id, base) in self.sold() {
            let reply = api.price(&id, "NY", false).await?;
            let is_same = served_price(&reply) == base.parse::<Decimal>().ok();
            ensure!(reply.status == 200 && is_same, "{id}: {base} was accepted, served {}", reply.text);
        }
        Ok(())
    }

    fn refuse(&self, what: String) {
        locked(&self.refusals).push(Failure { at: Instant::now(), what });
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Publishes events at a fixed rate to the APIs in turns, until `stop` is cancelled or there are no more.
/// Returns when each that has begun is acknowledged.
pub async fn publish(
    events: impl Iterator<Item = Published>,
    apis: Gateway,
    per_second: u64,
    log: WriteLog,
    stop: CancellationToken,
) -> Result<()> {
    let began = Instant::now();
    let publishing = events.enumerate().take_while(|_| !stop.is_cancelled()).map(|(number, event)| {
        let due = began + Duration::from_micros(1_000_000 * number as u64 / per_second.max(1));
        publish_one(event, number, due, apis.clone(), log.clone(), stop.clone())
    });
    futures::stream::iter(publishing).buffer_unordered(PUBLISHERS).try_collect().await
}

async fn publish_one(
    event: Published,
    number: usize,
    due: Instant,
    apis: Gateway,
    log: WriteLog,
    stop: CancellationToken,
) -> Result<()> {
    if stop.run_until_cancelled(sleep_until(due)).await.is_none() {
        return Ok(());
    }
    accepted(&apis, number, &log, &Write::Event(event.body.clone())).await?;
    locked(&log.acknowledged).push((event, Instant::now()));
    Ok(())
}

/// Writes products of the seller at a fixed rate to the APIs in turns, one by one and by imports, each time
/// with another base price, until `stop` is cancelled. No event is about them, so their base price is their
/// list price.
pub async fn sell(apis: Gateway, per_second: u64, log: WriteLog, stop: CancellationToken) -> Result<()> {
    let pause = Duration::from_micros(1_000_000 / per_second.max(1));
    for turn in 0.. {
        if stop.run_until_cancelled(sleep(pause)).await.is_none() {
            break;
        }
        let base = format!("{}.{:02}", 50 + turn % 97, turn % 100);
        if turn % IMPORT_EVERY == 0 {
            let rows = (0..IMPORTED).map(|number| format!("I-{number},USD,{base},1\n"));
            let rows = "product_id,currency,base_price,floor_price\n".to_owned() + &rows.collect::<String>();
            accepted(&apis, turn, &log, &Write::Import(rows)).await?;
            locked(&log.sold).extend((0..IMPORTED).map(|number| (format!("I-{number}"), base.clone())));
        } else {
            let product_id = format!("W-{}", turn % WRITTEN);
            let product = json!({"currency": "USD", "base_price": base, "floor_price": 1});
            accepted(&apis, turn, &log, &Write::Product { product_id: product_id.clone(), product }).await?;
            locked(&log.sold).insert(product_id, base);
        }
    }
    Ok(())
}

/// A request that changes something.
enum Write {
    Event(Value),
    Product { product_id: String, product: Value },
    Import(String),
}

impl Write {
    async fn send(&self, api: &HttpClient) -> Result<()> {
        let reply = match self {
            Self::Import(rows) => return import(api, rows.clone()).await,
            Self::Event(event) => api.post("/api/v1/publish-market-event", event).await?,
            Self::Product { product_id, product } => {
                api.put(&format!("/api/v1/products/{product_id}"), product).await?
            }
        };
        ensure!(reply.status.is_success(), "{} {}", reply.status, reply.text);
        Ok(())
    }
}

/// Repeats a write at one API after the other until it is accepted.
async fn accepted(apis: &Gateway, first: usize, log: &WriteLog, write: &Write) -> Result<()> {
    let (began, mut tries) = (Instant::now(), first);
    loop {
        let api = apis.api(tries)?;
        tries += 1;
        let written = timeout(WRITE_PATIENCE, write.send(&api)).await;
        let Err(error) = written.unwrap_or_else(|_| bail!("no answer within {WRITE_PATIENCE:?}")) else {
            return Ok(());
        };
        log.refuse(format!("{error:#}"));
        ensure!(began.elapsed() < REFUSAL_PATIENCE, "refused for {REFUSAL_PATIENCE:?}: {error:#}");
        sleep(REPEAT_PAUSE).await;
    }
}
