//! The HTTP API as the commands use it: one address, time limits, and errors that users can act on.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use pricing_core::tls;
use pricing_wire::problem::Problem;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{RequestBuilder, StatusCode, Url};
use serde::de::DeserializeOwned;

/// The variable that may hold the access key.
const KEY_VARIABLE: &str = "PRICING_KEY";
/// Time limit for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time limit of a request that is not a stream.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Interval of TCP keep-alive probes on an idle connection.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// The longest quote of an error that is not a problem document, in characters.
const QUOTED_CHARS: usize = 200;

/// The address of the API.
#[derive(Debug, Clone, Args)]
pub(crate) struct ApiAddress {
    /// The address of the pricing API
    #[arg(long, value_name = "URL", env = "PRICING_URL", default_value = "http://127.0.0.1:8000", value_parser = api_url)]
    pub(crate) url: Url,
    /// A file with the access key; PRICING_KEY may hold the key itself
    #[arg(long, value_name = "FILE", env = "PRICING_KEY_FILE")]
    pub(crate) key_file: Option<PathBuf>,
}

impl ApiAddress {
    /// The header that presents the access key, if there is one.
    fn authorization(&self) -> Result<Option<HeaderValue>, ClientError> {
        let key = match &self.key_file {
            Some(file) => std::fs::read_to_string(file)
                .map_err(|error| ClientError::NoKey { reason: format!("{}: {error}", file.display()) })?,
            None => std::env::var(KEY_VARIABLE).unwrap_or_default(),
        };
        let key = key.trim();
        if key.is_empty() {
            return Ok(None);
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
            .map_err(|_| ClientError::NoKey { reason: "it has characters that no key has".to_owned() })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

fn api_url(written: &str) -> Result<Url, String> {
    let example = "give it as http://HOST:PORT or https://HOST";
    match Url::parse(written) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        Ok(_) => Err(example.to_owned()),
        Err(error) => Err(format!("{error}; {example}")),
    }
}

/// A client of one API.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: Url,
    has_key: bool,
}

/// An answer of the API.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// The errors of a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The HTTP client could not be built.
    #[error("could not build the HTTP client: {0}")]
    NoClient(reqwest::Error),
    /// The access key cannot be used.
    #[error("the access key cannot be read: {reason}")]
    NoKey { reason: String },
    /// The API does not answer.
    #[error(
        "no answer from {url} ({reason})\n  is it running? `pricing up` starts it; --url or PRICING_URL name another"
    )]
    Unreachable { url: Url, reason: String },
    /// The API refused the request.
    #[error("{}", in_words(.0))]
    Refused(Problem),
    /// The API answered with something unexpected.
    #[error("unexpected answer from {url}: {reason}")]
    NotUnderstood { url: Url, reason: String },
}

impl ClientError {
    /// Whether the API refused the request with a problem of this type.
    pub(crate) fn is_of_type(&self, kind: &str) -> bool {
        matches!(self, Self::Refused(problem) if problem.kind == kind)
    }
}

impl Client {
    /// A client of the API at this address, with the access key; nothing is sent yet.
    pub(crate) fn new(api: &ApiAddress) -> Result<Self, ClientError> {
        Self::with_headers(
            &api.url,
            api.authorization()?.map(|key| (AUTHORIZATION, key)).into_iter().collect(),
        )
    }

    /// A client of the API at this address, without an access key.
    pub(crate) fn without_key(url: &Url) -> Result<Self, ClientError> {
        Self::with_headers(url, HeaderMap::new())
    }

    fn with_headers(url: &Url, headers: HeaderMap) -> Result<Self, ClientError> {
        let has_key = !headers.is_empty();
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(KEEPALIVE)
            .tls_backend_preconfigured(tls::client_config());
        // A proxy for outside addresses cannot reach a service on this machine.
        if matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]")) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(ClientError::NoClient)?;
        Ok(Self { http, url: url.clone(), has_key })
    }

    /// The name of who acts, for a request that states it: none with an access key, which says it.
    pub(crate) fn stated_name(&self, name: Option<String>, flag: &str) -> anyhow::Result<Option<String>> {
        if self.has_key {
            return Ok(None);
        }
        let name = name.filter(|name| !name.trim().is_empty());
        name.map(Some).with_context(|| format!("USER is not set: say who decides with {flag} NAME"))
    }

    /// The approval of what a circuit breaker would hold, as the API takes it: `approve` with an access key,
    /// and the name of the approver without one.
    pub(crate) fn approval(
        &self,
        approve: bool,
        approved_by: Option<String>,
    ) -> anyhow::Result<(bool, Option<String>)> {
        match (approve, approved_by) {
            (false, None) => Ok((false, None)),
            (_, Some(_)) if self.has_key => Ok((true, None)),
            (_, Some(approver)) => Ok((false, Some(approver))),
            (true, None) => {
                let approver = self.stated_name(std::env::var("USER").ok(), "--approved-by")?;
                Ok((approver.is_none(), approver))
            }
        }
    }

    /// A GET request for this path, one segment an item.
    pub(crate) fn get(&self, path: &[&str]) -> RequestBuilder {
        self.http.get(self.at(path)).timeout(ANSWER_TIMEOUT)
    }

    /// A POST request to this path.
    pub(crate) fn post(&self, path: &[&str]) -> RequestBuilder {
        self.upload(path).timeout(ANSWER_TIMEOUT)
    }

    /// A DELETE request for this path.
    pub(crate) fn delete(&self, path: &[&str]) -> RequestBuilder {
        self.http.delete(self.at(path)).timeout(ANSWER_TIMEOUT)
    }

    /// As [`post`](Self::post), for a body of any length: the caller bounds the time.
    pub(crate) fn upload(&self, path: &[&str]) -> RequestBuilder {
        self.http.post(self.at(path))
    }

    /// A request for a stream that does not end, without a time limit.
    pub(crate) fn stream(&self, path: &[&str]) -> RequestBuilder {
        self.http.get(self.at(path))
    }

    /// Sends a request and returns the answer with its body unread; an unsuccessful status is an error.
    pub(crate) async fn open(&self, request: RequestBuilder) -> Result<reqwest::Response, ClientError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.text().await.map_err(|error| self.unreachable(&error))?;
        Err(ClientError::Refused(read_problem(status, &body)))
    }

    /// Sends a request; an unsuccessful status is an error.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Answer, ClientError> {
        let answer = self.send_for_any_status(request).await?;
        if answer.status.is_success() {
            Ok(answer)
        } else {
            Err(ClientError::Refused(read_problem(answer.status, &answer.body)))
        }
    }

    /// Sends a request and returns the answer, whatever its status.
    pub(crate) async fn send_for_any_status(&self, request: RequestBuilder) -> Result<Answer, ClientError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.text().await.map_err(|error| self.unreachable(&error))?;
        Ok(Answer { status, headers, body })
    }

    /// Decodes an answer's JSON.
    pub(crate) fn read<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, ClientError> {
        serde_json::from_str(&answer.body)
            .map_err(|error| ClientError::NotUnderstood { url: self.url.clone(), reason: error.to_string() })
    }

    fn at(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        // Fails only for addresses that cannot have a path; `api_url` accepts none of those.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        ClientError::Unreachable { url: self.url.clone(), reason: innermost(error).to_string() }
    }
}

/// The innermost cause: "connection refused" rather than "error sending request".
fn innermost<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    error.source().map_or(error, innermost)
}

/// The problem document of an unsuccessful answer, or one that quotes its body.
fn read_problem(status: StatusCode, body: &str) -> Problem {
    serde_json::from_str(body).unwrap_or_else(|_| Problem {
        kind: "".into(),
        title: format!("the API answered {status}").into(),
        status: status.as_u16(),
        detail: body.trim().chars().take(QUOTED_CHARS).collect(),
        errors: Vec::new(),
        rows_stored: None,
    })
}

/// Why the API refused a request, and a line for each field that is wrong.
fn in_words(problem: &Problem) -> String {
    let mut text = problem.title.to_string();
    // If one field is wrong, the detail repeats its problem.
    let is_repeated = problem.errors.first().is_some_and(|error| error.to_string() == problem.detail);
    if !problem.detail.is_empty() && problem.detail != problem.title && !is_repeated {
        let _ = write!(text, ": {}", problem.detail);
    }
    for error in &problem.errors {
        let _ = match (error.line, error.column) {
            (Some(line), Some(column)) => write!(text, "\n  {line}:{column}: {error}"),
            _ => write!(text, "\n  {error}"),
        };
    }
    text
}

#[cfg(test)]
mod tests;
