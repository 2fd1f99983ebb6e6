//! A pooled connection: every statement has a time limit, and only a healthy connection returns to the pool.
//!
//! By default the pool takes back any connection, and two kinds of broken ones never recover. The pool tests
//! a connection by a round trip without a time limit, so one whose network is down blocks its slot until TCP
//! times out, a quarter of an hour. And after SQLite itself rolled back a transaction (a full disk), the
//! driver still counts one as open, so the only writer could never begin another. Therefore a connection is
//! closed if a statement on it failed, was abandoned or timed out, or if its transaction was not committed;
//! the database rolls back open work. The next call opens another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool};
use tokio::time::timeout;

use super::error::StoreError;
use super::metrics::DatabaseDuration;

/// The extra time beyond the database's own statement limit before an answer times out.
const TRANSPORT_ALLOWANCE: Duration = Duration::from_secs(1);

/// The shortest time between two recorded refusals: a database that stays read-only does not have all of its
/// connections replaced at every write.
const SHORTEST_BETWEEN_REFUSALS_MS: u64 = 1_000;

/// When a server of a pool last refused to write because it is read-only. The address may lead to another
/// server since then, so older connections are replaced.
#[derive(Debug, Clone)]
pub(super) struct ReadOnlyRefusals {
    created: Instant,
    /// Milliseconds after `created`; 0 for never.
    last_ms: Arc<AtomicU64>,
}

impl Default for ReadOnlyRefusals {
    fn default() -> Self {
        Self { created: Instant::now(), last_ms: Arc::default() }
    }
}

impl ReadOnlyRefusals {
    /// Whether a server refused to write after a connection of this age was opened.
    pub(super) fn came_after_opening(&self, age: Duration) -> bool {
        let last_ms = self.last_ms.load(Ordering::Relaxed);
        last_ms > 0 && u128::from(self.now_ms() - last_ms) < age.as_millis()
    }

    fn record(&self) {
        let (now_ms, last_ms) = (self.now_ms(), self.last_ms.load(Ordering::Relaxed));
        if last_ms == 0 || now_ms - last_ms >= SHORTEST_BETWEEN_REFUSALS_MS {
            self.last_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// A connection borrowed from its pool.
#[derive(Debug)]
pub(super) struct Connection<DB: Database> {
    pooled: PoolConnection<DB>,
    answer_limit: Duration,
    duration: DatabaseDuration,
    refusals: ReadOnlyRefusals,
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
        refusals: &ReadOnlyRefusals,
    ) -> Result<Self, StoreError> {
        let started = Instant::now();
        let pooled = pool.acquire().await;
        duration.connection.record(started, pooled.is_ok());
        Ok(Self {
            pooled: pooled?,
            answer_limit: statement_timeout + TRANSPORT_ALLOWANCE,
            duration: duration.clone(),
            refusals: refusals.clone(),
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
        let outcome = answer
            .map_err(|_| StoreError::TimedOut { limit: self.answer_limit })
            .and_then(|answer| Ok(answer?));
        match &outcome {
            Ok(_) => self.is_healthy = was_healthy,
            Err(StoreError::ReadOnly { .. }) => self.refusals.record(),
            Err(_) => {}
        }
        outcome
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
