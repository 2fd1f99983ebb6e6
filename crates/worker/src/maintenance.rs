//! Periodic maintenance: re-prices expired entries, restarts runs whose coordinator died, purges old records.
//!
//! Readers do not depend on it: no cache serves an entry past its `valid_until`, and a read that finds none
//! computes one. This is for products that are not read, so that stored prices, and those who watch them, are
//! right too. One worker does it, by a lease; if two did, the row locks would let each price be computed
//! once.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use pricing_core::engine::{EngineError, WRITE_BATCH};
use pricing_core::lease::Lease;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::jobs::Recalculator;

const LEASE: &str = "schedule";
/// How long maintenance pauses when the worker that did it died.
const LEASE_TTL: Duration = Duration::from_secs(5);
/// How often a worker without the lease tries to get it, and the one with it looks at the clock.
const INTERVAL: Duration = Duration::from_millis(500);
/// How often the queue's own records are cleaned up, by every worker.
const CLEANING_INTERVAL: Duration = Duration::from_secs(5);
/// How often runs without a coordinator are searched for.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);
/// How often old records are purged.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);
/// Records purged in one statement.
const FORGET_BATCH: u32 = 5_000;
/// How many such statements follow each other: enough for 1,600 events a second.
const FORGET_BATCHES: u32 = 20;
/// For how long an event that is published again is recognised by its identifier. One that comes even later
/// finds newer facts, which it does not replace.
const EVENTS_KEPT: TimeDelta = TimeDelta::days(7);
/// For how long what became of a recalculation can be asked for.
const RUNS_KEPT: TimeDelta = TimeDelta::days(30);

/// A maintenance task. When one fails, the others go on; its failure is logged once, until it succeeds again.
struct Task {
    /// What does not happen while it fails.
    name: &'static str,
    is_failing: bool,
}

impl Task {
    fn new(name: &'static str) -> Self {
        Self { name, is_failing: false }
    }

    /// Whether it went well.
    fn ended(&mut self, ended: &Result<(), EngineError>) -> bool {
        if let (Err(error), false) = (ended, self.is_failing) {
            tracing::warn!(%error, "{}; retrying", self.name);
        }
        self.is_failing = ended.is_err();
        ended.is_ok()
    }
}

impl Recalculator {
    /// Runs maintenance until the process is to stop.
    pub async fn run_maintenance(self) {
        let mut expiry = Task::new("cannot re-price expired entries");
        let mut purge = Task::new("cannot purge old records");
        let mut search = Task::new("cannot look for runs without a coordinator");
        let (mut purged_at, mut suspected, mut looked_at) = (None, None, Instant::now());
        while !self.shutdown.is_cancelled() {
            let lease = Lease::acquire(&self.redis, &self.keys, LEASE, &self.owner, LEASE_TTL, 0).await;
            if let Ok(Some(lease)) = lease {
                let lost = lease.lost();
                let mut goes_well = true;
                // Where something fails here, another worker may do better.
                while goes_well && !lost.is_cancelled() && !self.shutdown.is_cancelled() {
                    goes_well = expiry.ended(&self.reprice_expired(&lost).await);
                    if purged_at.is_none_or(|at: Instant| at.elapsed() > PURGE_INTERVAL) {
                        goes_well &= purge.ended(&self.purge(&lost).await);
                        purged_at = Some(Instant::now());
                    }
                    if looked_at.elapsed() > SEARCH_INTERVAL {
                        goes_well &= search.ended(&self.find_abandoned_run(&mut suspected).await);
                        looked_at = Instant::now();
                    }
                    self.wait_for_expiry(&lost).await;
                }
                // If this fails, the lease expires.
                let _ = lease.release().await;
            }
            let _ = self.pause(INTERVAL).await;
        }
    }

    /// Cleans up the queue's records, and measures what waits, until the process is to stop.
    pub async fn keep_queue_clean(self) {
        while self.pause(CLEANING_INTERVAL).await.is_ok() {
            // That Redis is unavailable is logged where jobs are fetched.
            while matches!(self.queue.clean().await, Ok(deleted) if deleted > 0) {}
            if let Ok(jobs @ 1..) = self.queue.recover_lost().await {
                tracing::warn!(jobs, "requeued jobs that the queue library had dropped");
            }
            if let Ok(depth) = self.queue.depth().await {
                self.engine.metrics.queue_depth.set(u32::try_from(depth).unwrap_or(u32::MAX));
            }
            // By every worker: maintenance may move to another one.
            if let Ok(held) = self.engine.store.count_held_runs().await {
                self.engine.metrics.held_runs.set(u32::try_from(held).unwrap_or(u32::MAX));
            }
            if let Ok(dead) = self.queue.count_dead().await {
                self.engine.metrics.dead_jobs.set(u32::try_from(dead).unwrap_or(u32::MAX));
            }
        }
    }

    async fn reprice_expired(&self, lost: &CancellationToken) -> Result<(), EngineError> {
        while self.engine.reprice_expired(Utc::now()).await? == WRITE_BATCH && !lost.is_cancelled() {}
        Ok(())
    }

    /// Purges old records, in small statements: more comes in a minute than one of them removes.
    async fn purge(&self, lost: &CancellationToken) -> Result<(), EngineError> {
        let (store, now) = (&self.engine.store, Utc::now());
        for _ in 0..FORGET_BATCHES {
            let events = store.forget_applied_events(now - EVENTS_KEPT, FORGET_BATCH).await?;
            if events < u64::from(FORGET_BATCH) || lost.is_cancelled() || self.shutdown.is_cancelled() {
                break;
            }
        }
        store.forget_runs(now - RUNS_KEPT, FORGET_BATCH).await?;
        Ok(())
    }

    /// Waits until the next price expires, or a moment if that is later or not known.
    async fn wait_for_expiry(&self, lost: &CancellationToken) {
        let next = self.engine.store.next_expiry().await.ok().flatten();
        let left = next.and_then(|next| (next - Utc::now()).to_std().ok()).unwrap_or(INTERVAL);
        tokio::select! {
            () = sleep(left.clamp(Duration::from_millis(1), INTERVAL)) => {}
            () = lost.cancelled() => {}
            () = self.shutdown.cancelled() => {}
        }
    }
}
