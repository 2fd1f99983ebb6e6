//! What handlers share: handles, cheap to clone, built once at the start.

use pricing_core::health::Health;
use pricing_core::redis::RedisConnection;
use pricing_core::reprice::Repricer;
use pricing_core::telemetry::metrics::Metrics;

use crate::error::ApiError;

/// The state of every handler.
#[derive(Clone)]
pub(crate) struct AppState {
    pub(crate) repricer: Repricer,
    pub(crate) redis: RedisConnection,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
}

impl AppState {
    /// Refuses a write while Redis does not answer: it could be stored, but not served.
    pub(crate) async fn require_redis(&self) -> Result<(), ApiError> {
        let answer = self.redis.check().await;
        // The first command after a break finds the broken connection; the second, a new one.
        let answer = if answer.is_err() { self.redis.check().await } else { answer };
        answer.map_err(|error| {
            tracing::warn!(%error, "a write is refused: redis does not answer");
            ApiError::Unavailable { what: "redis" }
        })
    }
}
