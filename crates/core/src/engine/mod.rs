//! From facts to published prices: the one place where prices are computed and written.
//!
//! Here: the [`Engine`] and its construction ([`open`]), with a file for each reason to price: a cache miss
//! (this file), changed products ([`products`]), market events ([`market`]), a recalculation or expiry
//! ([`range`]), a decision about a held move ([`holds`]), a simulation of a policy ([`simulate`]) or of
//! products ([`simulate_products`]); and one for serving what is stored ([`serve`]), for comparing what is
//! served with it ([`differences`]), and for a database that was restored ([`watch`]). Never here: how a
//! price is computed ([`domain::price`](pricing_domain::price)) and when (the routes, the worker).
//!
//! Each function works on a batch in one transaction ([`pieces`]): lock the products, compute, write prices
//! and history, commit; then store the entries in the caches, where their revision keeps older ones out. The
//! caller's request is acknowledged after both steps, and a retry repeats only the second. If the process
//! dies in between, the record that the transaction has left makes another one do the second step.

mod compute;
mod differences;
mod holds;
mod market;
mod metrics;
mod open;
mod pieces;
mod products;
mod range;
mod recorded;
mod serve;
mod simulate;
mod simulate_products;
mod watch;

use std::future::Future;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tracing::Instrument;

use self::holds::EventMoves;
use self::metrics::PricingMetrics;
use crate::cache::{Cached, LoadResult, Now, PriceCache, PutMode, ReadError, Tier, TieredPrice};
use crate::clock::Clock;
use crate::keys::MessageKeys;
use crate::notifications::Notifications;
use crate::policy_snapshot::{Policies, PolicySnapshotError};
use crate::redis::{RedisConnection, RedisError};
use crate::store::{Store, StoreError, StoredFacts, StoredPrice};
use crate::telemetry::registry::Registry;
use crate::tz_versions::TzVersions;
pub use differences::{Comparison, MAX_COMPARED, Place, PriceDifference};
pub use holds::HoldDecision;
pub use market::{AppliedEvents, OtherCurrency, products_of};
pub use open::StartError;
use pieces::Batch;
use pricing_domain::facts::product::ProductId;
use pricing_domain::policy::PricingPolicy;
use pricing_domain::policy::guardrail::GuardrailName;
use pricing_domain::pricing::explanation::{Explanation, Outcome};
pub use products::{Bound, Deletion, LostBounds, PreparedProducts, PutSummary, StoredPrices};
pub use range::{RangeDone, RangeError};
pub use recorded::Attribution;
use serve::PublishedPrice;
pub use simulate::Simulator;
pub use simulate_products::SimulatedProducts;

/// Products written in one transaction.
pub const WRITE_BATCH: usize = 1_000;

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
        let unserved = transaction.commit_prices().await?;
        let written: Vec<PublishedPrice> =
            published.iter().filter(|published| published.is_written).cloned().collect();
        if !written.is_empty() {
            let engine = self.clone();
            // A read does not wait for it and does not need Redis.
            let serving = async move { engine.serve(written, PutMode::Insert, unserved).await };
            tokio::spawn(serving.in_current_span());
        }
        Ok(published)
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
