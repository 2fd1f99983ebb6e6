//! Adds, changes and removes products, for single requests and imports.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::pieces::{Batch, PricedBatch};
use super::recorded::{Attribution, removal};
use super::{Engine, EngineError, EventMoves, PublishedPrice, detached};
use crate::cache::PutMode;
use crate::store::{ProductRows, Readable, StoreError, StoreTransaction, StoredFacts, TIME, Unserved};
use pricing_domain::expression::variable::Variable;
use pricing_domain::facts::money::Currency;
use pricing_domain::facts::product::{Product, ProductId};
use pricing_domain::facts::product_tag::OnlyIf;
use pricing_domain::policy::PricingPolicy;
use pricing_domain::pricing::simulation::SimulatedPrice;

/// The effect of a batch of products on the catalogue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PutSummary {
    /// The number of new products.
    pub created: u64,
    /// The number of changed products.
    pub updated: u64,
    /// The number of unchanged products.
    pub unchanged: u64,
    /// Products that lost a cost or a bound.
    pub lost: Vec<LostBounds>,
    /// The prices of the changed and unchanged products whose list price moves, and of those that are frozen;
    /// the others do not move.
    pub moves: Vec<SimulatedPrice>,
}

/// A bound of a product's price; the unit cost is one unless a floor is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// See [`Product::unit_cost`].
    UnitCost,
    /// See [`Product::floor_price`].
    FloorPrice,
    /// See [`Product::ceiling_price`].
    CeilingPrice,
    /// See [`Product::minimum_advertised_price`].
    MinimumAdvertisedPrice,
}

/// The bounds that a product lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostBounds {
    /// The product.
    pub product_id: ProductId,
    /// The lost bounds.
    pub bounds: Vec<Bound>,
}

impl Bound {
    /// Returns the bounds that `known` has and `next` lacks.
    fn lost(known: &Product, next: &Product) -> Vec<Self> {
        let bounds = [
            (Self::UnitCost, known.unit_cost, next.unit_cost),
            (Self::FloorPrice, known.floor_price, next.floor_price),
            (Self::CeilingPrice, known.ceiling_price, next.ceiling_price),
            (Self::MinimumAdvertisedPrice, known.minimum_advertised_price, next.minimum_advertised_price),
        ];
        let lost = bounds.into_iter().filter(|(_, known, next)| known.is_some() && next.is_none());
        lost.map(|(bound, ..)| bound).collect()
    }
}

/// Products to be upserted: unique, ordered by identifier, and encoded.
pub struct PreparedProducts {
    products: Vec<Product>,
    rows: ProductRows,
    stated_at: DateTime<Utc>,
}

impl PreparedProducts {
    /// Prepares the products of a request that states their costs as of this instant; of two with the same
    /// identifier, the later one is kept.
    pub fn of(products: Vec<Product>, stated_at: DateTime<Utc>) -> Result<Self, EngineError> {
        let products = in_order(products, stated_at);
        let rows = ProductRows::of(&products)?;
        Ok(Self { products, rows, stated_at })
    }

    /// Returns the identifiers, in order.
    pub fn ids(&self) -> Vec<ProductId> {
        self.products.iter().map(|product| product.product_id.clone()).collect()
    }
}

/// Prices that are stored but not yet served.
pub struct StoredPrices {
    /// Prices that replaced another one, which a fill in flight may still hold.
    updated: Vec<PublishedPrice>,
    /// Prices of new products, and unchanged ones. They only replace older entries, left by a crash or a
    /// removal.
    others: Vec<PublishedPrice>,
    unserved: Unserved,
}

impl Engine {
    /// Writes products, prices those that are new or changed, and serves the prices. At most
    /// [`WRITE_BATCH`](super::WRITE_BATCH). They are recorded as the engine's own.
    ///
    /// The work is completed even if the caller stops waiting: stored prices must be served.
    pub async fn put_products(
        &self,
        products: Vec<Product>,
        cause: &'static str,
    ) -> Result<PutSummary, EngineError> {
        let engine = self.clone();
        let stated_at = self.clock.now();
        detached(async move {
            let products = PreparedProducts::of(products, stated_at)?;
            let (summary, prices) = engine.store_products(products, &Attribution::engine(cause)).await?;
            engine.serve_stored(prices).await?;
            Ok(summary)
        })
        .await
    }

    /// [`put_products`](Self::put_products) for one product, on a condition; `None` if it does not hold. A
    /// product that is stored unchanged is accepted even if its tag no longer matches: the request is a retry
    /// whose response was lost.
    pub async fn put_product(
        &self,
        product: Product,
        only_if: OnlyIf,
        by: Attribution,
    ) -> Result<Option<PutSummary>, EngineError> {
        let engine = self.clone();
        detached(async move { engine.put_product_if(product, only_if, &by).await }).await
    }

    /// Removes a product and its price everywhere, on a condition.
    pub async fn delete_product(
        &self,
        product_id: ProductId,
        only_if: OnlyIf,
        by: Attribution,
    ) -> Result<Deletion, EngineError> {
        let engine = self.clone();
        detached(async move { engine.delete_and_publish(product_id, only_if, &by).await }).await
    }

    /// The first half of [`put_products`](Self::put_products), for callers that ensure that the second one
    /// follows. It is one transaction for any number of products.
    pub async fn store_products(
        &self,
        products: PreparedProducts,
        by: &Attribution,
    ) -> Result<(PutSummary, StoredPrices), EngineError> {
        let mut transaction = self.store.begin().await?;
        let stored = transaction.lock_products(&products.ids()).await?;
        self.store_locked(transaction, stored, products, by).await
    }

    /// Stores products, of which this transaction has locked the existing ones, and commits it.
    async fn store_locked(
        &self,
        mut transaction: StoreTransaction,
        stored: Readable<Product>,
        products: PreparedProducts,
        by: &Attribution,
    ) -> Result<(PutSummary, StoredPrices), EngineError> {
        let PreparedProducts { mut products, mut rows, stated_at } = products;
        keep_cost_statements(&stored.known, &mut products);
        let Comparison { mut summary, differences, mut in_other_currency } = compare(&stored, &products);
        let changed = products.iter().filter(|product| differences.contains_key(&product.product_id));
        let entry = by.entry(&stored.known, changed);
        let differences = Arc::new(differences);
        in_other_currency
            .extend(returned_in_other_currency(&mut transaction, &products, &differences).await?);
        if !in_other_currency.is_empty() {
            self.make_due_steps(&mut transaction, in_other_currency.iter().map(|(id, _)| id)).await?;
            transaction.forget_amounts(&in_other_currency, self.clock.now()).await?;
        }
        let restated = products
            .iter()
            .filter(|product| product.unit_cost.is_some() && !differences.contains_key(&product.product_id));
        let restated: Vec<&str> = restated.map(|product| product.product_id.as_str()).collect();
        if !restated.is_empty() {
            transaction.state_costs(&restated, stated_at).await?;
        }
        if summary.unchanged > 0 {
            rows.retain(|product_id| differences.contains_key(product_id));
        }
        let batch = Batch::put(products, rows);
        let needs_price = {
            let differences = Arc::clone(&differences);
            move |facts: &StoredFacts, policy: &PricingPolicy| needs_price(&differences, facts, policy)
        };
        let (kept, cause) = (EventMoves::Kept, Arc::clone(&by.cause));
        let PricedBatch { published, moves } = self
            .price_and_compare(&mut transaction, batch, kept, needs_price, move |_| (*cause).to_owned())
            .await?;
        if let Some(entry) = entry {
            transaction.record_change(&by.origin, &entry, self.clock.now()).await?;
        }
        let unserved = transaction.commit_prices().await?;
        summary.moves = moves;
        let is_updated = |published: &PublishedPrice| match differences.get(&published.product_id) {
            Some(difference) => *difference == Difference::Updated,
            // Without a difference, a restated cost may have changed the price.
            None => published.is_written,
        };
        let (updated, others) = published.into_iter().partition(is_updated);
        Ok((summary, StoredPrices { updated, others, unserved }))
    }

    /// The second half of [`put_products`](Self::put_products).
    pub async fn serve_stored(&self, prices: StoredPrices) -> Result<(), EngineError> {
        let StoredPrices { updated, others, unserved } = prices;
        self.put(updated, PutMode::Insert, unserved.catalogue(), None).await?;
        self.serve(others, PutMode::Replace, unserved).await
    }

    async fn put_product_if(
        &self,
        product: Product,
        only_if: OnlyIf,
        by: &Attribution,
    ) -> Result<Option<PutSummary>, EngineError> {
        let mut products = PreparedProducts::of(vec![product], self.clock.now())?;
        let mut transaction = self.store.begin().await?;
        let stored = transaction.lock_products(&products.ids()).await?;
        let is_identical = matches!(only_if, OnlyIf::IsOneOf(_)) && stored.known == products.products;
        if !holds(&only_if, &stored) {
            if !is_identical {
                return Ok(None);
            }
            // A retry whose response was lost: the price is served again, and the cost is not restated.
            let stated_at = stored.known.first().and_then(|known| known.cost_stated_at);
            products = PreparedProducts::of(products.products, stated_at.unwrap_or(DateTime::UNIX_EPOCH))?;
        }
        // A missing row cannot be locked, so another transaction may be adding the product.
        if only_if == OnlyIf::IsNew
            && transaction.add_products(products.rows.clone(), self.clock.now()).await? == 0
        {
            return Ok(None);
        }
        let (summary, prices) = self.store_locked(transaction, stored, products, by).await?;
        self.serve_stored(prices).await?;
        Ok(Some(summary))
    }

    /// Writes the steps of held prices that have fallen due, before the prices end.
    async fn make_due_steps(
        &self,
        transaction: &mut StoreTransaction,
        ids: impl Iterator<Item = &ProductId>,
    ) -> Result<(), EngineError> {
        let batch = Batch::named(ids);
        let due = self.price_in(transaction, batch, EventMoves::Kept, |_, _| false, |_| TIME.to_owned());
        match due.await {
            // Without the policy that holds them, steps cannot be computed; that must not keep a product.
            Ok(_) | Err(EngineError::PolicyUnknown { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn delete_and_publish(
        &self,
        product_id: ProductId,
        only_if: OnlyIf,
        by: &Attribution,
    ) -> Result<Deletion, EngineError> {
        let mut transaction = self.store.begin().await?;
        let locked = transaction.lock_products(std::slice::from_ref(&product_id)).await?;
        let is_unknown = locked.known.is_empty() && locked.left_out.is_empty();
        if !is_unknown {
            if !holds(&only_if, &locked) {
                return Ok(Deletion::Changed);
            }
            self.make_due_steps(&mut transaction, std::iter::once(&product_id)).await?;
            if let Some(revision) = transaction.next_revisions(1).await?.pop() {
                let now = self.clock.now();
                transaction.delete_product(&product_id, revision, &by.cause, now).await?;
                let entry = removal(locked.known.first(), &product_id);
                transaction.record_change(&by.origin, &entry, now).await?;
            }
        }
        let unserved = transaction.commit_prices().await?;
        // Read from the history, as an earlier attempt may have failed before it updated the caches. Only a
        // recorded removal is published again: a new revision would supersede a product that is being created
        // concurrently.
        let newest = self.store.price_changes(&product_id, 1).await?.pop();
        if let Some(removal) = newest.filter(|change| change.new_list_price.is_none()) {
            let gone = PublishedPrice::gone(product_id, removal);
            self.serve(vec![gone], PutMode::Insert, unserved).await?;
        }
        Ok(if is_unknown { Deletion::Unknown } else { Deletion::Done })
    }
}

/// The result of removing a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The product was removed.
    Done,
    /// There was no such product.
    Unknown,
    /// The condition does not hold; nothing was removed.
    Changed,
}

/// How a product differs from the stored one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Difference {
    /// No such product is stored.
    Created,
    /// The stored product differs.
    Updated,
}

/// A comparison of products with the stored ones.
pub(super) struct Comparison {
    pub(super) summary: PutSummary,
    /// The products that differ, and how.
    pub(super) differences: HashMap<ProductId, Difference>,
    /// The products whose currency changed, with the new currency.
    in_other_currency: Vec<(ProductId, Currency)>,
}

/// Whether a product that is stored is priced again, although its price may still be served.
pub(super) fn needs_price(
    differences: &HashMap<ProductId, Difference>,
    facts: &StoredFacts,
    policy: &PricingPolicy,
) -> bool {
    // A restated cost may replace an event's, and has a new age.
    differences.contains_key(&facts.product.product_id)
        || facts.has_replaced_cost
        || facts.product.unit_cost.is_some() && policy.reads(Variable::CostAge)
}

/// Orders the products of a request that states their costs as of this instant; of two with the same
/// identifier, the later one is kept.
pub(super) fn in_order(products: Vec<Product>, stated_at: DateTime<Utc>) -> Vec<Product> {
    let mut products: Vec<Product> =
        products.into_iter().map(|product| product.stated_at(stated_at)).collect();
    products.sort_by(|one, other| one.product_id.cmp(&other.product_id));
    products.dedup_by(|later, kept| {
        let is_repeated = later.product_id == kept.product_id;
        if is_repeated {
            std::mem::swap(later, kept);
        }
        is_repeated
    });
    products
}

/// Keeps the instant of the seller's latest cost statement monotonic: a row without a cost does not state
/// one, and a request that began earlier but ends later, such as a long import, is not a later statement.
pub(super) fn keep_cost_statements(stored: &[Product], products: &mut [Product]) {
    let last: HashMap<&ProductId, DateTime<Utc>> =
        stored.iter().filter_map(|known| Some((&known.product_id, known.cost_stated_at?))).collect();
    for product in products {
        product.cost_stated_at = product.cost_stated_at.max(last.get(&product.product_id).copied());
    }
}

/// Returns removed products that are added again in another currency, with the new currency.
async fn returned_in_other_currency(
    transaction: &mut StoreTransaction,
    products: &[Product],
    differences: &HashMap<ProductId, Difference>,
) -> Result<Vec<(ProductId, Currency)>, StoreError> {
    let created: Vec<&Product> = products
        .iter()
        .filter(|product| differences.get(&product.product_id) == Some(&Difference::Created))
        .collect();
    if created.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<ProductId> = created.iter().map(|product| product.product_id.clone()).collect();
    let last = transaction.last_currencies(&ids).await?;
    let is_another = |product: &&&Product| {
        last.get(&product.product_id).is_some_and(|last| *last != Some(product.currency))
    };
    let returned = created.iter().filter(is_another);
    Ok(returned.map(|product| (product.product_id.clone(), product.currency)).collect())
}

/// Whether the condition holds for the stored product, if any. An unreadable one exists, in an unknown state.
fn holds(only_if: &OnlyIf, stored: &Readable<Product>) -> bool {
    match stored.left_out.is_empty() {
        true => only_if.holds(stored.known.first()),
        false => matches!(only_if, OnlyIf::Always | OnlyIf::Exists),
    }
}

pub(super) fn compare(stored: &Readable<Product>, products: &[Product]) -> Comparison {
    let unreadable: HashSet<&ProductId> = stored.left_out.iter().map(|product| &product.product_id).collect();
    let stored: HashMap<&ProductId, &Product> =
        stored.known.iter().map(|product| (&product.product_id, product)).collect();
    let mut summary = PutSummary::default();
    let (mut differences, mut in_other_currency) = (HashMap::new(), Vec::new());
    for product in products {
        let difference = match stored.get(&product.product_id) {
            None if unreadable.contains(&product.product_id) => {
                summary.updated += 1;
                in_other_currency.push((product.product_id.clone(), product.currency));
                Difference::Updated
            }
            None => {
                summary.created += 1;
                Difference::Created
            }
            Some(known) if *known != product => {
                summary.updated += 1;
                let bounds = Bound::lost(known, product);
                if !bounds.is_empty() {
                    summary.lost.push(LostBounds { product_id: product.product_id.clone(), bounds });
                }
                if known.currency != product.currency {
                    in_other_currency.push((product.product_id.clone(), product.currency));
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
