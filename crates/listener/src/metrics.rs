//! The metrics of the listener.

use pricing_core::telemetry::inventory::names::{
    EVENT_LOG_LAG, EVENTS_BURIED, EVENTS_DISPATCHED, EVENTS_PUBLISHED, JOBS_ENQUEUED,
};
use pricing_core::telemetry::registry::{Counter, Gauge, Registry};

#[derive(Debug)]
pub(crate) struct ListenerMetrics {
    /// Events of foreign programs that the bridge accepted.
    pub(crate) events_published: Counter,
    pub(crate) events_dispatched: Counter,
    /// Messages that are not market events.
    pub(crate) events_dead_lettered: Counter,
    /// Events that wait in the stream.
    pub(crate) event_log_lag: Gauge,
    pub(crate) jobs_enqueued: Counter,
}

impl ListenerMetrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            events_published: registry.counter(EVENTS_PUBLISHED),
            events_dispatched: registry.counter(EVENTS_DISPATCHED),
            events_dead_lettered: registry.counter(EVENTS_BURIED),
            event_log_lag: registry.gauge(EVENT_LOG_LAG),
            jobs_enqueued: registry.counter(JOBS_ENQUEUED),
        }
    }
}
