//! Signs of life.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use pricing_core::health::Readiness;
use serde_json::json;

use crate::state::AppState;

/// Says what this is and where to look.
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

/// The process runs.
#[utoipa::path(get, path = "/healthz", tag = "operations", summary = "Whether the process runs",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain")))]
pub(crate) async fn alive() -> &'static str {
    "alive\n"
}

/// What the service depends on, checked now.
#[utoipa::path(get, path = "/readyz", tag = "operations", summary = "Whether the service can do its work",
    responses(
        (status = 200, description = "`ready`, or `degraded`: reads work", body = Readiness),
        (status = 503, description = "`unavailable`", body = Readiness)))]
pub(crate) async fn ready(State(state): State<AppState>) -> Readiness {
    state.health.readiness().await
}
