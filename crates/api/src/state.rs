//! What handlers share: handles, built once at the start.

use std::ops::Deref;
use std::sync::Arc;

use pricing_core::engine::Engine;
use pricing_core::events::publish::EventLog;
use pricing_core::health::Health;
use pricing_core::jobs::queue::JobQueue;
use pricing_core::redis::RedisError;
use pricing_core::telemetry::metrics::Metrics;
use pricing_domain::facts::time_zone::TimeZones;
use tokio::sync::Semaphore;

use crate::browser::BrowserGuard;
use crate::error::ApiError;
use crate::load_shedding::{SchedulingDelay, Work};
use crate::routes::price_changes::Followers;
use crate::routes::simulation::Simulations;

/// The state of every handler. It is cloned for each request, more than once: a clone is one count, not
/// dozens.
#[derive(Clone)]
pub(crate) struct AppState(Arc<Handles>);

/// What is in it; cheap to clone, though not as cheap.
#[derive(Clone)]
pub(crate) struct Handles {
    pub(crate) engine: Engine,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) events: EventLog,
    pub(crate) queue: JobQueue,
    pub(crate) followers: Followers,
    pub(crate) simulations: Simulations,
    /// A turn for each batch that imports store at a time, all together: connections are left for others, and
    /// for reading the policies meanwhile.
    pub(crate) import_turns: Arc<Semaphore>,
    /// Room for the rows that imports remember.
    pub(crate) import_memory: Arc<Semaphore>,
    /// What pages in browsers may ask for.
    pub(crate) browser: BrowserGuard,
    /// How late the process is.
    pub(crate) scheduling_delay: SchedulingDelay,
    /// The part of price requests that are traced.
    pub(crate) traced_price_ratio: f64,
}

impl Deref for AppState {
    type Target = Handles;

    fn deref(&self) -> &Handles {
        &self.0
    }
}

impl From<Handles> for AppState {
    fn from(handles: Handles) -> Self {
        Self(Arc::new(handles))
    }
}

impl AppState {
    /// The same state for a thread with a runtime of its own, whose clones no other thread counts, and which
    /// reads Redis over a connection of its own.
    pub(crate) fn for_http_worker(&self) -> Result<Self, RedisError> {
        let cache = self.engine.cache.with_own_reads()?;
        let engine = Engine { cache, ..self.engine.clone() };
        Ok(Self::from(Handles { engine, ..Handles::clone(self) }))
    }

    /// Refuses this work while more is asked than can be answered.
    pub(crate) fn admit(&self, work: Work) -> Result<(), ApiError> {
        self.scheduling_delay.admit(work, &self.metrics)
    }

    /// The clocks that policies are compiled with.
    pub(crate) fn time_zones(&self) -> &TimeZones {
        self.engine.policies.time_zones()
    }

    /// Refuses a write while Redis takes none: it could be stored, but not served.
    pub(crate) async fn require_redis(&self) -> Result<(), ApiError> {
        self.engine.cache.check_writable().await.map_err(|error| {
            tracing::warn!(%error, "a write is refused: redis does not take it");
            ApiError::Unavailable { reason: "redis takes no writes, so nothing was changed" }
        })
    }
}
