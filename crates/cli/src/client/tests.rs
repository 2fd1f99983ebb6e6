//! Tests of the client against a stub on a loopback port.

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

/// Answers one request with this text; returns the received request.
async fn stub(answer: &'static str) -> Result<(Client, JoinHandle<Result<String>>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = Url::parse(&format!("http://{}/engine/", listener.local_addr()?))?;
    let received = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut request).await?;
        }
        stream.write_all(answer.as_bytes()).await?;
        Ok(String::from_utf8_lossy(&request).into_owned())
    });
    Ok((Client::without_key(&url)?, received))
}

#[tokio::test]
async fn the_path_is_escaped_and_the_body_is_kept_as_it_is() -> Result<()> {
    let (client, received) =
        stub("HTTP/1.1 200 OK\r\nx-cache: l1\r\nconnection: close\r\n\r\n{\"final_price\": 49.90}").await?;
    let answer = client.send(client.get(&["api", "v1", "products", "a b/c?d"])).await?;
    assert_eq!(answer.body, "{\"final_price\": 49.90}");
    assert_eq!(answer.headers.get("x-cache").map(|value| value.as_bytes()), Some(&b"l1"[..]));
    let received = received.await??;
    assert!(received.starts_with("GET /engine/api/v1/products/a%20b%2Fc%3Fd HTTP/1.1"), "{received}");
    Ok(())
}

#[tokio::test]
async fn problems_list_every_field() -> Result<()> {
    let (client, _received) = stub(concat!(
        "HTTP/1.1 422 Unprocessable Content\r\ncontent-type: application/problem+json\r\n",
        "connection: close\r\n\r\n",
        r#"{"type": "/problems/invalid-request", "title": "the request is not valid", "status": 422,"#,
        r#" "detail": "2 fields are wrong", "errors": ["#,
        r#"{"field": "quantity", "problem": "0 is too small", "allowed": "1 to 1000000"},"#,
        r#"{"field": "user_location", "problem": "is empty"}]}"#,
    ))
    .await?;
    let refusal = client.send(client.get(&["x"])).await.err();
    insta::assert_snapshot!(refusal.map(|error| error.to_string()).unwrap_or_default(), @r"
    the request is not valid: 2 fields are wrong
      quantity: 0 is too small (allowed: 1 to 1000000)
      user_location: is empty
    ");
    Ok(())
}

#[tokio::test]
async fn other_errors_are_quoted() -> Result<()> {
    let (client, _received) =
        stub("HTTP/1.1 502 Bad Gateway\r\nconnection: close\r\n\r\nupstream is away\n").await?;
    let refusal = client.send(client.get(&["x"])).await.err();
    assert_eq!(
        refusal.map(|error| error.to_string()).as_deref(),
        Some("the API answered 502 Bad Gateway: upstream is away")
    );
    Ok(())
}

#[tokio::test]
async fn an_unreachable_api_is_its_own_error() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = Url::parse(&format!("http://{}", listener.local_addr()?))?;
    drop(listener);
    let client = Client::without_key(&url)?;
    let error = client.send(client.get(&["healthz"])).await.err();
    assert!(matches!(error, Some(ClientError::Unreachable { .. })), "{error:?}");
    Ok(())
}
