//! OpenTelemetry's own variables: which of them the services use, and that those of the engine win.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Uri};
use pricing_e2e::{OtlpCollector, ReceivedSpan, ServiceProcess, eventually};
use serde_json::json;

use crate::fleet::{Fleet, Member, Service};
use crate::support::Stores;

const PATIENCE: Duration = Duration::from_secs(60);
/// Unset, which the harness does not leave it.
const UNSET: (&str, &str) = ("PRICING_OTLP_ENDPOINT", "");
/// A port that no collector listens on.
const NOWHERE: &str = "http://127.0.0.1:1";

async fn start(stores: &Stores, variables: &[(&str, &str)]) -> Result<Member> {
    let fleet = Fleet::new(&stores.redis.url(), &stores.database_url());
    variables.iter().fold(fleet, |fleet, (name, value)| fleet.with(name, value)).start(Service::Api).await
}

/// Does what is traced.
async fn put(api: &Member) -> Result<()> {
    let reply = api.client.put("/api/v1/products/P-1", &json!({"currency": "USD", "base_price": 1})).await?;
    ensure!(reply.status.is_success(), "{}", reply.text);
    Ok(())
}

/// The spans that a service with these variables exports over gRPC until it has ended.
async fn spans_of(stores: &Stores, variables: &[(&str, &str)]) -> Result<Vec<ReceivedSpan>> {
    let collector = OtlpCollector::start().await?;
    let endpoint = collector.endpoint();
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (*name, if *value == "HERE" { &*endpoint } else { *value }))
        .collect();
    let mut api = start(stores, &variables).await?;
    put(&api).await?;
    // It sends its last spans before it ends.
    ensure!(api.terminate().await?);
    Ok(collector.spans())
}

/// Variables, and the name of the service whose spans arrive with them.
type Case<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>);

#[tokio::test]
async fn opentelemetrys_variables_are_fallbacks_of_the_own_ones() -> Result<()> {
    let stores = Stores::start().await?;
    const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let cases: [Case<'_>; 9] = [
        (&[UNSET, (ALL, "HERE")], Some("pricing-api")),
        (&[UNSET, (ALL, "HERE"), ("OTEL_SERVICE_NAME", "shop")], Some("shop")),
        (&[UNSET, (ALL, NOWHERE), (TRACES, "HERE")], Some("pricing-api")),
        (&[("PRICING_OTLP_ENDPOINT", "HERE"), (ALL, NOWHERE), (TRACES, NOWHERE)], Some("pricing-api")),
        (&[("PRICING_OTLP_ENDPOINT", "HERE"), ("OTEL_SDK_DISABLED", "true")], Some("pricing-api")),
        (&[("PRICING_OTLP_ENDPOINT", "off"), (ALL, "HERE")], None),
        (&[UNSET, (ALL, "HERE"), ("OTEL_SDK_DISABLED", "true")], None),
        (&[UNSET, (ALL, "HERE"), ("OTEL_TRACES_SAMPLER", "always_off")], None),
        (
            &[
                UNSET,
                (ALL, "HERE"),
                ("OTEL_TRACES_SAMPLER", "traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", "0"),
            ],
            None,
        ),
    ];
    for (variables, expected) in cases {
        let spans = spans_of(&stores, variables).await?;
        let services: Vec<&str> = spans.iter().map(|span| span.service.as_str()).collect();
        match expected {
            Some(service) => ensure!(services.contains(&service), "{variables:?}: {services:?}"),
            None => ensure!(services.is_empty(), "{variables:?}: {services:?}"),
        }
    }
    Ok(())
}

/// What an export over HTTP had.
type Export = (String, HeaderMap, Bytes);

#[tokio::test]
async fn exports_over_http_go_to_the_path_that_the_specification_says() -> Result<()> {
    let stores = Stores::start().await?;
    let exports: Arc<Mutex<Vec<Export>>> = Arc::default();
    let taken = Arc::clone(&exports);
    let take = async move |uri: Uri, headers: HeaderMap, body: Bytes| {
        let export = (uri.path().to_owned(), headers, body);
        taken.lock().unwrap_or_else(PoisonError::into_inner).push(export);
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(take)).await });
    let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test");
    let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20token");
    for (variable, below, expected) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "/otlp", "/otlp/v1/traces"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "/otlp", "/otlp"),
        ("PRICING_OTLP_ENDPOINT", "", "/v1/traces"),
        ("PRICING_OTLP_ENDPOINT", "/v1/traces", "/v1/traces"),
    ] {
        exports.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let endpoint = format!("{base}{below}");
        let api = start(&stores, &[UNSET, http, attributes, headers, (variable, &endpoint)]).await?;
        put(&api).await?;
        let export = eventually("spans are exported", PATIENCE, async || {
            let exports = exports.lock().unwrap_or_else(PoisonError::into_inner);
            exports.first().cloned().context("nothing came")
        });
        let (path, headers, body) = export.await?;
        assert_eq!(path, expected, "{variable}={endpoint}");
        assert_eq!(headers["authorization"], "Bearer token");
        let text = String::from_utf8_lossy(&body);
        ensure!(text.contains("deployment.environment.name") && text.contains("pricing-api"), "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_collector_that_is_no_address_is_refused_at_the_start() -> Result<()> {
    for variable in
        ["PRICING_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
    {
        for wrong in ["127.0.0.1:4317", "user:secret@collector:4317", "grpc://user:secret@collector:4317"] {
            let mut api = ServiceProcess::start("pricing-api", &[UNSET, (variable, wrong)], &[])?;
            let code = api.wait(PATIENCE).await?.code();
            let output = api.output()?;
            ensure!(code == Some(64) && output.contains(variable), "{code:?} {output}");
            ensure!(!output.contains("secret"), "{output}");
        }
    }
    Ok(())
}
