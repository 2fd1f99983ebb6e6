//! Connections to Redis.
//!
//! Requests share multiplexed connections: commands of concurrent requests travel together, which is several
//! times faster than a pool. Reads fail fast: a command either answers within [`READ_TIMEOUT`] or is an
//! error, and whoever sent it goes on without Redis. Writes wait longer, as they are refused without it. A
//! connection is made when it is first used and again after every break, so a service starts, and goes on,
//! without Redis. The queue library has a connection of its own, as it ends its worker at any error, and
//! [`Subscription`] hears what is published.

mod measured;
mod subscription;

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};

pub use self::measured::MeasuredConnection;
pub use self::subscription::{Subscription, SubscriptionEvent};
use crate::telemetry::metrics::{CallDuration, Metrics};

/// How long a read, or connecting for one, may take.
pub const READ_TIMEOUT: Duration = Duration::from_millis(100);

/// How long a write may take: a batch of prices on a server that syncs each one to a slow disk.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long connecting for a write may take.
const WRITE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// A cheap handle to the shared connections.
#[derive(Clone)]
pub struct RedisConnection {
    client: redis::Client,
    reads: MeasuredConnection,
    writes: MeasuredConnection,
    queue: MeasuredConnection,
}

impl std::fmt::Debug for RedisConnection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RedisConnection").finish_non_exhaustive()
    }
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

impl RedisError {
    /// Whether the connection broke: the next command may find a new one.
    pub(crate) fn is_broken(error: &redis::RedisError) -> bool {
        error.is_io_error() || error.is_connection_dropped()
    }

    /// Whether the server is a cluster, which takes keys of one slot only in a command.
    pub(crate) fn is_of_several_slots(error: &redis::RedisError) -> bool {
        error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::CrossSlot)
    }

    /// Whether the server does not know a script yet.
    pub(crate) fn is_missing_script(error: &redis::RedisError) -> bool {
        error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::NoScript)
    }
}

impl RedisConnection {
    /// A connection to this server, opened when it is first used.
    pub fn open(url: &str) -> Result<Self, RedisError> {
        let invalid = |error: redis::RedisError| RedisError::InvalidUrl {
            url: without_password(url),
            reason: error.to_string(),
        };
        let client = redis::Client::open(url).map_err(invalid)?;
        let reads = lazy(&client, READ_TIMEOUT, READ_TIMEOUT).map_err(invalid)?;
        let writes = lazy(&client, WRITE_CONNECTION_TIMEOUT, WRITE_TIMEOUT).map_err(invalid)?;
        let queue = lazy(&client, WRITE_CONNECTION_TIMEOUT, WRITE_TIMEOUT).map_err(invalid)?;
        let unmeasured = |connection| MeasuredConnection::new(connection, CallDuration::unmeasured());
        Ok(Self { client, reads: unmeasured(reads), writes: unmeasured(writes), queue: unmeasured(queue) })
    }

    /// The same connections, but a new one for reads. It is driven by the runtime in which it is used.
    pub fn with_own_reads(&self) -> Result<Self, RedisError> {
        let reads = lazy(&self.client, READ_TIMEOUT, READ_TIMEOUT)?;
        Ok(Self { reads: self.reads.through(reads), ..self.clone() })
    }

    /// The same connections, but a new one for writes: what is sent over it does not wait behind what others
    /// write.
    pub fn with_own_writes(&self) -> Result<Self, RedisError> {
        let writes = lazy(&self.client, WRITE_CONNECTION_TIMEOUT, WRITE_TIMEOUT)?;
        Ok(Self { writes: self.writes.through(writes), ..self.clone() })
    }

    /// The same connections, their commands measured from here on.
    pub fn measured_by(&self, metrics: &Metrics) -> Self {
        Self {
            client: self.client.clone(),
            reads: self.reads.measured_by(metrics.redis_duration("reads")),
            writes: self.writes.measured_by(metrics.redis_duration("writes")),
            queue: self.queue.measured_by(metrics.redis_duration("queue")),
        }
    }

    /// Whether the server answers.
    pub async fn check(&self) -> Result<(), RedisError> {
        ping(self.writes.clone()).await
    }

    /// Whether the server answers on the connection of the queue library.
    pub async fn check_queue(&self) -> Result<(), RedisError> {
        ping(self.queue.clone()).await
    }

    /// The server's version.
    pub async fn version(&self) -> Result<String, RedisError> {
        self.check().await?;
        let mut connection = self.writes.clone();
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        Ok(version.unwrap_or("unknown").trim().to_owned())
    }

    /// The connection of the queue library.
    pub fn queue(&self) -> MeasuredConnection {
        self.queue.clone()
    }

    /// The connection for commands whose sender goes on without an answer.
    pub(crate) fn reads(&self) -> MeasuredConnection {
        self.reads.clone()
    }

    /// The connection for commands that have to be done.
    pub(crate) fn writes(&self) -> MeasuredConnection {
        self.writes.clone()
    }
}

/// A connection that is made when it is first used.
fn lazy(
    client: &redis::Client,
    connection_timeout: Duration,
    response_timeout: Duration,
) -> redis::RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(0)
        .set_connection_timeout(Some(connection_timeout))
        .set_response_timeout(Some(response_timeout));
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}

async fn ping(mut connection: MeasuredConnection) -> Result<(), RedisError> {
    let ping = redis::cmd("PING");
    // The first command after a break finds the broken connection; the second, a new one.
    if ping.query_async::<()>(&mut connection).await.is_err() {
        ping.query_async::<()>(&mut connection).await?;
    }
    Ok(())
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
        assert_eq!(without_password("redis://user:secret@host:6379/0"), "redis://…@host:6379/0");
        assert_eq!(without_password("redis://:p@ss@host"), "redis://…@host");
        assert_eq!(without_password("redis://host:6379"), "redis://host:6379");
        assert_eq!(without_password("nonsense"), "nonsense");
    }
}
