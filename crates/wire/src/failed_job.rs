//! Failed jobs and dead-lettered messages, with their reasons.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The number of failed jobs and of dead-lettered messages to list.
#[derive(Debug, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobsQuery {
    /// The maximum number of jobs, and that of messages, from 1 to 1,000; 50 if absent.
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
    /// The number of messages that are kept because they are no market events; about 10,000 at most.
    #[serde(default)]
    pub dead_event_count: u64,
    /// The latest messages that are no market events, newest first.
    #[serde(default)]
    pub dead_events: Vec<DeadEvent>,
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

/// A message that was published as a market event and is none. Nothing of it was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeadEvent {
    /// Its identifier among these messages.
    pub id: String,
    /// The first 4,096 characters of what was published.
    pub message: String,
    /// Why it is no market event.
    pub reason: String,
    /// Its identifier in the stream of market events; null if it came over the channel.
    pub stream_id: Option<String>,
    /// When it was dead-lettered.
    pub died_at: DateTime<Utc>,
}
