//! Configuration of the listener, besides what all services share (`pricing_core::config`).
//!
//! | variable | default | what |
//! |---|---|---|
//! | `PRICING_LISTENER_LISTEN` | `127.0.0.1:8002` | the address for health and metrics |

use std::net::SocketAddr;

use pricing_core::config::{ConfigError, Environment, SharedConfig};
use pricing_core::service::ServiceConfig;

/// The configuration of the listener.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// The address for health and metrics.
    pub listen: SocketAddr,
    /// The configuration that all services share.
    pub shared: SharedConfig,
}

impl ListenerConfig {
    /// Reads the environment through `lookup`; reports everything that is wrong with it at once.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut environment = Environment::new(lookup);
        let config = Self {
            listen: environment.address("PRICING_LISTENER_LISTEN", SocketAddr::from(([127, 0, 0, 1], 8002))),
            shared: SharedConfig::read(&mut environment),
        };
        environment.finish(config)
    }
}

impl ServiceConfig for ListenerConfig {
    fn shared(&self) -> &SharedConfig {
        &self.shared
    }

    fn listen(&self) -> SocketAddr {
        self.listen
    }
}
