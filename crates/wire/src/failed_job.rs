//! Failed jobs with their reasons.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// How many to list.
#[derive(Debug, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobsQuery {
    /// At most so many; 50 if absent, up to 1,000.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// The queue and its failed jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobsAnswer {
    /// Jobs that wait or are being done.
    pub outstanding: u64,
    /// Failed jobs.
    pub dead: u64,
    /// The latest of those.
    pub jobs: Vec<DeadJob>,
}

/// A failed job, and what it was to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobAnswer {
    #[expect(missing_docs, reason = "the OpenAPI document would say it of the reference")]
    #[serde(flatten)]
    pub job: DeadJob,
    /// As it lies in the queue; a text if it is not JSON.
    #[schema(value_type = Object)]
    pub payload: serde_json::Value,
}

/// A dead letter: a job that failed too often, or cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeadJob {
    /// Its name.
    pub task_id: String,
    /// What it was to do: `apply_events`, `run`, `range`, or `unreadable`.
    pub kind: String,
    /// Why it failed.
    pub reason: String,
    /// How many attempts there were.
    pub tries: u32,
    /// When it became a dead letter.
    pub died_at: DateTime<Utc>,
}
