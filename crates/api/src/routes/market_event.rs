//! `POST /api/v1/publish-market-event`: publishes market events.
//!
//! An event is checked and appended to the stream; workers apply it. A request without a body, and without a
//! header that indicates an event, requests a recalculation of the whole catalogue. A batch is accepted as a
//! whole or not at all.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use pricing_core::events::publish::PUBLISH_BATCH;
use pricing_domain::diagnostic::Diagnostic;
use pricing_domain::facts::market_event::{EventDraft, EventId, MarketEvent};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::error::ApiError;
use crate::extract::{BoundedBody, MAX_BATCH_BODY_BYTES, MAX_BODY_BYTES, unreadable};
use crate::routes::market_event_schema::MarketEventSchema;
use crate::state::AppState;

/// The path of this route.
pub(crate) const PATH: &str = "/api/v1/publish-market-event";
/// The source of the events that this route creates itself.
const SOURCE: &str = PATH;
/// The media type of a batch; a JSON array is a batch, too.
const BATCH_TYPE: &str = "application/cloudevents-batch+json";
/// What to send instead of an event whose attributes are headers.
const STRUCTURED: &str =
    "structured content mode: the attributes beside the data in the body, as application/cloudevents+json";
/// Errors in one answer: enough to find the mistake, in an answer that is not many times as long as its
/// request.
const MAX_ERRORS: usize = 100;

/// The published events.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct PublishAnswer {
    /// `Event published`, or for a batch `Events published`.
    #[schema(example = "Event published")]
    status: &'static str,
    /// The Redis channel on which events are published.
    channel: String,
    /// The event's identifier; for a batch, that of its first event.
    event_id: String,
    /// For a batch, the identifiers of all events, in order; absent for a single event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    event_ids: Option<Vec<String>>,
}

/// Publishes a market event, or a batch of them.
#[utoipa::path(post, path = PATH, tag = "market", summary = "Publish market events",
    request_body(content(
        (MarketEventSchema = "application/json"),
        (MarketEventSchema = "application/cloudevents+json"),
        (Vec<MarketEventSchema> = "application/cloudevents-batch+json")),
        description = "One event, or a JSON array of up to 1,000; binary content mode (`ce-` headers) is not supported. A request without a body, Content-Type and `ce-` headers recalculates all prices"),
    responses(
        (status = 200, description = "Stored on disk; it will be applied", body = PublishAnswer),
        (status = 400, description = "The body is not JSON"),
        (status = 413, description = "The event is longer than 64 KiB, or the batch than 1 MiB"),
        (status = 422, description = "A field is missing or invalid; nothing was published"),
        (status = 503, description = "Redis does not answer, or too many events are waiting")))]
pub(crate) async fn publish(
    State(state): State<AppState>,
    headers: HeaderMap,
    BoundedBody(body): BoundedBody<MAX_BATCH_BODY_BYTES>,
) -> Result<Response, ApiError> {
    let now = state.engine.clock.now();
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let body = body.trim_ascii();
    let is_batch = !body.is_empty() && (body.starts_with(b"[") || is_batch_type(content_type));
    let events = match read_events(&headers, body, is_batch, now) {
        Err(ApiError::Invalid { mut errors }) if is_in_binary_mode(&headers) => {
            errors.insert(0, Diagnostic::new("ce- headers", "are not read", STRUCTURED));
            return Err(ApiError::Invalid { errors });
        }
        read => read?,
    };
    state.events.publish(&events).await?;
    state.metrics.events_published.increment(u64::try_from(events.len()).unwrap_or(u64::MAX));
    let event_ids: Vec<String> = events.into_iter().map(|event| event.id.id).collect();
    let answer = PublishAnswer {
        status: if is_batch { "Events published" } else { "Event published" },
        channel: state.events.channel(),
        event_id: event_ids.first().cloned().unwrap_or_default(),
        event_ids: is_batch.then_some(event_ids),
    };
    Ok(Json(answer).into_response())
}

/// The events of a request. Without a body, it requests a recalculation of everything, unless a header
/// indicates an event: otherwise each event of a broker that sends another format would cause a
/// recalculation.
fn read_events(
    headers: &HeaderMap,
    body: &[u8],
    is_batch: bool,
    now: DateTime<Utc>,
) -> Result<Vec<MarketEvent>, ApiError> {
    if body.is_empty() {
        if headers.contains_key(header::CONTENT_TYPE) || is_in_binary_mode(headers) {
            let problem = "is missing, so the event is incomplete";
            let allowed = "an event; a recalculation of everything is asked for without a body, a Content-Type and ce- headers";
            return Err(ApiError::field("body", problem, allowed));
        }
        let id = EventId { source: SOURCE.to_owned(), id: Uuid::now_v7().to_string() };
        return Ok(vec![MarketEvent::recalculate_all(id, now)]);
    }
    if is_batch {
        return check_batch(body, now);
    }
    if body.len() > MAX_BODY_BYTES {
        return Err(ApiError::BodyTooLarge { max_bytes: MAX_BODY_BYTES });
    }
    let draft = EventDraft::read(body).map_err(|error| unreadable(&error))?;
    Ok(vec![check(draft, now).map_err(|errors| ApiError::Invalid { errors })?])
}

/// Whether the headers carry attributes of an event, as in binary content mode (CloudEvents 1.0, HTTP
/// Protocol Binding, 3.1).
fn is_in_binary_mode(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("ce-"))
}

fn is_batch_type(content_type: &str) -> bool {
    content_type
        .split(';')
        .next()
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(BATCH_TYPE))
}

fn check(draft: EventDraft, now: DateTime<Utc>) -> Result<MarketEvent, Vec<Diagnostic>> {
    let event = draft.check(now)?;
    event.check_time(now).map_err(|problem| vec![problem])?;
    Ok(event)
}

fn check_batch(body: &[u8], now: DateTime<Utc>) -> Result<Vec<MarketEvent>, ApiError> {
    // Split first, so that a problem of one event is reported with its index.
    let texts: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    if !(1..=PUBLISH_BATCH).contains(&texts.len()) {
        let problem = format!("{} events are not allowed", texts.len());
        return Err(ApiError::field("body", problem, format!("1 to {PUBLISH_BATCH} events")));
    }
    let mut events = Vec::with_capacity(texts.len());
    let mut errors = Vec::new();
    for (index, text) in texts.into_iter().enumerate() {
        match EventDraft::read(text.get().as_bytes()) {
            Ok(draft) => match check(draft, now) {
                Ok(event) => events.push(event),
                Err(problems) => errors.extend(problems.into_iter().map(|problem| at(index, problem))),
            },
            Err(error) => errors.push(Diagnostic::bare(format!("[{index}]"), error.to_string())),
        }
        if errors.len() >= MAX_ERRORS {
            errors.truncate(MAX_ERRORS);
            break;
        }
    }
    if errors.is_empty() { Ok(events) } else { Err(ApiError::Invalid { errors }) }
}

fn at(index: usize, problem: Diagnostic) -> Diagnostic {
    Diagnostic { field: format!("[{index}].{}", problem.field), ..problem }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use pricing_domain::facts::market_event::Change;
    use pricing_domain::facts::recalculation::RecalculationScope;

    use super::*;

    const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"s","type":"pricing.stock_level.v1",
        "data":{"product_id":"P-1","level":7}}"#;

    fn fields(body: &str) -> Vec<String> {
        match check_batch(body.as_bytes(), Utc::now()) {
            Err(ApiError::Invalid { errors }) => errors.into_iter().map(|error| error.field).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn problems_in_a_batch_have_the_index_of_their_event() {
        let wrong_level = EVENT.replace('7', "-7");
        let wrong_type = EVENT.replace("\"s\"", "5");
        let batch = format!("[{EVENT},{wrong_level},{wrong_type},[],{EVENT}]");
        assert_eq!(fields(&batch), ["[1].data.level", "[2]", "[3]"]);
        assert_eq!(fields("[]"), ["body"]);
        assert_eq!(fields(EVENT), ["body"]);
        assert_eq!(check_batch(format!("[{EVENT}]").as_bytes(), Utc::now()).unwrap().len(), 1);
        assert!(matches!(check_batch(b"[{", Utc::now()), Err(ApiError::MalformedBody { .. })));
    }

    #[test]
    fn only_a_request_without_an_event_recalculates_everything() {
        let read = |headers: &[(&'static str, &'static str)], body: &str| {
            let named = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            read_events(&named.collect(), body.as_bytes(), false, Utc::now())
        };
        let all = read(&[("accept", "*/*")], "").unwrap();
        assert!(matches!(
            all.as_slice(),
            [MarketEvent { change: Change::RecalculationRequested { scope: RecalculationScope::All }, .. }]
        ));
        for header in [
            ("ce-type", "com.example.order.created"),
            ("content-type", "application/cloudevents+json"),
            ("content-type", "application/cloudevents-batch+json"),
            ("content-type", "application/json"),
        ] {
            let refused = read(&[header], "");
            assert!(
                matches!(&refused, Err(ApiError::Invalid { errors }) if errors[0].field == "body"),
                "{refused:?}"
            );
        }
        assert_eq!(read(&[("ce-id", "1")], EVENT).unwrap().len(), 1, "structured mode counts");
    }

    #[test]
    fn the_errors_of_an_answer_are_bounded() {
        let batch = format!("[{}]", vec!["{}"; PUBLISH_BATCH].join(","));
        assert_eq!(fields(&batch).len(), MAX_ERRORS);
        let too_many = format!("[{}]", vec![EVENT; PUBLISH_BATCH + 1].join(","));
        assert_eq!(fields(&too_many), ["body"]);
    }

    #[test]
    fn a_batch_is_recognised_by_its_media_type() {
        for is_one in
            ["application/cloudevents-batch+json", "Application/CloudEvents-Batch+JSON; charset=utf-8"]
        {
            assert!(is_batch_type(is_one), "{is_one}");
        }
        assert!(!is_batch_type("application/cloudevents+json"));
        assert!(!is_batch_type(""));
    }
}
