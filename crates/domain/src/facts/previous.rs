//! The current price of a product, and its recent changes.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::facts::instant::{as_instant, as_optional_instant};
use crate::facts::money::{as_json_number, as_optional_json_number};
use crate::facts::movement::Movement;
use crate::facts::product::{amount_from_json, optional_amount_from_json};

/// The current price of a product, before it is re-priced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Previous<'a> {
    /// The list price in effect.
    #[serde(serialize_with = "as_json_number")]
    pub list_price: Decimal,
    /// The list price at the start of the day (UTC), or the first price of the day.
    #[serde(serialize_with = "as_json_number")]
    pub opening_price: Decimal,
    /// The target that the opening price belongs to; absent: that of the last pricing.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_optional_json_number")]
    pub opening_target: Option<Decimal>,
    /// When the list price was last changed.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_optional_instant")]
    pub changed_at: Option<DateTime<Utc>>,
    /// The streak of changes caused by competitors, if the latest change belongs to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streak: Option<Streak>,
    /// The way to the target; absent if it is not known. Then the price is limited as if the market had
    /// caused everything since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub movement: Option<&'a Movement<'a>>,
}

impl Previous<'_> {
    /// Creates the price in effect of a product of which no more is known; it is also the day's first.
    pub fn of(list_price: Decimal) -> Self {
        Self {
            list_price,
            opening_price: list_price,
            opening_target: None,
            changed_at: None,
            streak: None,
            movement: None,
        }
    }
}

/// [`Previous`], as read back from a stored explanation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RecordedPrevious {
    #[serde(deserialize_with = "amount_from_json")]
    list_price: Decimal,
    #[serde(deserialize_with = "amount_from_json")]
    opening_price: Decimal,
    #[serde(default, deserialize_with = "optional_amount_from_json")]
    opening_target: Option<Decimal>,
    #[serde(default)]
    changed_at: Option<DateTime<Utc>>,
    #[serde(default)]
    streak: Option<Streak>,
    #[serde(default)]
    movement: Option<Box<Movement<'static>>>,
}

impl RecordedPrevious {
    /// Returns it as input of the pricing functions.
    pub fn as_previous(&self) -> Previous<'_> {
        Previous {
            list_price: self.list_price,
            opening_price: self.opening_price,
            opening_target: self.opening_target,
            changed_at: self.changed_at,
            streak: self.streak,
            movement: self.movement.as_deref(),
        }
    }
}

/// Changes in one direction, all caused by competitors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streak {
    /// The number of changes; negative if downwards.
    pub moves: i32,
    /// When the first change was made.
    #[serde(serialize_with = "as_instant")]
    pub since: DateTime<Utc>,
}
