//! Configuration of the listener, besides that of all services (`pricing_core::config`).

use std::net::SocketAddr;

use pricing_core::config::{Allowed, ConfigError, Environment, SharedConfig, Variable};
use pricing_core::service::ServiceConfig;

/// The listener's own variables.
const VARIABLES: &[Variable] = &[LISTEN];

const LISTEN: Variable = Variable {
    name: "PRICING_LISTENER_LISTEN",
    default: "127.0.0.1:8002",
    allowed: Allowed::Socket,
    used_by: "listener",
    text: "Address for health and metrics.",
    is_secret: false,
};

/// The configuration of the listener.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// The address for health and metrics.
    pub listen: SocketAddr,
    /// The configuration that all services share.
    pub shared: SharedConfig,
}

impl ListenerConfig {
    /// Reads the environment through `lookup`; reports all problems at once.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut environment = Environment::new(lookup);
        let config = Self::of(&mut environment);
        environment.finish(config)
    }

    fn of(environment: &mut Environment<'_>) -> Option<Self> {
        let listen = environment.read(&LISTEN);
        let shared = SharedConfig::read(environment);
        Some(Self { listen: listen?, shared: shared? })
    }
}

impl ServiceConfig for ListenerConfig {
    const SUMMARY: &'static str = "hands market events from the stream to the workers";
    const VARIABLES: &'static [Variable] = VARIABLES;

    fn listen(&self) -> SocketAddr {
        self.listen
    }

    fn shared(&self) -> &SharedConfig {
        &self.shared
    }
}
