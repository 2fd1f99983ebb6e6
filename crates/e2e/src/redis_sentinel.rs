//! A `redis-sentinel` that watches a master of the test.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use redis::Client;
use redis::aio::MultiplexedConnection;

use crate::child::SupervisedChild;
use crate::eventually::eventually;
use crate::ports::on_free_port;
use crate::programs::find_redis_server;
use crate::redis_server::RedisServer;
use crate::scratch_directory::ScratchDirectory;
use crate::tied_command::{Signal, tied_command};

const START_PATIENCE: Duration = Duration::from_secs(180);

/// A Sentinel on a loopback port. Killed on drop.
// Fields are dropped in order: the process before its directory.
#[derive(Debug)]
pub struct RedisSentinel {
    _process: SupervisedChild,
    port: u16,
    _directory: ScratchDirectory,
}

impl RedisSentinel {
    /// The name of the master.
    pub const MASTER: &str = "pricing-master";

    /// Starts a Sentinel for this master, and waits until it knows it. `settings` are further lines of its
    /// configuration.
    pub async fn start(master: &RedisServer, quorum: usize, settings: &str) -> Result<Self> {
        let directory = ScratchDirectory::new("redis-sentinel")?;
        let (name, master_port) = (Self::MASTER, master.port());
        let launched = on_free_port(async |port| {
            let configuration = format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor {name} 127.0.0.1 {master_port} {quorum}\n\
                 sentinel down-after-milliseconds {name} 1000\nsentinel failover-timeout {name} 3000\n\
                 {settings}\n"
            );
            let file = directory.path().join("sentinel.conf");
            fs::write(&file, configuration)?;
            Ok((launch(&file, directory.path(), port).await?, port))
        });
        let (process, port) = launched.await?;
        Ok(Self { _process: process, port, _directory: directory })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        address(self.port)
    }

    /// The port of the master that it names.
    pub async fn master_port(&self) -> Result<u16> {
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(Self::MASTER);
        let (_, port): (String, u16) = ask.query_async(&mut connect(self.port).await?).await?;
        Ok(port)
    }

    /// Waits until it knows this many replicas and other Sentinels that are up.
    pub async fn wait_for(&self, replicas: usize, sentinels: usize) -> Result<()> {
        eventually("the Sentinel knows the others", START_PATIENCE, async || {
            let mut connection = connect(self.port).await?;
            for (what, expected) in [("REPLICAS", replicas), ("SENTINELS", sentinels)] {
                let mut list = redis::cmd("SENTINEL");
                let known: Vec<std::collections::HashMap<String, String>> =
                    list.arg(what).arg(Self::MASTER).query_async(&mut connection).await?;
                let up = known.iter().filter(|known| {
                    known
                        .get("flags")
                        .is_some_and(|flags| !flags.contains("down") && !flags.contains("disconnected"))
                });
                let up = up.count();
                ensure!(up == expected, "{up} of {expected} {what}");
            }
            Ok(())
        })
        .await
    }

    /// Asks for a fail-over while the master works.
    pub async fn fail_over(&self) -> Result<()> {
        let mut connection = connect(self.port).await?;
        let mut fail_over = redis::cmd("SENTINEL");
        fail_over.arg("FAILOVER").arg(Self::MASTER).query_async::<()>(&mut connection).await?;
        Ok(())
    }
}

async fn launch(file: &Path, directory: &Path, port: u16) -> Result<SupervisedChild> {
    let program = find_redis_server()?;
    let mut command = tied_command(&program, Signal::Kill, None)?;
    command.arg(file).arg("--sentinel").arg("--dir").arg(directory);
    let mut process = SupervisedChild::spawn("redis-sentinel", command, &directory.join("output.log"))?;
    let ready = eventually("redis-sentinel answers", START_PATIENCE, async || {
        let mut connection = connect(port).await?;
        Ok(redis::cmd("PING").query_async::<()>(&mut connection).await?)
    });
    process.until_ready(ready).await?;
    Ok(process)
}

async fn connect(port: u16) -> Result<MultiplexedConnection> {
    let client = Client::open(format!("redis://{}", address(port)))?;
    Ok(client.get_multiplexed_async_connection().await?)
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
