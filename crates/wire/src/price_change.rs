//! Changes of list prices, as server-sent events.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::amount;

/// The products to follow.
#[derive(Debug, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FollowQuery {
    /// Only changes of this product; all products if absent.
    #[serde(default)]
    pub product_id: Option<String>,
}

/// The data of an event `price_change`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceChangeEvent {
    /// The product.
    pub product_id: String,
    /// The revision of the new price.
    #[serde(default)]
    pub revision: i64,
    /// The list price before; null if there was none.
    #[serde(default, with = "amount::optional")]
    pub old_list_price: Option<Decimal>,
    /// The list price after; null if the product was removed.
    #[serde(default, with = "amount::optional")]
    pub new_list_price: Option<Decimal>,
    /// The currency code of both.
    pub currency: String,
    /// The policy version of the new price.
    #[serde(default)]
    pub policy_version: i64,
    /// The cause of the change.
    pub cause: String,
    /// When the price changed.
    pub changed_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_reads_as_it_was_written() {
        let json = r#"{"product_id":"P-1","revision":7,"old_list_price":49.90,"new_list_price":null,"currency":"USD","policy_version":1,"cause":"product deleted","changed_at":"2026-01-31T12:00:00.500Z"}"#;
        let change: PriceChangeEvent = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&change).unwrap(), json);
    }
}
