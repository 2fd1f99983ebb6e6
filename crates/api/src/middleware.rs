//! What happens around every request; the order is the document.
//!
//! From the outside in: the measurement, the trace and the time limit (so that they see every answer), the
//! panic catcher. The first three are one layer, as each layer costs a price two allocations.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use hyper::body::Incoming;
use pricing_core::telemetry::metrics::Metrics;
use pricing_core::telemetry::spans::{self, TRACEPARENT, TraceParent};
use tracing::{Instrument, Span};

use crate::error::ApiError;
use crate::routes::{price, prices};
use crate::state::AppState;

/// How long an answer may take, with the reading of the request's body, which has a limit of its own.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Routes that stream, or go through the whole catalogue, and may take as long as they need; their bodies may
/// not.
pub(crate) const STREAMING_ROUTES: [&str; 5] = [
    "/api/v1/products/import",
    "/api/v1/price-changes",
    "/api/v1/policies",
    "/api/v1/policies/{version}/rollback",
    "/api/v1/policies/simulate",
];

/// Measures the request under its route's pattern, and traces it if it is to be.
pub(crate) async fn observe(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    let route = path.map_or("unmatched", |path| crate::router::route_name(path.as_str()));
    let span = span_of(&request, route, state.traced_price_ratio);
    let answering = next.run(request);
    if STREAMING_ROUTES.contains(&route) {
        return observed(&state.metrics, route, span, answering).await;
    }
    observed(&state.metrics, route, span, in_time(answering)).await
}

/// The same around a price that a lane answers without the way through the routes.
pub(crate) async fn observe_price<A: Future<Output = Response>>(
    state: &AppState,
    request: hyper::Request<Incoming>,
    answer: impl FnOnce(Incoming) -> A,
) -> Response {
    let span = span_of(&request, price::PATH, state.traced_price_ratio);
    let answering = AssertUnwindSafe(answer(request.into_body())).catch_unwind();
    let started = Instant::now();
    let answering = in_time(answering.map(|answer| answer.unwrap_or_else(answer_panic)));
    let response = traced(span, answering).await;
    match response.status() {
        StatusCode::OK => state.answered_prices.record(started.elapsed()),
        status => state.metrics.record_request(price::PATH, status.as_u16(), started.elapsed()),
    }
    response
}

async fn observed(
    metrics: &Metrics,
    route: &'static str,
    span: Option<Span>,
    answer: impl Future<Output = Response>,
) -> Response {
    let started = Instant::now();
    let response = traced(span, answer).await;
    metrics.record_request(route, response.status().as_u16(), started.elapsed());
    response
}

async fn traced(span: Option<Span>, answer: impl Future<Output = Response>) -> Response {
    let Some(span) = span else { return answer.await };
    let response = answer.instrument(span.clone()).await;
    spans::record_answer(&span, response.status().as_u16());
    response
}

/// The request's span, which goes on with the caller's trace if there is one. Of prices only a part is
/// traced, as a span costs more than a price; of what only machines ask for, nothing.
fn span_of<B>(request: &hyper::Request<B>, route: &str, price_ratio: f64) -> Option<Span> {
    if !route.starts_with("/api/") {
        return None;
    }
    let parent = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
    let parent = parent.and_then(TraceParent::parse);
    let is_traced = match (route, &parent) {
        (price::PATH | prices::PATH, Some(parent)) => parent.is_sampled(),
        (price::PATH | prices::PATH, None) => price_ratio > 0.0 && fastrand::f64() < price_ratio,
        _ => true,
    };
    is_traced.then(|| spans::request(request.method().as_str(), route, request.uri().path(), parent.as_ref()))
}

/// The answer, unless it takes too long.
async fn in_time(answer: impl Future<Output = Response>) -> Response {
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, answer).await;
    answer.unwrap_or_else(|_| ApiError::Timeout.into_response())
}

/// The answer to a request whose handler panicked.
#[expect(clippy::needless_pass_by_value, reason = "this is how the layer calls it")]
pub(crate) fn answer_panic(panic: Box<dyn Any + Send + 'static>) -> Response {
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned());
    ApiError::Internal { reason: format!("a handler panicked: {message}") }.into_response()
}
