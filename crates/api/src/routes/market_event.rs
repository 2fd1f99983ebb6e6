//! `POST /api/v1/publish-market-event`: the market moved.
//!
//! An event is checked and written to the stream; what follows from it happens elsewhere. Without a body it asks for
//! a recalculation of the whole catalogue. A batch is taken in as a whole or not at all.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use pricing_core::domain::diagnostic::Diagnostic;
use pricing_core::domain::market_event::{EventDraft, EventId, MarketEvent};
use pricing_core::events::publish::PUBLISH_BATCH;
use serde::Serialize;
use uuid::Uuid;

use crate::error::{ApiError, Problem};
use crate::extract::{BoundedBody, MAX_BATCH_BODY_BYTES, MAX_BODY_BYTES};
use crate::state::AppState;

/// The source of the events that this route makes itself.
const SOURCE: &str = "/api/v1/publish-market-event";
/// The media type of a batch; a JSON array is one too.
const BATCH_TYPE: &str = "application/cloudevents-batch+json";

/// What was taken in.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct PublishAnswer {
    /// `Event published`.
    #[schema(example = "Event published")]
    status: &'static str,
    /// The channel on which it is heard.
    channel: String,
    /// The event's identifier; of a batch, the first one's.
    event_id: String,
    /// How many events there were.
    events: usize,
}

/// A market event, as CloudEvents 1.0 has it.
#[derive(Debug, utoipa::ToSchema)]
#[schema(as = MarketEvent)]
#[expect(dead_code, reason = "documents the wire form of a type of the core")]
pub(crate) struct MarketEventSchema {
    /// `1.0`.
    #[schema(example = "1.0")]
    specversion: String,
    /// Unique among what the source says; an event that is published again is applied once.
    #[schema(example = "2026-01-31/4711", max_length = 128)]
    id: String,
    /// Who says it.
    #[schema(example = "/scrapers/acme", max_length = 256)]
    source: String,
    /// `pricing.competitor_price.v1`, `pricing.demand_index.v1`, `pricing.stock_level.v1`, `pricing.unit_cost.v1`,
    /// `pricing.location_factor.v1`, `pricing.catalogue_changed.v1`, `pricing.policy_published.v1` or
    /// `pricing.recalculation_requested.v1`.
    #[schema(example = "pricing.competitor_price.v1")]
    r#type: String,
    /// When it was true; now if absent. Of two about the same thing the later one counts, in whatever order they come.
    time: Option<chrono::DateTime<Utc>>,
    /// By type: `{product_id, competitor, price}`, `{product_id or category, index}`, `{product_id, level}`,
    /// `{product_id, cost}`, `{location, factor}`, `{product_ids}`, `{version}`, `{}` or `{category}` or
    /// `{product_ids}`.
    #[schema(value_type = Object, example = json!({"product_id": "P-100", "competitor": "acme", "price": 41.90}))]
    data: serde_json::Value,
}

/// Publishes a market event, or a batch of them.
#[utoipa::path(post, path = "/api/v1/publish-market-event", tag = "market", summary = "Publish a market event",
    request_body(content(
        (MarketEventSchema = "application/cloudevents+json"),
        (Vec<MarketEventSchema> = "application/cloudevents-batch+json")),
        description = "One event, or up to 1,000 as a JSON array; without a body, everything is recalculated"),
    responses(
        (status = 200, description = "It is on disk and will be applied", body = PublishAnswer),
        (status = 400, description = "Not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "More than 64 KiB, or of a batch 1 MiB", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is missing or not allowed; nothing was published", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Redis does not answer, or too many events wait", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn publish(
    State(state): State<AppState>,
    headers: HeaderMap,
    BoundedBody(body): BoundedBody<MAX_BATCH_BODY_BYTES>,
) -> Result<Response, ApiError> {
    let now = Utc::now();
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let body = body.trim_ascii();
    let events = if body.is_empty() {
        let id = EventId { source: SOURCE.to_owned(), id: Uuid::now_v7().to_string() };
        vec![MarketEvent::recalculate_all(id, now)]
    } else if body.starts_with(b"[") || content_type.starts_with(BATCH_TYPE) {
        check_batch(read_json(body)?, now)?
    } else if body.len() > MAX_BODY_BYTES {
        return Err(ApiError::BodyTooLarge { max_bytes: MAX_BODY_BYTES });
    } else {
        vec![check(read_json(body)?, now).map_err(|errors| ApiError::Invalid { errors })?]
    };
    state.events.publish(&events).await?;
    state.metrics.events_published.increment(u64::try_from(events.len()).unwrap_or(u64::MAX));
    let event_id = events.first().map(|event| event.id.id.clone()).unwrap_or_default();
    let answer = PublishAnswer {
        status: "Event published",
        channel: state.events.channel(),
        event_id,
        events: events.len(),
    };
    Ok(Json(answer).into_response())
}

fn read_json<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    // serde_json and not simd-json, which hands numbers over as binary floating point.
    serde_json::from_slice(body).map_err(|error| {
        let reason = format!("the body cannot be read: {error}");
        // JSON, but no event: a field of the wrong type.
        if error.is_data() {
            ApiError::Invalid { errors: vec![Diagnostic::bare("body", reason)] }
        } else {
            ApiError::MalformedBody { reason }
        }
    })
}

fn check(draft: EventDraft, now: chrono::DateTime<Utc>) -> Result<MarketEvent, Vec<Diagnostic>> {
    let event = draft.check(now)?;
    event.check_time(now).map_err(|problem| vec![problem])?;
    Ok(event)
}

fn check_batch(drafts: Vec<EventDraft>, now: chrono::DateTime<Utc>) -> Result<Vec<MarketEvent>, ApiError> {
    if !(1..=PUBLISH_BATCH).contains(&drafts.len()) {
        let problem = format!("{} events are not allowed", drafts.len());
        return Err(ApiError::field("body", problem, format!("1 to {PUBLISH_BATCH} events")));
    }
    let mut events = Vec::with_capacity(drafts.len());
    let mut errors = Vec::new();
    for (index, draft) in drafts.into_iter().enumerate() {
        match check(draft, now) {
            Ok(event) => events.push(event),
            Err(problems) => errors.extend(
                problems
                    .into_iter()
                    .map(|problem| Diagnostic { field: format!("[{index}].{}", problem.field), ..problem }),
            ),
        }
    }
    if errors.is_empty() { Ok(events) } else { Err(ApiError::Invalid { errors }) }
}
