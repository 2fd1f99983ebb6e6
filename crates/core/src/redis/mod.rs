//! Connections to Redis.
//!
//! Requests share multiplexed connections: commands of concurrent requests travel together, which is several
//! times faster than a pool. Reads fail fast: a command either returns within [`READ_TIMEOUT`] or fails, and
//! its caller continues without Redis. Writes have a longer time limit, as their callers need Redis. A
//! connection is opened when it is first used, and replaced when it has ended, is silent, or leads to a
//! server that is not the master (see `healing`), so a service starts and runs without Redis and follows a
//! fail-over. The queue library has its own connection, as any error ends its worker, and [`Subscription`]
//! receives published messages. A connection to a cluster has a link to each of its masters (see `cluster`).
//! `redis_address` has the forms of a URL, `opening` finds the master.

mod answers;
mod cluster;
mod exclusive;
mod healing;
mod measured;
mod opening;
mod replicated;
mod server_info;
mod subscription;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use redis::AsyncConnectionConfig;

pub(crate) use self::cluster::slots::slot_of;
pub(crate) use self::exclusive::{ExclusiveConnection, ExclusiveConnections};
use self::healing::Limits;
pub use self::measured::MeasuredConnection;
use self::measured::SharedConnection;
use self::opening::OpenError;
pub use self::server_info::ServerInfo;
pub use self::subscription::{Subscription, SubscriptionEvent};
use crate::redis_address::Address;
pub use crate::redis_address::{InvalidAddress, without_password};
use crate::telemetry::inventory::names::REDIS_DURATION;
use crate::telemetry::registry::{CallDuration, Registry};

/// How long a read, or connecting for one, may take.
pub const READ_TIMEOUT: Duration = Duration::from_millis(100);

/// How long a write may take: long enough for a batch of prices on a server that syncs each write to a slow
/// disk.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long connecting for a write may take.
const WRITE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(1);

const READ_LIMITS: Limits = Limits { opening: READ_TIMEOUT, answer: READ_TIMEOUT };
const WRITE_LIMITS: Limits = Limits { opening: WRITE_CONNECTION_TIMEOUT, answer: WRITE_TIMEOUT };

/// A cheap handle to the shared connections.
#[derive(Clone)]
pub struct RedisConnection {
    address: Arc<Address>,
    reads: MeasuredConnection,
    writes: MeasuredConnection,
    queue: MeasuredConnection,
    /// How many replicas must have a write before it counts as done.
    replicas: u8,
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
        /// What is wrong with it.
        reason: InvalidAddress,
    },
    /// The address leads to something that can never be used.
    #[error("redis: {0}")]
    Unusable(String),
    /// A command failed; a retry may succeed.
    #[error("redis: {0}")]
    Command(#[from] redis::RedisError),
}

impl RedisError {
    /// Whether the connection broke: the next command may get a new one.
    pub(crate) fn is_broken(error: &redis::RedisError) -> bool {
        error.is_io_error() || error.is_connection_dropped()
    }

    /// Whether the configuration has to change: a retry cannot succeed.
    pub fn is_of_configuration(&self) -> bool {
        matches!(self, Self::InvalidUrl { .. } | Self::Unusable(_))
    }

    /// Whether the server answered that it does not do what it was asked.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Command(error) if error.code().is_some())
    }

    /// Whether the server still reads its file.
    pub fn is_loading(&self) -> bool {
        let busy = redis::ErrorKind::Server(redis::ServerErrorKind::BusyLoading);
        matches!(self, Self::Command(error) if error.kind() == busy)
    }

    /// Whether the server has not loaded a script yet.
    pub(crate) fn is_missing_script(error: &redis::RedisError) -> bool {
        let missing = redis::ErrorKind::Server(redis::ServerErrorKind::NoScript);
        // Of a pipeline, the error has those of its commands.
        let of_pipeline = error.clone().into_server_errors();
        error.kind() == missing
            || of_pipeline.is_some_and(|errors| errors.iter().any(|(_, error)| error.code() == "NOSCRIPT"))
    }
}

impl RedisConnection {
    /// Connections to this address, opened when they are first used.
    pub fn open(url: &str) -> Result<Self, RedisError> {
        let address = parse(url)?;
        let unmeasured = |limits| {
            MeasuredConnection::new(SharedConnection::new(&address, limits), CallDuration::unmeasured())
        };
        let (reads, writes, queue) =
            (unmeasured(READ_LIMITS), unmeasured(WRITE_LIMITS), unmeasured(WRITE_LIMITS));
        Ok(Self { address, reads, writes, queue, replicas: 0 })
    }

    /// The same connections, except for a new one for reads, driven by the runtime that uses it.
    pub fn with_own_reads(&self) -> Self {
        let reads = SharedConnection::new(&self.address, READ_LIMITS);
        Self { reads: self.reads.through(reads), ..self.clone() }
    }

    /// The same connections, except for a new one for writes: its commands do not queue behind those of
    /// others.
    pub fn with_own_writes(&self) -> Self {
        let writes = SharedConnection::new(&self.address, WRITE_LIMITS);
        Self { writes: self.writes.through(writes), ..self.clone() }
    }

    /// Refuses a server that can never be used: a node of a cluster or a Sentinel in place of a server, or a
    /// server in place of a node. One that does not answer yet is not refused.
    pub async fn refuse_unusable(&self) -> Result<(), RedisError> {
        let config = AsyncConnectionConfig::new();
        match opening::open(&self.address, &config, WRITE_CONNECTION_TIMEOUT).await {
            Err(error @ (OpenError::Cluster(_) | OpenError::NotACluster(_) | OpenError::Sentinel(_))) => {
                Err(RedisError::Unusable(error.to_string()))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Returns the same connections, with their commands measured.
    pub fn measured_by(&self, registry: &Registry) -> Self {
        let duration = |connection| registry.call_duration(REDIS_DURATION, "connection", connection);
        Self {
            address: Arc::clone(&self.address),
            reads: self.reads.measured_by(duration("reads")),
            writes: self.writes.measured_by(duration("writes")),
            queue: self.queue.measured_by(duration("queue")),
            replicas: self.replicas,
        }
    }

    /// Checks that the server answers, or each master of the cluster.
    pub async fn check(&self) -> Result<(), RedisError> {
        for (_, master) in self.each_master(&self.writes).await? {
            ping(master).await?;
        }
        Ok(())
    }

    /// The same on the connection of the queue library.
    pub async fn check_queue(&self) -> Result<(), RedisError> {
        for (_, master) in self.each_master(&self.queue).await? {
            ping(master).await?;
        }
        Ok(())
    }

    /// Whether the address is that of a cluster.
    pub fn is_cluster(&self) -> bool {
        matches!(*self.address, Address::Cluster(_))
    }

    /// The connection, or one to each master of the cluster, with its name.
    async fn each_master(
        &self,
        connection: &MeasuredConnection,
    ) -> Result<Vec<(Option<String>, MeasuredConnection)>, RedisError> {
        let SharedConnection::Cluster(cluster) = connection.shared() else {
            return Ok(vec![(None, connection.clone())]);
        };
        let masters = cluster.masters().await?.into_iter();
        let masters = masters.map(|(place, master)| {
            (Some(place.to_string()), connection.through(SharedConnection::Server(master)))
        });
        Ok(masters.collect())
    }

    /// The time by the server's clock.
    pub async fn time(&self) -> Result<DateTime<Utc>, RedisError> {
        let (seconds, microseconds): (i64, u32) =
            redis::cmd("TIME").query_async(&mut self.writes.clone()).await?;
        Ok(DateTime::from_timestamp(seconds, microseconds.saturating_mul(1_000)).unwrap_or_default())
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

fn parse(url: &str) -> Result<Arc<Address>, RedisError> {
    let address = Address::parse(url);
    let address = address.map_err(|reason| RedisError::InvalidUrl { url: without_password(url), reason })?;
    Ok(Arc::new(address))
}

async fn ping(mut connection: MeasuredConnection) -> Result<(), RedisError> {
    let ping = redis::cmd("PING");
    // A connection that breaks under the first command is replaced for the second.
    if ping.query_async::<()>(&mut connection).await.is_err() {
        ping.query_async::<()>(&mut connection).await?;
    }
    Ok(())
}
