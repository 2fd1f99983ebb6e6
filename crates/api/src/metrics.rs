//! The metrics of the API: requests, load shedding, imports and clients that follow price changes.

use std::time::Duration;

use pricing_core::telemetry::inventory::names::{
    EVENT_TO_VISIBLE, EVENTS_PUBLISHED, FAILED_OFFER_RULES, HTTP_REQUEST_DURATION, IMPORTED_ROWS, LATENESS,
    PRICE_CHANGE_STREAMS, REQUESTS_REFUSED,
};
use pricing_core::telemetry::registry::{Counter, Gauge, Histogram, Registry, Series};

pub(crate) struct ApiMetrics {
    pub(crate) requests: RequestMetrics,
    pub(crate) load_shedding: LoadSheddingMetrics,
    pub(crate) events_published: Counter,
    /// From the publication of an event until this process no longer serves the old price.
    pub(crate) event_to_visible: Histogram,
    /// Offer rules that failed in a quote and were skipped.
    pub(crate) failed_offer_rules: Counter,
    pub(crate) rows_imported: Counter,
    pub(crate) rows_refused: Counter,
    pub(crate) price_change_streams: Gauge,
}

/// Metrics of answered requests. A route is labelled by its pattern, so the number of series is bounded.
pub(crate) struct RequestMetrics {
    registry: Registry,
    durations: Series<(&'static str, u16)>,
}

pub(crate) struct LoadSheddingMetrics {
    pub(crate) batches: Counter,
    pub(crate) look_ups: Counter,
    pub(crate) scheduling_delay: Gauge,
}

impl ApiMetrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let rows = |result| registry.labelled_counter(IMPORTED_ROWS, "result", result);
        Self {
            requests: RequestMetrics { registry: registry.clone(), durations: Series::default() },
            load_shedding: LoadSheddingMetrics::new(registry),
            events_published: registry.counter(EVENTS_PUBLISHED),
            event_to_visible: registry.histogram(EVENT_TO_VISIBLE, &[]),
            failed_offer_rules: registry.counter(FAILED_OFFER_RULES),
            rows_imported: rows("taken"),
            rows_refused: rows("refused"),
            price_change_streams: registry.gauge(PRICE_CHANGE_STREAMS),
        }
    }
}

impl RequestMetrics {
    pub(crate) fn record(&self, route: &'static str, status: u16, duration: Duration) {
        if self.registry.is_recording() {
            self.series(route, status).record(duration);
        }
    }

    /// The series of a route and a status. A route with many requests keeps that of its usual status, as
    /// finding it takes longer than recording.
    pub(crate) fn series(&self, route: &'static str, status: u16) -> Histogram {
        self.durations.get((route, status), || {
            let labels = [("route", route), ("status", &*status.to_string())];
            self.registry.histogram(HTTP_REQUEST_DURATION, &labels)
        })
    }
}

impl LoadSheddingMetrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let refused = |work| registry.labelled_counter(REQUESTS_REFUSED, "work", work);
        Self {
            batches: refused("batch"),
            look_ups: refused("look_up"),
            scheduling_delay: registry.gauge(LATENESS),
        }
    }
}
