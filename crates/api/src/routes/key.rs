//! `/api/v1/keys`: access keys. Their secrets are in the answers that create them, and nowhere else.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use pricing_core::access::key::{KeyId, NewKey};
use pricing_core::access::new_key::{self, InvalidKeyOrder, KeyError, KeyOrder};
use pricing_core::access::scope::Scopes;
use pricing_core::store::AccessKey;
use pricing_domain::diagnostic::shorten;
use pricing_wire::key::{KeyAnswer, KeysAnswer, NewKeyAnswer, NewKeyRequest, RotateKeyRequest};

use crate::access::Caller;
use crate::error::ApiError;
use crate::extract::{BoundedBody, MAX_BODY_BYTES, Named, read_object};
use crate::state::AppState;

/// The maximum number of keys in one answer.
const MAX_LISTED: u32 = 1_000;

/// Lists the keys.
#[utoipa::path(get, path = "/api/v1/keys", tag = "access", summary = "List keys",
    responses((status = 200, description = "The latest 1,000 keys, newest first, without their secrets", body = KeysAnswer)))]
pub(crate) async fn list(State(state): State<AppState>) -> Result<Json<KeysAnswer>, ApiError> {
    let (keys, now) = (state.engine.store.access_keys(MAX_LISTED).await?, state.engine.clock.now());
    Ok(Json(KeysAnswer { keys: keys.into_iter().map(|key| answer(key, now)).collect() }))
}

/// Creates a key.
#[utoipa::path(post, path = "/api/v1/keys", tag = "access", summary = "Create a key",
    request_body(content = NewKeyRequest, description = "The name, the scopes and the expiry"),
    responses(
        (status = 201, description = "Created; `secret` is shown this once", body = NewKeyAnswer),
        (status = 400, description = "The body is not JSON"),
        (status = 413, description = "The body is longer than 64 KiB"),
        (status = 422, description = "The name, a scope or the expiry is invalid"),
        (status = 503, description = "The database does not answer, or 10,000 keys are in use")))]
pub(crate) async fn create(
    State(state): State<AppState>,
    caller: Caller,
    BoundedBody(body): BoundedBody<MAX_BODY_BYTES>,
) -> Result<Response, ApiError> {
    let NewKeyRequest { name, scopes, expires_at } = read_object(&body)?;
    let now = state.engine.clock.now();
    let scopes = scopes.iter().map(|scope| scope.parse()).collect::<Result<Scopes, _>>();
    let scopes = scopes.map_err(|error| ApiError::field("scopes", error.to_string(), "scopes"))?;
    let order = KeyOrder::new(&name, scopes, expires_at, now).map_err(|invalid| {
        let field = match invalid {
            InvalidKeyOrder::Name => "name",
            InvalidKeyOrder::NoScope => "scopes",
            InvalidKeyOrder::Expired => "expires_at",
        };
        ApiError::field(field, invalid.to_string(), "see docs/access.md")
    })?;
    let created = order.create(&state.engine.store, &caller.origin(), now).await;
    let (key, stored) = created.map_err(|error| of_key(error, &name))?;
    state.access.control.keys.refresh(now).await?;
    Ok(shown_once(key, stored, now))
}

/// Replaces a key by a new one with its name and scopes.
#[utoipa::path(post, path = "/api/v1/keys/{id}/rotate", tag = "access", summary = "Rotate a key",
    params(("id" = String, Path, description = "The key's identifier")),
    request_body(content = RotateKeyRequest, description = "Until when the old key works, and the new one's expiry"),
    responses(
        (status = 201, description = "The new key; `secret` is shown this once", body = NewKeyAnswer),
        (status = 400, description = "The body is not JSON"),
        (status = 404, description = "No such key, or it was revoked or has expired"),
        (status = 413, description = "The body is longer than 64 KiB"),
        (status = 422, description = "An expiry is invalid"),
        (status = 503, description = "The database does not answer")))]
pub(crate) async fn rotate(
    State(state): State<AppState>,
    caller: Caller,
    Named(id): Named<String>,
    BoundedBody(body): BoundedBody<MAX_BODY_BYTES>,
) -> Result<Response, ApiError> {
    let RotateKeyRequest { old_expires_at, expires_at } =
        if body.trim_ascii().is_empty() { RotateKeyRequest::default() } else { read_object(&body)? };
    let now = state.engine.clock.now();
    if expires_at.is_some_and(|expires_at| expires_at <= now) {
        return Err(ApiError::field("expires_at", "has passed", "an instant to come"));
    }
    let expiries = (old_expires_at.unwrap_or(now), expires_at);
    let rotated = new_key::rotate(&state.engine.store, read_id(&id)?, expiries, &caller.origin(), now).await;
    let (key, stored) = rotated.map_err(|error| of_key(error, &id))?;
    state.access.control.keys.refresh(now).await?;
    Ok(shown_once(key, stored, now))
}

/// Revokes a key: within five seconds it opens nothing in any process.
#[utoipa::path(delete, path = "/api/v1/keys/{id}", tag = "access", summary = "Revoke a key",
    params(("id" = String, Path, description = "The key's identifier")),
    responses(
        (status = 204, description = "Revoked; every process refuses it within five seconds, this one at once"),
        (status = 404, description = "No such key, or it was revoked before")))]
pub(crate) async fn revoke(
    State(state): State<AppState>,
    caller: Caller,
    Named(id): Named<String>,
) -> Result<StatusCode, ApiError> {
    let now = state.engine.clock.now();
    if !state.engine.store.revoke_access_key(read_id(&id)?.as_str(), &caller.origin(), now).await? {
        return Err(ApiError::KeyNotFound { id: shorten(&id) });
    }
    state.access.control.keys.refresh(now).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn read_id(written: &str) -> Result<KeyId, ApiError> {
    written.parse().map_err(|_| ApiError::KeyNotFound { id: shorten(written) })
}

fn of_key(error: KeyError, id: &str) -> ApiError {
    match error {
        KeyError::Store(error) => error.into(),
        KeyError::Randomness(error) => ApiError::Internal { reason: error.to_string() },
        KeyError::TooMany => ApiError::Unavailable { reason: "too many keys are in use: revoke some" },
        KeyError::NotFound => ApiError::KeyNotFound { id: shorten(id) },
    }
}

/// The answer that no cache may keep.
fn shown_once(key: NewKey, stored: AccessKey, now: DateTime<Utc>) -> Response {
    let answer = NewKeyAnswer { secret: key.text, key: answer(stored, now) };
    (StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

fn answer(key: AccessKey, now: DateTime<Utc>) -> KeyAnswer {
    let is_expired = key.expires_at.is_some_and(|expires_at| expires_at <= now);
    let state = match (key.revoked_at, is_expired) {
        (Some(_), _) => "revoked",
        (None, true) => "expired",
        (None, false) => "active",
    };
    KeyAnswer {
        id: key.id,
        name: key.name,
        scopes: key.scopes.split(' ').map(str::to_owned).collect(),
        state: state.to_owned(),
        created_at: key.created_at,
        created_by: key.created_by,
        expires_at: key.expires_at,
        revoked_at: key.revoked_at,
    }
}
