//! Metrics of the caches.

use crate::telemetry::inventory::names::{
    FILL_DURATION, L1_ENTRIES, L1_EVICTIONS, L1_FLUSHES, L1_INVALIDATIONS, L2_ERRORS, L2_REFUSED, PRICE_READS,
};
use crate::telemetry::registry::{Counter, Gauge, Histogram, Registry};

#[derive(Debug)]
pub(super) struct CacheMetrics {
    pub(super) reads_from_l1: Counter,
    pub(super) reads_from_l2: Counter,
    pub(super) reads_from_store: Counter,
    pub(super) reads_of_unknown: Counter,
    pub(super) fill_duration: Histogram,
    pub(super) l1_entries: Gauge,
    pub(super) l1_evictions: Counter,
    pub(super) l1_invalidations: Counter,
    pub(super) l1_flushes: Counter,
    pub(super) l2_errors: Counter,
    pub(super) l2_refused: Counter,
}

impl CacheMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let reads = |from| registry.labelled_counter(PRICE_READS, "from", from);
        Self {
            reads_from_l1: reads("l1"),
            reads_from_l2: reads("l2"),
            reads_from_store: reads("catalogue"),
            reads_of_unknown: reads("unknown"),
            fill_duration: registry.histogram(FILL_DURATION, &[]),
            l1_entries: registry.gauge(L1_ENTRIES),
            l1_evictions: registry.counter(L1_EVICTIONS),
            l1_invalidations: registry.counter(L1_INVALIDATIONS),
            l1_flushes: registry.counter(L1_FLUSHES),
            l2_errors: registry.counter(L2_ERRORS),
            l2_refused: registry.counter(L2_REFUSED),
        }
    }
}
