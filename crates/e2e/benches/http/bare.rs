//! The limit: an axum server that reads the same bodies and answers constants of the same lengths.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tokio::net::TcpListener;

/// The argument that makes this program the bare server; after it: the address, the lengths of both answers,
/// and Redis.
pub(super) const ARGUMENT: &str = "--bare-server";

/// Answers a price after reading the body.
pub(super) const PRICE: &str = "/price";
/// The same after one GET from Redis.
pub(super) const PRICE_AFTER_GET: &str = "/price-after-get";
/// Answers a batch of prices after reading the body.
pub(super) const PRICES: &str = "/prices";

pub(super) fn serve(arguments: &[String]) -> Result<()> {
    let [listen, price_bytes, prices_bytes, redis_url] = arguments else {
        anyhow::bail!("the bare server takes an address, two lengths and a Redis URL");
    };
    let listen: SocketAddr = listen.parse()?;
    let (price, prices) = (constant(price_bytes)?, constant(prices_bytes)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = redis::Client::open(redis_url.as_str())?;
        let connection = client.get_connection_manager_with_config(ConnectionManagerConfig::new()).await?;
        let router = Router::new()
            .route("/readyz", axum::routing::get(async || StatusCode::OK))
            .route(PRICE, post(async move |_: Bytes| json(price)))
            .route(PRICES, post(async move |_: Bytes| json(prices)))
            .route(PRICE_AFTER_GET, post(async move |_: Bytes| after_get(connection.clone(), price).await));
        let listener = TcpListener::bind(listen).await.context("binding the bare server")?;
        Ok(axum::serve(listener, router).await?)
    })
}

async fn after_get(mut connection: ConnectionManager, answer: &'static str) -> impl IntoResponse {
    let found: redis::RedisResult<Option<Vec<u8>>> =
        redis::cmd("GET").arg(super::BARE_KEY).query_async(&mut connection).await;
    match found {
        Ok(Some(_)) => json(answer).into_response(),
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn json(answer: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], answer)
}

/// An answer of that many bytes, kept until the process ends.
fn constant(bytes: &str) -> Result<&'static str> {
    Ok("x".repeat(bytes.parse()?).leak())
}
