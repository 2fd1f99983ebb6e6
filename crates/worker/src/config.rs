//! Configuration of the worker, besides what all services share (`pricing_core::config`).
//!
//! | variable | default | what |
//! |---|---|---|
//! | `PRICING_WORKER_LISTEN` | `127.0.0.1:8001` | the address for health and metrics |
//! | `PRICING_WORKER_CONCURRENCY` | 6, or two fewer than the database connections | jobs done at the same time, 2 to 64 and fewer than the database connections: one of them may coordinate a run |

use std::net::SocketAddr;

use pricing_core::config::{ConfigError, Environment, SharedConfig};
use pricing_core::service::ServiceConfig;

/// The configuration of the worker.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The address for health and metrics.
    pub listen: SocketAddr,
    /// Jobs done at the same time.
    pub concurrency: usize,
    /// The configuration that all services share.
    pub shared: SharedConfig,
}

impl WorkerConfig {
    /// Reads the environment through `lookup`; reports everything that is wrong with it at once.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut environment = Environment::new(lookup);
        let shared = SharedConfig::read(&mut environment);
        let concurrency = default_concurrency(shared.database_connections);
        let most = greatest_concurrency(shared.database_connections);
        let config = Self {
            listen: environment.address("PRICING_WORKER_LISTEN", SocketAddr::from(([127, 0, 0, 1], 8001))),
            concurrency: environment.number("PRICING_WORKER_CONCURRENCY", concurrency, 2..=most),
            shared,
        };
        environment.finish(config)
    }
}

impl ServiceConfig for WorkerConfig {
    fn shared(&self) -> &SharedConfig {
        &self.shared
    }

    fn listen(&self) -> SocketAddr {
        self.listen
    }
}

/// As many jobs as keep two cores busy beside a database and a Redis. Two connections stay free when each job
/// has a transaction, as a job may have to read policies meanwhile.
fn default_concurrency(database_connections: u32) -> usize {
    let spare = database_connections.saturating_sub(2).clamp(2, 6);
    usize::try_from(spare).unwrap_or(2)
}

/// A job reads policies while its transaction is open, so one connection must stay free for that.
fn greatest_concurrency(database_connections: u32) -> usize {
    usize::try_from(database_connections.saturating_sub(1).clamp(2, 64)).unwrap_or(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrency_leaves_a_connection_free() {
        for (connections, jobs) in [(3, 2), (8, 7), (65, 64), (200, 64)] {
            assert_eq!(greatest_concurrency(connections), jobs, "{connections}");
        }
    }

    #[test]
    fn two_connections_stay_free_for_reading_policies() {
        for (connections, jobs) in [(3, 2), (4, 2), (5, 3), (7, 5), (8, 6), (200, 6)] {
            assert_eq!(default_concurrency(connections), jobs, "{connections}");
        }
    }
}
