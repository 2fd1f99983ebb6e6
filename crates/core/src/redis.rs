//! Connections to Redis.
//!
//! The hot path shares one multiplexed connection: commands of concurrent requests travel together, which is
//! several times faster than a pool. It fails fast: a command either answers within [`COMMAND_TIMEOUT`] or is an
//! error, and whoever sent it goes on without Redis. It connects when it is first used and again after every
//! break, so a service starts, and goes on, without Redis.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};

/// How long a command, or a connection, may take.
pub const COMMAND_TIMEOUT: Duration = Duration::from_millis(100);

/// A cheap handle to the shared connection.
#[derive(Clone)]
pub struct RedisConnection {
    manager: ConnectionManager,
}

/// What went wrong with Redis.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// The address is not one.
    #[error("\"{url}\" is not a Redis URL: {reason}")]
    InvalidUrl {
        /// The address, without its password.
        url: String,
        /// What the client says.
        reason: String,
    },
    /// A command failed; trying again later may help.
    #[error("redis: {0}")]
    Command(#[from] redis::RedisError),
}

impl RedisConnection {
    /// A connection to this server, opened when it is first used.
    pub fn open(url: &str) -> Result<Self, RedisError> {
        let invalid = |error: redis::RedisError| RedisError::InvalidUrl {
            url: without_password(url),
            reason: error.to_string(),
        };
        let client = redis::Client::open(url).map_err(invalid)?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(COMMAND_TIMEOUT))
            .set_response_timeout(Some(COMMAND_TIMEOUT));
        let manager = ConnectionManager::new_lazy_with_config(client, config).map_err(invalid)?;
        Ok(Self { manager })
    }

    /// Whether the server answers.
    pub async fn check(&self) -> Result<(), RedisError> {
        let mut connection = self.manager.clone();
        redis::cmd("PING").query_async::<()>(&mut connection).await?;
        Ok(())
    }

    /// The server's version.
    pub async fn version(&self) -> Result<String, RedisError> {
        let mut connection = self.manager.clone();
        let info: String = redis::cmd("INFO")
            .arg("server")
            .query_async(&mut connection)
            .await?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        Ok(version.unwrap_or("unknown").trim().to_owned())
    }

    /// The connection to send commands on.
    pub(crate) fn manager(&self) -> ConnectionManager {
        self.manager.clone()
    }
}

/// A URL as it may be shown in logs and messages.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://…@{host}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(
            without_password("redis://user:secret@host:6379/0"),
            "redis://…@host:6379/0"
        );
        assert_eq!(without_password("redis://:p@ss@host"), "redis://…@host");
        assert_eq!(without_password("redis://host:6379"), "redis://host:6379");
        assert_eq!(without_password("nonsense"), "nonsense");
    }
}
