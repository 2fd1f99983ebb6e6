//! The listener: turns market events into jobs.
//!
//! Here: the dispatcher, which reads the event stream and enqueues jobs, and the bridge, which accepts events
//! that foreign programs publish on the channel. Never here: the database, and the computation of prices. Any
//! number of listeners may run: they share the stream.
//!
//! Where next: [`dispatch`] for the path of an event, [`bridge`] for the bridge.

mod bridge;
pub mod config;
mod dispatch;
mod metrics;

use std::sync::Arc;

use pricing_core::clock::{Clock, Reference};
use pricing_core::engine::StartError;
use pricing_core::events::consume::EventConsumer;
use pricing_core::events::dead::DeadEvents;
use pricing_core::events::publish::EventLog;
use pricing_core::health::{self, Health, Liveness};
use pricing_core::jobs::queue::JobQueue;
use pricing_core::keys::MessageKeys;
use pricing_core::processes::Processes;
use pricing_core::redis::{RedisConnection, Subscription};
use pricing_core::service;
use pricing_core::telemetry::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use bridge::Bridge;
use config::ListenerConfig;
use dispatch::Dispatcher;
use metrics::ListenerMetrics;

/// The service's name in health answers, metrics and logs.
pub const SERVICE: &str = "pricing-listener";

/// Runs the listener until shutdown; health and metrics are served on this socket.
pub async fn run(
    listener: TcpListener,
    config: ListenerConfig,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    let registry = Registry::new(SERVICE, config.shared.metrics);
    let metrics = Arc::new(ListenerMetrics::new(&registry));
    let url = &config.shared.redis_url;
    let redis = RedisConnection::open(url)?.measured_by(&registry);
    redis.refuse_unusable().await?;
    let keys = MessageKeys::new(&config.shared.key_prefix).in_cluster(redis.is_cluster());
    let replicated = redis.replicated(config.shared.redis_replicas)?;
    // Unique for each start: entries that an earlier process of this listener left pending are reclaimed like
    // any others.
    let name = format!("listener-{}-{}", std::process::id(), Uuid::now_v7().simple());
    let clock = Clock::default();
    let dispatcher = Dispatcher {
        consumer: EventConsumer::new(url, &redis, &keys, &name)?,
        dead: DeadEvents::new(&redis, &keys),
        queue: JobQueue::new(&replicated, &keys),
        clock: clock.clone(),
        metrics: metrics.clone(),
        shutdown: shutdown.clone(),
    };
    let bridge = Bridge {
        subscription: Subscription::open_beside(&keys.event_log(), url, vec![keys.event_channel()])?,
        redis: redis.clone(),
        log: EventLog::new(&replicated, &keys),
        dead: DeadEvents::new(&redis, &keys),
        keys: keys.clone(),
        clock: clock.clone(),
        owner: name,
        metrics,
    };
    let health = Health {
        access: None,
        service: SERVICE,
        redis: redis.clone(),
        keys: keys.clone(),
        store: None,
        policies: None,
        clock: clock.clone(),
        tz_versions: None,
        processes: Processes::new(SERVICE, &redis, &keys),
        liveness: Liveness::default(),
    };
    tracing::info!(address = %listener.local_addr()?, "the listener is running");

    let mut tasks = JoinSet::new();
    tasks.spawn(registry.clone().run_upkeep(shutdown.clone()));
    let comparing = clock.compare_periodically(
        Reference::Redis(Box::new(redis.clone())),
        registry.clone(),
        shutdown.clone(),
    );
    tasks.spawn(comparing);
    health.spawn_upkeep(&mut tasks, &registry, &shutdown);
    tasks.spawn(dispatcher.run());
    tasks.spawn(bridge.run(shutdown.clone()));
    let serving = health::serve(listener, health::router(health, registry), shutdown.clone());
    service::serve_beside(tasks, &shutdown, serving).await?;
    tracing::info!("the listener has stopped");
    Ok(())
}
