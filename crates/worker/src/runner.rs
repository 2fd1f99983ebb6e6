//! Running jobs: fetching them, counting attempts, retries and dead letters, and recovery when Redis fails.
//!
//! The queue library fetches and acknowledges. Its worker ends whenever Redis fails, so another one is built,
//! under a new name, until shutdown; the jobs that the former one had fetched are released at once.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use apalis::layers::WorkerBuilderExt;
use apalis_core::error::{AbortError, BoxDynError, WorkerError};
use apalis_core::task::data::Data;
use apalis_core::task::metadata::MetadataStore;
use apalis_core::task::task_id::TaskId;
use apalis_core::worker::builder::WorkerBuilder;
use chrono::Utc;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use pricing_core::backoff::Backoff;
use pricing_core::jobs::queue::{Attempt, Fetched, JobQueue, MAX_CRASHES, MAX_RETRIES};
use pricing_core::jobs::storage::{Payload, storage};
use pricing_core::jobs::{Job, JobError};
use pricing_core::keys::{JOBS, MessageKeys};
use pricing_core::redis::{RedisConnection, RedisError, Subscription, SubscriptionEvent};
use pricing_core::telemetry::repeated_warning::RepeatedWarning;
use pricing_core::telemetry::spans;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::metrics::RunnerMetrics;

/// How often the queue is polled when no notification of a new job arrives.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long running jobs may take to finish at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(6);
/// Bounds of the back-off before another worker is built.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often the release of jobs is retried while Redis is unavailable.
const RELEASE_RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// The largest jitter of a retry, so that jobs that failed together are not retried together. It adds to the
/// queue's own back-off, which grows by a second with each attempt.
const MAX_JITTER_MS: u64 = 1_000;

/// A job as its handler receives it.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// A job to be run.
    Run {
        /// Its identifier.
        task_id: String,
        /// The job.
        job: Job,
        /// Whether it is certain that no earlier attempt of it started.
        is_first_attempt: bool,
    },
    /// A job that is about to become a dead letter, and will not be delivered again.
    DeadLetter {
        /// The job.
        job: Job,
        /// Why it failed.
        reason: String,
    },
}

/// Handles deliveries.
pub type JobHandler = Arc<dyn Fn(Delivery) -> BoxFuture<'static, Result<(), JobError>> + Send + Sync>;

/// Fetches jobs and runs their handler.
pub struct JobRunner {
    /// The queue.
    pub queue: JobQueue,
    /// Its Redis.
    pub redis: RedisConnection,
    /// The address of that Redis, for subscribing to notifications of new jobs.
    pub redis_url: String,
    /// The queue's keys.
    pub keys: MessageKeys,
    /// The name of this process among the workers, unique for each start.
    pub owner: String,
    /// Jobs run at the same time.
    pub concurrency: usize,
    /// Handles deliveries.
    pub handler: JobHandler,
    /// The metrics of the runner.
    pub metrics: RunnerMetrics,
}

impl JobRunner {
    /// Runs jobs until shutdown, then drains those that have started, and releases the others.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RedisError> {
        let runner = Arc::new(self);
        let wake = Arc::new(Notify::new());
        let subscription = Subscription::open(&runner.redis_url, vec![runner.keys.queue_wake()])?;
        let listening = tokio::spawn(listen(subscription, Arc::clone(&wake), shutdown.clone()));
        let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
        let silence = RepeatedWarning::new("the queue cannot be used; retrying");
        for number in 1_u64.. {
            let worker = format!("{}-{number}", runner.owner);
            let started = Instant::now();
            let ended = runner.fetch_until_it_ends(&worker, &wake, &shutdown).await;
            if started.elapsed() > LONGEST_PAUSE * 2 {
                backoff.reset();
            }
            if let (Err(error), false) = (&ended, shutdown.is_cancelled()) {
                silence.failed(error);
            }
            runner.release_until_answered(&worker, &shutdown).await;
            if shutdown.run_until_cancelled(sleep(backoff.pause())).await.is_none() {
                break;
            }
        }
        listening.abort();
        Ok(())
    }

    async fn fetch_until_it_ends(
        self: &Arc<Self>,
        worker: &str,
        wake: &Arc<Notify>,
        shutdown: &CancellationToken,
    ) -> Result<(), WorkerError> {
        let jobs = storage(self.redis.queue(), &self.keys, when_woken(Arc::clone(wake)));
        let worker = WorkerBuilder::new(worker)
            .backend(jobs)
            .data(Arc::clone(self))
            .concurrency(self.concurrency)
            .build(handle);
        let stop = shutdown.clone();
        let running = worker.run_until(async move {
            stop.cancelled().await;
            Ok::<(), WorkerError>(())
        });
        let drained = async {
            shutdown.cancelled().await;
            sleep(DRAIN_TIMEOUT).await;
        };
        tokio::select! {
            ended = running => ended,
            () = drained => {
                tracing::warn!("jobs were still running when the drain timed out; releasing them");
                Ok(())
            }
        }
    }

    /// Releases the jobs that a former worker had fetched. Retries until Redis answers, or tries once at
    /// shutdown.
    async fn release_until_answered(&self, worker: &str, shutdown: &CancellationToken) {
        loop {
            match self.release(worker).await {
                Ok(0) => return,
                Ok(jobs) => {
                    tracing::info!(jobs, worker, "released jobs");
                    return;
                }
                Err(error) if shutdown.is_cancelled() => {
                    tracing::warn!(%error, worker, "could not release jobs; other workers will reclaim them after the heartbeat timeout");
                    return;
                }
                Err(_) => {}
            }
            let _ = shutdown.run_until_cancelled(sleep(RELEASE_RETRY_INTERVAL)).await;
        }
    }

    async fn release(&self, worker: &str) -> Result<u32, RedisError> {
        let jobs = self.queue.release(worker).await?;
        // The next worker would end at once if its connection were still the broken one.
        self.redis.check_queue().await?;
        Ok(jobs)
    }

    /// Handles one delivery of a job: counts the attempt, runs the job, records how it ended.
    async fn attempt(&self, task_id: &str, payload: &[u8], fetched: Fetched) -> Result<Outcome, RedisError> {
        if fetched.is_uncounted && self.queue.last_count_went_well() {
            return self.attempt_uncounted(task_id, payload, &fetched).await;
        }
        let attempt = self.queue.start(task_id).await?;
        match (attempt, Job::decode(payload)) {
            (Attempt::Dead, _) => Ok(already_dead(task_id)),
            (_, Err(error)) => self.dead_letter_unreadable(task_id, error.to_string()).await,
            (Attempt::CrashedTooOften, Ok(job)) => {
                let reason = format!("its process crashed {MAX_CRASHES} times while it was running");
                self.dead_letter(task_id, &job, reason, MAX_CRASHES).await
            }
            (Attempt::Start { number }, Ok(job)) => {
                let ended = self.run_once(task_id, &job, &fetched).await;
                self.record(task_id, &job, number, ended).await
            }
        }
    }

    /// Runs the job concurrently with counting its attempt. No earlier attempt is known, so the job does not
    /// wait until a Redis that syncs every write has counted this one.
    async fn attempt_uncounted(
        &self,
        task_id: &str,
        payload: &[u8],
        fetched: &Fetched,
    ) -> Result<Outcome, RedisError> {
        let started = async {
            // Lets the connection's task send the count, which nearly always succeeds: then the attempt is
            // counted even if the job crashes this process at once. Otherwise that crash is not counted; a
            // restarted process waits for its first count.
            tokio::task::yield_now().await;
            let job = Job::decode(payload)?;
            let ended = self.run_once(task_id, &job, fetched).await;
            Ok::<_, JobError>((job, ended))
        };
        let (counted, started) = tokio::join!(biased; self.queue.start(task_id), started);
        let number = match counted? {
            Attempt::Dead => return Ok(already_dead(task_id)),
            Attempt::Start { number } => number,
            Attempt::CrashedTooOften => MAX_CRASHES + 1,
        };
        match started {
            Ok((job, ended)) => self.record(task_id, &job, number, ended).await,
            Err(error) => self.dead_letter_unreadable(task_id, error.to_string()).await,
        }
    }

    async fn run_once(&self, task_id: &str, job: &Job, fetched: &Fetched) -> Result<(), JobError> {
        let started = Instant::now();
        let kind = job.kind();
        let span = spans::process(JOBS, 1, fetched.trace.iter());
        spans::record_job(&span, task_id, kind.name(), fetched.wait_ms);
        let ended = self.run_in_task(task_id, job, fetched.is_uncounted).instrument(span.clone()).await;
        if let Err(error @ (JobError::Retry { .. } | JobError::Unavailable { .. } | JobError::Abort { .. })) =
            &ended
        {
            spans::record_error(&span, error);
        }
        drop(span);
        self.metrics.record_attempt(kind.name(), outcome_name(&ended), started.elapsed());
        ended
    }

    /// Records how an attempt ended.
    async fn record(
        &self,
        task_id: &str,
        job: &Job,
        number: u32,
        ended: Result<(), JobError>,
    ) -> Result<Outcome, RedisError> {
        let kind = job.kind();
        match ended {
            Ok(()) => {
                self.queue.finish(task_id, kind).await?;
                Ok(Outcome::Done)
            }
            Err(JobError::Stopping) => {
                self.queue.forget_attempt(task_id).await?;
                Ok(Outcome::Retry(JobError::Stopping.to_string()))
            }
            Err(JobError::Unavailable { reason }) => {
                self.queue.forget_attempt(task_id).await?;
                let kind = kind.name();
                tracing::warn!(task_id, kind, reason, "a dependency of a job is unavailable; requeueing it");
                Ok(Outcome::Retry(reason))
            }
            Err(JobError::Abort { reason }) => self.dead_letter(task_id, job, reason, number).await,
            Err(JobError::Retry { reason }) => {
                let failed = self.queue.fail(task_id, &reason).await?;
                if failed > MAX_RETRIES {
                    return self.dead_letter(task_id, job, reason, number).await;
                }
                tracing::warn!(task_id, kind = kind.name(), failed, reason, "a job failed; retrying it");
                Ok(Outcome::Retry(reason))
            }
        }
    }

    /// Runs the job in a task of its own: a panic ends only that task, and work that has started continues
    /// after the timeout.
    async fn run_in_task(&self, task_id: &str, job: &Job, is_first_attempt: bool) -> Result<(), JobError> {
        let delivery = Delivery::Run { task_id: task_id.to_owned(), job: job.clone(), is_first_attempt };
        let work = tokio::spawn((self.handler)(delivery).in_current_span());
        let ended = match job.kind().timeout() {
            None => work.await,
            Some(limit) => match timeout(limit, work).await {
                Ok(ended) => ended,
                Err(_) => {
                    let reason = format!("timed out after {} s", limit.as_secs());
                    return Err(JobError::Retry { reason });
                }
            },
        };
        ended.unwrap_or_else(|error| Err(JobError::Retry { reason: format!("it panicked: {error}") }))
    }

    /// Dead-letters a job. The handler runs first: a run that is not notified of a dead range would wait for
    /// it for ever. If the handler fails, the job is delivered again.
    async fn dead_letter(
        &self,
        task_id: &str,
        job: &Job,
        reason: String,
        tries: u32,
    ) -> Result<Outcome, RedisError> {
        let kind = job.kind();
        let delivery = Delivery::DeadLetter { job: job.clone(), reason: reason.clone() };
        let handled = AssertUnwindSafe((self.handler)(delivery)).catch_unwind().await;
        let handled = handled.unwrap_or_else(|_| Err(JobError::Retry { reason: "it panicked".to_owned() }));
        if let Err(error) = handled {
            let kind = kind.name();
            tracing::warn!(task_id, kind, tries, reason, %error, "could not dead-letter a job; retrying");
            return Ok(Outcome::Retry(reason));
        }
        tracing::error!(
            task_id,
            kind = kind.name(),
            tries,
            reason,
            "dead-lettered a job; see `pricing jobs`"
        );
        self.queue.dead_letter(task_id, Some(kind), &reason, tries).await?;
        self.metrics.dead_lettered.increment(1);
        Ok(Outcome::Dead(reason))
    }

    async fn dead_letter_unreadable(&self, task_id: &str, reason: String) -> Result<Outcome, RedisError> {
        tracing::error!(task_id, reason, "dead-lettered an unreadable job; see `pricing jobs`");
        self.queue.dead_letter(task_id, None, &reason, 1).await?;
        self.metrics.dead_lettered.increment(1);
        Ok(Outcome::Dead(reason))
    }
}

/// The outcome reported to the queue library.
enum Outcome {
    Done,
    Retry(String),
    Dead(String),
}

async fn handle(
    payload: Payload,
    task_id: TaskId,
    about: MetadataStore,
    runner: Data<Arc<JobRunner>>,
) -> Result<(), BoxDynError> {
    let fetched = Fetched::read(|field| about.get(field), Utc::now());
    match runner.attempt(&task_id.to_string(), &payload.0, fetched).await {
        Ok(Outcome::Done) => Ok(()),
        Ok(Outcome::Retry(reason)) => {
            sleep(Duration::from_millis(fastrand::u64(0..=MAX_JITTER_MS))).await;
            Err(reason.into())
        }
        Ok(Outcome::Dead(reason)) => Err(Box::new(AbortError::new(reason))),
        // The outcome could not be recorded, so the job is delivered again.
        Err(error) => Err(error.into()),
    }
}

fn already_dead(task_id: &str) -> Outcome {
    tracing::info!(task_id, "ignoring another delivery of a dead letter");
    Outcome::Dead("it is a dead letter already".to_owned())
}

/// Yields when the queue may have work.
fn when_woken(wake: Arc<Notify>) -> BoxStream<'static, ()> {
    let ticks = stream::unfold(wake, |wake| async move {
        let _ = timeout(POLL_INTERVAL, wake.notified()).await;
        Some(((), wake))
    });
    let mut ticks = ticks.boxed();
    // The library polls the queue whenever it is polled, whatever this yields. If a fetch that found nothing
    // ends in the same poll in which this yields, the notification is consumed and the next fetch would be at
    // the next heartbeat; so the library is polled once more.
    let polled_again = stream::poll_fn(move |context| {
        let tick = ticks.poll_next_unpin(context);
        if tick.is_ready() {
            context.waker().wake_by_ref();
        }
        tick
    });
    polled_again.boxed()
}

async fn listen(mut subscription: Subscription, wake: Arc<Notify>, shutdown: CancellationToken) {
    while let Some(event) = shutdown.run_until_cancelled(subscription.next()).await {
        if !matches!(event, SubscriptionEvent::Disconnected) {
            wake.notify_one();
        }
    }
}

fn outcome_name(ended: &Result<(), JobError>) -> &'static str {
    match ended {
        Ok(()) => "done",
        Err(JobError::Retry { .. } | JobError::Unavailable { .. }) => "failed",
        Err(JobError::Abort { .. }) => "aborted",
        Err(JobError::Stopping) => "handed_back",
    }
}
