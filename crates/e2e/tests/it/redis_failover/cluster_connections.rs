//! One process' connections to a cluster: where commands go, while slots move and masters die.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_core::redis::{RedisConnection, Subscription, SubscriptionEvent};
use pricing_e2e::{RedisCluster, eventually};
use redis::{FromRedisValue, Pipeline, Script};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(120);

/// Sends a command over the engine's connection.
async fn send<T: FromRedisValue>(redis: &RedisConnection, words: &[&str]) -> redis::RedisResult<T> {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut redis.queue()).await
}

/// Sets or reads keys of all masters.
fn all_keys(name: &str, value: Option<&str>) -> Pipeline {
    let mut pipeline = redis::pipe();
    for number in 0..200 {
        let command = pipeline.cmd(name).arg(format!("key-{number}"));
        if let Some(value) = value {
            command.arg(format!("{value}-{number}"));
        }
    }
    pipeline
}

async fn all_are(redis: &RedisConnection, value: &str) -> Result<()> {
    let found: Vec<Option<String>> = all_keys("GET", None).query_async(&mut redis.queue()).await?;
    for (number, found) in found.into_iter().enumerate() {
        ensure!(found.as_deref() == Some(&*format!("{value}-{number}")), "key-{number}: {found:?}");
    }
    Ok(())
}

/// Moves the slot of a key from its master to another one, and does something in between.
async fn move_slot(
    cluster: &RedisCluster,
    key: &str,
    to: usize,
    between: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let from = cluster.master_of(key).await?;
    let slot: i64 = cluster.ask(from, &["CLUSTER", "KEYSLOT", key]).await?;
    let slot = slot.to_string();
    let ids: (String, String) =
        (cluster.ask(from, &["CLUSTER", "MYID"]).await?, cluster.ask(to, &["CLUSTER", "MYID"]).await?);
    cluster.ask::<()>(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids.0]).await?;
    cluster.ask::<()>(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids.1]).await?;
    between().await?;
    let keys: Vec<String> = cluster.ask(from, &["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await?;
    let port = cluster.nodes[to].port().to_string();
    for key in keys {
        cluster.ask::<()>(from, &["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]).await?;
    }
    for node in [to, from] {
        cluster.ask::<()>(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &ids.1]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn commands_pipelines_and_scripts_go_to_the_masters_of_their_keys_while_slots_move() -> Result<()> {
    let cluster = RedisCluster::start().await?;
    let redis = RedisConnection::open(&cluster.url())?;
    all_keys("SET", Some("one")).query_async::<()>(&mut redis.queue()).await?;
    all_are(&redis, "one").await?;
    for master in 0..3 {
        let held: usize = cluster.ask(master, &["DBSIZE"]).await?;
        ensure!(held > 20, "master {master} has {held} keys");
    }
    // The script is in no server yet.
    let script = Script::new("return redis.call('GET', KEYS[1])");
    for key in ["key-0", "key-1", "key-2", "key-3"] {
        let value: String = script.key(key).invoke_async(&mut redis.queue()).await?;
        assert_eq!(value, key.replace("key", "one"));
    }
    let (from, key) = (cluster.master_of("key-7").await?, "key-7");
    move_slot(&cluster, key, (from + 1) % 3, async || {
        // The key is still where it was, and a new one of its slot is not.
        all_are(&redis, "one").await?;
        send::<()>(&redis, &["SET", "{key-7}", "new"]).await?;
        assert_eq!(send::<String>(&redis, &["GET", "{key-7}"]).await?, "new");
        let both: Vec<String> = redis::pipe()
            .cmd("GET")
            .arg("{key-7}")
            .cmd("GET")
            .arg(key)
            .query_async(&mut redis.queue())
            .await?;
        assert_eq!(both, ["new", "one-7"]);
        Ok(())
    })
    .await?;
    all_are(&redis, "one").await?;
    all_keys("SET", Some("two")).query_async::<()>(&mut redis.queue()).await?;
    all_are(&redis, "two").await?;
    assert_eq!(send::<String>(&redis, &["GET", "{key-7}"]).await?, "new");
    Ok(())
}

#[tokio::test]
async fn connections_and_subscriptions_follow_when_a_master_dies_or_goes_silent() -> Result<()> {
    let mut cluster = RedisCluster::start().await?;
    let redis = RedisConnection::open(&cluster.url())?;
    all_keys("SET", Some("one")).query_async::<()>(&mut redis.queue()).await?;
    let mut subscription = Subscription::open(&cluster.url(), vec!["news".to_owned()])?;
    assert_eq!(timeout(PATIENCE, subscription.next()).await?, SubscriptionEvent::Subscribed);
    let killed = cluster.master_of("news").await?;
    cluster.has_replicated(killed).await?;
    cluster.nodes[killed].kill()?;
    let promoted = cluster.has_failed_over("news", killed).await?;
    eventually("all keys are there again", PATIENCE, async || all_are(&redis, "one").await).await?;
    assert_eq!(timeout(PATIENCE, subscription.next()).await?, SubscriptionEvent::Disconnected);
    assert_eq!(timeout(PATIENCE, subscription.next()).await?, SubscriptionEvent::Subscribed);
    // Published at another node.
    cluster.ask::<()>((killed + 1) % 3, &["PUBLISH", "news", "payload"]).await?;
    let expected = SubscriptionEvent::Message { channel: "news".to_owned(), payload: b"payload".to_vec() };
    assert_eq!(timeout(PATIENCE, subscription.next()).await?, expected);

    // The former master comes back as the replica of the new one, which then goes silent.
    cluster.nodes[killed].restart().await?;
    cluster.works().await?;
    all_keys("SET", Some("two")).query_async::<()>(&mut redis.queue()).await?;
    cluster.has_replicated(promoted).await?;
    cluster.nodes[promoted].pause()?;
    cluster.nodes.swap(0, killed);
    eventually("all keys are there again", PATIENCE, async || all_are(&redis, "two").await).await?;
    assert_eq!(timeout(PATIENCE, subscription.next()).await?, SubscriptionEvent::Disconnected);
    assert_eq!(timeout(PATIENCE, subscription.next()).await?, SubscriptionEvent::Subscribed);
    cluster.nodes[promoted].resume().context("it was paused")
}
