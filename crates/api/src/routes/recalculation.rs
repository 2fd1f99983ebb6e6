//! `/api/v1/recalculations`: recalculations of all prices or of some.
//!
//! A request is recorded and published; workers do the rest. One recalculation runs at a time. Requests that
//! arrive while one runs are coalesced into one more run, as their state says.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use pricing_core::store::{RunRequest, StoredRun};
use pricing_domain::diagnostic::{Diagnostic, shorten};
use pricing_domain::facts::market_event::{Change, EventId, MarketEvent};
use pricing_domain::facts::product::{ProductId, check_category};
use pricing_domain::facts::recalculation::{RecalculationScope, RunState};
use pricing_wire::recalculation::{
    DecisionQuery, ListQuery, RecalculationAnswer, RecalculationRequest, RecalculationsAnswer, RequestAnswer,
};
use uuid::Uuid;

use crate::access::Caller;
use crate::error::ApiError;
use crate::extract::{BoundedBody, MAX_BODY_BYTES, Named, read_object};
use crate::state::AppState;

/// The path of recalculations.
pub(crate) const PATH: &str = "/api/v1/recalculations";
/// The source of the events that this route publishes.
const SOURCE: &str = PATH;
/// The maximum number of products in one request.
const MAX_PRODUCTS: usize = 1_000;
/// The maximum number of recalculations in one answer.
const MAX_LISTED: u32 = 100;
/// The maximum number of recalculations that wait for their turn or for approval.
const MAX_WAITING: u64 = 1_000;

/// Requests a recalculation; does not wait for it.
#[utoipa::path(post, path = PATH, tag = "market", summary = "Recalculate prices",
    request_body(content = RecalculationRequest, description = "The products; all if empty"),
    responses(
        (status = 202, description = "Requested", body = RequestAnswer),
        (status = 400, description = "The body is not JSON"),
        (status = 413, description = "The body is longer than 64 KiB"),
        (status = 422, description = "A field is unknown or invalid"),
        (status = 503, description = "The database or Redis does not answer, or too many recalculations are waiting")))]
pub(crate) async fn post(
    State(state): State<AppState>,
    caller: Caller,
    BoundedBody(body): BoundedBody<MAX_BODY_BYTES>,
) -> Result<Response, ApiError> {
    let scope = read_scope(&body)?;
    let store = &state.engine.store;
    if store.count_requested_runs().await? >= MAX_WAITING {
        return Err(ApiError::Unavailable {
            reason: "too many recalculations wait for their turn or for approval",
        });
    }
    let now = state.engine.clock.now();
    let task_id = Uuid::now_v7().to_string();
    let request =
        RunRequest { task_id: task_id.clone(), scope: scope.clone(), requested_at: now, approved_by: None };
    store.request_run_by(&request, &caller.origin()).await?;
    let event = MarketEvent {
        id: EventId { source: SOURCE.to_owned(), id: task_id.clone() },
        time: now,
        change: Change::RecalculationRequested { scope },
    };
    if let Err(error) = state.events.publish(&[event]).await {
        // Otherwise the next run would include it, although the answer says that it failed.
        store.withdraw_run(&task_id, "it could not be published", state.engine.clock.now()).await?;
        return Err(error.into());
    }
    state.metrics.events_published.increment(1);
    let answer = RequestAnswer { task_id, state: RunState::Requested.name().to_owned() };
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

/// Lists the recalculations that the circuit breaker holds.
#[utoipa::path(get, path = "/api/v1/recalculations", tag = "market", summary = "List held recalculations",
    params(ListQuery),
    responses(
        (status = 200, description = "The held recalculations, newest first", body = RecalculationsAnswer),
        (status = 422, description = "`state` is missing or not `held`")))]
pub(crate) async fn list(
    State(state): State<AppState>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<RecalculationsAnswer>, ApiError> {
    query.map_err(|rejection| ApiError::field("state", rejection.body_text(), "held"))?;
    let held = state.engine.store.held_runs(MAX_LISTED).await?;
    let recalculations = held.into_iter().map(|run| answer(run, state.engine.clock.now())).collect();
    Ok(Json(RecalculationsAnswer { recalculations }))
}

/// Returns the progress or the outcome of a recalculation.
#[utoipa::path(get, path = "/api/v1/recalculations/{task_id}", tag = "market", summary = "Get a recalculation",
    params(("task_id" = String, Path, description = "The `task_id` of the answer to the request, or `SOURCE#ID` of the event that requested it")),
    responses(
        (status = 200, description = "The state and progress", body = RecalculationAnswer),
        (status = 404, description = "No such recalculation")))]
pub(crate) async fn get(
    State(state): State<AppState>,
    Named(task_id): Named<String>,
) -> Result<Json<RecalculationAnswer>, ApiError> {
    Ok(Json(answer(find(&state, &task_id).await?, state.engine.clock.now())))
}

/// Approves a held recalculation.
#[utoipa::path(post, path = "/api/v1/recalculations/{task_id}/approve", tag = "market", summary = "Approve a held recalculation",
    params(DecisionQuery, ("task_id" = String, Path, description = "The recalculation's identifier")),
    responses(
        (status = 202, description = "Approved; it waits for its turn, and is held again only for another policy version", body = RecalculationAnswer),
        (status = 404, description = "No such recalculation"),
        (status = 409, description = "The recalculation is not held"),
        (status = 422, description = "`by` is missing or invalid")))]
pub(crate) async fn approve(
    State(state): State<AppState>,
    caller: Caller,
    Named(task_id): Named<String>,
    query: Result<Query<DecisionQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    decide(&state, &caller, &task_id, query, Decision::Approve).await
}

/// Rejects a held recalculation.
#[utoipa::path(post, path = "/api/v1/recalculations/{task_id}/reject", tag = "market", summary = "Reject a held recalculation",
    params(DecisionQuery, ("task_id" = String, Path, description = "The recalculation's identifier")),
    responses(
        (status = 202, description = "Rejected; its state is `failed`", body = RecalculationAnswer),
        (status = 404, description = "No such recalculation"),
        (status = 409, description = "The recalculation is not held"),
        (status = 422, description = "`by` is missing or invalid")))]
pub(crate) async fn reject(
    State(state): State<AppState>,
    caller: Caller,
    Named(task_id): Named<String>,
    query: Result<Query<DecisionQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    decide(&state, &caller, &task_id, query, Decision::Reject).await
}

/// The decision about a held recalculation.
enum Decision {
    Approve,
    Reject,
}

async fn decide(
    state: &AppState,
    caller: &Caller,
    task_id: &str,
    query: Result<Query<DecisionQuery>, QueryRejection>,
    decision: Decision,
) -> Result<Response, ApiError> {
    let Query(DecisionQuery { by }) =
        query.map_err(|rejection| ApiError::field("by", rejection.body_text(), "who decides"))?;
    let by = caller.required_name("by", by)?;
    check_task_id(task_id)?;
    let (store, now) = (&state.engine.store, state.engine.clock.now());
    let origin = caller.origin().stating(Some(&by));
    let was_held = match decision {
        // Maintenance finds it, as it has no coordinator.
        Decision::Approve => store.approve_run(task_id, &by, &origin, now).await?,
        Decision::Reject => {
            store.reject_run(task_id, &format!("it was rejected by {by}"), &origin, now).await?
        }
    };
    let run = find(state, task_id).await?;
    if !was_held {
        return Err(ApiError::RecalculationNotHeld { state: run.state.name() });
    }
    Ok((StatusCode::ACCEPTED, Json(answer(run, state.engine.clock.now()))).into_response())
}

async fn find(state: &AppState, task_id: &str) -> Result<StoredRun, ApiError> {
    check_task_id(task_id)?;
    let run = state.engine.store.run(task_id).await?;
    run.ok_or_else(|| not_found(task_id))
}

/// Answers 404 for an identifier with a control character: no recalculation has one, and not every database
/// accepts it in a query.
fn check_task_id(task_id: &str) -> Result<(), ApiError> {
    if task_id.contains(char::is_control) { Err(not_found(task_id)) } else { Ok(()) }
}

fn not_found(task_id: &str) -> ApiError {
    ApiError::RecalculationNotFound { task_id: shorten(task_id) }
}

fn answer(run: StoredRun, now: DateTime<Utc>) -> RecalculationAnswer {
    let progress_percent = match run.products_total {
        // Products may have been added since it began.
        Some(total) if total > 0 => (run.products_done.saturating_mul(100) / total).min(100),
        _ => u64::from(run.finished_at.is_some()) * 100,
    };
    let duration = run.started_at.map(|started| run.finished_at.unwrap_or(now) - started);
    RecalculationAnswer {
        task_id: run.task_id,
        state: run.state.name().to_owned(),
        // Serialising names and identifiers cannot fail.
        scope: serde_json::to_value(run.scope).unwrap_or_default(),
        reason: run.reason,
        follow_up_task_id: run.follow_up,
        approved_by: run.approved_by,
        run_number: run.run_number,
        policy_version: run.policy_version,
        progress_percent,
        products_total: run.products_total,
        products_done: run.products_done,
        prices_changed: run.prices_changed,
        prices_frozen: run.prices_frozen,
        workers: run.workers,
        requested_at: run.requested_at,
        started_at: run.started_at,
        finished_at: run.finished_at,
        duration_ms: duration.map(|duration| duration.num_milliseconds()),
    }
}

fn read_scope(body: &[u8]) -> Result<RecalculationScope, ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(RecalculationScope::All);
    }
    let RecalculationRequest { category, product_ids, release } = read_object(body)?;
    let scope = match (category, product_ids) {
        (None, None) => RecalculationScope::All,
        (Some(category), None) => check_category("category", category)
            .map(RecalculationScope::Category)
            .map_err(|problem| ApiError::Invalid { errors: vec![problem] })?,
        (None, Some(written)) => RecalculationScope::Products(read_product_ids(&written)?),
        (Some(_), Some(_)) => {
            return Err(ApiError::field(
                "product_ids",
                "is given besides category",
                "one of the two, or none",
            ));
        }
    };
    Ok(if release { RecalculationScope::Released(Box::new(scope)) } else { scope })
}

/// Reads a list of products: each once, in order.
pub(super) fn read_product_ids(written: &[String]) -> Result<Vec<ProductId>, ApiError> {
    if !(1..=MAX_PRODUCTS).contains(&written.len()) {
        let problem = format!("{} products are not allowed", written.len());
        return Err(ApiError::field("product_ids", problem, "1 to 1000 products"));
    }
    let mut product_ids = Vec::with_capacity(written.len());
    let mut errors = Vec::new();
    for (index, id) in written.iter().enumerate() {
        match ProductId::parse(id.trim()) {
            Ok(id) => product_ids.push(id),
            Err(error) => errors.push(Diagnostic::bare(format!("product_ids[{index}]"), error.to_string())),
        }
    }
    product_ids.sort_unstable();
    product_ids.dedup();
    if errors.is_empty() { Ok(product_ids) } else { Err(ApiError::Invalid { errors }) }
}
