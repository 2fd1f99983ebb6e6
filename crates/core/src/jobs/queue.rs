//! The queue: a bounded window of jobs in Redis, with counted attempts, and dead letters with their reasons.
//!
//! The window is small on purpose. A backlog waits where it is durable and cheap, in the event stream or in
//! the coordinator of a run; the queue holds only the next jobs. Each kind of job has a separate window, so
//! that the ranges of a run do not delay events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use redis::Script;

use super::storage::config;
use super::{Job, JobError, JobKind, NewJob};
use crate::keys::MessageKeys;
use crate::redis::{RedisConnection, RedisError};
use crate::telemetry::spans::TraceParent;

/// How often a failed job is retried.
pub const MAX_RETRIES: u32 = 5;
/// How often a job may crash its process.
pub const MAX_CRASHES: u32 = 5;

/// A done job stays known for one to two of these periods, so that a duplicate request is recognised.
const DONE_PERIOD: Duration = Duration::from_secs(60);
/// Done jobs deleted in one call, so that Redis does not block other clients for long.
const CLEANUP_BATCH: usize = 500;
/// The number of dead letters kept; the oldest are dropped first.
pub const DEAD_KEPT: usize = 10_000;
/// The longest reason that is kept, in characters.
const MAX_REASON_CHARS: usize = 1_000;

/// The result of enqueueing a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// It was added and waits for a worker.
    Added {
        /// How many jobs of its kind are outstanding now, with this one.
        outstanding: u64,
    },
    /// It is in the queue already, or was recently.
    Known,
    /// The window is full; retry when a job is done.
    Full,
}

/// The handling of a delivered job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// The job is to be done.
    Start {
        /// The number of this attempt, from 1.
        number: u32,
    },
    /// It has crashed its process too often and becomes a dead letter.
    CrashedTooOften,
    /// It is a dead letter already.
    Dead,
}

/// The stored number of attempts before the first one is counted.
const NOT_STARTED: &str = "0";

/// The state of a job when it was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Whether no attempt was counted when it was fetched, and it may start before one is.
    pub is_uncounted: bool,
    /// The trace that it is part of.
    pub trace: Option<TraceParent>,
    /// Time since it was enqueued, in milliseconds.
    pub wait_ms: i64,
}

impl Fetched {
    /// Reads the fields that the library has fetched with a job.
    pub fn read<'a>(field: impl Fn(&str) -> Option<&'a str>, now: DateTime<Utc>) -> Self {
        let enqueued_at_ms = field("enqueued_at").and_then(|written| written.parse().ok());
        Self {
            is_uncounted: field("begun") == Some(NOT_STARTED),
            trace: field("traceparent").and_then(TraceParent::parse),
            wait_ms: enqueued_at_ms.map_or(0, |enqueued_at_ms: i64| now.timestamp_millis() - enqueued_at_ms),
        }
    }
}

/// A dead letter: a job that failed too often, or cannot be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadJob {
    /// Its name.
    pub task_id: String,
    /// What it was to do: `apply_events`, `run`, `range`, or `unreadable`.
    pub kind: &'static str,
    /// Why it failed.
    pub reason: String,
    /// How many attempts there were.
    pub tries: u32,
    /// When it became a dead letter.
    pub died_at: DateTime<Utc>,
}

/// The queue of the workers; cheap to clone.
#[derive(Clone)]
pub struct JobQueue {
    redis: RedisConnection,
    keys: MessageKeys,
    names: apalis_redis::Config,
    scripts: Arc<Scripts>,
    last_count_went_well: Arc<AtomicBool>,
}

struct Scripts {
    enqueue: Script,
    start: Script,
    fail: Script,
    forget_attempt: Script,
    finish: Script,
    dead_letter: Script,
    requeue: Script,
    release: Script,
    clean: Script,
    recover_lost: Script,
}

impl JobQueue {
    /// The queue in this Redis.
    pub fn new(redis: &RedisConnection, keys: &MessageKeys) -> Self {
        let scripts = Scripts {
            enqueue: Script::new(include_str!("enqueue.lua")),
            start: Script::new(include_str!("start.lua")),
            fail: Script::new(include_str!("fail.lua")),
            forget_attempt: Script::new(include_str!("forget_attempt.lua")),
            finish: Script::new(include_str!("finish.lua")),
            dead_letter: Script::new(include_str!("dead_letter.lua")),
            requeue: Script::new(include_str!("requeue.lua")),
            release: Script::new(include_str!("release.lua")),
            clean: Script::new(include_str!("clean.lua")),
            recover_lost: Script::new(include_str!("recover_lost.lua")),
        };
        Self {
            redis: redis.clone(),
            keys: keys.clone(),
            names: config(keys),
            scripts: Arc::new(scripts),
            last_count_went_well: Arc::default(),
        }
    }

    /// Adds a job, unless it is known or the window of its kind is full.
    pub async fn enqueue(&self, job: &NewJob) -> Result<Enqueued, EnqueueError> {
        let (payload, kind) = (job.job.encode()?, job.job.kind());
        let mut script = self.scripts.enqueue.key(self.names.job_data_hash());
        script
            .key(self.names.active_jobs_list())
            .key(self.about(&job.task_id))
            .key(self.window(kind))
            .arg(&job.task_id)
            .arg(payload)
            .arg(kind.max_outstanding())
            .arg(self.keys.queue_wake())
            .arg(TraceParent::current().as_ref().map_or("", TraceParent::as_str))
            .arg(Utc::now().timestamp_millis())
            .arg(if kind.may_start_uncounted() { NOT_STARTED } else { "" });
        // Its event is acknowledged next, perhaps on another server.
        let answer: i64 = self.redis.write(&script).await.map_err(RedisError::from)?;
        Ok(match u64::try_from(answer) {
            Ok(outstanding) => Enqueued::Added { outstanding },
            Err(_) if answer == -1 => Enqueued::Known,
            Err(_) => Enqueued::Full,
        })
    }

    /// Whether the last answered count of an attempt succeeded. If so, the next one is most likely sent as
    /// soon as the connection's task is scheduled: the connection is open, and Redis has loaded the script.
    pub fn last_count_went_well(&self) -> bool {
        self.last_count_went_well.load(Ordering::Relaxed)
    }

    /// Counts an attempt of a job.
    pub async fn start(&self, task_id: &str) -> Result<Attempt, RedisError> {
        let mut script = self.scripts.start.key(self.keys.queue_tries());
        script.key(self.keys.queue_dead()).key(self.about(task_id)).arg(task_id);
        let counted: Result<Option<(u32, u32)>, _> = script.invoke_async(&mut self.redis.writes()).await;
        self.last_count_went_well.store(counted.is_ok(), Ordering::Relaxed);
        let Some((number, failed)) = counted? else { return Ok(Attempt::Dead) };
        // Every earlier attempt that did not record how it ended has crashed its process.
        if number > failed + MAX_CRASHES {
            return Ok(Attempt::CrashedTooOften);
        }
        Ok(Attempt::Start { number })
    }

    /// Records that an attempt failed. Returns how many have.
    pub async fn fail(&self, task_id: &str, reason: &str) -> Result<u32, RedisError> {
        let mut script = self.scripts.fail.key(self.keys.queue_tries());
        script.key(self.about(task_id)).arg(task_id).arg(bounded(reason));
        Ok(script.invoke_async(&mut self.redis.writes()).await?)
    }

    /// Uncounts an attempt that ended because its process is stopping, or because a dependency is
    /// unavailable.
    pub async fn forget_attempt(&self, task_id: &str) -> Result<(), RedisError> {
        let mut script = self.scripts.forget_attempt.key(self.keys.queue_tries());
        script.arg(task_id);
        Ok(script.invoke_async(&mut self.redis.writes()).await?)
    }

    /// Records that a job is done.
    pub async fn finish(&self, task_id: &str, kind: JobKind) -> Result<(), RedisError> {
        let mut script = self.scripts.finish.key(self.window(kind));
        script.key(self.keys.queue_tries()).arg(task_id);
        Ok(script.invoke_async(&mut self.redis.writes()).await?)
    }

    /// Dead-letters a job. An unreadable job has no known kind and is removed from all windows.
    pub async fn dead_letter(
        &self,
        task_id: &str,
        kind: Option<JobKind>,
        reason: &str,
        attempts: u32,
    ) -> Result<(), RedisError> {
        let mut script = self.scripts.dead_letter.key(self.keys.queue_tries());
        script.key(self.about(task_id)).key(self.keys.queue_dead());
        for window in JobKind::ALL.into_iter().filter(|window| kind.is_none_or(|kind| kind == *window)) {
            script.key(self.window(window));
        }
        script.arg(task_id).arg(bounded(reason)).arg(Utc::now().timestamp_millis()).arg(attempts);
        Ok(script.invoke_async(&mut self.redis.writes()).await?)
    }

    /// Releases the jobs that a worker of this process had fetched before it ended. Returns how many.
    pub async fn release(&self, worker: &str) -> Result<u32, RedisError> {
        let queue = self.keys.queue();
        let mut script = self.scripts.release.key(format!("{}:{worker}", self.names.inflight_jobs_set()));
        script
            .key(self.names.active_jobs_list())
            .key(self.names.workers_set())
            .key(self.keys.queue_tries())
            .key(format!("{queue}:workers:metadata:{worker}"))
            .arg(worker)
            .arg(self.keys.queue_wake());
        Ok(script.invoke_async(&mut self.redis.writes()).await?)
    }

    /// Deletes the records of some done jobs. Returns how many.
    pub async fn clean(&self) -> Result<u32, RedisError> {
        let period_ms = u64::try_from(DONE_PERIOD.as_millis()).unwrap_or(u64::MAX);
        let mut script = self.scripts.clean.key(self.names.done_jobs_set());
        script
            .key(self.keys.queue_done_before())
            .key(self.names.job_data_hash())
            .key(self.keys.queue_period())
            .key(self.names.dead_jobs_set())
            .key(self.keys.queue_dead())
            .arg(self.about(""))
            .arg(CLEANUP_BATCH)
            .arg(period_ms)
            .arg(DEAD_KEPT);
        Ok(script.invoke_async(&mut self.redis.writes()).await?)
    }

    /// Requeues outstanding jobs that the queue library has dropped. Returns how many.
    pub async fn recover_lost(&self) -> Result<u32, RedisError> {
        let mut recovered = 0;
        for kind in JobKind::ALL {
            let mut script = self.scripts.recover_lost.key(self.window(kind));
            script
                .key(self.names.dead_jobs_set())
                .key(self.keys.queue_dead())
                .key(self.names.job_data_hash())
                .key(self.names.active_jobs_list())
                .arg(self.about(""))
                .arg(self.keys.queue_wake());
            recovered += script.invoke_async::<u32>(&mut self.redis.writes()).await?;
        }
        Ok(recovered)
    }

    /// The number of outstanding jobs: waiting, running, or to be retried.
    pub async fn depth(&self) -> Result<u64, RedisError> {
        let mut pipeline = redis::pipe();
        for kind in JobKind::ALL {
            pipeline.scard(self.window(kind));
        }
        let depths: Vec<u64> = pipeline.query_async(&mut self.redis.writes()).await?;
        Ok(depths.iter().sum())
    }

    /// The number of outstanding jobs of this kind.
    pub async fn outstanding(&self, kind: JobKind) -> Result<u64, RedisError> {
        let mut count = redis::cmd("SCARD");
        Ok(count.arg(self.window(kind)).query_async(&mut self.redis.writes()).await?)
    }

    /// The number of dead letters.
    pub async fn count_dead(&self) -> Result<u64, RedisError> {
        let count =
            redis::cmd("ZCARD").arg(self.keys.queue_dead()).query_async(&mut self.redis.writes()).await?;
        Ok(count)
    }

    /// The dead letters, newest first.
    pub async fn dead_jobs(&self, limit: usize) -> Result<Vec<DeadJob>, RedisError> {
        let mut connection = self.redis.writes();
        let mut newest = redis::cmd("ZREVRANGE");
        newest.arg(self.keys.queue_dead()).arg(0).arg(limit.saturating_sub(1)).arg("WITHSCORES");
        let dead: Vec<(String, i64)> = newest.query_async(&mut connection).await?;
        let mut pipeline = redis::pipe();
        for (task_id, _) in &dead {
            pipeline.cmd("HMGET").arg(self.about(task_id)).arg("reason").arg("tries");
            pipeline.hget(self.names.job_data_hash(), task_id);
        }
        if dead.is_empty() {
            return Ok(Vec::new());
        }
        let facts: Vec<redis::Value> = pipeline.query_async(&mut connection).await?;
        let jobs = dead.into_iter().zip(facts.chunks(2)).map(|((task_id, died_at), facts)| {
            let (reason, tries): (Option<String>, Option<u32>) = facts
                .first()
                .and_then(|value| redis::from_redis_value(value.clone()).ok())
                .unwrap_or_default();
            let payload: Option<Vec<u8>> =
                facts.get(1).and_then(|value| redis::from_redis_value(value.clone()).ok()).flatten();
            DeadJob {
                task_id,
                kind: payload.and_then(|payload| kind_of(&payload)).map_or("unreadable", JobKind::name),
                reason: reason.unwrap_or_default(),
                tries: tries.unwrap_or_default(),
                died_at: DateTime::from_timestamp_millis(died_at).unwrap_or_default(),
            }
        });
        Ok(jobs.collect())
    }

    /// The encoded job.
    pub async fn payload(&self, task_id: &str) -> Result<Option<Vec<u8>>, RedisError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.names.job_data_hash()).arg(task_id);
        Ok(command.query_async(&mut self.redis.writes()).await?)
    }

    /// Requeues a dead letter. Returns whether it was one.
    pub async fn requeue(&self, task_id: &str) -> Result<bool, RedisError> {
        let Some(payload) = self.payload(task_id).await? else { return Ok(false) };
        let mut script = self.scripts.requeue.key(self.names.dead_jobs_set());
        script
            .key(self.keys.queue_dead())
            .key(self.names.job_data_hash())
            .key(self.about(task_id))
            // An unreadable payload was not enqueued as part of a run.
            .key(self.window(kind_of(&payload).unwrap_or(JobKind::ApplyEvents)))
            .key(self.names.active_jobs_list())
            .arg(task_id)
            .arg(self.keys.queue_wake());
        Ok(script.invoke_async(&mut self.redis.writes()).await?)
    }

    fn about(&self, task_id: &str) -> String {
        format!("{}:{task_id}", self.names.job_meta_hash())
    }

    fn window(&self, kind: JobKind) -> String {
        self.keys.queue_window(kind.window())
    }
}

/// The reason that a job could not be enqueued.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// Redis did not accept it.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// It cannot be encoded.
    #[error(transparent)]
    Job(#[from] JobError),
}

fn kind_of(payload: &[u8]) -> Option<JobKind> {
    Job::decode(payload).ok().map(|job| job.kind())
}

fn bounded(reason: &str) -> &str {
    let end = reason.char_indices().nth(MAX_REASON_CHARS);
    end.and_then(|(end, _)| reason.get(..end)).unwrap_or(reason)
}
