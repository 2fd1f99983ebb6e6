//! The registry of a service's metrics; [`inventory`](super::inventory) lists every metric.
//!
//! Each service builds one [`Registry`]. A module with metrics has a struct of handles in its `metrics.rs`,
//! registered when the service starts; recording a value is an atomic addition. Names carry base units and no
//! product identifiers.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

pub use metrics::{Counter, Gauge, Histogram};
use metrics::{Key, Label, NoopRecorder, Recorder, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio_util::sync::CancellationToken;

use super::inventory::names::{BUILD_INFO, RUN_DURATION, RUN_WAIT_DURATION};
use super::inventory::{INVENTORY, Kind, Metric};
use crate::config::MetricsSwitch;

/// Upper bounds of the latency histograms, in seconds: from a cached price to a slow import.
const LATENCY_BUCKETS_SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5,
    1.0, 2.5, 10.0,
];

/// Upper bounds for recalculations, in seconds: from a category to millions of products.
const RUN_BUCKETS_SECONDS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0];

/// The interval at which recorded values are aggregated into their histograms.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

static METADATA: metrics::Metadata<'static> =
    metrics::Metadata::new(module_path!(), metrics::Level::INFO, Some(module_path!()));

/// The metrics of one service; cheap to clone.
#[derive(Clone)]
pub struct Registry {
    recorder: Arc<dyn Recorder + Send + Sync>,
    /// `None` if nothing is recorded.
    exporter: Option<PrometheusHandle>,
    process: metrics_process::Collector,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Registry").field("is_recording", &self.is_recording()).finish_non_exhaustive()
    }
}

impl Registry {
    /// Creates a registry that contains only the version of this service.
    pub fn new(service: &'static str, switch: MetricsSwitch) -> Self {
        let process = metrics_process::Collector::default();
        let registry = match switch {
            MetricsSwitch::On => {
                let recorder = prometheus_recorder();
                let exporter = Some(recorder.handle());
                Self { recorder: Arc::new(recorder), exporter, process }
            }
            MetricsSwitch::Off => Self { recorder: Arc::new(NoopRecorder), exporter: None, process },
        };
        registry.describe();
        let version = [("service", service), ("version", env!("CARGO_PKG_VERSION"))];
        registry.recorder.register_gauge(&key(BUILD_INFO, &version), &METADATA).set(1.0);
        registry
    }

    /// Whether anything is recorded.
    pub fn is_recording(&self) -> bool {
        self.exporter.is_some()
    }

    /// Registers a counter without labels.
    pub fn counter(&self, name: &'static str) -> Counter {
        self.recorder.register_counter(&key(name, &[]), &METADATA)
    }

    /// Registers the series of a counter with this label.
    pub fn labelled_counter(&self, name: &'static str, label: &'static str, value: &'static str) -> Counter {
        self.recorder.register_counter(&key(name, &[(label, value)]), &METADATA)
    }

    /// Registers a gauge without labels.
    pub fn gauge(&self, name: &'static str) -> Gauge {
        self.recorder.register_gauge(&key(name, &[]), &METADATA)
    }

    /// Registers the series of a gauge with this label.
    pub fn labelled_gauge(&self, name: &'static str, label: &'static str, value: &'static str) -> Gauge {
        self.recorder.register_gauge(&key(name, &[(label, value)]), &METADATA)
    }

    /// Registers the series of a histogram with these labels.
    pub fn histogram(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
        self.recorder.register_histogram(&key(name, labels), &METADATA)
    }

    /// Registers a histogram of calls, with this label and one for their outcome.
    pub fn call_duration(
        &self,
        name: &'static str,
        label: &'static str,
        value: &'static str,
    ) -> CallDuration {
        let with_outcome =
            |outcome: &'static str| self.histogram(name, &[(label, value), ("outcome", outcome)]);
        CallDuration { done: with_outcome("done"), failed: with_outcome("failed") }
    }

    /// Aggregates recorded values into their histograms every few seconds until shutdown: they are kept
    /// individually until then, and may never be scraped.
    pub async fn run_upkeep(self, shutdown: CancellationToken) {
        let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
        while shutdown.run_until_cancelled(upkeep.tick()).await.is_some() {
            if let Some(exporter) = &self.exporter {
                exporter.run_upkeep();
            }
        }
    }

    /// Renders the recorded metrics in the Prometheus text format.
    pub fn render(&self) -> String {
        metrics::with_local_recorder(&*self.recorder, || self.process.collect());
        let Some(exporter) = &self.exporter else { return String::new() };
        exporter.run_upkeep();
        exporter.render()
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

/// The durations of calls, by success and failure.
#[derive(Debug, Clone)]
pub struct CallDuration {
    done: Histogram,
    failed: Histogram,
}

impl CallDuration {
    /// Creates a duration that is not recorded.
    pub fn unmeasured() -> Self {
        Self { done: Histogram::noop(), failed: Histogram::noop() }
    }

    /// Records a call that ends now.
    pub fn record(&self, started: Instant, is_done: bool) {
        let histogram = if is_done { &self.done } else { &self.failed };
        histogram.record(started.elapsed());
    }
}

/// Series of one histogram, registered when their labels first occur. `K` has few values.
#[derive(Debug)]
pub struct Series<K>(RwLock<HashMap<K, Histogram>>);

impl<K> Default for Series<K> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Eq + Hash + Copy> Series<K> {
    /// Returns the series of `key`, which `register` creates the first time.
    pub fn get(&self, key: K, register: impl FnOnce() -> Histogram) -> Histogram {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        known.unwrap_or_else(|| {
            let histogram = register();
            let mut series = self.0.write().unwrap_or_else(PoisonError::into_inner);
            series.entry(key).or_insert(histogram).clone()
        })
    }
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels = labels.iter().map(|(label, value)| Label::new(*label, (*value).to_owned()));
    Key::from_parts(name, labels.collect::<Vec<_>>())
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
    // The buckets are constants that are neither empty nor unordered, so this cannot fail.
    let builder = builder.unwrap_or_default();
    builder.build_recorder()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::inventory::names::{HTTP_REQUEST_DURATION, PRICE_READS};

    #[test]
    fn what_was_recorded_is_rendered() {
        let registry = Registry::new("pricing-test", MetricsSwitch::On);
        registry.labelled_counter(PRICE_READS, "from", "l1").increment(3);
        let labels = [("route", "/api/v1/price"), ("status", "200")];
        let requests = Series::default();
        for _ in 0..2 {
            let series = requests.get(200, || registry.histogram(HTTP_REQUEST_DURATION, &labels));
            series.record(Duration::from_millis(2));
        }
        let text = registry.render();
        for line in [
            "pricing_price_reads_total{from=\"l1\"} 3",
            "http_request_duration_seconds_count{route=\"/api/v1/price\",status=\"200\"} 2",
            "http_request_duration_seconds_bucket{route=\"/api/v1/price\",status=\"200\",le=\"0.0025\"} 2",
        ] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
    }

    #[test]
    fn a_registry_that_is_switched_off_renders_nothing() {
        let registry = Registry::new("pricing-test", MetricsSwitch::Off);
        registry.counter(PRICE_READS).increment(1);
        assert_eq!((registry.is_recording(), registry.render()), (false, String::new()));
    }
}
