//! The work of jobs, one kind per file: each calls one function of the core, whose error determines whether
//! to retry.
//!
//! Here: the [`Recalculator`], which handles deliveries, and the mapping of errors to outcomes of jobs. Where
//! next: `apply_events`, `coordinate_run` and `price_range` for the work, [`runner`](crate::runner) for
//! attempts and dead letters.

mod apply_events;
mod coordinate_run;
mod price_range;

use std::sync::Arc;
use std::time::Duration;

use pricing_core::backoff::Backoff;
use pricing_core::engine::{Engine, EngineError};
use pricing_core::jobs::queue::{EnqueueError, Enqueued, JobQueue};
use pricing_core::jobs::{Job, JobError, NewJob};
use pricing_core::keys::MessageKeys;
use pricing_core::policy_snapshot::PolicySnapshotError;
use pricing_core::redis::RedisConnection;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::metrics::RecalculationMetrics;
use crate::runner::Delivery;

/// Bounds of the back-off between checks of an unavailable database.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a job waits for an unavailable database before it is requeued. Together with its other waits,
/// less than the time limit of a job.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(20);

/// The dependencies of jobs; cheap to clone.
#[derive(Clone)]
pub struct Recalculator {
    /// Computes and stores prices.
    pub engine: Engine,
    /// The metrics of jobs and maintenance.
    pub metrics: Arc<RecalculationMetrics>,
    /// The queue, which also holds the ranges of a run.
    pub queue: JobQueue,
    /// The Redis that holds leases, with a connection of its own for writes: behind thousands of prices on a
    /// slow disk, a renewal could arrive after its lease has expired.
    pub redis: RedisConnection,
    /// The keys of leases and the queue.
    pub keys: MessageKeys,
    /// The name of this worker.
    pub owner: String,
    /// Bounds how many ranges write concurrently. If all did, sharing the database, they would finish
    /// together, and then wait for Redis together while the database is idle.
    pub range_turns: Arc<Semaphore>,
    /// Cancelled at shutdown.
    pub shutdown: CancellationToken,
}

impl Recalculator {
    /// Handles a delivery: runs the job, or cleans up after a dead letter.
    pub async fn handle(&self, delivery: Delivery) -> Result<(), JobError> {
        match delivery {
            Delivery::Run { job: Job::ApplyEvents { events, published_at }, is_first_attempt, .. } => {
                self.apply_events(events, published_at, is_first_attempt).await
            }
            Delivery::Run { job: Job::Range(range), .. } => self.price_range(range).await,
            Delivery::Run { job: Job::Run { task_id }, .. } => self.coordinate(&task_id).await,
            Delivery::DeadLetter { job: Job::Range(range), reason } => self.fail_run(&range, &reason).await,
            Delivery::DeadLetter { job: Job::Run { .. }, reason } => {
                self.fail_abandoned_run(&format!("its coordinator failed: {reason}")).await
            }
            Delivery::DeadLetter { job: Job::ApplyEvents { .. }, .. } => Ok(()),
        }
    }

    /// Enqueues a job. Returns whether it is in the queue now; false if there is no room.
    pub(crate) async fn enqueue(&self, job: &NewJob) -> Result<bool, JobError> {
        match self.queue.enqueue(job).await {
            Ok(enqueued) => {
                let added = u64::from(matches!(enqueued, Enqueued::Added { .. }));
                self.metrics.jobs_enqueued.increment(added);
                Ok(enqueued != Enqueued::Full)
            }
            Err(EnqueueError::Redis(error)) => Err(JobError::Retry { reason: error.to_string() }),
            Err(EnqueueError::Job(error)) => Err(error),
        }
    }

    /// Maps an error to the outcome of the job. While the database is unavailable, no attempt is counted: the
    /// job waits here for a bounded time, and is requeued.
    pub(crate) async fn job_error_of(&self, error: EngineError) -> JobError {
        let reason = error.to_string();
        match error {
            EngineError::Store(error) | EngineError::Policies(PolicySnapshotError::Store(error)) => {
                if !error.is_unavailable() && !error.is_transient() {
                    return JobError::Abort { reason };
                }
                let did_not_answer = self.wait_for_database(&reason).await;
                if did_not_answer || error.is_unavailable() {
                    JobError::Unavailable { reason }
                } else {
                    JobError::Retry { reason }
                }
            }
            // Requeued for a worker that knows the policy.
            EngineError::PolicyUnknown { .. } => JobError::Unavailable { reason },
            EngineError::Redis(_) | EngineError::Interrupted | EngineError::Policies(_) => {
                JobError::Retry { reason }
            }
            EngineError::Explanation(_) => JobError::Abort { reason },
        }
    }

    /// Waits a bounded time for the database to answer. Returns whether it was down at first.
    async fn wait_for_database(&self, reason: &str) -> bool {
        let deadline = Instant::now() + DATABASE_TIMEOUT;
        let (mut backoff, mut did_not_answer) = (Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE), false);
        while let Err(error) = self.engine.store.check().await {
            if !did_not_answer {
                tracing::warn!(%error, reason, "the database does not answer; jobs are waiting for it");
            }
            did_not_answer = true;
            if Instant::now() > deadline || self.pause(backoff.pause()).await.is_err() {
                break;
            }
        }
        did_not_answer
    }

    /// Pauses, unless the process is stopping.
    pub(crate) async fn pause(&self, pause: Duration) -> Result<(), JobError> {
        self.shutdown.run_until_cancelled(sleep(pause)).await.ok_or(JobError::Stopping)
    }
}
