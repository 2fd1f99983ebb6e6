//! The job that coordinates recalculations: one run at a time, its ranges on all workers.
//!
//! The worker that holds the lease coordinates. Its fencing token is the run's number, and the database
//! accepts writes of the latest number only; so a coordinator that lost its lease without noticing, or a
//! delayed range, can no longer change anything.
//!
//! A request that finds the lease held is recorded first and then tries the lease once more; the holder
//! releases the lease first and then checks for requests once more. In any order, one of the two sees the
//! other, unless the holder crashed and its lease has not expired yet. A run that is abandoned that way, or
//! whose jobs Redis has lost, is found by [maintenance](crate::maintenance): a run without a coordinator in
//! two consecutive checks gets one.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use pricing_core::engine::EngineError;
use pricing_core::jobs::{Job, JobError, JobKind, NewJob, PRICED_BEFORE, RANGE_LENGTH, Range};
use pricing_core::keys::JOBS;
use pricing_core::lease::Lease;
use pricing_core::policy_snapshot::PolicySnapshotError;
use pricing_core::redis::RedisError;
use pricing_core::store::{RangeEnds, StoreError, StoredRun};
use pricing_core::telemetry::spans;
use pricing_domain::facts::product::ProductId;
use pricing_domain::facts::recalculation::{RecalculationScope, RunState};
use pricing_domain::policy::PricingPolicy;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::Recalculator;

const LEASE: &str = "recalculation";
/// How long a run has no coordinator after its coordinator crashed. Shorter than the heartbeat timeout of the
/// queue, so that the job of that coordinator finds the lease expired when it is redelivered.
const LEASE_TTL: Duration = Duration::from_secs(3);
/// How often the coordinator counts the finished ranges.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(15);
/// Counts between two checks of the run itself, which a failed range ends, and of the queue, which may have
/// lost ranges.
const COUNTS_PER_RUN_CHECK: u32 = 20;

/// Why a coordinator stopped.
#[derive(Debug)]
enum Stopped {
    /// The job ends with this error.
    Ended(JobError),
    /// An error; [`job_error_of`](Recalculator::job_error_of) maps it to the outcome of the job.
    Failed(EngineError),
}

impl From<JobError> for Stopped {
    fn from(error: JobError) -> Self {
        Self::Ended(error)
    }
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<PolicySnapshotError> for Stopped {
    fn from(error: PolicySnapshotError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<RedisError> for Stopped {
    fn from(error: RedisError) -> Self {
        Self::Failed(error.into())
    }
}

/// A run that seems to have no coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AbandonedRun {
    task_id: String,
    /// The token of the last owner of the lease.
    last_token: i64,
}

impl Recalculator {
    /// Coordinates runs until none is requested, or leaves that to the worker that holds the lease.
    pub(crate) async fn coordinate(&self, task_id: &str) -> Result<(), JobError> {
        let ended = self.coordinate_until_stopped(task_id).await;
        self.job_error_of_stopped(ended).await
    }

    async fn coordinate_until_stopped(&self, task_id: &str) -> Result<(), Stopped> {
        let mut coalesced = false;
        loop {
            match self.acquire_lease().await? {
                Some(lease) => {
                    let ended = self.run_next(&lease).await;
                    if let Err(error) = lease.release().await {
                        tracing::warn!(%error, "could not release the lease of the recalculation; it will expire");
                    }
                    ended?;
                }
                None if coalesced => return Ok(()),
                None => {
                    self.coalesce(task_id).await?;
                    coalesced = true;
                    continue;
                }
            }
            if self.engine.store.next_requested_run().await?.is_none() {
                return Ok(());
            }
        }
    }

    /// Enqueues a coordinator if a run waits or is under way and the lease was free since the last check.
    /// `suspected` is the result of that check.
    pub(crate) async fn find_abandoned_run(
        &self,
        suspected: &mut Option<AbandonedRun>,
    ) -> Result<(), EngineError> {
        let found = match self.engine.store.next_requested_run().await? {
            Some(run) => Lease::last_token_if_free(&self.redis, &self.keys, LEASE)
                .await?
                .map(|last_token| AbandonedRun { task_id: run.task_id, last_token }),
            None => None,
        };
        if let (Some(run), true) = (&found, found == *suspected) {
            // Named after the token, so it is enqueued once for each owner that the lease had.
            let name = format!("run:{}:after-{}", run.task_id, run.last_token);
            let job = NewJob { task_id: name, job: Job::Run { task_id: run.task_id.clone() } };
            match self.enqueue(&job).await {
                Ok(_) => tracing::info!(
                    task_id = run.task_id,
                    "enqueued a coordinator for a recalculation without one"
                ),
                // The next check retries.
                Err(error) => tracing::debug!(%error, "could not enqueue a coordinator"),
            }
        }
        *suspected = found;
        Ok(())
    }

    /// Fails the run of a coordinator that became a dead letter, unless another worker coordinates it:
    /// otherwise it would be restarted again and again.
    pub(crate) async fn fail_abandoned_run(&self, reason: &str) -> Result<(), JobError> {
        let ended = self.fail_run_without_lease(reason).await;
        self.job_error_of_stopped(ended).await
    }

    async fn fail_run_without_lease(&self, reason: &str) -> Result<(), Stopped> {
        let is_free = Lease::last_token_if_free(&self.redis, &self.keys, LEASE).await?.is_some();
        let (store, now) = (&self.engine.store, self.engine.clock.now());
        let (true, Some(run)) = (is_free, store.next_requested_run().await?) else { return Ok(()) };
        match run.run_number {
            Some(number) => {
                store.finish_run(&run.task_id, number, RunState::Failed, Some(reason), now).await?;
            }
            None => {
                store.withdraw_run(&run.task_id, reason, now).await?;
            }
        }
        Ok(())
    }

    async fn job_error_of_stopped(&self, ended: Result<(), Stopped>) -> Result<(), JobError> {
        match ended {
            Ok(()) => Ok(()),
            Err(Stopped::Ended(error)) => Err(error),
            Err(Stopped::Failed(error)) => Err(self.job_error_of(error).await),
        }
    }

    async fn acquire_lease(&self) -> Result<Option<Lease>, Stopped> {
        let last_number = self.engine.store.last_run_number().await?;
        Ok(Lease::acquire(&self.redis, &self.keys, LEASE, &self.owner, LEASE_TTL, last_number).await?)
    }

    async fn coalesce(&self, task_id: &str) -> Result<(), Stopped> {
        let store = &self.engine.store;
        if let Some(run) = store.run(task_id).await? {
            store.coalesce_run(task_id, &run.scope, self.engine.clock.now()).await?;
        }
        Ok(())
    }

    /// Runs the oldest request under the lease's token: each run has a number, and so a lease, of its own.
    async fn run_next(&self, lease: &Lease) -> Result<(), Stopped> {
        match self.engine.store.next_requested_run().await? {
            Some(run) => self.run(&run, lease.token(), &lease.lost()).await,
            None => Ok(()),
        }
    }

    async fn run(&self, run: &StoredRun, run_number: i64, lost: &CancellationToken) -> Result<(), Stopped> {
        let store = &self.engine.store;
        self.engine.policies.refresh().await?;
        let policy = Arc::clone(self.engine.policies.snapshot().current());
        let policy_version = policy.version;
        // An approval holds for the examined policy version only.
        let is_approved =
            run.approved_by.is_some() && run.policy_version.is_none_or(|examined| examined == policy_version);
        if run.run_number.is_none() && !is_approved && self.hold(run, policy, lost).await? {
            return Ok(());
        }
        let total = store.count_products_of(&run.scope).await?;
        let now = self.engine.clock.now();
        if !store.begin_run(&run.task_id, run_number, policy_version, total, now).await? {
            let reason = "another coordinator has begun a run".to_owned();
            return Err(Stopped::Ended(JobError::Retry { reason }));
        }
        if run.started_at.is_none() {
            let waited = (now - run.requested_at).to_std().unwrap_or_default();
            self.metrics.runs.wait_duration.record(waited);
        }
        tracing::info!(task_id = run.task_id, run_number, products = total, "began a recalculation");
        let (task_id, product_ids) = (run.task_id.clone(), Vec::new());
        let release = run.scope.is_released();
        let range = Range { task_id, run_number, policy_version, release, product_ids };
        let ranges = self.hand_out(&run.scope, &range, lost).await?;
        self.wait_for(&range, ranges, run.started_at.unwrap_or(now), lost).await
    }

    /// Holds the run if it would move prices too far, by the policy's own circuit breaker. Returns whether it
    /// did.
    async fn hold(
        &self,
        run: &StoredRun,
        policy: Arc<PricingPolicy>,
        lost: &CancellationToken,
    ) -> Result<bool, Stopped> {
        let (store, policy_version) = (&self.engine.store, policy.version);
        if policy.circuit_breaker.is_off() {
            return Ok(false);
        }
        let may_continue = || !lost.is_cancelled() && !self.shutdown.is_cancelled();
        // As of now: later effects of the policy were examined when it was published.
        let mut simulator = self.engine.simulator(policy, run.scope.clone(), self.engine.clock.now());
        simulator.run(may_continue).await?;
        let reasons = simulator.reasons_to_hold().await?;
        self.pause_or_stop(lost).await?;
        if reasons.is_empty() {
            return Ok(false);
        }
        let reason = reasons.join("; ");
        store.hold_run(&run.task_id, &reason, policy_version, self.engine.clock.now()).await?;
        tracing::warn!(task_id = run.task_id, reason, "holding a recalculation until it is approved");
        Ok(true)
    }

    /// Enqueues the ranges as fast as workers take them. Returns how many the run has, with those that were
    /// finished before it was restarted.
    async fn hand_out(
        &self,
        scope: &RecalculationScope,
        range: &Range,
        lost: &CancellationToken,
    ) -> Result<u64, Stopped> {
        let store = &self.engine.store;
        let finished = store.finished_ranges(range.run_number).await?;
        let mut ranges = u64::try_from(finished.len()).unwrap_or(u64::MAX);
        let mut last = None;
        for number in 0_u64.. {
            let mut page = store.product_ids_of(scope, last.as_ref(), RANGE_LENGTH).await?;
            page.sort_unstable();
            let Some(end) = page.last() else { break };
            last = Some(end.clone());
            for (part, (product_ids, is_priced)) in split_at_finished(page, &finished).into_iter().enumerate()
            {
                ranges += u64::from(!is_priced);
                let task_id = format!("range:{}:{number}.{part}", range.run_number);
                let run_number = if is_priced { PRICED_BEFORE } else { range.run_number };
                let job = Job::Range(Range { product_ids, run_number, ..range.clone() });
                self.enqueue_range(&NewJob { task_id, job }, lost).await?;
            }
            if matches!(scope.products(), RecalculationScope::Products(_)) {
                break;
            }
        }
        Ok(ranges)
    }

    async fn enqueue_range(&self, job: &NewJob, lost: &CancellationToken) -> Result<(), JobError> {
        let enqueued = async {
            while !self.enqueue(job).await? {
                self.pause_or_stop(lost).await?;
            }
            Ok(())
        };
        enqueued.instrument(spans::send(JOBS, 1)).await
    }

    async fn wait_for(
        &self,
        range: &Range,
        ranges: u64,
        started_at: DateTime<Utc>,
        lost: &CancellationToken,
    ) -> Result<(), Stopped> {
        let (store, run_number) = (&self.engine.store, range.run_number);
        for count in 1_u32.. {
            let checks_run = count % COUNTS_PER_RUN_CHECK == 0;
            // Checked before the count: a range leaves the queue after it is done.
            let is_queue_empty = checks_run && self.has_no_ranges().await;
            let are_finished = store.count_finished_ranges(run_number).await? >= ranges;
            // A range leaves the queue after its prices are published.
            if are_finished && self.has_no_ranges().await {
                break;
            }
            if checks_run && !self.is_running(range).await? {
                return Ok(());
            }
            if is_queue_empty && !are_finished {
                let reason = "some ranges of the run are neither done nor in the queue".to_owned();
                return Err(Stopped::Ended(JobError::Retry { reason }));
            }
            self.pause_or_stop(lost).await?;
        }
        if !store
            .finish_run(&range.task_id, run_number, RunState::Done, None, self.engine.clock.now())
            .await?
        {
            // A range has failed meanwhile, and the run with it.
            return Ok(());
        }
        let duration = (self.engine.clock.now() - started_at).to_std().unwrap_or_default();
        self.metrics.runs.duration.record(duration);
        tracing::info!(task_id = range.task_id, run_number, "finished a recalculation");
        Ok(())
    }

    /// Whether the queue certainly has no ranges.
    async fn has_no_ranges(&self) -> bool {
        matches!(self.queue.outstanding(JobKind::Range).await, Ok(0))
    }

    async fn is_running(&self, range: &Range) -> Result<bool, StoreError> {
        let run = self.engine.store.run(&range.task_id).await?;
        Ok(run.is_some_and(|run| run.state == RunState::Running))
    }

    /// Pauses, unless the work must stop.
    async fn pause_or_stop(&self, lost: &CancellationToken) -> Result<(), JobError> {
        if lost.is_cancelled() {
            return Err(JobError::Retry { reason: "the lease of the recalculation was lost".to_owned() });
        }
        self.pause(PROGRESS_INTERVAL).await
    }
}

/// Splits products, in order, where finished ranges begin and end. Returns the parts, each with whether it is
/// priced.
fn split_at_finished(products: Vec<ProductId>, finished: &[RangeEnds]) -> Vec<(Vec<ProductId>, bool)> {
    // The number of ranges that begin before or at the product, and whether the last of these contains it.
    let position_of = |product: &ProductId| {
        let begun = finished.partition_point(|range| range.first <= *product);
        let latest = begun.checked_sub(1).and_then(|index| finished.get(index));
        (begun, latest.is_some_and(|range| *product <= range.last))
    };
    let mut parts: Vec<(Vec<ProductId>, bool)> = Vec::new();
    let mut current = None;
    for product in products {
        let (begun, is_finished) = position_of(&product);
        match parts.last_mut() {
            Some((part, _)) if current == Some((begun, is_finished)) => part.push(product),
            _ => parts.push((vec![product], is_finished)),
        }
        current = Some((begun, is_finished));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &str) -> Vec<ProductId> {
        names.split_whitespace().map(|name| ProductId::parse(name).unwrap()).collect()
    }

    #[test]
    fn products_are_split_where_finished_ranges_begin_and_end() {
        for (finished, expected) in [
            ("", "A B C D E F"),
            ("A-F", "(A B C D E F)"),
            ("B-C", "A|(B C)|D E F"),
            ("A-B C-D", "(A B)|(C D)|E F"),
            // Ends that were removed since, and products that were added.
            ("A0-B5 E-Z", "A|(B)|C D|(E F)"),
            ("0-1 G-H", "A B C D E F"),
            // Every product of a finished range was removed.
            ("B0-B9", "A B|C D E F"),
            ("F-F", "A B C D E|(F)"),
        ] {
            let finished: Vec<RangeEnds> = finished
                .split_whitespace()
                .map(|range| {
                    let (first, last) = range.split_once('-').unwrap();
                    RangeEnds { first: ids(first).remove(0), last: ids(last).remove(0) }
                })
                .collect();
            let parts = split_at_finished(ids("A B C D E F"), &finished);
            let parts: Vec<String> = parts
                .iter()
                .map(|(products, is_priced)| {
                    let names: Vec<&str> = products.iter().map(ProductId::as_str).collect();
                    if *is_priced { format!("({})", names.join(" ")) } else { names.join(" ") }
                })
                .collect();
            assert_eq!(parts.join("|"), expected, "{finished:?}");
        }
    }
}
