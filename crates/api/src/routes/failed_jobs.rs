//! `/api/v1/jobs`: lists failed jobs and dead-lettered messages with their reasons, and requeues jobs.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use pricing_core::audit::Action;
use pricing_core::events::dead;
use pricing_core::jobs::queue::{self, DEAD_KEPT};
use pricing_core::store::AuditEntry;
use pricing_domain::diagnostic::shorten;
use pricing_wire::failed_job::{DeadEvent, DeadJob, JobAnswer, JobsAnswer, JobsQuery};

use crate::access::Caller;
use crate::error::ApiError;
use crate::extract::Named;
use crate::state::AppState;

/// The default number of failed jobs in one answer.
const DEFAULT_LIMIT: usize = 50;
/// The maximum number of failed jobs in one answer.
const MAX_LIMIT: usize = 1_000;

/// Lists the failed jobs, and the messages that are no market events, latest first.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "operations", summary = "List failed jobs",
    params(JobsQuery),
    responses(
        (status = 200, description = "The latest failed jobs, and the latest messages that are no market events", body = JobsAnswer),
        (status = 422, description = "`limit` is invalid"),
        (status = 503, description = "Redis does not answer")))]
pub(crate) async fn list(
    State(state): State<AppState>,
    query: Result<Query<JobsQuery>, QueryRejection>,
) -> Result<Json<JobsAnswer>, ApiError> {
    let allowed = "a whole number from 1 to 1000";
    let Query(query) = query.map_err(|rejection| ApiError::field("limit", rejection.body_text(), allowed))?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::field("limit", format!("{limit} is not allowed"), allowed));
    }
    let queue = &state.queue;
    let (outstanding, dead, jobs) =
        tokio::try_join!(queue.depth(), queue.count_dead(), queue.dead_jobs(limit))?;
    let (dead_event_count, dead_events) =
        tokio::try_join!(state.dead_events.count(), state.dead_events.list(limit))?;
    Ok(Json(JobsAnswer {
        outstanding,
        dead,
        jobs: jobs.into_iter().map(answer).collect(),
        dead_event_count,
        dead_events: dead_events.into_iter().map(event_answer).collect(),
    }))
}

/// Returns a failed job.
#[utoipa::path(get, path = "/api/v1/jobs/{task_id}", tag = "operations", summary = "Get a failed job",
    params(("task_id" = String, Path, description = "The job's identifier")),
    responses(
        (status = 200, description = "The failed job with its payload", body = JobAnswer),
        (status = 404, description = "No such failed job")))]
pub(crate) async fn get(
    State(state): State<AppState>,
    Named(task_id): Named<String>,
) -> Result<Json<JobAnswer>, ApiError> {
    let dead = state.queue.dead_jobs(DEAD_KEPT).await?;
    let job = dead.into_iter().find(|job| job.task_id == task_id).ok_or_else(|| not_found(&task_id))?;
    let payload = state.queue.payload(&task_id).await?.unwrap_or_default();
    let payload = serde_json::from_slice(&payload)
        .unwrap_or_else(|_| serde_json::Value::String(String::from_utf8_lossy(&payload).into_owned()));
    Ok(Json(JobAnswer { job: answer(job), payload }))
}

/// Requeues a failed job.
#[utoipa::path(post, path = "/api/v1/jobs/{task_id}/requeue", tag = "operations", summary = "Requeue a failed job",
    params(("task_id" = String, Path, description = "The job's identifier")),
    responses(
        (status = 202, description = "Requeued; it waits for a worker"),
        (status = 404, description = "No such failed job")))]
pub(crate) async fn requeue(
    State(state): State<AppState>,
    caller: Caller,
    Named(task_id): Named<String>,
) -> Result<StatusCode, ApiError> {
    if !state.queue.requeue(&task_id).await? {
        return Err(not_found(&task_id));
    }
    // Jobs are in Redis, so the entry cannot be in their transaction.
    let entry = AuditEntry { action: Action::JobRequeue, subject: task_id, before: None, after: None };
    state.engine.store.record_change(&caller.origin(), &entry, state.engine.clock.now()).await?;
    Ok(StatusCode::ACCEPTED)
}

fn answer(job: queue::DeadJob) -> DeadJob {
    let queue::DeadJob { task_id, kind, reason, tries, died_at } = job;
    DeadJob { task_id, kind: kind.to_owned(), reason, tries, died_at }
}

fn event_answer(event: dead::DeadEvent) -> DeadEvent {
    let dead::DeadEvent { id, message, reason, stream_id, died_at } = event;
    DeadEvent { id, message, reason, stream_id, died_at }
}

fn not_found(task_id: &str) -> ApiError {
    ApiError::JobNotFound { task_id: shorten(task_id) }
}
