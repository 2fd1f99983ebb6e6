//! Three services go on through a fail-over: behind one address, and with Sentinels.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_e2e::{
    ChaosProxy, RedisSentinel, RedisServer, ServiceProcess, eventually, free_port, user_of_sentinel,
};

use super::working_fleet::{Services, event};

const PATIENCE: Duration = Duration::from_secs(120);

/// A master with a replica, and three Sentinels that watch them. Servers and Sentinels ask for passwords.
struct Watched {
    master: RedisServer,
    replica: RedisServer,
    sentinels: Vec<RedisSentinel>,
}

impl Watched {
    async fn start() -> Result<Self> {
        let starting = (RedisServer::start_restricted(), RedisServer::start_restricted());
        let (master, replica) = tokio::try_join!(starting.0, starting.1)?;
        replica.follow(&master).await?;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(RedisSentinel::start(&master, 2, &user_of_sentinel()?).await?);
        }
        for sentinel in &sentinels {
            sentinel.wait_for(1, 2).await?;
        }
        Ok(Self { master, replica, sentinels })
    }

    fn url(&self) -> String {
        let hosts: Vec<String> =
            self.sentinels.iter().map(|sentinel| sentinel.address().to_string()).collect();
        format!(
            "redis+sentinel://pricing:p%40ss%3A1@{}/{}/0?sentinel_user=pricing-sentinel&sentinel_password=p%40ss%3A1",
            hosts.join(","),
            RedisSentinel::MASTER
        )
    }

    /// Waits until all Sentinels name the former replica.
    async fn has_failed_over(&self) -> Result<()> {
        eventually("the Sentinels name the other server", PATIENCE, async || {
            for sentinel in &self.sentinels {
                let named = sentinel.master_port().await?;
                ensure!(named == self.replica.port(), "one names {named}");
            }
            Ok(())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_follow_a_fail_over_behind_one_address_and_heal_from_silence() -> Result<()> {
    let (a, b) = tokio::try_join!(RedisServer::start(), RedisServer::start())?;
    let proxy = ChaosProxy::start(a.address()).await?;
    let services = Services::start(&format!("redis://{}", proxy.address())).await?;
    b.follow(&a).await?;
    services.work("before").await?;
    // The old master keeps its connections and is a replica now.
    b.promote().await?;
    proxy.redirect(b.address());
    a.follow(&b).await?;
    services.work("fail-over").await?;
    proxy.silence_open();
    services.work("silence").await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_event_is_lost_when_sentinels_fail_over() -> Result<()> {
    let watched = Watched::start().await?;
    // A master without its replica takes no writes, so a former one takes none that would be lost.
    for server in [&watched.master, &watched.replica] {
        let mut require = redis::cmd("CONFIG");
        require.arg("SET").arg("min-replicas-to-write").arg(1);
        require.exec_async(&mut server.connection().await?).await?;
    }
    let services = Services::start_with(&watched.url(), &[("PRICING_REDIS_REPLICAS", "1")]).await?;
    let publishing = services.publish_all_the_time();
    publishing.goes_on().await?;
    watched.sentinels[0].fail_over().await?;
    watched.has_failed_over().await?;
    publishing.goes_on().await?;
    services.work("after").await?;
    let acknowledged = publishing.end().await?;
    services.have_applied(&acknowledged).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_no_replica_has_is_not_acknowledged() -> Result<()> {
    let (master, mut replica) = tokio::try_join!(RedisServer::start(), RedisServer::start())?;
    replica.follow(&master).await?;
    let services = Services::start_with(&master.url(), &[("PRICING_REDIS_REPLICAS", "1")]).await?;
    services.work("replicated").await?;
    let publish = async |id: &str| {
        services.client().post("/api/v1/publish-market-event", &event(id, "P-1", "20")).await
    };
    // It is connected, and gets nothing: promoted now, it would not have the event.
    replica.pause()?;
    let reply = publish("lonely").await?;
    assert_eq!(reply.status, 503, "{}", reply.text);
    replica.resume()?;
    eventually("the event is acknowledged", PATIENCE, async || {
        let reply = publish("lonely").await?;
        ensure!(reply.status == 200, "{}", reply.text);
        Ok(())
    })
    .await?;
    services.work("caught-up").await
}

#[tokio::test(flavor = "multi_thread")]
async fn services_heal_when_the_master_is_killed() -> Result<()> {
    let mut watched = Watched::start().await?;
    let services = Services::start(&watched.url()).await?;
    services.work("before").await?;
    watched.master.kill()?;
    watched.has_failed_over().await?;
    services.work("killed").await?;
    // A Sentinel that does not answer does not matter.
    watched.sentinels.remove(0);
    let mut members = services.members;
    members[2].kill()?;
    members[2].start_again()?;
    members[2].wait_until_ready().await?;
    for member in &members {
        let said = member.process.output()?;
        assert!(!said.contains("p@ss") && !said.contains("p%40ss"), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn pricing_up_takes_sentinels_and_the_doctor_finds_it_well() -> Result<()> {
    let watched = Watched::start().await?;
    let directory = tempfile::tempdir()?;
    let directory = directory.path().to_str().context("a path of text")?;
    let listen = format!("127.0.0.1:{}", free_port()?);
    let redis_url = watched.url();
    let arguments =
        ["up", "--listen", &listen, "--data-dir", directory, "--no-sample", "--redis-url", &redis_url];
    let mut process = ServiceProcess::start("pricing", &[], &arguments)?;
    let url = format!("http://{listen}");
    process.wait_until_ready(&url).await?;
    eventually("it says where Redis is", PATIENCE, async || {
        let said = process.output()?;
        ensure!(said.contains("redis+sentinel://…@127.0.0.1:"), "so far: {said}");
        assert!(!said.contains("p%40ss"), "{said}");
        Ok(())
    })
    .await?;
    let mut doctor = ServiceProcess::start("pricing", &[("PRICING_URL", &url)], &["doctor"])?;
    ensure!(doctor.wait(PATIENCE).await?.success(), "{}", doctor.output()?);
    Ok(())
}
