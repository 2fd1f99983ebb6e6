//! The history of a list price, change by change.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::amount;
use crate::reduction::ReductionAnswer;

/// The page of changes to return.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// The maximum number of changes, from 1 to 1,000; 100 if absent.
    #[param(minimum = 1, maximum = 1_000)]
    pub limit: Option<u32>,
    /// Only changes before this revision: `next_before` of the previous page.
    pub before: Option<i64>,
}

/// The price history of a product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HistoryAnswer {
    /// The product's identifier.
    pub product_id: String,
    /// The reduction from the prior price to the current list price as of its latest step (Directive 98/6/EC,
    /// article 6a); null if the latest change did not lower the price, or `percent` would not be above 0.
    pub reduction: Option<ReductionAnswer>,
    /// The same as of the first of several consecutive steps without a rise; null if there is only one step,
    /// or no reduction. It may be announced only if each step was announced as part of one progressive
    /// reduction, and only where the member state has that rule (paragraph 5).
    pub progressive_reduction: Option<ReductionAnswer>,
    /// The lowest list price of the last 30 days; null if there was none, or if it is unknown.
    #[serde(default, with = "amount::optional")]
    #[schema(value_type = Option<f64>)]
    pub lowest_price_30_days: Option<Decimal>,
    /// Whether all changes of the last 30 days were examined. If not (the price changed 9,000 times or more),
    /// the lowest price is unknown.
    #[serde(default)]
    #[schema(required)]
    pub is_lowest_price_known: bool,
    /// The changes, newest first.
    pub changes: Vec<ChangeAnswer>,
    /// The `before` of the next page; null on the last page.
    pub next_before: Option<i64>,
}

/// A change of the list price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ChangeAnswer {
    /// The revision; increases with every change of any product's price.
    pub revision: i64,
    /// The list price before the change; null if there was none.
    #[serde(default, with = "amount::optional")]
    #[schema(value_type = Option<f64>)]
    pub old_list_price: Option<Decimal>,
    /// The list price after the change; null if the product was removed.
    #[serde(default, with = "amount::optional")]
    #[schema(value_type = Option<f64>)]
    pub new_list_price: Option<Decimal>,
    /// The ISO 4217 code of both prices.
    pub currency: String,
    /// The version of the policy that computed the new price.
    pub policy_version: i64,
    /// The cause: `event ID of SOURCE`, `recalculation TASK_ID`, `product put`, `product deleted`, `import`,
    /// `time` (the price expired) or `fill` (no valid price was stored).
    pub cause: String,
    /// When the price changed.
    pub changed_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_reads_as_it_was_written() {
        let json = r#"{"product_id":"P-1","reduction":{"started_at":"2026-01-31T12:00:00.123456Z","prior_price":1.690,"percent":23.67,"is_complete":false,"incomplete_because":["prices_unknown"]},"progressive_reduction":null,"lowest_price_30_days":1.20,"is_lowest_price_known":true,"changes":[{"revision":9,"old_list_price":1.690,"new_list_price":1.29,"currency":"EUR","policy_version":3,"cause":"import","changed_at":"2026-01-31T12:00:00.123456Z"},{"revision":2,"old_list_price":null,"new_list_price":1.690,"currency":"EUR","policy_version":1,"cause":"import","changed_at":"2025-12-20T12:00:00Z"}],"next_before":null}"#;
        let history: HistoryAnswer = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&history).unwrap(), json);
        assert_eq!(history.lowest_price_30_days.map(|lowest| lowest.to_string()).as_deref(), Some("1.20"));
    }
}
