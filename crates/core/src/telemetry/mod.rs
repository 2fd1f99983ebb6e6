//! Telemetry: log lines, metrics and traces.
//!
//! Here: how a service starts its telemetry ([`start`]), the registry of its metrics ([`registry`]), the list
//! of all metrics ([`inventory`]), the spans ([`spans`]), warnings of outages ([`repeated_warning`]) and the
//! bound of the log (`log_limit`). Never here: the metrics of a module, which are in its `metrics.rs`, and
//! the decision what to log; each module logs at its own boundary, once. OpenTelemetry is named here only.

pub mod inventory;
mod log_limit;
pub mod registry;
pub mod repeated_warning;
pub mod spans;

use std::error::Error;
use std::io::IsTerminal;
use std::thread;
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tokio::task::JoinHandle;
use tracing::Metadata;
use tracing_subscriber::filter::{FilterExt, LevelFilter, dynamic_filter_fn, filter_fn};
use tracing_subscriber::layer::{Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use self::log_limit::LogLimit;
use crate::config::{LogConfig, LogFormat, OtlpProtocol, TraceConfig};
use crate::tls;

/// The time limit of one export of spans.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(2);
/// The time limit of the last export when the process stops.
const LAST_EXPORT_TIMEOUT: Duration = Duration::from_secs(2);
/// The exporter's own log targets, silenced: while the collector is unavailable, they log dropped spans every
/// few seconds.
const QUIET_TARGETS: [&str; 3] = ["opentelemetry=off", "opentelemetry_sdk=off", "opentelemetry-otlp=off"];

/// Running telemetry; it must be stopped at the end, or the last spans are lost.
#[must_use]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    /// What was left out of the log, and the task that says so.
    log: Option<(LogLimit, JoinHandle<()>)>,
}

/// Installs the process-wide subscriber: log lines to standard error, spans to the collector. Further calls
/// change nothing, so that several services can share a process. Call it inside the runtime.
pub fn start(log: &LogConfig, trace: &TraceConfig, service: &'static str) -> Telemetry {
    let (traces, problem) = match trace.endpoint.as_deref().map(|endpoint| provider(endpoint, trace, service))
    {
        Some(Ok(traces)) => (Some(traces), None),
        // The exporter quotes the address, which may contain a password.
        Some(Err(problem)) => {
            let endpoint = trace.endpoint.as_deref().unwrap_or_default();
            (None, Some(problem.to_string().replace(endpoint, "the collector's address")))
        }
        None => (None, None),
    };
    let spans = traces.as_ref().map(|traces| {
        let scope = InstrumentationScope::builder("pricing").with_schema_url(spans::SCHEMA_URL).build();
        let layer = tracing_opentelemetry::layer()
            .with_tracer(traces.tracer_with_scope(scope))
            // The engine never asks OpenTelemetry for the current span.
            .with_context_activation(false)
            .with_location(false)
            .with_threads(false)
            .with_target(false);
        layer.with_filter(filter_fn(is_own_span)).boxed()
    });
    let limit = LogLimit::default();
    let started = tracing_subscriber::registry().with(spans).with(lines(log, limit.clone())).try_init();
    if started.is_err() {
        tracing::debug!("telemetry was started before");
        return Telemetry { traces: None, log: None };
    }
    let reporting = tokio::spawn(limit.clone().report());
    if let Some(problem) = problem {
        tracing::warn!(%problem, "traces are not exported");
    }
    Telemetry { traces, log: Some((limit, reporting)) }
}

impl Telemetry {
    /// Logs what was left out of the log, and exports the last spans. If the collector is unavailable, they
    /// are lost after two seconds.
    pub async fn stop(self) {
        if let Some((limit, reporting)) = self.log {
            reporting.abort();
            limit.report_all();
        }
        let Some(traces) = self.traces else { return };
        let stopping = tokio::task::spawn_blocking(move || traces.shutdown_with_timeout(LAST_EXPORT_TIMEOUT));
        let _ = tokio::time::timeout(LAST_EXPORT_TIMEOUT * 2, stopping).await;
    }
}

/// Spans are queued in bounded memory and exported by a thread of their own: no work waits for the collector.
fn provider(
    endpoint: &str,
    trace: &TraceConfig,
    service: &'static str,
) -> Result<SdkTracerProvider, Box<dyn Error + Send + Sync>> {
    let exporter = match trace.protocol {
        OtlpProtocol::Grpc => {
            let exporter =
                SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_TIMEOUT);
            // By default the exporter trusts no root certificates. Without TLS the system's roots are not
            // loaded, as a system without roots would be an error.
            if endpoint.starts_with("https:") {
                exporter.with_tls_config(ClientTlsConfig::new().with_native_roots()).build()?
            } else {
                exporter.build()?
            }
        }
        OtlpProtocol::Http => SpanExporter::builder()
            .with_http()
            .with_http_client(http_client()?)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()?,
    };
    let name = trace.service_name.clone().unwrap_or_else(|| service.to_owned());
    let resource = Resource::builder().with_service_name(name).build();
    let of_own_traces = Sampler::TraceIdRatioBased(trace.sampler.ratio);
    let sampler = match trace.sampler.follows_parent {
        true => Sampler::ParentBased(Box::new(of_own_traces)),
        false => of_own_traces,
    };
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(sampler)
        .with_resource(resource)
        .build())
}

/// Builds the client on a separate thread, as this blocks and must not happen inside the runtime.
fn http_client() -> Result<reqwest::blocking::Client, Box<dyn Error + Send + Sync>> {
    let build = || {
        let client = reqwest::blocking::Client::builder().timeout(EXPORT_TIMEOUT);
        client.tls_backend_preconfigured(tls::client_config()).build()
    };
    let built = thread::Builder::new().spawn(build)?.join();
    Ok(built.map_err(|_| "the HTTP client could not be built")??)
}

fn is_own_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == spans::TARGET
}

/// Creates the log layer: JSON with the trace identifier, or human-readable text without it.
fn lines(config: &LogConfig, limit: LogLimit) -> Box<dyn Layer<Traced> + Send + Sync> {
    let mut filter = EnvFilter::builder().parse_lossy(&config.filter);
    for quiet in QUIET_TARGETS.iter().filter_map(|quiet| quiet.parse().ok()) {
        filter = filter.add_directive(quiet);
    }
    let in_terminal = std::io::stderr().is_terminal();
    let as_text = match config.format {
        LogFormat::Auto => in_terminal,
        LogFormat::Json => false,
        LogFormat::Text => true,
    };
    if as_text {
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_target(false)
            .with_ansi(in_terminal);
        lines
            .with_filter(filter_fn(|metadata| !metadata.is_span()))
            .with_filter(asked_each_time(filter).and(limit))
            .boxed()
    } else {
        let lines = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_writer(std::io::stderr);
        lines.with_filter(asked_each_time(filter).and(limit)).boxed()
    }
}

/// Evaluates the filter for every span and event, instead of caching its answer per call site.
///
/// When a library checks whether an event would be logged and then emits none (`tracing::enabled!`,
/// `log::log_enabled!`; sqlx does so for every statement), the filters' answer stays on the thread and is
/// applied to the next span or event with a cached answer, which is then lost. Evaluating the filter again
/// replaces the stale answer.
fn asked_each_time(filter: EnvFilter) -> impl Filter<Traced> {
    filter.and(dynamic_filter_fn(|_, _| true).with_max_level_hint(LevelFilter::TRACE))
}

/// The subscriber that the log layers are added to.
type Traced = tracing_subscriber::layer::Layered<Option<Box<dyn Layer<Registry> + Send + Sync>>, Registry>;
