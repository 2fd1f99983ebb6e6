//! The engine as the user of Redis that docs/operations.md names, who may do nothing else; and what is said
//! when Redis refuses something.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use pricing_e2e::{RedisServer, eventually};
use redis::FromRedisValue;
use reqwest::Method;
use serde_json::{Value, json};

use crate::fleet::{Fleet, Member, Service};
use crate::support::sqlite_url;

const PATIENCE: Duration = Duration::from_secs(90);
const PRODUCTS: usize = 50;

async fn command<T: FromRedisValue>(redis: &RedisServer, words: &[&str]) -> Result<T> {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    Ok(command.query_async(&mut redis.connection().await?).await?)
}

fn competitor_price(id: &str, product_id: &str, price: u32) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/test", "type": "pricing.competitor_price.v1",
        "time": Utc::now().to_rfc3339(),
        "data": {"product_id": product_id, "competitor": "acme", "price": price},
    })
}

async fn publish(api: &Member, events: &[Value]) -> Result<()> {
    let request = api.client.request(Method::POST, "/api/v1/publish-market-event");
    let request = request.header("content-type", "application/cloudevents-batch+json");
    let reply = api.client.send(request.body(serde_json::to_string(events)?)).await?;
    ensure!(reply.status == 200, "{}", reply.text);
    Ok(())
}

/// Waits until this many events have been applied.
async fn applied(workers: &[&Member], expected: u64) -> Result<()> {
    eventually("the events are applied", PATIENCE, async || {
        let mut applied = 0;
        for worker in workers {
            applied += worker.metric("pricing_events_applied_total", "\"applied\"").await?;
        }
        ensure!(applied >= expected, "{applied} of {expected}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_fleet_needs_no_right_that_the_documents_do_not_name() -> Result<()> {
    let redis = RedisServer::start_restricted().await?;
    let files = tempfile::tempdir()?;
    let fleet = Fleet::new(&redis.url(), &sqlite_url(&files.path().join("catalogue.db")));
    let (api, other) = (fleet.start(Service::Api).await?, fleet.start(Service::Api).await?);
    let _listener = fleet.start(Service::Listener).await?;
    let (mut first, second) = (fleet.start(Service::Worker).await?, fleet.start(Service::Worker).await?);
    let rows: String = (0..PRODUCTS).map(|number| format!("P-{number},USD,50\n")).collect();
    let import =
        api.client.request(Method::POST, "/api/v1/products/import").header("content-type", "text/csv");
    let imported = api.client.send(import.body(format!("product_id,currency,base_price\n{rows}"))).await?;
    ensure!(imported.status == 200, "{}", imported.text);

    // A change that one API makes reaches the memory of the other.
    let price = async |member: &Member| member.client.price("P-0", "NY", false).await;
    assert_eq!(price(&other).await?.body["final_price"], json!(47.5));
    let product = json!({"currency": "USD", "base_price": 60});
    ensure!(api.client.put("/api/v1/products/P-0", &product).await?.status.is_success());
    eventually("the notification has arrived", PATIENCE, async || {
        let reply = price(&other).await?;
        ensure!(reply.body["final_price"] == json!(57.0), "{}", reply.text);
        Ok(())
    })
    .await?;

    // Events, of the API's and of a foreign program, and one that is none.
    let events: Vec<Value> = (0..PRODUCTS)
        .map(|number| competitor_price(&format!("a-{number}"), &format!("P-{number}"), 40))
        .collect();
    publish(&api, &events).await?;
    applied(&[&first, &second], PRODUCTS as u64).await?;
    let foreign = competitor_price("foreign", "P-1", 41).to_string();
    command::<i64>(&redis, &["PUBLISH", "market_events", &foreign]).await?;
    command::<i64>(&redis, &["PUBLISH", "market_events", "no event"]).await?;
    applied(&[&first, &second], PRODUCTS as u64 + 1).await?;
    eventually("the other one is dead", PATIENCE, async || {
        let dead: usize = command(&redis, &["XLEN", "market_events:dead"]).await?;
        ensure!(dead == 1, "{dead}");
        Ok(())
    })
    .await?;

    // A worker dies with events in hand, and a recalculation follows.
    let events: Vec<Value> = (0..PRODUCTS)
        .map(|number| competitor_price(&format!("b-{number}"), &format!("P-{number}"), 39))
        .collect();
    publish(&api, &events).await?;
    first.kill()?;
    let requested = api.client.send(api.client.request(Method::POST, "/api/v1/recalculations")).await?;
    let task = requested.body["task_id"].as_str().context("no task")?.to_owned();
    eventually("the recalculation is done", PATIENCE, async || {
        let run = api.client.get(&format!("/api/v1/recalculations/{task}")).await?;
        ensure!(run.body["state"] == json!("done"), "{}", run.text);
        Ok(())
    })
    .await?;
    first.start_again()?;
    first.wait_until_ready().await?;
    for path in ["/api/v1/jobs", "/api/v1/price-differences", "/readyz"] {
        let reply = api.client.get(path).await?;
        ensure!(reply.status != 503 && reply.status != 500, "{path}: {}", reply.text);
    }
    assert_eq!(redis.refusals().await?, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn what_redis_refuses_is_said_with_its_words() -> Result<()> {
    let redis = RedisServer::start_restricted().await?;
    let files = tempfile::tempdir()?;
    let fleet = Fleet::new(&redis.url(), &sqlite_url(&files.path().join("catalogue.db")));
    let api = fleet.start(Service::Api).await?;
    command::<()>(&redis, &["ACL", "SETUSER", "pricing", "-set"]).await?;
    let reply = api.client.put("/api/v1/products/P-1", &json!({"currency": "USD", "base_price": 60})).await?;
    assert_eq!(reply.status, 503);
    ensure!(reply.text.contains("redis takes no writes"), "{}", reply.text);
    let reply = api.client.get("/readyz").await?;
    let checks = reply.body["checks"].as_array().context("no checks")?;
    let writes = checks.iter().find(|check| check["name"] == "redis_writes").context("no such check")?;
    let detail = writes["detail"].as_str().unwrap_or_default();
    ensure!(writes["status"] == "failed" && detail.contains("no permissions"), "{writes}");
    ensure!(detail.contains("'set'"), "it names the command: {writes}");
    command::<()>(&redis, &["ACL", "SETUSER", "pricing", "-zrevrange"]).await?;
    let reply = api.client.get("/api/v1/jobs").await?;
    ensure!(reply.status == 503 && reply.text.contains("redis refuses a command"), "{}", reply.text);
    eventually("the log says so", PATIENCE, async || {
        let log = api.process.output()?;
        for line in ["redis takes no writes", "redis refuses a command"] {
            ensure!(
                log.lines().any(|found| found.contains(line) && found.contains("no permissions")),
                "{log}"
            );
        }
        ensure!(!log.contains("redis does not answer"), "{log}");
        Ok(())
    })
    .await
}
