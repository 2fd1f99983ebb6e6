//! Three services work on a Redis Cluster, and go on when services and masters are killed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_e2e::{Certificates, RedisCluster, eventually};

use super::working_fleet::{Services, event};

const PATIENCE: Duration = Duration::from_secs(120);
/// The stream of events, which lies beside the queue, and that of price changes.
const EVENT_LOG: &str = "{core:apalis:queues:list}:market_events:log";
const DEAD_EVENTS: &str = "{core:apalis:queues:list}:market_events:dead";
const PRICE_CHANGES: &str = "price_changes:log";

/// A cluster with a user who has a password, and its URL.
async fn start_cluster() -> Result<(RedisCluster, String)> {
    let cluster = RedisCluster::start().await?;
    for node in 0..cluster.nodes.len() {
        let user = ["ACL", "SETUSER", "engine", "on", ">p@ss:1", "~*", "&*", "+@all"];
        cluster.ask::<()>(node, &user).await?;
    }
    let url = cluster.url_for("engine", "p%40ss%3A1");
    Ok((cluster, url))
}

#[tokio::test(flavor = "multi_thread")]
async fn all_services_work_on_a_cluster() -> Result<()> {
    let (cluster, url) = start_cluster().await?;
    let services = Services::start(&url).await?;
    let client = services.client();
    let changes = client.request(reqwest::Method::GET, "/api/v1/price-changes").timeout(PATIENCE);
    let mut changes = changes.send().await?;
    services.work("before").await?;
    let mut received = String::new();
    while !received.contains("\"before\"") {
        let chunk = tokio::time::timeout(PATIENCE, changes.chunk()).await.context("no change came")??;
        received.push_str(std::str::from_utf8(&chunk.context("the stream has ended")?)?);
    }
    // More products than a range has, over all masters.
    let mut rows = "product_id,currency,base_price,floor_price\n".to_owned();
    for number in 0..2_500 {
        rows.push_str(&format!("Q-{number},USD,{},1\n", 100 + number));
    }
    let request = client.request(reqwest::Method::POST, "/api/v1/products/import");
    let reply = client.send(request.header("content-type", "text/csv").body(rows)).await?;
    ensure!(reply.status == 200 && reply.body["failed"] == 0, "{}", reply.text);
    services.work("many").await?;
    // Messages that are no events: in the stream, and from another program at any node.
    let add = ["XADD", EVENT_LOG, "*", "event", "nonsense"];
    cluster.ask_about::<String>(EVENT_LOG, &add).await?;
    cluster.ask::<()>(4, &["PUBLISH", "market_events", "foreign nonsense"]).await?;
    // An event that another program publishes.
    let foreign = event("foreign", "P-1", "33.33").to_string();
    cluster.ask::<()>(5, &["PUBLISH", "market_events", &foreign]).await?;
    eventually("they are dead messages, and the event is applied", PATIENCE, async || {
        let dead: u64 = cluster.ask_about(DEAD_EVENTS, &["XLEN", DEAD_EVENTS]).await?;
        ensure!(dead == 2, "{dead} dead messages");
        let reply = client.price("P-1", "NY", false).await?;
        ensure!(reply.text.contains("33.33"), "{}", reply.text);
        Ok(())
    })
    .await?;
    let said = services.are_well().await?;
    assert!(said.contains("a cluster of 3 masters"), "{said}");
    let infos: String = cluster.ask_about(EVENT_LOG, &["INFO", "commandstats"]).await?;
    assert!(infos.contains("cmdstat_xreadgroup"), "{infos}");
    // One of three masters that is set up badly is named.
    cluster.ask::<()>(1, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await?;
    let node = cluster.nodes[1].address();
    eventually("the health check names it", PATIENCE, async || {
        let checks = client.get("/readyz").await?.text;
        ensure!(checks.contains(&format!("{node}: maxmemory-policy allkeys-lru")), "{checks}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn services_follow_a_fail_over_of_a_cluster_that_takes_tls_only() -> Result<()> {
    let certificates = Arc::new(Certificates::make()?);
    let cluster = RedisCluster::start_with_tls(&certificates).await?;
    let authority = certificates.authority();
    let authority = authority.to_str().context("a path of text")?;
    let services = Services::start_with(&cluster.url(), &[("SSL_CERT_FILE", authority)]).await?;
    services.work("before").await?;
    let publishing = services.publish_all_the_time();
    publishing.goes_on().await?;
    let master = cluster.master_of(EVENT_LOG).await?;
    let replica = cluster.replica_of(master).await?;
    cluster.ask::<()>(replica, &["CLUSTER", "FAILOVER"]).await?;
    cluster.has_failed_over(EVENT_LOG, master).await?;
    publishing.goes_on().await?;
    services.work("after").await?;
    let acknowledged = publishing.end().await?;
    services.have_applied(&acknowledged).await?;
    services.are_well().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_and_listener_lose_nothing_on_a_cluster() -> Result<()> {
    let (_cluster, url) = start_cluster().await?;
    let mut services = Services::start(&url).await?;
    let publishing = services.publish_all_the_time();
    publishing.goes_on().await?;
    for member in [1, 2] {
        services.members[member].kill()?;
        publishing.goes_on().await?;
        services.members[member].start_again()?;
        services.members[member].wait_until_ready().await?;
        publishing.goes_on().await?;
    }
    let acknowledged = publishing.end().await?;
    services.have_applied(&acknowledged).await?;
    services.work("after").await?;
    services.are_well().await?;
    Ok(())
}

/// Kills the master of a key while events are published, and expects that everything that was replicated by
/// then, and everything that was acknowledged after it, is applied.
async fn survives_the_master_of(key: &str) -> Result<()> {
    let (mut cluster, url) = start_cluster().await?;
    let services = Services::start(&url).await?;
    let publishing = services.publish_all_the_time();
    publishing.goes_on().await?;
    let master = cluster.master_of(key).await?;
    let mut expected = publishing.acknowledged();
    cluster.has_replicated(master).await?;
    cluster.nodes[master].kill()?;
    let at_the_kill = publishing.acknowledged().len();
    cluster.has_failed_over(key, master).await?;
    publishing.goes_on().await?;
    services.work("after").await?;
    // The former master is the replica of the new one.
    cluster.nodes[master].restart().await?;
    cluster.works().await?;
    publishing.goes_on().await?;
    let acknowledged = publishing.end().await?;
    // An event whose acknowledgement came while the master was being killed may have been on that one only.
    let later = acknowledged.iter().skip(at_the_kill + 1);
    expected.extend(later.cloned());
    services.have_applied(&expected).await?;
    services.are_well().await?;
    for member in &services.members {
        let said = member.process.output()?;
        assert!(!said.contains("p@ss") && !said.contains("p%40ss"), "{said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_replicated_event_is_lost_when_the_master_of_events_and_jobs_is_killed() -> Result<()> {
    survives_the_master_of(EVENT_LOG).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_event_is_lost_when_the_master_of_price_changes_is_killed() -> Result<()> {
    survives_the_master_of(PRICE_CHANGES).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_event_is_lost_when_a_master_hands_over() -> Result<()> {
    let (cluster, url) = start_cluster().await?;
    // A master without its replica takes no writes, so a former one takes none that would be lost.
    for node in 0..cluster.nodes.len() {
        cluster.ask::<()>(node, &["CONFIG", "SET", "min-replicas-to-write", "1"]).await?;
    }
    let services = Services::start(&url).await?;
    let publishing = services.publish_all_the_time();
    publishing.goes_on().await?;
    for key in [EVENT_LOG, PRICE_CHANGES] {
        let master = cluster.master_of(key).await?;
        let replica = cluster.replica_of(master).await?;
        cluster.ask::<()>(replica, &["CLUSTER", "FAILOVER"]).await?;
        cluster.has_failed_over(key, master).await?;
        publishing.goes_on().await?;
        cluster.works().await?;
    }
    services.work("after").await?;
    let acknowledged = publishing.end().await?;
    services.have_applied(&acknowledged).await?;
    services.are_well().await?;
    Ok(())
}
