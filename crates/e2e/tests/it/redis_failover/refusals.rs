//! What cannot be used is refused at the start, with the reason.

use std::time::Duration;

use anyhow::{Context, Result};
use pricing_e2e::{RedisSentinel, RedisServer, ServiceProcess, free_port};

use crate::support::sqlite_url;

const PATIENCE: Duration = Duration::from_secs(60);
const PROGRAMS: [(&str, &str); 3] = [
    ("pricing-api", "PRICING_API_LISTEN"),
    ("pricing-worker", "PRICING_WORKER_LISTEN"),
    ("pricing-listener", "PRICING_LISTENER_LISTEN"),
];

/// Starts each service with this Redis; each has to end with exit code 64 and say why.
async fn all_refuse(redis_url: &str, reason: &str) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let database = sqlite_url(&directory.path().join("catalogue.db"));
    for (program, variable) in PROGRAMS {
        let listen = format!("127.0.0.1:{}", free_port()?);
        let environment =
            [("PRICING_REDIS_URL", redis_url), ("PRICING_DATABASE_URL", &database), (variable, &listen)];
        let mut process = ServiceProcess::start(program, &environment, &[])?;
        let code = process.wait(PATIENCE).await?.code().context("it was killed")?;
        let said = process.output()?;
        assert_eq!(code, 64, "{program}: {said}");
        assert!(said.contains(reason), "{program}: {said}");
        assert!(!said.contains("secret"), "{program}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn no_service_takes_a_node_of_a_cluster_for_a_server_or_a_server_for_a_node() -> Result<()> {
    let node = RedisServer::start_cluster().await?;
    let form = format!("redis+cluster://{}", node.address());
    all_refuse(&node.url(), &format!("is a node of a Redis Cluster: use {form}")).await?;
    all_refuse("redis://:secret@127.0.0.1:1?cluster=true", "is redis+cluster://HOST:PORT,HOST:PORT").await?;
    let server = RedisServer::start().await?;
    let url = format!("redis+cluster://:secret@{}", server.address());
    let reason = format!("{0} is not a node of a Redis Cluster: use redis://{0}", server.address());
    // A password that the server does not know is another error.
    all_refuse(&url.replace(":secret@", ""), &reason).await?;
    all_refuse("redis+cluster://:secret@127.0.0.1:1/3", "nothing may follow the nodes of a cluster").await
}

#[tokio::test]
async fn no_service_takes_a_sentinel_for_redis() -> Result<()> {
    let server = RedisServer::start().await?;
    let sentinel = RedisSentinel::start(&server, 1, "").await?;
    all_refuse(&format!("redis://{}", sentinel.address()), "is a Sentinel and not a Redis server").await?;
    let url = "redis+sentinel://:secret@127.0.0.1/?sentinel_password=secret";
    all_refuse(url, "the name of the master is missing").await
}
