//! A Redis Cluster: three masters, each with a replica.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use redis::{FromRedisValue, Value};

use crate::certificates::Certificates;
use crate::eventually::eventually;
use crate::redis_server::RedisServer;

const PATIENCE: Duration = Duration::from_secs(180);
/// The last slots of the masters.
const LAST_SLOTS: [u16; 3] = [5_460, 10_922, 16_383];

/// Six nodes on loopback ports. Killed on drop.
#[derive(Debug)]
pub struct RedisCluster {
    /// The nodes: at first, the first three are the masters, and the fourth is the replica of the first.
    pub nodes: Vec<RedisServer>,
    scheme: &'static str,
}

impl RedisCluster {
    /// Starts empty nodes, joins them, and waits until all of them say that the cluster works.
    pub async fn start() -> Result<Self> {
        Self::start_of(RedisServer::start_cluster, "redis+cluster").await
    }

    /// The same, with TLS only.
    pub async fn start_with_tls(certificates: &Arc<Certificates>) -> Result<Self> {
        Self::start_of(async || RedisServer::start_cluster_with_tls(certificates).await, "rediss+cluster")
            .await
    }

    async fn start_of(start: impl AsyncFn() -> Result<RedisServer>, scheme: &'static str) -> Result<Self> {
        let mut nodes = Vec::new();
        for _ in LAST_SLOTS.iter().chain(&LAST_SLOTS) {
            nodes.push(start().await?);
        }
        let this = Self { nodes, scheme };
        let mut first = 0;
        for (number, last) in LAST_SLOTS.iter().enumerate() {
            this.ask::<()>(number, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()])
                .await?;
            this.ask::<()>(number, &["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]).await?;
            first = last + 1;
        }
        for node in &this.nodes {
            let (port, bus) = (node.port().to_string(), node.cluster_port().to_string());
            this.ask::<()>(0, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await?;
        }
        for (replica, master) in (LAST_SLOTS.len()..).zip(0..LAST_SLOTS.len()) {
            let id: String = this.ask(master, &["CLUSTER", "MYID"]).await?;
            eventually("a node becomes a replica", PATIENCE, async || {
                this.ask::<()>(replica, &["CLUSTER", "REPLICATE", &id]).await
            })
            .await?;
        }
        this.works().await?;
        Ok(this)
    }

    /// Waits until all nodes know each other, say that the cluster works, and replicas have their masters'
    /// data.
    pub async fn works(&self) -> Result<()> {
        eventually("the cluster works", PATIENCE, async || {
            for node in 0..self.nodes.len() {
                let info: String = self.ask(node, &["CLUSTER", "INFO"]).await?;
                let known = format!("cluster_known_nodes:{}", self.nodes.len());
                for line in ["cluster_state:ok", "cluster_slots_ok:16384", "cluster_size:3", &known] {
                    ensure!(info.lines().any(|found| found == line), "node {node}: no {line} in {info}");
                }
                let info: String = self.ask(node, &["INFO", "replication"]).await?;
                ensure!(
                    info.contains("role:master") || info.contains("master_link_status:up"),
                    "{node}: {info}"
                );
                let slots: Vec<Value> = self.ask(node, &["CLUSTER", "SLOTS"]).await?;
                for range in slots {
                    let Value::Array(range) = range else { bail!("no range") };
                    // First, last, master, replica.
                    ensure!(range.len() == 4, "{node}: {range:?}");
                }
            }
            Ok(())
        })
        .await
    }

    /// `redis+cluster://`, or `rediss+cluster://`, with the first two nodes.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.seeds())
    }

    /// The same for a user with this password, percent-encoded.
    pub fn url_for(&self, user: &str, password: &str) -> String {
        format!("{}://{user}:{password}@{}", self.scheme, self.seeds())
    }

    fn seeds(&self) -> String {
        let seeds: Vec<String> = self.nodes.iter().take(2).map(|node| node.address().to_string()).collect();
        seeds.join(",")
    }

    /// Asks a node.
    pub async fn ask<T: FromRedisValue>(&self, node: usize, words: &[&str]) -> Result<T> {
        let (name, arguments) = words.split_first().context("no command")?;
        let mut command = redis::cmd(name);
        command.arg(arguments);
        let server = self.nodes.get(node).context("no such node")?;
        Ok(command.query_async(&mut server.connection().await?).await?)
    }

    /// Asks the master that has this key, by what the first node that answers says.
    pub async fn ask_about<T: FromRedisValue>(&self, key: &str, words: &[&str]) -> Result<T> {
        self.ask(self.master_of(key).await?, words).await
    }

    /// The master that has this key, by what the first node that answers says.
    pub async fn master_of(&self, key: &str) -> Result<usize> {
        for node in 0..self.nodes.len() {
            let Ok(slot) = self.ask::<i64>(node, &["CLUSTER", "KEYSLOT", key]).await else { continue };
            for range in self.ask::<Vec<Value>>(node, &["CLUSTER", "SLOTS"]).await? {
                let Value::Array(range) = range else { bail!("no range") };
                let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = range.as_slice() else {
                    bail!("{range:?}");
                };
                if (*first..=*last).contains(&slot) {
                    let port: u16 = redis::from_redis_value(master.get(1).context("no port")?.clone())?;
                    let found = self.nodes.iter().position(|node| node.port() == port);
                    return found.context("an unknown master");
                }
            }
        }
        bail!("no node answers")
    }

    /// Waits until another node is the master of this key.
    pub async fn has_failed_over(&self, key: &str, former: usize) -> Result<usize> {
        eventually("a replica has taken over", PATIENCE, async || {
            let master = self.master_of(key).await?;
            ensure!(master != former, "{former} is still the master");
            Ok(master)
        })
        .await
    }

    /// The replica of a master.
    pub async fn replica_of(&self, master: usize) -> Result<usize> {
        let port = self.nodes.get(master).context("no such node")?.port();
        for node in 0..self.nodes.len() {
            if node == master {
                continue;
            }
            let info: String = self.ask(node, &["INFO", "replication"]).await?;
            if info.contains("role:slave") && info.contains(&format!("master_port:{port}\r\n")) {
                return Ok(node);
            }
        }
        bail!("no replica of node {master}")
    }

    /// Waits until the replica of a master has all that the master has acknowledged so far.
    pub async fn has_replicated(&self, master: usize) -> Result<()> {
        let replica = self.replica_of(master).await?;
        let offset = async |node, field: &str| -> Result<u64> {
            let info: String = self.ask(node, &["INFO", "replication"]).await?;
            let found = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            Ok(found.context("no offset")?.trim().parse()?)
        };
        let written = offset(master, "master_repl_offset").await?;
        eventually("the replica has what its master has", PATIENCE, async || {
            let replicated = offset(replica, "slave_repl_offset").await?;
            ensure!(replicated >= written, "{replicated} of {written}");
            Ok(())
        })
        .await
    }
}
