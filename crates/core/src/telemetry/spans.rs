//! The inventory of spans: the traced work of the engine, and the propagation of traces between processes.
//!
//! | span | kind | where | parent |
//! |---|---|---|---|
//! | `{method} {route}` | server | API | the request's `traceparent`, if any |
//! | `send market_events:log` | producer | API, listener | the request |
//! | `process market_events:log` | consumer | listener | the first event's `send`; the others' are linked |
//! | `send jobs` | producer | listener, worker | the span that enqueues the job |
//! | `process jobs` | consumer | worker | the job's `send` |
//! | `{what} {database}` | client | worker, API | the job or the request |
//! | `put prices` | client | worker, API | the job or the request |
//! | `send price_changes` | producer | worker, API | the job or the request |
//! | `process price_changes` | consumer | API | the notification's `send` |
//!
//! Names and attributes are those of OpenTelemetry's semantic conventions (HTTP and database are stable
//! there, messaging is not yet), in the version that [`SCHEMA_URL`] names; the engine's own additions begin
//! with `pricing.`.
//!
//! Untraced work costs next to nothing: all spans but the first of a trace are created only inside another
//! one.

use std::collections::HashMap;
use std::fmt::Display;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
pub use opentelemetry_semantic_conventions::SCHEMA_URL;
use tracing::field::Empty;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The target of the engine's own spans, which distinguishes them from those of libraries.
pub(super) const TARGET: &str = "pricing::span";

/// The header, the entry's field and the attribute that propagate a trace.
pub const TRACEPARENT: &str = "traceparent";

/// A propagated trace context: a `traceparent` of the W3C Trace Context recommendation, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent(String);

impl TraceParent {
    /// Parses a received `traceparent`.
    pub fn parse(written: &str) -> Option<Self> {
        let this = Self(written.to_owned());
        this.context().span().span_context().is_valid().then_some(this)
    }

    /// The context of the current span, if it is recorded.
    pub fn current() -> Option<Self> {
        let span = Span::current();
        if span.is_none() {
            return None;
        }
        let mut carrier = HashMap::new();
        TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
        carrier.remove(TRACEPARENT).map(Self)
    }

    /// The header's value.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The identifier of the trace: 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        self.context().span().span_context().trace_id().to_string()
    }

    /// Whether the sender records the trace.
    pub fn is_sampled(&self) -> bool {
        self.context().span().span_context().is_sampled()
    }

    fn context(&self) -> opentelemetry::Context {
        let carrier = HashMap::from([(TRACEPARENT.to_owned(), self.0.clone())]);
        TraceContextPropagator::new().extract_with_context(&opentelemetry::Context::new(), &carrier)
    }
}

/// A server span of one HTTP request.
pub fn request(method: &str, route: &str, path: &str, parent: Option<&TraceParent>) -> Span {
    let span = info_span!(
        target: TARGET,
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        otel.status_description = Empty,
        trace_id = Empty,
        http.request.method = method,
        http.route = route,
        url.path = path,
        url.scheme = "http",
        http.response.status_code = Empty,
    );
    begin(span, parent)
}

/// Records the status of a response.
pub fn record_answer(span: &Span, status: u16) {
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}

/// Creates a producer span: this many messages are sent over this stream, queue or channel.
pub fn send(destination: &str, messages: usize) -> Span {
    if Span::current().is_none() {
        return Span::none();
    }
    info_span!(
        target: TARGET,
        "send",
        otel.name = format!("send {destination}"),
        otel.kind = "producer",
        otel.status_code = Empty,
        otel.status_description = Empty,
        messaging.system = "redis",
        messaging.operation.name = "send",
        messaging.operation.type = "send",
        messaging.destination.name = destination,
        messaging.batch.message_count = messages,
    )
}

/// Creates a consumer span: it continues the trace of the first message and links those of the others. The
/// span is disabled if no message is traced.
pub fn process<'a>(
    destination: &str,
    messages: usize,
    mut parents: impl Iterator<Item = &'a TraceParent>,
) -> Span {
    let Some(first) = parents.next() else { return Span::none() };
    let span = info_span!(
        target: TARGET,
        "process",
        otel.name = format!("process {destination}"),
        otel.kind = "consumer",
        otel.status_code = Empty,
        otel.status_description = Empty,
        trace_id = Empty,
        messaging.system = "redis",
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.name = destination,
        messaging.batch.message_count = messages,
        messaging.message.id = Empty,
        pricing.job.kind = Empty,
        pricing.queue.wait_ms = Empty,
    );
    let span = begin(span, Some(first));
    for other in parents.filter(|other| *other != first).take(MAX_LINKS) {
        span.add_link(other.context().span().span_context().clone());
    }
    span
}

/// The largest number of links of one span.
const MAX_LINKS: usize = 128;

/// Records the job of a `process` span.
pub fn record_job(span: &Span, task_id: &str, kind: &str, wait_ms: i64) {
    span.record("messaging.message.id", task_id);
    span.record("pricing.job.kind", kind);
    span.record("pricing.queue.wait_ms", wait_ms);
}

/// A client span of database work; `system` is `sqlite` or `postgresql`.
pub fn database(system: &str, what: &str) -> Span {
    if Span::current().is_none() {
        return Span::none();
    }
    info_span!(
        target: TARGET,
        "database",
        otel.name = format!("{what} {system}"),
        otel.kind = "client",
        otel.status_code = Empty,
        otel.status_description = Empty,
        db.system.name = system,
        db.operation.name = what,
    )
}

/// A client span of storing prices in Redis.
pub fn put_prices(prices: usize) -> Span {
    if Span::current().is_none() {
        return Span::none();
    }
    info_span!(
        target: TARGET,
        "redis",
        otel.name = "put prices",
        otel.kind = "client",
        otel.status_code = Empty,
        otel.status_description = Empty,
        db.system.name = "redis",
        db.operation.name = "EVALSHA",
        db.operation.batch.size = prices,
    )
}

/// Records that the work of a span failed.
pub fn record_error(span: &Span, error: &impl Display) {
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", tracing::field::display(error));
}

/// Sets the parent of a span, and the trace identifier for log lines within it.
fn begin(span: Span, parent: Option<&TraceParent>) -> Span {
    if let Some(parent) = parent {
        // Fails only for a span that has already begun.
        let _ = span.set_parent(parent.context());
    }
    let context = span.context();
    let trace_id = context.span().span_context().trace_id();
    if trace_id != opentelemetry::TraceId::INVALID {
        span.record("trace_id", tracing::field::display(trace_id));
    }
    span
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_valid_traceparent_is_accepted() {
        for written in [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        ] {
            let parsed = TraceParent::parse(written).unwrap();
            assert_eq!(parsed.as_str(), written);
            assert_eq!(parsed.is_sampled(), written.ends_with("01"));
        }
        for wrong in [
            "",
            "x",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceParent::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn without_a_trace_there_is_no_context_to_propagate() {
        assert_eq!(TraceParent::current(), None);
        assert!(send("somewhere", 1).is_none());
        assert!(database("sqlite", "read").is_none());
        assert!(process("somewhere", 1, std::iter::empty()).is_none());
    }

    #[test]
    fn attributes_have_the_names_of_the_conventions() {
        use opentelemetry_semantic_conventions::attribute;
        let _within = tracing::subscriber::set_default(tracing_subscriber::registry());
        let parent = TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        let request = request("GET", "/", "/", None);
        let _inside = request.clone().entered();
        let messages = [
            attribute::MESSAGING_SYSTEM,
            attribute::MESSAGING_OPERATION_NAME,
            attribute::MESSAGING_OPERATION_TYPE,
            attribute::MESSAGING_DESTINATION_NAME,
            attribute::MESSAGING_BATCH_MESSAGE_COUNT,
        ];
        let http = [
            attribute::HTTP_REQUEST_METHOD,
            attribute::HTTP_ROUTE,
            attribute::URL_PATH,
            attribute::URL_SCHEME,
            attribute::HTTP_RESPONSE_STATUS_CODE,
        ];
        let database_names = [attribute::DB_SYSTEM_NAME, attribute::DB_OPERATION_NAME];
        let spans = [
            (request, http.to_vec()),
            (send("jobs", 1), messages.to_vec()),
            (process("jobs", 1, std::iter::once(&parent)), {
                messages.into_iter().chain([attribute::MESSAGING_MESSAGE_ID]).collect()
            }),
            (database("sqlite", "transaction"), database_names.to_vec()),
            (put_prices(1), {
                database_names.into_iter().chain([attribute::DB_OPERATION_BATCH_SIZE]).collect()
            }),
        ];
        for (span, expected) in spans {
            let mut fields: Vec<&str> =
                span.metadata().unwrap().fields().iter().map(|field| field.name()).collect();
            fields
                .retain(|field| !["otel.", "pricing.", "trace_id"].iter().any(|own| field.starts_with(own)));
            fields.sort_unstable();
            let mut expected = expected;
            expected.sort_unstable();
            assert_eq!(fields, expected);
        }
    }
}
