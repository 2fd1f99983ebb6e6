//! `/api/v1/held-moves`: moves of list prices that market events would make and the circuit breaker holds.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use pricing_core::engine::HoldDecision;
use pricing_core::store::HeldMove;
use pricing_domain::facts::product::ProductId;
use pricing_wire::held_move::{
    DecidedMovesAnswer, HeldMoveAnswer, HeldMovesAnswer, HeldMovesDecision, HeldMovesQuery,
};
use pricing_wire::recalculation::DecisionQuery;

use super::recalculation::read_product_ids;
use crate::access::Caller;
use crate::error::ApiError;
use crate::extract::{BoundedBody, MAX_BODY_BYTES, read_object};
use crate::state::AppState;

/// Moves in one answer: the default, and the maximum.
const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1_000;

/// Lists the moves that wait for a decision.
#[utoipa::path(get, path = "/api/v1/held-moves", tag = "market", summary = "List held moves of prices",
    params(HeldMovesQuery),
    responses(
        (status = 200, description = "The moves that market events would make, ordered by product", body = HeldMovesAnswer),
        (status = 422, description = "`limit` or `after` is invalid"),
        (status = 503, description = "The database does not answer")))]
pub(crate) async fn list(
    State(state): State<AppState>,
    query: Result<Query<HeldMovesQuery>, QueryRejection>,
) -> Result<Json<HeldMovesAnswer>, ApiError> {
    let Query(HeldMovesQuery { limit, after }) =
        query.map_err(|rejection| ApiError::field("query", rejection.body_text(), "limit, after"))?;
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::field("limit", format!("{limit} is not allowed"), "1 to 1000"));
    }
    let after = after.map(|after| ProductId::parse(&after)).transpose();
    let after = after.map_err(|problem| ApiError::field("after", problem.to_string(), "a product"))?;
    let found = state.engine.store.held_moves(after.as_ref().map(ProductId::as_str), limit + 1).await?;
    let kept = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = found.moves.len() > kept;
    let moves: Vec<HeldMoveAnswer> = found.moves.into_iter().take(kept).map(answer).collect();
    let next_after = moves.last().filter(|_| has_more).map(|last| last.product_id.clone());
    Ok(Json(HeldMovesAnswer { count: found.count, moves, next_after }))
}

/// Approves held moves: the products are priced by the current facts.
#[utoipa::path(post, path = "/api/v1/held-moves/approve", tag = "market", summary = "Approve held moves of prices",
    params(DecisionQuery),
    request_body(content = HeldMovesDecision, description = "The products; all that wait for a decision if empty"),
    responses(
        (status = 200, description = "Approved; the new prices are served", body = DecidedMovesAnswer),
        (status = 400, description = "The body is not JSON"),
        (status = 413, description = "The body is longer than 64 KiB"),
        (status = 422, description = "`by` is missing or invalid, or a product is"),
        (status = 503, description = "The database or Redis does not answer")))]
pub(crate) async fn approve(
    State(state): State<AppState>,
    caller: Caller,
    query: Result<Query<DecisionQuery>, QueryRejection>,
    BoundedBody(body): BoundedBody<MAX_BODY_BYTES>,
) -> Result<Json<DecidedMovesAnswer>, ApiError> {
    decide(&state, &caller, query, &body, HoldDecision::Approve).await
}

/// Rejects held moves: the products stay priced by the facts of their last pricing.
#[utoipa::path(post, path = "/api/v1/held-moves/reject", tag = "market", summary = "Reject held moves of prices",
    params(DecisionQuery),
    request_body(content = HeldMovesDecision, description = "The products; all that wait for a decision if empty"),
    responses(
        (status = 200, description = "Rejected, until newer facts move the price no further than the limit", body = DecidedMovesAnswer),
        (status = 400, description = "The body is not JSON"),
        (status = 413, description = "The body is longer than 64 KiB"),
        (status = 422, description = "`by` is missing or invalid, or a product is"),
        (status = 503, description = "The database or Redis does not answer")))]
pub(crate) async fn reject(
    State(state): State<AppState>,
    caller: Caller,
    query: Result<Query<DecisionQuery>, QueryRejection>,
    BoundedBody(body): BoundedBody<MAX_BODY_BYTES>,
) -> Result<Json<DecidedMovesAnswer>, ApiError> {
    decide(&state, &caller, query, &body, HoldDecision::Reject).await
}

async fn decide(
    state: &AppState,
    caller: &Caller,
    query: Result<Query<DecisionQuery>, QueryRejection>,
    body: &[u8],
    decision: HoldDecision,
) -> Result<Json<DecidedMovesAnswer>, ApiError> {
    let Query(DecisionQuery { by }) =
        query.map_err(|rejection| ApiError::field("by", rejection.body_text(), "who decides"))?;
    let by = caller.required_name("by", by)?;
    let HeldMovesDecision { product_ids } =
        if body.trim_ascii().is_empty() { HeldMovesDecision::default() } else { read_object(body)? };
    let product_ids = product_ids.map(|written| read_product_ids(&written)).transpose()?;
    let decided = state
        .engine
        .decide_held_moves(product_ids, decision, &by, &caller.origin().stating(Some(&by)))
        .await?;
    Ok(Json(DecidedMovesAnswer { moves: u64::try_from(decided).unwrap_or(u64::MAX) }))
}

fn answer(held: HeldMove) -> HeldMoveAnswer {
    HeldMoveAnswer {
        product_id: held.product_id.to_string(),
        list_price: held.list_price,
        currency: held.currency,
        held_since: held.since,
        reason: held.reason,
    }
}
