//! Extractors: bounded bodies, decoded paths, and JSON with errors that name the field.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::pin::pin;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use pricing_domain::diagnostic::{Diagnostic, shorten};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::error::ApiError;

/// The longest body of a request that is not a batch, such as one for a price or with a product.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;

/// The longest body of a batch of prices or events.
pub(crate) const MAX_BATCH_BODY_BYTES: usize = 1024 * 1024;

/// How long a whole body may take to arrive. Shorter than the request's own time limit, so that a slow sender
/// receives an error about the body, not about the request.
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

/// Reads a whole body, unless it is longer than `max_bytes` or does not arrive in time.
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
        // The body arrived with the head, as most do, and needs no timer.
        Some(collected) => collected,
        // Boxed, so that the future of a price request reserves no space for a timer.
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

/// The decoded parameters of a path: one text, or a tuple of as many as the path has.
pub(crate) struct Named<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(names)| Self(names)).map_err(|rejection| {
            let field = match &rejection {
                PathRejection::FailedToDeserializePathParams(error) => match error.kind() {
                    ErrorKind::InvalidUtf8InPathParam { key } => key,
                    _ => "path",
                },
                _ => "path",
            };
            ApiError::field(field, rejection.body_text(), "percent-encoded UTF-8").into_response()
        })
    }
}

/// Parses the JSON object of a body. If that fails, `expected` determines which fields the error names.
pub(crate) fn parse_json<'a, T: Deserialize<'a>>(body: &'a [u8], expected: &[Field]) -> Result<T, ApiError> {
    if !is_object(body) {
        return Err(no_object());
    }
    serde_json::from_slice(body).map_err(|error| explain(body, &error, expected))
}

/// Parses the JSON object of a body. If that fails, the error is serde's.
pub(crate) fn read_object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    if !is_object(body) {
        return Err(no_object());
    }
    serde_json::from_slice(body).map_err(|error| unreadable(&error))
}

/// The error of a body that serde cannot parse.
pub(crate) fn unreadable(error: &serde_json::Error) -> ApiError {
    let reason = format!("the body cannot be read: {error}");
    // The body is JSON with a wrong shape, such as an unknown field or one of the wrong type.
    if error.is_data() {
        ApiError::Invalid { errors: vec![Diagnostic::bare("body", reason)] }
    } else {
        ApiError::MalformedBody { reason }
    }
}

fn no_object() -> ApiError {
    ApiError::MalformedBody { reason: "the body is not a JSON object".to_owned() }
}

/// Whether a JSON text begins an object, or is empty. serde would also accept a list as an object, by the
/// order of its fields.
pub(crate) fn is_object(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), None | Some(b'{'))
}

/// A JSON object within JSON, which serde may not read from a list.
#[derive(Debug)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
    }
}

/// A field of a JSON body, for error messages.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    /// The allowed values, in words.
    pub(crate) allowed: &'static str,
    /// Whether a value has the right type.
    pub(crate) fits: fn(&serde_json::Value) -> bool,
    /// The fields of each item, for a list of objects.
    pub(crate) items: &'static [Field],
}

/// Errors in one answer: enough to find the mistake, in an answer that is not many times as long as its
/// request.
const MAX_ERRORS: usize = 100;

/// Names that other systems use for the fields of requests.
const SYNONYMS: [(&str, &str); 16] = [
    ("qty", "quantity"),
    ("count", "quantity"),
    ("units", "quantity"),
    ("amount", "quantity"),
    ("country", "user_location"),
    ("market", "user_location"),
    ("region", "user_location"),
    ("state", "user_location"),
    ("group", "segment"),
    ("customer_group", "segment"),
    ("customer_segment", "segment"),
    ("is_member", "is_prime_member"),
    ("sku", "product_id"),
    ("id", "product_id"),
    ("product", "product_id"),
    ("sales_channel", "channel"),
];

/// Finds each field that is missing, unknown or of the wrong type: the slow path of a request that is refused
/// anyway.
fn explain(body: &[u8], error: &serde_json::Error, expected: &[Field]) -> ApiError {
    let malformed = |reason: String| ApiError::MalformedBody { reason };
    let written = match serde_json::from_slice::<Written<'_>>(body) {
        Ok(written) => written,
        Err(_) if body.is_empty() => {
            return malformed("the body is empty; a JSON object is expected".to_owned());
        }
        Err(error) => return malformed(format!("the body is not JSON: {error}")),
    };
    let mut errors = Vec::new();
    find_faults("", &written, expected, &mut errors);
    errors.truncate(MAX_ERRORS);
    if errors.is_empty() {
        return malformed(format!("the body cannot be read: {error}"));
    }
    ApiError::Invalid { errors }
}

/// Each value as it is written, as some JSON numbers exceed every number type of Rust.
type Written<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

fn find_faults(prefix: &str, written: &Written<'_>, expected: &[Field], errors: &mut Vec<Diagnostic>) {
    for field in expected {
        let name = format!("{prefix}{}", field.name);
        let Some(written) = written.get(field.name).map(|written| written.get()) else {
            if field.required {
                errors.push(Diagnostic::new(name, "is missing", field.allowed));
            }
            continue;
        };
        let is_left_out = !field.required && written == "null";
        if !is_left_out && !serde_json::from_str(written).is_ok_and(|value| (field.fits)(&value)) {
            let problem = format!("{} is not allowed", shorten(written));
            errors.push(Diagnostic::new(name, problem, field.allowed));
        } else if !field.items.is_empty() {
            let items: Vec<Written<'_>> = serde_json::from_str(written).unwrap_or_default();
            for (number, item) in items.iter().enumerate() {
                if errors.len() >= MAX_ERRORS {
                    break;
                }
                find_faults(&format!("{name}[{number}]."), item, field.items, errors);
            }
        }
    }
    for unknown in written.keys().filter(|name| !expected.iter().any(|field| field.name == name.as_ref())) {
        errors.push(unknown_field(prefix, unknown, expected));
    }
}

fn unknown_field(prefix: &str, written: &str, expected: &[Field]) -> Diagnostic {
    let names: Vec<&str> = expected.iter().map(|field| field.name).collect();
    let problem = match nearest(written, &names) {
        Some(name) => format!("is not known; the nearest field is {name}"),
        None => "is not known".to_owned(),
    };
    Diagnostic::new(format!("{prefix}{}", shorten(written)), problem, names.join(", "))
}

/// The name that was probably intended, if one is similar.
fn nearest<'a>(written: &str, names: &[&'a str]) -> Option<&'a str> {
    let written = written.to_lowercase().replace('-', "_");
    let meant = SYNONYMS.into_iter().find(|(synonym, _)| *synonym == written);
    if let Some(name) = meant.and_then(|(_, meant)| names.iter().find(|name| **name == meant)) {
        return Some(name);
    }
    let is_part = |name: &str| written.len() >= 4 && (name.contains(&written) || written.contains(name));
    let distance = |name: &str| match name {
        part if is_part(part) => 0,
        other => strsim::osa_distance(&written, other),
    };
    let (distance, name) = names.iter().map(|name| (distance(name), *name)).min_by_key(|(near, _)| *near)?;
    // Up to a third of the letters may differ.
    (distance * 3 <= name.len()).then_some(name)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::StreamExt;
    use futures::stream;

    use super::*;

    /// A body of these chunks, which then ends or stalls.
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
    async fn a_body_that_does_not_arrive_times_out() {
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
    fn a_list_is_not_read_as_an_object() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Item {
            number: u32,
        }
        for (json, expected) in [
            (r#"[{"number":1}]"#, Some(1)),
            (r#"[{"other":[{}],"number":1}]"#, Some(1)),
            ("[[1]]", None),
            ("[1]", None),
            ("[{}]", None),
        ] {
            let read = serde_json::from_str::<[Object<Item>; 1]>(json);
            assert_eq!(read.ok().map(|[Object(item)]| item.number), expected, "{json}");
            let read = simd_json::serde::from_slice::<[Object<Item>; 1]>(&mut json.as_bytes().to_vec());
            assert_eq!(read.ok().map(|[Object(item)]| item.number), expected, "{json}");
        }
    }

    #[test]
    fn a_number_out_of_range_is_an_error_of_its_field() {
        const FIELDS: &[Field] = &[Field {
            name: "number",
            required: false,
            allowed: "a number",
            fits: serde_json::Value::is_u64,
            items: &[],
        }];
        #[derive(Debug, PartialEq, Deserialize)]
        struct Body {
            number: Option<u32>,
        }
        let fields = |json: &str| match parse_json::<Body>(json.as_bytes(), FIELDS) {
            Err(ApiError::Invalid { errors }) => {
                errors.into_iter().map(|error| format!("{} {}", error.field, error.problem)).collect()
            }
            other => vec![format!("{other:?}")],
        };
        assert_eq!(fields(r#"{"number": 1e400}"#), ["number 1e400 is not allowed"]);
        assert_eq!(fields(r#"{"number": [ 1 ] }"#), ["number [ 1 ] is not allowed"]);
        assert_eq!(fields(r#"{"number": null, "other": 1e400}"#), ["Ok(Body { number: None })"]);
        assert_eq!(
            fields(r#"{"number": [], "nubmer": 1e400}"#),
            ["number [] is not allowed", "nubmer is not known; the nearest field is number"]
        );
        assert!(fields(r#"{"number": 1} 2"#)[0].contains("is not JSON"));
    }

    #[test]
    fn the_nearest_name_is_found_or_none() {
        const NAMES: [&str; 7] =
            ["product_id", "user_location", "is_prime_member", "quantity", "channel", "segment", "currency"];
        for (written, expected) in [
            ("quantitiy", Some("quantity")),
            ("qty", Some("quantity")),
            ("is_prime", Some("is_prime_member")),
            ("isPrimeMember", Some("is_prime_member")),
            ("location", Some("user_location")),
            ("country", Some("user_location")),
            ("Customer-Group", Some("segment")),
            ("productId", Some("product_id")),
            ("currencyCode", Some("currency")),
            ("at", None),
            ("customer_id", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, &NAMES), expected, "{written}");
        }
        assert_eq!(nearest("qty", &["product_id"]), None);
    }

    #[test]
    fn the_body_times_out_before_the_request() {
        assert!(BODY_TIMEOUT < crate::pipeline::REQUEST_TIMEOUT);
    }
}
