//! Throughput of price requests, compared with a bare axum server with the same bodies and answers, and the
//! cost of telemetry.
//!
//! `cargo bench -p pricing-e2e --bench http` starts a Redis, an SQLite file, a collector of traces, three
//! APIs (as delivered; with all telemetry off; with a memory that nothing may be served from), the bare
//! server, and a service in Python that does what the tutorial's did ([`peer`]), each a process. `wrk` asks
//! each of them in turn over 64 connections, for three seconds, and so on for five rounds. The machine is the
//! same for all and shared by wrk and the server, so the ratios say something and the rates little; each
//! ratio is the median of the rounds'.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]
#![expect(clippy::print_stderr, reason = "what was not measured is said apart from the results")]
#![expect(clippy::indexing_slicing, reason = "where one of these panics, the measurement has failed")]
#![expect(clippy::float_arithmetic, reason = "these are measurements, not prices")]

mod bare;
mod peer;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_e2e::{HttpClient, OtlpCollector, RedisServer, ServiceProcess, free_port};
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 5;
const ROUND_DURATION: &str = "3s";
const CONNECTIONS: &str = "64";
const PRODUCTS: usize = 1_000;
const BATCH: usize = 100;
/// What the bare server reads from Redis.
const BARE_KEY: &str = "bench:bare";

/// The results of one server for one kind of request.
struct Contestant {
    name: &'static str,
    base_url: String,
    path: &'static str,
    items: usize,
    rounds: Vec<Round>,
}

/// The result of one round of wrk.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Round {
    requests: f64,
    duration_us: f64,
    failed: u64,
    p50_us: f64,
    p99_us: f64,
}

/// The conventional alternative.
const FASTAPI: &str = "FastAPI + GET";

/// The comparisons: a contestant, its limit, and the least ratio of the rates.
const COMPARISONS: [(&str, &str, f64); 5] = [
    ("price, from memory", "bare", 0.85),
    ("price, from memory", "price, telemetry off", 0.9),
    ("price, from Redis", "bare + GET", 0.85),
    ("100 prices, from memory", "bare, 100 prices", 0.6),
    ("price, from memory", FASTAPI, 20.0),
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, rest)) = arguments.split_first()
        && first == bare::ARGUMENT
    {
        return bare::serve(rest);
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> Result<()> {
    let redis = RedisServer::start().await?;
    let directory = tempfile::tempdir()?;
    let database = format!("sqlite://{}", directory.path().join("catalogue.db").display());
    let collector = OtlpCollector::start().await?;
    let endpoint = collector.endpoint();
    let shared = [("PRICING_REDIS_URL", redis.url()), ("PRICING_DATABASE_URL", database)];
    let start = async |more: &[(&str, &str)]| start_api(&shared, more).await;
    let (_delivered, delivered) = start(&[("PRICING_OTLP_ENDPOINT", &endpoint)]).await?;
    let (_silent, silent) = start(&[("PRICING_LOG", "off"), ("PRICING_METRICS", "off")]).await?;
    let forgetful = [("PRICING_OTLP_ENDPOINT", endpoint.as_str()), ("PRICING_L1_MAX_STALENESS", "0s")];
    let (_forgetful, forgetful) = start(&forgetful).await?;
    import(&HttpClient::new(&delivered)?).await?;
    let mut lengths = (0, 0);
    for url in [&delivered, &silent, &forgetful] {
        lengths = warm(&HttpClient::new(url)?).await?;
    }
    set_bare_key(&redis, lengths.0).await?;
    let (_bare, bare) = start_bare(lengths, &redis.url()).await?;
    let peer = peer::start(&redis, PRODUCTS).await?;

    let contestant = |name, base_url: &String, path, items| Contestant {
        name,
        base_url: base_url.clone(),
        path,
        items,
        rounds: Vec::new(),
    };
    let mut contestants = vec![
        contestant("bare", &bare, bare::PRICE, 1),
        contestant("price, from memory", &delivered, "/api/v1/price", 1),
        contestant("price, telemetry off", &silent, "/api/v1/price", 1),
        contestant("bare + GET", &bare, bare::PRICE_AFTER_GET, 1),
        contestant("price, from Redis", &forgetful, "/api/v1/price", 1),
        contestant("bare, 100 prices", &bare, bare::PRICES, BATCH),
        contestant("100 prices, from memory", &delivered, "/api/v1/prices", BATCH),
    ];
    let (peer, peer_url) = peer.unzip();
    if let Some(url) = &peer_url {
        contestants.push(contestant(FASTAPI, url, peer::PRICE, 1));
    }
    for _ in 0..ROUNDS {
        for contestant in &mut contestants {
            let round = run_wrk(contestant).await?;
            contestant.rounds.push(round);
        }
    }
    if let Some(mut peer) = peer {
        // Killing it would leave its child processes behind.
        peer.terminate(Duration::from_secs(10)).await?;
    }
    report(&contestants)
}

async fn start_api(shared: &[(&str, String)], more: &[(&str, &str)]) -> Result<(ServiceProcess, String)> {
    let listen = format!("127.0.0.1:{}", free_port()?);
    let mut environment: Vec<(&str, &str)> =
        shared.iter().map(|(name, value)| (*name, value.as_str())).collect();
    environment.push(("PRICING_API_LISTEN", &listen));
    environment.extend(more);
    let mut process = ServiceProcess::start("pricing-api", &environment, &[])?;
    let url = format!("http://{listen}");
    process.wait_until_ready(&url).await?;
    Ok((process, url))
}

async fn start_bare(lengths: (usize, usize), redis_url: &str) -> Result<(ServiceProcess, String)> {
    let listen = format!("127.0.0.1:{}", free_port()?);
    let (price, prices) = (lengths.0.to_string(), lengths.1.to_string());
    let arguments = [bare::ARGUMENT, &listen, &price, &prices, redis_url];
    let mut process = ServiceProcess::start_program(&std::env::current_exe()?, &[], &arguments)?;
    let url = format!("http://{listen}");
    process.wait_until_ready(&url).await?;
    Ok((process, url))
}

async fn import(api: &HttpClient) -> Result<()> {
    let rows: String = (0..PRODUCTS).map(|number| format!("B-{number:05},USD,100,60,140\n")).collect();
    let rows = format!("product_id,currency,base_price,floor_price,ceiling_price\n{rows}");
    let request = api.request(reqwest::Method::POST, "/api/v1/products/import");
    let reply = api.send(request.header("content-type", "text/csv").body(rows)).await?;
    ensure!(reply.status == 200 && reply.body["failed"] == 0, "{}", reply.text);
    Ok(())
}

/// Reads every product once. Returns the lengths of the answers to a price and to a batch.
async fn warm(api: &HttpClient) -> Result<(usize, usize)> {
    let mut price = 0;
    for number in 0..PRODUCTS {
        let reply = api.price(&format!("B-{number:05}"), "NY", number % 2 == 0).await?;
        ensure!(reply.status == 200, "{}", reply.text);
        price = api.price(&format!("B-{number:05}"), "NY", number % 2 == 0).await?.text.len();
    }
    let items: Vec<_> = (0..BATCH).map(|number| json!({"product_id": format!("B-{number:05}")})).collect();
    let prices = api.post("/api/v1/prices", &json!({"user_location": "NY", "items": items})).await?;
    ensure!(prices.status == 200, "{}", prices.text);
    Ok((price, prices.text.len()))
}

async fn set_bare_key(redis: &RedisServer, bytes: usize) -> Result<()> {
    let client = redis::Client::open(redis.url())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    Ok(redis::cmd("SET").arg(BARE_KEY).arg("x".repeat(bytes)).query_async(&mut connection).await?)
}

async fn run_wrk(contestant: &Contestant) -> Result<Round> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/http/load.lua");
    let url = format!("{}{}", contestant.base_url, contestant.path);
    let output = Command::new("wrk")
        .args(["-t1", "-c", CONNECTIONS, "-d", ROUND_DURATION, "-s"])
        .arg(script)
        .args([&url, "--", contestant.path])
        .args([PRODUCTS.to_string(), contestant.items.to_string()])
        .kill_on_drop(true)
        .output()
        .await
        .context("running wrk; it is in the package of that name")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let result = text.lines().find_map(|line| line.strip_prefix("RESULT ")).with_context(|| text.clone())?;
    let round: Round = serde_json::from_str(result)?;
    ensure!(round.failed == 0 && round.requests > 0.0, "{}: {text}", contestant.name);
    Ok(round)
}

fn report(contestants: &[Contestant]) -> Result<()> {
    println!("## Requests\n\n| server | requests/s | prices/s | p50 ms | p99 ms |\n|---|---|---|---|---|");
    for contestant in contestants {
        let rate = contestant.median(Round::rate);
        let (p50, p99) = (contestant.median(|round| round.p50_us), contestant.median(|round| round.p99_us));
        let prices = rate * f64::from(u32::try_from(contestant.items)?);
        println!("| {} | {rate:.0} | {prices:.0} | {:.2} | {:.2} |", contestant.name, p50 / 1e3, p99 / 1e3);
    }
    println!("\n| work | beside | of its rate | goal | its p99 times |\n|---|---|---|---|---|");
    for (name, limit, goal) in COMPARISONS {
        let find = |name| contestants.iter().find(|one| one.name == name);
        // The peer is measured only if a Python is given for it.
        let (Some(ours), Some(limit)) = (find(name), find(limit)) else { continue };
        let rate = ratio(ours, limit, Round::rate);
        let p99 = ratio(ours, limit, |round| round.p99_us);
        println!("| {name} | {} | {rate:.2} | ≥ {goal} | {p99:.2} |", limit.name);
    }
    Ok(())
}

impl Contestant {
    fn median(&self, value: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(value).collect())
    }
}

impl Round {
    fn rate(&self) -> f64 {
        self.requests * 1e6 / self.duration_us
    }
}

/// The median of the rounds' ratios.
fn ratio(ours: &Contestant, limit: &Contestant, value: impl Fn(&Round) -> f64) -> f64 {
    let ratios = ours.rounds.iter().zip(&limit.rounds).map(|(ours, limit)| value(ours) / value(limit));
    median(ratios.collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
