//! What jobs do: each ends in one function of the core, and its error says whether to try again.
pub(crate) mod coordinate_run;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use pricing_core::jobs::queue::{EnqueueError, Enqueued, JobQueue};
use pricing_core::jobs::{Job, JobError, NewJob, Range};
use pricing_core::keys::{JOBS, MessageKeys};
use pricing_core::policy_snapshot::PolicySnapshotError;
use pricing_core::redis::RedisConnection;
use pricing_core::reprice::{OtherCurrency, RangeDone, RepriceError, Repricer, WRITE_BATCH, products_of};
use pricing_core::telemetry::spans;
use pricing_domain::facts::market_event::MarketEvent;
use pricing_domain::facts::recalculation::RunState;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::runner::Delivery;

/// Pauses between looks at a database that is away.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a job waits for a database that is away before it goes back to the queue: with everything else
/// that it may have waited for, less than a job may take.
const DATABASE_PATIENCE: Duration = Duration::from_secs(20);
/// How long a range waits for its turn before it goes back to the queue, so that most of a job's time is left
/// for the work.
const TURN_PATIENCE: Duration = Duration::from_secs(20);

/// Everything that jobs need; cheap to clone.
#[derive(Clone)]
pub struct Recalculator {
    /// Makes prices.
    pub repricer: Repricer,
    /// Takes the parts of a run.
    pub queue: JobQueue,
    /// Where leases are. Its writes are its own: a lease that was renewed behind thousands of prices would be
    /// lost when the disk is slow.
    pub redis: RedisConnection,
    /// Their names.
    pub keys: MessageKeys,
    /// The name of this worker.
    pub owner: String,
    /// Ranges take turns to write. If all wrote at a time, sharing the database, they would all be done at a
    /// time, and then wait for Redis together while the database has nothing to do.
    pub range_turns: Arc<Semaphore>,
    /// Cancelled when the process is to stop.
    pub shutdown: CancellationToken,
}

impl Recalculator {
    /// Does a job.
    pub async fn perform(&self, delivery: Delivery) -> Result<(), JobError> {
        match delivery {
            Delivery::Do { job: Job::ApplyEvents { events, published_at }, is_first_try, .. } => {
                self.apply_events(events, published_at, is_first_try).await
            }
            Delivery::Do { job: Job::Range(range), .. } => self.recalculate_range(range).await,
            Delivery::Do { job: Job::Run { task_id }, .. } => self.coordinate(&task_id).await,
            Delivery::GivenUp { job: Job::Range(range), reason } => self.fail_run(&range, &reason).await,
            Delivery::GivenUp { job: Job::Run { .. }, reason } => {
                self.fail_abandoned_run(&format!("its coordinator was given up: {reason}")).await
            }
            Delivery::GivenUp { job: Job::ApplyEvents { .. }, .. } => Ok(()),
        }
    }

    async fn apply_events(
        &self,
        events: Vec<MarketEvent>,
        published_at: Option<DateTime<Utc>>,
        is_first_try: bool,
    ) -> Result<(), JobError> {
        for events in in_transactions(events) {
            let count = events.len();
            let applied = match self.repricer.apply_events(events, published_at, is_first_try).await {
                Ok(applied) => applied,
                Err(error) => return Err(self.judge(error).await),
            };
            for product_id in &applied.unknown {
                tracing::warn!(%product_id, "an event is about a product that is not in the catalogue");
            }
            for OtherCurrency { product_id, competitor, currency } in &applied.in_other_currency {
                let currency = currency.code();
                tracing::warn!(%product_id, competitor, currency, "a competitor's price is in another currency than the product, and not used");
            }
            let metrics = &self.repricer.metrics;
            metrics.events_applied.increment(to_u64(applied.events));
            metrics.events_repeated.increment(to_u64(applied.repeated));
            metrics.events_unknown.increment(to_u64(applied.unknown.len()));
            metrics.events_in_other_currency.increment(to_u64(applied.in_other_currency.len()));
            tracing::debug!(events = count, changed = applied.changed, "events were applied");
            for task_id in applied.requested_runs {
                self.ask_for_coordinator(task_id).await?;
            }
        }
        Ok(())
    }

    /// Sees to it that a requested run is begun. Not by a wait for room in the queue: as many coordinators as
    /// there is room for may need the place that this job takes. They go on until nothing is requested, and
    /// what one of them misses is [found](Self::find_abandoned_run) a moment later.
    async fn ask_for_coordinator(&self, task_id: String) -> Result<(), JobError> {
        let job = NewJob { task_id: format!("run:{task_id}"), job: Job::Run { task_id } };
        self.enqueue(&job).instrument(spans::send(JOBS, 1)).await.map(|_| ())
    }

    /// Whether the job is in the queue now; false if there is no room.
    pub(crate) async fn enqueue(&self, job: &NewJob) -> Result<bool, JobError> {
        match self.queue.enqueue(job).await {
            Ok(enqueued) => {
                let added = u64::from(matches!(enqueued, Enqueued::Added { .. }));
                self.repricer.metrics.jobs_enqueued.increment(added);
                Ok(enqueued != Enqueued::Full)
            }
            Err(EnqueueError::Redis(error)) => Err(JobError::Retry { reason: error.to_string() }),
            Err(EnqueueError::Job(error)) => Err(error),
        }
    }

    async fn recalculate_range(&self, range: Range) -> Result<(), JobError> {
        let run_number = range.run_number;
        let turn = timeout(TURN_PATIENCE, Arc::clone(&self.range_turns).acquire_owned());
        let Some(Ok(Ok(turn))) = self.shutdown.run_until_cancelled(turn).await else {
            return Err(JobError::HandBack);
        };
        match self.repricer.recalculate_range(range, self.owner.clone(), turn).await {
            Ok(RangeDone::Superseded) => {
                tracing::info!(run_number, "a range was left out: a newer run has begun");
                Ok(())
            }
            Ok(RangeDone::Done { products, .. }) => {
                self.repricer.metrics.run_products.increment(products);
                Ok(())
            }
            Ok(RangeDone::Repeated) => Ok(()),
            Err(error) => Err(self.judge(error).await),
        }
    }

    async fn fail_run(&self, range: &Range, reason: &str) -> Result<(), JobError> {
        let reason = format!("a part of it failed: {reason}");
        let store = &self.repricer.store;
        store
            .finish_run(&range.task_id, range.run_number, RunState::Failed, Some(&reason), Utc::now())
            .await
            .map(|_| ())
            .map_err(|error| JobError::Retry { reason: error.to_string() })
    }

    /// What an error means for the job. While the database is away no tries are spent: the job waits here
    /// until it answers again, and goes back to the queue.
    pub(crate) async fn judge(&self, error: RepriceError) -> JobError {
        let reason = error.to_string();
        match error {
            RepriceError::Store(error) | RepriceError::Policies(PolicySnapshotError::Store(error)) => {
                if !error.is_away() && !error.is_transient() {
                    return JobError::Abort { reason };
                }
                let did_not_answer = self.wait_for_database(&reason).await;
                if did_not_answer || error.is_away() {
                    JobError::Away { reason }
                } else {
                    JobError::Retry { reason }
                }
            }
            // By another worker, which knows the policy.
            RepriceError::PolicyUnknown { .. } => JobError::Away { reason },
            RepriceError::Redis(_) | RepriceError::Interrupted | RepriceError::Policies(_) => {
                JobError::Retry { reason }
            }
            RepriceError::Explanation(_) => JobError::Abort { reason },
        }
    }

    /// Waits a bounded time for the database to answer; whether it did not at first.
    async fn wait_for_database(&self, reason: &str) -> bool {
        let given_up_at = Instant::now() + DATABASE_PATIENCE;
        let (mut pause, mut did_not_answer) = (SHORTEST_PAUSE, false);
        while let Err(error) = self.repricer.store.check().await {
            if !did_not_answer {
                tracing::warn!(%error, reason, "the database does not answer; jobs wait for it");
            }
            did_not_answer = true;
            if Instant::now() > given_up_at || self.pause(pause).await.is_err() {
                break;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        did_not_answer
    }

    /// Waits, unless the process is to stop.
    pub(crate) async fn pause(&self, pause: Duration) -> Result<(), JobError> {
        self.shutdown.run_until_cancelled(sleep(pause)).await.ok_or(JobError::HandBack)
    }
}

/// Parts of a batch that name at most [`WRITE_BATCH`] products each, or are one event.
fn in_transactions(events: Vec<MarketEvent>) -> Vec<Vec<MarketEvent>> {
    let mut parts: Vec<Vec<MarketEvent>> = Vec::new();
    let mut products = 0;
    for event in events {
        let named = products_of(&event).len();
        match parts.last_mut() {
            Some(part) if products + named <= WRITE_BATCH => {
                products += named;
                part.push(event);
            }
            _ => {
                products = named;
                parts.push(vec![event]);
            }
        }
    }
    parts
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
