//! Compares the prices that are served with those that are stored.
//!
//! The caches replace an entry only by a newer revision, so whatever puts a wrong entry into Redis or into
//! memory would be served until it expires. This finds such entries; it changes none.

use std::collections::HashMap;
use std::time::Duration;

use rust_decimal::Decimal;

use super::{Engine, EngineError};
use crate::cache::{Cached, HeldPrice, Now};
use crate::store::StoredPrice;
use pricing_domain::facts::product::ProductId;

/// Products compared at a time, at most.
pub const MAX_COMPARED: u32 = 1_000;

/// The time after which a difference is looked at again. A price that was just stored is on its way to Redis,
/// and one whose process died is put there by another three seconds later.
const CONFIRM_AFTER: Duration = Duration::from_secs(3);

/// A page of the comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// The stored prices that were compared.
    pub compared: usize,
    /// The differences, by product.
    pub differences: Vec<PriceDifference>,
    /// The product after which the next page begins; `None` after the last page.
    pub next_after: Option<ProductId>,
}

/// A price that is served and is not the stored one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceDifference {
    /// The product.
    pub product_id: ProductId,
    /// Where the served price is.
    pub place: Place,
    /// The revision of what is served.
    pub served_revision: i64,
    /// The revision of the stored price.
    pub stored_revision: i64,
    /// The list price that is served; `None` if the product is served as one that does not exist.
    pub served_list_price: Option<Decimal>,
    /// The stored list price.
    pub stored_list_price: Decimal,
}

/// Where a served price is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the memory of this process.
    Memory,
    /// In Redis.
    Redis,
}

/// An entry that differs from the stored price.
struct Found {
    difference: PriceDifference,
    served: Cached,
}

impl Engine {
    /// Compares the stored prices of at most [`MAX_COMPARED`] products after the given one with what the
    /// memory of this process and Redis hold and would serve; an absent or expired entry is no difference.
    /// Differences are looked at a second time, three seconds later: only those are returned whose entry is
    /// still the same and still not the stored price.
    pub async fn compare_prices(
        &self,
        after: Option<&ProductId>,
        limit: u32,
    ) -> Result<Comparison, EngineError> {
        let limit = limit.min(MAX_COMPARED);
        let ids = self.store.product_ids(after, limit).await?;
        let is_last = u32::try_from(ids.len()).is_ok_and(|read| read < limit);
        let (compared, suspected) = self.find_differences(&ids).await?;
        let differences = if suspected.is_empty() { Vec::new() } else { self.confirm(suspected).await? };
        Ok(Comparison { compared, differences, next_after: ids.last().filter(|_| !is_last).cloned() })
    }

    /// Returns how many of these products have a stored price, and the differences.
    async fn find_differences(&self, ids: &[ProductId]) -> Result<(usize, Vec<Found>), EngineError> {
        let stored = self.store.stored_prices(ids).await?;
        let priced: Vec<&ProductId> = stored.iter().map(|price| &price.entry.product_id).collect();
        let held = self.cache.held(&priced, Now::read(&self.clock)).await?;
        let policies = self.policies.snapshot();
        let is_served = |cached: &Cached| match cached {
            Cached::Priced(entry) => {
                entry.is_valid(self.clock.now()) && policies.policy(entry.policy_version).is_some()
            }
            Cached::Gone { .. } => true,
        };
        let pairs = stored.iter().zip(held);
        let found = pairs.flat_map(|(stored, HeldPrice { memory, redis })| {
            let places = [(Place::Memory, memory), (Place::Redis, redis)];
            let served = places.map(|(place, held)| Some((place, held.filter(&is_served)?)));
            served.into_iter().flatten().filter_map(|(place, served)| difference(stored, place, served))
        });
        Ok((stored.len(), found.collect()))
    }

    /// Looks at differences again.
    async fn confirm(&self, suspected: Vec<Found>) -> Result<Vec<PriceDifference>, EngineError> {
        tokio::time::sleep(CONFIRM_AFTER).await;
        let mut ids: Vec<ProductId> =
            suspected.iter().map(|found| found.difference.product_id.clone()).collect();
        ids.dedup();
        let key =
            |found: &Found| (found.difference.product_id.clone(), found.difference.place == Place::Memory);
        let before: HashMap<_, Cached> =
            suspected.iter().map(|found| (key(found), found.served.clone())).collect();
        let (_, again) = self.find_differences(&ids).await?;
        let confirmed = again.into_iter().filter(|found| before.get(&key(found)) == Some(&found.served));
        Ok(confirmed.map(|found| found.difference).collect())
    }
}

/// The difference between a stored price and an entry that is served, if there is one.
fn difference(stored: &StoredPrice, place: Place, served: Cached) -> Option<Found> {
    let served_list_price = match &served {
        Cached::Priced(entry) if **entry == stored.entry => return None,
        Cached::Priced(entry) => Some(entry.list_price),
        Cached::Gone { .. } => None,
    };
    let difference = PriceDifference {
        product_id: stored.entry.product_id.clone(),
        place,
        served_revision: served.revision(),
        stored_revision: stored.entry.revision,
        served_list_price,
        stored_list_price: stored.entry.list_price,
    };
    Some(Found { difference, served })
}
