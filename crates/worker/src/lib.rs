//! The worker: the slow write path.
//!
//! Here: applying market events, recalculations and maintenance, outside shoppers' requests. Never here: HTTP
//! routes besides health and metrics, and how a price is computed (`pricing-domain` and `pricing-core`'s
//! `reprice`).
//!
//! Where next: [`runner`] for attempts, retries and dead letters, [`jobs`] for the work, [`maintenance`] for
//! periodic work.

pub mod config;
pub mod jobs;
mod maintenance;
pub mod runner;

use std::sync::Arc;

use futures::FutureExt;
use pricing_core::cache::PriceCache;
use pricing_core::health::{self, Health};
use pricing_core::jobs::queue::JobQueue;
use pricing_core::keys::{Keys, MessageKeys};
use pricing_core::notifications::Notifications;
use pricing_core::policy_snapshot::{Policies, PolicySnapshotError};
use pricing_core::redis::{RedisConnection, RedisError};
use pricing_core::reprice::Repricer;
use pricing_core::service;
use pricing_core::store::{Store, StoreError, StoreSettings};
use pricing_core::telemetry::metrics::Metrics;
use pricing_core::tz_database::TzDatabase;
use pricing_core::tz_versions::TzVersions;
use pricing_domain::facts::time_zone::TimeZones;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use config::WorkerConfig;
use jobs::Recalculator;
use runner::{JobHandler, JobRunner};

/// The service's name in health answers, metrics and logs.
pub const SERVICE: &str = "pricing-worker";

/// L1 capacity of a worker: it puts prices in Redis for others, and reads none itself.
const L1_CAPACITY: usize = 1;

/// Why the worker ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerRunError {
    /// The database could not be opened.
    #[error("the database cannot be opened: {0}")]
    Store(#[from] StoreError),
    /// The policies could not be read.
    #[error("the policies cannot be read: {0}")]
    Policies(#[from] PolicySnapshotError),
    /// The Redis address is wrong.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The socket for health and metrics failed.
    #[error("serving failed: {0}")]
    Listener(#[from] std::io::Error),
}

/// Runs the worker until shutdown; health and metrics are served on this socket.
pub async fn run(
    listener: TcpListener,
    config: WorkerConfig,
    shutdown: CancellationToken,
) -> Result<(), WorkerRunError> {
    let metrics = Metrics::new(SERVICE, config.shared.metrics);
    let redis = RedisConnection::open(&config.shared.redis_url)?.measured_by(&metrics);
    let settings =
        StoreSettings { max_connections: config.shared.database_connections, ..StoreSettings::default() };
    let store = Store::open(&config.shared.database_url, settings).await?.measured_by(&metrics);
    let database = TzDatabase::load(config.shared.tz_directory.as_deref());
    database.log(chrono::Utc::now());
    let tz_versions = TzVersions::new(database, &redis, &MessageKeys::new(&config.shared.key_prefix));
    let time_zones = &tz_versions.database().zones;
    let recalculator = recalculator(&config, &redis, &store, time_zones, &metrics, &shutdown).await?;
    let runner = job_runner(&config, &redis, &recalculator);
    let policies = Some(recalculator.repricer.policies.clone());
    let health = Health {
        service: SERVICE,
        redis,
        store: Some(store.clone()),
        policies,
        tz_versions: Some(tz_versions.clone()),
    };
    tracing::info!(address = %listener.local_addr()?, "the worker is running");

    let mut tasks = JoinSet::new();
    tasks.spawn(metrics.clone().keep_small(shutdown.clone()));
    tasks.spawn(recalculator.repricer.policies.clone().keep_fresh(shutdown.clone()));
    tasks.spawn(tz_versions.keep_published(shutdown.clone()));
    tasks.spawn(recalculator.clone().run_maintenance());
    tasks.spawn(recalculator.keep_queue_clean());
    let stop = shutdown.clone();
    tasks.spawn(async move {
        if let Err(error) = runner.run(stop).await {
            tracing::error!(%error, "could not fetch jobs");
        }
    });
    let serving = health::serve(listener, health::router(health, metrics), shutdown.clone());
    service::serve_beside(tasks, &shutdown, serving).await?;
    store.close().await;
    tracing::info!("the worker has stopped");
    Ok(())
}

async fn recalculator(
    config: &WorkerConfig,
    redis: &RedisConnection,
    store: &Store,
    time_zones: &TimeZones,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Result<Recalculator, WorkerRunError> {
    let identity = store.identity().await?;
    let keys = MessageKeys::new(&config.shared.key_prefix);
    let price_keys = Keys::new(&config.shared.key_prefix, &identity);
    let (staleness, runtime) = (config.shared.l1_max_staleness, Handle::current());
    let cache = PriceCache::new(L1_CAPACITY, staleness, redis, price_keys, metrics.clone(), runtime);
    let repricer = Repricer {
        store: store.clone(),
        cache,
        policies: Policies::load(store.clone(), time_zones.clone()).await?,
        notifications: Notifications::new(redis, keys.clone(), &identity),
        metrics: metrics.clone(),
    };
    Ok(Recalculator {
        repricer,
        queue: JobQueue::new(redis, &keys),
        redis: redis.with_own_writes()?,
        keys,
        owner: owner(),
        range_turns: Arc::new(Semaphore::new(config.concurrency.div_ceil(2))),
        shutdown: shutdown.clone(),
    })
}

fn job_runner(config: &WorkerConfig, redis: &RedisConnection, recalculator: &Recalculator) -> JobRunner {
    let recalculations = recalculator.clone();
    let handler: JobHandler = Arc::new(move |delivery| {
        let recalculations = recalculations.clone();
        async move { recalculations.handle(delivery).await }.boxed()
    });
    JobRunner {
        queue: recalculator.queue.clone(),
        redis: redis.clone(),
        redis_url: config.shared.redis_url.clone(),
        keys: recalculator.keys.clone(),
        owner: recalculator.owner.clone(),
        concurrency: config.concurrency,
        handler,
        metrics: recalculator.repricer.metrics.clone(),
    }
}

/// A name that no other worker has, nor this one after a restart.
fn owner() -> String {
    format!("worker-{}-{}", std::process::id(), uuid::Uuid::now_v7().simple())
}
