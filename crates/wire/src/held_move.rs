//! Moves of list prices that market events would make and the circuit breaker holds: the list, and the
//! decision about them.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::amount;

/// The page of held moves to return.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HeldMovesQuery {
    /// The maximum number of moves, from 1 to 1,000; 100 if absent.
    #[param(minimum = 1, maximum = 1_000)]
    pub limit: Option<u32>,
    /// Only products after this one: `next_after` of the previous page.
    pub after: Option<String>,
}

/// The moves that wait for a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HeldMovesAnswer {
    /// The number of all moves that wait for a decision.
    pub count: u64,
    /// A page of them, ordered by product.
    pub moves: Vec<HeldMoveAnswer>,
    /// The last product of the page, if there are more; null otherwise.
    pub next_after: Option<String>,
}

/// A move that waits for a decision: its product keeps being priced by the facts of its last pricing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HeldMoveAnswer {
    /// The product.
    pub product_id: String,
    /// The list price in effect.
    #[serde(with = "amount")]
    #[schema(value_type = f64)]
    pub list_price: Decimal,
    /// Its currency.
    pub currency: String,
    /// When the move was held.
    pub held_since: DateTime<Utc>,
    /// Why, with the price that the events would make.
    pub reason: String,
}

/// The moves to decide about; all that wait if the body is empty.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HeldMovesDecision {
    /// Those of these products, 1 to 1,000. Products without a held move are passed over; a move that was
    /// rejected before may be approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["P-100", "P-101"]))]
    pub product_ids: Option<Vec<String>>,
}

/// The outcome of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DecidedMovesAnswer {
    /// The number of moves that were decided about.
    pub moves: u64,
}
