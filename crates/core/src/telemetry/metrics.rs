//! The handles with which metrics are recorded; [`inventory`](super::inventory) says what each is.
//!
//! Each service builds one [`Metrics`], on a registry of its own, and hands it down. Handles are looked up
//! when the service starts; recording one is an atomic addition. Names carry base units and no product
//! identifiers.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, NoopRecorder, Recorder, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio_util::sync::CancellationToken;

use super::inventory::{
    BUILD_INFO, DATABASE_DURATION, DEAD_JOBS, EVENT_LOG_LAG, EVENT_TO_VISIBLE, EVENTS_APPLIED, EVENTS_BURIED,
    EVENTS_DISPATCHED, EVENTS_PUBLISHED, FAILED_OFFER_RULES, FILL_DURATION, GUARDRAIL_HITS, HELD_RUNS,
    HTTP_REQUEST_DURATION, IMPORTED_ROWS, INVENTORY, JOB_DURATION, JOBS_BURIED, JOBS_ENQUEUED, Kind,
    L1_ENTRIES, L1_EVICTIONS, L1_FLUSHES, L1_INVALIDATIONS, L2_ERRORS, LATENESS, Metric,
    PRICE_CHANGE_STREAMS, PRICE_READS, PRICES_COMPUTED, QUEUE_DEPTH, REDIS_DURATION, REQUESTS_REFUSED,
    RUN_DURATION, RUN_PRODUCTS, RUN_WAIT_DURATION,
};
use crate::config::MetricsSwitch;
use pricing_domain::policy::guardrail::GuardrailName;

/// Upper bounds of the latency histograms, in seconds: from a price out of memory to a slow import.
const LATENCY_BUCKETS_SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5,
    1.0, 2.5, 10.0,
];

/// Upper bounds for recalculations, in seconds: from a category to millions of products.
const RUN_BUCKETS_SECONDS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0];

/// How often what was recorded is sorted into histograms.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How long calls of something take, apart by whether they succeed.
#[derive(Debug, Clone)]
pub struct CallDuration {
    done: Histogram,
    failed: Histogram,
}

/// How long the database takes.
#[derive(Debug, Clone)]
pub struct DatabaseDuration {
    /// Until there is a connection for a statement.
    pub connection: CallDuration,
    /// Until a statement is answered.
    pub statement: CallDuration,
}

impl Deref for Metrics {
    type Target = Handles;

    fn deref(&self) -> &Handles {
        &self.0
    }
}

impl CallDuration {
    /// Of calls that are not measured.
    pub fn unmeasured() -> Self {
        Self { done: Histogram::noop(), failed: Histogram::noop() }
    }

    /// Records a call that ends now.
    pub fn record(&self, started: Instant, is_done: bool) {
        let histogram = if is_done { &self.done } else { &self.failed };
        histogram.record(started.elapsed());
    }
}

impl DatabaseDuration {
    /// Of a database that is not measured.
    pub fn unmeasured() -> Self {
        Self { connection: CallDuration::unmeasured(), statement: CallDuration::unmeasured() }
    }
}

/// All metrics of one service. A clone is a handle to the same.
#[derive(Clone)]
pub struct Metrics(Arc<Handles>);

/// What is recorded with.
pub struct Handles {
    recorder: Arc<dyn Recorder + Send + Sync>,
    /// None if nothing is recorded.
    exporter: Option<PrometheusHandle>,
    requests: RwLock<HashMap<(&'static str, u16), Histogram>>,
    /// Price reads answered from this process' memory.
    pub reads_from_l1: Counter,
    /// Price reads answered from Redis.
    pub reads_from_l2: Counter,
    /// Price reads that went to the catalogue.
    pub reads_from_catalogue: Counter,
    /// Price reads for products that do not exist.
    pub reads_of_unknown: Counter,
    /// How long reads of the catalogue took.
    pub fill_duration: Histogram,
    /// Prices held in this process.
    pub l1_entries: Gauge,
    /// Prices that went out of this process' memory because it was full.
    pub l1_evictions: Counter,
    /// Prices that went out of this process' memory because another one has a newer one.
    pub l1_invalidations: Counter,
    /// How often this process' memory was emptied, as notices may have been missed.
    pub l1_flushes: Counter,
    /// Clients that follow price changes.
    pub price_change_streams: Gauge,
    /// Requests for many prices that were refused because the process was late.
    pub batches_refused: Counter,
    /// Look-ups that were refused because the process was late.
    pub look_ups_refused: Counter,
    /// By how many seconds what is ready has to wait for its turn.
    pub scheduling_delay: Gauge,
    /// Redis commands for prices that failed; the read went on without.
    pub l2_errors: Counter,
    /// List prices the rules made.
    pub prices_made: Counter,
    /// List prices that stayed because a rule failed.
    pub prices_frozen: Counter,
    guardrail_hits: BTreeMap<GuardrailName, Counter>,
    /// Offer rules that failed and were passed over.
    pub failed_offer_rules: Counter,
    /// Rows of imports that were taken.
    pub rows_imported: Counter,
    /// Rows of imports that were refused.
    pub rows_refused: Counter,
    /// Market events that were taken in.
    pub events_published: Counter,
    /// Market events that were handed over to workers; after a crash some of them more than once.
    pub events_dispatched: Counter,
    /// Messages that are no market events.
    pub events_buried: Counter,
    /// Market events that wait in the stream.
    pub event_log_lag: Gauge,
    /// Market events that were applied.
    pub events_applied: Counter,
    /// Market events that had been applied before.
    pub events_repeated: Counter,
    /// Products that market events named and the catalogue does not have.
    pub events_unknown: Counter,
    /// Competitors' prices in another currency than their product's.
    pub events_in_other_currency: Counter,
    jobs: RwLock<HashMap<(&'static str, &'static str), Histogram>>,
    /// Jobs that were put in the queue.
    pub jobs_enqueued: Counter,
    /// Failed jobs.
    pub jobs_buried: Counter,
    /// Jobs that wait or are being done.
    pub queue_depth: Gauge,
    /// Dead letters that are kept.
    pub dead_jobs: Gauge,
    /// From the publication of an event to the end of the old price in this process.
    pub event_to_visible: Histogram,
    /// How long the database took.
    pub database_duration: DatabaseDuration,
    /// How long recalculations waited for their beginning.
    pub run_wait_duration: Histogram,
    /// How long recalculations took.
    pub run_duration: Histogram,
    /// Products priced by recalculations.
    pub run_products: Counter,
    /// Recalculations that the circuit breaker holds.
    pub held_runs: Gauge,
    process: metrics_process::Collector,
}

impl Metrics {
    /// The metrics of this service, all zero.
    pub fn new(service: &'static str, switch: MetricsSwitch) -> Self {
        match switch {
            MetricsSwitch::On => {
                let recorder = prometheus_recorder();
                let exporter = recorder.handle();
                Self::on(Arc::new(recorder), Some(exporter), service)
            }
            MetricsSwitch::Off => Self::on(Arc::new(NoopRecorder), None, service),
        }
    }

    fn on(
        recorder: Arc<dyn Recorder + Send + Sync>,
        exporter: Option<PrometheusHandle>,
        service: &'static str,
    ) -> Self {
        let read = |from: &'static str| counter(&*recorder, PRICE_READS, Some(("from", from)));
        let computed =
            |outcome: &'static str| counter(&*recorder, PRICES_COMPUTED, Some(("outcome", outcome)));
        let hits =
            |name: GuardrailName| counter(&*recorder, GUARDRAIL_HITS, Some(("guardrail", name.name())));
        let refused = |work: &'static str| counter(&*recorder, REQUESTS_REFUSED, Some(("work", work)));
        let imported = |result: &'static str| counter(&*recorder, IMPORTED_ROWS, Some(("result", result)));
        let applied = |outcome: &'static str| counter(&*recorder, EVENTS_APPLIED, Some(("outcome", outcome)));
        let metrics = Self(Arc::new(Handles {
            reads_from_l1: read("l1"),
            reads_from_l2: read("l2"),
            reads_from_catalogue: read("catalogue"),
            reads_of_unknown: read("unknown"),
            fill_duration: histogram(&*recorder, FILL_DURATION, Vec::new()),
            l1_entries: gauge(&*recorder, L1_ENTRIES),
            l1_evictions: counter(&*recorder, L1_EVICTIONS, None),
            l1_invalidations: counter(&*recorder, L1_INVALIDATIONS, None),
            l1_flushes: counter(&*recorder, L1_FLUSHES, None),
            price_change_streams: gauge(&*recorder, PRICE_CHANGE_STREAMS),
            batches_refused: refused("batch"),
            look_ups_refused: refused("look_up"),
            scheduling_delay: gauge(&*recorder, LATENESS),
            l2_errors: counter(&*recorder, L2_ERRORS, None),
            prices_made: computed("priced"),
            prices_frozen: computed("frozen"),
            guardrail_hits: GuardrailName::ALL.map(|name| (name, hits(name))).into_iter().collect(),
            failed_offer_rules: counter(&*recorder, FAILED_OFFER_RULES, None),
            rows_imported: imported("taken"),
            rows_refused: imported("refused"),
            events_published: counter(&*recorder, EVENTS_PUBLISHED, None),
            events_dispatched: counter(&*recorder, EVENTS_DISPATCHED, None),
            events_buried: counter(&*recorder, EVENTS_BURIED, None),
            event_log_lag: gauge(&*recorder, EVENT_LOG_LAG),
            events_applied: applied("applied"),
            events_repeated: applied("repeated"),
            events_unknown: applied("unknown_product"),
            events_in_other_currency: applied("other_currency"),
            jobs: RwLock::default(),
            jobs_enqueued: counter(&*recorder, JOBS_ENQUEUED, None),
            jobs_buried: counter(&*recorder, JOBS_BURIED, None),
            queue_depth: gauge(&*recorder, QUEUE_DEPTH),
            dead_jobs: gauge(&*recorder, DEAD_JOBS),
            event_to_visible: histogram(&*recorder, EVENT_TO_VISIBLE, Vec::new()),
            database_duration: DatabaseDuration {
                connection: calls(&*recorder, DATABASE_DURATION, ("operation", "connection")),
                statement: calls(&*recorder, DATABASE_DURATION, ("operation", "statement")),
            },
            run_wait_duration: histogram(&*recorder, RUN_WAIT_DURATION, Vec::new()),
            run_duration: histogram(&*recorder, RUN_DURATION, Vec::new()),
            run_products: counter(&*recorder, RUN_PRODUCTS, None),
            held_runs: gauge(&*recorder, HELD_RUNS),
            process: metrics_process::Collector::default(),
            requests: RwLock::default(),
            recorder,
            exporter,
        }));
        metrics.describe();
        metrics.record_build(service);
        metrics
    }

    /// Records an answered request. The route is its pattern, so the number of series is bounded.
    pub fn record_request(&self, route: &'static str, status: u16, duration: Duration) {
        if self.exporter.is_none() {
            return;
        }
        let known = {
            let requests = self.requests.read().unwrap_or_else(PoisonError::into_inner);
            requests.get(&(route, status)).cloned()
        };
        let histogram = known.unwrap_or_else(|| self.register_request(route, status));
        histogram.record(duration.as_secs_f64());
    }

    /// How long requests of a route take that are answered with this status, for those who answer many: to
    /// find it for each takes longer than to record it.
    pub fn request_duration(&self, route: &'static str, status: u16) -> Histogram {
        if self.exporter.is_none() { Histogram::noop() } else { self.register_request(route, status) }
    }

    /// Records that a guardrail stopped a list price.
    pub fn record_guardrail(&self, name: GuardrailName) {
        if let Some(hits) = self.guardrail_hits.get(&name) {
            hits.increment(1);
        }
    }

    /// Records a try of a job. Kinds and outcomes are few.
    pub fn record_job(&self, kind: &'static str, outcome: &'static str, duration: Duration) {
        let known = {
            let jobs = self.jobs.read().unwrap_or_else(PoisonError::into_inner);
            jobs.get(&(kind, outcome)).cloned()
        };
        let histogram = known.unwrap_or_else(|| {
            let labels = vec![metrics::Label::new("kind", kind), metrics::Label::new("outcome", outcome)];
            let histogram = histogram(&*self.recorder, JOB_DURATION, labels);
            let mut jobs = self.jobs.write().unwrap_or_else(PoisonError::into_inner);
            jobs.entry((kind, outcome)).or_insert(histogram).clone()
        });
        histogram.record(duration.as_secs_f64());
    }

    /// How long Redis takes on one of the connections: `reads`, `writes`, `queue`.
    pub fn redis_duration(&self, connection: &'static str) -> CallDuration {
        calls(&*self.recorder, REDIS_DURATION, ("connection", connection))
    }

    /// Sorts what was recorded into its histograms, every few seconds until shutdown: what was recorded
    /// is kept one by one until then, and the metrics may never be scraped.
    pub async fn keep_small(self, shutdown: CancellationToken) {
        let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
        while shutdown.run_until_cancelled(upkeep.tick()).await.is_some() {
            if let Some(exporter) = &self.exporter {
                exporter.run_upkeep();
            }
        }
    }

    /// Everything recorded so far, in the Prometheus text format.
    pub fn render(&self) -> String {
        metrics::with_local_recorder(&*self.recorder, || self.process.collect());
        let Some(exporter) = &self.exporter else { return String::new() };
        exporter.run_upkeep();
        exporter.render()
    }

    fn register_request(&self, route: &'static str, status: u16) -> Histogram {
        let labels =
            vec![metrics::Label::new("route", route), metrics::Label::new("status", status.to_string())];
        let histogram = histogram(&*self.recorder, HTTP_REQUEST_DURATION, labels);
        let mut requests = self.requests.write().unwrap_or_else(PoisonError::into_inner);
        requests.entry((route, status)).or_insert(histogram).clone()
    }

    fn record_build(&self, service: &'static str) {
        let labels = vec![
            metrics::Label::new("service", service),
            metrics::Label::new("version", env!("CARGO_PKG_VERSION")),
        ];
        let key = metrics::Key::from_parts(BUILD_INFO, labels);
        self.recorder.register_gauge(&key, &METADATA).set(1.0);
    }

    fn describe(&self) {
        for Metric { name, kind, text, .. } in INVENTORY {
            let (name, text) = ((*name).into(), (*text).into());
            match kind {
                Kind::Counter => self.recorder.describe_counter(name, None, text),
                Kind::Gauge => self.recorder.describe_gauge(name, None, text),
                Kind::Histogram => self.recorder.describe_histogram(name, Some(Unit::Seconds), text),
            }
        }
        metrics::with_local_recorder(&*self.recorder, || self.process.describe());
    }
}

fn prometheus_recorder() -> PrometheusRecorder {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".to_owned()), LATENCY_BUCKETS_SECONDS);
    let builder = builder.and_then(|builder| {
        let of_runs = |name: &str| Matcher::Full(name.to_owned());
        builder
            .set_buckets_for_metric(of_runs(RUN_DURATION), RUN_BUCKETS_SECONDS)?
            .set_buckets_for_metric(of_runs(RUN_WAIT_DURATION), RUN_BUCKETS_SECONDS)
    });
    // The buckets above are constants, neither empty nor unordered.
    let builder = builder.unwrap_or_default();
    builder.build_recorder()
}

static METADATA: metrics::Metadata<'static> =
    metrics::Metadata::new(module_path!(), metrics::Level::INFO, Some(module_path!()));

fn counter(
    recorder: &dyn Recorder,
    name: &'static str,
    label: Option<(&'static str, &'static str)>,
) -> Counter {
    let labels: Vec<metrics::Label> =
        label.iter().map(|(key, value)| metrics::Label::new(*key, *value)).collect();
    recorder.register_counter(&metrics::Key::from_parts(name, labels), &METADATA)
}

fn gauge(recorder: &dyn Recorder, name: &'static str) -> Gauge {
    recorder.register_gauge(&metrics::Key::from_static_name(name), &METADATA)
}

fn histogram(recorder: &dyn Recorder, name: &'static str, labels: Vec<metrics::Label>) -> Histogram {
    recorder.register_histogram(&metrics::Key::from_parts(name, labels), &METADATA)
}

fn calls(
    recorder: &dyn Recorder,
    name: &'static str,
    (key, value): (&'static str, &'static str),
) -> CallDuration {
    let with_outcome = |outcome: &'static str| {
        let labels = vec![metrics::Label::new(key, value), metrics::Label::new("outcome", outcome)];
        histogram(recorder, name, labels)
    };
    CallDuration { done: with_outcome("done"), failed: with_outcome("failed") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_rendered() {
        let metrics = Metrics::new("pricing-test", MetricsSwitch::On);
        metrics.reads_from_l1.increment(3);
        metrics.record_request("/api/v1/price", 200, Duration::from_millis(2));
        metrics.record_request("/api/v1/price", 200, Duration::from_millis(2));
        let text = metrics.render();
        assert!(text.contains("pricing_price_reads_total{from=\"l1\"} 3"), "{text}");
        assert!(
            text.contains("http_request_duration_seconds_count{route=\"/api/v1/price\",status=\"200\"} 2"),
            "{text}"
        );
        assert!(
            text.contains(
                "http_request_duration_seconds_bucket{route=\"/api/v1/price\",status=\"200\",le=\"0.0025\"} 2"
            ),
            "{text}"
        );
        assert!(
            text.contains("# TYPE pricing_fill_duration_seconds histogram")
                || !text.contains("pricing_fill_duration_seconds_count"),
            "{text}"
        );
    }
}
