//! The HTTP API: the fast read path, and the door for changes.
//!
//! Here: routes, what they take and give, and how errors look on the wire. Never here: how a price comes
//! about (`pricing-domain` and `pricing-core`'s `reprice`), SQL, or Redis commands. A handler reads its
//! input, calls one function of the core and maps the result.
//!
//! Where next: [`router`] has every route in one table; [`routes::price`] is the one that has to be fast.

mod accept;
pub mod config;
pub mod error;
mod extract;
mod hot_path;
mod http_worker;
mod invalidation;
mod load_shedding;
mod middleware;
pub mod openapi;
mod router;
mod routes;
mod state;

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use pricing_core::cache::PriceCache;
use pricing_core::config::SharedConfig;
use pricing_core::events::publish::EventLog;
use pricing_core::health::Health;
use pricing_core::jobs::queue::JobQueue;
use pricing_core::keys::{Keys, MessageKeys};
use pricing_core::notifications::Notifications;
use pricing_core::policy_snapshot::{Policies, PolicySnapshotError};
use pricing_core::redis::{RedisConnection, RedisError, Subscription};
use pricing_core::reprice::Repricer;
use pricing_core::service;
use pricing_core::store::{Store, StoreError, StoreSettings};
use pricing_core::telemetry::metrics::Metrics;
use pricing_core::tz_database::TzDatabase;
use pricing_core::tz_versions::TzVersions;
use pricing_domain::facts::time_zone::TimeZones;
use routes::import::REMEMBERED_ROWS;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use config::ApiConfig;
use hot_path::HotPath;
use routes::price_changes::Followers;
use state::{AppState, Handles};

/// The service's name in health answers, metrics and logs.
pub const SERVICE: &str = "pricing-api";

/// How long requests under way may take to end after the signal to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);

/// Why the API ended.
#[derive(Debug, thiserror::Error)]
pub enum ApiRunError {
    /// The database could not be opened.
    #[error("the database cannot be opened: {0}")]
    Store(#[from] StoreError),
    /// The policies could not be read.
    #[error("the policies cannot be read: {0}")]
    Policies(#[from] PolicySnapshotError),
    /// The Redis address is wrong.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The socket failed.
    #[error("serving failed: {0}")]
    Listener(#[from] std::io::Error),
}

/// Serves the API on this socket until told to stop, then lets requests under way end.
pub async fn run(
    listener: TcpListener,
    config: ApiConfig,
    shutdown: CancellationToken,
) -> Result<(), ApiRunError> {
    let metrics = Metrics::new(SERVICE, config.shared.metrics);
    let redis = RedisConnection::open(&config.shared.redis_url)?.measured_by(&metrics);
    let message_keys = MessageKeys::new(&config.shared.key_prefix);
    let database = TzDatabase::load(config.shared.tz_directory.as_deref());
    database.log(chrono::Utc::now());
    let tz_versions = TzVersions::new(database, &redis, &message_keys);
    let time_zones = &tz_versions.database().zones;
    let repricer = repricer(&config.shared, &redis, &message_keys, time_zones, &metrics).await?;
    let (store, policies) = (repricer.store.clone(), repricer.policies.clone());
    let events = EventLog::new(&redis, &message_keys);
    let queue = JobQueue::new(&redis, &message_keys);
    let health = Health {
        service: SERVICE,
        redis,
        store: Some(store.clone()),
        policies: Some(policies.clone()),
        tz_versions: Some(tz_versions.clone()),
    };
    let channels = vec![message_keys.price_changes_channel(), message_keys.policy_changes_channel()];
    let subscription = Subscription::open(&config.shared.redis_url, channels)?;
    let (news, heard) = watch::channel(0);
    let mut tasks = JoinSet::new();
    tasks.spawn(policies.keep_fresh(shutdown.clone()));
    tasks.spawn(tz_versions.keep_published(shutdown.clone()));
    tasks.spawn(invalidation::hear(subscription, repricer.clone(), news, shutdown.clone()));
    tasks.spawn(metrics.clone().keep_small(shutdown.clone()));
    // A lane for each core that this process may use.
    let http_workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    let scheduling_delay = load_shedding::SchedulingDelay::of(http_workers + 1);
    // That of this runtime; lanes measure their own.
    tasks.spawn(scheduling_delay.clone().measure(http_workers, metrics.clone(), shutdown.clone()));
    let followers = Followers::new(heard, shutdown.clone());
    let simulations = routes::simulation::Simulations::new();
    let answered_prices = metrics.request_duration(routes::price::PATH, 200);
    let import_turns = Arc::new(Semaphore::new(half_of(config.shared.database_connections)));
    let state = AppState::from(Handles {
        repricer,
        health,
        metrics,
        events,
        queue,
        followers,
        simulations,
        import_turns,
        import_memory: Arc::new(Semaphore::new(REMEMBERED_ROWS)),
        answered_prices,
        scheduling_delay,
        traced_price_ratio: config.shared.trace.price_ratio,
    });
    if let Some(path) = &config.seed_file {
        routes::import::seed(state.clone(), path).await;
    }

    tracing::info!(address = %listener.local_addr()?, "the API is listening");
    let serving = serve_until(listener, http_workers, state, config.max_connections, shutdown.clone());
    service::serve_beside(tasks, &shutdown, serving).await?;
    store.close().await;
    tracing::info!("the API has stopped");
    Ok(())
}

/// Half of the connections, and one at least.
fn half_of(database_connections: u32) -> usize {
    usize::try_from(database_connections / 2).map_or(1, |half| half.max(1))
}

/// What reads and makes prices.
async fn repricer(
    config: &SharedConfig,
    redis: &RedisConnection,
    message_keys: &MessageKeys,
    time_zones: &TimeZones,
    metrics: &Metrics,
) -> Result<Repricer, ApiRunError> {
    let max_connections = config.database_connections;
    let settings = StoreSettings { max_connections, ..StoreSettings::default() };
    let store = Store::open(&config.database_url, settings).await?.measured_by(metrics);
    let policies = Policies::load(store.clone(), time_zones.clone()).await?;
    let identity = store.identity().await?;
    let keys = Keys::new(&config.key_prefix, &identity);
    let (capacity, staleness) = (config.l1_capacity, config.l1_max_staleness);
    let cache = PriceCache::new(capacity, staleness, redis, keys, metrics.clone(), Handle::current());
    let notifications = Notifications::new(redis, message_keys.clone(), &identity);
    Ok(Repricer { store, cache, policies, notifications, metrics: metrics.clone() })
}

/// Serves on so many lanes until told to stop, and then until requests under way have ended or the drain has.
async fn serve_until(
    listener: TcpListener,
    http_workers: usize,
    state: AppState,
    max_connections: usize,
    shutdown: CancellationToken,
) -> Result<(), ApiRunError> {
    let (routes, runtime) = (router::router(state.clone()), Handle::current());
    let begin = |http_worker| {
        let (state, routes, runtime) = (state.for_http_worker()?, routes.clone(), runtime.clone());
        let shutdown = shutdown.clone();
        Ok(move || {
            tokio::spawn(state.scheduling_delay.clone().measure(
                http_worker,
                state.metrics.clone(),
                shutdown,
            ));
            let hot_path = HotPath::new(state, routes, runtime);
            move |request| HotPath::answer(Arc::clone(&hot_path), request)
        })
    };
    let begins = (0..http_workers).map(begin).collect::<Result<Vec<_>, RedisError>>()?;
    let serving = accept::serve(listener, begins, max_connections, shutdown.clone());
    let drained = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        served = serving => served?,
        () = drained => tracing::warn!("requests were still under way at the end of the drain"),
    }
    Ok(())
}
