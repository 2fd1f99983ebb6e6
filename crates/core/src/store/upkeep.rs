//! What becomes due or old by itself: prices whose time is over, and rows that nobody needs any more.
//!
//! Each call does a bounded part of the work, so that it holds no lock for long. Who calls this: the worker,
//! again and again.

use chrono::{DateTime, Utc};

use super::error::StoreError;
use super::{Store, on_store};
use pricing_domain::facts::product::ProductId;

impl Store {
    /// The products whose prices are valid no longer, at most so many; those that have been so for longest
    /// first.
    pub async fn expired_prices(&self, now: DateTime<Utc>, limit: u32) -> Result<Vec<ProductId>, StoreError> {
        on_store!(self, store => store.expired_prices(now, limit).await)
    }

    /// When the next price ceases to be valid, or the first one did that was not renewed.
    pub async fn next_expiry(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        on_store!(self, store => store.next_expiry().await)
    }

    /// Forgets events that were applied before an instant, at most so many, the oldest first. Returns how
    /// many. One that is delivered again after that counts as new, so keep them for longer than an event may
    /// be on its way.
    pub async fn forget_applied_events(&self, before: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        on_store!(self, store => store.forget_applied_events(before, limit).await)
    }
}
