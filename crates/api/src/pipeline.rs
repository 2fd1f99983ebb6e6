//! The pipeline around every request, on both paths: through the router, which wraps each of its routes in
//! [`layer`], and, for a price, directly from an HTTP worker ([`crate::hot_path`]). Behaviour that all
//! requests share belongs here, so that both paths have it.
//!
//! From the outside in: measurement, tracing, the checks of the head ([`crate::request_head`]), the browser
//! guard ([`crate::browser`]), access control ([`crate::access`]), the time limit and the panic catcher; each
//! sees the answers of those inside it.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use hyper::body::Body;
use pricing_core::telemetry::registry::Histogram;
use pricing_core::telemetry::spans::{self, TRACEPARENT, TraceParent};
use tracing::{Instrument, Span};

use crate::access::Needs;
use crate::error::ApiError;
use crate::metrics::RequestMetrics;
use crate::request_head;
use crate::state::AppState;

/// Time limit of an answer, including the reading of the request's body, which has a shorter limit of its
/// own.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The properties of a route that the pipeline depends on.
#[derive(Clone)]
pub(crate) struct Route {
    /// Its pattern, one of a fixed set: the label of its requests in metrics.
    pub(crate) name: &'static str,
    pub(crate) audience: Audience,
    /// The scopes that its methods need.
    pub(crate) needs: Needs,
    /// `None` if an answer may take any time.
    pub(crate) time_limit: Option<Duration>,
    /// The series of answers with status 200, kept by a busy route, as finding it takes longer than
    /// recording.
    pub(crate) answered: Option<Histogram>,
    /// Its methods, with the media types of bodies that each accepts.
    pub(crate) media_types: Vec<(Method, Vec<String>)>,
}

/// Whom a route serves, which determines what browsers may do there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Shoppers, who request prices from pages of any site.
    Price,
    /// Monitoring and load balancers, which use any host name.
    Probe,
    /// People who read the documentation in a browser.
    Page,
    /// Operators. Every route that writes belongs here, and every read that is none of the above.
    Administrative,
}

impl Route {
    /// The media types that this method accepts; `None` if the route has no such method.
    pub(crate) fn media_types_of(&self, method: &Method) -> Option<&[String]> {
        self.media_types.iter().find(|(own, _)| own == method).map(|(_, media_types)| &**media_types)
    }

    fn record(&self, metrics: &RequestMetrics, status: StatusCode, duration: Duration) {
        match &self.answered {
            Some(answered) if status == StatusCode::OK => answered.record(duration),
            _ => metrics.record(self.name, status.as_u16(), duration),
        }
    }
}

/// [`around`] as a middleware of the router.
pub(crate) async fn layer(
    State((state, route)): State<(AppState, Arc<Route>)>,
    request: Request,
    next: Next,
) -> Response {
    around(&state, &route, request, |request| next.run(request)).await
}

/// Answers a request of this route, with the pipeline around `answer`.
pub(crate) async fn around<B: Body, A: Future<Output = Response>>(
    state: &AppState,
    route: &Route,
    mut request: hyper::Request<B>,
    answer: impl FnOnce(hyper::Request<B>) -> A,
) -> Response {
    let span = span_of(route, &request, state.traced_price_ratio);
    let origin = state.browser.origin_of(route, request.headers());
    let started = Instant::now();
    let admitted = admit(state, route, &mut request);
    let mut response = match admitted {
        Ok(()) => {
            let answering = AssertUnwindSafe(answer(request)).catch_unwind();
            let answering = answering.map(|answer| answer.unwrap_or_else(answer_panic));
            traced(span, in_time(route.time_limit, answering)).await
        }
        Err(answer) => traced(span, std::future::ready(answer)).await,
    };
    state.browser.add_headers(route, origin, response.headers_mut());
    route.record(&state.metrics.requests, response.status(), started.elapsed());
    response
}

/// Admits a request to its handler, or answers it: checks its head, what browsers may do, and its caller.
#[expect(clippy::result_large_err, reason = "nearly all requests are let through")]
fn admit<B: Body>(state: &AppState, route: &Route, request: &mut hyper::Request<B>) -> Result<(), Response> {
    request_head::check(request).map_err(IntoResponse::into_response)?;
    state.browser.admit(route, request)?;
    // Only administrative routes act under a name.
    if route.audience == Audience::Administrative {
        let identity = state.access.admit_by_name(route.needs, request);
        request.extensions_mut().insert(identity.map_err(IntoResponse::into_response)?);
    } else {
        state.access.admit(route.needs, request).map_err(IntoResponse::into_response)?;
    }
    #[cfg(test)]
    state.admitted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Ok(())
}

async fn traced(span: Option<Span>, answer: impl Future<Output = Response>) -> Response {
    let Some(span) = span else { return answer.await };
    let response = answer.instrument(span.clone()).await;
    spans::record_answer(&span, response.status().as_u16());
    response
}

/// The request's span, which continues the caller's trace if there is one. A price is traced if the caller's
/// trace is sampled, or without one in a fraction of requests, as a span costs more than a price; probes and
/// pages are not traced.
fn span_of<B>(route: &Route, request: &hyper::Request<B>, price_ratio: f64) -> Option<Span> {
    if matches!(route.audience, Audience::Probe | Audience::Page) {
        return None;
    }
    let parent = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
    let parent = parent.and_then(TraceParent::parse);
    let is_traced = match (route.audience, &parent) {
        (Audience::Price, Some(parent)) => parent.is_sampled(),
        (Audience::Price, None) => price_ratio > 0.0 && fastrand::f64() < price_ratio,
        _ => true,
    };
    let (method, path) = (request.method().as_str(), request.uri().path());
    is_traced.then(|| spans::request(method, route.name, path, parent.as_ref()))
}

/// The answer, or a timeout after `limit`.
async fn in_time(limit: Option<Duration>, answer: impl Future<Output = Response>) -> Response {
    match limit {
        Some(limit) => {
            let answer = tokio::time::timeout(limit, answer).await;
            answer.unwrap_or_else(|_| ApiError::Timeout.into_response())
        }
        None => answer.await,
    }
}

/// The answer to a request whose handler panicked.
fn answer_panic(panic: Box<dyn Any + Send + 'static>) -> Response {
    let message = panic.downcast::<&str>().map(|text| (*text).to_owned());
    let message = message.or_else(|panic| panic.downcast::<String>().map(|text| *text));
    let message = message.unwrap_or_else(|_| "a panic without a message".to_owned());
    ApiError::Internal { reason: format!("a handler panicked: {message}") }.into_response()
}

#[cfg(test)]
pub(crate) mod tests;
