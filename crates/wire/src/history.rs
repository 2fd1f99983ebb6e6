//! The history of a list price, change by change.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::amount;
use crate::reduction::ReductionAnswer;

/// Which changes.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// How many, from 1 to 1,000; 100 if absent.
    pub limit: Option<u32>,
    /// Only those before this revision: `next_before` of the answer before.
    pub before: Option<i64>,
}

/// A product's price changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HistoryAnswer {
    /// The product.
    pub product_id: String,
    /// The reduction that the list price in effect is since its latest step, by Directive 98/6/EC, article
    /// 6a; null if the list price is not below the prior price, or by less than a hundredth of a percent.
    pub reduction: Option<ReductionAnswer>,
    /// The same since the first of several steps without a rise in between; null if there is one step, or
    /// nothing to announce. It may be announced only if each step was announced as a part of one growing
    /// reduction, and only where the member state has that rule (paragraph 5).
    pub progressive_reduction: Option<ReductionAnswer>,
    /// The lowest list price of the last 30 days; null if there was none, or if it is not known.
    #[serde(default, with = "amount::optional")]
    #[schema(value_type = Option<f64>)]
    pub lowest_price_30_days: Option<Decimal>,
    /// Whether all changes of the last 30 days were looked at. If the price has changed 9,000 times in them,
    /// they were not, and the lowest price is not known.
    #[serde(default)]
    #[schema(required)]
    pub is_lowest_price_known: bool,
    /// The changes, the latest first.
    pub changes: Vec<ChangeAnswer>,
    /// Where the next page begins; null if this is the last.
    pub next_before: Option<i64>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ChangeAnswer {
    /// Grows with every change of any price.
    pub revision: i64,
    /// The list price before; null if it is the first.
    #[serde(default, with = "amount::optional")]
    #[schema(value_type = Option<f64>)]
    pub old_list_price: Option<Decimal>,
    /// The list price after; null if the product was removed.
    #[serde(default, with = "amount::optional")]
    #[schema(value_type = Option<f64>)]
    pub new_list_price: Option<Decimal>,
    /// What both are in.
    pub currency: String,
    /// The policy that made the new one.
    pub policy_version: i64,
    /// What made it change: an event's source and id, a recalculation, `product put`, `import`, `time`.
    pub cause: String,
    /// When.
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
