//! Opens the engine: the only place where its parts are assembled, for services, tests and benches.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::metrics::PricingMetrics;
use crate::cache::PriceCache;
use crate::clock::{Clock, Reference};
use crate::config::SharedConfig;
use crate::health::{Health, Liveness};
use crate::jobs::storage::LayoutError;
use crate::keys::{Keys, MessageKeys};
use crate::notifications::Notifications;
use crate::policy_snapshot::{Policies, PolicySnapshotError};
use crate::processes::Processes;
use crate::redis::{RedisConnection, RedisError};
use crate::service::ServiceError;
use crate::store::{Store, StoreError, StoreSettings};
use crate::telemetry::registry::Registry;
use crate::tz_database::TzDatabase;
use crate::tz_versions::TzVersions;

/// The reason that a service did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database could not be opened.
    #[error("the database cannot be opened: {0}")]
    Store(#[from] StoreError),
    /// The policies could not be read.
    #[error("the policies cannot be read: {0}")]
    Policies(#[from] PolicySnapshotError),
    /// The Redis URL is invalid, or leads to a server that cannot be used.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The queue library's keys differ from those that this program's scripts expect.
    #[error(transparent)]
    Queue(#[from] LayoutError),
    /// The address can be reached from other hosts, and callers need no key.
    #[error("{address} is beyond loopback, and {reason}")]
    Unprotected {
        /// The address to listen on.
        address: SocketAddr,
        /// Why it is not served, and what to do.
        reason: &'static str,
    },
    /// The socket failed.
    #[error("serving failed: {0}")]
    Listener(#[from] std::io::Error),
}

impl ServiceError for StartError {
    fn is_of_configuration(&self) -> bool {
        match self {
            Self::Redis(error) => error.is_of_configuration(),
            Self::Unprotected { .. } => true,
            Self::Store(_) | Self::Policies(_) | Self::Queue(_) | Self::Listener(_) => false,
        }
    }
}

impl Engine {
    /// Opens the database, loads the policies and prepares the connections to Redis, which need not answer
    /// yet. `l1_capacity` is the number of prices that this process keeps in memory.
    pub async fn open(
        config: &SharedConfig,
        service: &'static str,
        l1_capacity: usize,
    ) -> Result<Self, StartError> {
        let registry = Registry::new(service, config.metrics);
        let redis = RedisConnection::open(&config.redis_url)?.measured_by(&registry);
        redis.refuse_unusable().await?;
        let max_connections = config.database_connections;
        let settings = StoreSettings { max_connections, ..StoreSettings::default() };
        let store = Store::open(&config.database_url, settings).await?.measured_by(&registry);
        let clock = Clock::default();
        clock.compare(&Reference::Database(store.clone())).await;
        let keys = MessageKeys::new(&config.key_prefix).in_cluster(redis.is_cluster());
        let time_zones = TzDatabase::load(config.tz_directory.as_deref());
        time_zones.log(clock.now());
        let tz_versions = TzVersions::new(time_zones, &redis, &keys);
        let policies = Policies::load(store.clone(), tz_versions.database().zones.clone()).await?;
        let price_keys = Keys::new(&config.key_prefix, store.catalogue.clone());
        let staleness: Duration = config.l1_max_staleness;
        let cache = PriceCache::new(l1_capacity, staleness, &redis, price_keys, &registry, Handle::current())
            .timed_by(&clock);
        let notifications = Notifications::new(&redis, keys.clone(), store.catalogue.clone());
        let metrics = Arc::new(PricingMetrics::new(&registry));
        let engine = Self {
            store,
            cache,
            policies,
            notifications,
            registry,
            metrics,
            clock,
            redis,
            keys,
            tz_versions,
        };
        engine.check_catalogue_at_start().await?;
        Ok(engine)
    }

    /// Returns the same engine with a read connection that the current runtime drives.
    pub fn with_own_reads(&self) -> Self {
        Self { cache: self.cache.with_own_reads(), ..self.clone() }
    }

    /// Returns the checks of `/readyz` for a service that uses all of the engine.
    pub fn health(&self, service: &'static str) -> Health {
        Health {
            service,
            redis: self.redis.clone(),
            store: Some(self.store.clone()),
            policies: Some(self.policies.clone()),
            keys: self.keys.clone(),
            clock: self.clock.clone(),
            access: None,
            tz_versions: Some(self.tz_versions.clone()),
            processes: Processes::new(service, &self.redis, &self.keys),
            liveness: Liveness::default(),
        }
    }

    /// Spawns the background tasks that every service with an engine needs.
    pub fn spawn_upkeep(&self, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
        tasks.spawn(self.registry.clone().run_upkeep(shutdown.clone()));
        let comparing = self.clock.clone().compare_periodically(
            Reference::Database(self.store.clone()),
            self.registry.clone(),
            shutdown.clone(),
        );
        tasks.spawn(comparing);
        tasks.spawn(self.policies.clone().poll(shutdown.clone()));
        tasks.spawn(self.clone().keep_served(shutdown.clone()));
        tasks.spawn(self.clone().watch_catalogue(shutdown.clone()));
        tasks.spawn(self.tz_versions.clone().publish_periodically(shutdown.clone()));
    }
}
