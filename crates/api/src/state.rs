//! What handlers share: handles, cheap to clone, built once at the start.

use pricing_core::health::Health;
use pricing_core::reprice::Repricer;
use pricing_core::telemetry::metrics::Metrics;

use crate::error::ApiError;

/// The state of every handler.
#[derive(Clone)]
pub(crate) struct AppState {
    pub(crate) repricer: Repricer,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
}

impl AppState {
    /// Refuses a write while Redis takes none: it could be stored, but not served.
    pub(crate) async fn require_redis(&self) -> Result<(), ApiError> {
        self.repricer.cache.check_writable().await.map_err(|error| {
            tracing::warn!(%error, "a write is refused: redis does not take it");
            ApiError::Unavailable { reason: "redis takes no writes, so nothing was changed" }
        })
    }
}
