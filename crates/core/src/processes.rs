//! The processes of an installation: without a worker or a listener, events wait, and every other process can
//! say so.
//!
//! Each process publishes its name in Redis every five seconds, and reads those of the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::Script;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::keys::MessageKeys;
use crate::redis::{RedisConnection, RedisError};

/// The interval at which a process publishes its name.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(5);
/// The seconds after which a process that published nothing has ended.
pub const EXPIRY_S: u64 = 15;

/// The number of running processes of a service and version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ProcessCount {
    /// The service, such as `pricing-worker`.
    pub service: String,
    /// The version of the engine.
    pub version: String,
    /// How many run; one that ended without saying so counts for up to 15 seconds.
    pub running: usize,
}

/// The processes as seen by this one; cheap to clone.
#[derive(Clone)]
pub struct Processes {
    /// The service, the version of the engine, and a part that is unique.
    own: String,
    redis: RedisConnection,
    key: String,
    script: Arc<Script>,
}

impl Processes {
    /// Creates the processes as seen by a new one of this service.
    pub fn new(service: &str, redis: &RedisConnection, keys: &MessageKeys) -> Self {
        Self {
            own: format!("{service} {} {}", env!("CARGO_PKG_VERSION"), Uuid::now_v7().simple()),
            redis: redis.clone(),
            key: keys.processes(),
            script: Arc::new(Script::new(include_str!("processes.lua"))),
        }
    }

    /// Publishes the name, and returns how many processes of each service and version run, in this order.
    pub async fn publish(&self) -> Result<Vec<ProcessCount>, RedisError> {
        let mut publish = self.script.key(&self.key);
        publish.arg(&self.own).arg(EXPIRY_S);
        let running: Vec<String> = publish.invoke_async(&mut self.redis.writes()).await?;
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for process in &running {
            let mut words = process.split(' ');
            let (service, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            *counts.entry((service, version)).or_default() += 1;
        }
        let counts = counts.into_iter().map(|((service, version), running)| ProcessCount {
            service: service.to_owned(),
            version: version.to_owned(),
            running,
        });
        Ok(counts.collect())
    }

    /// Publishes the name and reads those of others until shutdown, and then withdraws it.
    pub async fn publish_periodically(self, shutdown: CancellationToken) {
        loop {
            if let Err(error) = self.publish().await {
                tracing::debug!(%error, "could not publish that this process runs");
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(PUBLISH_INTERVAL)).await.is_none() {
                // If this fails, the name expires.
                let mut withdraw = redis::cmd("ZREM");
                withdraw.arg(&self.key).arg(&self.own);
                let _ = withdraw.query_async::<()>(&mut self.redis.writes()).await;
                return;
            }
        }
    }
}
