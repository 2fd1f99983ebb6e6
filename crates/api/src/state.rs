//! The state that all handlers share, built once at startup.

use std::ops::Deref;
use std::sync::Arc;

use pricing_core::engine::Engine;
use pricing_core::events::dead::DeadEvents;
use pricing_core::events::publish::EventLog;
use pricing_core::health::Health;
use pricing_core::jobs::queue::JobQueue;
use pricing_core::quote_lock::QuoteLock;
use pricing_domain::facts::time_zone::TimeZones;
use tokio::sync::Semaphore;

use crate::access::Access;
use crate::browser::BrowserGuard;
use crate::error::ApiError;
use crate::load_shedding::{SchedulingDelay, Work};
use crate::metrics::ApiMetrics;
use crate::routes::import_spool::Spools;
use crate::routes::price_changes::Followers;
use crate::routes::simulation::Simulations;

/// The state of every handler. Cloned several times per request, so it is one `Arc`.
#[derive(Clone)]
pub(crate) struct AppState(Arc<StateInner>);

/// The fields of [`AppState`]. Cloned once for each HTTP worker.
#[derive(Clone)]
pub(crate) struct StateInner {
    pub(crate) engine: Engine,
    pub(crate) health: Health,
    pub(crate) metrics: Arc<ApiMetrics>,
    pub(crate) events: EventLog,
    pub(crate) dead_events: DeadEvents,
    pub(crate) queue: JobQueue,
    pub(crate) followers: Followers,
    pub(crate) simulations: Simulations,
    /// Limits how many batches all imports together store concurrently, so that connections are left for
    /// other requests.
    pub(crate) import_turns: Arc<Semaphore>,
    /// Limits the rows that imports keep in memory.
    pub(crate) import_memory: Arc<Semaphore>,
    /// Where imports are kept while a circuit breaker judges them.
    pub(crate) import_spools: Spools,
    /// Admits or refuses callers.
    pub(crate) access: Access,
    /// Admits or refuses requests from browsers.
    pub(crate) browser: BrowserGuard,
    /// Signs locks, if there is a key.
    pub(crate) quote_lock: Option<Arc<QuoteLock>>,
    /// The text for shoppers beside a personalised price.
    pub(crate) personalisation_disclosure: Arc<str>,
    /// How long ready work waits for a core.
    pub(crate) scheduling_delay: SchedulingDelay,
    /// The fraction of price requests that are traced, 0 to 1.
    pub(crate) traced_price_ratio: f64,
    /// The requests that reached a handler.
    #[cfg(test)]
    pub(crate) admitted: Arc<std::sync::atomic::AtomicU64>,
}

impl Deref for AppState {
    type Target = StateInner;

    fn deref(&self) -> &StateInner {
        &self.0
    }
}

impl From<StateInner> for AppState {
    fn from(handles: StateInner) -> Self {
        Self(Arc::new(handles))
    }
}

impl AppState {
    /// A copy for an HTTP worker: no other thread shares its reference count, and it has its own connection
    /// for reading Redis.
    pub(crate) fn for_http_worker(&self) -> Self {
        let engine = self.engine.with_own_reads();
        Self::from(StateInner { engine, ..StateInner::clone(self) })
    }

    /// Refuses this work while the process is overloaded.
    pub(crate) fn admit(&self, work: Work) -> Result<(), ApiError> {
        self.scheduling_delay.admit(work, &self.metrics.load_shedding)
    }

    /// The time zones that policies are compiled with.
    pub(crate) fn time_zones(&self) -> &TimeZones {
        self.engine.policies.time_zones()
    }

    /// Refuses a write while Redis accepts none: the new price could be stored, but not published.
    pub(crate) async fn require_redis(&self) -> Result<(), ApiError> {
        // The cache logs it, once for all that are refused.
        self.engine.cache.check_writable().await.map_err(|error| ApiError::Unavailable {
            reason: if error.is_loading() {
                "redis still reads its file, so nothing was changed"
            } else {
                "redis takes no writes, so nothing was changed"
            },
        })
    }
}
