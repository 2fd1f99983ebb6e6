//! What a server says of itself in `INFO`: its version, its role, and the settings that decide whether it may
//! lose events. Fields: <https://redis.io/docs/latest/commands/info/>.

use super::measured::SharedConnection;
use super::{RedisConnection, RedisError};

/// The part of a limit, in percent, from which it counts as nearly reached.
const NEAR_LIMIT_PERCENT: u64 = 90;

/// The answer to `INFO`; a field that this server does not have is empty or 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerInfo {
    /// Which of the masters of a cluster it is; `None` for a server without a cluster.
    pub node: Option<String>,
    /// The software and its version, such as `redis 7.2.4` or `valkey 9.0.1`.
    pub software: String,
    /// `standalone`, `cluster` or `sentinel`.
    pub mode: String,
    /// `master`, or `slave` for a replica.
    pub role: String,
    /// What the server evicts when its memory is full.
    pub eviction_policy: String,
    /// Whether writes are kept in a file.
    pub has_append_only_file: bool,
    /// Whether the last write to that file succeeded.
    pub append_only_file_is_writable: bool,
    /// Bytes in use.
    pub used_memory_bytes: u64,
    /// The limit of bytes; 0 for none.
    pub max_memory_bytes: u64,
    /// Open connections.
    pub clients: u64,
    /// The limit of connections; 0 if unknown.
    pub max_clients: u64,
}

impl ServerInfo {
    /// Parses the answer to `INFO`.
    pub fn parse(info: &str) -> Self {
        let text = |name: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.unwrap_or_default().trim()
        };
        let number = |name: &str| text(name).parse().unwrap_or_default();
        // Valkey names a version of Redis, too.
        let software = match (text("valkey_version"), text("redis_version")) {
            ("", "") => "redis of unknown version".to_owned(),
            ("", redis) => format!("redis {redis}"),
            (valkey, _) => format!("valkey {valkey}"),
        };
        Self {
            node: None,
            software,
            // Valkey has another name for it.
            mode: if text("redis_mode").is_empty() { text("server_mode") } else { text("redis_mode") }
                .to_owned(),
            role: text("role").to_owned(),
            eviction_policy: text("maxmemory_policy").to_owned(),
            has_append_only_file: text("aof_enabled") != "0",
            append_only_file_is_writable: text("aof_last_write_status") != "err",
            used_memory_bytes: number("used_memory"),
            max_memory_bytes: number("maxmemory"),
            clients: number("connected_clients"),
            max_clients: number("maxclients"),
        }
    }

    /// What is wrong with the server although it answers: it is no master.
    pub fn fault(&self) -> Option<String> {
        if self.mode == "sentinel" {
            return Some("this is a Sentinel, which has no data".to_owned());
        }
        (self.role == "slave").then(|| "this server is a replica, which takes no writes".to_owned())
    }

    /// The setting for which no events are accepted: it evicts keys without an expiry, events among them.
    pub fn eviction(&self) -> Option<String> {
        let policy = &self.eviction_policy;
        policy.starts_with("allkeys").then(|| {
            format!(
                "maxmemory-policy {policy} evicts events, so none is accepted: set volatile-lfu or noeviction"
            )
        })
    }

    /// The settings and limits by which acknowledged events may be lost, or writes will soon be refused.
    pub fn risks(&self) -> Vec<String> {
        let mut risks = Vec::new();
        if !self.has_append_only_file {
            risks.push("without appendonly, a restart loses events that were acknowledged".to_owned());
        }
        if !self.append_only_file_is_writable {
            risks.push("the append-only file cannot be written".to_owned());
        }
        if is_near(self.used_memory_bytes, self.max_memory_bytes) && self.eviction_policy == "noeviction" {
            risks.push(format!(
                "{} of {} bytes of memory are used",
                self.used_memory_bytes, self.max_memory_bytes
            ));
        }
        if is_near(self.clients, self.max_clients) {
            risks.push(format!("{} of {} connections are used", self.clients, self.max_clients));
        }
        risks
    }
}

fn is_near(used: u64, limit: u64) -> bool {
    limit > 0 && used.saturating_mul(100) >= limit.saturating_mul(NEAR_LIMIT_PERCENT)
}

impl RedisConnection {
    /// What the server says of itself, or each master of the cluster; `None` if this user may not ask.
    pub async fn server_infos(&self) -> Result<Option<Vec<ServerInfo>>, RedisError> {
        self.check().await?;
        let mut infos = Vec::new();
        for (node, mut master) in self.each_master(&self.writes).await? {
            let answer: redis::RedisResult<String> = redis::cmd("INFO").query_async(&mut master).await;
            match answer {
                Ok(info) => infos.push(ServerInfo { node, ..ServerInfo::parse(&info) }),
                Err(error) if error.code() == Some("NOPERM") => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(infos))
    }

    /// Checks that the server accepts writes, or each master of the cluster: it sets these keys, and in a
    /// cluster `key` with a number for each master, for a second.
    pub async fn check_writes(
        &self,
        keys: &[String],
        key: impl Fn(usize) -> String,
    ) -> Result<(), RedisError> {
        let mut keys = keys.to_vec();
        if let SharedConnection::Cluster(cluster) = self.writes.shared() {
            keys.extend(cluster.key_of_each(key).await?);
        }
        for key in keys {
            let mut write = redis::cmd("SET");
            write.arg(key).arg("").arg("PX").arg(1_000);
            write.query_async::<()>(&mut self.writes.clone()).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Server\r\nredis_version:7.2.4\r\nredis_mode:standalone\r\n# Clients\r\n\
        connected_clients:3\r\nmaxclients:10000\r\n# Memory\r\nused_memory:1000\r\nmaxmemory:2000\r\n\
        maxmemory_policy:volatile-lfu\r\naof_enabled:1\r\naof_last_write_status:ok\r\nrole:master\r\n";

    #[test]
    fn a_server_as_it_should_be_has_no_fault_and_no_risk() {
        let info = ServerInfo::parse(INFO);
        assert_eq!((info.software.as_str(), info.fault(), info.risks()), ("redis 7.2.4", None, Vec::new()));
        assert_eq!(info.eviction(), None);
        assert_eq!((info.clients, info.max_clients), (3, 10_000));
    }

    #[test]
    fn what_is_wrong_is_found() {
        let said = |from: &str, to: &str| {
            let info = ServerInfo::parse(&INFO.replace(from, to));
            info.fault().into_iter().chain(info.eviction()).chain(info.risks()).collect::<Vec<_>>().join("; ")
        };
        for (from, to, expected) in [
            ("standalone", "sentinel", "Sentinel"),
            ("role:master", "role:slave", "replica"),
            ("volatile-lfu", "allkeys-lru", "evicts events"),
            ("aof_enabled:1", "aof_enabled:0", "appendonly"),
            ("status:ok", "status:err", "cannot be written"),
            (
                "used_memory:1000\r\nmaxmemory:2000\r\nmaxmemory_policy:volatile-lfu",
                "used_memory:1800\r\nmaxmemory:2000\r\nmaxmemory_policy:noeviction",
                "1800 of 2000 bytes",
            ),
            ("connected_clients:3", "connected_clients:9000", "9000 of 10000 connections"),
        ] {
            assert!(said(from, to).contains(expected), "{to}: {}", said(from, to));
        }
        let valkey = ServerInfo::parse(&format!("{INFO}valkey_version:9.0.1\r\n"));
        assert_eq!(valkey.software, "valkey 9.0.1");
        let sentinel = ServerInfo::parse("valkey_version:9.0.1\r\nserver_mode:sentinel\r\n");
        assert!(sentinel.fault().is_some());
    }
}
