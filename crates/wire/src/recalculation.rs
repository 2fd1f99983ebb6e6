//! Recalculations: the request, the progress, and the decision about a held one.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Which products to recalculate: all if the body is empty.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecalculationRequest {
    /// All products of this category.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 100)]
    pub category: Option<String>,
    /// These products, up to 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["P-100", "P-101"]))]
    pub product_ids: Option<Vec<String>>,
}

/// Which recalculations.
#[derive(Debug, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// `held`.
    #[param(value_type = String, example = "held")]
    pub state: Listed,
}

/// The state that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Listed {
    /// The circuit breaker holds it.
    Held,
}

/// Who decides about a held recalculation.
#[derive(Debug, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DecisionQuery {
    /// Their name.
    #[param(example = "zoe")]
    pub by: String,
}

/// A recalculation that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RequestAnswer {
    /// Under this name its progress can be asked for.
    pub task_id: String,
    /// `requested`.
    #[serde(default)]
    #[schema(required)]
    pub state: String,
}

/// Some recalculations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RecalculationsAnswer {
    /// The latest first.
    pub recalculations: Vec<RecalculationAnswer>,
}

/// A recalculation: how far it is, or what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RecalculationAnswer {
    /// Its name.
    pub task_id: String,
    /// `requested`, `held` until it is approved, `running`, `done`, `failed`, or `skipped`: it was
    /// coalesced into another one. `done` says that its prices are in the database and in Redis and that
    /// every process was notified of them. One that answers out of its memory has heard it moments later, and
    /// where the word was lost answers by them after `PRICING_L1_MAX_STALENESS` at the latest.
    pub state: String,
    /// Which products.
    #[serde(default)]
    #[schema(required, value_type = Object, example = "all")]
    pub scope: serde_json::Value,
    /// Why it is held, was skipped or has failed.
    pub reason: Option<String>,
    /// The recalculation it was coalesced into.
    pub follow_up_task_id: Option<String>,
    /// Who let it through although it moves prices far, if anybody had to.
    pub approved_by: Option<String>,
    /// Grows with every run.
    pub run_number: Option<i64>,
    /// The policy it was begun with.
    pub policy_version: Option<i64>,
    /// How far it is, from 0 to 100.
    #[serde(default)]
    #[schema(required)]
    pub progress_percent: u64,
    /// Products when it began.
    pub products_total: Option<u64>,
    /// Products whose price was looked at.
    pub products_done: u64,
    /// Products whose list price is another one now.
    pub prices_changed: u64,
    /// Products whose price stayed because a rule failed.
    pub prices_frozen: u64,
    /// The workers that took part, and how many ranges each did.
    pub workers: BTreeMap<String, u64>,
    /// When it was asked for.
    pub requested_at: DateTime<Utc>,
    /// When it began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// How long it took, or takes until now.
    pub duration_ms: Option<i64>,
}
