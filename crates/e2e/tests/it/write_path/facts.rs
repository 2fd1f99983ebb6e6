//! Which word on a fact counts, what is forgotten, and what an explanation says of it, with real processes.

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use pricing_e2e::{HttpReply, eventually};
use redis::streams::StreamRangeReply;
use serde_json::{Value, json};

use super::{Engine, FOLLOWING, PATIENCE, price_becomes};

/// By the cost alone.
const BY_COST: &str = "name: by cost\nmarket:\n  - { name: cost, cost_plus: 10% }\n";

impl Engine {
    async fn put(&self, id: &str, product: &Value) -> Result<HttpReply> {
        let reply = self.api.client.put(&format!("/api/v1/products/{id}"), product).await?;
        ensure!(reply.status.is_success(), "{}", reply.text);
        Ok(reply)
    }

    async fn publish_of(&self, id: &str, event_type: &str, time: DateTime<Utc>, data: Value) -> Result<()> {
        let event = json!({
            "specversion": "1.0", "id": id, "source": "/test", "time": time.to_rfc3339(),
            "type": format!("pricing.{event_type}.v1"), "data": data,
        });
        let reply = self.api.client.post("/api/v1/publish-market-event", &event).await?;
        ensure!(reply.status == 200, "{}", reply.text);
        Ok(())
    }

    /// Waits until so many events were applied, or were before.
    async fn applied(&self, outcome: &str, events: u64) -> Result<()> {
        eventually("the events are applied", PATIENCE, async || {
            let applied =
                self.worker.metric("pricing_events_applied_total", &format!("\"{outcome}\"")).await?;
            ensure!(applied == events, "{applied}");
            Ok(())
        })
        .await
    }

    async fn explanation(&self, id: &str) -> Result<Value> {
        let reply = self.api.client.get(&format!("/api/v1/products/{id}/explanation")).await?;
        ensure!(reply.status == 200, "{}", reply.text);
        Ok(reply.body)
    }
}

#[tokio::test]
async fn of_the_seller_and_events_the_later_word_on_a_cost_counts() -> Result<()> {
    let engine = Engine::start(BY_COST).await?;
    let with_cost = |cost: u32| json!({"currency": "USD", "base_price": 100, "unit_cost": cost});
    let long_ago = Utc::now() - TimeDelta::days(700);
    engine.put("U-1", &with_cost(40)).await?;
    engine.publish_of("1", "unit_cost", long_ago, json!({"product_id": "U-1", "cost": 30})).await?;
    engine.applied("applied", 1).await?;
    price_becomes(&engine.api, "U-1", 44.0).await?;
    engine.put("U-1", &with_cost(80)).await?;
    price_becomes(&engine.api, "U-1", 88.0).await?;
    engine.publish_of("2", "unit_cost", Utc::now(), json!({"product_id": "U-1", "cost": 90})).await?;
    price_becomes(&engine.api, "U-1", 99.0).await?;
    let used = engine.explanation("U-1").await?["facts_used"][0].clone();
    assert_eq!(
        (&used["fact"], &used["value"], &used["source"]),
        (&json!("unit_cost"), &json!(90), &json!("/test"))
    );
    // A row that is otherwise as it was states the cost as of now.
    let again = engine.put("U-1", &with_cost(80)).await?;
    assert_eq!(again.body["result"], json!("unchanged"));
    price_becomes(&engine.api, "U-1", 88.0).await?;
    let used = engine.explanation("U-1").await?["facts_used"][0].clone();
    assert_eq!((&used["value"], &used["source"]), (&json!(80), &json!("product")));
    let imported = "product_id,currency,base_price,unit_cost\nU-1,USD,100,85\n";
    let request = engine.api.client.request(reqwest::Method::POST, "/api/v1/products/import");
    let reply = engine.api.client.send(request.header("content-type", "text/csv").body(imported)).await?;
    assert_eq!(reply.body["updated"], json!(1), "{}", reply.text);
    price_becomes(&engine.api, "U-1", 93.5).await?;
    // Removed and created again, it has the cost that it is made with.
    assert_eq!(engine.api.client.delete("/api/v1/products/U-1").await?.status, 204);
    engine.publish_of("3", "unit_cost", long_ago, json!({"product_id": "U-1", "cost": 20})).await?;
    engine.applied("applied", 3).await?;
    engine.put("U-1", &json!({"currency": "USD", "base_price": 100})).await?;
    assert_eq!(engine.explanation("U-1").await?["explanation"]["outcome"], json!("frozen"));
    Ok(())
}

#[tokio::test]
async fn a_price_in_another_currency_is_reported_and_not_used() -> Result<()> {
    let engine = Engine::start(FOLLOWING).await?;
    engine.import(2).await?;
    let price = |currency: &str, price: u32| json!({"product_id": "P-1", "competitor": "acme", "price": price, "currency": currency});
    engine.publish("1", "competitor_price", price("USD", 60)).await?;
    price_becomes(&engine.api, "P-1", 60.0).await?;
    engine.publish("2", "competitor_price", price("EUR", 50)).await?;
    engine.applied("other_currency", 1).await?;
    price_becomes(&engine.api, "P-1", 60.0).await?;
    assert!(engine.worker.process.output()?.contains("another currency"));
    Ok(())
}

#[tokio::test]
async fn what_expires_or_is_withdrawn_is_not_known_any_more() -> Result<()> {
    let engine = Engine::start(FOLLOWING).await?;
    engine.import(2).await?;
    let price = json!({"product_id": "P-1", "competitor": "acme", "price": 60});
    engine.publish("1", "competitor_price", price).await?;
    price_becomes(&engine.api, "P-1", 60.0).await?;
    let withdrawn = json!({"product_id": "P-1", "kind": "competitor_price", "competitor": "acme"});
    engine.publish("2", "fact_withdrawn", withdrawn).await?;
    price_becomes(&engine.api, "P-1", 100.0).await?;
    let publish = async |id: &str, product: &str, time: DateTime<Utc>, expires: DateTime<Utc>| {
        let event = json!({
            "specversion": "1.0", "id": id, "source": "/test", "time": time, "expires": expires,
            "type": "pricing.demand_index.v1", "data": {"product_id": product, "index": 1.5},
        });
        let reply = engine.api.client.post("/api/v1/publish-market-event", &event).await?;
        ensure!(reply.status == 200, "{}", reply.text);
        Ok(())
    };
    let (now, hour) = (Utc::now().trunc_subsecs(6), TimeDelta::hours(1));
    publish("3", "P-1", now, now + hour).await?;
    price_becomes(&engine.api, "P-1", 150.0).await?;
    let valid_until = engine.api.client.price("P-1", "NY", false).await?.body["valid_until"].clone();
    assert_eq!(serde_json::from_value::<DateTime<Utc>>(valid_until)?, now + hour);
    // It was over before it came.
    publish("4", "P-0", now - hour - hour, now - hour).await?;
    engine.applied("applied", 4).await?;
    price_becomes(&engine.api, "P-0", 100.0).await
}

#[tokio::test]
async fn an_explanation_says_what_is_known_also_where_the_price_stays() -> Result<()> {
    let policy = "name: margin\nmarket:\n  - { name: margin, target_margin: 40% }\n";
    let engine = Engine::start(policy).await?;
    let product = json!({"currency": "USD", "base_price": 9, "unit_cost": 6, "floor_price": 1});
    engine.put("P-1", &product).await?;
    let first = engine.explanation("P-1").await?;
    assert_eq!((&first["list_price"], &first["explanation"]["outcome"]), (&json!(10.0), &json!("priced")));
    // Nothing differs: the explanation stays as it is.
    engine.put("P-1", &product).await?;
    let recalculated = engine.request_recalculation(json!({})).await?;
    engine.ended(&recalculated).await?;
    assert_eq!(engine.explanation("P-1").await?["explanation"], first["explanation"]);
    // The price stays; its outcome does not.
    engine.put("P-1", &json!({"currency": "USD", "base_price": 9, "floor_price": 1})).await?;
    let frozen = engine.explanation("P-1").await?;
    assert_eq!((&frozen["list_price"], &frozen["revision"]), (&first["list_price"], &first["revision"]));
    assert_eq!(frozen["explanation"]["outcome"], json!("frozen"));
    engine.publish("1", "stock_level", json!({"product_id": "P-1", "level": 50})).await?;
    eventually("the stock is explained", PATIENCE, async || {
        let explained = engine.explanation("P-1").await?;
        ensure!(explained["explanation"]["facts"]["signals"]["stock_level"] == json!(50), "{explained}");
        assert_eq!(explained["revision"], first["revision"]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_event_that_is_sent_again_sends_followers_no_second_message() -> Result<()> {
    let engine = Engine::start(FOLLOWING).await?;
    engine.import(2).await?;
    let price = json!({"product_id": "P-1", "competitor": "acme", "price": 60});
    engine.publish("1", "competitor_price", price.clone()).await?;
    price_becomes(&engine.api, "P-1", 60.0).await?;
    for _ in 0..5 {
        engine.publish("1", "competitor_price", price.clone()).await?;
    }
    engine.applied("repeated", 5).await?;
    // Its notice comes after theirs, if those come.
    engine
        .publish("2", "competitor_price", json!({"product_id": "P-0", "competitor": "acme", "price": 50}))
        .await?;
    price_becomes(&engine.api, "P-0", 50.0).await?;
    let mut redis = engine.stores.redis.connection().await?;
    let mut range = redis::cmd("XRANGE");
    let kept: StreamRangeReply =
        range.arg("price_changes:log").arg("-").arg("+").query_async(&mut redis).await?;
    let mut notifications = 0;
    for entry in &kept.ids {
        let text: String = entry.get("notice").context("an entry without a notice")?;
        let notification: Value = serde_json::from_str(&text)?;
        let changes = notification["changes"].as_array().into_iter().flatten();
        notifications += changes.filter(|changed| changed["change"]["new_list_price"] == json!(60.0)).count();
    }
    assert_eq!(notifications, 1);
    Ok(())
}
