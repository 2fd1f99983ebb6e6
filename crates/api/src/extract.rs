//! What handlers take from a request: a bounded body, and JSON out of it with errors that name the field.

use std::fmt::Write;
use std::pin::pin;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use pricing_core::domain::diagnostic::{Diagnostic, shorten};
use serde::Deserialize;

use crate::error::ApiError;

/// The longest body of a request for one price, or with one product.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;

/// The longest body of a request for many prices.
pub(crate) const MAX_BATCH_BODY_BYTES: usize = 1024 * 1024;

/// How long a whole body may take to arrive. Less than the request may take, so that whoever sends slowly is told so, and
/// not that the answer was late.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(8);

/// A whole body of at most `MAX` bytes.
pub(crate) struct BoundedBody<const MAX: usize>(pub(crate) Bytes);

impl<S: Send + Sync, const MAX: usize> FromRequest<S> for BoundedBody<MAX> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Self::Rejection> {
        let body = read_body(request.into_body(), MAX).await;
        body.map(Self).map_err(IntoResponse::into_response)
    }
}

/// A whole body, unless it is longer than that or does not arrive in time.
pub(crate) async fn read_body<B>(body: B, max_bytes: usize) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    read_body_within(BODY_TIMEOUT, body, max_bytes).await
}

async fn read_body_within<B>(limit: Duration, body: B, max_bytes: usize) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let mut reading = pin!(Limited::new(body, max_bytes).collect());
    let collected = match reading.as_mut().now_or_never() {
        // It came with the head of its request, as most do, and needs no timer.
        Some(collected) => collected,
        // On the heap, so that there is no room for a timer in what answers prices.
        None => Box::pin(tokio::time::timeout(limit, reading)).await.map_err(|_| ApiError::BodyTooSlow {
            reason: format!("it did not arrive within {} s", limit.as_secs()),
        })?,
    };
    match collected {
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::StreamExt;
    use futures::stream;

    use super::*;

    /// A body of these pieces, which then ends or is silent.
    fn body(pieces: &[&'static str], ends: bool) -> axum::body::Body {
        let pieces: Vec<Result<Bytes, Infallible>> =
            pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect();
        let pieces = stream::iter(pieces);
        if ends {
            axum::body::Body::from_stream(pieces)
        } else {
            axum::body::Body::from_stream(pieces.chain(stream::pending()))
        }
    }

    #[tokio::test]
    async fn a_body_that_does_not_arrive_is_given_up() {
        let limit = Duration::from_millis(1);
        for pieces in [&[][..], &["{"], &["{", "\"a\":"]] {
            let read = read_body_within(limit, body(pieces, false), 100).await;
            assert!(matches!(read, Err(ApiError::BodyTooSlow { .. })), "{pieces:?}: {read:?}");
        }
        assert_eq!(read_body_within(limit, body(&["{", "}"], true), 100).await, Ok(Bytes::from("{}")));
        let read = read_body_within(limit, body(&["{", "}"], false), 1).await;
        assert_eq!(read, Err(ApiError::BodyTooLarge { max_bytes: 1 }));
    }

    #[test]
    fn a_slow_sender_is_told_so_before_the_answer_is_late() {
        assert!(BODY_TIMEOUT < crate::middleware::REQUEST_TIMEOUT);
    }
}
