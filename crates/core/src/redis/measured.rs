//! A connection that measures its commands.

use std::time::Instant;

use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, RedisFuture, Value};

use super::healing::HealingConnection;
use crate::telemetry::registry::CallDuration;

/// A shared connection; every command, or pipeline of commands, is measured. A server's error counts as a
/// failure, wherever it is in a pipeline.
#[derive(Clone)]
pub struct MeasuredConnection {
    connection: HealingConnection,
    duration: CallDuration,
}

impl MeasuredConnection {
    pub(super) fn new(connection: HealingConnection, duration: CallDuration) -> Self {
        Self { connection, duration }
    }

    /// Measures another connection in the same way.
    pub(super) fn through(&self, connection: HealingConnection) -> Self {
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
            let (answer, seen) = self.connection.send(command).await;
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
            let (answers, seen) = self.connection.send_all(pipeline, offset, count).await;
            self.duration.record(started, !seen.is_failure);
            answers
        })
    }

    fn get_db(&self) -> i64 {
        self.connection.database()
    }
}
