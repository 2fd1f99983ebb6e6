//! Publishing: accepted and refused events, and batches, which are atomic.

use anyhow::{Context, Result, ensure};
use chrono::{TimeDelta, Utc};
use pricing_core::events::publish::{EVENT_LOG_CAPACITY, PUBLISH_BATCH, PublishError};
use pricing_e2e::{HttpClient, HttpReply, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Messages, PATIENCE, checked, event, next_message, numbered, subscribed};
use crate::fleet::{Fleet, Service};
use crate::support::{Stores, new_policy, sqlite_url};

const ROUTE: &str = "/api/v1/publish-market-event";

/// Posts a body as JSON.
async fn post(client: &HttpClient, body: impl Into<reqwest::Body>) -> Result<HttpReply> {
    let request = client.request(Method::POST, ROUTE).header("content-type", "application/json");
    client.send(request.body(body)).await
}

#[tokio::test]
async fn an_event_is_an_entry_and_a_message_that_names_it() -> Result<()> {
    let messages = Messages::start().await?;
    let mut channel = subscribed(&messages.redis.url()).await?;
    let ids = messages.publish(numbered("a", 3)).await?;
    assert_eq!(messages.length().await?, 3);
    for (id, (entry_id, mut entry)) in ids.iter().zip(messages.entries().await?) {
        assert_eq!(id, &entry_id);
        assert_eq!(entry.get("streamid"), None, "{entry}");
        entry["streamid"] = json!(id);
        assert_eq!(next_message(&mut channel).await?, entry);
    }
    assert_eq!(messages.publish(Vec::new()).await?, Vec::<String>::new());
    assert_eq!(messages.length().await?, 3);
    Ok(())
}

#[tokio::test]
async fn a_publisher_whose_connection_broke_publishes_at_once() -> Result<()> {
    let messages = Messages::start().await?;
    for round in 0..3 {
        messages.publish([format!("{round}")]).await?;
        messages.command::<i64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await?;
    }
    messages.publish(["last".to_owned()]).await?;
    let ids: Vec<Value> =
        messages.entries().await?.into_iter().map(|(_, entry)| entry["id"].clone()).collect();
    assert_eq!(ids, ["0", "1", "2", "last"]);
    Ok(())
}

#[tokio::test]
async fn a_full_stream_takes_nothing_of_a_batch_it_has_no_room_for() -> Result<()> {
    const FILL: &str = "for _ = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'event', '') end";
    let messages = Messages::start().await?;
    let key = messages.keys.event_log();
    for _ in 0..20 {
        let part = (EVENT_LOG_CAPACITY / 20).to_string();
        messages.command::<()>(&["EVAL", FILL, "1", &key, &part]).await?;
    }
    messages.command::<()>(&["XTRIM", &key, "MAXLEN", &(EVENT_LOG_CAPACITY - 2).to_string()]).await?;
    let events: Vec<_> = numbered("a", 3).iter().map(|id| checked(&event(id))).collect::<Result<_>>()?;
    let refused = messages.log.publish(&events).await;
    assert!(matches!(refused, Err(PublishError::Full)), "{refused:?}");
    assert_eq!(messages.length().await?, EVENT_LOG_CAPACITY - 2);
    assert_eq!(messages.log.publish(&events[..2]).await?.len(), 2);
    assert!(matches!(messages.log.publish(&events[..1]).await, Err(PublishError::Full)));
    assert_eq!(messages.length().await?, EVENT_LOG_CAPACITY);
    Ok(())
}

#[tokio::test]
async fn a_batch_is_published_as_a_whole_or_not_at_all() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    let messages = Messages::on(stores.redis).await?;
    let mut channel = subscribed(&messages.redis.url()).await?;
    let mut batch: Vec<Value> = numbered("wrong", 6).iter().map(|id| event(id)).collect();
    batch[3]["data"]["price"] = json!(-1);
    batch[5]["time"] = json!((Utc::now() + TimeDelta::hours(1)).to_rfc3339());
    let reply = api.client.post(ROUTE, &json!(batch)).await?;
    assert_eq!(reply.status, 422, "{}", reply.text);
    let fields: Vec<&Value> =
        reply.body["errors"].as_array().context("no errors")?.iter().map(|error| &error["field"]).collect();
    assert_eq!(fields, ["[3].data.price", "[5].time"]);
    assert_eq!(messages.length().await?, 0);

    let batch: Vec<Value> = numbered("right", PUBLISH_BATCH).iter().map(|id| event(id)).collect();
    let reply = api.client.post(ROUTE, &json!(batch)).await?;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.body["event_id"], "right-0");
    assert_eq!(reply.body["event_ids"], json!(numbered("right", PUBLISH_BATCH)));
    let entries = messages.entries().await?;
    assert_eq!(entries.len(), PUBLISH_BATCH);
    for ((id, entry), written) in entries.iter().zip(&batch) {
        assert_eq!(entry["id"], written["id"]);
        // If the wrong batch had been published, its events would come first.
        let message = next_message(&mut channel).await?;
        assert_eq!((&message["streamid"], &message["id"]), (&json!(id), &written["id"]));
    }
    Ok(())
}

#[tokio::test]
async fn an_invalid_event_is_refused_and_leaves_nothing_behind() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    let messages = Messages::on(stores.redis).await?;
    let with = |field: &str, value: Value| {
        let mut event = event("1");
        event[field] = value;
        event.to_string()
    };
    let too_many: Vec<Value> = numbered("a", PUBLISH_BATCH + 1).iter().map(|_| json!({})).collect();
    let future = (Utc::now() + TimeDelta::minutes(6)).to_rfc3339();
    for (body, status, problem, field) in [
        (with("note", json!("x".repeat(64 * 1024))), 413, "body-too-large", None),
        (format!("[{}]", with("note", json!("x".repeat(1024 * 1024)))), 413, "body-too-large", None),
        ("{".to_owned(), 400, "malformed-body", None),
        ("[{}".to_owned(), 400, "malformed-body", None),
        ("Recalculate_Triggered_v1".to_owned(), 400, "malformed-body", None),
        ("7".to_owned(), 422, "invalid-request", Some("body")),
        ("[]".to_owned(), 422, "invalid-request", Some("body")),
        (json!(too_many).to_string(), 422, "invalid-request", Some("body")),
        (with("time", json!(future)), 422, "invalid-request", Some("time")),
        (with("type", json!("pricing.competitor_price.v2")), 422, "invalid-request", Some("type")),
        (
            with("data", json!({"product_id": "P-1", "competitor": "a"})),
            422,
            "invalid-request",
            Some("data.price"),
        ),
    ] {
        let shown: String = body.chars().take(80).collect();
        let reply = post(&api.client, body).await?;
        assert_eq!(reply.status, status, "{shown}: {}", reply.text);
        assert_eq!(reply.body["type"], format!("/problems/{problem}"), "{shown}: {}", reply.text);
        if let Some(field) = field {
            assert_eq!(reply.body["errors"][0]["field"], field, "{shown}: {}", reply.text);
        }
    }
    // A body sent by mistake is no request to recalculate everything.
    for (header, value, body, field) in [
        ("ce-type", "com.example.order.created", "", "ce- headers"),
        ("ce-id", "1", "{\"level\":7}", "ce- headers"),
        ("content-type", "application/cloudevents+json", "", "body"),
        ("content-type", "application/cloudevents-batch+json", " ", "body"),
    ] {
        let mut request = api.client.request(Method::POST, ROUTE).header(header, value);
        if header != "content-type" && !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(body);
        let reply = api.client.send(request).await?;
        assert_eq!(reply.status, 422, "{header}: {value}: {}", reply.text);
        assert_eq!(reply.body["errors"][0]["field"], field, "{}", reply.text);
    }
    assert_eq!(messages.length().await?, 0);
    // Values at the bounds are accepted, and unknown attributes are allowed.
    let reply = post(&api.client, with("note", json!("x".repeat(60 * 1024)))).await?;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(messages.length().await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_post_without_a_body_ends_in_a_recalculation_that_can_be_looked_up() -> Result<()> {
    let messages = Messages::start().await?;
    let directory = tempfile::tempdir()?;
    let fleet = Fleet::new(&messages.redis.url(), &sqlite_url(&directory.path().join("catalogue.db")));
    let api = fleet.start(Service::Api).await?;
    let _listener = fleet.start(Service::Listener).await?;
    let _worker = fleet.start(Service::Worker).await?;
    let product = json!({"currency": "USD", "base_price": 10});
    ensure!(api.client.put("/api/v1/products/P-1", &product).await?.status == 201);
    let reply = api.client.send(api.client.request(Method::POST, ROUTE)).await?;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.body["status"], "Event published");
    assert_eq!(reply.body["channel"], messages.keys.event_channel());
    let event_id = reply.body["event_id"].as_str().context("no event_id")?;
    let done = eventually("the recalculation is done", PATIENCE, async || {
        let reply = api.client.get(&format!("/api/v1/recalculations/{event_id}")).await?;
        ensure!(reply.body["state"] == "done", "{} {}", reply.status, reply.text);
        Ok(reply.body)
    })
    .await?;
    assert_eq!(done["products_done"], 1, "{done}");
    Ok(())
}

#[tokio::test]
async fn without_redis_an_event_is_refused_and_may_be_published_again() -> Result<()> {
    let mut stores = Stores::start().await?;
    stores.store().await?.publish_policy(&new_policy("name: plain\n"), None, Utc::now()).await?;
    let api = stores.api().await?;
    stores.redis.kill()?;
    let reply = api.client.post(ROUTE, &event("1")).await?;
    assert_eq!((reply.status.as_u16(), &reply.body["type"]), (503, &json!("/problems/unavailable")));
    let retry_after = reply.header("retry-after").context("no Retry-After")?;
    assert!(retry_after.parse::<u64>().is_ok_and(|seconds| seconds > 0), "{retry_after}");
    stores.redis.restart().await?;
    eventually("it is taken in", PATIENCE, async || {
        let reply = api.client.post(ROUTE, &event("1")).await?;
        ensure!(reply.status == 200, "{}", reply.text);
        Ok(())
    })
    .await?;
    let messages = Messages::on(stores.redis).await?;
    assert_eq!(messages.length().await?, 1);
    Ok(())
}
