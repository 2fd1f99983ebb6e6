//! A list price ready to be served.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::facts::instant::as_optional_instant;
use crate::facts::limits::Limits;
use crate::facts::money::Currency;
use crate::facts::product::ProductId;

/// A list price ready to be served: the cached value, and the start of a quote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceEntry {
    /// The product.
    pub product_id: ProductId,
    /// The product's category, which offer rules may read.
    pub category: Option<Arc<str>>,
    /// The currency of the amounts.
    pub currency: Currency,
    /// The product's base price.
    pub base_price: Decimal,
    /// The list price.
    pub list_price: Decimal,
    /// The lowest price for any shopper.
    pub lowest: Option<Decimal>,
    /// The highest price for any shopper, unless `lowest` is above it.
    pub highest: Option<Decimal>,
    /// The policy version that computed the price and that its quotes use.
    pub policy_version: i64,
    /// The revision, which grows with every change: a newer entry is never replaced by an older one.
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

    /// The limits of a shopper's price.
    pub fn limits(&self) -> Limits {
        Limits { lowest: self.lowest, highest: self.highest }
    }
}
