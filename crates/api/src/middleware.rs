//! What happens around every request; the order is the document.
//!
//! From the outside in: the measurement, the trace and the time limit (so that they see every answer), the panic
//! catcher. The first three are one layer, as each layer costs a price two allocations.

use std::any::Any;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use pricing_core::telemetry::metrics::Metrics;
use pricing_core::telemetry::spans::{self, TRACEPARENT, TraceParent};
use tracing::{Instrument, Span};

use crate::error::ApiError;

/// How long an answer may take.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Routes that stream, or go through the whole catalogue, and may take as long as they need.
pub(crate) const STREAMING_ROUTES: [&str; 5] = [
    "/api/v1/products/import",
    "/api/v1/price-changes",
    "/api/v1/policies",
    "/api/v1/policies/{version}/rollback",
    "/api/v1/policies/simulate",
];

/// Measures the request under its route's pattern, and traces it if it is to be.
pub(crate) async fn observe(
    State((metrics, price_ratio)): State<(Metrics, f64)>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let path = request.extensions().get::<MatchedPath>();
    let route = path.map_or("unmatched", |path| crate::router::route_name(path.as_str()));
    let response = match span_of(&request, route, price_ratio) {
        Some(span) => {
            let response = answer(request, next, route).instrument(span.clone()).await;
            spans::record_answer(&span, response.status().as_u16());
            response
        }
        None => answer(request, next, route).await,
    };
    metrics.record_request(route, response.status().as_u16(), started.elapsed());
    response
}

/// The request's span, which goes on with the caller's trace if there is one. Of prices only a part is traced, as a span
/// costs more than a price; of what only machines ask for, nothing.
fn span_of(request: &Request, route: &str, price_ratio: f64) -> Option<Span> {
    if !route.starts_with("/api/") {
        return None;
    }
    let parent = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
    let parent = parent.and_then(TraceParent::parse);
    let is_traced = match (route, &parent) {
        ("/api/v1/price" | "/api/v1/prices", Some(parent)) => parent.is_sampled(),
        ("/api/v1/price" | "/api/v1/prices", None) => price_ratio > 0.0 && fastrand::f64() < price_ratio,
        _ => true,
    };
    is_traced.then(|| spans::request(request.method().as_str(), route, request.uri().path(), parent.as_ref()))
}

/// The answer, unless it takes too long.
async fn answer(request: Request, next: Next, route: &str) -> Response {
    if STREAMING_ROUTES.contains(&route) {
        return next.run(request).await;
    }
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await;
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
