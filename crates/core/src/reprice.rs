//! From facts to served prices: the one place where prices are made and written.
//!
//! Each function works on a batch in one transaction: lock the products, compute, write prices and history,
//! commit; then put the entries into the caches, where their revision keeps older ones out. A crash between the
//! commit and the put leaves a stale entry in Redis, so the caller's request is not acknowledged before both are
//! done, and doing it again repeats only the put.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use tokio::task::JoinHandle;

use crate::cache::{Cached, Filled, Found, PriceCache, PutMode, ReadError, Tier};
use crate::catalogue::{
    Catalogue, CatalogueError, CatalogueTransaction, PriceWrite, StoredFacts, StoredPrice,
};
use crate::domain::explanation::Outcome;
use crate::domain::policy::PricingPolicy;
use crate::domain::price::{Facts, ListPrice, Previous, PriceEntry, price};
use crate::domain::product::{Product, ProductId};
use crate::keys::PRICE_TTL;
use crate::policy_snapshot::{Policies, PolicySnapshotError};
use crate::redis::RedisError;
use crate::telemetry::metrics::Metrics;

/// Products written in one transaction.
pub const WRITE_BATCH: usize = 1_000;

/// How long to wait before a put that Redis did not take is tried again.
const SERVE_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Everything needed to make prices; cheap to clone.
#[derive(Clone)]
pub struct Repricer {
    /// The facts.
    pub catalogue: Catalogue,
    /// Where prices are served from.
    pub cache: PriceCache,
    /// What prices are made with.
    pub policies: Policies,
    /// What is counted.
    pub metrics: Metrics,
}

/// What a batch of products did to the catalogue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PutSummary {
    /// Products that were new.
    pub created: u64,
    /// Products that changed.
    pub updated: u64,
    /// Products that were already like this.
    pub unchanged: u64,
}

/// Prices that are stored and not yet served.
struct StoredPrices {
    /// Of products that had another one before: a fill may be on its way with that one.
    updated: Vec<(ProductId, Cached)>,
    /// Of new products, and those that stayed. Put only over older ones, which a crash or a removal left behind.
    others: Vec<(ProductId, Cached)>,
}

/// Why nothing was written, or not everything was told.
#[derive(Debug, thiserror::Error)]
pub enum RepriceError {
    /// The catalogue refused.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The catalogue has the change, and Redis does not take it yet. Writing it again does no harm.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The work did not come to its end: it panicked, or the process stops.
    #[error("the work was interrupted")]
    Interrupted,
    /// The policies cannot be read.
    #[error(transparent)]
    Policies(#[from] PolicySnapshotError),
    /// The explanation of a price cannot be written down.
    #[error("an explanation cannot be serialised: {0}")]
    Explanation(#[from] serde_json::Error),
}

impl Repricer {
    /// The price of a product for a read: L1, L2, or the catalogue.
    pub async fn read(&self, product_id: &str, now: DateTime<Utc>) -> Result<Found, ReadError> {
        match self.read_l1(product_id, now) {
            Some(found) => found,
            None => self.read_beyond_l1(product_id, now).await,
        }
    }

    /// The price of a product out of this process' memory, if it is there.
    pub fn read_l1(&self, product_id: &str, now: DateTime<Utc>) -> Option<Result<Found, ReadError>> {
        let found = self.cache.get_l1(product_id, now, &|version| self.policies.knows(version))?;
        Some(found.map(|entry| Found { entry, tier: Tier::L1 }))
    }

    /// The price of a product that is not in this process' memory.
    pub async fn read_beyond_l1(&self, product_id: &str, now: DateTime<Utc>) -> Result<Found, ReadError> {
        let product_id = ProductId::parse(product_id).map_err(|_| ReadError::UnknownProduct)?;
        let (policies, repricer) = (self.policies.clone(), self.clone());
        let knows_policy = move |version| policies.knows(version);
        let fill = move |product_id| async move { repricer.fill(product_id).await };
        self.cache.get_or_fill(product_id, now, knows_policy, fill).await
    }

    /// The product's price out of the catalogue: the stored one if it may still be served, else a new one.
    async fn fill(&self, product_id: ProductId) -> Filled {
        let catalogue = &self.catalogue;
        let looked_up = tokio::try_join!(catalogue.product(&product_id), catalogue.stored_price(&product_id));
        let (product, stored) = looked_up.map_err(|error| read_error(&error))?;
        if product.is_none() {
            return Err(ReadError::UnknownProduct);
        }
        if stored.as_ref().is_some_and(|stored| !self.policies.knows(stored.entry.policy_version)) {
            // Perhaps published by another process a moment ago.
            self.policies.refresh().await.map_err(|error| ReadError::Unavailable(error.to_string()))?;
        }
        if let Some(stored) = stored.filter(|stored| self.is_servable(stored)) {
            return Ok(Cached::Priced(Arc::new(stored.entry)));
        }
        let entries = self.price_what_is_not_servable(&[product_id]).await.map_err(|error| match error {
            RepriceError::Catalogue(error) => read_error(&error),
            other => ReadError::Internal(other.to_string()),
        })?;
        entries.into_values().next().map(Cached::Priced).ok_or(ReadError::UnknownProduct)
    }

    /// Writes products, prices those that are new or changed, and serves the prices. At most [`WRITE_BATCH`].
    ///
    /// Goes on to the end even if the caller gives up waiting: what is stored has to be served.
    pub async fn put_products(
        &self,
        products: Vec<Product>,
        cause: &'static str,
    ) -> Result<PutSummary, RepriceError> {
        let repricer = self.clone();
        to_the_end(async move {
            let (summary, prices) = repricer.store_products(&products, cause).await?;
            repricer.serve(prices).await?;
            Ok(summary)
        })
        .await
    }

    /// [`put_products`](Self::put_products) that returns when the products are stored; their prices are then on the
    /// way to where they are served from.
    pub async fn put_products_early(
        &self,
        products: Vec<Product>,
        cause: &'static str,
    ) -> Result<(PutSummary, JoinHandle<Result<(), RepriceError>>), RepriceError> {
        let repricer = self.clone();
        to_the_end(async move {
            let (summary, prices) = repricer.store_products(&products, cause).await?;
            let serving = tokio::spawn(async move { repricer.serve(prices).await });
            Ok((summary, serving))
        })
        .await
    }

    async fn store_products(
        &self,
        products: &[Product],
        cause: &str,
    ) -> Result<(PutSummary, StoredPrices), RepriceError> {
        let ids: Vec<ProductId> = products.iter().map(|product| product.product_id.clone()).collect();
        let mut transaction = self.catalogue.begin().await?;
        let known = transaction.lock_products(&ids).await?;
        let (summary, changed) = compare(&known, products);
        transaction.put_products(&changed, Utc::now()).await?;
        let changed: HashSet<&ProductId> = changed.iter().map(|product| &product.product_id).collect();
        let needs_price = |facts: &StoredFacts| changed.contains(&facts.product.product_id);
        let entries = self.price_in(&mut transaction, &ids, needs_price, cause).await?;
        transaction.commit().await?;
        let known: HashSet<&ProductId> = known.iter().map(|product| &product.product_id).collect();
        let prices = entries.into_iter().map(|(product_id, entry)| (product_id, Cached::Priced(entry)));
        let (updated, others) =
            prices.partition(|(product_id, _)| known.contains(product_id) && changed.contains(product_id));
        Ok((summary, StoredPrices { updated, others }))
    }

    async fn serve(&self, prices: StoredPrices) -> Result<(), RepriceError> {
        self.serve_all(prices.updated, PutMode::Insert).await?;
        self.serve_all(prices.others, PutMode::Replace).await
    }

    /// Puts what is stored where it is served from. If Redis does not take it, that is tried again until it does or
    /// until what Redis holds instead has expired; the error says that the caller was not waiting for it.
    async fn serve_all(&self, products: Vec<(ProductId, Cached)>, mode: PutMode) -> Result<(), RepriceError> {
        let Err(error) = self.cache.put_all(&products, mode).await else { return Ok(()) };
        let cache = self.cache.clone();
        tokio::spawn(async move {
            let given_up_at = tokio::time::Instant::now() + PRICE_TTL;
            while tokio::time::Instant::now() < given_up_at {
                tokio::time::sleep(SERVE_RETRY_PAUSE).await;
                if cache.put_all(&products, PutMode::Insert).await.is_ok() {
                    return;
                }
            }
        });
        Err(error.into())
    }

    /// What [`put_products`](Self::put_products) would do, without doing it.
    pub async fn compare_products(&self, products: &[Product]) -> Result<PutSummary, RepriceError> {
        let ids: Vec<ProductId> = products.iter().map(|product| product.product_id.clone()).collect();
        let mut transaction = self.catalogue.begin().await?;
        let (summary, _) = compare(&transaction.lock_products(&ids).await?, products);
        Ok(summary)
    }

    /// Removes a product and its price everywhere; whether it was there.
    pub async fn delete_product(
        &self,
        product_id: ProductId,
        cause: &'static str,
    ) -> Result<bool, RepriceError> {
        let repricer = self.clone();
        to_the_end(async move { repricer.delete_and_tell(product_id, cause).await }).await
    }

    async fn delete_and_tell(&self, product_id: ProductId, cause: &str) -> Result<bool, RepriceError> {
        let mut transaction = self.catalogue.begin().await?;
        let locked = transaction.lock_products(std::slice::from_ref(&product_id)).await?;
        let removal = if locked.is_empty() {
            drop(transaction);
            // A first try may have died before the caches were told. Only a removal that was recorded is told again:
            // with a revision of its own it would win over a product that is being created at this moment.
            let newest = self.catalogue.price_changes(&product_id, 1).await?.pop();
            newest.filter(|change| change.new_list_price.is_none()).map(|change| change.revision)
        } else {
            let revision = transaction.next_revisions(1).await?.pop();
            if let Some(revision) = revision {
                transaction.delete_product(&product_id, revision, cause, Utc::now()).await?;
            }
            transaction.commit().await?;
            revision
        };
        if let Some(revision) = removal {
            self.serve_all(vec![(product_id, Cached::Gone { revision })], PutMode::Insert).await?;
        }
        Ok(!locked.is_empty())
    }

    async fn price_what_is_not_servable(
        &self,
        ids: &[ProductId],
    ) -> Result<HashMap<ProductId, Arc<PriceEntry>>, RepriceError> {
        let mut transaction = self.catalogue.begin().await?;
        let entries = self.price_in(&mut transaction, ids, |_| false, "fill").await?;
        transaction.commit().await?;
        Ok(entries)
    }

    /// Whether a stored price may be served as it is.
    fn is_servable(&self, stored: &StoredPrice) -> bool {
        stored.entry.is_valid(Utc::now()) && self.policies.knows(stored.entry.policy_version)
    }

    /// Prices the products that `needs_price`, and those without a price that may be served. Gives the entries of
    /// all, as they will be after the transaction.
    async fn price_in(
        &self,
        transaction: &mut CatalogueTransaction,
        ids: &[ProductId],
        needs_price: impl Fn(&StoredFacts) -> bool,
        cause: &str,
    ) -> Result<HashMap<ProductId, Arc<PriceEntry>>, RepriceError> {
        let stored = transaction.lock_facts(ids).await?;
        // Not before: the wait for the locks may have been long.
        let now = Utc::now();
        let policy = self.policy_for(&stored).await?;
        let mut entries = HashMap::with_capacity(ids.len());
        let mut changed = Vec::new();
        for facts in &stored {
            match &facts.price {
                Some(price) if self.is_servable(price) && !needs_price(facts) => {
                    entries.insert(price.entry.product_id.clone(), Arc::new(price.entry.clone()));
                }
                _ => {
                    let computed = compute(facts, &policy, now);
                    self.count(computed.list_price.explanation.outcome);
                    if computed.changed {
                        changed.push(computed);
                    } else {
                        entries.insert(computed.entry.product_id.clone(), Arc::new(computed.entry));
                    }
                }
            }
        }
        let revisions = transaction.next_revisions(changed.len()).await?;
        let mut writes = Vec::with_capacity(changed.len());
        for (mut computed, revision) in changed.into_iter().zip(revisions) {
            computed.entry.revision = revision;
            writes.push(computed.write(cause, now)?);
            entries.insert(computed.entry.product_id.clone(), Arc::new(computed.entry));
        }
        transaction.write_prices(&writes).await?;
        Ok(entries)
    }

    /// The current policy, no older than that of any stored price: no product goes back to an earlier version.
    async fn policy_for(&self, stored: &[StoredFacts]) -> Result<Arc<PricingPolicy>, RepriceError> {
        let newest = stored
            .iter()
            .filter_map(|facts| facts.price.as_ref())
            .map(|price| price.entry.policy_version)
            .max();
        if newest.is_some_and(|newest| newest > self.policies.snapshot().current().version) {
            self.policies.refresh().await?;
        }
        Ok(Arc::clone(self.policies.snapshot().current()))
    }

    fn count(&self, outcome: Outcome) {
        match outcome {
            Outcome::Priced => self.metrics.prices_made.increment(1),
            Outcome::Frozen => self.metrics.prices_frozen.increment(1),
        }
    }
}

/// Runs work that has to come to its end once it has begun, whoever stops waiting for it.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, RepriceError>> + Send + 'static,
) -> Result<T, RepriceError> {
    tokio::spawn(work).await.map_err(|_| RepriceError::Interrupted)?
}

/// A product's new price beside the stored one.
struct Computed<'a> {
    list_price: ListPrice<'a>,
    /// The new entry, with the stored revision until it gets its own.
    entry: PriceEntry,
    previous: Option<Previous>,
    /// For the history; absent if it was in another currency.
    old_list_price: Option<Decimal>,
    changed: bool,
}

fn compute<'a>(stored: &'a StoredFacts, policy: &'a PricingPolicy, now: DateTime<Utc>) -> Computed<'a> {
    let same_terms = |price: &&StoredPrice| {
        (price.entry.currency, price.entry.base_price) == (stored.product.currency, stored.product.base_price)
    };
    // A new base price is the seller's decision, not a move of the market: nothing holds it back.
    let previous = stored.price.as_ref().filter(same_terms).map(|price| previous(price, now));
    let facts = Facts { product: &stored.product, signals: &stored.signals, previous };
    let list_price = price(&facts, policy, now);
    let product = &stored.product;
    let entry = PriceEntry {
        product_id: product.product_id.clone(),
        category: product.category.as_deref().map(Into::into),
        currency: product.currency,
        base_price: product.base_price,
        list_price: list_price.amount,
        lowest: list_price.limits.lowest,
        highest: list_price.limits.highest,
        policy_version: policy.version,
        revision: stored.price.as_ref().map_or(0, |price| price.entry.revision),
        valid_until: list_price.valid_until,
    };
    let changed = stored.price.as_ref().is_none_or(|price| price.entry != entry);
    let old_list_price = stored
        .price
        .as_ref()
        .filter(|price| price.entry.currency == product.currency)
        .map(|price| price.entry.list_price);
    Computed { list_price, entry, previous, old_list_price, changed }
}

impl Computed<'_> {
    fn write(&self, cause: &str, now: DateTime<Utc>) -> Result<PriceWrite, serde_json::Error> {
        Ok(PriceWrite {
            entry: self.entry.clone(),
            opening_price: self.previous.map_or(self.entry.list_price, |previous| previous.opening_price),
            opened_on: now.date_naive(),
            explanation: serde_json::to_string(&self.list_price.explanation)?,
            previous_list_price: self.old_list_price,
            cause: cause.to_owned(),
            priced_at: now,
        })
    }
}

/// The price until now; on a new day, the day opens with it.
fn previous(stored: &StoredPrice, now: DateTime<Utc>) -> Previous {
    let list_price = stored.entry.list_price;
    let same_day = stored.opened_on == now.date_naive();
    Previous { list_price, opening_price: if same_day { stored.opening_price } else { list_price } }
}

/// Which of the products are new or differ from the stored ones.
fn compare(stored: &[Product], products: &[Product]) -> (PutSummary, Vec<Product>) {
    let stored: HashMap<&ProductId, &Product> =
        stored.iter().map(|product| (&product.product_id, product)).collect();
    let mut summary = PutSummary::default();
    let mut changed = Vec::new();
    for product in products {
        match stored.get(&product.product_id) {
            None => summary.created += 1,
            Some(known) if *known != product => summary.updated += 1,
            Some(_) => {
                summary.unchanged += 1;
                continue;
            }
        }
        changed.push(product.clone());
    }
    (summary, changed)
}

fn read_error(error: &CatalogueError) -> ReadError {
    if error.is_transient() {
        ReadError::Unavailable(error.to_string())
    } else {
        ReadError::Internal(error.to_string())
    }
}
