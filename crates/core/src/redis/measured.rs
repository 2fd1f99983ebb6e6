//! A connection that measures its commands.

use std::sync::Arc;
use std::time::Instant;

use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, RedisFuture, Value};

use super::cluster::ClusterConnection;
use super::healing::{HealingConnection, Limits};
use crate::redis_address::Address;
use crate::telemetry::registry::CallDuration;

/// A shared connection, by what it leads to.
#[derive(Clone)]
pub(super) enum SharedConnection {
    /// A server, which may be another one by and by.
    Server(HealingConnection),
    /// All masters of a cluster.
    Cluster(ClusterConnection),
}

impl SharedConnection {
    /// A connection that is opened by its first command, and driven by the runtime of that command.
    pub(super) fn new(address: &Arc<Address>, limits: Limits) -> Self {
        match address.as_ref() {
            Address::Cluster(cluster) => Self::Cluster(ClusterConnection::new(cluster, limits)),
            Address::Server(_) | Address::Sentinels(_) | Address::Node(_) => {
                Self::Server(HealingConnection::new(Arc::clone(address), limits))
            }
        }
    }
}

/// A shared connection; every command, or pipeline of commands, is measured. A server's error counts as a
/// failure, wherever it is in a pipeline.
#[derive(Clone)]
pub struct MeasuredConnection {
    connection: SharedConnection,
    duration: CallDuration,
}

impl MeasuredConnection {
    pub(super) fn new(connection: SharedConnection, duration: CallDuration) -> Self {
        Self { connection, duration }
    }

    /// What it leads to.
    pub(super) fn shared(&self) -> &SharedConnection {
        &self.connection
    }

    /// Measures another connection in the same way.
    pub(super) fn through(&self, connection: SharedConnection) -> Self {
        Self::new(connection, self.duration.clone())
    }

    /// The same connection, with its commands measured by `duration`.
    pub(super) fn measured_by(&self, duration: CallDuration) -> Self {
        Self::new(self.connection.clone(), duration)
    }
}

impl ConnectionLike for MeasuredConnection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let started = Instant::now();
            let (answer, seen) = match &self.connection {
                SharedConnection::Server(server) => server.send(command).await,
                // In a box, so that the future for a server stays small.
                SharedConnection::Cluster(cluster) => Box::pin(cluster.send(command)).await,
            };
            self.duration.record(started, !seen.is_failure);
            answer
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let started = Instant::now();
            let (answers, seen) = match &self.connection {
                SharedConnection::Server(server) => server.send_all(pipeline, offset, count).await,
                SharedConnection::Cluster(cluster) => Box::pin(cluster.send_all(pipeline)).await,
            };
            self.duration.record(started, !seen.is_failure);
            answers
        })
    }

    fn get_db(&self) -> i64 {
        match &self.connection {
            SharedConnection::Server(server) => server.database(),
            SharedConnection::Cluster(_) => 0,
        }
    }
}
