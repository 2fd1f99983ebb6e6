//! `GET /api/v1/quote-lock-keys`: the public keys with which others verify quote locks.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use pricing_core::quote_lock::JwkSet;

use crate::error::ApiError;
use crate::state::AppState;

/// The media type of a JSON Web Key Set (RFC 7517, 8.5.2).
const JWK_SET_JSON: HeaderValue = HeaderValue::from_static("application/jwk-set+json");

/// Returns the public keys.
#[utoipa::path(get, path = "/api/v1/quote-lock-keys", tag = "prices",
    summary = "Get the public keys of quote locks",
    responses(
        (status = 200, description = "The keys as a JSON Web Key Set, the one that signs first; empty if no key is set", body = serde_json::Value, content_type = "application/jwk-set+json")))]
pub(crate) async fn keys(State(state): State<AppState>) -> Result<Response, ApiError> {
    let keys = state.quote_lock.as_ref().map_or_else(JwkSet::empty, |signer| signer.public_keys());
    let json = serde_json::to_vec(&keys).map_err(|error| ApiError::Internal { reason: error.to_string() })?;
    Ok(([(header::CONTENT_TYPE, JWK_SET_JSON)], json).into_response())
}
