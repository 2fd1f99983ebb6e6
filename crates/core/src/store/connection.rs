//! A pooled connection: every statement has a time limit, and only a healthy connection returns to the pool.
//!
//! By default the pool takes back any connection, and two kinds of broken ones never recover. The pool tests
//! a connection by a round trip without a time limit, so one whose network is down blocks its slot until TCP
//! times out, a quarter of an hour. And after SQLite itself rolled back a transaction (a full disk), the
//! driver still counts one as open, so the only writer could never begin another. Therefore a connection is
//! closed if a statement on it failed, was abandoned or timed out, or if its transaction was not committed;
//! the database rolls back open work. The next call opens another.

use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool};
use tokio::time::timeout;

use super::error::StoreError;
use super::metrics::DatabaseDuration;

/// The extra time beyond the database's own statement limit before an answer times out.
const TRANSPORT_ALLOWANCE: Duration = Duration::from_secs(1);

/// A connection borrowed from its pool.
#[derive(Debug)]
pub(super) struct Connection<DB: Database> {
    pooled: PoolConnection<DB>,
    answer_limit: Duration,
    duration: DatabaseDuration,
    /// Whether no statement is running, and none has failed.
    is_healthy: bool,
    in_transaction: bool,
}

impl<DB: Database> Connection<DB> {
    /// Takes a connection from the pool, or opens one; the pool limits the wait.
    pub(super) async fn acquire(
        pool: &Pool<DB>,
        statement_timeout: Duration,
        duration: &DatabaseDuration,
    ) -> Result<Self, StoreError> {
        let started = Instant::now();
        let pooled = pool.acquire().await;
        duration.connection.record(started, pooled.is_ok());
        Ok(Self {
            pooled: pooled?,
            answer_limit: statement_timeout + TRANSPORT_ALLOWANCE,
            duration: duration.clone(),
            is_healthy: true,
            in_transaction: false,
        })
    }

    /// Runs one statement.
    pub(super) async fn run<'session, T, F>(
        &'session mut self,
        statement: impl FnOnce(&'session mut DB::Connection) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, sqlx::Error>>,
    {
        let was_healthy = std::mem::replace(&mut self.is_healthy, false);
        let started = Instant::now();
        let answer = timeout(self.answer_limit, statement(&mut *self.pooled)).await;
        self.duration.statement.record(started, matches!(answer, Ok(Ok(_))));
        let outcome = answer.map_err(|_| StoreError::TimedOut { limit: self.answer_limit })??;
        self.is_healthy = was_healthy;
        Ok(outcome)
    }

    /// Marks a transaction as open: without [`end_transaction`](Self::end_transaction) the connection is
    /// closed, which rolls the transaction back.
    pub(super) fn begin_transaction(&mut self) {
        self.in_transaction = true;
    }

    /// Allows the transaction to be committed, unless one of its statements failed: PostgreSQL would silently
    /// roll back on such a commit, SQLite would keep half of the work. A failed commit leaves the connection
    /// unhealthy, so it is closed as well.
    pub(super) fn end_transaction(&mut self) -> Result<(), StoreError> {
        if !self.is_healthy {
            return Err(StoreError::TransactionFailed);
        }
        self.in_transaction = false;
        Ok(())
    }
}

impl<DB: Database> Drop for Connection<DB> {
    fn drop(&mut self) {
        if !self.is_healthy || self.in_transaction {
            self.pooled.close_on_drop();
        }
    }
}
