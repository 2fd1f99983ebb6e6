//! Configuration of the worker, besides what all services share (`pricing_core::config`).
//!
//! | variable | default | what |
//! |---|---|---|
//! | `PRICING_WORKER_LISTEN` | `127.0.0.1:8001` | the address for health and metrics |
//! | `PRICING_WORKER_CONCURRENCY` | 6 | jobs done at the same time, 2 to 64: one of them may coordinate a run; keep it below the database connections |

use std::net::SocketAddr;

use pricing_core::config::{ConfigError, Environment, SharedConfig};
use pricing_core::service::ServiceConfig;

/// What the worker needs to know.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The address for health and metrics.
    pub listen: SocketAddr,
    /// Jobs done at the same time.
    pub concurrency: usize,
    /// What all services need to know.
    pub shared: SharedConfig,
}

impl WorkerConfig {
    /// Reads the environment through this function; reports everything that is wrong with it at once.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut environment = Environment::new(lookup);
        let config = Self {
            listen: environment.address("PRICING_WORKER_LISTEN", SocketAddr::from(([127, 0, 0, 1], 8001))),
            concurrency: environment.number("PRICING_WORKER_CONCURRENCY", 6, 2..=64),
            shared: SharedConfig::read(&mut environment),
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
