//! A client that sends its body slowly occupies no resource that others wait for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::Stores;

/// Longer than the API waits for any body.
const PATIENCE: Duration = Duration::from_secs(60);

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
