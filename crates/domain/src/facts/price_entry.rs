//! A list price ready to be served.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::facts::instant::as_optional_instant;
use crate::facts::limits::Limits;
use crate::facts::money::Currency;
use crate::facts::product::ProductId;

/// A list price ready to be served: what the caches hold, and what a quote starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceEntry {
    /// The product.
    pub product_id: ProductId,
    /// Its category, which offer rules may ask for.
    pub category: Option<Arc<str>>,
    /// The currency of the amounts.
    pub currency: Currency,
    /// The product's base price.
    pub base_price: Decimal,
    /// The list price.
    pub list_price: Decimal,
    /// No shopper pays less.
    pub lowest: Option<Decimal>,
    /// No shopper pays more, unless `lowest` demands it.
    pub highest: Option<Decimal>,
    /// The policy that it was computed by and that quotes from it use.
    pub policy_version: i64,
    /// Grows with every change of the entry: a newer one is never replaced by an older one.
    pub revision: i64,
    /// The entry may not be served from this instant on.
    #[serde(serialize_with = "as_optional_instant")]
    pub valid_until: Option<DateTime<Utc>>,
}

impl PriceEntry {
    /// Whether the entry may be served now.
    pub fn is_valid(&self, now: DateTime<Utc>) -> bool {
        self.valid_until.is_none_or(|valid_until| now < valid_until)
    }

    /// The limits as guardrails use them.
    pub fn limits(&self) -> Limits {
        Limits { lowest: self.lowest, highest: self.highest }
    }
}
