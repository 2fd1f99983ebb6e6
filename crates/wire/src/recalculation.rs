//! Recalculations: the request, the progress, and the decision about a held one.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type};

/// The products to recalculate; all if the body is empty.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecalculationRequest {
    /// All products of this category.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 100)]
    pub category: Option<String>,
    /// These products, 1 to 1,000; not together with `category`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["P-100", "P-101"]))]
    pub product_ids: Option<Vec<String>>,
    /// Whether prices that a limit on moves holds go to their targets at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub release: bool,
}

/// The filter of the list.
#[derive(Debug, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// The state: `held`.
    #[param(inline, example = "held")]
    pub state: Listed,
}

/// The states that can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Listed {
    /// Held by the circuit breaker.
    Held,
}

/// The author of a decision about a held recalculation.
#[derive(Debug, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DecisionQuery {
    /// The name of who approves or rejects it. Required without access control, and refused with it: the key
    /// says who calls.
    #[param(example = "zoe", min_length = 1, max_length = 100)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// A requested recalculation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RequestAnswer {
    /// The recalculation's identifier.
    pub task_id: String,
    /// The state: `requested`.
    #[serde(default)]
    #[schema(required)]
    pub state: String,
}

/// The schema of a scope: a text, or an object.
fn scope() -> Schema {
    let all = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["all"]));
    let some = ObjectBuilder::new()
        .property("category", ObjectBuilder::new().schema_type(Type::String))
        .property("products", ArrayBuilder::new().items(ObjectBuilder::new().schema_type(Type::String)));
    let description = "The products: `all`, or an object with `category` or `products`";
    OneOfBuilder::new().item(all).item(some).description(Some(description)).into()
}

/// A list of recalculations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RecalculationsAnswer {
    /// The recalculations, newest first.
    pub recalculations: Vec<RecalculationAnswer>,
}

/// The state and progress of a recalculation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RecalculationAnswer {
    /// The recalculation's identifier.
    pub task_id: String,
    /// `requested`, `held` until it is approved or rejected, `running`, `done`, `failed`, or `skipped`:
    /// another one does its work. `done` means that its prices are in the database and in Redis and that
    /// every process was notified of them. A process that answers from memory applies the notification
    /// moments later, or if it was lost uses the new prices after `PRICING_L1_MAX_STALENESS` at the latest.
    pub state: String,
    /// The products: `all`, or an object with `category` or `products`.
    #[serde(default)]
    #[schema(required, schema_with = scope)]
    pub scope: serde_json::Value,
    /// Why it is held, was skipped or failed; null otherwise.
    pub reason: Option<String>,
    /// The recalculation that does its work, if it was skipped; null otherwise.
    pub follow_up_task_id: Option<String>,
    /// Who approved it: a person, or the circuit breaker when its policy was published; null if not approved.
    pub approved_by: Option<String>,
    /// The number of the run, which increases with every start; null before it starts.
    pub run_number: Option<i64>,
    /// The policy version by which it prices; before it starts, the version for which it was held, or null.
    pub policy_version: Option<i64>,
    /// The progress in percent, from 0 to 100.
    #[serde(default)]
    #[schema(required)]
    pub progress_percent: u64,
    /// The number of products when it started; null before.
    pub products_total: Option<u64>,
    /// The number of products priced so far.
    pub products_done: u64,
    /// The number of these whose list price changed.
    pub prices_changed: u64,
    /// The number of these whose list price is frozen because a rule failed.
    pub prices_frozen: u64,
    /// The number of ranges that each worker finished.
    pub workers: BTreeMap<String, u64>,
    /// When it was requested.
    pub requested_at: DateTime<Utc>,
    /// When it first started; null before.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was done, skipped or failed; null before.
    pub finished_at: Option<DateTime<Utc>>,
    /// The time since it started, until now or its end, in milliseconds; null before it starts.
    pub duration_ms: Option<i64>,
}
