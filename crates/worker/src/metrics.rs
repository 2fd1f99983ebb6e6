//! The metrics of the worker: attempts of jobs, applied events, runs and the queue.

use std::collections::BTreeMap;
use std::time::Duration;

use pricing_core::store::FROZEN;
use pricing_core::telemetry::inventory::names::{
    DATABASE_CONNECTIONS, DATABASE_CONNECTIONS_ALLOWED, DEAD_JOBS, EVENT_MOVES_HELD, EVENTS_APPLIED,
    FROZEN_PRODUCTS, HELD_RUNS, JOB_DURATION, JOBS_BURIED, JOBS_ENQUEUED, PRICES_HELD, PRODUCTS, QUEUE_DEPTH,
    RUN_DURATION, RUN_PRODUCTS, RUN_WAIT_DURATION,
};
use pricing_core::telemetry::registry::{Counter, Gauge, Histogram, Registry, Series};
use pricing_domain::policy::guardrail::GuardrailName;

/// Metrics of the [runner](crate::runner).
#[derive(Debug)]
pub struct RunnerMetrics {
    registry: Registry,
    attempts: Series<(&'static str, &'static str)>,
    pub(crate) dead_lettered: Counter,
}

/// Metrics of the [jobs](crate::jobs) and of [maintenance](crate::maintenance).
#[derive(Debug)]
pub struct RecalculationMetrics {
    pub(crate) jobs_enqueued: Counter,
    pub(crate) events: EventMetrics,
    pub(crate) runs: RunMetrics,
    pub(crate) queue_depth: Gauge,
    pub(crate) dead_jobs: Gauge,
    pub(crate) catalogue: CatalogueMetrics,
}

/// What keeps prices from their target, in the whole catalogue, and the connections of its server.
#[derive(Debug)]
pub(crate) struct CatalogueMetrics {
    held: [(&'static str, Gauge); GuardrailName::LIMITS_ON_MOVES.len()],
    frozen: Gauge,
    products: Gauge,
    connections: Gauge,
    connections_allowed: Gauge,
}

#[derive(Debug)]
pub(crate) struct EventMetrics {
    pub(crate) applied: Counter,
    pub(crate) repeated: Counter,
    /// Products that an event names and the store does not contain.
    pub(crate) unknown_products: Counter,
    /// Competitors' prices that are not in the product's currency.
    pub(crate) in_other_currency: Counter,
    /// Moves caused by events that the circuit breaker holds.
    pub(crate) held: Gauge,
}

#[derive(Debug)]
pub(crate) struct RunMetrics {
    /// From request to start.
    pub(crate) wait_duration: Histogram,
    /// From start to end.
    pub(crate) duration: Histogram,
    pub(crate) products: Counter,
    /// Runs that the circuit breaker holds.
    pub(crate) held: Gauge,
}

impl RunnerMetrics {
    /// Registers the metrics.
    pub fn new(registry: &Registry) -> Self {
        Self {
            registry: registry.clone(),
            attempts: Series::default(),
            dead_lettered: registry.counter(JOBS_BURIED),
        }
    }

    pub(crate) fn record_attempt(&self, kind: &'static str, outcome: &'static str, duration: Duration) {
        let register = || self.registry.histogram(JOB_DURATION, &[("kind", kind), ("outcome", outcome)]);
        self.attempts.get((kind, outcome), register).record(duration.as_secs_f64());
    }
}

impl RecalculationMetrics {
    /// Registers the metrics.
    pub fn new(registry: &Registry) -> Self {
        let events = |outcome| registry.labelled_counter(EVENTS_APPLIED, "outcome", outcome);
        Self {
            jobs_enqueued: registry.counter(JOBS_ENQUEUED),
            events: EventMetrics {
                applied: events("applied"),
                repeated: events("repeated"),
                unknown_products: events("unknown_product"),
                in_other_currency: events("other_currency"),
                held: registry.gauge(EVENT_MOVES_HELD),
            },
            runs: RunMetrics {
                wait_duration: registry.histogram(RUN_WAIT_DURATION, &[]),
                duration: registry.histogram(RUN_DURATION, &[]),
                products: registry.counter(RUN_PRODUCTS),
                held: registry.gauge(HELD_RUNS),
            },
            queue_depth: registry.gauge(QUEUE_DEPTH),
            dead_jobs: registry.gauge(DEAD_JOBS),
            catalogue: CatalogueMetrics::new(registry),
        }
    }
}

impl CatalogueMetrics {
    fn new(registry: &Registry) -> Self {
        let held = GuardrailName::LIMITS_ON_MOVES.map(|limit| {
            let name = limit.name();
            (name, registry.labelled_gauge(PRICES_HELD, "limit", name))
        });
        Self {
            held,
            frozen: registry.gauge(FROZEN_PRODUCTS),
            products: registry.gauge(PRODUCTS),
            connections: registry.gauge(DATABASE_CONNECTIONS),
            connections_allowed: registry.gauge(DATABASE_CONNECTIONS_ALLOWED),
        }
    }

    /// Records the connections of the database's server, and how many it allows.
    pub(crate) fn record_connections(&self, (connections, allowed): (u64, u64)) {
        self.connections.set(u32::try_from(connections).unwrap_or(u32::MAX));
        self.connections_allowed.set(u32::try_from(allowed).unwrap_or(u32::MAX));
    }

    /// Records the number of prices by what keeps them from their target, and that of all products.
    pub(crate) fn record(&self, prices_held: &BTreeMap<String, u64>, products: u64) {
        let set = |gauge: &Gauge, value: u64| gauge.set(u32::try_from(value).unwrap_or(u32::MAX));
        let held_by = |name: &str| prices_held.get(name).copied().unwrap_or(0);
        for (limit, gauge) in &self.held {
            set(gauge, held_by(limit));
        }
        set(&self.frozen, held_by(FROZEN));
        set(&self.products, products);
    }
}
