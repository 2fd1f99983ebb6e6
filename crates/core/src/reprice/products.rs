//! Products put and removed: by people, by imports.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::Utc;
use serde::Serialize;

use super::{Batch, RepriceError, Repricer, Served, to_the_end};
use crate::cache::{Cached, PutMode};
use crate::catalogue::{ProductRows, StoredFacts};
use crate::domain::product::{Product, ProductId};

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

/// Products to be put: each once, in the order of their identifiers, and written out.
pub struct PreparedProducts {
    products: Vec<Product>,
    rows: ProductRows,
}

impl PreparedProducts {
    /// Prepares products to be put; of two with the same identifier the later one.
    pub fn of(mut products: Vec<Product>) -> Result<Self, RepriceError> {
        products.sort_by(|one, other| one.product_id.cmp(&other.product_id));
        products.dedup_by(|later, kept| {
            let is_repeated = later.product_id == kept.product_id;
            if is_repeated {
                std::mem::swap(later, kept);
            }
            is_repeated
        });
        let rows = ProductRows::of(&products)?;
        Ok(Self { products, rows })
    }

    /// Their identifiers, in order.
    pub fn ids(&self) -> Vec<ProductId> {
        self.products.iter().map(|product| product.product_id.clone()).collect()
    }
}

/// Prices that are stored and not yet served.
pub struct StoredPrices {
    /// Of products that had another one before: a fill may be on its way with that one.
    updated: Vec<Served>,
    /// Of new products, and those that stayed. Put only over older ones, which a crash or a removal left behind.
    others: Vec<Served>,
}

impl Repricer {
    /// Writes products, prices those that are new or changed, and serves the prices. At most
    /// [`WRITE_BATCH`](super::WRITE_BATCH).
    ///
    /// Goes on to the end even if the caller gives up waiting: what is stored has to be served.
    pub async fn put_products(
        &self,
        products: Vec<Product>,
        cause: &'static str,
    ) -> Result<PutSummary, RepriceError> {
        let repricer = self.clone();
        to_the_end(async move {
            let products = PreparedProducts::of(products)?;
            let (summary, prices) = repricer.store_products(products, cause).await?;
            repricer.serve_stored(prices).await?;
            Ok(summary)
        })
        .await
    }

    /// What [`put_products`](Self::put_products) would do, without doing it.
    pub async fn compare_products(&self, products: &[Product]) -> Result<PutSummary, RepriceError> {
        let ids: Vec<ProductId> = products.iter().map(|product| product.product_id.clone()).collect();
        let mut transaction = self.catalogue.begin().await?;
        let stored = transaction.lock_products(&ids).await?;
        Ok(compare(stored, products).summary)
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

    /// The first half of [`put_products`](Self::put_products), for whoever sees to it that the second one follows. All of
    /// them in one transaction, however many.
    pub async fn store_products(
        &self,
        products: PreparedProducts,
        cause: &'static str,
    ) -> Result<(PutSummary, StoredPrices), RepriceError> {
        let ids = products.ids();
        let PreparedProducts { products, mut rows } = products;
        let mut transaction = self.catalogue.begin().await?;
        let stored = transaction.lock_products(&ids).await?;
        let Comparison { summary, differences, in_other_currency } = compare(stored, &products);
        let differences = Arc::new(differences);
        if !in_other_currency.is_empty() {
            transaction.forget_amounts(&in_other_currency).await?;
        }
        if summary.unchanged > 0 {
            rows.retain(|product_id| differences.contains_key(product_id));
        }
        let batch = Batch::put(products, rows);
        let needs_price = {
            let differences = Arc::clone(&differences);
            move |facts: &StoredFacts| differences.contains_key(&facts.product.product_id)
        };
        let served = self.price_in(&mut transaction, batch, needs_price, move |_| cause.to_owned()).await?;
        transaction.commit().await?;
        let is_updated = |served: &Served| differences.get(&served.product_id) == Some(&Difference::Updated);
        let (updated, others) = served.into_iter().partition(is_updated);
        Ok((summary, StoredPrices { updated, others }))
    }

    /// The second half of [`put_products`](Self::put_products).
    pub async fn serve_stored(&self, prices: StoredPrices) -> Result<(), RepriceError> {
        self.serve(prices.updated, PutMode::Insert).await?;
        self.serve(prices.others, PutMode::Replace).await
    }

    async fn delete_and_tell(&self, product_id: ProductId, cause: &str) -> Result<bool, RepriceError> {
        let mut transaction = self.catalogue.begin().await?;
        let locked = transaction.lock_products(std::slice::from_ref(&product_id)).await?;
        if locked.is_empty() {
            drop(transaction);
        } else {
            if let Some(revision) = transaction.next_revisions(1).await?.pop() {
                transaction.delete_product(&product_id, revision, cause, Utc::now()).await?;
            }
            transaction.commit().await?;
        }
        // Out of the history, as a first try may have died before the caches were told. Only a removal that was
        // recorded is told again: with a revision of its own it would win over a product that is being created at
        // this moment.
        let newest = self.catalogue.price_changes(&product_id, 1).await?.pop();
        if let Some(removal) = newest.filter(|change| change.new_list_price.is_none()) {
            let cached = Cached::Gone { revision: removal.revision };
            let gone =
                Served { product_id, cached, is_written: true, is_frozen: false, change: Some(removal) };
            self.serve(vec![gone], PutMode::Insert).await?;
        }
        Ok(!locked.is_empty())
    }
}

/// How a product differs from the stored one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Difference {
    /// There is none.
    Created,
    /// There is another one.
    Updated,
}

/// Products beside the stored ones.
struct Comparison {
    summary: PutSummary,
    /// Those that differ, and how.
    differences: HashMap<ProductId, Difference>,
    /// Those that were in another currency.
    in_other_currency: Vec<ProductId>,
}

fn compare(stored: Vec<Product>, products: &[Product]) -> Comparison {
    let stored: HashMap<ProductId, Product> =
        stored.into_iter().map(|product| (product.product_id.clone(), product)).collect();
    let mut summary = PutSummary::default();
    let (mut differences, mut in_other_currency) = (HashMap::new(), Vec::new());
    for product in products {
        let difference = match stored.get(&product.product_id) {
            None => {
                summary.created += 1;
                Difference::Created
            }
            Some(known) if known != product => {
                summary.updated += 1;
                if known.currency != product.currency {
                    in_other_currency.push(product.product_id.clone());
                }
                Difference::Updated
            }
            Some(_) => {
                summary.unchanged += 1;
                continue;
            }
        };
        differences.insert(product.product_id.clone(), difference);
    }
    Comparison { summary, differences, in_other_currency }
}
