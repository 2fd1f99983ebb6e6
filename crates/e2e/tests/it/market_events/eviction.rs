//! A full Redis and what it evicts: never an event that was acknowledged.

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use futures::future::try_join_all;
use pricing_core::keys::{DEFAULT_PREFIX, MessageKeys};
use pricing_e2e::{HttpReply, RedisServer, eventually};
use redis::FromRedisValue;
use reqwest::Method;
use serde_json::{Value, json};

use super::PATIENCE;
use crate::fleet::{Fleet, Member, Service};
use crate::support::Stores;

const PRODUCTS: usize = 400;
const EVENTS: usize = 100;
/// How much less memory Redis gets than it uses: a part of the prices.
const MISSING_BYTES: u64 = 100_000;

async fn command<T: FromRedisValue>(redis: &RedisServer, words: &[&str]) -> Result<T> {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    Ok(command.query_async(&mut redis.connection().await?).await?)
}

async fn set(redis: &RedisServer, setting: &str, value: &str) -> Result<()> {
    command(redis, &["CONFIG", "SET", setting, value]).await
}

/// A number in `INFO`.
async fn number(redis: &RedisServer, name: &str) -> Result<u64> {
    let info: String = command(redis, &["INFO"]).await?;
    let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(value.context("no such field")?.trim().parse()?)
}

async fn publish(api: &Member, count: usize) -> Result<HttpReply> {
    let events: Vec<Value> = (0..count)
        .map(|number| {
            json!({
                "specversion": "1.0", "id": number.to_string(), "source": "/test",
                "type": "pricing.competitor_price.v1", "time": Utc::now().to_rfc3339(),
                "data": {"product_id": format!("P-{number}"), "competitor": "acme", "price": 20},
            })
        })
        .collect();
    let request = api.client.request(Method::POST, "/api/v1/publish-market-event");
    let request = request.header("content-type", "application/cloudevents-batch+json");
    api.client.send(request.body(serde_json::to_string(&events)?)).await
}

#[tokio::test]
async fn no_event_is_acknowledged_that_a_full_redis_would_evict() -> Result<()> {
    let stores = Stores::start().await?;
    let redis = &stores.redis;
    let log = MessageKeys::new(DEFAULT_PREFIX).event_log();
    let fleet = Fleet::new(&redis.url(), &stores.database_url());
    let api = fleet.start(Service::Api).await?;
    let rows: String = (0..PRODUCTS).map(|number| format!("P-{number},USD,50\n")).collect();
    let import =
        api.client.request(Method::POST, "/api/v1/products/import").header("content-type", "text/csv");
    let imported = api.client.send(import.body(format!("product_id,currency,base_price\n{rows}"))).await?;
    ensure!(imported.status == 200, "{}", imported.text);

    set(redis, "maxmemory-policy", "allkeys-lru").await?;
    let refused = publish(&api, EVENTS).await?;
    ensure!(refused.status == 503 && refused.text.contains("maxmemory-policy"), "{}", refused.text);
    ensure!(refused.header("retry-after").is_some());
    let refused = api.client.request(Method::POST, "/api/v1/recalculations");
    let refused = api.client.send(refused).await?;
    ensure!(refused.status == 503 && refused.text.contains("maxmemory-policy"), "{}", refused.text);
    assert_eq!(command::<usize>(redis, &["XLEN", &log]).await?, 0);
    let stored =
        api.client.put("/api/v1/products/P-0", &json!({"currency": "USD", "base_price": 51})).await?;
    ensure!(stored.status.is_success(), "products are changed as before: {}", stored.text);

    set(redis, "maxmemory-policy", "volatile-lfu").await?;
    let accepted = publish(&api, EVENTS).await?;
    ensure!(accepted.status == 200, "{}", accepted.text);
    let ids: Vec<String> = (0..PRODUCTS).map(|number| format!("P-{number}")).collect();
    for ids in ids.chunks(20) {
        try_join_all(ids.iter().map(|id| api.client.price(id, "NY", false))).await?;
    }
    let limit = number(redis, "used_memory").await? - MISSING_BYTES;
    set(redis, "maxmemory", &limit.to_string()).await?;
    eventually("prices are evicted", PATIENCE, async || {
        let stored =
            api.client.put("/api/v1/products/P-1", &json!({"currency": "USD", "base_price": 52})).await?;
        let evicted = number(redis, "evicted_keys").await?;
        ensure!(evicted > 0, "{evicted}, {}", stored.status);
        Ok(())
    })
    .await?;
    assert_eq!(command::<usize>(redis, &["XLEN", &log]).await?, EVENTS);

    set(redis, "maxmemory", "0").await?;
    let _listener = fleet.start(Service::Listener).await?;
    let worker = fleet.start(Service::Worker).await?;
    eventually("all are applied", PATIENCE, async || {
        let applied = worker.metric("pricing_events_applied_total", "\"applied\"").await?;
        ensure!(applied == EVENTS as u64, "{applied}");
        Ok(())
    })
    .await
}
