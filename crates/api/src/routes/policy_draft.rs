//! `/api/v1/policies/drafts`: stored drafts of policies. A draft need not be valid; checking, simulating and
//! publishing take the document itself.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use pricing_core::store::{DraftCondition, NewDraft, StoredDraft};
use pricing_domain::diagnostic::shorten;
use pricing_domain::policy::MAX_POLICY_BYTES;
use serde::{Deserialize, Serialize};

use super::policy::{check_length, etag, read_if_match};
use crate::access::Caller;
use crate::error::ApiError;
use crate::extract::{BoundedBody, Named};
use crate::state::AppState;

/// The maximum number of stored drafts.
const MAX_DRAFTS: u32 = 1_000;
/// The longest name, in characters.
const MAX_NAME_CHARS: usize = 64;

/// The author of a draft.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DraftQuery {
    /// The author of the change; refused with access control, as the key says who calls.
    #[param(example = "zoe")]
    author: Option<String>,
}

/// A draft without its document.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Draft {
    /// The draft's name.
    name: String,
    /// The author of the latest change; empty if not stated.
    author: String,
    /// When it was last changed.
    updated_at: DateTime<Utc>,
}

/// A list of drafts.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct DraftsAnswer {
    /// The drafts, latest change first.
    drafts: Vec<Draft>,
}

/// A draft with its document.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct DraftAnswer {
    #[serde(flatten)]
    draft: Draft,
    /// The document, as its author stored it.
    source: String,
}

/// Lists the drafts.
#[utoipa::path(get, path = "/api/v1/policies/drafts", tag = "policies", summary = "List drafts",
    responses((status = 200, description = "All drafts, latest change first", body = DraftsAnswer)))]
pub(crate) async fn list(State(state): State<AppState>) -> Result<Json<DraftsAnswer>, ApiError> {
    let drafts = state.engine.store.drafts(MAX_DRAFTS).await?;
    Ok(Json(DraftsAnswer { drafts: drafts.into_iter().map(|draft| split(draft).0).collect() }))
}

/// Returns a draft with its document.
#[utoipa::path(get, path = "/api/v1/policies/drafts/{name}", tag = "policies", summary = "Get a draft",
    params(("name" = String, Path, description = "The draft's name")),
    responses(
        (status = 200, description = "The draft; send its ETag as If-Match to change it", body = DraftAnswer),
        (status = 404, description = "No such draft")))]
pub(crate) async fn get(
    State(state): State<AppState>,
    Named(name): Named<String>,
) -> Result<Response, ApiError> {
    check_may_exist(&name)?;
    let draft = state.engine.store.draft(&name).await?;
    let draft = draft.ok_or_else(|| not_found(&name))?;
    let etag = etag(draft.revision);
    let (draft, source) = split(draft);
    Ok(([(header::ETAG, etag)], Json(DraftAnswer { draft, source })).into_response())
}

/// Stores a draft.
#[utoipa::path(put, path = "/api/v1/policies/drafts/{name}", tag = "policies", summary = "Store a draft",
    params(DraftQuery, ("name" = String, Path, description = "The draft's name, 1 to 64 characters"),
        ("If-Match" = Option<String>, Header, pattern = r#"^(\*|"[0-9]+")$"#, description = "Store only if this is still the draft's ETag"),
        ("If-None-Match" = Option<String>, Header, pattern = r"^\*$", description = "`*`: store only if no draft has this name")),
    request_body(content = String, content_type = "application/yaml", description = "The policy; it need not be complete or valid"),
    responses(
        (status = 204, description = "Stored; the ETag header has its new ETag"),
        (status = 412, description = "The draft does not meet If-Match or If-None-Match"),
        (status = 413, description = "The policy is longer than 256 KiB"),
        (status = 422, description = "The name, author, document or a condition is invalid"),
        (status = 503, description = "The database does not answer, or there are too many drafts")))]
pub(crate) async fn put(
    State(state): State<AppState>,
    caller: Caller,
    Named(name): Named<String>,
    query: Result<Query<DraftQuery>, QueryRejection>,
    headers: HeaderMap,
    BoundedBody(body): BoundedBody<MAX_POLICY_BYTES>,
) -> Result<Response, ApiError> {
    let Query(DraftQuery { author }) =
        query.map_err(|rejection| ApiError::field("query", rejection.body_text(), "author"))?;
    let author = caller.name("author", author.filter(|author| !author.is_empty()))?.unwrap_or_default();
    check_draft_name(&name)?;
    let source = String::from_utf8(body.to_vec())
        .map_err(|error| ApiError::field("body", format!("is not UTF-8: {error}"), "a text"))?;
    // A database may refuse this character, and YAML does.
    if source.contains('\0') {
        return Err(ApiError::field("body", "contains the character NUL", "a text"));
    }
    let only_if = read_condition(&headers)?;
    let store = &state.engine.store;
    let is_new = store.draft(&name).await?.is_none();
    if is_new && headers.get(header::IF_MATCH).is_some() {
        return Err(ApiError::DraftChanged);
    }
    if is_new && store.drafts(MAX_DRAFTS).await?.len() >= usize::try_from(MAX_DRAFTS).unwrap_or(usize::MAX) {
        return Err(ApiError::Unavailable { reason: "there are too many drafts; remove some" });
    }
    let origin =
        caller.origin().stating(Some(&author).filter(|author| !author.is_empty()).map(String::as_str));
    let draft = NewDraft { name, source, author };
    let revision = store.put_draft(&draft, only_if, &origin, state.engine.clock.now()).await?;
    let revision = revision.ok_or(ApiError::DraftChanged)?;
    Ok((StatusCode::NO_CONTENT, [(header::ETAG, etag(revision))]).into_response())
}

/// Removes a draft.
#[utoipa::path(delete, path = "/api/v1/policies/drafts/{name}", tag = "policies", summary = "Remove a draft",
    params(("name" = String, Path, description = "The draft's name"),
        ("If-Match" = Option<String>, Header, pattern = r#"^(\*|"[0-9]+")$"#, description = "Remove only if this is still the draft's ETag")),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "No such draft"),
        (status = 412, description = "The draft has been changed since"),
        (status = 422, description = "If-Match is not an ETag of a draft")))]
pub(crate) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Named(name): Named<String>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    check_may_exist(&name)?;
    let store = &state.engine.store;
    let only_if = read_if_match(&headers)?.map_or(DraftCondition::None, DraftCondition::Is);
    if store.delete_draft(&name, only_if, &caller.origin(), state.engine.clock.now()).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    match store.draft(&name).await? {
        Some(_) => Err(ApiError::DraftChanged),
        None => Err(not_found(&name)),
    }
}

fn check_draft_name(name: &str) -> Result<(), ApiError> {
    check_length("name", name, MAX_NAME_CHARS)
}

/// Answers 404 for a name that no draft can have, as not every database accepts it in a query.
fn check_may_exist(name: &str) -> Result<(), ApiError> {
    check_draft_name(name).map_err(|_| not_found(name))
}

fn not_found(name: &str) -> ApiError {
    ApiError::DraftNotFound { name: shorten(name) }
}

fn split(draft: StoredDraft) -> (Draft, String) {
    let StoredDraft { name, source, author, updated_at, .. } = draft;
    (Draft { name, author, updated_at }, source)
}

fn read_condition(headers: &HeaderMap) -> Result<DraftCondition, ApiError> {
    if headers.contains_key(header::IF_NONE_MATCH) && headers.contains_key(header::IF_MATCH) {
        return Err(ApiError::field("If-None-Match", "is given besides If-Match", "one of the two"));
    }
    match headers.get(header::IF_NONE_MATCH) {
        Some(any) if any == "*" => Ok(DraftCondition::IsNew),
        Some(_) => Err(ApiError::field("If-None-Match", "is not allowed", "*")),
        None => Ok(read_if_match(headers)?.map_or(DraftCondition::None, DraftCondition::Is)),
    }
}
