//! Periodic maintenance: re-prices expired entries, restarts runs whose coordinator crashed, and purges old
//! records.
//!
//! Reads do not depend on it: no cache serves an entry past its `valid_until`, and a read that finds none
//! computes one. It is for products that are not read, so that stored prices, and clients that follow them,
//! are up to date too. One worker runs it, under a lease; if two did, row locks would still ensure that each
//! price is computed once.

use std::time::Duration;

use chrono::TimeDelta;
use pricing_core::engine::{EngineError, WRITE_BATCH};
use pricing_core::lease::Lease;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::jobs::Recalculator;

const LEASE: &str = "schedule";
/// How long maintenance pauses after its worker crashed.
const LEASE_TTL: Duration = Duration::from_secs(5);
/// How often a worker without the lease tries to take it, and its holder checks for due work.
const INTERVAL: Duration = Duration::from_millis(500);
/// How often the queue's own records are deleted, by every worker.
const CLEANING_INTERVAL: Duration = Duration::from_secs(5);
/// How often every worker counts the products, and the prices that something keeps from their target.
const COUNTING_INTERVAL: Duration = Duration::from_secs(15);
/// How often maintenance checks for runs without a coordinator.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);
/// How often old records are purged.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);
/// Records purged in one statement.
const PURGE_BATCH: u32 = 5_000;
/// How many such statements run in a row: enough for 1,600 events a second.
const PURGE_BATCHES: u32 = 20;
/// How long a duplicate event is recognised by its identifier. A later duplicate does not replace the newer
/// facts that it finds.
const EVENTS_KEPT: TimeDelta = TimeDelta::days(7);
/// How long the result of a recalculation can be queried.
const RUNS_KEPT: TimeDelta = TimeDelta::days(30);

/// A maintenance task. If one fails, the others continue; its failure is logged once, until it succeeds
/// again.
struct Task {
    /// The message logged when it fails.
    name: &'static str,
    is_failing: bool,
}

impl Task {
    fn new(name: &'static str) -> Self {
        Self { name, is_failing: false }
    }

    /// Logs a first failure. Returns whether the task succeeded.
    fn ended(&mut self, ended: &Result<(), EngineError>) -> bool {
        if let (Err(error), false) = (ended, self.is_failing) {
            tracing::warn!(%error, "{}; retrying", self.name);
        }
        self.is_failing = ended.is_err();
        ended.is_ok()
    }
}

impl Recalculator {
    /// Runs maintenance until shutdown.
    pub async fn run_maintenance(self) {
        let mut expiry = Task::new("could not re-price expired entries");
        let mut purge = Task::new("could not purge old records");
        let mut search = Task::new("could not look for runs without a coordinator");
        let (mut purged_at, mut suspected, mut searched_at) = (None, None, Instant::now());
        while !self.shutdown.is_cancelled() {
            let lease = Lease::acquire(&self.redis, &self.keys, LEASE, &self.owner, LEASE_TTL, 0).await;
            if let Ok(Some(lease)) = lease {
                let lost = lease.lost();
                let mut succeeded = true;
                // After a failure the lease is released: another worker may succeed.
                while succeeded && !lost.is_cancelled() && !self.shutdown.is_cancelled() {
                    succeeded = expiry.ended(&self.reprice_expired(&lost).await);
                    if purged_at.is_none_or(|at: Instant| at.elapsed() > PURGE_INTERVAL) {
                        succeeded &= purge.ended(&self.purge(&lost).await);
                        purged_at = Some(Instant::now());
                    }
                    if searched_at.elapsed() > SEARCH_INTERVAL {
                        succeeded &= search.ended(&self.find_abandoned_run(&mut suspected).await);
                        searched_at = Instant::now();
                    }
                    self.wait_for_expiry(&lost).await;
                }
                // If this fails, the lease expires.
                let _ = lease.release().await;
            }
            let _ = self.pause(INTERVAL).await;
        }
    }

    /// Deletes the queue's old records, and measures its backlog and the catalogue, until shutdown.
    pub async fn keep_queue_clean(self) {
        let mut counted_at = None;
        while self.pause(CLEANING_INTERVAL).await.is_ok() {
            // An unavailable Redis is logged where jobs are fetched.
            while matches!(self.queue.clean().await, Ok(deleted) if deleted > 0) {}
            if let Ok(jobs @ 1..) = self.queue.recover_lost().await {
                tracing::warn!(jobs, "requeued jobs that the queue library had dropped");
            }
            if let Ok(depth) = self.queue.depth().await {
                self.metrics.queue_depth.set(u32::try_from(depth).unwrap_or(u32::MAX));
            }
            // Measured on every worker, as maintenance may move to another one.
            if let Ok(held) = self.engine.store.count_held_runs().await {
                self.metrics.runs.held.set(u32::try_from(held).unwrap_or(u32::MAX));
            }
            if let Ok(held) = self.engine.store.count_held_moves().await {
                self.metrics.events.held.set(u32::try_from(held).unwrap_or(u32::MAX));
            }
            if let Ok(dead) = self.queue.count_dead().await {
                self.metrics.dead_jobs.set(u32::try_from(dead).unwrap_or(u32::MAX));
            }
            if counted_at.is_none_or(|at: Instant| at.elapsed() >= COUNTING_INTERVAL) {
                self.count_catalogue().await;
                counted_at = Some(Instant::now());
            }
        }
    }

    /// Measures the catalogue and its server; if the database does not answer, the figures stay.
    async fn count_catalogue(&self) {
        let store = &self.engine.store;
        if let (Ok(held), Ok(products)) = (store.count_held_prices().await, store.count_products().await) {
            self.metrics.catalogue.record(&held, products);
        }
        if let Ok(connections) = store.count_server_connections().await {
            self.metrics.catalogue.record_connections(connections);
        }
    }

    async fn reprice_expired(&self, lost: &CancellationToken) -> Result<(), EngineError> {
        while self.engine.reprice_expired(self.engine.clock.now()).await? == WRITE_BATCH
            && !lost.is_cancelled()
        {}
        Ok(())
    }

    /// Deletes old records in small statements; the next pass deletes the rest.
    async fn purge(&self, lost: &CancellationToken) -> Result<(), EngineError> {
        let (store, now) = (&self.engine.store, self.engine.clock.now());
        for _ in 0..PURGE_BATCHES {
            let events = store.forget_applied_events(now - EVENTS_KEPT, PURGE_BATCH).await?;
            if events < u64::from(PURGE_BATCH) || lost.is_cancelled() || self.shutdown.is_cancelled() {
                break;
            }
        }
        store.forget_runs(now - RUNS_KEPT, PURGE_BATCH).await?;
        // Without a limit, none counts.
        let limit = self.engine.policies.snapshot().current().circuit_breaker.moved;
        let counted_since = limit.map_or(now, |limit| now - limit.within);
        for _ in 0..PURGE_BATCHES {
            let moves = store.forget_event_moves(counted_since, PURGE_BATCH).await?;
            if moves < u64::from(PURGE_BATCH) || lost.is_cancelled() || self.shutdown.is_cancelled() {
                break;
            }
        }
        Ok(())
    }

    /// Waits until the next price expires, or for one interval if that is later or unknown.
    async fn wait_for_expiry(&self, lost: &CancellationToken) {
        let next = self.engine.store.next_expiry().await.ok().flatten();
        let left = next.and_then(|next| (next - self.engine.clock.now()).to_std().ok()).unwrap_or(INTERVAL);
        tokio::select! {
            () = sleep(left.clamp(Duration::from_millis(1), INTERVAL)) => {}
            () = lost.cancelled() => {}
            () = self.shutdown.cancelled() => {}
        }
    }
}
