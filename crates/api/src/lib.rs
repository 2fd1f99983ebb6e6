//! The HTTP API: the fast read path, and the entry point of changes.
//!
//! Here: routes, and which error is which problem. Never here: the computation of prices (`pricing-domain`
//! and `pricing-core`'s `engine`), SQL, Redis commands, or the types that the command line shares
//! (`pricing-wire`). A handler reads its input, calls one function of the core and maps the result.
//!
//! Where next: [`router`] for the table of routes; [`routes::price`] for the hot path.

mod accept;
pub mod browser;
pub mod config;
mod connections;
pub mod error;
mod extract;
mod hot_path;
mod http_worker;
mod invalidation;
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

use pricing_core::engine::{Engine, StartError};
use pricing_core::events::dead::DeadEvents;
use pricing_core::events::publish::EventLog;
use pricing_core::jobs::queue::JobQueue;
use pricing_core::redis::Subscription;
use pricing_core::service;
use routes::import::REMEMBERED_ROWS;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use browser::BrowserGuard;
use config::ApiConfig;
use hot_path::HotPath;
use metrics::ApiMetrics;
use routes::import_spool::Spools;
use routes::price_changes::Followers;
use state::{AppState, StateInner};

/// The service's name in health answers, metrics and logs.
pub const SERVICE: &str = "pricing-api";

/// How long requests under way may take to finish at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);

/// Serves the API on this socket until shutdown, then drains the requests under way.
pub async fn run(
    listener: TcpListener,
    config: ApiConfig,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    let engine = Engine::open(&config.shared, SERVICE, config.shared.l1_capacity).await?;
    let metrics = Arc::new(ApiMetrics::new(&engine.registry));
    let (redis, message_keys) = (&engine.redis, &engine.keys);
    let (events, dead_events) = (EventLog::new(redis, message_keys), DeadEvents::new(redis, message_keys));
    let queue = JobQueue::new(redis, message_keys);
    let health = engine.health(SERVICE);
    let channels = vec![message_keys.price_changes_channel(), message_keys.policy_changes_channel()];
    let log = message_keys.price_changes_log();
    let subscription = Subscription::open_beside(&log, &config.shared.redis_url, channels)?;
    let (wake, woken) = watch::channel(0);
    let mut tasks = JoinSet::new();
    engine.spawn_upkeep(&mut tasks, &shutdown);
    health.spawn_upkeep(&mut tasks, &engine.registry, &shutdown);
    tasks.spawn(invalidation::wake_for_other_catalogues(
        engine.store.catalogue.subscribe(),
        wake.clone(),
        shutdown.clone(),
    ));
    tasks.spawn(invalidation::listen(
        subscription,
        engine.clone(),
        Arc::clone(&metrics),
        wake,
        shutdown.clone(),
    ));
    // An HTTP worker for each core that this process may use.
    let http_workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    let scheduling_delay = load_shedding::SchedulingDelay::of(http_workers + 1);
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
        browser: BrowserGuard { hosts: config.hosts, cors_origins: config.cors_origins },
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

/// Half of the connections, but at least one.
fn half_of(database_connections: u32) -> usize {
    usize::try_from(database_connections / 2).map_or(1, |half| half.max(1))
}

/// Serves on this many HTTP workers until shutdown, then until requests under way are answered or the drain
/// times out.
async fn serve_until(
    listener: TcpListener,
    http_workers: usize,
    state: AppState,
    max_connections: usize,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    let (routes, runtime) = (router::router(&state), Handle::current());
    let begin = |http_worker| {
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
    let begins = (0..http_workers).map(begin).collect::<Vec<_>>();
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
