//! The queue: a bounded window of jobs in Redis, with tries that are counted and the dead kept with their
//! reason.
//!
//! The window is small on purpose. A backlog waits where it is durable and cheap, in the stream of events or
//! in the coordinator of a run; the queue holds only what workers are about to do. It is divided into lanes,
//! so that the ranges of a run do not keep events waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use redis::Script;
use serde::Serialize;

use super::storage::config;
use super::{Job, JobError, NewJob};
use crate::keys::MessageKeys;
use crate::redis::{RedisConnection, RedisError};
use crate::telemetry::spans::TraceParent;

/// How often a job that failed is done again.
pub const MAX_RETRIES: u32 = 5;
/// How often a job may have ended its process.
pub const MAX_CRASHES: u32 = 5;

/// Jobs that may be outstanding in each lane; 64 in all.
const EVENT_LANE: usize = 48;
const RUN_LANE: usize = 4;
const RANGE_LANE: usize = 12;

/// A done job stays known for one to two of these, so that a second request for it is recognised.
const DONE_PERIOD: Duration = Duration::from_secs(60);
/// Done jobs forgotten in one call, so that Redis is not kept from others for long.
const FORGET_BATCH: usize = 500;
/// Dead jobs that are kept; the oldest go first.
pub const DEAD_KEPT: usize = 10_000;
/// The longest reason that is kept, in characters.
const MAX_REASON_CHARS: usize = 1_000;

/// What became of a job that was to be enqueued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// It waits for a worker.
    Added {
        /// So many jobs of its lane are outstanding now, with this one.
        outstanding: u64,
    },
    /// It is, or was a moment ago, in the queue.
    Known,
    /// The window is used up; try again when a job is done.
    Full,
}

/// What a try of a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Try {
    /// The job is to be done.
    Go {
        /// Which try this is, from 1.
        number: u32,
    },
    /// It has ended its process too often; it is to be buried.
    CrashedTooOften,
    /// It is dead already.
    Dead,
}

/// What an enqueued job's tries are said to be before one of them is counted.
const NOT_BEGUN: &str = "0";

/// What is known about a job when it is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Whether it applies events and no try of it was counted when it was fetched, so that nothing is known
    /// against it.
    pub is_uncounted: bool,
    /// The trace that it is part of.
    pub trace: Option<TraceParent>,
    /// How long ago it was put in the queue, in milliseconds.
    pub wait_ms: i64,
}

impl Fetched {
    /// What the fields say that the library has fetched with a job.
    pub fn read<'a>(field: impl Fn(&str) -> Option<&'a str>, now: DateTime<Utc>) -> Self {
        let enqueued_at_ms = field("enqueued_at").and_then(|written| written.parse().ok());
        Self {
            is_uncounted: field("begun") == Some(NOT_BEGUN),
            trace: field("traceparent").and_then(TraceParent::parse),
            wait_ms: enqueued_at_ms.map_or(0, |enqueued_at_ms: i64| now.timestamp_millis() - enqueued_at_ms),
        }
    }
}

/// A job that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct DeadJob {
    /// Its name.
    pub task_id: String,
    /// What it was to do: `apply_events`, `run`, `range`, or `unreadable`.
    pub kind: &'static str,
    /// Why it was given up.
    pub reason: String,
    /// How often it was tried.
    pub tries: u32,
    /// When it was given up.
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
    uncount: Script,
    finish: Script,
    bury: Script,
    requeue: Script,
    hand_back: Script,
    clean: Script,
    revive: Script,
}

/// The lanes, by a kind of job in each.
const LANES: [&str; 3] = ["apply_events", "run", "range"];

impl JobQueue {
    /// The queue in this Redis.
    pub fn new(redis: &RedisConnection, keys: &MessageKeys) -> Self {
        let scripts = Scripts {
            enqueue: Script::new(include_str!("enqueue.lua")),
            start: Script::new(include_str!("start.lua")),
            fail: Script::new(include_str!("fail.lua")),
            uncount: Script::new(include_str!("uncount.lua")),
            finish: Script::new(include_str!("finish.lua")),
            bury: Script::new(include_str!("bury.lua")),
            requeue: Script::new(include_str!("requeue.lua")),
            hand_back: Script::new(include_str!("hand_back.lua")),
            clean: Script::new(include_str!("clean.lua")),
            revive: Script::new(include_str!("revive.lua")),
        };
        Self {
            redis: redis.clone(),
            keys: keys.clone(),
            names: config(keys),
            scripts: Arc::new(scripts),
            last_count_went_well: Arc::default(),
        }
    }

    /// Adds a job, unless it is known or its lane is full.
    pub async fn enqueue(&self, job: &NewJob) -> Result<Enqueued, EnqueueError> {
        let payload = job.job.encode()?;
        let mut script = self.scripts.enqueue.key(self.names.job_data_hash());
        script
            .key(self.names.active_jobs_list())
            .key(self.about(&job.task_id))
            .key(self.lane(job.job.kind()))
            .arg(&job.task_id)
            .arg(payload)
            .arg(lane_length(job.job.kind()))
            .arg(self.keys.queue_wake())
            .arg(TraceParent::current().as_ref().map_or("", TraceParent::as_str))
            .arg(Utc::now().timestamp_millis())
            // Runs and their ranges take so long that the wait for their count is nothing.
            .arg(if matches!(job.job, Job::ApplyEvents { .. }) { NOT_BEGUN } else { "" });
        let answer: i64 = script.invoke_async(&mut self.redis.writes()).await.map_err(RedisError::from)?;
        Ok(match u64::try_from(answer) {
            Ok(outstanding) => Enqueued::Added { outstanding },
            Err(_) if answer == -1 => Enqueued::Known,
            Err(_) => Enqueued::Full,
        })
    }

    /// Whether Redis took the last count of a try that it answered. If so, the next one is most likely sent
    /// as soon as the connection's task has its turn: the connection is open, and Redis knows the script.
    pub fn last_count_went_well(&self) -> bool {
        self.last_count_went_well.load(Ordering::Relaxed)
    }

    /// Counts a try of a job.
    pub async fn start(&self, task_id: &str) -> Result<Try, RedisError> {
        let mut script = self.scripts.start.key(self.keys.queue_tries());
        script.key(self.keys.queue_dead()).key(self.about(task_id)).arg(task_id);
        let counted: Result<Option<(u32, u32)>, _> = script.invoke_async(&mut self.redis.writes()).await;
        self.last_count_went_well.store(counted.is_ok(), Ordering::Relaxed);
        let Some((number, failed)) = counted? else { return Ok(Try::Dead) };
        // Every earlier try that did not say how it ended has ended its process.
        if number > failed + MAX_CRASHES {
            return Ok(Try::CrashedTooOften);
        }
        Ok(Try::Go { number })
    }

    /// Records that a try failed; gives how many have.
    pub async fn fail(&self, task_id: &str, reason: &str) -> Result<u32, RedisError> {
        let mut script = self.scripts.fail.key(self.keys.queue_tries());
        script.key(self.about(task_id)).arg(task_id).arg(bounded(reason));
        Ok(script.invoke_async(&mut self.redis.writes()).await?)
    }

    /// A try ended because its process is to stop, or what it needs is away; it does not count.
    pub async fn uncount(&self, task_id: &str) -> Result<(), RedisError> {
        let mut script = self.scripts.uncount.key(self.keys.queue_tries());
        script.arg(task_id);
        Ok(script.invoke_async(&mut self.redis.writes()).await?)
    }

    /// A job is done.
    pub async fn finish(&self, task_id: &str, kind: &str) -> Result<(), RedisError> {
        let mut script = self.scripts.finish.key(self.lane(kind));
        script.key(self.keys.queue_tries()).arg(task_id);
        Ok(script.invoke_async(&mut self.redis.writes()).await?)
    }

    /// A job is given up. Of one that cannot be read, and so is of no known kind, it is not known in which
    /// lane it is.
    pub async fn bury(&self, task_id: &str, kind: &str, reason: &str, tries: u32) -> Result<(), RedisError> {
        let mut script = self.scripts.bury.key(self.keys.queue_tries());
        script.key(self.about(task_id)).key(self.keys.queue_dead());
        for lane in LANES {
            if kind == lane || !LANES.contains(&kind) {
                script.key(self.lane(lane));
            }
        }
        script.arg(task_id).arg(bounded(reason)).arg(Utc::now().timestamp_millis()).arg(tries);
        Ok(script.invoke_async(&mut self.redis.writes()).await?)
    }

    /// Gives back what a worker of this process, which has ended, has fetched; how many jobs that were.
    pub async fn hand_back(&self, worker: &str) -> Result<u32, RedisError> {
        let queue = self.keys.queue();
        let mut script = self.scripts.hand_back.key(format!("{}:{worker}", self.names.inflight_jobs_set()));
        script
            .key(self.names.active_jobs_list())
            .key(self.names.workers_set())
            .key(self.keys.queue_tries())
            .key(format!("{queue}:workers:metadata:{worker}"))
            .arg(worker)
            .arg(self.keys.queue_wake());
        Ok(script.invoke_async(&mut self.redis.writes()).await?)
    }

    /// Forgets some of what is done for good; how many jobs.
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
            .arg(FORGET_BATCH)
            .arg(period_ms)
            .arg(DEAD_KEPT);
        Ok(script.invoke_async(&mut self.redis.writes()).await?)
    }

    /// Has those jobs done that are outstanding and that no worker would ever get; how many.
    pub async fn revive(&self) -> Result<u32, RedisError> {
        let mut revived = 0;
        for kind in LANES {
            let mut script = self.scripts.revive.key(self.lane(kind));
            script
                .key(self.names.dead_jobs_set())
                .key(self.keys.queue_dead())
                .key(self.names.job_data_hash())
                .key(self.names.active_jobs_list())
                .arg(self.about(""))
                .arg(self.keys.queue_wake());
            revived += script.invoke_async::<u32>(&mut self.redis.writes()).await?;
        }
        Ok(revived)
    }

    /// How many jobs are outstanding: waiting, being done, or to be done again.
    pub async fn depth(&self) -> Result<u64, RedisError> {
        let mut pipeline = redis::pipe();
        for kind in LANES {
            pipeline.scard(self.lane(kind));
        }
        let depths: Vec<u64> = pipeline.query_async(&mut self.redis.writes()).await?;
        Ok(depths.iter().sum())
    }

    /// How many of them are of this kind.
    pub async fn outstanding(&self, kind: &str) -> Result<u64, RedisError> {
        let mut count = redis::cmd("SCARD");
        Ok(count.arg(self.lane(kind)).query_async(&mut self.redis.writes()).await?)
    }

    /// How many jobs are dead.
    pub async fn count_dead(&self) -> Result<u64, RedisError> {
        let count =
            redis::cmd("ZCARD").arg(self.keys.queue_dead()).query_async(&mut self.redis.writes()).await?;
        Ok(count)
    }

    /// The dead jobs, the latest first.
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
                kind: payload.map_or("unreadable", |payload| kind_of(&payload)),
                reason: reason.unwrap_or_default(),
                tries: tries.unwrap_or_default(),
                died_at: DateTime::from_timestamp_millis(died_at).unwrap_or_default(),
            }
        });
        Ok(jobs.collect())
    }

    /// What a job is to do, as it lies in the queue.
    pub async fn payload(&self, task_id: &str) -> Result<Option<Vec<u8>>, RedisError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.names.job_data_hash()).arg(task_id);
        Ok(command.query_async(&mut self.redis.writes()).await?)
    }

    /// Gives a dead job another chance; whether it was dead.
    pub async fn requeue(&self, task_id: &str) -> Result<bool, RedisError> {
        let Some(payload) = self.payload(task_id).await? else { return Ok(false) };
        let mut script = self.scripts.requeue.key(self.names.dead_jobs_set());
        script
            .key(self.keys.queue_dead())
            .key(self.names.job_data_hash())
            .key(self.about(task_id))
            .key(self.lane(kind_of(&payload)))
            .key(self.names.active_jobs_list())
            .arg(task_id)
            .arg(self.keys.queue_wake());
        Ok(script.invoke_async(&mut self.redis.writes()).await?)
    }

    fn about(&self, task_id: &str) -> String {
        format!("{}:{task_id}", self.names.job_meta_hash())
    }

    fn lane(&self, kind: &str) -> String {
        self.keys.queue_lane(lane_name(kind))
    }
}

/// Why a job could not be enqueued.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// Redis does not take it.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// It cannot be written down.
    #[error(transparent)]
    Job(#[from] JobError),
}

fn kind_of(payload: &[u8]) -> &'static str {
    Job::decode(payload).map_or("unreadable", |job| job.kind())
}

fn lane_name(kind: &str) -> &'static str {
    match kind {
        "run" => "runs",
        "range" => "ranges",
        // What cannot be read came in as something else than the parts of a run.
        _ => "events",
    }
}

fn lane_length(kind: &str) -> usize {
    match lane_name(kind) {
        "runs" => RUN_LANE,
        "ranges" => RANGE_LANE,
        _ => EVENT_LANE,
    }
}

fn bounded(reason: &str) -> &str {
    let end = reason.char_indices().nth(MAX_REASON_CHARS);
    end.and_then(|(end, _)| reason.get(..end)).unwrap_or(reason)
}
