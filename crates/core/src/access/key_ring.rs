//! The keys in use, as one process holds them: read from the store, replaced as a whole.
//!
//! Every process reads them every two seconds, so a revocation takes effect everywhere within five. If the
//! database does not answer, the keys last read stay in use: reads go on without it, and no key can be
//! revoked in it. Expiry is checked for each request.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::identity::Identity;
use super::key::{KeyDigest, KeyId, PresentedKey};
use crate::store::{AccessKey, Store, StoreError};

/// How often the keys are read.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// The keys in use; a clone shares them.
#[derive(Clone)]
pub struct KeyRing {
    store: Store,
    keys: Arc<ArcSwap<Keys>>,
    is_stale: Arc<AtomicBool>,
}

/// The keys as of one read.
#[derive(Debug, Default)]
struct Keys {
    active: HashMap<KeyId, ActiveKey>,
    /// Whether any key was ever created.
    exist: bool,
}

#[derive(Debug)]
struct ActiveKey {
    digest: KeyDigest,
    identity: Identity,
    expires_at: Option<DateTime<Utc>>,
}

impl KeyRing {
    /// Reads the keys.
    pub async fn load(store: Store, now: DateTime<Utc>) -> Result<Self, StoreError> {
        let keys = Arc::new(ArcSwap::from_pointee(Keys::read(&store, now).await?));
        Ok(Self { store, keys, is_stale: Arc::default() })
    }

    /// Whether any key was ever created, also if it was revoked since.
    pub fn has_any(&self) -> bool {
        self.keys.load().exist
    }

    /// The number of keys that can be used.
    pub fn active(&self) -> usize {
        self.keys.load().active.len()
    }

    /// Whether the keys in use may not be those of the database, as it does not answer.
    pub fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::Relaxed)
    }

    /// What is wanted of the identity of this key's owner, if the key is in use.
    pub fn with_identity<T>(
        &self,
        presented: &PresentedKey,
        now: DateTime<Utc>,
        wanted: impl FnOnce(&Identity) -> T,
    ) -> Option<T> {
        let keys = self.keys.load();
        let key = keys.active.get(&presented.id)?;
        let is_of_owner = key.digest.matches(&presented.digest);
        (is_of_owner && !key.is_expired(now)).then(|| wanted(&key.identity))
    }

    /// Whether the key with this identifier can be used.
    pub fn is_active(&self, id: KeyId, now: DateTime<Utc>) -> bool {
        self.keys.load().active.get(&id).is_some_and(|key| !key.is_expired(now))
    }

    /// Reads the keys now, such as after one was changed by this process.
    pub async fn refresh(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        let keys = Keys::read(&self.store, now).await?;
        self.keys.store(Arc::new(keys));
        Ok(())
    }

    /// Reads the keys again and again until shutdown.
    pub async fn poll(self, now: impl Fn() -> DateTime<Utc> + Send, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await.is_some() {
            let read = self.refresh(now()).await;
            match (&read, self.is_stale.swap(read.is_err(), Ordering::Relaxed)) {
                (Err(error), false) => {
                    tracing::warn!(%error, "the access keys cannot be read; those last read stay in use");
                }
                (Ok(()), true) => tracing::info!("the access keys are read again"),
                _ => {}
            }
        }
    }
}

impl ActiveKey {
    fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }
}

impl Keys {
    async fn read(store: &Store, now: DateTime<Utc>) -> Result<Self, StoreError> {
        let (active, exist) = store.active_access_keys(now).await?;
        Ok(Self { active: active.into_iter().filter_map(entry).collect(), exist })
    }
}

/// A key that cannot be read is left out, with a line in the log: it opens nothing.
fn entry(stored: AccessKey) -> Option<(KeyId, ActiveKey)> {
    let parts = (stored.id.parse::<KeyId>().ok(), KeyDigest::from_hex(&stored.digest), stored.scopes.parse());
    let (Some(id), Some(digest), Ok(scopes)) = parts else {
        tracing::warn!(
            id = stored.id,
            "a stored access key cannot be read by this version, and opens nothing"
        );
        return None;
    };
    let identity = Identity::of_key(id, Arc::from(stored.name), scopes);
    Some((id, ActiveKey { digest, identity, expires_at: stored.expires_at }))
}
