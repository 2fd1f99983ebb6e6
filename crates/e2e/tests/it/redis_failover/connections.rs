//! One process' connections: outages, silence, replicas, and what counts as a failure.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_core::config::MetricsSwitch;
use pricing_core::redis::{MeasuredConnection, RedisConnection, Subscription, SubscriptionEvent};
use pricing_core::telemetry::registry::Registry;
use pricing_e2e::{ChaosProxy, RedisServer, eventually};
use tokio::time::{Instant, timeout};

/// The promise is five seconds; a busy host needs more.
const HEALING_PATIENCE: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(60);

/// The server's identifier of this connection.
async fn client_id(connection: &mut MeasuredConnection) -> redis::RedisResult<u64> {
    redis::cmd("CLIENT").arg("ID").query_async(connection).await
}

/// The process of the server that answers.
async fn server_id(connection: &mut MeasuredConnection) -> Result<String> {
    let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
    let id = info.lines().find_map(|line| line.strip_prefix("process_id:"));
    Ok(id.context("no process")?.to_owned())
}

async fn set(connection: &mut MeasuredConnection) -> redis::RedisResult<()> {
    redis::cmd("SET").arg("pricing:v1:key").arg(1).query_async(connection).await
}

fn through(proxy: &ChaosProxy) -> Result<RedisConnection> {
    Ok(RedisConnection::open(&format!("redis://{}", proxy.address()))?)
}

#[tokio::test]
async fn an_outage_that_is_over_fails_no_command() -> Result<()> {
    let mut server = RedisServer::start().await?;
    let mut connection = RedisConnection::open(&server.url())?.queue();
    for _ in 0..3 {
        set(&mut connection).await?;
        server.restart().await?;
    }
    server.kill()?;
    assert!(set(&mut connection).await.is_err(), "nothing answers");
    server.restart().await?;
    set(&mut connection).await?;
    Ok(())
}

#[tokio::test]
async fn many_commands_open_one_connection() -> Result<()> {
    let server = RedisServer::start().await?;
    let redis = RedisConnection::open(&server.url())?;
    let ids = (0..100).map(|_| async { client_id(&mut redis.queue()).await });
    let mut ids = futures::future::try_join_all(ids).await?;
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    Ok(())
}

#[tokio::test]
async fn an_idle_connection_that_went_silent_is_replaced() -> Result<()> {
    let server = RedisServer::start().await?;
    let proxy = ChaosProxy::start(server.address()).await?;
    let mut connection = through(&proxy)?.queue();
    let before = client_id(&mut connection).await?;
    proxy.silence_open();
    // Nothing is sent meanwhile but by the connection itself.
    let mut direct = server.connection().await?;
    eventually("another connection is there", HEALING_PATIENCE, async || {
        let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut direct).await?;
        let newest =
            clients.lines().filter_map(|line| line.strip_prefix("id=")?.split(' ').next()?.parse().ok());
        let own: u64 = redis::cmd("CLIENT").arg("ID").query_async(&mut direct).await?;
        let newest = newest.filter(|id| *id != own).max().unwrap_or(0_u64);
        ensure!(newest > before, "{newest} is the newest");
        Ok(())
    })
    .await?;
    let after = eventually("commands are answered", HEALING_PATIENCE, async || {
        Ok(timeout(Duration::from_secs(1), client_id(&mut connection)).await??)
    })
    .await?;
    assert_ne!(after, before);
    Ok(())
}

#[tokio::test]
async fn a_command_on_a_silent_connection_fails_as_soon_as_another_is_open() -> Result<()> {
    let server = RedisServer::start().await?;
    let proxy = ChaosProxy::start(server.address()).await?;
    let redis = through(&proxy)?;
    set(&mut redis.queue()).await?;
    proxy.silence_open();
    // It may have been executed, so it is not sent again.
    let mut connection = redis.queue();
    let lost = timeout(HEALING_PATIENCE, set(&mut connection)).await?;
    assert!(lost.is_err(), "{lost:?}");
    eventually("the next one is answered", HEALING_PATIENCE, async || Ok(set(&mut redis.queue()).await?))
        .await
}

#[tokio::test]
async fn a_busy_server_keeps_its_connections() -> Result<()> {
    // Longer than a silent connection lives while others are answered.
    const BUSY: Duration = Duration::from_secs(4);
    let mut server = RedisServer::start().await?;
    let mut connection = RedisConnection::open(&server.url())?.queue();
    let before = client_id(&mut connection).await?;
    // As in a long script: connections stay, and nothing is answered. (The clock of a script stands still
    // since Redis 7.2.)
    server.pause()?;
    let (started, mut is_busy) = (Instant::now(), true);
    while started.elapsed() < BUSY + Duration::from_secs(2) {
        if is_busy && started.elapsed() >= BUSY {
            server.resume()?;
            is_busy = false;
        }
        match timeout(Duration::from_millis(500), client_id(&mut connection)).await {
            Ok(Ok(after)) => assert_eq!(after, before),
            Ok(Err(error)) => assert!(error.is_timeout(), "{error}"),
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(client_id(&mut connection).await?, before);
    Ok(())
}

#[tokio::test]
async fn a_refused_write_leads_to_the_new_master() -> Result<()> {
    let (a, b) = tokio::try_join!(RedisServer::start(), RedisServer::start())?;
    let proxy = ChaosProxy::start(a.address()).await?;
    let mut connection = through(&proxy)?.queue();
    set(&mut connection).await?;
    b.follow(&a).await?;
    b.promote().await?;
    proxy.redirect(b.address());
    a.follow(&b).await?;
    let refused = set(&mut connection).await;
    if let Err(error) = &refused {
        assert_eq!(error.code(), Some("READONLY"), "{error}");
    }
    set(&mut connection).await.context("the next command goes to the new master")?;
    Ok(())
}

#[tokio::test]
async fn a_connection_that_only_reads_leaves_a_replica() -> Result<()> {
    let (a, b) = tokio::try_join!(RedisServer::start(), RedisServer::start())?;
    let proxy = ChaosProxy::start(a.address()).await?;
    let mut connection = through(&proxy)?.queue();
    let before = server_id(&mut connection).await?;
    b.follow(&a).await?;
    b.promote().await?;
    proxy.redirect(b.address());
    a.follow(&b).await?;
    eventually("it asks the new master", HEALING_PATIENCE, async || {
        let after = server_id(&mut connection).await?;
        ensure!(after != before, "still {after}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_subscription_leaves_a_replica_and_silence() -> Result<()> {
    let (a, b) = tokio::try_join!(RedisServer::start(), RedisServer::start())?;
    let proxy = ChaosProxy::start(a.address()).await?;
    let url = format!("redis://{}", proxy.address());
    let mut subscription = Subscription::open(&url, vec!["price_changes".to_owned()])?;
    assert_eq!(timeout(PATIENCE, subscription.next()).await?, SubscriptionEvent::Subscribed);
    b.follow(&a).await?;
    b.promote().await?;
    proxy.redirect(b.address());
    a.follow(&b).await?;
    assert_eq!(timeout(HEALING_PATIENCE, subscription.next()).await?, SubscriptionEvent::Disconnected);
    assert_eq!(timeout(HEALING_PATIENCE, subscription.next()).await?, SubscriptionEvent::Subscribed);
    // A has no master any more: only a subscription at B hears this.
    a.promote().await?;
    proxy.silence_open();
    assert_eq!(timeout(HEALING_PATIENCE, subscription.next()).await?, SubscriptionEvent::Disconnected);
    assert_eq!(timeout(HEALING_PATIENCE, subscription.next()).await?, SubscriptionEvent::Subscribed);
    let mut publish = redis::cmd("PUBLISH");
    let heard: usize = publish.arg("price_changes").arg(1).query_async(&mut b.connection().await?).await?;
    assert!(heard >= 1, "{heard} heard it");
    Ok(())
}

#[tokio::test]
async fn errors_of_the_server_count_as_failed() -> Result<()> {
    let server = RedisServer::start().await?;
    let registry = Registry::new("test", MetricsSwitch::On);
    let mut connection = RedisConnection::open(&server.url())?.measured_by(&registry).queue();
    let failed = || {
        let text = registry.render();
        let series = text.lines().find(|line| {
            line.starts_with("pricing_redis_duration_seconds_count")
                && line.contains("queue")
                && line.contains("failed")
        });
        series.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    set(&mut connection).await?;
    let mut expected = redis::cmd("EVALSHA");
    expected.arg("0000000000000000000000000000000000000000").arg(0);
    assert!(expected.exec_async(&mut connection).await.is_err());
    assert_eq!(failed(), 0, "a script that is not loaded is expected");
    let mut limit = redis::cmd("CONFIG");
    limit.arg("SET").arg("maxmemory").arg(1).exec_async(&mut server.connection().await?).await?;
    assert!(set(&mut connection).await.is_err());
    assert_eq!(failed(), 1);
    let mut pipeline = redis::pipe();
    let key = "pricing:v1:key";
    pipeline.get(key).set(key, 2).get(key);
    assert!(pipeline.exec_async(&mut connection).await.is_err());
    assert_eq!(failed(), 2);
    Ok(())
}
