//! Configuration of the API, besides what all services share (`pricing_core::config`).
//!
//! | variable | default | what |
//! |---|---|---|
//! | `PRICING_API_LISTEN` | `127.0.0.1:8000` | the address to serve on |
//! | `PRICING_API_MAX_CONNECTIONS` | 4096 | connections at once, 1 to 1000000; further ones wait |
//! | `PRICING_HOSTS` | | names and addresses that browsers may call the API by beside loopback's, with or without port, separated by commas |
//! | `PRICING_CORS_ORIGINS` | | origins whose pages may ask for prices, such as `https://shop.example.com`, separated by commas |
//! | `PRICING_SEED_FILE` | | a CSV file of products, imported at the start if the catalogue has none |

use std::net::SocketAddr;

use pricing_core::config::{ConfigError, Environment, SharedConfig};
use pricing_core::service::ServiceConfig;

use crate::browser::{AllowedHosts, CorsOrigins};

/// What the API needs to know.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// The address to serve on.
    pub listen: SocketAddr,
    /// Connections at once.
    pub max_connections: usize,
    /// Names of the API beside loopback's.
    pub hosts: AllowedHosts,
    /// Origins whose pages may ask for prices.
    pub cors_origins: CorsOrigins,
    /// Products that an empty catalogue begins with.
    pub seed_file: Option<String>,
    /// What all services need to know.
    pub shared: SharedConfig,
}

impl ApiConfig {
    /// Reads the environment through this function; reports everything that is wrong with it at once.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut environment = Environment::new(lookup);
        let config = Self {
            listen: environment.address("PRICING_API_LISTEN", SocketAddr::from(([127, 0, 0, 1], 8000))),
            max_connections: environment.number("PRICING_API_MAX_CONNECTIONS", 4_096, 1..=1_000_000),
            hosts: environment.parsed(
                "PRICING_HOSTS",
                AllowedHosts::default(),
                "names or addresses, with or without port, separated by commas, such as pricing.example.com",
            ),
            cors_origins: environment.parsed(
                "PRICING_CORS_ORIGINS",
                CorsOrigins::default(),
                "origins separated by commas, such as https://shop.example.com",
            ),
            seed_file: Some(environment.text("PRICING_SEED_FILE", "")).filter(|path| !path.is_empty()),
            shared: SharedConfig::read(&mut environment),
        };
        environment.finish(config)
    }
}

impl ServiceConfig for ApiConfig {
    fn shared(&self) -> &SharedConfig {
        &self.shared
    }

    fn listen(&self) -> SocketAddr {
        self.listen
    }
}
