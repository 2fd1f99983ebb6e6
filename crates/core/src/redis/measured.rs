//! A connection that measures its commands.

use std::time::Instant;

use redis::aio::{ConnectionLike, ConnectionManager};
use redis::{Cmd, ErrorKind, Pipeline, RedisFuture, ServerErrorKind, Value};

use crate::telemetry::registry::CallDuration;

/// A shared connection; every command, or pipeline of commands, is measured.
#[derive(Clone)]
pub struct MeasuredConnection {
    connection: ConnectionManager,
    duration: CallDuration,
}

impl MeasuredConnection {
    pub(super) fn new(connection: ConnectionManager, duration: CallDuration) -> Self {
        Self { connection, duration }
    }

    /// Measures another connection in the same way.
    pub(super) fn through(&self, connection: ConnectionManager) -> Self {
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
            let answer = self.connection.req_packed_command(command).await;
            self.duration.record(started, !answer.as_ref().is_err_and(is_failure));
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
            let answers = self.connection.req_packed_commands(pipeline, offset, count).await;
            self.duration.record(started, !answers.as_ref().is_err_and(is_failure));
            answers
        })
    }

    fn get_db(&self) -> i64 {
        self.connection.get_db()
    }
}

/// Whether an error is a failure. Two are expected: a script that the server has not loaded yet, and a
/// consumer group that exists already.
fn is_failure(error: &redis::RedisError) -> bool {
    error.kind() != ErrorKind::Server(ServerErrorKind::NoScript) && error.code() != Some("BUSYGROUP")
}
