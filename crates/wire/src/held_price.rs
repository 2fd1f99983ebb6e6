//! Prices that limits on moves hold back.

use chrono::{DateTime, Utc};
use pricing_domain::pricing::{explanation, held_prices};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::amount;

/// What a limit on moves holds back of one price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HeldPrice {
    /// The limit: `max_step`, `max_daily_move`, `min_time_between_changes` or `competitor_loop`; of several,
    /// the last that applied.
    #[schema(example = "max_step")]
    pub by: String,
    /// The target: the price that rules, floors, ceilings and the minor unit give, before endings.
    #[serde(with = "amount")]
    #[schema(value_type = f64)]
    pub target: Decimal,
    /// When the list price next moves without another cause; null if only a fact, the product or the policy
    /// moves it.
    #[serde(default)]
    #[schema(required)]
    pub continues_at: Option<DateTime<Utc>>,
    /// When it reaches the target, if nothing else changes; null if it stays short of it.
    #[serde(default)]
    #[schema(required)]
    pub reaches_target_at: Option<DateTime<Utc>>,
}

/// The prices that one limit on moves holds back. A distance is what is left of the way to the target, up or
/// down, in percent of the list price. Without a simulation, only the number of products is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HeldPrices {
    /// The limit.
    #[schema(example = "max_step")]
    pub limit: String,
    /// The number of products.
    pub products: u64,
    /// The largest distance.
    #[serde(default, with = "amount::optional")]
    #[schema(value_type = Option<f64>, required)]
    pub largest_distance_percent: Option<Decimal>,
    /// The median distance; for an even number, the mean of the middle two.
    #[serde(default, with = "amount::optional")]
    #[schema(value_type = Option<f64>, required)]
    pub median_distance_percent: Option<Decimal>,
    /// When the first of these prices next moves without another cause; null if none does.
    #[serde(default)]
    #[schema(required)]
    pub continues_at: Option<DateTime<Utc>>,
    /// When the last of those that reach their target does; null if none does.
    #[serde(default)]
    #[schema(required)]
    pub reaches_target_at: Option<DateTime<Utc>>,
    /// The number of products whose price never reaches its target without another cause.
    #[serde(default)]
    #[schema(required)]
    pub products_that_stay: Option<u64>,
}

/// The part of a recorded explanation that says what is held back. The domain writes it.
#[derive(Debug, Clone, Deserialize)]
pub struct RecordedHold {
    /// What a limit holds back, if one does.
    pub held: Option<HeldPrice>,
}

impl HeldPrices {
    /// The prices that are held now, of which no more is known.
    pub fn counted(limit: String, products: u64) -> Self {
        Self {
            limit,
            products,
            largest_distance_percent: None,
            median_distance_percent: None,
            continues_at: None,
            reaches_target_at: None,
            products_that_stay: None,
        }
    }
}

impl From<explanation::HeldPrice> for HeldPrice {
    fn from(held: explanation::HeldPrice) -> Self {
        let explanation::HeldPrice { by, target, continues_at, reaches_target_at } = held;
        Self { by: by.name().to_owned(), target, continues_at, reaches_target_at }
    }
}

impl From<held_prices::HeldByLimit> for HeldPrices {
    fn from(held: held_prices::HeldByLimit) -> Self {
        Self {
            limit: held.limit.name().to_owned(),
            products: held.products,
            largest_distance_percent: Some(held.largest_distance_percent),
            median_distance_percent: Some(held.median_distance_percent),
            continues_at: held.continues_at,
            reaches_target_at: held.reaches_target_at,
            products_that_stay: Some(held.products_that_stay),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_domain_records_is_read() {
        for (json, expected) in [
            (
                r#"{"held":{"by":"max_step","target":50.00,"continues_at":"2026-11-23T13:05:00Z","reaches_target_at":null},"steps":[]}"#,
                r#"{"by":"max_step","target":50.00,"continues_at":"2026-11-23T13:05:00Z","reaches_target_at":null}"#,
            ),
            (r#"{"steps":[]}"#, "null"),
        ] {
            let recorded: RecordedHold = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&recorded.held).unwrap(), expected);
        }
    }
}
