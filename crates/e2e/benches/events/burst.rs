//! A burst of a hundred thousand events, and its effect on the latency of price reads.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pricing_e2e::open_loop::{Latencies, OpenLoop};
use pricing_e2e::wire_client::{WireClient, post};
use tokio_util::sync::CancellationToken;

use crate::{PUBLISH, Services, event, milliseconds, price, product};

const EVENTS: u64 = 100_000;
const EVENTS_PER_REQUEST: u64 = 1_000;
const READS_PER_SECOND: u32 = 5_000;
const READERS: u32 = 64;
const CALM: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

pub(super) async fn measure(services: &Services) -> Result<()> {
    let calm = read_while(services, async {
        tokio::time::sleep(CALM).await;
        Ok(())
    });
    let (calm, ()) = calm.await?;
    // Built beforehand: this process' own work would delay its reads.
    let requests: Vec<Vec<u8>> =
        (0..EVENTS / EVENTS_PER_REQUEST).map(|request| batch(request * EVENTS_PER_REQUEST)).collect();
    let (busy, (posted, applied)) = read_while(services, burst(services, &requests)).await?;
    let (calm_p99, busy_p99) = (calm.permille(990), busy.permille(990));
    println!(
        "### A burst of {EVENTS} events, {READS_PER_SECOND} reads a second\n\nPosted in {:.2} s, applied after {:.2} s: {:.0} events a second.\n",
        posted.as_secs_f64(),
        applied.as_secs_f64(),
        EVENTS as f64 / applied.as_secs_f64()
    );
    println!("| read of a price, ms | p50 | p99 | p99.9 |\n|---|---|---|---|");
    for (when, latencies) in [("calm", &calm), ("during the burst", &busy)] {
        let at = |permille| milliseconds(latencies.permille(permille));
        println!("| {when} | {} | {} | {} |", at(500), at(990), at(999));
    }
    let times = busy_p99.as_secs_f64() / calm_p99.as_secs_f64();
    println!("\np99 during the burst is {times:.2} times that of calm (goal: at most 2).\n");
    Ok(())
}

/// Reads prices at a fixed rate until the work is done.
async fn read_while<T>(services: &Services, work: impl Future<Output = Result<T>>) -> Result<(Latencies, T)> {
    let reads = OpenLoop {
        address: services.reading.address.clone(),
        connections: READERS,
        per_second: READS_PER_SECOND,
    };
    let stop = CancellationToken::new();
    let work = async {
        let done = work.await;
        stop.cancel();
        done
    };
    tokio::try_join!(reads.run(|number| price(&product(number * 7)), stop.clone()), work)
}

/// Posts all events. Returns how long that took, and how long until the last was applied.
async fn burst(services: &Services, requests: &[Vec<u8>]) -> Result<(Duration, Duration)> {
    let before = applied(services).await?;
    let mut client = WireClient::connect(&services.publishing.address).await?;
    let began = Instant::now();
    for request in requests {
        client.ask(request).await?.ok()?;
    }
    let posted = began.elapsed();
    while applied(services).await? < before + EVENTS {
        ensure!(began.elapsed() < PATIENCE, "the events were not applied in time");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok((posted, began.elapsed()))
}

fn batch(first: u64) -> Vec<u8> {
    let numbers = first..first + EVENTS_PER_REQUEST;
    let events: Vec<String> = numbers.map(|number| event("burst", number, &product(number))).collect();
    post(PUBLISH, "application/cloudevents-batch+json", &format!("[{}]", events.join(",")))
}

/// Events that the worker has applied so far.
async fn applied(services: &Services) -> Result<u64> {
    let metrics = services.worker.client.get("/metrics").await?.text;
    let count = metrics
        .lines()
        .find_map(|line| line.strip_prefix("pricing_events_applied_total{outcome=\"applied\"} "));
    Ok(count.unwrap_or("0").trim().parse()?)
}
