//! A trace collector, which receives spans over OTLP/gRPC and keeps them for the test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// A collector on a free port; stopped on drop.
pub struct OtlpCollector {
    address: SocketAddr,
    received: Received,
    serving: JoinHandle<()>,
}

/// An exported span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedSpan {
    /// The service that exported it.
    pub service: String,
    /// Its name.
    pub name: String,
    /// The trace identifier, in hexadecimal digits.
    pub trace_id: String,
    /// The span's identifier.
    pub span_id: String,
    /// The parent's identifier; empty if there is none.
    pub parent_span_id: String,
    /// 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: i32,
    /// Whether its status is an error.
    pub is_error: bool,
    /// Its events with their attributes, and the message of its status, as text.
    pub said: String,
    /// The spans it is linked to.
    pub links: Vec<String>,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// The schema URL of its semantic conventions.
    pub schema_url: String,
}

#[derive(Debug, Clone, Default)]
struct Received(Arc<Mutex<Vec<ReceivedSpan>>>);

impl OtlpCollector {
    /// Starts a collector.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("binding the collector")?;
        let address = listener.local_addr()?;
        let received = Received::default();
        let service = TraceServiceServer::new(received.clone());
        let serving = tokio::spawn(async move {
            let serving = Server::builder().add_service(service);
            // An error either occurs at the end of the test, or the missing spans fail it.
            let _ = serving.serve_with_incoming(TcpIncoming::from(listener)).await;
        });
        Ok(Self { address, received, serving })
    }

    /// The value of `PRICING_OTLP_ENDPOINT` for this collector.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The listening address, for example as the target of a [`TlsProxy`](crate::TlsProxy).
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The spans received so far.
    pub fn spans(&self) -> Vec<ReceivedSpan> {
        self.received.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for OtlpCollector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = Vec::new();
        for resource in request.into_inner().resource_spans {
            let about = resource.resource.map(|resource| attributes(resource.attributes)).unwrap_or_default();
            let service = about.get("service.name").cloned().unwrap_or_default();
            for scope in resource.scope_spans {
                let schema_url = scope.schema_url;
                spans.extend(scope.spans.into_iter().map(|span| ReceivedSpan {
                    service: service.clone(),
                    name: span.name,
                    trace_id: digits(&span.trace_id),
                    span_id: digits(&span.span_id),
                    parent_span_id: digits(&span.parent_span_id),
                    kind: span.kind,
                    said: format!("{:?} {:?}", span.events, span.status),
                    is_error: span.status.is_some_and(|status| status.code == 2),
                    links: span.links.iter().map(|link| digits(&link.span_id)).collect(),
                    attributes: attributes(span.attributes),
                    schema_url: schema_url.clone(),
                }));
            }
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn attributes(written: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: any_value::Value| match value {
        any_value::Value::StringValue(text) => text,
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::BoolValue(value) => value.to_string(),
        any_value::Value::DoubleValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let value =
        |pair: KeyValue| (pair.key, pair.value.and_then(|value| value.value).map(text).unwrap_or_default());
    written.into_iter().map(value).collect()
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
