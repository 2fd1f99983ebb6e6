//! The inventory of metrics: every name, label and unit, and the services that export it. `docs/metrics.md`
//! is generated from it.

use Kind::{Counter, Gauge, Histogram};
use names::{
    BUILD_INFO, CATALOGUES_REPLACED, CHECK_STATUS, CLOCK_DIFFERENCE, DATABASE_CONNECTIONS,
    DATABASE_CONNECTIONS_ALLOWED, DATABASE_DURATION, DATABASE_FREE_BYTES, DEAD_JOBS, EVENT_HOLDS,
    EVENT_LOG_LAG, EVENT_MOVES_HELD, EVENT_TO_VISIBLE, EVENTS_APPLIED, EVENTS_BURIED, EVENTS_DISPATCHED,
    EVENTS_PUBLISHED, FAILED_OFFER_RULES, FILL_DURATION, FROZEN_PRODUCTS, GUARDRAIL_HITS, HELD_RUNS,
    HTTP_REQUEST_DURATION, IMPORTED_ROWS, JOB_DURATION, JOBS_BURIED, JOBS_ENQUEUED, L1_ENTRIES, L1_EVICTIONS,
    L1_FLUSHES, L1_INVALIDATIONS, L2_ERRORS, L2_REFUSED, LATENESS, PRICE_CHANGE_STREAMS, PRICE_READS,
    PRICES_COMPUTED, PRICES_HELD, PRODUCTS, QUEUE_DEPTH, REDIS_DURATION, REQUESTS_REFUSED, RUN_DURATION,
    RUN_PRODUCTS, RUN_WAIT_DURATION, TRANSACTIONS_SERVED_LATE,
};

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A monotonic counter.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// A distribution of values in seconds.
    Histogram,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name, with the base unit last.
    pub name: &'static str,
    /// The kind.
    pub kind: Kind,
    /// The labels and their values; all are bounded.
    pub labels: &'static str,
    /// The services that export it.
    pub services: &'static str,
    /// The description.
    pub text: &'static str,
}

/// Every metric of the engine.
pub const INVENTORY: &[Metric] = &[
    Metric {
        name: HTTP_REQUEST_DURATION,
        kind: Histogram,
        labels: "`route` (a pattern of the API), `status`",
        services: "api",
        text: "Time to answer a request, by route and status.",
    },
    Metric {
        name: PRICE_READS,
        kind: Counter,
        labels: "`from`: `l1`, `l2`, `catalogue`, `unknown`",
        services: "api, worker",
        text: "Price reads, by where the price was found.",
    },
    Metric {
        name: FILL_DURATION,
        kind: Histogram,
        labels: "",
        services: "api, worker",
        text: "Time to read a price from the database.",
    },
    Metric {
        name: L1_ENTRIES,
        kind: Gauge,
        labels: "",
        services: "api, worker",
        text: "Prices held in the memory of this process.",
    },
    Metric {
        name: L1_EVICTIONS,
        kind: Counter,
        labels: "",
        services: "api, worker",
        text: "Prices evicted from memory because it was full.",
    },
    Metric {
        name: L1_INVALIDATIONS,
        kind: Counter,
        labels: "",
        services: "api, worker",
        text: "Prices in memory that were replaced or evicted because a notification announced a newer one.",
    },
    Metric {
        name: L1_FLUSHES,
        kind: Counter,
        labels: "",
        services: "api, worker",
        text: "Times that memory was emptied because notifications may have been missed.",
    },
    Metric {
        name: REQUESTS_REFUSED,
        kind: Counter,
        labels: "`work`: `batch`, `look_up`",
        services: "api",
        text: "Requests shed because the scheduling delay was too high.",
    },
    Metric {
        name: LATENESS,
        kind: Gauge,
        labels: "",
        services: "api",
        text: "Scheduling delay: how long work that is ready waits for a core. The least of the last ten measurements, on the slowest runtime.",
    },
    Metric {
        name: L2_ERRORS,
        kind: Counter,
        labels: "",
        services: "api, worker",
        text: "Redis commands for prices that failed; the read continued without Redis.",
    },
    Metric {
        name: L2_REFUSED,
        kind: Counter,
        labels: "",
        services: "api, worker",
        text: "Values in Redis in the place of a price that cannot be one of this catalogue's: passed over and deleted.",
    },
    Metric {
        name: REDIS_DURATION,
        kind: Histogram,
        labels: "`connection`: `reads`, `writes`, `queue`; `outcome`: `done`, `failed`",
        services: "all",
        text: "Time until Redis answered a command, or a pipeline of commands, by connection and outcome; an \
               error that it answers is failed.",
    },
    Metric {
        name: DATABASE_DURATION,
        kind: Histogram,
        labels: "`operation`: `connection`, `statement`; `outcome`: `done`, `failed`",
        services: "api, worker",
        text: "Time until the database answered a statement, or until a connection was available for one.",
    },
    Metric {
        name: DATABASE_CONNECTIONS,
        kind: Gauge,
        labels: "",
        services: "worker",
        text: "Connections that PostgreSQL has, of all programs and databases; 0 with SQLite. Every worker measures the whole server.",
    },
    Metric {
        name: DATABASE_CONNECTIONS_ALLOWED,
        kind: Gauge,
        labels: "",
        services: "worker",
        text: "Connections that PostgreSQL allows to users who are not superusers; 0 with SQLite.",
    },
    Metric {
        name: PRICE_CHANGE_STREAMS,
        kind: Gauge,
        labels: "",
        services: "api",
        text: "Clients that follow price changes.",
    },
    Metric {
        name: EVENT_TO_VISIBLE,
        kind: Histogram,
        labels: "",
        services: "api",
        text: "Time from the publication of a market event until this process no longer serves the old price; one value for each notification of new prices, by its earliest event.",
    },
    Metric {
        name: PRICES_COMPUTED,
        kind: Counter,
        labels: "`outcome`: `priced`, `frozen`",
        services: "api, worker",
        text: "List prices computed, by outcome.",
    },
    Metric {
        name: GUARDRAIL_HITS,
        kind: Counter,
        labels: "`guardrail`: its name in policies",
        services: "api, worker",
        text: "List prices that a guardrail limited, by guardrail.",
    },
    Metric {
        name: FAILED_OFFER_RULES,
        kind: Counter,
        labels: "",
        services: "api",
        text: "Offer rules that failed in a quote and were skipped.",
    },
    Metric {
        name: IMPORTED_ROWS,
        kind: Counter,
        labels: "`result`: `taken`, `refused`",
        services: "api",
        text: "Rows of product imports, by result.",
    },
    Metric {
        name: EVENTS_PUBLISHED,
        kind: Counter,
        labels: "",
        services: "api, listener",
        text: "Market events accepted into the stream.",
    },
    Metric {
        name: EVENTS_DISPATCHED,
        kind: Counter,
        labels: "",
        services: "listener",
        text: "Market events dispatched to workers; after a crash, some of them more than once.",
    },
    Metric {
        name: EVENTS_BURIED,
        kind: Counter,
        labels: "",
        services: "listener",
        text: "Messages dead-lettered because they are not market events.",
    },
    Metric {
        name: EVENT_LOG_LAG,
        kind: Gauge,
        labels: "",
        services: "listener",
        text: "Market events waiting in the stream.",
    },
    Metric {
        name: EVENTS_APPLIED,
        kind: Counter,
        labels: "`outcome`: `applied`, `repeated`, `unknown_product`, `other_currency`",
        services: "worker",
        text: "Market events that were new (`applied`) or had been applied before (`repeated`). The other two do not count events: `unknown_product` counts each product that an event names and the catalogue does not have, `other_currency` each competitor's price that is not used because it is in another currency than the product.",
    },
    Metric {
        name: JOBS_ENQUEUED,
        kind: Counter,
        labels: "",
        services: "listener, worker",
        text: "Jobs enqueued.",
    },
    Metric {
        name: JOB_DURATION,
        kind: Histogram,
        labels: "`kind`: `apply_events`, `run`, `range`; `outcome`: `done`, `failed`, `aborted`, `handed_back`",
        services: "worker",
        text: "Time of one attempt of a job, by kind and outcome; `failed` ones are retried.",
    },
    Metric {
        name: JOBS_BURIED,
        kind: Counter,
        labels: "",
        services: "worker",
        text: "Jobs that failed for good and were dead-lettered.",
    },
    Metric {
        name: QUEUE_DEPTH,
        kind: Gauge,
        labels: "",
        services: "worker",
        text: "Jobs waiting or running.",
    },
    Metric {
        name: DEAD_JOBS,
        kind: Gauge,
        labels: "",
        services: "worker",
        text: "Dead-lettered jobs that are kept.",
    },
    Metric {
        name: RUN_DURATION,
        kind: Histogram,
        labels: "",
        services: "worker",
        text: "Time of a recalculation from start to end, recorded by the worker that coordinated it.",
    },
    Metric {
        name: RUN_WAIT_DURATION,
        kind: Histogram,
        labels: "",
        services: "worker",
        text: "Time from the request of a recalculation to its start: the wait for a worker, and for the lease while another run is under way.",
    },
    Metric {
        name: RUN_PRODUCTS,
        kind: Counter,
        labels: "",
        services: "worker",
        text: "Products priced by recalculations.",
    },
    Metric {
        name: HELD_RUNS,
        kind: Gauge,
        labels: "",
        services: "worker",
        text: "Recalculations held by the circuit breaker.",
    },
    Metric {
        name: PRICES_HELD,
        kind: Gauge,
        labels: "`limit`: `max_step`, `max_daily_move`, `min_time_between_changes`, `competitor_loop`",
        services: "worker",
        text: "Prices that a limit on moves keeps from their target, by limit; of several, the last that applied. Every worker measures the whole catalogue.",
    },
    Metric {
        name: FROZEN_PRODUCTS,
        kind: Gauge,
        labels: "",
        services: "worker",
        text: "Products whose price is frozen because a rule fails. Every worker measures the whole catalogue.",
    },
    Metric {
        name: PRODUCTS,
        kind: Gauge,
        labels: "",
        services: "worker",
        text: "Products of the catalogue.",
    },
    Metric {
        name: CATALOGUES_REPLACED,
        kind: Counter,
        labels: "",
        services: "api, worker",
        text: "Times that this process found another database in the place of the one it knew, or the same restored from a backup.",
    },
    Metric {
        name: TRANSACTIONS_SERVED_LATE,
        kind: Counter,
        labels: "",
        services: "api, worker",
        text: "Transactions whose prices this process put into Redis, because the process that committed them had not done so within two seconds.",
    },
    Metric {
        name: EVENT_HOLDS,
        kind: Counter,
        labels: "",
        services: "api, worker",
        text: "Moves of list prices caused by market events that the circuit breaker began to hold.",
    },
    Metric {
        name: EVENT_MOVES_HELD,
        kind: Gauge,
        labels: "",
        services: "worker",
        text: "Moves of list prices caused by market events that the circuit breaker holds, without rejected ones.",
    },
    Metric {
        name: CHECK_STATUS,
        kind: Gauge,
        labels: "`check`: its name in `/readyz`",
        services: "all",
        text: "What the checks of `/readyz` found: 0 nothing, 1 a warning, 2 a failure. Measured every five seconds.",
    },
    Metric {
        name: CLOCK_DIFFERENCE,
        kind: Gauge,
        labels: "",
        services: "all",
        text: "How far this process's clock and the database's are apart; the listener compares with Redis. Beyond 2 seconds the process uses the other clock's time. Absent on SQLite, which has no clock of its own.",
    },
    Metric {
        name: DATABASE_FREE_BYTES,
        kind: Gauge,
        labels: "",
        services: "api, worker",
        text: "Bytes that are free, for this user, on the disk of an SQLite database. Measured every five seconds. Absent on PostgreSQL, whose host has a measure of its own (`node_filesystem_avail_bytes`).",
    },
    Metric {
        name: BUILD_INFO,
        kind: Gauge,
        labels: "`service`, `version`",
        services: "all",
        text: "The version that is running; always 1.",
    },
];

/// The names, for modules that register metrics.
#[expect(missing_docs, reason = "the inventory says what each is")]
pub mod names {
    pub const HTTP_REQUEST_DURATION: &str = "http_request_duration_seconds";
    pub const PRICE_READS: &str = "pricing_price_reads_total";
    pub const FILL_DURATION: &str = "pricing_fill_duration_seconds";
    pub const L1_ENTRIES: &str = "pricing_l1_entries";
    pub const L1_EVICTIONS: &str = "pricing_l1_evictions_total";
    pub const L1_INVALIDATIONS: &str = "pricing_l1_invalidations_total";
    pub const L1_FLUSHES: &str = "pricing_l1_flushes_total";
    pub const REQUESTS_REFUSED: &str = "pricing_requests_refused_total";
    pub const LATENESS: &str = "pricing_lateness_seconds";
    pub const L2_ERRORS: &str = "pricing_l2_errors_total";
    pub const L2_REFUSED: &str = "pricing_l2_refused_total";
    pub const REDIS_DURATION: &str = "pricing_redis_duration_seconds";
    pub const DATABASE_CONNECTIONS: &str = "pricing_database_connections";
    pub const DATABASE_CONNECTIONS_ALLOWED: &str = "pricing_database_connections_allowed";
    pub const DATABASE_DURATION: &str = "pricing_database_duration_seconds";
    pub const PRICE_CHANGE_STREAMS: &str = "pricing_price_change_streams";
    pub const EVENT_TO_VISIBLE: &str = "pricing_event_to_visible_duration_seconds";
    pub const PRICES_COMPUTED: &str = "pricing_prices_computed_total";
    pub const GUARDRAIL_HITS: &str = "pricing_guardrail_hits_total";
    pub const FAILED_OFFER_RULES: &str = "pricing_failed_offer_rules_total";
    pub const IMPORTED_ROWS: &str = "pricing_imported_rows_total";
    pub const EVENTS_PUBLISHED: &str = "pricing_events_published_total";
    pub const EVENTS_DISPATCHED: &str = "pricing_events_dispatched_total";
    pub const EVENTS_BURIED: &str = "pricing_events_buried_total";
    pub const EVENT_LOG_LAG: &str = "pricing_event_log_lag";
    pub const EVENTS_APPLIED: &str = "pricing_events_applied_total";
    pub const JOBS_ENQUEUED: &str = "pricing_jobs_enqueued_total";
    pub const JOB_DURATION: &str = "pricing_job_duration_seconds";
    pub const JOBS_BURIED: &str = "pricing_jobs_buried_total";
    pub const QUEUE_DEPTH: &str = "pricing_queue_depth";
    pub const DEAD_JOBS: &str = "pricing_dead_jobs";
    pub const RUN_DURATION: &str = "pricing_run_duration_seconds";
    pub const RUN_WAIT_DURATION: &str = "pricing_run_wait_duration_seconds";
    pub const RUN_PRODUCTS: &str = "pricing_run_products_total";
    pub const HELD_RUNS: &str = "pricing_held_runs";
    pub const PRICES_HELD: &str = "pricing_prices_held";
    pub const FROZEN_PRODUCTS: &str = "pricing_frozen_products";
    pub const PRODUCTS: &str = "pricing_products";
    pub const CATALOGUES_REPLACED: &str = "pricing_catalogues_replaced_total";
    pub const TRANSACTIONS_SERVED_LATE: &str = "pricing_transactions_served_late_total";
    pub const EVENT_HOLDS: &str = "pricing_event_holds_total";
    pub const EVENT_MOVES_HELD: &str = "pricing_event_moves_held";
    pub const CHECK_STATUS: &str = "pricing_check_status";
    pub const CLOCK_DIFFERENCE: &str = "pricing_clock_difference_seconds";
    pub const DATABASE_FREE_BYTES: &str = "pricing_database_free_bytes";
    pub const BUILD_INFO: &str = "pricing_build_info";
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn rendered() -> String {
        let mut text = "# Metrics\n\nEvery service serves `/metrics` in the Prometheus text format. This page is generated from [the inventory](../crates/core/src/telemetry/inventory.rs) by a test. In addition, each service has the usual process metrics (`process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_open_fds` and so on).\n\n| metric | kind | services | labels | what it says |\n|---|---|---|---|---|\n".to_owned();
        for metric in INVENTORY {
            let kind = format!("{:?}", metric.kind).to_lowercase();
            let Metric { name, services, labels, text: says, .. } = metric;
            writeln!(text, "| `{name}` | {kind} | {services} | {labels} | {says} |").unwrap();
        }
        text
    }

    #[test]
    fn the_document_is_the_inventory() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, rendered()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(written, rendered(), "write it again: BLESS=1 cargo test -p pricing-core inventory");
    }

    #[test]
    fn names_follow_the_conventions() {
        for (index, metric) in INVENTORY.iter().enumerate() {
            let name = metric.name;
            assert_eq!(name.ends_with("_total"), metric.kind == Counter, "{name}");
            assert!(name.ends_with("_seconds") || metric.kind != Histogram, "{name}");
            assert!(name.starts_with("pricing_") || name.starts_with("http_"), "{name}");
            assert!(
                INVENTORY.iter().skip(index + 1).all(|other| other.name != name),
                "{name} is listed twice"
            );
        }
    }
}
