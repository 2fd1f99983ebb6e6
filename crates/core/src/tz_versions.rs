//! The versions of the time zone database in use by the processes of an installation: with different ones,
//! the API and a worker could apply a rule an hour apart.
//!
//! Each process that compiles policies publishes its version in Redis every ten seconds, and keeps those of
//! the others.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::Script;
use tokio_util::sync::CancellationToken;

use crate::keys::MessageKeys;
use crate::redis::{RedisConnection, RedisError};
use crate::tz_database::TzDatabase;

/// The interval at which a process publishes its version.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(10);
/// The seconds until a published version expires: its process has ended, or uses another version now.
const EXPIRY_S: u64 = 60;

/// The versions known to a process; cheap to clone.
#[derive(Clone)]
pub struct TzVersions {
    database: TzDatabase,
    redis: RedisConnection,
    key: String,
    script: Arc<Script>,
    /// The unexpired versions, including this process's; empty until Redis has answered.
    published: Arc<ArcSwap<Vec<String>>>,
}

impl TzVersions {
    /// Creates the versions as seen by a process with this database.
    pub fn new(database: TzDatabase, redis: &RedisConnection, keys: &MessageKeys) -> Self {
        Self {
            database,
            redis: redis.clone(),
            key: keys.tz_versions(),
            script: Arc::new(Script::new(include_str!("tz_versions.lua"))),
            published: Arc::default(),
        }
    }

    /// The database of this process.
    pub fn database(&self) -> &TzDatabase {
        &self.database
    }

    /// The versions of other processes that differ from this process's.
    pub fn others(&self) -> Vec<String> {
        let own = self.database.zones.version().as_str();
        self.published.load().iter().filter(|version| *version != own).cloned().collect()
    }

    /// Publishes the version and reads those of others until shutdown. While Redis is unavailable, the last
    /// known versions are kept.
    pub async fn publish_periodically(self, shutdown: CancellationToken) {
        let mut known: Vec<String> = Vec::new();
        loop {
            match self.publish().await {
                Ok(published) => self.published.store(Arc::new(published)),
                Err(error) => {
                    tracing::debug!(%error, "could not publish the version of the time zone database")
                }
            }
            let others = self.others();
            if others != known && !others.is_empty() {
                let own = self.database.zones.version();
                tracing::warn!(%own, others = others.join(", "), "processes use different versions of the time zone database");
            }
            known = others;
            if shutdown.run_until_cancelled(tokio::time::sleep(PUBLISH_INTERVAL)).await.is_none() {
                return;
            }
        }
    }

    async fn publish(&self) -> Result<Vec<String>, RedisError> {
        let mut publish = self.script.key(&self.key);
        publish.arg(self.database.zones.version().as_str()).arg(EXPIRY_S);
        Ok(publish.invoke_async(&mut self.redis.writes()).await?)
    }
}
