//! Leases on a real Redis that dies, loses its data and is cut off; and subscriptions under the same
//! failures.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_core::keys::{DEFAULT_PREFIX, MessageKeys};
use pricing_core::lease::Lease;
use pricing_core::redis::{RedisConnection, Subscription, SubscriptionEvent};
use pricing_e2e::{ChaosProxy, RedisServer, eventually};
use redis::aio::MultiplexedConnection;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
const NAME: &str = "test";
/// Long enough not to expire in a test by itself, as long as it is renewed.
const TTL: Duration = Duration::from_secs(3);
/// So long that no test sees its end.
const LONG_TTL: Duration = Duration::from_secs(600);

async fn take(
    redis: &RedisConnection,
    owner: &str,
    ttl: Duration,
    token_after: i64,
) -> Result<Option<Lease>> {
    let keys = MessageKeys::new(DEFAULT_PREFIX);
    Ok(Lease::acquire(redis, &keys, NAME, owner, ttl, token_after).await?)
}

fn key() -> String {
    MessageKeys::new(DEFAULT_PREFIX).lease(NAME)
}

async fn value(connection: &mut MultiplexedConnection) -> Result<Option<String>> {
    Ok(redis::cmd("GET").arg(key()).query_async(connection).await?)
}

#[tokio::test]
async fn one_of_twenty_gets_it_and_each_owner_has_a_larger_token() -> Result<()> {
    let server = RedisServer::start().await?;
    let redis = RedisConnection::open(&server.url())?;
    let mut last_token = 0;
    for round in 0..20 {
        let owners: Vec<String> = (0..20).map(|number| format!("owner-{round}-{number}")).collect();
        let tries = owners.iter().map(|owner| take(&redis, owner, LONG_TTL, 0));
        let mut held: Vec<Lease> = Vec::new();
        for lease in futures::future::join_all(tries).await {
            held.extend(lease?);
        }
        assert_eq!(held.len(), 1, "round {round}");
        let lease = held.remove(0);
        assert!(lease.token() > last_token, "{} after {last_token}", lease.token());
        last_token = lease.token();
        assert!(!lease.lost().is_cancelled());
        lease.release().await?;
    }
    Ok(())
}

#[tokio::test]
async fn tokens_grow_although_redis_lost_everything() -> Result<()> {
    let server = RedisServer::start().await?;
    let redis = RedisConnection::open(&server.url())?;
    let first = take(&redis, "one", LONG_TTL, 41).await?.context("not held")?;
    assert_eq!(first.token(), 42);
    let () = redis::cmd("FLUSHALL").query_async(&mut server.connection().await?).await?;
    let second = take(&redis, "two", LONG_TTL, first.token()).await?.context("not held")?;
    assert_eq!(second.token(), 43);
    second.release().await?;
    let third = take(&redis, "three", LONG_TTL, 7).await?.context("not held")?;
    assert_eq!(third.token(), 44, "the larger of the two counts");
    Ok(())
}

#[tokio::test]
async fn it_is_kept_as_long_as_it_is_held_and_expires_when_it_is_dropped() -> Result<()> {
    let server = RedisServer::start().await?;
    let redis = RedisConnection::open(&server.url())?;
    let lease = take(&redis, "one", TTL, 0).await?.context("not held")?;
    let connection = server.connection().await?;
    let left = async |connection: &mut MultiplexedConnection| -> Result<i64> {
        Ok(redis::cmd("PTTL").arg(key()).query_async(connection).await?)
    };
    for _ in 0..3 {
        let least = AtomicI64::new(i64::MAX);
        eventually("it is renewed", PATIENCE, async || {
            let left = left(&mut connection.clone()).await?;
            let least = least.fetch_min(left, Ordering::Relaxed);
            ensure!(left > least, "{left} ms left after {least}");
            Ok(())
        })
        .await?;
        assert!(take(&redis, "two", TTL, 0).await?.is_none());
    }
    let lost = lease.lost();
    assert!(!lost.is_cancelled());
    drop(lease);
    assert!(lost.is_cancelled());
    eventually("it expires", PATIENCE, async || take(&redis, "two", TTL, 0).await?.context("still held"))
        .await?;
    Ok(())
}

#[tokio::test]
async fn an_owner_that_is_cut_off_knows_that_it_lost_it_before_another_one_can_have_it() -> Result<()> {
    let server = RedisServer::start().await?;
    let mut network = ChaosProxy::start(server.address()).await?;
    let cut_off = RedisConnection::open(&format!("redis://{}", network.address()))?;
    let other = RedisConnection::open(&server.url())?;
    for is_cut in [true, false] {
        let lease = eventually("it is taken", PATIENCE, async || {
            take(&cut_off, "one", TTL, 0).await?.context("the lease is held")
        })
        .await?;
        if is_cut {
            network.cut().await;
        } else {
            network.stall();
        }
        let lost = lease.lost();
        let successor = eventually("another one has it", PATIENCE, async || {
            let taken = take(&other, "two", LONG_TTL, 0).await?;
            let known = lost.is_cancelled();
            let taken = taken.context("the lease is held")?;
            assert!(known, "two owners at a time");
            Ok(taken)
        })
        .await?;
        assert!(successor.token() > lease.token());
        network.restore().await?;
        // Its former owner releases it late: the successor's stays.
        eventually("the former owner can release it", PATIENCE, async || {
            cut_off.check().await.map_err(anyhow::Error::from)
        })
        .await?;
        let _ = lease.release().await;
        assert_eq!(value(&mut server.connection().await?).await?, Some(format!("two {}", successor.token())));
        successor.release().await?;
    }
    Ok(())
}

#[tokio::test]
async fn it_outlives_a_short_outage_of_redis_and_not_a_long_one() -> Result<()> {
    let mut server = RedisServer::start().await?;
    let redis = RedisConnection::open(&server.url())?;
    let lease = take(&redis, "one", TTL * 4, 0).await?.context("not held")?;
    server.restart().await?;
    eventually("redis is found again", PATIENCE, async || Ok(redis.check().await?)).await?;
    assert!(!lease.lost().is_cancelled());
    assert!(take(&redis, "two", TTL, 0).await?.is_none(), "it was on disk");
    server.kill()?;
    timeout(PATIENCE, lease.lost().cancelled()).await.context("it is never lost")?;
    Ok(())
}

#[tokio::test]
async fn another_owners_lease_is_neither_renewed_nor_released() -> Result<()> {
    let server = RedisServer::start().await?;
    let redis = RedisConnection::open(&server.url())?;
    let lease = take(&redis, "one", TTL, 0).await?.context("not held")?;
    let mut connection = server.connection().await?;
    let () = redis::cmd("SET")
        .arg(key())
        .arg("two 99")
        .arg("PX")
        .arg(600_000)
        .query_async(&mut connection)
        .await?;
    timeout(PATIENCE, lease.lost().cancelled()).await.context("it is never lost")?;
    lease.release().await?;
    assert_eq!(value(&mut connection).await?.as_deref(), Some("two 99"));
    Ok(())
}

/// The next event other than a message.
async fn next_turn(subscription: &mut Subscription) -> Result<SubscriptionEvent> {
    loop {
        let event = timeout(PATIENCE, subscription.next()).await.context("no event came")?;
        if !matches!(event, SubscriptionEvent::Message { .. }) {
            return Ok(event);
        }
    }
}

async fn publish(server: &RedisServer, payload: &str) -> Result<usize> {
    let mut connection = server.connection().await?;
    Ok(redis::cmd("PUBLISH").arg("price_changes").arg(payload).query_async(&mut connection).await?)
}

async fn hears(subscription: &mut Subscription, server: &RedisServer, payload: &str) -> Result<()> {
    ensure!(publish(server, payload).await? == 1, "there is no subscriber");
    let heard = timeout(PATIENCE, subscription.next()).await.context("no event came")?;
    let expected =
        SubscriptionEvent::Message { channel: "price_changes".to_owned(), payload: payload.into() };
    ensure!(heard == expected, "{heard:?}");
    Ok(())
}

#[tokio::test]
async fn a_subscription_outlives_every_failure_of_redis() -> Result<()> {
    let mut server = RedisServer::start().await?;
    // Redis is down when it begins.
    server.kill()?;
    let mut subscription = Subscription::open(&server.url(), vec!["price_changes".to_owned()])?;
    server.restart().await?;
    assert_eq!(next_turn(&mut subscription).await?, SubscriptionEvent::Subscribed);
    hears(&mut subscription, &server, "one").await?;
    for round in 0..3 {
        server.restart().await?;
        assert_eq!(next_turn(&mut subscription).await?, SubscriptionEvent::Disconnected);
        assert_eq!(next_turn(&mut subscription).await?, SubscriptionEvent::Subscribed);
        hears(&mut subscription, &server, &format!("after {round}")).await?;
    }
    // The server ends the connection.
    let mut connection = server.connection().await?;
    let killed: usize =
        redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("PUBSUB").query_async(&mut connection).await?;
    assert_eq!(killed, 1);
    assert_eq!(next_turn(&mut subscription).await?, SubscriptionEvent::Disconnected);
    assert_eq!(next_turn(&mut subscription).await?, SubscriptionEvent::Subscribed);
    hears(&mut subscription, &server, "two").await?;
    // Frozen, it says nothing, and does not end the connection.
    server.pause()?;
    assert_eq!(next_turn(&mut subscription).await?, SubscriptionEvent::Disconnected);
    server.resume()?;
    assert_eq!(next_turn(&mut subscription).await?, SubscriptionEvent::Subscribed);
    eventually("one connection is left", PATIENCE, async || {
        ensure!(publish(&server, "three").await? == 1, "more than one");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_subscription_outlives_cuts_and_silence_of_the_network() -> Result<()> {
    let server = RedisServer::start().await?;
    let mut network = ChaosProxy::start(server.address()).await?;
    let url = format!("redis://{}", network.address());
    let mut subscription = Subscription::open(&url, vec!["price_changes".to_owned()])?;
    assert_eq!(next_turn(&mut subscription).await?, SubscriptionEvent::Subscribed);
    for is_cut in [true, false, true] {
        if is_cut {
            network.cut().await;
        } else {
            network.stall();
        }
        assert_eq!(next_turn(&mut subscription).await?, SubscriptionEvent::Disconnected);
        network.restore().await?;
        assert_eq!(next_turn(&mut subscription).await?, SubscriptionEvent::Subscribed);
        eventually("it hears again", PATIENCE, async || {
            ensure!(publish(&server, "again").await? == 1, "not one listener");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_slow_reader_learns_that_it_missed_messages() -> Result<()> {
    const MESSAGES: usize = 2_000;
    let server = RedisServer::start().await?;
    let mut subscription = Subscription::open(&server.url(), vec!["price_changes".to_owned()])?;
    assert_eq!(next_turn(&mut subscription).await?, SubscriptionEvent::Subscribed);
    let mut connection = server.connection().await?;
    let mut is_reported = false;
    // One is read for so many that are published.
    for _ in 0..100 {
        let mut pipeline = redis::pipe();
        for number in 0..MESSAGES {
            pipeline.cmd("PUBLISH").arg("price_changes").arg(number);
        }
        pipeline.exec_async(&mut connection).await?;
        is_reported = timeout(PATIENCE, subscription.next()).await? == SubscriptionEvent::Missed;
        if is_reported {
            break;
        }
    }
    assert!(is_reported, "messages were lost without a notice");
    // It goes on.
    let last = SubscriptionEvent::Message { channel: "price_changes".to_owned(), payload: b"last".into() };
    let mut heard = Vec::new();
    while heard.last() != Some(&last) {
        if heard.len() % 100 == 0 {
            publish(&server, "last").await?;
        }
        heard.push(timeout(PATIENCE, subscription.next()).await?);
    }
    Ok(())
}
