//! Doing jobs: fetching them, counting their tries, and going on when Redis went away.
//!
//! The queue library fetches and acknowledges. Its worker ends whenever Redis fails, so it is built anew,
//! under a new name, until the process is told to stop; what the former one had fetched is given back at
//! once.

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
use pricing_core::jobs::queue::{Fetched, JobQueue, MAX_CRASHES, MAX_RETRIES, Try};
use pricing_core::jobs::storage::{Payload, storage};
use pricing_core::jobs::{Job, JobError};
use pricing_core::keys::{JOBS, MessageKeys};
use pricing_core::redis::{RedisConnection, RedisError, Subscription, SubscriptionEvent};
use pricing_core::telemetry::metrics::Metrics;
use pricing_core::telemetry::spans;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// How often the queue is looked into when nobody says that there is work.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long a job may take. A run's coordinator has no limit; it stops when its lease is lost.
const JOB_TIMEOUT: Duration = Duration::from_secs(60);
/// How long jobs may take to end once the process is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(6);
/// Pauses before the worker is built anew.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often Redis is asked whether it is back.
const RETURN_INTERVAL: Duration = Duration::from_millis(200);
/// Jobs that failed together do not come back together: each waits up to this long, besides the queue's own
/// pause, which grows by a second with each try.
const MAX_JITTER_MS: u64 = 1_000;

/// What a job's doer is told.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// Do it.
    Do {
        /// Its name.
        task_id: String,
        /// What to do.
        job: Job,
        /// Whether it is certain that no try of it was begun before.
        is_first_try: bool,
    },
    /// It was given up, and will not be delivered again.
    GivenUp {
        /// What was to do.
        job: Job,
        /// Why it was not done.
        reason: String,
    },
}

/// Does jobs.
pub type Perform = Arc<dyn Fn(Delivery) -> BoxFuture<'static, Result<(), JobError>> + Send + Sync>;

/// Where jobs come from and who does them.
pub struct JobRunner {
    /// The queue.
    pub queue: JobQueue,
    /// Its Redis.
    pub redis: RedisConnection,
    /// That Redis' address, for hearing of new jobs.
    pub redis_url: String,
    /// The queue's names.
    pub keys: MessageKeys,
    /// The name of this process among the workers, new at each start.
    pub owner: String,
    /// Jobs done at the same time.
    pub concurrency: usize,
    /// Does them.
    pub perform: Perform,
    /// What is counted.
    pub metrics: Metrics,
}

impl JobRunner {
    /// Does jobs until told to stop; then lets those that were begun end, and gives the others back.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RedisError> {
        let runner = Arc::new(self);
        let wake = Arc::new(Notify::new());
        let subscription = Subscription::open(&runner.redis_url, vec![runner.keys.queue_wake()])?;
        let hearing = tokio::spawn(hear(subscription, Arc::clone(&wake), shutdown.clone()));
        let mut pause = SHORTEST_PAUSE;
        for number in 1_u64.. {
            let worker = format!("{}-{number}", runner.owner);
            let started = Instant::now();
            let ended = runner.fetch_until_it_ends(&worker, &wake, &shutdown).await;
            if started.elapsed() > LONGEST_PAUSE * 2 {
                pause = SHORTEST_PAUSE;
            }
            if let (Err(error), false) = (&ended, shutdown.is_cancelled()) {
                tracing::warn!(%error, worker, "the queue does not answer; trying again");
            }
            runner.give_back(&worker, &shutdown).await;
            if shutdown.run_until_cancelled(sleep(pause)).await.is_none() {
                break;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        hearing.abort();
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
                tracing::warn!("jobs were still being done at the end of the drain; they are given back");
                Ok(())
            }
        }
    }

    /// Gives back what a worker that has ended had fetched. Tried until Redis answers, or once if time is up.
    async fn give_back(&self, worker: &str, shutdown: &CancellationToken) {
        loop {
            match self.hand_back(worker).await {
                Ok(0) => return,
                Ok(jobs) => {
                    tracing::info!(jobs, worker, "jobs were given back");
                    return;
                }
                Err(error) if shutdown.is_cancelled() => {
                    tracing::warn!(%error, worker, "jobs cannot be given back; others will miss this worker and take them");
                    return;
                }
                Err(_) => {}
            }
            let _ = shutdown.run_until_cancelled(sleep(RETURN_INTERVAL)).await;
        }
    }

    async fn hand_back(&self, worker: &str) -> Result<u32, RedisError> {
        let jobs = self.queue.hand_back(worker).await?;
        // The next worker would end at once if its connection were still the broken one.
        self.redis.check_queue().await?;
        Ok(jobs)
    }

    /// One delivery of a job, from the count of its tries to the word of how it ended.
    async fn attempt(&self, task_id: &str, payload: &[u8], fetched: Fetched) -> Result<Outcome, RedisError> {
        if fetched.is_uncounted && self.queue.last_count_went_well() {
            return self.attempt_uncounted(task_id, payload, &fetched).await;
        }
        let tries = self.queue.start(task_id).await?;
        match (tries, Job::decode(payload)) {
            (Try::Dead, _) => Ok(given_up_before(task_id)),
            (_, Err(error)) => self.bury_unreadable(task_id, error.to_string()).await,
            (Try::CrashedTooOften, Ok(job)) => {
                let reason = format!("its process has ended {MAX_CRASHES} times while it was done");
                self.give_up(task_id, &job, reason, MAX_CRASHES).await
            }
            (Try::Go { number }, Ok(job)) => {
                let ended = self.try_once(task_id, &job, &fetched).await;
                self.record(task_id, &job, number, ended).await
            }
        }
    }

    /// Nothing is known against the job, so it does not wait until a Redis that syncs every write says that
    /// it is counted.
    async fn attempt_uncounted(
        &self,
        task_id: &str,
        payload: &[u8],
        fetched: &Fetched,
    ) -> Result<Outcome, RedisError> {
        let begun = async {
            // Meanwhile the connection's task sends the count, nearly always: then it comes even if the job
            // ends this process at once. Where it does not, that crash is not counted; a process that starts
            // anew waits for its first count.
            tokio::task::yield_now().await;
            let job = Job::decode(payload)?;
            let ended = self.try_once(task_id, &job, fetched).await;
            Ok::<_, JobError>((job, ended))
        };
        let (counted, begun) = tokio::join!(biased; self.queue.start(task_id), begun);
        let number = match counted? {
            Try::Dead => return Ok(given_up_before(task_id)),
            Try::Go { number } => number,
            Try::CrashedTooOften => MAX_CRASHES + 1,
        };
        match begun {
            Ok((job, ended)) => self.record(task_id, &job, number, ended).await,
            Err(error) => self.bury_unreadable(task_id, error.to_string()).await,
        }
    }

    async fn try_once(&self, task_id: &str, job: &Job, fetched: &Fetched) -> Result<(), JobError> {
        let started = Instant::now();
        let kind = job.kind();
        let span = spans::process(JOBS, 1, fetched.trace.iter());
        spans::record_job(&span, task_id, kind, fetched.wait_ms);
        let ended = self.perform(task_id, job, fetched.is_uncounted).instrument(span.clone()).await;
        if let Err(error @ (JobError::Retry { .. } | JobError::Away { .. } | JobError::Abort { .. })) = &ended
        {
            spans::record_error(&span, error);
        }
        drop(span);
        self.metrics.record_job(kind, outcome_name(&ended), started.elapsed());
        ended
    }

    /// Records how a try ended.
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
            Err(JobError::HandBack) => {
                self.queue.uncount(task_id).await?;
                Ok(Outcome::Again(JobError::HandBack.to_string()))
            }
            Err(JobError::Away { reason }) => {
                self.queue.uncount(task_id).await?;
                tracing::warn!(
                    task_id,
                    kind,
                    reason,
                    "a job cannot be done here now, and goes back to the queue"
                );
                Ok(Outcome::Again(reason))
            }
            Err(JobError::Abort { reason }) => self.give_up(task_id, job, reason, number).await,
            Err(JobError::Retry { reason }) => {
                let failed = self.queue.fail(task_id, &reason).await?;
                if failed > MAX_RETRIES {
                    return self.give_up(task_id, job, reason, number).await;
                }
                tracing::warn!(task_id, kind, failed, reason, "a job failed and is done again");
                Ok(Outcome::Again(reason))
            }
        }
    }

    /// Does the job in a task of its own: a panic ends only that, and work that has begun goes on when nobody
    /// waits.
    async fn perform(&self, task_id: &str, job: &Job, is_first_try: bool) -> Result<(), JobError> {
        let delivery = Delivery::Do { task_id: task_id.to_owned(), job: job.clone(), is_first_try };
        let work = tokio::spawn((self.perform)(delivery).in_current_span());
        let ended = match job {
            Job::Run { .. } => work.await,
            Job::ApplyEvents { .. } | Job::Range(_) => match timeout(JOB_TIMEOUT, work).await {
                Ok(ended) => ended,
                Err(_) => {
                    let reason = format!("not done after {} s", JOB_TIMEOUT.as_secs());
                    return Err(JobError::Retry { reason });
                }
            },
        };
        ended.unwrap_or_else(|error| Err(JobError::Retry { reason: format!("it panicked: {error}") }))
    }

    /// Tells of it first: a run that does not learn that a part of it was given up would wait for that part.
    /// If nobody can be told, the job is delivered again.
    async fn give_up(
        &self,
        task_id: &str,
        job: &Job,
        reason: String,
        tries: u32,
    ) -> Result<Outcome, RedisError> {
        let kind = job.kind();
        let given_up = Delivery::GivenUp { job: job.clone(), reason: reason.clone() };
        let told = AssertUnwindSafe((self.perform)(given_up)).catch_unwind().await;
        let told = told.unwrap_or_else(|_| Err(JobError::Retry { reason: "it panicked".to_owned() }));
        if let Err(error) = told {
            tracing::warn!(task_id, kind, tries, reason, %error, "it cannot be told that a job is given up");
            return Ok(Outcome::Again(reason));
        }
        tracing::error!(task_id, kind, tries, reason, "a job is given up; `pricing jobs` shows it");
        self.queue.bury(task_id, kind, &reason, tries).await?;
        self.metrics.jobs_buried.increment(1);
        Ok(Outcome::Dead(reason))
    }

    async fn bury_unreadable(&self, task_id: &str, reason: String) -> Result<Outcome, RedisError> {
        tracing::error!(task_id, reason, "a job cannot be read and is given up");
        self.queue.bury(task_id, "unreadable", &reason, 1).await?;
        self.metrics.jobs_buried.increment(1);
        Ok(Outcome::Dead(reason))
    }
}

/// What the queue library is told.
enum Outcome {
    Done,
    Again(String),
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
        Ok(Outcome::Again(reason)) => {
            sleep(Duration::from_millis(fastrand::u64(0..=MAX_JITTER_MS))).await;
            Err(reason.into())
        }
        Ok(Outcome::Dead(reason)) => Err(Box::new(AbortError::new(reason))),
        // How it ended could not be recorded, so it is delivered again.
        Err(error) => Err(error.into()),
    }
}

fn given_up_before(task_id: &str) -> Outcome {
    tracing::info!(task_id, "a job that was given up was delivered once more");
    Outcome::Dead("it was given up before".to_owned())
}

/// Yields when there may be work.
fn when_woken(wake: Arc<Notify>) -> BoxStream<'static, ()> {
    let looks = stream::unfold(wake, |wake| async move {
        let _ = timeout(POLL_INTERVAL, wake.notified()).await;
        Some(((), wake))
    });
    let mut looks = looks.boxed();
    // The library looks for work whenever it is polled, whatever this yields. If a look that found nothing
    // ends in the same poll in which this yields, the word is spent and nobody would look again before the
    // next heartbeat; so it is polled once more.
    let polled_again = stream::poll_fn(move |context| {
        let look = looks.poll_next_unpin(context);
        if look.is_ready() {
            context.waker().wake_by_ref();
        }
        look
    });
    polled_again.boxed()
}

async fn hear(mut subscription: Subscription, wake: Arc<Notify>, shutdown: CancellationToken) {
    while let Some(event) = shutdown.run_until_cancelled(subscription.next()).await {
        if !matches!(event, SubscriptionEvent::Disconnected) {
            wake.notify_one();
        }
    }
}

fn outcome_name(ended: &Result<(), JobError>) -> &'static str {
    match ended {
        Ok(()) => "done",
        Err(JobError::Retry { .. } | JobError::Away { .. }) => "failed",
        Err(JobError::Abort { .. }) => "aborted",
        Err(JobError::HandBack) => "handed_back",
    }
}
