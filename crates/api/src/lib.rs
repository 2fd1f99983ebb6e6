//! The HTTP API: the fast read path, and the entry point of changes.
//!
//! Here: routes, and which error is which problem. Never here: the computation of prices (`pricing-domain`
//! and `pricing-core`'s `engine`), SQL, Redis commands, or the types that the command line shares
//! (`pricing-wire`). A handler reads its input, calls one function of the core and maps the result.
//!
//! Where next: [`router`] for the table of routes; [`routes::price`] for the hot path.

mod accept;
mod access;
pub mod browser;
pub mod config;
mod connections;
pub mod error;
mod extract;
mod hot_path;
mod http_worker;
mod invalidation;
mod listeners;
mod load_shedding;
mod metrics;
mod openapi;
mod pipeline;
mod request_head;
mod router;
mod routes;
mod state;

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::future::try_join_all;
use pricing_core::access::{AccessControl, AccessMode, KeyRing};
use pricing_core::engine::{Engine, StartError};
use pricing_core::events::dead::DeadEvents;
use pricing_core::events::publish::EventLog;
use pricing_core::health::Health;
use pricing_core::jobs::queue::JobQueue;
use pricing_core::redis::Subscription;
use pricing_core::service;
use routes::import::REMEMBERED_ROWS;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use access::Access;
use browser::BrowserGuard;
use config::ApiConfig;
use hot_path::HotPath;
use listeners::{Listeners, Served};
use metrics::ApiMetrics;
use routes::import_spool::Spools;
use routes::price_changes::Followers;
use state::{AppState, StateInner};

/// The service's name in health answers, metrics and logs.
pub const SERVICE: &str = "pricing-api";

/// HTTP workers of a listener for administration.
const ADMIN_HTTP_WORKERS: usize = 1;

/// How long requests under way may take to finish at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);

/// Serves the API on this socket until shutdown, then drains the requests under way.
pub async fn run(
    listener: TcpListener,
    config: ApiConfig,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    let admin_listener = match config.admin_listen {
        Some(address) => Some(TcpListener::bind(address).await?),
        None => None,
    };
    let engine = Engine::open(&config.shared, SERVICE, config.shared.l1_capacity).await?;
    let access = open_access(&engine, &config).await?;
    let listeners = Listeners::new(listener, admin_listener);
    listeners.refuse_open(&access)?;
    let metrics = Arc::new(ApiMetrics::new(&engine.registry));
    let (redis, message_keys) = (&engine.redis, &engine.keys);
    let events = EventLog::new(&redis.replicated(config.shared.redis_replicas)?, message_keys);
    let dead_events = DeadEvents::new(redis, message_keys);
    let queue = JobQueue::new(redis, message_keys);
    let health = Health { access: Some(access.control.clone()), ..engine.health(SERVICE) };
    let mut tasks = JoinSet::new();
    engine.spawn_upkeep(&mut tasks, &shutdown);
    let clock = engine.clock.clone();
    tasks.spawn(access.control.keys.clone().poll(move || clock.now(), shutdown.clone()));
    health.spawn_upkeep(&mut tasks, &engine.registry, &shutdown);
    let woken = spawn_invalidation(&mut tasks, &engine, &config, &metrics, &shutdown)?;
    // An HTTP worker for each core that this process may use.
    let http_workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    let scheduling_delay = load_shedding::SchedulingDelay::of(http_workers + 1 + ADMIN_HTTP_WORKERS);
    // Samples this runtime; HTTP workers sample their own.
    tasks.spawn(scheduling_delay.clone().measure(http_workers, Arc::clone(&metrics), shutdown.clone()));
    let followers = Followers::new(config.max_followers_per_peer, woken, shutdown.clone());
    let simulations = routes::simulation::Simulations::new();
    let import_turns = Arc::new(Semaphore::new(half_of(config.shared.database_connections)));
    let store = engine.store.clone();
    let state = AppState::from(StateInner {
        engine,
        health,
        metrics,
        events,
        dead_events,
        queue,
        followers,
        simulations,
        import_turns,
        import_memory: Arc::new(Semaphore::new(REMEMBERED_ROWS)),
        import_spools: Spools::new(config.import_spool_directory, config.import_spool_limit_bytes),
        access,
        browser: BrowserGuard { hosts: config.hosts, cors_origins: config.cors_origins },
        quote_lock: config.quote_lock,
        personalisation_disclosure: config.personalisation_disclosure.into(),
        scheduling_delay,
        traced_price_ratio: config.shared.trace.price_ratio,
        #[cfg(test)]
        admitted: Arc::default(),
    });
    if let Some(path) = &config.seed_file {
        routes::import::seed(state.clone(), path).await;
    }

    listeners.log()?;
    let serving = serve_until(listeners, http_workers, state, config.max_connections, shutdown.clone());
    service::serve_beside(tasks, &shutdown, serving).await?;
    store.close().await;
    tracing::info!("the API has stopped");
    Ok(())
}

/// Spawns what brings changes by other processes into this one's memory; the value changes with each.
fn spawn_invalidation(
    tasks: &mut JoinSet<()>,
    engine: &Engine,
    config: &ApiConfig,
    metrics: &Arc<ApiMetrics>,
    shutdown: &CancellationToken,
) -> Result<watch::Receiver<u64>, StartError> {
    let channels = vec![engine.keys.price_changes_channel(), engine.keys.policy_changes_channel()];
    let log = engine.keys.price_changes_log();
    let subscription = Subscription::open_beside(&log, &config.shared.redis_url, channels)?;
    let (wake, woken) = watch::channel(0);
    tasks.spawn(invalidation::wake_for_other_catalogues(
        engine.store.catalogue.subscribe(),
        wake.clone(),
        shutdown.clone(),
    ));
    tasks.spawn(invalidation::listen(
        subscription,
        engine.clone(),
        Arc::clone(metrics),
        wake,
        shutdown.clone(),
    ));
    Ok(woken)
}

/// Half of the connections, but at least one.
fn half_of(database_connections: u32) -> usize {
    usize::try_from(database_connections / 2).map_or(1, |half| half.max(1))
}

/// Reads the keys, and says in the log whether callers need one.
async fn open_access(engine: &Engine, config: &ApiConfig) -> Result<Access, StartError> {
    let clock = engine.clock.clone();
    let keys = KeyRing::load(engine.store.clone(), clock.now()).await?;
    let control = AccessControl { mode: config.auth, keys };
    match (control.mode, control.is_on()) {
        (AccessMode::Off, _) => {
            tracing::warn!("access control is off (PRICING_AUTH=off): every caller may do everything");
        }
        (_, true) => tracing::info!(keys = control.keys.active(), "callers need an access key"),
        (_, false) => {
            tracing::info!("no access key exists: every program on this host may do everything");
        }
    }
    Ok(Access { control, open: config.open_scopes.0, clock })
}

/// Serves on this many HTTP workers until shutdown, then until requests under way are answered or the drain
/// times out. Administration has a worker of its own, if it has a listener of its own.
async fn serve_until(
    listeners: Listeners,
    http_workers: usize,
    state: AppState,
    max_connections: usize,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    let runtime = Handle::current();
    let begin = |http_worker, routes: &Router| {
        let (state, routes, runtime) = (state.for_http_worker(), routes.clone(), runtime.clone());
        let shutdown = shutdown.clone();
        move || {
            tokio::spawn(state.scheduling_delay.clone().measure(
                http_worker,
                Arc::clone(&state.metrics),
                shutdown,
            ));
            let hot_path = HotPath::new(state, routes, runtime);
            move |request, peer| HotPath::answer(Arc::clone(&hot_path), request, peer)
        }
    };
    let serve = |(listener, served): (TcpListener, Served)| {
        let routes = router::router(&state, served);
        // The one between is that of the runtime of the service.
        let workers = match served {
            Served::Administration => http_workers + 1..http_workers + 1 + ADMIN_HTTP_WORKERS,
            Served::Everything | Served::Prices => 0..http_workers,
        };
        let begins = workers.map(|number| begin(number, &routes)).collect::<Vec<_>>();
        accept::serve(listener, begins, max_connections, shutdown.clone())
    };
    let serving = try_join_all(listeners.0.into_iter().map(serve));
    let drained = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        served = serving => served.map(drop)?,
        () = drained => tracing::warn!("requests were still under way at the end of the drain"),
    }
    Ok(())
}
