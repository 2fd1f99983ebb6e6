//! The queue on a real Redis: every job is done, failed jobs are retried, dead letters are kept with their
//! reason, and no job blocks the others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::FutureExt;
use pricing_core::config::MetricsSwitch;
use pricing_core::jobs::queue::{Attempt, Enqueued, JobQueue, MAX_CRASHES, MAX_RETRIES};
use pricing_core::jobs::{Job, JobError, JobKind, NewJob};
use pricing_core::keys::MessageKeys;
use pricing_core::redis::RedisConnection;
use pricing_core::telemetry::registry::Registry;
use pricing_e2e::{ChaosProxy, RedisServer, ServiceProcess, eventually};
use pricing_worker::metrics::RunnerMetrics;
use pricing_worker::runner::{Delivery, JobHandler, JobRunner};
use redis::AsyncCommands;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);
const PREFIX: &str = "jobs-test:";
/// Where an inner test process finds its Redis.
const REDIS_VARIABLE: &str = "JOBS_TEST_REDIS";
/// The job that crashes its process.
const CRASHING: &str = "crash";

/// A worker in this process, which records its deliveries.
struct Worker {
    done: Arc<Mutex<HashMap<String, u32>>>,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Worker {
    /// Runs `perform` for each job after counting it.
    fn start(
        redis_url: &str,
        owner: &str,
        perform: impl Fn(&str, u32) -> Result<(), JobError> + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::start_with_dead_letters(redis_url, owner, perform, || Ok(()))
    }

    /// [`start`](Self::start) with a handler for jobs that become dead letters.
    fn start_with_dead_letters(
        redis_url: &str,
        owner: &str,
        perform: impl Fn(&str, u32) -> Result<(), JobError> + Send + Sync + 'static,
        on_dead_letter: impl Fn() -> Result<(), JobError> + Send + Sync + 'static,
    ) -> Result<Self> {
        let done: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
        let (counted, perform, on_dead_letter) =
            (Arc::clone(&done), Arc::new(perform), Arc::new(on_dead_letter));
        let handler: JobHandler = Arc::new(move |delivery| {
            let (counted, perform) = (Arc::clone(&counted), Arc::clone(&perform));
            let on_dead_letter = Arc::clone(&on_dead_letter);
            async move {
                let Delivery::Run { task_id, .. } = delivery else { return on_dead_letter() };
                let number = {
                    let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
                    let number = counted.entry(task_id.clone()).or_default();
                    *number += 1;
                    *number
                };
                perform(&task_id, number)
            }
            .boxed()
        });
        let shutdown = CancellationToken::new();
        let runner = runner(redis_url, owner, handler)?;
        let stop = shutdown.clone();
        let running = tokio::spawn(async move {
            let _ = runner.run(stop).await;
        });
        Ok(Self { done, shutdown, running })
    }

    fn times_done(&self, task_id: &str) -> u32 {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).get(task_id).copied().unwrap_or_default()
    }

    async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.running).await??;
        Ok(())
    }
}

fn runner(redis_url: &str, owner: &str, handler: JobHandler) -> Result<JobRunner> {
    let redis = RedisConnection::open(redis_url)?;
    let keys = MessageKeys::new(PREFIX);
    Ok(JobRunner {
        queue: JobQueue::new(&redis, &keys),
        redis,
        redis_url: redis_url.to_owned(),
        keys,
        owner: format!("{owner}-{}", uuid_text()),
        concurrency: 4,
        handler,
        metrics: RunnerMetrics::new(&Registry::new("test", MetricsSwitch::On)),
    })
}

fn uuid_text() -> String {
    format!("{}-{:?}", std::process::id(), std::time::Instant::now()).replace([' ', '{', '}', ':', ','], "")
}

fn queue(redis_url: &str) -> Result<JobQueue> {
    Ok(JobQueue::new(&RedisConnection::open(redis_url)?, &MessageKeys::new(PREFIX)))
}

fn job(task_id: &str) -> NewJob {
    NewJob { task_id: task_id.to_owned(), job: Job::ApplyEvents { events: Vec::new(), published_at: None } }
}

/// A key of the queue library's.
fn key(name: &str) -> String {
    format!("{}:{name}", MessageKeys::new(PREFIX).queue())
}

fn is_added(enqueued: Enqueued) -> bool {
    matches!(enqueued, Enqueued::Added { .. })
}

async fn until_empty(queue: &JobQueue) -> Result<()> {
    eventually("no job is outstanding", PATIENCE, async || {
        let depth = queue.depth().await?;
        ensure!(depth == 0, "{depth} jobs are outstanding");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn jobs_are_done_once_and_known_ones_are_not_taken_again() -> Result<()> {
    let redis = RedisServer::start().await?;
    let queue = queue(&redis.url())?;
    let worker = Worker::start(&redis.url(), "one", |_, _| Ok(()))?;
    for number in 0..300 {
        let job = job(&format!("job-{number}"));
        eventually("there is room", PATIENCE, async || {
            let enqueued = queue.enqueue(&job).await?;
            ensure!(is_added(enqueued), "{enqueued:?}");
            Ok(())
        })
        .await?;
    }
    until_empty(&queue).await?;
    assert_eq!(queue.enqueue(&job("job-7")).await?, Enqueued::Known);
    assert!((0..300).all(|number| worker.times_done(&format!("job-{number}")) == 1));
    worker.stop().await
}

#[tokio::test]
async fn each_window_is_bounded_and_a_full_one_leaves_room_in_the_others() -> Result<()> {
    let redis = RedisServer::start().await?;
    let queue = queue(&redis.url())?;
    let mut added = 0;
    while is_added(queue.enqueue(&job(&format!("job-{added}"))).await?) {
        added += 1;
        ensure!(added <= 64, "the window has no bound");
    }
    let run = NewJob { task_id: "run".to_owned(), job: Job::Run { task_id: "x".to_owned() } };
    assert!(is_added(queue.enqueue(&run).await?));
    assert_eq!(queue.depth().await?, added + 1);
    Ok(())
}

#[tokio::test]
async fn a_failed_job_is_retried_and_then_kept_with_its_reason_until_it_is_requeued() -> Result<()> {
    // As the user of docs/operations.md: the queue library, too, needs no more.
    let redis = RedisServer::start_restricted().await?;
    let queue = queue(&redis.url())?;
    let worker = Worker::start(&redis.url(), "one", |task_id, number| match task_id {
        "passing" if number <= 2 => Err(JobError::Retry { reason: "away".to_owned() }),
        "lasting" if number <= MAX_RETRIES + 1 => Err(JobError::Retry { reason: "still away".to_owned() }),
        "impossible" if number == 1 => Err(JobError::Abort { reason: "makes no sense".to_owned() }),
        "panicking" if number == 1 => panic!("on purpose"),
        _ => Ok(()),
    })?;
    for task_id in ["passing", "lasting", "impossible", "panicking", "fine"] {
        assert!(is_added(queue.enqueue(&job(task_id)).await?));
    }
    until_empty(&queue).await?;
    assert_eq!(worker.times_done("passing"), 3);
    assert_eq!(worker.times_done("panicking"), 2);
    assert_eq!(worker.times_done("lasting"), MAX_RETRIES + 1);
    assert_eq!(worker.times_done("fine"), 1);
    let mut dead = queue.dead_jobs(10).await?;
    dead.sort_by(|one, other| one.task_id.cmp(&other.task_id));
    let dead: Vec<(&str, &str, u32)> =
        dead.iter().map(|job| (job.task_id.as_str(), job.reason.as_str(), job.tries)).collect();
    assert_eq!(dead, [("impossible", "makes no sense", 1), ("lasting", "still away", MAX_RETRIES + 1)]);

    eventually("the dead are acknowledged", PATIENCE, async || {
        ensure!(queue.requeue("impossible").await? || worker.times_done("impossible") == 2);
        Ok(())
    })
    .await?;
    until_empty(&queue).await?;
    assert_eq!(worker.times_done("impossible"), 2);
    assert_eq!(queue.count_dead().await?, 1);
    assert!(!queue.requeue("fine").await?);
    worker.stop().await?;
    assert_eq!(redis.refusals().await?, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn an_unreadable_job_becomes_a_dead_letter_and_blocks_no_other() -> Result<()> {
    let redis = RedisServer::start().await?;
    let queue = queue(&redis.url())?;
    queue.enqueue(&job("garbage")).await?;
    let mut connection = redis.connection().await?;
    let _: () = connection.hset(key("data"), "garbage", b"\xff\x00 not json".as_slice()).await?;
    let worker = Worker::start(&redis.url(), "one", |_, _| Ok(()))?;
    queue.enqueue(&job("fine")).await?;
    until_empty(&queue).await?;
    assert_eq!((worker.times_done("garbage"), worker.times_done("fine")), (0, 1));
    let dead = queue.dead_jobs(10).await?;
    assert_eq!((dead[0].task_id.as_str(), dead[0].kind), ("garbage", "unreadable"));
    worker.stop().await
}

#[tokio::test]
async fn a_job_that_crashes_its_process_is_dead_lettered_and_the_others_are_done() -> Result<()> {
    let redis = RedisServer::start().await?;
    let queue = queue(&redis.url())?;
    for number in 0..20 {
        queue.enqueue(&job(&format!("job-{number}"))).await?;
    }
    // The first process has counted others when it begins this one, so it does not wait for the count; the
    // next ones do.
    queue.enqueue(&job(CRASHING)).await?;
    // Each process of this worker ends when it fetches the crashing job; a supervisor restarts it.
    let mut starts = 0;
    let mut process = inner_worker(&redis)?;
    eventually("the crashing job is dead-lettered", PATIENCE * 2, async || {
        if process.wait(Duration::from_millis(1)).await.is_ok() {
            starts += 1;
            process = inner_worker(&redis)?;
        }
        ensure!(queue.count_dead().await? == 1, "after {starts} crashes: {}", process.output()?);
        Ok(())
    })
    .await?;
    until_empty(&queue).await?;
    // The count of the first crash may not have been sent.
    assert!((MAX_CRASHES..=MAX_CRASHES + 1).contains(&starts), "{starts}");
    let dead = queue.dead_jobs(10).await?;
    assert_eq!((dead[0].task_id.as_str(), dead[0].tries), (CRASHING, MAX_CRASHES));
    Ok(())
}

#[tokio::test]
async fn a_job_that_was_dead_lettered_before_its_first_attempt_was_counted_stays_dead() -> Result<()> {
    let redis = RedisServer::start().await?;
    let queue = queue(&redis.url())?;
    let worker = Worker::start(&redis.url(), "one", |_, _| Ok(()))?;
    // From then on this worker does not wait for the count of a first attempt.
    queue.enqueue(&job("counted")).await?;
    until_empty(&queue).await?;
    queue.dead_letter("dead", Some(JobKind::ApplyEvents), "on purpose", 1).await?;
    queue.enqueue(&job("dead")).await?;
    eventually("it is among the library's dead, so that it can be requeued", PATIENCE, async || {
        ensure!(queue.requeue("dead").await?);
        Ok(())
    })
    .await?;
    until_empty(&queue).await?;
    assert_eq!(queue.count_dead().await?, 0);
    worker.stop().await
}

/// Not a test: the process that a test lets crash.
#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn inner_worker_process() -> Result<()> {
    let Some(redis_url) = std::env::var(REDIS_VARIABLE).ok() else { return Ok(()) };
    let handler: JobHandler = Arc::new(|delivery| {
        async move {
            if matches!(&delivery, Delivery::Run { task_id, .. } if task_id == CRASHING) {
                std::process::abort();
            }
            Ok(())
        }
        .boxed()
    });
    runner(&redis_url, "inner", handler)?.run(CancellationToken::new()).await?;
    Ok(())
}

fn inner_worker(redis: &RedisServer) -> Result<ServiceProcess> {
    let this_binary = std::env::current_exe()?;
    let arguments = ["--exact", "jobs::inner_worker_process", "--ignored", "--nocapture"];
    ServiceProcess::start_program(&this_binary, &[(REDIS_VARIABLE, &redis.url())], &arguments)
}

#[tokio::test]
async fn redis_may_be_killed_cut_and_frozen_while_jobs_are_done() -> Result<()> {
    let mut redis = RedisServer::start().await?;
    let mut proxy = ChaosProxy::start(redis.address()).await?;
    let worker = Worker::start(&format!("redis://{}", proxy.address()), "one", |_, _| Ok(()))?;
    let queue = queue(&redis.url())?;
    for round in 0..4 {
        for number in 0..20 {
            queue.enqueue(&job(&format!("job-{round}-{number}"))).await?;
        }
        match round {
            0 => redis.restart().await?,
            1 => {
                proxy.cut().await;
                proxy.restore().await?;
            }
            2 => {
                redis.pause()?;
                redis.resume()?;
            }
            _ => {}
        }
        eventually("every job of the round is done", PATIENCE, async || {
            let missing = (0..20).find(|number| worker.times_done(&format!("job-{round}-{number}")) == 0);
            missing.map_or(Ok(()), |number| Err(anyhow::anyhow!("job-{round}-{number} is not done")))
        })
        .await?;
        eventually("no job is outstanding", PATIENCE, async || {
            let depth = queue.depth().await.context("redis answers")?;
            ensure!(depth == 0, "{depth} jobs are outstanding");
            Ok(())
        })
        .await?;
    }
    assert_eq!(queue.count_dead().await?, 0);
    worker.stop().await
}

#[tokio::test]
async fn a_worker_that_stops_finishes_or_releases_its_jobs() -> Result<()> {
    let redis = RedisServer::start().await?;
    let queue = queue(&redis.url())?;
    let worker = Worker::start(&redis.url(), "first", |task_id, _| match task_id {
        "stopping" => Err(JobError::Stopping),
        _ => Ok(()),
    })?;
    queue.enqueue(&job("stopping")).await?;
    eventually("the job was begun", PATIENCE, async || {
        ensure!(worker.times_done("stopping") > 0);
        Ok(())
    })
    .await?;
    worker.stop().await?;
    let successor = Worker::start(&redis.url(), "second", |_, _| Ok(()))?;
    until_empty(&queue).await?;
    assert_eq!(successor.times_done("stopping"), 1);
    assert_eq!(queue.count_dead().await?, 0);
    successor.stop().await
}

#[tokio::test]
async fn a_job_that_is_released_again_and_again_spends_no_attempts_and_is_not_dead() -> Result<()> {
    let redis = RedisServer::start().await?;
    let queue = queue(&redis.url())?;
    let mut connection = redis.connection().await?;
    queue.enqueue(&job("unlucky")).await?;
    // As a worker fetches it; whether it starts the job before the connection breaks is chance.
    let mut fetch = async |number: usize| -> Result<String> {
        let worker = format!("worker-{number}");
        let _: () = connection.lrem(key("active"), 0, "unlucky").await?;
        let _: () = connection.sadd(key(&format!("inflight:{worker}")), "unlucky").await?;
        Ok(worker)
    };
    for number in 0..4 * usize::try_from(MAX_CRASHES)? {
        let worker = fetch(number).await?;
        if number % 3 == 0 {
            assert!(matches!(queue.start("unlucky").await?, Attempt::Start { number: 1, .. }));
        }
        assert_eq!(queue.release(&worker).await?, 1);
    }
    for _ in 0..=MAX_CRASHES {
        assert!(matches!(queue.start("unlucky").await?, Attempt::Start { number: 1, .. }));
        queue.forget_attempt("unlucky").await?;
    }
    let worker = Worker::start(&redis.url(), "lucky", |_, _| Ok(()))?;
    until_empty(&queue).await?;
    assert_eq!((worker.times_done("unlucky"), queue.count_dead().await?), (1, 0));
    worker.stop().await
}

#[tokio::test]
async fn an_unavailable_dependency_spends_no_attempts() -> Result<()> {
    let redis = RedisServer::start().await?;
    let queue = queue(&redis.url())?;
    let worker = Worker::start(&redis.url(), "one", |_, number| match number {
        1 | 2 => Err(JobError::Unavailable { reason: "no database".to_owned() }),
        _ => Err(JobError::Abort { reason: "makes no sense".to_owned() }),
    })?;
    queue.enqueue(&job("waiting")).await?;
    until_empty(&queue).await?;
    let tries: Vec<u32> = queue.dead_jobs(10).await?.iter().map(|dead| dead.tries).collect();
    assert_eq!((worker.times_done("waiting"), tries), (3, vec![1]));
    worker.stop().await
}

#[tokio::test]
async fn a_job_is_dead_lettered_only_after_its_handler_was_notified() -> Result<()> {
    let redis = RedisServer::start().await?;
    let queue = queue(&redis.url())?;
    let notified = Arc::new(AtomicU32::new(0));
    let handler_count = Arc::clone(&notified);
    let on_dead_letter = move || match handler_count.fetch_add(1, Ordering::SeqCst) {
        0 => Err(JobError::Retry { reason: "the first notification fails".to_owned() }),
        _ => Ok(()),
    };
    let impossible = |_: &str, _| Err(JobError::Abort { reason: "makes no sense".to_owned() });
    let worker = Worker::start_with_dead_letters(&redis.url(), "one", impossible, on_dead_letter)?;
    queue.enqueue(&job("impossible")).await?;
    until_empty(&queue).await?;
    assert_eq!((worker.times_done("impossible"), notified.load(Ordering::SeqCst)), (2, 2));
    assert_eq!(queue.count_dead().await?, 1);
    worker.stop().await
}

#[tokio::test]
async fn an_unreadable_job_frees_its_slot_in_whichever_window() -> Result<()> {
    let redis = RedisServer::start().await?;
    let queue = queue(&redis.url())?;
    let mut connection = redis.connection().await?;
    let run = Job::Run { task_id: "r".to_owned() };
    queue.enqueue(&NewJob { task_id: "run:r".to_owned(), job: run }).await?;
    let _: () = connection.hset(key("data"), "run:r", "of another version").await?;
    let worker = Worker::start(&redis.url(), "one", |_, _| Ok(()))?;
    until_empty(&queue).await?;
    assert_eq!((worker.times_done("run:r"), queue.count_dead().await?), (0, 1));
    worker.stop().await
}

#[tokio::test]
async fn a_job_that_the_library_has_dropped_is_recovered() -> Result<()> {
    let redis = RedisServer::start().await?;
    let queue = queue(&redis.url())?;
    let mut connection = redis.connection().await?;
    for task_id in ["put-away", "dead-letter", "without-payload"] {
        queue.enqueue(&job(task_id)).await?;
        let _: () = connection.lrem(key("active"), 0, task_id).await?;
        let _: () = connection.sadd(key("dead"), task_id).await?;
    }
    queue.dead_letter("dead-letter", Some(JobKind::ApplyEvents), "on purpose", 1).await?;
    let _: () = connection.hdel(key("data"), "without-payload").await?;
    assert_eq!((queue.depth().await?, queue.recover_lost().await?, queue.recover_lost().await?), (2, 1, 0));
    let worker = Worker::start(&redis.url(), "one", |_, _| Ok(()))?;
    until_empty(&queue).await?;
    assert_eq!((worker.times_done("put-away"), worker.times_done("dead-letter")), (1, 0));
    assert_eq!(queue.count_dead().await?, 1);
    worker.stop().await
}

#[tokio::test]
async fn done_jobs_are_forgotten() -> Result<()> {
    let redis = RedisServer::start().await?;
    let queue = queue(&redis.url())?;
    let worker = Worker::start(&redis.url(), "one", |_, _| Ok(()))?;
    for number in 0..40 {
        queue.enqueue(&job(&format!("job-{number}"))).await?;
    }
    until_empty(&queue).await?;
    let keys = MessageKeys::new(PREFIX);
    let mut connection = redis.connection().await?;
    eventually("a period later nothing is left of them", PATIENCE, async || {
        queue.clean().await?;
        // As if the period were over.
        let _: () = connection.del(keys.queue_period()).await?;
        let left: usize = connection.hlen(format!("{}:data", keys.queue())).await?;
        ensure!(left == 0, "{left} payloads are left");
        Ok(())
    })
    .await?;
    let about: Vec<String> = connection.keys(format!("{}:meta:*", keys.queue())).await?;
    assert!(about.is_empty(), "{about:?}");
    assert!(is_added(queue.enqueue(&job("job-1")).await?));
    until_empty(&queue).await?;
    worker.stop().await
}
