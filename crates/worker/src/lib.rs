//! The worker: the slow write path.
//!
//! Here: what re-prices products away from the requests of shoppers. Never here: HTTP routes besides health and
//! metrics, and how a price comes about (`pricing-core`'s `domain` and `reprice`). As yet it starts, watches what
//! it depends on, and stops cleanly; products are priced where they are written, in the API.

pub mod config;

use pricing_core::catalogue::{Catalogue, CatalogueError, CatalogueSettings};
use pricing_core::health::{self, Health};
use pricing_core::redis::{RedisConnection, RedisError};
use pricing_core::telemetry::metrics::Metrics;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use config::WorkerConfig;

/// The service's name in health answers, metrics and logs.
pub const SERVICE: &str = "pricing-worker";

/// Why the worker ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerRunError {
    /// The database could not be opened.
    #[error("the database cannot be opened: {0}")]
    Catalogue(#[from] CatalogueError),
    /// The Redis address is wrong.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The socket for health and metrics failed.
    #[error("the listener failed: {0}")]
    Listener(#[from] std::io::Error),
}

/// Runs the worker until told to stop; health and metrics are served on this socket.
pub async fn run(
    listener: TcpListener,
    config: WorkerConfig,
    shutdown: CancellationToken,
) -> Result<(), WorkerRunError> {
    let redis = RedisConnection::open(&config.shared.redis_url)?;
    let settings = CatalogueSettings {
        max_connections: config.shared.database_connections,
        ..CatalogueSettings::default()
    };
    let catalogue = Catalogue::open(&config.shared.database_url, settings).await?;
    let health = Health { service: SERVICE, redis, catalogue: Some(catalogue.clone()) };
    tracing::info!(address = %listener.local_addr()?, "the worker is running");
    health::serve(listener, health::router(health, Metrics::new(SERVICE)), shutdown).await?;
    catalogue.close().await;
    tracing::info!("the worker has stopped");
    Ok(())
}
