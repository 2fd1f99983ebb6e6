//! Pages of other sites in a real browser, which try at every guarded route what a page can have a browser
//! send.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use pricing_e2e::Chromium;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{Operation, api_with_a_product, nothing_was_written, operations};
use crate::support::{Api, Stores};

const PATIENCE: Duration = Duration::from_secs(180);
/// A name that leads here in the browser only.
const REBOUND: &str = "rebind.example";
const RESOLVER: &str = "--host-resolver-rules=MAP rebind.example 127.0.0.1";

/// What a page could read.
#[derive(Debug, Deserialize)]
struct Seen {
    how: String,
    url: String,
    what: String,
}

/// A server of another site: its page, where that reports to, and, for a name that is made to point at the
/// API once the page is there, the API itself.
#[derive(Clone)]
struct OtherSite {
    page: String,
    api: String,
    client: reqwest::Client,
    reports: mpsc::UnboundedSender<Vec<Seen>>,
}

/// The page is at this port once it is known what it is to try.
async fn serve(
    listener: TcpListener,
    api: &Api,
    targets: &serde_json::Value,
) -> Result<mpsc::UnboundedReceiver<Vec<Seen>>> {
    let (reports, reported) = mpsc::unbounded_channel();
    let script = include_str!("page.js");
    let page = format!(
        "<!doctype html><meta charset=utf-8><body><script>const plan = {{targets: {targets}}};\n{script}</script>"
    );
    let client = reqwest::Client::builder().no_proxy().build()?;
    let site = OtherSite { page, api: format!("http://{}", api.address), client, reports };
    let router = Router::new()
        .route("/page", get(async |State(site): State<OtherSite>| Html(site.page)))
        .route("/report", post(take_report))
        .fallback(hand_on)
        .with_state(site);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(reported)
}

async fn take_report(State(site): State<OtherSite>, body: Bytes) -> StatusCode {
    let Ok(seen) = serde_json::from_slice(&body) else { return StatusCode::BAD_REQUEST };
    // The test may have ended.
    let _ = site.reports.send(seen);
    StatusCode::NO_CONTENT
}

/// The request as the browser has sent it, its Host too, which is all that the API would see of it.
async fn hand_on(
    State(site): State<OtherSite>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let url = format!("{}{uri}", site.api);
    let Ok(body) = axum::body::to_bytes(request.into_body(), 1 << 20).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut asking = site.client.request(method, url).headers(headers);
    if !body.is_empty() {
        asking = asking.body(body);
    }
    let Ok(response) = asking.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let mut answer = Response::builder().status(response.status());
    if let Some(content_type) = response.headers().get(header::CONTENT_TYPE) {
        answer = answer.header(header::CONTENT_TYPE, content_type);
    }
    answer.body(Body::from_stream(response.bytes_stream())).unwrap_or_default()
}

/// What to try at each path that is guarded, under this address.
fn targets(operations: &[Operation], base: &str) -> serde_json::Value {
    let guarded = operations.iter().filter(|operation| !operation.is_open());
    let paths: BTreeMap<&str, &str> =
        guarded.map(|operation| (operation.path.as_str(), operation.pattern.as_str())).collect();
    let target = |(path, pattern): (&str, &str)| {
        let (body, content_type) = match pattern {
            policy if policy.contains("/policies") => ("name: page\n", "application/yaml"),
            rows if rows.contains("/import") => ("product_id,currency,base_price\nP-1,EUR,1\n", "text/csv"),
            product if product.contains("/products") => {
                (r#"{"currency": "EUR", "base_price": 1}"#, "application/json")
            }
            _ => ("{}", "application/json"),
        };
        json!({"url": format!("{base}{path}"), "body": body, "type": content_type})
    };
    paths.into_iter().map(target).collect()
}

/// How often each route has answered with each status.
async fn answered(api: &Api) -> Result<BTreeMap<(String, String), u64>> {
    let text = api.client.get("/metrics").await?.text;
    let mut answered = BTreeMap::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("http_request_duration_seconds_count{route=\"") else { continue };
        let mut parts = rest.split('"');
        let (route, status) = (parts.next().context("no route")?, parts.nth(1).context("no status")?);
        let count = line.rsplit(' ').next().unwrap_or_default().parse()?;
        answered.insert((route.to_owned(), status.to_owned()), count);
    }
    Ok(answered)
}

/// Opens the page of a site that is called by this name, and waits for its report.
async fn visit(name: &str, api: &Api, base: Option<&str>) -> Result<Vec<Seen>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let site = format!("http://{name}:{}", listener.local_addr()?.port());
    let targets = targets(&operations(api).await?, base.unwrap_or(&site));
    let mut reported = serve(listener, api, &targets).await?;
    let chromium = Chromium::open(&format!("{site}/page"), &[RESOLVER])?;
    match tokio::time::timeout(PATIENCE, reported.recv()).await {
        Ok(Some(seen)) => Ok(seen),
        _ => bail!("the page of {site} reports nothing: {}", chromium.output()?),
    }
}

/// That every guarded route was asked by the page, and has answered nothing but refusals.
async fn only_refused(api: &Api, before: &BTreeMap<(String, String), u64>, refusals: &[&str]) -> Result<()> {
    let after = answered(api).await?;
    let guarded: Vec<Operation> =
        operations(api).await?.into_iter().filter(|operation| !operation.is_open()).collect();
    for Operation { pattern, .. } in &guarded {
        let mut refused = 0;
        for ((route, status), count) in after.iter().filter(|((route, _), _)| route == pattern) {
            let more = count - before.get(&(route.clone(), status.clone())).unwrap_or(&0);
            ensure!(more == 0 || refusals.contains(&status.as_str()), "{route} has answered {status}");
            refused += more;
        }
        // A form, two fetches and an image at the least.
        ensure!(refused > 4, "{pattern} was asked {refused} times only");
    }
    nothing_was_written(api).await
}

#[tokio::test]
async fn a_page_of_another_site_writes_nothing_and_reads_nothing() -> Result<()> {
    let stores = Stores::start().await?;
    let api = api_with_a_product(&stores).await?;
    let port = api.address.rsplit(':').next().context("no port")?;
    let (by_address, by_name) = (format!("http://{}", api.address), format!("http://page.localhost:{port}"));
    for (site, base) in [
        // Another port, which is the same site to a browser.
        ("127.0.0.1", &by_address),
        ("localhost", &by_address),
        ("page.localhost", &by_address),
        ("page.localhost", &by_name),
        (REBOUND, &by_address),
    ] {
        let before = answered(&api).await?;
        let seen = visit(site, &api, Some(base)).await?;
        assert!(seen.is_empty(), "a page of {site} has read of {base}: {seen:?}");
        only_refused(&api, &before, &["403"]).await.with_context(|| format!("a page of {site} at {base}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_name_that_is_made_to_point_here_reads_nothing() -> Result<()> {
    let stores = Stores::start().await?;
    let api = api_with_a_product(&stores).await?;
    let before = answered(&api).await?;
    // To the browser, the page asks its own server, and may read what that answers.
    let seen = visit(REBOUND, &api, None).await?;
    assert!(seen.len() > 50, "{seen:?}");
    for Seen { how, url, what } in &seen {
        let is_refusal = what == "421" || what.contains("/problems/misdirected-request");
        assert!(is_refusal || url.ends_with("/page"), "{how} of {url} has read {what}");
    }
    only_refused(&api, &before, &["421"]).await
}

#[tokio::test]
async fn the_documentation_is_shown() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    let page = Chromium::dump(&format!("http://{}/docs/", api.address), PATIENCE).await?;
    for expected in ["Pricing engine", "opblock-summary-path", "publish-market-event"] {
        assert!(page.contains(expected), "{expected} is not shown: {page}");
    }
    Ok(())
}
