//! Products put and removed: by people, by imports.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::Utc;
use serde::Serialize;
use tokio::task::JoinHandle;

use super::{Batch, RepriceError, Repricer, Served, to_the_end};
use crate::cache::{Cached, PutMode};
use crate::catalogue::StoredFacts;
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

/// Prices that are stored and not yet served.
struct StoredPrices {
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
            let (summary, prices) = repricer.store_products(products, cause).await?;
            repricer.serve_stored(prices).await?;
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
            let (summary, prices) = repricer.store_products(products, cause).await?;
            let serving = tokio::spawn(async move { repricer.serve_stored(prices).await });
            Ok((summary, serving))
        })
        .await
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

    async fn store_products(
        &self,
        products: Vec<Product>,
        cause: &str,
    ) -> Result<(PutSummary, StoredPrices), RepriceError> {
        // In the order of their keys, and of two of the same product the later one.
        let products: BTreeMap<ProductId, Product> =
            products.into_iter().map(|product| (product.product_id.clone(), product)).collect();
        let (ids, products): (Vec<ProductId>, Vec<Product>) = products.into_iter().unzip();
        let mut transaction = self.catalogue.begin().await?;
        let known = transaction.lock_products(&ids).await?;
        let (summary, changed) = compare(&known, &products);
        transaction.put_products(&changed, Utc::now()).await?;
        let changed: HashSet<ProductId> = changed.into_iter().map(|product| product.product_id).collect();
        let batch = Batch::held(&products);
        let needs_price = |facts: &StoredFacts| changed.contains(&facts.product.product_id);
        let served = self.price_in(&mut transaction, batch, needs_price, |_| cause.to_owned()).await?;
        transaction.commit().await?;
        let known: HashSet<&ProductId> = known.iter().map(|product| &product.product_id).collect();
        let (updated, others) = served
            .into_iter()
            .partition(|served| known.contains(&served.product_id) && changed.contains(&served.product_id));
        Ok((summary, StoredPrices { updated, others }))
    }

    async fn serve_stored(&self, prices: StoredPrices) -> Result<(), RepriceError> {
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
