//! The record of who changed what. Values are passed on as they are stored, with their exact digits.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The changes to return; all conditions that are given have to hold.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Only changes by this name.
    #[param(min_length = 1, max_length = 200)]
    pub actor: Option<String>,
    /// Only this action, such as `product.put`.
    pub action: Option<String>,
    /// Only changes of this subject: a product, a policy version, a draft, a task, a job, a key or an import.
    /// A product also finds the batches of imports that changed it.
    #[param(min_length = 1, max_length = 300)]
    pub subject: Option<String>,
    /// Only changes from this instant on.
    pub since: Option<DateTime<Utc>>,
    /// Only changes before this instant.
    pub until: Option<DateTime<Utc>>,
    /// The maximum number of changes, from 1 to 1,000; 100 if absent.
    #[param(minimum = 1, maximum = 1_000)]
    pub limit: Option<u32>,
    /// Only changes before this one: `next_before` of the previous page.
    pub before: Option<i64>,
}

/// Recorded changes.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditAnswer {
    /// The changes, newest first.
    pub changes: Vec<RecordedChangeAnswer>,
    /// The `before` of the next page; null on the last page.
    pub next_before: Option<i64>,
}

/// A recorded change.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RecordedChangeAnswer {
    /// Grows with each change.
    pub id: i64,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
    /// Who did it; null if the caller had no name.
    pub actor: Option<String>,
    /// Whether the name is only what the caller stated, as access control is off.
    pub is_as_stated: bool,
    /// The key that proves the name; null without one.
    pub key_id: Option<String>,
    /// What was done, such as `product.put`.
    #[schema(example = "product.put")]
    pub action: String,
    /// To what.
    #[schema(example = "P-100")]
    pub subject: String,
    /// What it was before; null if it did not exist, or there is no more to say.
    #[schema(value_type = Option<Object>)]
    pub before: Option<Box<RawValue>>,
    /// What it is now; null if it does not exist any more. For a batch of an import, each changed field of
    /// each product with its values before and after.
    #[schema(value_type = Option<Object>)]
    pub after: Option<Box<RawValue>>,
    /// From where: the address of the client, `command line` or `engine`.
    #[schema(example = "192.0.2.1")]
    pub place: String,
    /// The `X-Request-Id` of the request; null without one.
    pub request_id: Option<String>,
    /// The trace of the request; null if it was not traced.
    pub trace_id: Option<String>,
}
