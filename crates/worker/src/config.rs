//! Configuration of the worker, besides that of all services (`pricing_core::config`).

use std::net::SocketAddr;

use pricing_core::config::{Allowed, ConfigError, DATABASE_CONNECTIONS, Environment, SharedConfig, Variable};
use pricing_core::service::ServiceConfig;

/// The worker's own variables.
const VARIABLES: &[Variable] = &[LISTEN, CONCURRENCY];

const LISTEN: Variable = Variable {
    name: "PRICING_WORKER_LISTEN",
    default: "127.0.0.1:8001",
    allowed: Allowed::Socket,
    used_by: "worker",
    text: "Address for health and metrics.",
    is_secret: false,
};

/// Its default and its upper bound depend on the database connections.
const CONCURRENCY: Variable = Variable {
    name: "PRICING_WORKER_CONCURRENCY",
    default: "6",
    allowed: Allowed::Whole(2..=64),
    used_by: "worker",
    text: "Jobs run at the same time; one of them may coordinate a recalculation. It must be below \
           PRICING_DATABASE_CONNECTIONS; with fewer than 8 of those, the default is two fewer than them, \
           but at least 2.",
    is_secret: false,
};

/// The configuration of the worker.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The address for health and metrics.
    pub listen: SocketAddr,
    /// Jobs run at the same time.
    pub concurrency: usize,
    /// The configuration that all services share.
    pub shared: SharedConfig,
}

impl WorkerConfig {
    /// Reads the environment through `lookup`; reports all problems at once.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut environment = Environment::new(lookup);
        let config = Self::of(&mut environment);
        environment.finish(config)
    }

    fn of(environment: &mut Environment<'_>) -> Option<Self> {
        let listen = environment.read(&LISTEN);
        let shared = SharedConfig::read(environment);
        // If the connections cannot be read, only that is reported, not its consequences.
        let concurrency = match environment.read(&DATABASE_CONNECTIONS) {
            Some(connections) => {
                let default = default_concurrency(connections).to_string();
                let allowed = Allowed::Whole(2..=greatest_concurrency(connections));
                environment.read_with(&CONCURRENCY, &default, &allowed)
            }
            None => environment.read(&CONCURRENCY),
        };
        Some(Self { listen: listen?, concurrency: concurrency?, shared: shared? })
    }
}

impl ServiceConfig for WorkerConfig {
    const SUMMARY: &'static str = "applies market events and recalculates prices";
    const VARIABLES: &'static [Variable] = VARIABLES;

    fn listen(&self) -> SocketAddr {
        self.listen
    }

    fn shared(&self) -> &SharedConfig {
        &self.shared
    }
}

/// Enough jobs to keep two cores busy beside a database and a Redis. With four connections or more, at least
/// two stay free for reading policies while each job has a transaction open.
fn default_concurrency(database_connections: u64) -> u64 {
    database_connections.saturating_sub(2).clamp(2, 6)
}

/// A job reads policies while its transaction is open, so one connection must stay free for that.
fn greatest_concurrency(database_connections: u64) -> u64 {
    database_connections.saturating_sub(1).clamp(2, 64)
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

    #[test]
    fn concurrency_is_bounded_by_the_connections_beside_other_problems() {
        let variables = [
            ("PRICING_DATABASE_CONNECTIONS", "5"),
            ("PRICING_WORKER_CONCURRENCY", "5"),
            ("PRICING_METRICS", "maybe"),
        ];
        let lookup = |wanted: &str| {
            variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned())
        };
        let shown = WorkerConfig::read(&lookup).unwrap_err().to_string();
        assert!(shown.contains("PRICING_METRICS"), "{shown}");
        assert!(
            shown.contains("PRICING_WORKER_CONCURRENCY=\"5\": must be a whole number from 2 to 4"),
            "{shown}"
        );
    }
}
