//! The wire format of errors: RFC 9457 problem documents with stable types. With status 429 and 503,
//! `Retry-After` says when to retry.
//!
//! | type | status | when |
//! |---|---|---|
//! | `/problems/malformed-body` | 400 | the body is not the expected JSON, CSV or NDJSON |
//! | `/problems/invalid-request` | 422 | fields are missing, unknown or have values that are not allowed |
//! | `/problems/other-currency` | 422 | the price is in another currency than the request expects |
//! | `/problems/product-not-found` | 404 | no such product |
//! | `/problems/no-quote-lock-key` | 409 | a lock is asked for, and there is no key to sign it |
//! | `/problems/product-changed` | 412 | the product does not meet If-Match or If-None-Match |
//! | `/problems/product-unreadable` | 500 | the stored product has a currency unknown to this version |
//! | `/problems/recalculation-not-found` | 404 | no such recalculation |
//! | `/problems/policy-not-found` | 404 | no such policy version |
//! | `/problems/policy-version-is-old` | 412 | a newer version than that of If-Match was published |
//! | `/problems/held-by-circuit-breaker` | 409 | publishing or importing would move prices too far and needs approval |
//! | `/problems/recalculation-not-held` | 409 | only a held recalculation can be approved or rejected |
//! | `/problems/draft-not-found` | 404 | no such draft of a policy |
//! | `/problems/draft-changed` | 412 | the draft does not meet If-Match or If-None-Match |
//! | `/problems/job-not-found` | 404 | no such failed job |
//! | `/problems/not-found` | 404 | no such route |
//! | `/problems/method-not-allowed` | 405 | the route exists, but not with this method |
//! | `/problems/body-too-slow` | 408 | the body did not arrive in time |
//! | `/problems/body-too-large` | 413 | the body is longer than the route allows |
//! | `/problems/unsupported-media-type` | 415 | the route does not accept the body's media type, coding or character set |
//! | `/problems/invalid-host` | 400 | the Host is missing, repeated or invalid |
//! | `/problems/misdirected-request` | 421 | the Host is not a name of this service; see `PRICING_HOSTS` |
//! | `/problems/not-identified` | 401 | the request has no key, or one that cannot be used |
//! | `/problems/scope-missing` | 403 | the key lacks the scope that the request needs |
//! | `/problems/key-not-found` | 404 | no such key, or it was revoked or has expired |
//! | `/problems/cross-site-request` | 403 | a browser sent the request for a page of another site |
//! | `/problems/too-many-followers` | 429 | too many clients of this address follow price changes |
//! | `/problems/unavailable` | 503 | the database, Redis or a bounded resource is unavailable |
//! | `/problems/overloaded` | 503 | the process sheds load |
//! | `/problems/timeout` | 503 | the answer took too long |
//! | `/problems/internal` | 500 | an internal error; the details are in the log |

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pricing_core::access::IdentifyError;
use pricing_core::access::scope::Scope;
use pricing_core::cache::ReadError;
use pricing_core::engine::EngineError;
use pricing_core::events::publish::PublishError;
use pricing_core::policy_snapshot::PolicySnapshotError;
use pricing_core::redis::RedisError;
use pricing_core::store::StoreError;
use pricing_domain::diagnostic::{Diagnostic, shorten};
use pricing_wire::problem::{FieldError, Problem};

use crate::config::{IMPORT_SPOOL_LIMIT_BYTES, MAX_FOLLOWERS_PER_PEER, QUOTE_LOCK_KEY_FILE};

/// Seconds after which a client may retry, in every answer with status 429 or 503.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// The media type of problem documents.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The errors of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiError {
    /// The body cannot be parsed.
    MalformedBody {
        /// The problem, in words.
        reason: String,
    },
    /// The header line of a CSV file is unusable.
    UnusableHeader {
        /// The problem, in words, with the columns of the file.
        reason: String,
        /// The problem of each column.
        errors: Vec<Diagnostic>,
    },
    /// The request can be parsed, but is not valid.
    Invalid {
        /// The invalid fields.
        errors: Vec<Diagnostic>,
    },
    /// No such product.
    ProductNotFound {
        /// As written in the request.
        product_id: String,
    },
    /// The stored product cannot be read by this version.
    ProductUnreadable {
        /// The problem, in words.
        reason: String,
    },
    /// The product does not meet the condition of the request.
    ProductChanged,
    /// The price is in another currency than the caller expects.
    OtherCurrency {
        /// The product.
        product_id: String,
        /// The currency of its price.
        currency: &'static str,
        /// As written in the request.
        expected: String,
    },
    /// A lock is asked for, and no key for locks is set.
    NoQuoteLockKey,
    /// No such recalculation.
    RecalculationNotFound {
        /// As written in the request.
        task_id: String,
    },
    /// No such policy version.
    PolicyNotFound {
        /// As written in the request.
        version: String,
    },
    /// Another version was published in the meantime.
    PolicyVersionIsOld,
    /// Publishing the policy would move prices too far.
    HeldByCircuitBreaker {
        /// The reasons, in words.
        reasons: Vec<String>,
    },
    /// Storing the rows of an import would move prices too far.
    ImportHeldByCircuitBreaker {
        /// The reasons, in words.
        reasons: Vec<String>,
    },
    /// The recalculation does not wait for approval.
    RecalculationNotHeld {
        /// Its state.
        state: &'static str,
    },
    /// No such draft.
    DraftNotFound {
        /// As written in the request.
        name: String,
    },
    /// The draft does not meet the condition of the request.
    DraftChanged,
    /// No such failed job.
    JobNotFound {
        /// As written in the request.
        task_id: String,
    },
    /// No such route.
    RouteNotFound,
    /// The route exists, but not with this method.
    MethodNotAllowed,
    /// The body did not arrive in time.
    BodyTooSlow {
        /// The missed time limit, in words.
        reason: String,
    },
    /// The body is too long.
    BodyTooLarge {
        /// The limit of the route.
        max_bytes: usize,
    },
    /// An import ended before all its rows were read or stored.
    ImportEndedEarly {
        /// Why it ended.
        error: Box<Self>,
        /// The number of products whose rows are stored.
        stored: u64,
    },
    /// The body is too long to be judged by a circuit breaker.
    SpoolTooLarge {
        /// The limit that is set.
        limit_bytes: u64,
    },
    /// The body has no media type that the route accepts.
    UnsupportedMediaType {
        /// The accepted media types, in words; empty if the route accepts no body.
        allowed: String,
    },
    /// The body is compressed, or encoded in another way.
    UnsupportedEncoding {
        /// As written in the request.
        encoding: String,
    },
    /// The body is in another character set than UTF-8.
    UnsupportedCharset {
        /// As written in the request.
        charset: String,
    },
    /// The host of the request is missing, or it is no host.
    InvalidHost,
    /// The host of the request is not a name of this service.
    MisdirectedRequest {
        /// As written in the request.
        host: String,
    },
    /// The request has no key, or one that cannot be used.
    NotIdentified {
        /// What is wrong with it.
        reason: IdentifyError,
    },
    /// The caller may not do this.
    ScopeMissing {
        /// The scope that its key lacks.
        scope: Scope,
    },
    /// No such key, or it cannot be used any more.
    KeyNotFound {
        /// As written in the request.
        id: String,
    },
    /// A browser sent the request for a page of another site.
    CrossSiteRequest,
    /// Too many clients of this address follow price changes.
    TooManyFollowers {
        /// The limit that is set.
        max_per_peer: usize,
    },
    /// The database, Redis or a bounded resource is unavailable.
    Unavailable {
        /// What is unavailable, in words, and what that means for the request.
        reason: &'static str,
    },
    /// The process sheds load.
    Overloaded,
    /// The answer took too long.
    Timeout,
    /// An internal error.
    Internal {
        /// For the log; not part of the answer.
        reason: String,
    },
}

impl ApiError {
    /// The error of one field.
    pub fn field(field: &str, problem: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self::Invalid { errors: vec![Diagnostic::new(field, problem, allowed)] }
    }

    /// Maps the error of reading this product's price.
    pub fn of_read(error: ReadError, product_id: &str) -> Self {
        match error {
            ReadError::UnknownProduct => Self::ProductNotFound { product_id: shorten(product_id) },
            ReadError::Unavailable(reason) => {
                tracing::warn!(reason, "a price cannot be read");
                Self::Unavailable { reason: "the database does not answer" }
            }
            ReadError::Unreadable(reason) => Self::ProductUnreadable { reason },
            ReadError::Internal(reason) => Self::Internal { reason },
        }
    }

    /// Maps the error of comparing with stored products, which writes nothing.
    pub fn of_comparison(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => error.into(),
            other => other.into(),
        }
    }

    /// The status, the stable type and the title.
    #[rustfmt::skip] // A line or two each, as in a table.
    fn spec(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::ImportEndedEarly { error, .. } => error.spec(),
            Self::MalformedBody { .. } | Self::UnusableHeader { .. } =>
                (StatusCode::BAD_REQUEST, "/problems/malformed-body", "Malformed body"),
            Self::Invalid { .. } =>
                (StatusCode::UNPROCESSABLE_ENTITY, "/problems/invalid-request", "Invalid request"),
            Self::OtherCurrency { .. } =>
                (StatusCode::UNPROCESSABLE_ENTITY, "/problems/other-currency", "Price in another currency"),
            Self::ProductNotFound { .. } =>
                (StatusCode::NOT_FOUND, "/problems/product-not-found", "Product not found"),
            Self::NoQuoteLockKey =>
                (StatusCode::CONFLICT, "/problems/no-quote-lock-key", "No key for quote locks"),
            Self::ProductChanged =>
                (StatusCode::PRECONDITION_FAILED, "/problems/product-changed", "Product changed"),
            Self::ProductUnreadable { .. } =>
                (StatusCode::INTERNAL_SERVER_ERROR, "/problems/product-unreadable", "Product unreadable"),
            Self::RecalculationNotFound { .. } =>
                (StatusCode::NOT_FOUND, "/problems/recalculation-not-found", "Recalculation not found"),
            Self::PolicyNotFound { .. } =>
                (StatusCode::NOT_FOUND, "/problems/policy-not-found", "Policy not found"),
            Self::PolicyVersionIsOld =>
                (StatusCode::PRECONDITION_FAILED, "/problems/policy-version-is-old", "Policy version is old"),
            Self::HeldByCircuitBreaker { .. } | Self::ImportHeldByCircuitBreaker { .. } =>
                (StatusCode::CONFLICT, "/problems/held-by-circuit-breaker", "Held by the circuit breaker"),
            Self::RecalculationNotHeld { .. } =>
                (StatusCode::CONFLICT, "/problems/recalculation-not-held", "Recalculation not held"),
            Self::DraftNotFound { .. } =>
                (StatusCode::NOT_FOUND, "/problems/draft-not-found", "Draft not found"),
            Self::DraftChanged => (StatusCode::PRECONDITION_FAILED, "/problems/draft-changed", "Draft changed"),
            Self::JobNotFound { .. } => (StatusCode::NOT_FOUND, "/problems/job-not-found", "Job not found"),
            Self::RouteNotFound => (StatusCode::NOT_FOUND, "/problems/not-found", "Not found"),
            Self::MethodNotAllowed =>
                (StatusCode::METHOD_NOT_ALLOWED, "/problems/method-not-allowed", "Method not allowed"),
            Self::BodyTooSlow { .. } =>
                (StatusCode::REQUEST_TIMEOUT, "/problems/body-too-slow", "Body too slow"),
            Self::BodyTooLarge { .. } | Self::SpoolTooLarge { .. } =>
                (StatusCode::PAYLOAD_TOO_LARGE, "/problems/body-too-large", "Body too large"),
            Self::UnsupportedMediaType { .. }
            | Self::UnsupportedEncoding { .. }
            | Self::UnsupportedCharset { .. } =>
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "/problems/unsupported-media-type", "Unsupported media type"),
            Self::InvalidHost => (StatusCode::BAD_REQUEST, "/problems/invalid-host", "Invalid host"),
            Self::MisdirectedRequest { .. } =>
                (StatusCode::MISDIRECTED_REQUEST, "/problems/misdirected-request", "Misdirected request"),
            Self::NotIdentified { .. } =>
                (StatusCode::UNAUTHORIZED, "/problems/not-identified", "Not identified"),
            Self::ScopeMissing { .. } => (StatusCode::FORBIDDEN, "/problems/scope-missing", "Scope missing"),
            Self::KeyNotFound { .. } => (StatusCode::NOT_FOUND, "/problems/key-not-found", "Key not found"),
            Self::CrossSiteRequest =>
                (StatusCode::FORBIDDEN, "/problems/cross-site-request", "Cross-site request"),
            Self::TooManyFollowers { .. } =>
                (StatusCode::TOO_MANY_REQUESTS, "/problems/too-many-followers", "Too many followers"),
            Self::Unavailable { .. } =>
                (StatusCode::SERVICE_UNAVAILABLE, "/problems/unavailable", "Not available now"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "/problems/overloaded", "Overloaded"),
            Self::Timeout => (StatusCode::SERVICE_UNAVAILABLE, "/problems/timeout", "Took too long"),
            Self::Internal { .. } =>
                (StatusCode::INTERNAL_SERVER_ERROR, "/problems/internal", "Internal error"),
        }
    }

    /// The problem document of this error.
    pub fn problem(self) -> Problem {
        let (status, kind, title) = self.spec();
        let detail = self.detail();
        let rows_stored = match &self {
            Self::ImportEndedEarly { stored, .. } => Some(*stored),
            _ => None,
        };
        let errors = match self {
            Self::Invalid { errors } | Self::UnusableHeader { errors, .. } => FieldError::each_of(errors),
            _ => Vec::new(),
        };
        Problem {
            kind: kind.into(),
            title: title.into(),
            status: status.as_u16(),
            detail,
            errors,
            rows_stored,
        }
    }

    /// The value of `WWW-Authenticate` (RFC 6750, 3), for answers that ask for a key.
    fn challenge(&self) -> Option<HeaderValue> {
        let challenge = match self {
            Self::NotIdentified { reason: IdentifyError::Missing } => r#"Bearer realm="pricing""#.to_owned(),
            Self::NotIdentified { .. } => r#"Bearer realm="pricing", error="invalid_token""#.to_owned(),
            Self::ScopeMissing { scope } => {
                format!(r#"Bearer realm="pricing", error="insufficient_scope", scope="{scope}""#)
            }
            _ => return None,
        };
        HeaderValue::from_str(&challenge).ok()
    }

    /// This error of reading or storing rows, with the number of those that are stored.
    pub(crate) fn of_import(self, stored: u64) -> Self {
        match self {
            // Rows are refused for their own sake: the same import would end the same way.
            Self::UnusableHeader { .. } | Self::SpoolTooLarge { .. } | Self::ImportEndedEarly { .. } => self,
            error => Self::ImportEndedEarly { error: Box::new(error), stored },
        }
    }

    /// The explanation of this occurrence.
    fn detail(&self) -> String {
        match self {
            Self::MalformedBody { reason } | Self::UnusableHeader { reason, .. } => reason.clone(),
            Self::Invalid { errors } => errors.first().map(ToString::to_string).unwrap_or_default(),
            Self::ProductNotFound { product_id } => format!("there is no product \"{product_id}\""),
            Self::ProductUnreadable { reason } => {
                format!("{reason}; put it with a known one, or use a newer version")
            }
            Self::ProductChanged => {
                "the product is not the one that If-Match or If-None-Match says; look at it first".to_owned()
            }
            Self::OtherCurrency { product_id, currency, expected } => {
                format!("the price of \"{product_id}\" is in {currency}, not in \"{expected}\"")
            }
            Self::NoQuoteLockKey => format!(
                "no key for quote locks is set: create one with `pricing quote new-key`, and name its file in {}",
                QUOTE_LOCK_KEY_FILE.name
            ),
            Self::RecalculationNotFound { task_id } => format!("there is no recalculation \"{task_id}\""),
            Self::PolicyNotFound { version } => format!("there is no policy version \"{version}\""),
            Self::PolicyVersionIsOld => "another version was published since; look at it first".to_owned(),
            Self::HeldByCircuitBreaker { reasons } => format!(
                "{}; nothing was published: simulate it, and publish it with approve=true or approved_by if this is meant",
                reasons.join("; ")
            ),
            Self::ImportHeldByCircuitBreaker { reasons } => format!(
                "{}; nothing was stored: look at the moves with dry_run, and import it with approve=true or approved_by if this is meant",
                reasons.join("; ")
            ),
            Self::RecalculationNotHeld { state } => format!("it is {state}, not held"),
            Self::DraftNotFound { name } => format!("there is no draft \"{name}\""),
            Self::DraftChanged => "the draft was changed since; look at it first".to_owned(),
            Self::JobNotFound { task_id } => format!("there is no failed job \"{task_id}\""),
            Self::RouteNotFound => "there is no such route; see /docs".to_owned(),
            Self::MethodNotAllowed => "the route exists, but not with this method; see /docs".to_owned(),
            Self::BodyTooSlow { reason } => format!("the body is too slow: {reason}"),
            Self::BodyTooLarge { max_bytes } => format!("the body is longer than {max_bytes} bytes"),
            Self::ImportEndedEarly { error, stored } => {
                format!("{}; {}", error.detail(), rows_stored(*stored))
            }
            Self::SpoolTooLarge { limit_bytes } => format!(
                "the body is longer than {limit_bytes} bytes, the most that a circuit breaker judges; nothing was \
                 stored: raise {}, or import it with approve=true or approved_by",
                IMPORT_SPOOL_LIMIT_BYTES.name
            ),
            Self::UnsupportedMediaType { allowed } if allowed.is_empty() => {
                "the route takes no body with this method".to_owned()
            }
            Self::UnsupportedMediaType { allowed } => format!("Content-Type must be {allowed}"),
            Self::UnsupportedEncoding { encoding } => format!("Content-Encoding \"{encoding}\" is not read"),
            Self::UnsupportedCharset { charset } => format!("the charset \"{charset}\" is not UTF-8"),
            Self::InvalidHost
            | Self::MisdirectedRequest { .. }
            | Self::NotIdentified { .. }
            | Self::ScopeMissing { .. }
            | Self::KeyNotFound { .. }
            | Self::CrossSiteRequest => self.refusal_of_caller(),
            Self::TooManyFollowers { max_per_peer } => format!(
                "{max_per_peer} clients of this address follow price changes already; see {}",
                MAX_FOLLOWERS_PER_PEER.name
            ),
            Self::Unavailable { reason } => format!("{reason}; try again later"),
            Self::Overloaded => "more is asked than can be answered now; try again later".to_owned(),
            Self::Timeout => "the answer took too long; try again later".to_owned(),
            Self::Internal { .. } => "the engine has a fault; its log says more".to_owned(),
        }
    }

    /// The explanation of an error that concerns who sends the request, or to which name.
    fn refusal_of_caller(&self) -> String {
        match self {
            Self::InvalidHost => {
                "HTTP/1.1 needs one Host header, with a name or an address and optionally a port".to_owned()
            }
            Self::MisdirectedRequest { host } => {
                format!("\"{host}\" is not a name of this service; list its names in PRICING_HOSTS")
            }
            Self::NotIdentified { reason } => reason.to_string(),
            Self::ScopeMissing { scope } => format!("the key lacks the scope {scope}"),
            Self::KeyNotFound { id } => format!("there is no key \"{id}\" that can be used"),
            Self::CrossSiteRequest => {
                "a page of another site may not send this request; see Browsers in docs/operations.md"
                    .to_owned()
            }
            _ => String::new(),
        }
    }
}

/// What an import that ended early has stored, and what to do.
fn rows_stored(stored: u64) -> String {
    let stored = match stored {
        0 => "nothing is stored".to_owned(),
        1 => "1 row is stored".to_owned(),
        rows => format!("{rows} rows are stored"),
    };
    format!("{stored}, and the same import can be repeated: stored rows count as unchanged")
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if error.is_transient() {
            tracing::warn!(%error, "a request is refused: the database does not answer");
            return Self::Unavailable { reason: "the database does not answer" };
        }
        if matches!(error, StoreError::UnknownCurrency { .. }) {
            return Self::ProductUnreadable { reason: error.to_string() };
        }
        Self::Internal { reason: error.to_string() }
    }
}

impl From<RedisError> for ApiError {
    fn from(error: RedisError) -> Self {
        if error.is_refusal() {
            tracing::warn!(%error, "redis refuses a command of a request");
            return Self::Unavailable { reason: "redis refuses a command" };
        }
        tracing::warn!(%error, "redis does not answer a request");
        Self::Unavailable { reason: "redis does not answer" }
    }
}

/// Maps the error of publishing events: the caller may retry.
impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        tracing::warn!(%error, "an event is refused");
        let reason = match error {
            PublishError::Redis(_) => {
                "redis does not take the event; publishing it again with the same id does no harm"
            }
            PublishError::Full => "too many events wait to be applied",
            PublishError::Evicts { .. } => {
                "redis would evict the event: its maxmemory-policy has to be volatile-lfu or noeviction"
            }
        };
        Self::Unavailable { reason }
    }
}

/// Maps the error of a write: transient failures are 503, whatever their cause. Reads only have a
/// [`StoreError`] or [`ReadError`].
impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Redis(error) => {
                tracing::warn!(%error, "a change is stored, and redis does not take it yet");
                Self::Unavailable {
                    reason: "the change is stored, but redis does not take it yet; sending it again does no harm",
                }
            }
            EngineError::Store(error @ StoreError::Behind { .. }) => {
                tracing::warn!(%error, "a write is refused");
                Self::Unavailable {
                    reason: "the database was restored from a backup; sending it again in a moment does no harm",
                }
            }
            EngineError::Store(error) | EngineError::Policies(PolicySnapshotError::Store(error))
                if error.is_transient() =>
            {
                tracing::warn!(%error, "a write has failed: the database does not answer");
                // The database may have committed the change without acknowledging it.
                Self::Unavailable {
                    reason: "the database does not answer, so it is not known whether the change is stored; \
                             sending it again does no harm",
                }
            }
            unknown @ EngineError::PolicyUnknown { .. } => {
                tracing::warn!(error = %unknown, "a write is refused: a newer version of the engine has to do it");
                Self::Unavailable {
                    reason: "a price was made by a policy that this process cannot read: a newer version of the engine has to do it",
                }
            }
            other => Self::Internal { reason: other.to_string() },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let cause = if let Self::ImportEndedEarly { error, .. } = &self { error } else { &self };
        if let Self::Internal { reason } | Self::ProductUnreadable { reason } = cause {
            tracing::error!(reason, "a request failed");
        }
        let (status, ..) = self.spec();
        let challenge = self.challenge();
        let is_encoding_refused = matches!(self, Self::UnsupportedEncoding { .. });
        let body = serde_json::to_vec(&self.problem()).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        if let Some(challenge) = challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        if is_encoding_refused {
            // RFC 9110, 15.5.16.
            response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        response
    }
}

#[cfg(test)]
mod tests;
