//! Liveness, readiness, and the index of the service.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use pricing_core::health::{Liveness, Readiness};
use serde_json::json;

use crate::state::AppState;

/// The name and version of the service, and its main routes.
pub(crate) async fn index() -> impl IntoResponse {
    Json(json!({
        "service": crate::SERVICE,
        "version": env!("CARGO_PKG_VERSION"),
        "docs": "/docs",
        "openapi": "/openapi.json",
        "metrics": "/metrics",
        "ready": "/readyz",
    }))
}

/// Answers while the process runs.
#[utoipa::path(get, path = "/healthz", tag = "operations", summary = "Check liveness",
    responses(
        (status = 200, description = "The process works", body = String, content_type = "text/plain"),
        (status = 503, description = "Only a restart helps", body = String, content_type = "text/plain")))]
pub(crate) async fn alive(State(state): State<AppState>) -> Liveness {
    state.health.liveness.clone()
}

/// Checks the dependencies of the service.
#[utoipa::path(get, path = "/readyz", tag = "operations", summary = "Check readiness",
    responses(
        (status = 200, description = "`ready`, or `degraded`: prices can still be read", body = Readiness),
        (status = 503, description = "`unavailable`", body = Readiness)))]
pub(crate) async fn ready(State(state): State<AppState>) -> Readiness {
    state.health.readiness().await
}
