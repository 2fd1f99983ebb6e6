//! The worker: the slow write path.
//!
//! Here: applying market events, recalculations and maintenance, outside shoppers' requests. Never here: HTTP
//! routes besides health and metrics, and the computation of prices (`pricing-domain` and `pricing-core`'s
//! `engine`).
//!
//! Where next: [`runner`] for attempts, retries and dead letters, [`jobs`] for the work, [`maintenance`] for
//! periodic work.

pub mod config;
pub mod jobs;
mod maintenance;
pub mod metrics;
pub mod runner;

use std::sync::Arc;

use futures::FutureExt;
use pricing_core::engine::{Engine, StartError};
use pricing_core::health;
use pricing_core::jobs::queue::JobQueue;
use pricing_core::jobs::storage::check_layout;
use pricing_core::service;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use config::WorkerConfig;
use jobs::Recalculator;
use metrics::{RecalculationMetrics, RunnerMetrics};
use runner::{JobHandler, JobRunner};

/// The service's name in health answers, metrics and logs.
pub const SERVICE: &str = "pricing-worker";

/// L1 capacity of a worker, which publishes prices for other processes and reads none itself.
const L1_CAPACITY: usize = 1;

/// Runs the worker until shutdown; health and metrics are served on this socket.
pub async fn run(
    listener: TcpListener,
    config: WorkerConfig,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    let engine = Engine::open(&config.shared, SERVICE, L1_CAPACITY).await?;
    check_layout(&engine.keys)?;
    let recalculator = recalculator(&config, &engine, &shutdown);
    let runner = job_runner(&config, &recalculator);
    tracing::info!(address = %listener.local_addr()?, "the worker is running");

    let mut tasks = JoinSet::new();
    engine.spawn_upkeep(&mut tasks, &shutdown);
    tasks.spawn(recalculator.clone().run_maintenance());
    tasks.spawn(recalculator.keep_queue_clean());
    let stop = shutdown.clone();
    tasks.spawn(async move {
        if let Err(error) = runner.run(stop).await {
            tracing::error!(%error, "could not fetch jobs");
        }
    });
    let health = engine.health(SERVICE);
    health.spawn_upkeep(&mut tasks, &engine.registry, &shutdown);
    let routes = health::router(health, engine.registry.clone());
    service::serve_beside(tasks, &shutdown, health::serve(listener, routes, shutdown.clone())).await?;
    engine.store.close().await;
    tracing::info!("the worker has stopped");
    Ok(())
}

fn recalculator(config: &WorkerConfig, engine: &Engine, shutdown: &CancellationToken) -> Recalculator {
    Recalculator {
        engine: engine.clone(),
        metrics: Arc::new(RecalculationMetrics::new(&engine.registry)),
        queue: JobQueue::new(&engine.redis, &engine.keys),
        redis: engine.redis.with_own_writes(),
        keys: engine.keys.clone(),
        owner: owner(),
        range_turns: Arc::new(Semaphore::new(config.concurrency.div_ceil(2))),
        shutdown: shutdown.clone(),
    }
}

fn job_runner(config: &WorkerConfig, recalculator: &Recalculator) -> JobRunner {
    let recalculations = recalculator.clone();
    let handler: JobHandler = Arc::new(move |delivery| {
        let recalculations = recalculations.clone();
        async move { recalculations.handle(delivery).await }.boxed()
    });
    JobRunner {
        queue: recalculator.queue.clone(),
        redis: recalculator.engine.redis.clone(),
        redis_url: config.shared.redis_url.clone(),
        keys: recalculator.keys.clone(),
        owner: recalculator.owner.clone(),
        concurrency: config.concurrency,
        handler,
        metrics: RunnerMetrics::new(&recalculator.engine.registry),
    }
}

/// A name unique to this process: no other worker has it, nor this one after a restart.
fn owner() -> String {
    format!("worker-{}-{}", std::process::id(), uuid::Uuid::now_v7().simple())
}
