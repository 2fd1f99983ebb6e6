//! The listener: the bridge from market events to work.
//!
//! Here: what hears that the market moved and hands out the work that follows. Never here: the database, and how
//! a price comes about. As yet it starts, watches Redis, and stops cleanly.

pub mod config;

use pricing_core::health::{self, Health};
use pricing_core::redis::{RedisConnection, RedisError};
use pricing_core::telemetry::metrics::Metrics;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use config::ListenerConfig;

/// The service's name in health answers, metrics and logs.
pub const SERVICE: &str = "pricing-listener";

/// Why the listener ended.
#[derive(Debug, thiserror::Error)]
pub enum ListenerRunError {
    /// The Redis address is wrong.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The socket for health and metrics failed.
    #[error("the listener failed: {0}")]
    Listener(#[from] std::io::Error),
}

/// Runs the listener until told to stop; health and metrics are served on this socket.
pub async fn run(
    listener: TcpListener,
    config: ListenerConfig,
    shutdown: CancellationToken,
) -> Result<(), ListenerRunError> {
    let redis = RedisConnection::open(&config.shared.redis_url)?;
    let health = Health { service: SERVICE, redis, catalogue: None };
    tracing::info!(address = %listener.local_addr()?, "the listener is running");
    health::serve(listener, health::router(health, Metrics::new(SERVICE)), shutdown).await?;
    tracing::info!("the listener has stopped");
    Ok(())
}
