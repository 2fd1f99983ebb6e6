//! The price caches.
//!
//! Here: the read path [`PriceCache::get`], from this process' memory ([`l1`]) over Redis ([`l2`]) to a fill
//! that the caller supplies, at most one at a time for each product ([`single_flight`]). Never here: how a
//! price is computed (`engine`), and anything that depends on the shopper; cached entries are the same for
//! every shopper.
//!
//! Two rules keep the caches correct. An entry is stored, in memory and in Redis, only if no entry with the
//! same or a newer revision is there; a removed product leaves a tombstone with a revision, so a slow fill
//! cannot restore it. And no entry is served past its `valid_until`.

mod l1;
mod l2;
mod metrics;
mod single_flight;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::runtime::Handle;

use self::metrics::CacheMetrics;
use crate::catalogue::Catalogue;
use crate::clock::Clock;
use crate::keys::Keys;
use crate::notifications::Announcement;
use crate::redis::{RedisConnection, RedisError};
use crate::telemetry::registry::Registry;
use l1::L1;
use l2::L2;
use pricing_domain::facts::price_entry::PriceEntry;
use pricing_domain::facts::product::ProductId;
use single_flight::SingleFlight;

/// The cached state of a product: its price, or a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cached {
    /// The product's current price entry.
    Priced(Arc<PriceEntry>),
    /// A tombstone: the product was removed.
    Gone {
        /// The revision of the removal, which orders it among the product's prices.
        revision: i64,
    },
}

impl Cached {
    /// Orders the states of one product: the larger, the newer.
    pub fn revision(&self) -> i64 {
        match self {
            Self::Priced(entry) => entry.revision,
            Self::Gone { revision } => *revision,
        }
    }
}

/// The tier that a price was found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// The in-process cache.
    L1,
    /// Redis.
    L2,
    /// A cache miss: the price was read from the database.
    Store,
}

/// What is held of a product, whether it may be served or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldPrice {
    /// In the memory of this process.
    pub memory: Option<Cached>,
    /// In Redis.
    pub redis: Option<Cached>,
}

/// The current time on both clocks: wall time for `valid_until`, monotonic time for staleness.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Wall-clock time.
    pub utc: DateTime<Utc>,
    /// Monotonic time.
    pub monotonic: Instant,
}

impl Now {
    /// Reads both clocks.
    pub fn read(clock: &Clock) -> Self {
        Self { utc: clock.now(), monotonic: Instant::now() }
    }
}

/// A price and the tier that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TieredPrice {
    /// The price.
    pub entry: Arc<PriceEntry>,
    /// The tier that answered.
    pub tier: Tier,
}

/// The condition on which an entry is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutMode {
    /// Stores the entry even if none is cached, so that a concurrent fill with an older revision is
    /// discarded.
    Insert,
    /// Replaces older entries only. For entries of which no older revision can be in flight, so that a large
    /// import does not evict entries that are read.
    Replace,
}

/// The reason that a read failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There is no such product.
    #[error("no such product")]
    UnknownProduct,
    /// The database does not answer and the caches do not have the price; a retry may succeed.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The product is stored in a form that this version cannot read.
    #[error("{0}")]
    Unreadable(String),
    /// Stored data cannot be read.
    #[error("{0}")]
    Internal(String),
}

/// The result of a fill: the price entry, or the tombstone of a product that does not exist.
pub type LoadResult = Result<Cached, ReadError>;

/// Both caches and the fills in flight; cheap to clone.
#[derive(Clone)]
pub struct PriceCache {
    l1: Arc<L1>,
    keys: Keys,
    l2: L2,
    /// The L2 that fills write to, on their own runtime.
    fill_l2: L2,
    flights: Arc<SingleFlight<ProductId, Result<TieredPrice, ReadError>>>,
    metrics: Arc<CacheMetrics>,
}

impl PriceCache {
    /// Creates an empty L1 in front of the L2 in this Redis. Fills run on `runtime`, regardless of the
    /// requesting thread.
    pub fn new(
        l1_capacity: usize,
        l1_max_staleness: Duration,
        redis: &RedisConnection,
        keys: Keys,
        registry: &Registry,
        runtime: Handle,
    ) -> Self {
        let metrics = Arc::new(CacheMetrics::new(registry));
        let l2 = L2::new(redis, keys.clone(), &metrics);
        Self {
            l1: Arc::new(L1::new(l1_capacity, l1_max_staleness, metrics.l1_evictions.clone())),
            keys,
            l2: l2.clone(),
            fill_l2: l2,
            flights: Arc::new(SingleFlight::new(runtime)),
            metrics,
        }
    }

    /// Returns the same cache, with entries that expire by this clock.
    #[must_use]
    pub fn timed_by(self, clock: &Clock) -> Self {
        Self { l2: self.l2.timed_by(clock), fill_l2: self.fill_l2.timed_by(clock), ..self }
    }

    /// Returns the same cache with its own read connection, opened and driven by the runtime that uses it, so
    /// that a thread with its own runtime does not wait for other threads.
    pub fn with_own_reads(&self) -> Self {
        Self { l2: self.l2.with_own_reads(), ..self.clone() }
    }

    /// Returns the product's price from L1, if it may be served. Nearly every request takes this path, which
    /// neither waits nor copies. The caller [counts](Self::count_l1) the read.
    pub fn get_l1(
        &self,
        product_id: &str,
        now: Now,
        knows_policy: &impl Fn(i64) -> bool,
    ) -> Option<Result<Arc<PriceEntry>, ReadError>> {
        match self.l1.get(product_id, now.monotonic)? {
            Cached::Priced(entry) if entry.is_valid(now.utc) && knows_policy(entry.policy_version) => {
                Some(Ok(entry))
            }
            Cached::Priced(_) => None,
            Cached::Gone { .. } => Some(Err(ReadError::UnknownProduct)),
        }
    }

    /// Counts reads that L1 has answered: with a price, and with an unknown product.
    pub fn count_l1(&self, priced: u64, unknown: u64) {
        self.metrics.reads_from_l1.increment(priced);
        if unknown > 0 {
            self.metrics.reads_of_unknown.increment(unknown);
        }
    }

    /// Returns the product's price from L2 or else from `fill`. Requests that arrive during a fill of the
    /// same product share its result; the fill continues if the request that started it is cancelled.
    pub async fn get_or_fill<F>(
        &self,
        product_id: ProductId,
        now: DateTime<Utc>,
        knows_policy: impl Fn(i64) -> bool + Send + Sync,
        fill: impl FnOnce(ProductId) -> F + Send,
    ) -> Result<TieredPrice, ReadError>
    where
        F: Future<Output = LoadResult> + Send + 'static,
    {
        let found = match self.get_l2(&product_id, now, &knows_policy).await {
            Some(found) => found,
            None => {
                // Another request may have filled it meanwhile.
                let meanwhile = Now { utc: now, monotonic: Instant::now() };
                match self.get_l1(product_id.as_str(), meanwhile, &knows_policy) {
                    Some(filled) => filled.map(|entry| TieredPrice { entry, tier: Tier::L1 }),
                    None => {
                        let found = self.flights.run(product_id.clone(), || {
                            let (cache, filling) = (self.clone(), fill(product_id.clone()));
                            async move { cache.fill(product_id, filling).await }
                        });
                        let ended_early = || Err(ReadError::Internal("a fill ended early".to_owned()));
                        found.await.unwrap_or_else(ended_early)
                    }
                }
            }
        };
        self.count(&found);
        found
    }

    /// Returns the product's price from Redis, if it may be served.
    async fn get_l2(
        &self,
        product_id: &ProductId,
        now: DateTime<Utc>,
        knows_policy: &(impl Fn(i64) -> bool + Sync),
    ) -> Option<Result<TieredPrice, ReadError>> {
        // After a fail-over, or before another process has stored an announced entry, Redis may be behind
        // this process; the database is then authoritative.
        let epoch = self.l1.epoch();
        let (known, keys) = (self.l1.known(product_id.as_str()), self.keys.current());
        let cached = self.l2.get(&keys, product_id).await?;
        keys.catalogue.note(product_id, cached.revision());
        if cached.revision() < known {
            return None;
        }
        self.l1.put_found(product_id, cached.clone(), epoch);
        match cached {
            Cached::Gone { .. } => Some(Err(ReadError::UnknownProduct)),
            Cached::Priced(entry) if entry.is_valid(now) && knows_policy(entry.policy_version) => {
                Some(Ok(TieredPrice { entry, tier: Tier::L2 }))
            }
            Cached::Priced(_) => None,
        }
    }

    async fn fill(
        &self,
        product_id: ProductId,
        filling: impl Future<Output = LoadResult> + Send,
    ) -> Result<TieredPrice, ReadError> {
        let (epoch, keys) = (self.l1.epoch(), self.keys.current());
        let started = std::time::Instant::now();
        let filled = filling.await;
        self.metrics.fill_duration.record(started.elapsed());
        let cached = filled?;
        self.l1.put_found(&product_id, cached.clone(), epoch);
        self.measure_l1();
        // If Redis is unavailable, the only effect is that other processes fill again.
        self.fill_l2.offer(&keys, &product_id, &cached).await;
        match cached {
            Cached::Priced(entry) => Ok(TieredPrice { entry, tier: Tier::Store }),
            Cached::Gone { .. } => Err(ReadError::UnknownProduct),
        }
    }

    /// Checks that Redis accepts writes now.
    pub async fn check_writable(&self) -> Result<(), RedisError> {
        self.l2.check_writable().await
    }

    /// Stores the states of products in Redis, unless Redis holds the same or a newer revision, and publishes
    /// the notification in the same call as the last batch. After an error, some may be stored, and the
    /// notification of all may have been published. L1 replaces older entries only, as for a notification
    /// from another process: the states may be out of date by now.
    pub async fn put_all(
        &self,
        products: &[(ProductId, Cached)],
        mode: PutMode,
        announcement: Option<&Announcement>,
    ) -> Result<(), RedisError> {
        self.put_all_of(&self.keys.current().catalogue, products, mode, announcement).await
    }

    /// [`put_all`](Self::put_all) for the products of a catalogue, which may have been replaced meanwhile:
    /// nothing of it comes into L1, or under the keys of another one.
    pub async fn put_all_of(
        &self,
        catalogue: &Arc<Catalogue>,
        products: &[(ProductId, Cached)],
        mode: PutMode,
        announcement: Option<&Announcement>,
    ) -> Result<(), RedisError> {
        let catalogues = self.l1.catalogues();
        if self.keys.is_current(catalogue) {
            for (product_id, cached) in products {
                self.l1.apply(product_id, cached.revision(), catalogues, || Some(cached.clone()));
            }
        }
        Ok(self.l2.put_all(&self.keys.of(catalogue), products, mode, announcement).await?)
    }

    /// Returns for each product of a catalogue whether Redis holds an older revision than this one.
    pub async fn holds_older(
        &self,
        products: impl IntoIterator<Item = (&ProductId, i64)>,
        catalogue: &Arc<Catalogue>,
    ) -> Result<Vec<bool>, RedisError> {
        Ok(self.l2.holds_older(&self.keys.of(catalogue), products).await?)
    }

    /// Returns what memory and Redis hold of these products, in their order; changes nothing, and counts as
    /// no read.
    pub async fn held(&self, ids: &[&ProductId], now: Now) -> Result<Vec<HeldPrice>, RedisError> {
        let in_redis = self.l2.held(&self.keys.current(), ids).await?;
        let both = ids.iter().zip(in_redis);
        let held =
            both.map(|(id, redis)| HeldPrice { memory: self.l1.peek(id.as_str(), now.monotonic), redis });
        Ok(held.collect())
    }

    /// The keys of prices.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The number of catalogues that were replaced, which a caller reads before it finds a notification to be
    /// about the one in use.
    pub fn catalogues(&self) -> u64 {
        self.l1.catalogues()
    }

    /// Applies a notification that these products have new prices: older entries in L1 are replaced, or
    /// evicted if the notification does not carry the new entry.
    pub fn apply<'a, E>(&self, catalogues: u64, changes: impl IntoIterator<Item = (&'a ProductId, i64, E)>)
    where
        E: FnOnce() -> Option<PriceEntry>,
    {
        let heard = changes.into_iter().map(|(id, revision, entry)| {
            self.l1.apply(id, revision, catalogues, || entry().map(|entry| Cached::Priced(Arc::new(entry))))
        });
        let outdated = heard.filter(|is_outdated| *is_outdated).count();
        self.metrics.l1_invalidations.increment(u64::try_from(outdated).unwrap_or(u64::MAX));
        self.measure_l1();
    }

    /// Empties L1: notifications may have been missed.
    pub fn flush_l1(&self) {
        self.l1.flush();
        self.metrics.l1_flushes.increment(1);
        self.measure_l1();
    }

    /// Empties L1 for another catalogue.
    pub fn start_over(&self) {
        self.l1.start_over();
        self.metrics.l1_flushes.increment(1);
        self.measure_l1();
    }

    fn measure_l1(&self) {
        self.metrics.l1_entries.set(u32::try_from(self.l1.len()).unwrap_or(u32::MAX));
    }

    fn count(&self, found: &Result<TieredPrice, ReadError>) {
        match found {
            Ok(TieredPrice { tier: Tier::L1, .. }) => self.metrics.reads_from_l1.increment(1),
            Ok(TieredPrice { tier: Tier::L2, .. }) => self.metrics.reads_from_l2.increment(1),
            Ok(TieredPrice { tier: Tier::Store, .. }) => self.metrics.reads_from_store.increment(1),
            Err(ReadError::UnknownProduct) => self.metrics.reads_of_unknown.increment(1),
            Err(_) => {}
        }
    }
}
