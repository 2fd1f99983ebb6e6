//! A thin JSON client for the engine's HTTP API.

use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, RequestBuilder, StatusCode};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};

/// A limit that no request may reach; a timeout indicates a hang.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(180);

/// A client of one server. Clones share their connections.
#[derive(Debug, Clone)]
pub struct HttpClient {
    base_url: String,
    client: reqwest::Client,
}

/// A complete response of any status.
#[derive(Debug, Clone)]
pub struct HttpReply {
    /// The status code; error statuses are not errors of the client.
    pub status: StatusCode,
    /// All headers.
    pub headers: HeaderMap,
    /// The body as sent, with the exact digits of amounts.
    pub text: String,
    /// The parsed body if its type is JSON (including `problem+json`), else `Null`.
    pub body: Value,
}

impl HttpClient {
    /// Creates a client for the server at `base_url`, such as `http://127.0.0.1:8000`.
    pub fn new(base_url: impl Into<String>) -> Result<Self> {
        // A proxy from the environment would intercept requests to loopback.
        let client = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT);
        // No test uses TLS, and loading the trusted roots takes longer than most requests.
        let no_roots = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
        let client = client.tls_backend_preconfigured(no_roots.with_no_client_auth()).build()?;
        let base_url = base_url.into().trim_end_matches('/').to_owned();
        Ok(Self { base_url, client })
    }

    /// Requests the price of a product for a shopper.
    pub async fn price(
        &self,
        product_id: &str,
        user_location: &str,
        is_prime_member: bool,
    ) -> Result<HttpReply> {
        let shopper = json!({
            "product_id": product_id,
            "user_location": user_location,
            "is_prime_member": is_prime_member,
        });
        self.post("/api/v1/price", &shopper).await
    }

    /// Sends a GET request.
    pub async fn get(&self, path: &str) -> Result<HttpReply> {
        self.send(self.request(Method::GET, path)).await
    }

    /// Sends a POST request with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Result<HttpReply> {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// Sends a PUT request with a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Result<HttpReply> {
        self.send(self.request(Method::PUT, path).json(body)).await
    }

    /// Sends a DELETE request.
    pub async fn delete(&self, path: &str) -> Result<HttpReply> {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Builds any other request, to be sent by [`send`](Self::send).
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base_url))
    }

    /// Sends a request and reads the complete response.
    pub async fn send(&self, request: RequestBuilder) -> Result<HttpReply> {
        let response = request.send().await?;
        let status = response.status();
        let headers = response.headers().clone();
        let text = response.text().await?;
        let body = if is_json(&headers) {
            serde_json::from_str(&text).with_context(|| format!("{status} with a body not JSON: {text}"))?
        } else {
            Value::Null
        };
        Ok(HttpReply { status, headers, text, body })
    }
}

impl HttpReply {
    /// A header's value, if it was sent and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type == "application/json" || media_type.ends_with("+json")
}
