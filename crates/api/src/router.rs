//! Every route, in one table.

use axum::Router;
use axum::extract::State;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::error::ApiError;
use crate::routes::{
    explanation, failed_jobs, health, history, import, market_event, policy, policy_draft, price,
    price_changes, prices, product, recalculation, simulation,
};
use crate::state::AppState;
use crate::{middleware, openapi};

/// Path pattern and handlers.
fn routes() -> Vec<(&'static str, MethodRouter<AppState>)> {
    vec![
        ("/", get(health::index)),
        // Answered before it gets here; the route is for those who use it wrongly.
        (price::PATH, post(price::price)),
        (prices::PATH, post(prices::prices)),
        ("/api/v1/products/{product_id}", get(product::get).put(product::put).delete(product::delete)),
        ("/api/v1/products/{product_id}/explanation", get(explanation::explanation)),
        ("/api/v1/products/{product_id}/history", get(history::history)),
        ("/api/v1/publish-market-event", post(market_event::publish)),
        ("/api/v1/recalculations", get(recalculation::list).post(recalculation::post)),
        ("/api/v1/recalculations/{task_id}", get(recalculation::get)),
        ("/api/v1/recalculations/{task_id}/approve", post(recalculation::approve)),
        ("/api/v1/recalculations/{task_id}/reject", post(recalculation::reject)),
        ("/api/v1/policies/check", post(policy::check)),
        ("/api/v1/policies/schema", get(policy::schema)),
        ("/api/v1/policies/drafts", get(policy_draft::list)),
        (
            "/api/v1/policies/drafts/{name}",
            get(policy_draft::get).put(policy_draft::put).delete(policy_draft::delete),
        ),
        ("/api/v1/policies/{version}", get(policy::get)),
        ("/api/v1/policies/{version}/diff/{other}", get(policy::diff)),
        ("/api/v1/jobs", get(failed_jobs::list)),
        ("/api/v1/jobs/{task_id}", get(failed_jobs::get)),
        ("/api/v1/jobs/{task_id}/requeue", post(failed_jobs::requeue)),
        ("/healthz", get(health::alive)),
        ("/readyz", get(async |State(state): State<AppState>| state.health.readiness().await)),
        ("/metrics", get(async |State(state): State<AppState>| pricing_core::health::render(&state.metrics))),
        ("/openapi.json", get(openapi::document)),
        ("/api/v1/products/import", post(import::import)),
        ("/api/v1/price-changes", get(price_changes::follow)),
        ("/api/v1/policies", get(policy::list).post(policy::publish)),
        ("/api/v1/policies/{version}/rollback", post(policy::rollback)),
        ("/api/v1/policies/simulate", post(simulation::simulate)),
    ]
}

/// The routes as a service.
pub(crate) fn router(state: AppState) -> Router {
    let mut router = Router::new();
    for (path, handlers) in routes() {
        router = router.route(path, handlers);
    }
    router
        .merge(openapi::swagger_ui())
        .fallback(async || ApiError::RouteNotFound.into_response())
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed.into_response())
        .layer(CatchPanicLayer::custom(middleware::answer_panic))
        .layer(from_fn_with_state(state.clone(), middleware::observe))
        .with_state(state)
}

/// The name under which requests of a route are measured: its pattern, out of a fixed set.
pub(crate) fn route_name(pattern: &str) -> &'static str {
    const NAMES: [&str; 29] = [
        price::PATH,
        prices::PATH,
        "/api/v1/products/{product_id}",
        "/api/v1/products/{product_id}/explanation",
        "/api/v1/products/{product_id}/history",
        "/api/v1/products/import",
        "/api/v1/price-changes",
        "/api/v1/publish-market-event",
        "/api/v1/recalculations",
        "/api/v1/recalculations/{task_id}",
        "/api/v1/recalculations/{task_id}/approve",
        "/api/v1/recalculations/{task_id}/reject",
        "/api/v1/policies",
        "/api/v1/policies/check",
        "/api/v1/policies/schema",
        "/api/v1/policies/drafts",
        "/api/v1/policies/drafts/{name}",
        "/api/v1/policies/simulate",
        "/api/v1/policies/{version}",
        "/api/v1/policies/{version}/rollback",
        "/api/v1/policies/{version}/diff/{other}",
        "/api/v1/jobs",
        "/api/v1/jobs/{task_id}",
        "/api/v1/jobs/{task_id}/requeue",
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
    ];
    NAMES.into_iter().find(|name| *name == pattern).unwrap_or("/docs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_measured_under_its_own_name() {
        let patterns: Vec<&str> = routes().into_iter().map(|(pattern, _)| pattern).collect();
        for pattern in &patterns {
            assert_eq!(route_name(pattern), *pattern);
        }
        for streaming in middleware::STREAMING_ROUTES {
            assert!(patterns.contains(&streaming), "{streaming} is no route");
        }
    }
}
