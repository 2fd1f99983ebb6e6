//! Behaviour under overload: latency against load, up to three times the capacity.
//!
//! `cargo bench -p pricing-e2e --bench overload` starts a Redis, an SQLite file and an API. `oha` first sends
//! batches of a hundred prices as fast as they are answered, which is the capacity; then at fixed rates from
//! a quarter to three times of it, whether answers arrive or not. Latency counts from the moment at which a
//! request was due, so that waiting for a connection is not hidden; the table also has the time the API
//! itself took for what it accepted. Meanwhile single prices are requested at a low fixed rate.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]
#![expect(clippy::indexing_slicing, reason = "where one of these panics, the measurement has failed")]
#![expect(clippy::float_arithmetic, reason = "these are measurements, not prices")]

use std::path::Path;

use anyhow::{Context, Result, ensure};
use pricing_e2e::{HttpClient, RedisServer, ServiceProcess, free_port, line_chart};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

const PRODUCTS: usize = 1_000;
const BATCH: usize = 100;
/// Enough connections to keep the API busy.
const CAPACITY_CONNECTIONS: &str = "256";
/// So many that requests wait in the API and not in the load generator.
const CONNECTIONS: &str = "2048";
const DURATION: &str = "8s";
/// Rates as parts of the capacity.
const LOADS: [f64; 6] = [0.25, 0.5, 0.75, 1.0, 2.0, 3.0];
/// Single prices requested meanwhile, each second.
const SINGLES_PER_SECOND: &str = "400";

/// The report of oha.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Round {
    summary: Summary,
    /// Of those that were answered with 200.
    latency_percentiles_successful: Percentiles,
    status_code_distribution: std::collections::BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
struct Summary {
    /// Seconds.
    total: f64,
}

/// In seconds.
#[derive(Debug, Deserialize)]
struct Percentiles {
    p50: Option<f64>,
    p99: Option<f64>,
}

impl Round {
    fn answered(&self, status: &str) -> f64 {
        let count = self.status_code_distribution.get(status).copied().unwrap_or(0);
        count as f64 / self.summary.total
    }
}

fn main() -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> Result<()> {
    let redis = RedisServer::start().await?;
    let directory = tempfile::tempdir()?;
    let database = format!("sqlite://{}", directory.path().join("catalogue.db").display());
    let listen = format!("127.0.0.1:{}", free_port()?);
    let environment = [
        ("PRICING_API_LISTEN", listen.as_str()),
        ("PRICING_REDIS_URL", &redis.url()),
        ("PRICING_DATABASE_URL", &database),
        // Everything stays in memory.
        ("PRICING_L1_MAX_STALENESS", "1h"),
    ];
    let mut api = ServiceProcess::start("pricing-api", &environment, &[])?;
    let url = format!("http://{listen}");
    api.wait_until_ready(&url).await?;
    let client = HttpClient::new(&url)?;
    import(&client).await?;
    let bodies = tempfile::tempdir()?;
    let (batch, single) = (bodies.path().join("batch.json"), bodies.path().join("single.json"));
    let items: Vec<Value> = (0..BATCH).map(|number| json!({"product_id": product(number)})).collect();
    let asked = json!({"user_location": "NY", "items": items});
    std::fs::write(&batch, serde_json::to_vec(&asked)?)?;
    std::fs::write(&single, serde_json::to_vec(&json!({"product_id": product(0), "user_location": "NY"}))?)?;
    ensure!(client.post("/api/v1/prices", &asked).await?.status == 200);

    let batches = format!("{url}/api/v1/prices");
    let capacity =
        oha(&batches, &batch, &["-z", DURATION, "-c", CAPACITY_CONNECTIONS]).await?.answered("200");
    println!("## More than can be answered\n");
    println!("Capacity: {capacity:.0} batches of {BATCH} prices a second.\n");
    println!(
        "| asked | of the capacity | answered | refused | p50 ms | p99 ms | p99 in the API, at most ms | a single price p99 ms | refused |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut least_goodput = f64::INFINITY;
    let mut latencies = Vec::new();
    for load in LOADS {
        let rate = (capacity * load).round().to_string();
        let options = ["-z", DURATION, "-c", CONNECTIONS, "-q", &rate, "--latency-correction"];
        let singles = format!("{url}/api/v1/price");
        let single_options = ["-z", DURATION, "-c", "16", "-q", SINGLES_PER_SECOND, "--latency-correction"];
        let before = accepted(&client).await?;
        let (round, singles) =
            tokio::try_join!(oha(&batches, &batch, &options), oha(&singles, &single, &single_options))?;
        let in_the_api = within(&before, &accepted(&client).await?, 0.99);
        let (answered, refused) = (round.answered("200"), round.answered("503"));
        if load >= 1.0 {
            least_goodput = least_goodput.min(answered / capacity);
        }
        latencies.push(round.latency_percentiles_successful.p99.unwrap_or_default() * 1e3);
        println!(
            "| {rate} | {load} | {answered:.0} | {refused:.0} | {} | {} | {} | {} | {:.0} |",
            milliseconds(round.latency_percentiles_successful.p50),
            milliseconds(round.latency_percentiles_successful.p99),
            milliseconds(in_the_api),
            milliseconds(singles.latency_percentiles_successful.p99),
            singles.answered("503"),
        );
    }
    println!("\nFrom the capacity on, at least {least_goodput:.2} of it is answered (goal: 0.8).\n");
    let loads = LOADS.map(|load| load.to_string());
    let chart = line_chart(
        "p99 of the batches that are answered",
        ("asked, parts of the capacity", &loads),
        "ms",
        &[latencies],
    );
    println!("{chart}");
    Ok(())
}

/// How many batches were answered within each of the limits of the API's own measurement, in seconds.
async fn accepted(api: &HttpClient) -> Result<Vec<(f64, u64)>> {
    let metrics = api.get("/metrics").await?.text;
    let series = r#"http_request_duration_seconds_bucket{route="/api/v1/prices",status="200",le=""#;
    let buckets = metrics.lines().filter_map(|line| line.strip_prefix(series)?.split_once("\"} "));
    buckets.map(|(limit, count)| Ok((limit.replace("+Inf", "inf").parse()?, count.trim().parse()?))).collect()
}

/// The least limit within which this part of those was answered that came meanwhile.
fn within(before: &[(f64, u64)], after: &[(f64, u64)], part: f64) -> Option<f64> {
    let meanwhile: Vec<(f64, u64)> =
        before.iter().zip(after).map(|((limit, before), (_, after))| (*limit, after - before)).collect();
    let all = meanwhile.last()?.1 as f64;
    meanwhile.into_iter().find(|(_, count)| *count as f64 >= all * part).map(|(limit, _)| limit)
}

async fn import(api: &HttpClient) -> Result<()> {
    let rows: String = (0..PRODUCTS).map(|number| format!("{},USD,100,60,140\n", product(number))).collect();
    let rows = format!("product_id,currency,base_price,floor_price,ceiling_price\n{rows}");
    let request = api.request(reqwest::Method::POST, "/api/v1/products/import");
    let reply = api.send(request.header("content-type", "text/csv").body(rows)).await?;
    ensure!(reply.status == 200 && reply.body["failed"] == 0, "{}", reply.text);
    Ok(())
}

fn product(number: usize) -> String {
    format!("B-{number:05}")
}

async fn oha(url: &str, body: &Path, options: &[&str]) -> Result<Round> {
    let output = Command::new("oha")
        .args(["--no-tui", "--output-format", "json", "--stats-success-breakdown"])
        .args(["-m", "POST", "-T", "application/json", "-D"])
        .arg(body)
        .args(options)
        .arg(url)
        .kill_on_drop(true)
        .output()
        .await
        .context("running oha: cargo install oha")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&text).with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn milliseconds(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{:.2}", seconds * 1e3))
}
