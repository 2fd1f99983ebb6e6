//! The price of a product until now, and how it came about.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::facts::instant::{as_instant, as_optional_instant};
use crate::facts::money::as_json_number;
use crate::facts::product::amount_from_json;

/// The price of a product until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// The list price in effect.
    #[serde(serialize_with = "as_json_number", deserialize_with = "amount_from_json")]
    pub list_price: Decimal,
    /// The list price at the start of the day (UTC), or the day's first.
    #[serde(serialize_with = "as_json_number", deserialize_with = "amount_from_json")]
    pub opening_price: Decimal,
    /// When the list price became what it is.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "as_optional_instant")]
    pub changed_at: Option<DateTime<Utc>>,
    /// How the last changes came about, if because of competitors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streak: Option<Streak>,
}

/// Changes in one direction, one after another, all of them because of competitors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streak {
    /// How many; below zero if downwards.
    pub moves: i32,
    /// When the first one was.
    #[serde(serialize_with = "as_instant")]
    pub since: DateTime<Utc>,
}
