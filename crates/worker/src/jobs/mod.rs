//! What jobs do, one kind a file: each ends in one function of the core, and its error says whether to retry.
//!
//! Here: the [`Recalculator`], which handles deliveries, and what an error means for a job. Where next:
//! `apply_events`, `coordinate_run` and `price_range` for the work, [`runner`](crate::runner) for attempts
//! and dead letters.

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
/// How long a job waits for an unavailable database before it is requeued: together with everything else that
/// it may have waited for, less than the time limit of a job.
const DATABASE_PATIENCE: Duration = Duration::from_secs(20);

/// Everything that jobs need; cheap to clone.
#[derive(Clone)]
pub struct Recalculator {
    /// Computes and stores prices.
    pub engine: Engine,
    /// What jobs and maintenance measure.
    pub metrics: Arc<RecalculationMetrics>,
    /// Where the parts of a run are enqueued.
    pub queue: JobQueue,
    /// Where leases are held. Its connection for writes is its own: a renewal queued behind thousands of
    /// prices could be late on a slow disk, and the lease lost.
    pub redis: RedisConnection,
    /// The keys of leases and the queue.
    pub keys: MessageKeys,
    /// The name of this worker.
    pub owner: String,
    /// Ranges take turns to write. If all wrote concurrently, sharing the database, they would finish
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

    /// Decides what an error means for the job. While the database is unavailable no attempts are spent: the
    /// job waits here until it answers again, and is requeued.
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
            // Another worker, which knows the policy, takes it.
            EngineError::PolicyUnknown { .. } => JobError::Unavailable { reason },
            EngineError::Redis(_) | EngineError::Interrupted | EngineError::Policies(_) => {
                JobError::Retry { reason }
            }
            EngineError::Explanation(_) => JobError::Abort { reason },
        }
    }

    /// Waits a bounded time for the database to answer. Returns whether it was down at first.
    async fn wait_for_database(&self, reason: &str) -> bool {
        let deadline = Instant::now() + DATABASE_PATIENCE;
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
