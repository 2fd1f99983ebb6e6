//! How long it takes until a market event is a new price at another API process, whose memory held the old one.
//!
//! `cargo bench -p pricing-e2e --bench visible` starts a Redis that syncs every write, an SQLite file, two API
//! processes, a listener and a worker. 5,000 prices a second are read from the second API all the while. A thousand
//! times, an event with a new competitor price is posted to the first API, and the second is asked until it answers
//! with the price that follows. Beside it stands what the same machine needs at the least in the same minute: a POST
//! to the first API, and a message from Redis to a subscriber.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]
#![expect(clippy::indexing_slicing, reason = "where one of these panics, the measurement has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use futures::StreamExt;
use pricing_e2e::{HttpClient, RedisServer, ServiceProcess, free_port};
use serde_json::{Value, json};

const EVENTS: usize = 1_000;
const PRODUCTS: usize = 2_000;
const READS_PER_SECOND: u64 = 5_000;
/// Tasks that read; each waits for its answer before it asks again.
const READERS: u64 = 50;
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> Result<()> {
    let redis = RedisServer::start().await?;
    let directory = tempfile::tempdir()?;
    let database = format!("sqlite://{}", directory.path().join("catalogue.db").display());
    let start = async |program: &str, variable: &str| start(program, variable, &redis.url(), &database).await;
    let (_first, first) = start("pricing-api", "PRICING_API_LISTEN").await?;
    let (_second, second) = start("pricing-api", "PRICING_API_LISTEN").await?;
    let _listener = start("pricing-listener", "PRICING_LISTENER_LISTEN").await?;
    let _worker = start("pricing-worker", "PRICING_WORKER_LISTEN").await?;
    import(&first).await?;
    for number in 0..PRODUCTS {
        second.price(&product(number), "NY", false).await?;
    }

    let stop = Arc::new(AtomicBool::new(false));
    let reads = Arc::new(AtomicU64::new(0));
    let readers = (0..READERS)
        .map(|reader| tokio::spawn(read(second.clone(), reader, Arc::clone(&stop), Arc::clone(&reads))));
    let readers: Vec<_> = readers.collect();
    let began = Instant::now();
    let mut posts = Vec::with_capacity(EVENTS);
    let mut visible = Vec::with_capacity(EVENTS);
    for number in 0..EVENTS {
        let (post, seen) = publish_and_wait(&first, &second, number).await?;
        posts.push(post);
        visible.push(seen);
    }
    let elapsed = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await??;
    }
    let read = reads.load(Ordering::Relaxed);
    println!(
        "{EVENTS} events, one after another, while {} prices were read a second",
        per_second(read, elapsed)
    );
    show("POST of the event alone", &mut posts);
    show("POST to the new price at the other API", &mut visible);
    show("for comparison: PUBLISH to a subscriber", &mut round_trips(&redis).await?);
    Ok(())
}

async fn start(
    program: &str,
    variable: &str,
    redis: &str,
    database: &str,
) -> Result<(ServiceProcess, HttpClient)> {
    let listen = format!("127.0.0.1:{}", free_port()?);
    let environment = [
        (variable, listen.as_str()),
        ("PRICING_REDIS_URL", redis),
        ("PRICING_DATABASE_URL", database),
        ("PRICING_LOG", "warn"),
    ];
    let mut process = ServiceProcess::start(program, &environment, &[])?;
    let url = format!("http://{listen}");
    process.wait_until_ready(&url).await?;
    Ok((process, HttpClient::new(url)?))
}

async fn import(api: &HttpClient) -> Result<()> {
    let mut rows = "product_id,currency,base_price,floor_price,ceiling_price\n".to_owned();
    for number in 0..PRODUCTS {
        rows.push_str(&format!("{},USD,100,1,200\n", product(number)));
    }
    let request = api.request(reqwest::Method::POST, "/api/v1/products/import");
    let reply = api.send(request.header("content-type", "text/csv").body(rows)).await?;
    ensure!(reply.status == 200 && reply.body["failed"] == 0, "{}", reply.text);
    Ok(())
}

/// Posts an event and asks until the price follows; how long the answer took, and the price.
async fn publish_and_wait(
    first: &HttpClient,
    second: &HttpClient,
    number: usize,
) -> Result<(Duration, Duration)> {
    let product = product(number);
    let before = revision(second, &product).await?;
    let cents = 9_000 + number % 900;
    let price: Value = serde_json::from_str(&format!("{}.{:02}", cents / 100, cents % 100))?;
    let event = json!({
        "specversion": "1.0", "id": format!("visible-{number}"), "source": "/bench", "time": Utc::now().to_rfc3339(),
        "type": "pricing.competitor_price.v1",
        "data": {"product_id": product, "competitor": "bench", "price": price},
    });
    let started = Instant::now();
    let reply = first.post("/api/v1/publish-market-event", &event).await?;
    ensure!(reply.status == 200, "{}", reply.text);
    let posted = started.elapsed();
    while revision(second, &product).await? == before {
        ensure!(started.elapsed() < PATIENCE, "the price of {product} did not follow");
    }
    Ok((posted, started.elapsed()))
}

async fn revision(api: &HttpClient, product: &str) -> Result<i64> {
    let reply = api.price(product, "NY", false).await?;
    reply.body["revision"].as_i64().with_context(|| format!("no revision: {}", reply.text))
}

/// Reads prices at this reader's share of the rate.
async fn read(api: HttpClient, reader: u64, stop: Arc<AtomicBool>, reads: Arc<AtomicU64>) -> Result<()> {
    let mut pace = tokio::time::interval(Duration::from_micros(1_000_000 * READERS / READS_PER_SECOND));
    let mut number = usize::try_from(reader)? * 37;
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        number += 7;
        let reply = api.price(&product(number), "NY", reader.is_multiple_of(2)).await?;
        ensure!(reply.status == 200, "{}", reply.text);
        reads.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn round_trips(redis: &RedisServer) -> Result<Vec<Duration>> {
    let client = redis::Client::open(redis.url())?;
    let mut subscriber = client.get_async_pubsub().await?;
    subscriber.subscribe("round_trip").await?;
    let mut messages = subscriber.on_message();
    let mut connection = redis.connection().await?;
    let mut times = Vec::with_capacity(EVENTS);
    for _ in 0..EVENTS {
        let started = Instant::now();
        redis::cmd("PUBLISH").arg("round_trip").arg("").query_async::<()>(&mut connection).await?;
        messages.next().await.context("the subscription ended")?;
        times.push(started.elapsed());
    }
    Ok(times)
}

fn product(number: usize) -> String {
    format!("P-{}", number % PRODUCTS)
}

fn per_second(count: u64, elapsed: Duration) -> u128 {
    u128::from(count) * 1_000 / elapsed.as_millis().max(1)
}

fn show(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |percent: usize| {
        times.get((times.len() * percent / 100).min(times.len() - 1)).copied().unwrap_or_default()
    };
    println!("{what:<42} p50 {:>9.2?}  p99 {:>9.2?}  max {:>9.2?}", at(50), at(99), at(100));
}
