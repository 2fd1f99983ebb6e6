//! `GET /api/v1/audit`: who changed what.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use pricing_core::audit::Action;
use pricing_core::store::{AuditFilter, RecordedChange};
use pricing_wire::audit::{AuditAnswer, AuditQuery, RecordedChangeAnswer};
use serde_json::value::{RawValue, to_raw_value};

use super::policy::check_length;
use crate::error::ApiError;
use crate::state::AppState;

/// Changes in one answer: the default, and the maximum.
const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1_000;
/// The longest actor that is looked for, in characters.
const MAX_ACTOR_CHARS: usize = 200;
/// The longest subject that is looked for, in characters.
const MAX_SUBJECT_CHARS: usize = 300;

/// Lists recorded changes.
#[utoipa::path(get, path = "/api/v1/audit", tag = "access", summary = "List who changed what",
    params(AuditQuery),
    responses(
        (status = 200, description = "The changes, newest first", body = AuditAnswer),
        (status = 422, description = "A parameter is invalid"),
        (status = 503, description = "The database does not answer")))]
pub(crate) async fn list(
    State(state): State<AppState>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<AuditAnswer>, ApiError> {
    let Query(AuditQuery { actor, action, subject, since, until, limit, before }) =
        query.map_err(|rejection| {
            let allowed = "actor, action, subject, since, until, limit, before";
            ApiError::field("query", rejection.body_text(), allowed)
        })?;
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::field("limit", format!("{limit} is not allowed"), "1 to 1000"));
    }
    let action = action.map(|written| written.parse()).transpose().map_err(|_| {
        let names: Vec<&str> = Action::ALL.into_iter().map(Action::as_str).collect();
        ApiError::field("action", "is not known", names.join(", "))
    })?;
    let checked = [("actor", &actor, MAX_ACTOR_CHARS), ("subject", &subject, MAX_SUBJECT_CHARS)];
    for (field, written, most) in checked {
        if let Some(written) = written {
            check_length(field, written, most)?;
        }
    }
    let filter = AuditFilter { actor, action, subject, since, until };
    let store = &state.engine.store;
    let mut changes = store.recorded_changes(&filter, before, limit + 1).await?;
    let kept = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = changes.len() > kept;
    changes.truncate(kept);
    let next_before = changes.last().filter(|_| has_more).map(|last| last.id);
    Ok(Json(AuditAnswer { changes: changes.into_iter().map(answer).collect(), next_before }))
}

fn answer(change: RecordedChange) -> RecordedChangeAnswer {
    RecordedChangeAnswer {
        id: change.id,
        recorded_at: change.recorded_at,
        actor: change.actor,
        is_as_stated: change.is_as_stated,
        key_id: change.key_id,
        action: change.action,
        subject: change.subject,
        before: change.before.and_then(as_written),
        after: change.after.and_then(as_written),
        place: change.place,
        request_id: change.request_id,
        trace_id: change.trace_id,
    }
}

/// A stored value; as a text if it is no JSON, which only another program can have written.
fn as_written(stored: String) -> Option<Box<RawValue>> {
    let text = stored.clone();
    RawValue::from_string(stored).or_else(|_| to_raw_value(&text)).ok()
}
