//! Connections to Redis.
//!
//! Requests share multiplexed connections: commands of concurrent requests travel together, which is several
//! times faster than a pool. Reads fail fast: a command either returns within [`READ_TIMEOUT`] or fails, and
//! its caller continues without Redis. Writes have a longer time limit, as their callers need Redis. A
//! connection is opened when it is first used and reopened after every disconnect, so a service starts and
//! runs without Redis. The queue library has its own connection, as any error ends its worker, and
//! [`Subscription`] receives published messages.

mod measured;
mod subscription;

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};

pub use self::measured::MeasuredConnection;
pub use self::subscription::{Subscription, SubscriptionEvent};
use crate::telemetry::inventory::names::REDIS_DURATION;
use crate::telemetry::registry::{CallDuration, Registry};

/// How long a read, or connecting for one, may take.
pub const READ_TIMEOUT: Duration = Duration::from_millis(100);

/// How long a write may take: long enough for a batch of prices on a server that syncs each write to a slow
/// disk.
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

/// The reason that a call to Redis failed.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// The address is not a Redis URL.
    #[error("\"{url}\" is not a Redis URL: {reason}")]
    InvalidUrl {
        /// The address, without its password.
        url: String,
        /// The client's message.
        reason: String,
    },
    /// A command failed; a retry may succeed.
    #[error("redis: {0}")]
    Command(#[from] redis::RedisError),
}

impl RedisError {
    /// Whether the connection broke: the next command may get a new one.
    pub(crate) fn is_broken(error: &redis::RedisError) -> bool {
        error.is_io_error() || error.is_connection_dropped()
    }

    /// Whether the server is a cluster, which accepts keys of one slot only in a command.
    pub(crate) fn is_of_several_slots(error: &redis::RedisError) -> bool {
        error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::CrossSlot)
    }

    /// Whether the server still reads its file.
    pub fn is_loading(&self) -> bool {
        let busy = redis::ErrorKind::Server(redis::ServerErrorKind::BusyLoading);
        matches!(self, Self::Command(error) if error.kind() == busy)
    }

    /// Whether the server has not loaded a script yet.
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

    /// The same connections, except for a new one for reads, driven by the runtime that uses it.
    pub fn with_own_reads(&self) -> Result<Self, RedisError> {
        let reads = lazy(&self.client, READ_TIMEOUT, READ_TIMEOUT)?;
        Ok(Self { reads: self.reads.through(reads), ..self.clone() })
    }

    /// The same connections, except for a new one for writes: its commands do not queue behind those of
    /// others.
    pub fn with_own_writes(&self) -> Result<Self, RedisError> {
        let writes = lazy(&self.client, WRITE_CONNECTION_TIMEOUT, WRITE_TIMEOUT)?;
        Ok(Self { writes: self.writes.through(writes), ..self.clone() })
    }

    /// Returns the same connections, with their commands measured.
    pub fn measured_by(&self, registry: &Registry) -> Self {
        let duration = |connection| registry.call_duration(REDIS_DURATION, "connection", connection);
        Self {
            client: self.client.clone(),
            reads: self.reads.measured_by(duration("reads")),
            writes: self.writes.measured_by(duration("writes")),
            queue: self.queue.measured_by(duration("queue")),
        }
    }

    /// Checks that the server answers.
    pub async fn check(&self) -> Result<(), RedisError> {
        ping(self.writes.clone()).await
    }

    /// Checks that the server answers on the connection of the queue library.
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

    /// The connection for commands whose caller can continue without an answer.
    pub(crate) fn reads(&self) -> MeasuredConnection {
        self.reads.clone()
    }

    /// The connection for commands that must succeed.
    pub(crate) fn writes(&self) -> MeasuredConnection {
        self.writes.clone()
    }
}

/// A connection that is opened when it is first used.
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
    // After a disconnect the first command fails on the broken connection and the second gets a new one.
    if ping.query_async::<()>(&mut connection).await.is_err() {
        ping.query_async::<()>(&mut connection).await?;
    }
    Ok(())
}

/// A URL without its password, for logs and messages.
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
