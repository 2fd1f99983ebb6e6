//! Which versions of the time zone database the processes of an installation use: with different ones, the
//! API would quote an hour later than a worker prices.
//!
//! Each process that compiles policies says every ten seconds in Redis which version it uses, and remembers
//! the others'.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::Script;
use tokio_util::sync::CancellationToken;

use crate::keys::MessageKeys;
use crate::redis::{RedisConnection, RedisError};
use crate::tz_database::TzDatabase;

/// How often a process says it.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// After how many seconds what was said is forgotten: the process has ended, or has another version now.
const FORGOTTEN_AFTER_S: u64 = 60;

/// What a process knows of it; cheap to clone.
#[derive(Clone)]
pub struct TzVersions {
    database: TzDatabase,
    redis: RedisConnection,
    key: String,
    script: Arc<Script>,
    /// The versions that processes published lately, this one among them; empty until Redis has answered.
    told: Arc<ArcSwap<Vec<String>>>,
}

impl TzVersions {
    /// For a process that uses this database.
    pub fn new(database: TzDatabase, redis: &RedisConnection, keys: &MessageKeys) -> Self {
        Self {
            database,
            redis: redis.clone(),
            key: keys.tz_versions(),
            script: Arc::new(Script::new(include_str!("tz_versions.lua"))),
            told: Arc::default(),
        }
    }

    /// The database of this process.
    pub fn database(&self) -> &TzDatabase {
        &self.database
    }

    /// The versions that others use in place of this process's.
    pub fn others(&self) -> Vec<String> {
        let own = self.database.zones.version().as_str();
        self.told.load().iter().filter(|version| *version != own).cloned().collect()
    }

    /// Tells and listens until the process stops. Without Redis, what was told last stays.
    pub async fn keep_told(self, shutdown: CancellationToken) {
        let mut known: Vec<String> = Vec::new();
        loop {
            match self.tell().await {
                Ok(told) => self.told.store(Arc::new(told)),
                Err(error) => tracing::debug!(%error, "the version of the time zone database cannot be told"),
            }
            let others = self.others();
            if others != known && !others.is_empty() {
                let own = self.database.zones.version();
                tracing::warn!(%own, others = others.join(", "), "processes use different versions of the time zone database");
            }
            known = others;
            if shutdown.run_until_cancelled(tokio::time::sleep(TOLD_EVERY)).await.is_none() {
                return;
            }
        }
    }

    async fn tell(&self) -> Result<Vec<String>, RedisError> {
        let mut tell = self.script.key(&self.key);
        tell.arg(self.database.zones.version().as_str()).arg(FORGOTTEN_AFTER_S);
        Ok(tell.invoke_async(&mut self.redis.writes()).await?)
    }
}
