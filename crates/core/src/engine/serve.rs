//! Serves stored prices: puts them into the caches and notifies the other processes.
//!
//! A transaction that writes prices records that Redis does not have them yet (`store`'s `unserved`). Here
//! that record is marked as done; and every process with an engine looks twice a second for records that are
//! due: those of processes that died between the commit and Redis, or that wait for it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::{Engine, EngineError, WRITE_BATCH};
use crate::cache::{Cached, PutMode};
use crate::catalogue::Catalogue;
use crate::keys::PRICE_CHANGES;
use crate::notifications::{ChangedPrice, ListPriceChange};
use crate::redis::RedisError;
use crate::store::{PriceChange, PriceWrite, Unserved, UnservedPrices};
use crate::telemetry::spans;
use pricing_domain::facts::price_entry::PriceEntry;
use pricing_domain::facts::product::ProductId;

/// How often a process deletes the records of what it has served, and looks for due ones. With the two
/// seconds after which a record is due, prices are served three seconds after their process died, and five
/// seconds after it if the process that claims them first dies too.
const UNSERVED_INTERVAL: Duration = Duration::from_millis(500);

/// The transactions that a process claims at a time.
const CLAIMED_AT_ONCE: u32 = 20;

/// A stored price, to be cached and published.
#[derive(Debug, Clone)]
pub(super) struct PublishedPrice {
    pub(super) product_id: ProductId,
    pub(super) cached: Cached,
    /// Whether this transaction wrote it.
    pub(super) is_written: bool,
    /// Whether a rule failed, so that the price is frozen.
    pub(super) is_frozen: bool,
    /// Its row of the history, if the list price changed.
    pub(super) change: Option<PriceChange>,
}

impl PublishedPrice {
    pub(super) fn unchanged(entry: PriceEntry, is_frozen: bool) -> Self {
        let product_id = entry.product_id.clone();
        Self {
            product_id,
            cached: Cached::Priced(Arc::new(entry)),
            is_written: false,
            is_frozen,
            change: None,
        }
    }

    pub(super) fn written(write: &PriceWrite, is_frozen: bool) -> Self {
        let entry = &write.entry;
        let change = write.changes_list_price().then(|| PriceChange {
            revision: entry.revision,
            product_id: entry.product_id.clone(),
            old_list_price: write.previous_list_price,
            new_list_price: Some(entry.list_price),
            currency: Cow::Borrowed(entry.currency.code()),
            policy_version: entry.policy_version,
            cause: write.cause.clone(),
            changed_at: write.listed_at,
        });
        Self { is_written: true, change, ..Self::unchanged(entry.clone(), is_frozen) }
    }

    pub(super) fn gone(product_id: ProductId, removal: PriceChange) -> Self {
        let cached = Cached::Gone { revision: removal.revision };
        Self { product_id, cached, is_written: true, is_frozen: false, change: Some(removal) }
    }
}

/// Returns the notification of a price, with or without the entry.
fn announced(published: &PublishedPrice, brings_price: bool) -> ChangedPrice {
    ChangedPrice {
        product_id: published.product_id.clone(),
        revision: published.cached.revision(),
        entry: match &published.cached {
            Cached::Priced(entry) if brings_price => Some(Arc::clone(entry)),
            Cached::Priced(_) | Cached::Gone { .. } => None,
        },
        change: published.change.as_ref().map(list_price_change),
    }
}

fn list_price_change(change: &PriceChange) -> ListPriceChange {
    ListPriceChange {
        old_list_price: change.old_list_price,
        new_list_price: change.new_list_price,
        currency: change.currency.clone(),
        policy_version: change.policy_version,
        cause: change.cause.clone(),
        changed_at: change.changed_at,
    }
}

impl Engine {
    /// Stores the prices of a transaction in the caches, notifies the other processes, and marks the prices
    /// as served. If Redis fails, they are served later from their record.
    pub(super) async fn serve(
        &self,
        published: Vec<PublishedPrice>,
        mode: PutMode,
        unserved: Unserved,
    ) -> Result<(), EngineError> {
        self.serve_since(published, mode, unserved, None).await
    }

    /// [`serve`](Self::serve) for prices caused by events that were published at this instant.
    pub(super) async fn serve_since(
        &self,
        published: Vec<PublishedPrice>,
        mode: PutMode,
        unserved: Unserved,
        published_at: Option<DateTime<Utc>>,
    ) -> Result<(), EngineError> {
        self.put(published, mode, unserved.catalogue(), published_at).await?;
        self.store.mark_served(unserved);
        Ok(())
    }

    /// Stores prices of this catalogue in the caches and notifies the other processes.
    pub(super) async fn put(
        &self,
        published: Vec<PublishedPrice>,
        mode: PutMode,
        catalogue: &Arc<Catalogue>,
        published_at: Option<DateTime<Utc>>,
    ) -> Result<(), EngineError> {
        if published.is_empty() {
            return Ok(());
        }
        // Only prices changed by events carry their entries: no process caches most of a catalogue, or new
        // products.
        let brings_prices = published_at.is_some();
        let changes: Vec<ChangedPrice> =
            published.iter().map(|published| announced(published, brings_prices)).collect();
        let products: Vec<(ProductId, Cached)> =
            published.into_iter().map(|published| (published.product_id, published.cached)).collect();
        Ok(self.put_and_publish(&products, &changes, mode, catalogue, published_at).await?)
    }

    /// Replaces those entries in the caches that are older than these prices, which nothing has changed.
    pub(super) async fn put_over_older(
        &self,
        mut unchanged: Vec<PublishedPrice>,
        catalogue: &Arc<Catalogue>,
    ) -> Result<(), EngineError> {
        let ids = unchanged.iter().map(|published| (&published.product_id, published.cached.revision()));
        let mut is_older = self.cache.holds_older(ids, catalogue).await?.into_iter();
        unchanged.retain(|_| is_older.next().unwrap_or_default());
        self.put(unchanged, PutMode::Replace, catalogue, None).await
    }

    async fn put_and_publish(
        &self,
        products: &[(ProductId, Cached)],
        changes: &[ChangedPrice],
        mode: PutMode,
        catalogue: &Arc<Catalogue>,
        published_at: Option<DateTime<Utc>>,
    ) -> Result<(), RedisError> {
        let sending = spans::send(PRICE_CHANGES, changes.len());
        let announcement =
            sending.in_scope(|| self.notifications.announcement(catalogue, changes, published_at));
        // One call for both, so that a Redis that syncs every write does so once.
        let putting = self.cache.put_all_of(catalogue, products, mode, announcement.as_ref());
        let span = if products.is_empty() { Span::none() } else { spans::put_prices(products.len()) };
        // Both spans last as long as the call and are siblings in the trace.
        putting.instrument(span).instrument(sending).await
    }

    /// Deletes the records of what is served, and serves what other processes have left, until shutdown.
    pub(super) async fn keep_served(self, shutdown: CancellationToken) {
        let mut is_failing = false;
        loop {
            let outcome = async {
                self.store.forget_served().await?;
                self.serve_unserved(&shutdown).await
            };
            let outcome = outcome.await;
            if let (Err(error), false) = (&outcome, is_failing) {
                tracing::warn!(%error, "could not serve stored prices that wait for Redis; retrying");
            }
            is_failing = outcome.is_err();
            if shutdown.run_until_cancelled(tokio::time::sleep(UNSERVED_INTERVAL)).await.is_none() {
                return;
            }
        }
    }

    /// Serves the prices of transactions whose own process has not served them in time.
    async fn serve_unserved(&self, shutdown: &CancellationToken) -> Result<(), EngineError> {
        while !shutdown.is_cancelled() {
            let claimed = self.store.claim_unserved(CLAIMED_AT_ONCE).await?;
            if claimed.is_empty() {
                return Ok(());
            }
            let transactions = claimed.len();
            let mut failed = None;
            for unserved in claimed {
                match self.serve_claimed(unserved).await {
                    Err(error @ EngineError::Redis(_)) => return Err(error),
                    // A row that cannot be read does not keep the others waiting.
                    other => failed = failed.or(other.err()),
                }
            }
            self.store.forget_served().await?;
            if let Some(error) = failed {
                return Err(error);
            }
            self.metrics.served_late.increment(u64::try_from(transactions).unwrap_or(u64::MAX));
            tracing::info!(transactions, "served stored prices that their process had not served in time");
        }
        Ok(())
    }

    /// Puts the present prices of a transaction's products into the caches, and publishes its changes.
    async fn serve_claimed(&self, claimed: UnservedPrices) -> Result<(), EngineError> {
        let UnservedPrices { unserved, first_revision, last_revision, product_ids } = claimed;
        for ids in product_ids.chunks(WRITE_BATCH) {
            let (stored, changes) = tokio::try_join!(
                self.store.stored_prices(ids),
                self.store.changes_between(ids, first_revision, last_revision),
            )?;
            let priced: HashSet<&ProductId> = stored.iter().map(|stored| &stored.entry.product_id).collect();
            let gone: Vec<ProductId> = ids.iter().filter(|id| !priced.contains(id)).cloned().collect();
            let removals = self.store.newest_changes(&gone).await?;
            let removals = removals.into_iter().filter(|change| change.new_list_price.is_none());
            let removed = removals
                .map(|removal| (removal.product_id, Cached::Gone { revision: removal.revision }))
                .collect::<Vec<_>>();
            let entries = stored
                .into_iter()
                .map(|stored| (stored.entry.product_id.clone(), Cached::Priced(Arc::new(stored.entry))));
            let products: Vec<(ProductId, Cached)> = entries.chain(removed).collect();
            let notifications = notifications_of(&products, &changes);
            self.put_and_publish(&products, &notifications, PutMode::Insert, unserved.catalogue(), None)
                .await?;
        }
        self.store.mark_served(unserved);
        Ok(())
    }
}

/// Returns the notifications of these changes, in order, and of those prices that are newer.
fn notifications_of(products: &[(ProductId, Cached)], changes: &[PriceChange]) -> Vec<ChangedPrice> {
    let mut newest: HashMap<&ProductId, &Cached> =
        products.iter().map(|(product_id, cached)| (product_id, cached)).collect();
    let mut notifications: Vec<ChangedPrice> = Vec::with_capacity(products.len());
    for change in changes {
        let now = newest.get(&change.product_id).filter(|cached| cached.revision() == change.revision);
        let entry = match now {
            Some(Cached::Priced(entry)) => Some(Arc::clone(entry)),
            Some(Cached::Gone { .. }) | None => None,
        };
        if now.is_some() {
            newest.remove(&change.product_id);
        }
        notifications.push(ChangedPrice {
            product_id: change.product_id.clone(),
            revision: change.revision,
            change: Some(list_price_change(change)),
            entry,
        });
    }
    let others = products.iter().filter(|(product_id, _)| newest.contains_key(product_id));
    notifications.extend(others.map(|(product_id, cached)| ChangedPrice {
        product_id: product_id.clone(),
        revision: cached.revision(),
        change: None,
        entry: match cached {
            Cached::Priced(entry) => Some(Arc::clone(entry)),
            Cached::Gone { .. } => None,
        },
    }));
    notifications
}
