//! What handlers take from a request: a bounded body, and JSON out of it with errors that name the field.

use std::fmt::Write;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use pricing_core::domain::diagnostic::{Diagnostic, shorten};
use serde::Deserialize;

use crate::error::ApiError;

/// The longest body of a request for one price, or with one product.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;

/// The longest body of a request for many prices.
pub(crate) const MAX_BATCH_BODY_BYTES: usize = 1024 * 1024;

/// A whole body of at most `MAX` bytes.
pub(crate) struct BoundedBody<const MAX: usize>(pub(crate) Bytes);

impl<S: Send + Sync, const MAX: usize> FromRequest<S> for BoundedBody<MAX> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Self::Rejection> {
        let body = read_body(request.into_body(), MAX).await;
        body.map(Self).map_err(IntoResponse::into_response)
    }
}

/// A whole body, unless it is longer than that.
pub(crate) async fn read_body<B>(body: B, max_bytes: usize) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    match Limited::new(body, max_bytes).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::BodyTooLarge { max_bytes }),
        Err(_) => Err(ApiError::MalformedBody { reason: "the body ended early".to_owned() }),
    }
}

/// The product that a path names, decoded.
pub(crate) struct ProductPath(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for ProductPath {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(product_id)| Self(product_id)).map_err(|rejection| {
            let allowed = "a product's identifier, percent-encoded UTF-8";
            ApiError::field("product_id", rejection.body_text(), allowed).into_response()
        })
    }
}

/// The JSON of a body. If it does not fit, `expected` tells which fields do not.
pub(crate) fn parse_json<'a, T: Deserialize<'a>>(body: &'a [u8], expected: &[Field]) -> Result<T, ApiError> {
    if !is_object(body) {
        // serde takes a list for an object, by the order of its fields.
        return Err(ApiError::MalformedBody { reason: "the body is not a JSON object".to_owned() });
    }
    serde_json::from_slice(body).map_err(|error| explain(body, &error, expected))
}

/// Whether a JSON text is that of an object, or of nothing at all.
pub(crate) fn is_object(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), None | Some(b'{'))
}

/// A field of a JSON body, for error messages.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    /// What it may hold, in words.
    pub(crate) allowed: &'static str,
    /// Whether a value of it has the right type.
    pub(crate) fits: fn(&serde_json::Value) -> bool,
}

/// The slow path of a request that is refused anyway: finds each field that is missing or of the wrong type.
fn explain(body: &[u8], error: &serde_json::Error, expected: &[Field]) -> ApiError {
    let malformed = |reason: String| ApiError::MalformedBody { reason };
    let value = match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(serde_json::Value::Object(object)) => object,
        Ok(_) => return malformed("the body is not a JSON object".to_owned()),
        Err(_) if body.is_empty() => {
            return malformed("the body is empty; a JSON object is expected".to_owned());
        }
        Err(error) => return malformed(format!("the body is not JSON: {error}")),
    };
    let mut errors = Vec::new();
    for field in expected {
        match value.get(field.name) {
            None if field.required => errors.push(Diagnostic::new(field.name, "is missing", field.allowed)),
            Some(given) if (field.required || !given.is_null()) && !(field.fits)(given) => {
                let problem = format!("{} is not allowed", shown(given));
                errors.push(Diagnostic::new(field.name, problem, field.allowed));
            }
            _ => {}
        }
    }
    if errors.is_empty() {
        return malformed(format!("the body cannot be read: {error}"));
    }
    ApiError::Invalid { errors }
}

fn shown(value: &serde_json::Value) -> String {
    let mut text = String::new();
    let _ = write!(text, "{value}");
    shorten(&text)
}
