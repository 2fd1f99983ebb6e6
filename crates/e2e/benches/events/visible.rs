//! Latency from event to price at a thousand events a second, while twenty thousand prices a second are read.
//!
//! Ten in a hundred of these events are followed: from the start of the POST to the answer of the other API
//! with the new price. For comparison, the minimum for such a path is measured in the same seconds: a message
//! published to Redis, its arrival at a subscriber, and a GET.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use pricing_e2e::RedisServer;
use pricing_e2e::open_loop::{Latencies, OpenLoop};
use pricing_e2e::wire_client::{WireClient, post};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{PRODUCTS, PUBLISH, Services, event, milliseconds, price, product};

const READS_PER_SECOND: u32 = 20_000;
const READERS: u32 = 64;
/// Events that are not followed.
const EVENTS_PER_SECOND: u32 = 900;
const PUBLISHERS: u32 = 32;
/// The number of followers, and how often each publishes an event.
const FOLLOWERS: u64 = 20;
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);
const DURATION: Duration = Duration::from_secs(15);
/// How often a follower polls the price.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn measure(services: &Services) -> Result<()> {
    let stop = CancellationToken::new();
    let reads = OpenLoop {
        address: services.reading.address.clone(),
        connections: READERS,
        per_second: READS_PER_SECOND,
    };
    let events = OpenLoop {
        address: services.publishing.address.clone(),
        connections: PUBLISHERS,
        per_second: EVENTS_PER_SECOND,
    };
    let others = |number| FOLLOWERS + number % (PRODUCTS - FOLLOWERS);
    let publish =
        move |number| post(PUBLISH, "application/json", &event("flow", number, &product(others(number))));
    let timer = async {
        tokio::time::sleep(DURATION).await;
        stop.cancel();
        Ok(())
    };
    let began = Instant::now();
    let (reads, events, followed, round_trips, ()) = tokio::try_join!(
        reads.run(|number| price(&product(number * 7)), stop.clone()),
        events.run(publish, stop.clone()),
        follow_all(services, &stop),
        round_trips(&services.redis, &stop),
        timer
    )?;
    let seconds = began.elapsed().as_secs_f64();
    let (posted, visible) = followed;
    println!(
        "### {:.0} events and {:.0} reads a second\n\n| ms | p50 | p99 | max |\n|---|---|---|---|",
        (events.count() + visible.count()) as f64 / seconds,
        reads.count() as f64 / seconds
    );
    row("read of a price", &reads);
    row("POST of an event", &posted);
    row("event to the new price at the other API", &visible);
    row("for comparison: PUBLISH, its arrival, GET", &round_trips);
    println!("\nGoal: the new price after at most 50 ms at p99.\n");
    Ok(())
}

/// Measures the POSTs of followed events, and the time until the new price was visible.
async fn follow_all(services: &Services, stop: &CancellationToken) -> Result<(Latencies, Latencies)> {
    let mut following = JoinSet::new();
    for follower in 0..FOLLOWERS {
        let (publishing, reading) = (services.publishing.address.clone(), services.reading.address.clone());
        let stop = stop.clone();
        following.spawn(async move {
            follow(
                WireClient::connect(&publishing).await?,
                WireClient::connect(&reading).await?,
                follower,
                stop,
            )
            .await
        });
    }
    let (mut posted, mut visible) = (Vec::new(), Vec::new());
    while let Some(followed) = following.join_next().await {
        for (post, seen) in followed?? {
            posted.push(post);
            visible.push(seen);
        }
    }
    Ok((posted.into(), visible.into()))
}

async fn follow(
    mut publishing: WireClient,
    mut reading: WireClient,
    follower: u64,
    stop: CancellationToken,
) -> Result<Vec<(Duration, Duration)>> {
    let product = product(follower);
    // Followers start one after the other, so that events do not come all in the same instant.
    tokio::time::sleep(FOLLOW_INTERVAL * u32::try_from(follower)? / u32::try_from(FOLLOWERS)?).await;
    let mut pace = tokio::time::interval(FOLLOW_INTERVAL);
    let mut times = Vec::new();
    for number in 0.. {
        if stop.run_until_cancelled(pace.tick()).await.is_none() {
            break;
        }
        let before = revision(&mut reading, &product).await?;
        let name = format!("followed-{follower}");
        let event = post(PUBLISH, "application/json", &event(&name, number * 37, &product));
        let began = Instant::now();
        publishing.ask(&event).await?.ok()?;
        let posted = began.elapsed();
        while revision(&mut reading, &product).await? == before {
            ensure!(began.elapsed() < PATIENCE, "the price of {product} did not follow");
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        times.push((posted, began.elapsed()));
    }
    Ok(times)
}

async fn revision(reading: &mut WireClient, product: &str) -> Result<i64> {
    let answer = reading.ask(&price(product)).await?.ok()?;
    let answer: serde_json::Value = serde_json::from_slice(answer)?;
    answer["revision"].as_i64().context("no revision")
}

async fn round_trips(redis: &RedisServer, stop: &CancellationToken) -> Result<Latencies> {
    let client = redis::Client::open(redis.url())?;
    let mut subscriber = client.get_async_pubsub().await?;
    subscriber.subscribe("round_trip").await?;
    let mut messages = subscriber.on_message();
    let mut connection = redis.connection().await?;
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    let mut times = Vec::new();
    while stop.run_until_cancelled(pace.tick()).await.is_some() {
        let began = Instant::now();
        redis::cmd("PUBLISH").arg("round_trip").arg("").query_async::<()>(&mut connection).await?;
        messages.next().await.context("the subscription ended")?;
        redis::cmd("GET").arg("round_trip").query_async::<()>(&mut connection).await?;
        times.push(began.elapsed());
    }
    Ok(times.into())
}

fn row(what: &str, latencies: &Latencies) {
    let at = |permille| milliseconds(latencies.permille(permille));
    println!("| {what} | {} | {} | {} |", at(500), at(990), at(1_000));
}
