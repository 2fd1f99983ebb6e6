//! The current price of a product, and its recent changes.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::facts::instant::{as_instant, as_optional_instant};
use crate::facts::money::as_json_number;
use crate::facts::product::amount_from_json;

/// The current price of a product, before it is re-priced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// The list price in effect.
    #[serde(serialize_with = "as_json_number", deserialize_with = "amount_from_json")]
    pub list_price: Decimal,
    /// The list price at the start of the day (UTC), or the first price of the day.
    #[serde(serialize_with = "as_json_number", deserialize_with = "amount_from_json")]
    pub opening_price: Decimal,
    /// When the list price was last changed.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "as_optional_instant")]
    pub changed_at: Option<DateTime<Utc>>,
    /// The streak of changes caused by competitors, if the latest change belongs to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streak: Option<Streak>,
}

/// Consecutive changes in one direction, all caused by competitors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streak {
    /// The number of changes; negative if downwards.
    pub moves: i32,
    /// When the first change was made.
    #[serde(serialize_with = "as_instant")]
    pub since: DateTime<Utc>,
}
