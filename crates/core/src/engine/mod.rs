//! From facts to published prices: the one place where prices are computed and written.
//!
//! Here: the [`Engine`] and its construction ([`open`]), with a file for each reason to price: a cache miss
//! (this file), changed products ([`products`]), market events ([`market`]), a recalculation or expiry
//! ([`range`]), a decision about a held move ([`holds`]), a simulation of a policy ([`simulate`]) or of
//! products ([`simulate_products`]). Never here: how a price is computed
//! ([`domain::price`](pricing_domain::price)) and when (the routes, the worker).
//!
//! Each function works on a batch in one transaction ([`pieces`]): lock the products, compute, write prices
//! and history, commit; then store the entries in the caches, where their revision keeps older ones out. A
//! crash after the commit may leave a stale entry in Redis, so the caller's request is acknowledged only
//! after both steps, and a retry repeats only the second.

mod compute;
mod holds;
mod market;
mod metrics;
mod open;
mod pieces;
mod products;
mod range;
mod simulate;
mod simulate_products;

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tracing::{Instrument, Span};

use self::holds::EventMoves;
use self::metrics::PricingMetrics;
use crate::cache::{Cached, LoadResult, Now, PriceCache, PutMode, ReadError, Tier, TieredPrice};
use crate::clock::Clock;
use crate::keys::{MessageKeys, PRICE_CHANGES, PRICE_TTL};
use crate::notifications::{ChangedPrice, ListPriceChange, Notifications};
use crate::policy_snapshot::{Policies, PolicySnapshotError};
use crate::redis::{RedisConnection, RedisError};
use crate::store::{PriceChange, PriceWrite, Store, StoreError, StoredFacts, StoredPrice};
use crate::telemetry::registry::Registry;
use crate::telemetry::spans;
use crate::tz_versions::TzVersions;
pub use holds::HoldDecision;
pub use market::{AppliedEvents, OtherCurrency, products_of};
pub use open::StartError;
use pieces::Batch;
use pricing_domain::facts::price_entry::PriceEntry;
use pricing_domain::facts::product::ProductId;
use pricing_domain::policy::PricingPolicy;
use pricing_domain::policy::guardrail::GuardrailName;
use pricing_domain::pricing::explanation::{Explanation, Outcome};
pub use products::{Bound, Deletion, LostBounds, PreparedProducts, PutSummary, StoredPrices};
pub use range::{RangeDone, RangeError};
pub use simulate::Simulator;
pub use simulate_products::SimulatedProducts;

/// Products written in one transaction.
pub const WRITE_BATCH: usize = 1_000;

/// The pause before a failed write to Redis is retried.
const SERVE_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The engine: store, caches, policies and messaging; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    /// The store of facts and prices.
    pub store: Store,
    /// The caches that prices are served from.
    pub cache: PriceCache,
    /// The policies and location factors.
    pub policies: Policies,
    /// Publishes changed prices to other processes.
    pub notifications: Notifications,
    /// The registry of the service's metrics.
    pub registry: Registry,
    metrics: Arc<PricingMetrics>,
    /// The clock by which this process prices.
    pub clock: Clock,
    /// The connections to Redis.
    pub redis: RedisConnection,
    /// The names of queues, streams and channels in Redis.
    pub keys: MessageKeys,
    /// The versions of the time zone database in use by this process and others.
    pub tz_versions: TzVersions,
}

/// A stored price, to be cached and published.
#[derive(Debug, Clone)]
struct PublishedPrice {
    product_id: ProductId,
    cached: Cached,
    /// Whether this transaction wrote it.
    is_written: bool,
    /// Whether a rule failed, so that the price is frozen.
    is_frozen: bool,
    /// Its row of the history, if the list price changed.
    change: Option<PriceChange>,
}

impl PublishedPrice {
    fn unchanged(entry: PriceEntry, is_frozen: bool) -> Self {
        let product_id = entry.product_id.clone();
        Self {
            product_id,
            cached: Cached::Priced(Arc::new(entry)),
            is_written: false,
            is_frozen,
            change: None,
        }
    }

    fn written(write: &PriceWrite, is_frozen: bool) -> Self {
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
        change: published.change.as_ref().map(|change| ListPriceChange {
            old_list_price: change.old_list_price,
            new_list_price: change.new_list_price,
            currency: change.currency.clone(),
            policy_version: change.policy_version,
            cause: change.cause.clone(),
            changed_at: change.changed_at,
        }),
    }
}

/// The reason that nothing was written, or not everything was published.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The change is stored, but Redis has not accepted it yet. Repeating the call is harmless.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The work was not completed: it panicked, or the process is stopping.
    #[error("the work was interrupted")]
    Interrupted,
    /// The policies could not be read.
    #[error(transparent)]
    Policies(#[from] PolicySnapshotError),
    /// A newer version of the engine published a policy that this one cannot use. Products priced by it must
    /// not be priced by an earlier policy.
    #[error("prices were made by policy version {version}, and this process can use none after {known}")]
    PolicyUnknown {
        /// The policy version of the stored price.
        version: i64,
        /// The newest usable version.
        known: i64,
    },
    /// The explanation of a price cannot be serialised.
    #[error("an explanation cannot be serialised: {0}")]
    Explanation(#[from] serde_json::Error),
}

impl Engine {
    /// Reads a product's price from L1, L2 or the store.
    pub async fn read(&self, product_id: &str, now: Now) -> Result<TieredPrice, ReadError> {
        match self.read_l1(product_id, now) {
            Some(found) => found,
            None => self.read_beyond_l1(product_id, now.utc).await,
        }
    }

    /// Reads a product's price from L1, if it is cached.
    pub fn read_l1(&self, product_id: &str, now: Now) -> Option<Result<TieredPrice, ReadError>> {
        let policies = self.policies.snapshot();
        let found = self.cache.get_l1(product_id, now, &|version| policies.policy(version).is_some())?;
        self.cache.count_l1(u64::from(found.is_ok()), u64::from(found.is_err()));
        Some(found.map(|entry| TieredPrice { entry, tier: Tier::L1 }))
    }

    /// Reads the prices of several products from L1, each if it is cached.
    pub fn read_many_l1<'a>(
        &self,
        product_ids: impl Iterator<Item = &'a str>,
        now: Now,
    ) -> Vec<Option<Result<TieredPrice, ReadError>>> {
        let policies = self.policies.snapshot();
        let (mut priced, mut unknown) = (0, 0);
        let found = product_ids.map(|product_id| {
            let found = self.cache.get_l1(product_id, now, &|version| policies.policy(version).is_some())?;
            if found.is_ok() {
                priced += 1
            } else {
                unknown += 1
            }
            Some(found.map(|entry| TieredPrice { entry, tier: Tier::L1 }))
        });
        let found = found.collect();
        self.cache.count_l1(priced, unknown);
        found
    }

    /// Reads the price of a product that is not in L1.
    pub async fn read_beyond_l1(
        &self,
        product_id: &str,
        now: DateTime<Utc>,
    ) -> Result<TieredPrice, ReadError> {
        let product_id = ProductId::parse(product_id).map_err(|_| ReadError::UnknownProduct)?;
        let knows_policy = |version| self.policies.knows(version);
        let fill = |product_id| {
            let engine = self.clone();
            async move { engine.fill(product_id).await }
        };
        self.cache.get_or_fill(product_id, now, knows_policy, fill).await
    }

    /// Fills a price from the store: the stored one if it may still be served, else a new one.
    async fn fill(&self, product_id: ProductId) -> LoadResult {
        let store = &self.store;
        let looked_up = tokio::try_join!(store.product(&product_id), store.stored_price(&product_id));
        let (product, stored) = looked_up.map_err(|error| read_error(&error))?;
        if product.is_none() {
            return Err(ReadError::UnknownProduct);
        }
        if stored.as_ref().is_some_and(|stored| !self.policies.knows(stored.entry.policy_version)) {
            // Another process may just have published it.
            self.policies.refresh().await.map_err(|error| ReadError::Unavailable(error.to_string()))?;
        }
        if let Some(stored) = stored.filter(|stored| self.is_servable(stored)) {
            return Ok(Cached::Priced(Arc::new(stored.entry)));
        }
        let published = self.price_unservable(&[product_id]).await.map_err(|error| match error {
            EngineError::Store(error) => read_error(&error),
            unknown @ EngineError::PolicyUnknown { .. } => ReadError::Unavailable(unknown.to_string()),
            other => ReadError::Internal(other.to_string()),
        })?;
        published.into_iter().next().map(|published| published.cached).ok_or(ReadError::UnknownProduct)
    }

    async fn price_unservable(&self, ids: &[ProductId]) -> Result<Vec<PublishedPrice>, EngineError> {
        let mut transaction = self.store.begin().await?;
        let batch = Batch::named(ids);
        let published = self
            .price_in(&mut transaction, batch, EventMoves::Kept, |_, _| false, |_| "fill".to_owned())
            .await?;
        transaction.commit().await?;
        let changes: Vec<ChangedPrice> = published
            .iter()
            .filter(|published| published.change.is_some())
            .map(|published| announced(published, false))
            .collect();
        if !changes.is_empty() {
            let engine = self.clone();
            // A read does not wait for it and does not need Redis. Entries of other processes have expired as
            // well.
            let publishing =
                async move { engine.put_and_publish(&[], &changes, PutMode::Insert, None).await };
            tokio::spawn(publishing.in_current_span());
        }
        Ok(published)
    }

    /// Stores prices in the caches and notifies the other processes. If Redis fails, the call returns the
    /// error and retries in the background until Redis accepts them or its older entries have expired.
    async fn serve(&self, published: Vec<PublishedPrice>, mode: PutMode) -> Result<(), EngineError> {
        self.serve_since(published, mode, None).await
    }

    /// [`serve`](Self::serve) for prices caused by events that were published at this instant.
    async fn serve_since(
        &self,
        published: Vec<PublishedPrice>,
        mode: PutMode,
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
        let Err(error) = self.put_and_publish(&products, &changes, mode, published_at).await else {
            return Ok(());
        };
        let engine = self.clone();
        tokio::spawn(async move {
            let retry_deadline = tokio::time::Instant::now() + PRICE_TTL;
            while tokio::time::Instant::now() < retry_deadline {
                tokio::time::sleep(SERVE_RETRY_PAUSE).await;
                // Published only once they are stored, as repeated notifications are delivered repeatedly.
                let mode = PutMode::Insert;
                if engine.put_and_publish(&products, &[], mode, published_at).await.is_ok()
                    && engine.put_and_publish(&[], &changes, mode, published_at).await.is_ok()
                {
                    return;
                }
            }
        });
        Err(error.into())
    }

    async fn put_and_publish(
        &self,
        products: &[(ProductId, Cached)],
        changes: &[ChangedPrice],
        mode: PutMode,
        published_at: Option<DateTime<Utc>>,
    ) -> Result<(), RedisError> {
        let sending = spans::send(PRICE_CHANGES, changes.len());
        let announcement = sending.in_scope(|| self.notifications.announcement(changes, published_at));
        // One call for both, so that a Redis that syncs every write does so once.
        let putting = self.cache.put_all(products, mode, announcement.as_ref());
        let span = if products.is_empty() { Span::none() } else { spans::put_prices(products.len()) };
        // Both spans last as long as the call and are siblings in the trace.
        putting.instrument(span).instrument(sending).await
    }

    /// Whether a stored price may be served unchanged.
    fn is_servable(&self, stored: &StoredPrice) -> bool {
        stored.entry.is_valid(self.clock.now()) && self.policies.knows(stored.entry.policy_version)
    }

    /// Returns the current policy, no older than that of any stored price: no product reverts to an earlier
    /// version.
    async fn policy_for(&self, stored: &[StoredFacts]) -> Result<Arc<PricingPolicy>, EngineError> {
        let prices = stored.iter().filter_map(|facts| facts.price.as_ref());
        let newest = prices.map(|price| price.entry.policy_version).max();
        self.current_policy(newest.unwrap_or(0)).await
    }

    /// Returns the current policy, which is this version or a later one.
    async fn current_policy(&self, at_least: i64) -> Result<Arc<PricingPolicy>, EngineError> {
        if self.policies.snapshot().current().version < at_least {
            // Another process may just have published it.
            self.policies.refresh().await?;
        }
        let current = Arc::clone(self.policies.snapshot().current());
        if current.version < at_least {
            return Err(EngineError::PolicyUnknown { version: at_least, known: current.version });
        }
        Ok(current)
    }

    fn count(&self, explanation: &Explanation<'_>) {
        match explanation.outcome {
            Outcome::Priced => self.metrics.priced.increment(1),
            Outcome::Frozen => self.metrics.frozen.increment(1),
        }
        for guardrail in explanation.guardrails() {
            self.metrics.record_guardrail(guardrail);
            if guardrail == GuardrailName::CompetitorLoop {
                let product_id = &explanation.facts.product.product_id;
                tracing::warn!(%product_id, "a price and its competitors follow each other; it is held for a while");
            }
        }
    }
}

/// Runs work to completion, even if its caller stops waiting.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
) -> Result<T, EngineError> {
    tokio::spawn(work.in_current_span()).await.map_err(|_| EngineError::Interrupted)?
}

fn read_error(error: &StoreError) -> ReadError {
    match error {
        transient if transient.is_transient() => ReadError::Unavailable(transient.to_string()),
        unknown @ StoreError::UnknownCurrency { .. } => ReadError::Unreadable(unknown.to_string()),
        other => ReadError::Internal(other.to_string()),
    }
}
