//! Failed jobs (dead letters) with their reasons.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The number of failed jobs to list.
#[derive(Debug, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobsQuery {
    /// The maximum number of jobs, from 1 to 1,000; 50 if absent.
    #[serde(default)]
    #[param(minimum = 1, maximum = 1_000)]
    pub limit: Option<usize>,
}

/// The state of the queue and its failed jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobsAnswer {
    /// The number of jobs that are waiting, running or to be retried.
    pub outstanding: u64,
    /// The number of failed jobs.
    pub dead: u64,
    /// The latest failed jobs, newest first.
    pub jobs: Vec<DeadJob>,
}

/// A failed job with its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobAnswer {
    #[expect(missing_docs, reason = "the OpenAPI document would say it of the reference")]
    #[serde(flatten)]
    pub job: DeadJob,
    /// The job's payload; a string if it is not JSON.
    #[schema(value_type = Object)]
    pub payload: serde_json::Value,
}

/// A dead letter: a job that failed too often, or cannot be processed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeadJob {
    /// The job's identifier.
    pub task_id: String,
    /// The kind of job: `apply_events`, `run`, `range` or `unreadable`.
    pub kind: String,
    /// The reason for the failure.
    pub reason: String,
    /// The number of attempts.
    pub tries: u32,
    /// When it became a dead letter.
    pub died_at: DateTime<Utc>,
}
