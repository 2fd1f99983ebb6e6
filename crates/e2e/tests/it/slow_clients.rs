//! Clients that are slow or silent occupy no resource that others wait for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Api, Stores};

/// Longer than the API waits for any body.
const PATIENCE: Duration = Duration::from_secs(60);
const UNSUPPORTED: &str = "/problems/unsupported-media-type";

/// Sends the head of a request and the beginning of its body; all that is answered until the connection is
/// closed.
async fn begin_only(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let content_type = if path.contains("import") { "text/csv" } else { "application/json" };
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: 100"
    );
    stream.write_all(format!("{head}\r\n\r\nname: ").as_bytes()).await?;
    let mut answer = String::new();
    let reading = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer));
    reading.await.with_context(|| format!("{path}: the connection stays open"))??;
    Ok(answer)
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_answered_and_its_connection_closed() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    let paths = [
        "/api/v1/price",
        "/api/v1/prices",
        "/api/v1/policies?author=zoe",
        "/api/v1/policies/simulate",
        "/api/v1/products/import",
    ];
    let answers = paths.map(|path| begin_only(&api.address, path));
    let answers = futures::future::try_join_all(answers).await?;
    for (path, answer) in paths.into_iter().zip(answers) {
        ensure!(answer.starts_with("HTTP/1.1 408 "), "{path}: {answer}");
        ensure!(answer.contains("\"/problems/body-too-slow\""), "{path}: {answer}");
    }
    Ok(())
}

/// The answer to one request on a connection of its own, until that is closed.
async fn answer_to(address: &str, head: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("{head}\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    let reading = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer));
    reading.await.with_context(|| format!("{head}: no answer"))??;
    Ok(answer)
}

/// Opens connections that say nothing, and expects health, metrics and prices to be answered nevertheless.
async fn silence_keeps_no_place(max_connections: Option<&str>, silent: usize) -> Result<()> {
    let stores = Stores::start().await?;
    let limit: Vec<(&str, &str)> =
        max_connections.map(|limit| ("PRICING_API_MAX_CONNECTIONS", limit)).into_iter().collect();
    let api = Api::start_with(&stores.redis.url(), &stores.database_url(), &limit).await?;
    api.import("P-1,USD,10\n").await?;
    let mut connections = Vec::new();
    for _ in 0..silent {
        connections.push(TcpStream::connect(&api.address).await?);
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        let answer = answer_to(&api.address, &format!("GET {path} HTTP/1.1\r\nhost: localhost")).await?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
    // On a new connection: the client's own may be among those that made room.
    let body = r#"{"product_id":"P-1","user_location":"NY"}"#;
    let mut stream = TcpStream::connect(&api.address).await?;
    let head = format!("POST /api/v1/price HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}", body.len());
    stream.write_all(format!("{head}\r\nconnection: close\r\n\r\n{body}").as_bytes()).await?;
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await??;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok(())
}

#[tokio::test]
async fn silent_connections_lock_out_no_client_at_a_small_limit() -> Result<()> {
    silence_keeps_no_place(Some("8"), 150).await
}

#[tokio::test]
async fn silent_connections_lock_out_no_client_with_default_settings() -> Result<()> {
    silence_keeps_no_place(None, 4_096).await
}

#[tokio::test]
async fn a_head_that_has_begun_has_ten_seconds() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    let (mut silent, mut slow) =
        (TcpStream::connect(&api.address).await?, TcpStream::connect(&api.address).await?);
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost: local").await?;
    let begun = std::time::Instant::now();
    let read = tokio::time::timeout(PATIENCE, slow.read(&mut [0; 1])).await?;
    // Closed or reset, and not before its time.
    ensure!(matches!(read, Ok(0) | Err(_)) && begun.elapsed() > Duration::from_secs(9));
    // While there is room, a silent connection may stay.
    silent.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    silent.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok(())
}

#[tokio::test]
async fn heads_that_break_the_protocol_are_refused() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    for (head, status, problem) in [
        ("GET /healthz HTTP/1.1", 400, "/problems/invalid-host"),
        ("GET /healthz HTTP/1.1\r\nhost: localhost\r\nhost: localhost", 400, "/problems/invalid-host"),
        ("GET /healthz HTTP/1.1\r\nhost: a b", 400, "/problems/invalid-host"),
        ("GET /docs/nothing HTTP/1.1\r\nhost: localhost", 404, "/problems/not-found"),
        ("GET /healthz HTTP/1.0", 200, ""),
        ("GET /healthz HTTP/1.1\r\nhost: anything.example:80", 200, ""),
    ] {
        let answer = answer_to(&api.address, head).await?;
        ensure!(answer.split(' ').nth(1) == Some(&status.to_string()), "{head}: {answer}");
        ensure!(answer.contains(problem), "{head}: {answer}");
    }
    let types = [
        ("/api/v1/price", "application/json"),
        ("/api/v1/prices", "application/json"),
        ("/api/v1/publish-market-event", "application/cloudevents+json"),
        ("/api/v1/policies/check", "application/yaml"),
        ("/api/v1/products/import", "text/csv"),
        ("/api/v1/products/import", "application/x-ndjson"),
    ];
    for (path, media_type) in types {
        let request = || api.client.request(Method::POST, path).body("product_id,currency,base_price\n");
        let encoded = request().header("content-type", media_type).header("content-encoding", "gzip");
        let encoded = api.client.send(encoded).await?;
        assert_eq!(
            (encoded.status.as_u16(), encoded.body["type"].as_str()),
            (415, Some(UNSUPPORTED)),
            "{path}"
        );
        ensure!(encoded.text.contains("gzip"), "{path}: {}", encoded.text);
        assert_eq!(encoded.headers["accept-encoding"], "identity");
        let written = format!("{media_type}; charset=latin1");
        let latin = api.client.send(request().header("content-type", written)).await?;
        assert_eq!((latin.status.as_u16(), latin.body["type"].as_str()), (415, Some(UNSUPPORTED)), "{path}");
        ensure!(latin.text.contains("latin1"), "{path}: {}", latin.text);
    }
    Ok(())
}

/// Sends the head of an import and these rows, of a body that is longer; then ends the sending side.
async fn cut_import(address: &str, rows: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let head = "POST /api/v1/products/import HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/csv";
    let length = rows.len() + 1;
    let request = format!("{head}\r\ncontent-length: {length}\r\n\r\n{rows}");
    stream.write_all(request.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await??;
    Ok(answer)
}

#[tokio::test]
async fn an_import_that_is_cut_short_says_how_many_rows_are_stored() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    let rows: String = (0..4_500).map(|number| format!("P-{number},USD,5\n")).collect();
    let answer = cut_import(&api.address, &format!("product_id,currency,base_price\n{rows}")).await?;
    ensure!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let problem: Value = serde_json::from_str(answer.lines().last().unwrap_or_default())?;
    assert_eq!(problem["type"], "/problems/malformed-body");
    let stored = problem["rows_stored"].as_u64().context("no number")?;
    let products = stores.store().await?.count_products().await?;
    assert_eq!((stored, stored > 0), (products, true), "{problem}");
    let detail = problem["detail"].as_str().unwrap_or_default();
    ensure!(
        detail.contains(&format!("{stored} rows are stored, and the same import can be repeated")),
        "{detail}"
    );
    // Less than a batch: nothing.
    let answer = cut_import(&api.address, "product_id,currency,base_price\nQ-1,USD,5\n").await?;
    ensure!(answer.contains("nothing is stored") && answer.contains("\"rows_stored\":0"), "{answer}");
    Ok(())
}
