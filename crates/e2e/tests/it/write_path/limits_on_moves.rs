//! Held prices go on by themselves, to the millisecond at every reader, with nothing but API processes.

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use pricing_core::store::Store;
use pricing_domain::facts::product::ProductId;
use pricing_e2e::eventually;
use serde_json::json;

use super::{Engine, PATIENCE, price_becomes};
use crate::fleet::{Member, Service};

/// A price that a process answered, and between which instants.
struct Reply {
    product_id: &'static str,
    sent_at: DateTime<Utc>,
    received_at: DateTime<Utc>,
    price: f64,
}

const PRODUCTS: [&str; 3] = ["HELD", "SALE", "BOTH"];

/// Two products follow a competitor, in steps of 10% every three seconds; two are in a sale of 40%.
fn policy(sale: [DateTime<Utc>; 2]) -> String {
    let [from, until] = sale.map(|instant| instant.to_rfc3339());
    format!(
        "name: limits\nmarket:\n  \
         - {{ name: follow, only: {{ products: [HELD, BOTH] }}, match: {{ competitor: {{ statistic: min }} }} }}\n  \
         - {{ name: sale, only: {{ products: [SALE, BOTH] }}, adjust: -40%, from: '{from}', until: '{until}' }}\n\
         guardrails: {{ max_step: 10%, min_time_between_changes: 3s }}\n"
    )
}

async fn read(api: &Member, product_id: &'static str) -> Result<Reply> {
    let sent_at = Utc::now();
    let reply = api.client.price(product_id, "NY", false).await?;
    let price = reply.body["final_price"].as_f64().context("no price")?;
    Ok(Reply { product_id, sent_at, received_at: Utc::now(), price })
}

/// The prices of a product with the instants from which they were in effect, the oldest first.
async fn history(store: &Store, product_id: &str) -> Result<Vec<(DateTime<Utc>, f64)>> {
    let changes = store.price_changes(&ProductId::parse(product_id)?, 100).await?;
    let mut prices = Vec::new();
    for change in changes.iter().rev() {
        let price = change.new_list_price.context("removed")?.to_string().parse()?;
        prices.push((change.changed_at, price));
    }
    Ok(prices)
}

#[tokio::test]
async fn held_prices_and_sales_go_on_to_the_millisecond_without_any_job() -> Result<()> {
    let mut engine = Engine::start("name: plain\n").await?;
    let rows = PRODUCTS.map(|id| format!("{id},USD,100,1\n")).concat();
    let csv = format!("product_id,currency,base_price,floor_price\n{rows}");
    let request = engine.api.client.request(reqwest::Method::POST, "/api/v1/products/import");
    ensure!(
        engine.api.client.send(request.header("content-type", "text/csv").body(csv)).await?.status == 200
    );
    let other = engine.fleet.start(Service::Api).await?;
    let sale = [12, 17].map(|seconds| Utc::now().trunc_subsecs(3) + TimeDelta::seconds(seconds));
    let publish = engine.api.client.request(reqwest::Method::POST, "/api/v1/policies?author=test");
    let publish = publish.header("content-type", "application/yaml").body(policy(sale));
    let published = engine.api.client.send(publish).await?;
    ensure!(published.status == 201, "{}", published.text);
    engine.ended(published.body["task_id"].as_str().context("no task_id")?).await?;
    for id in ["HELD", "BOTH"] {
        let data = json!({"product_id": id, "competitor": "acme", "price": 50});
        engine.publish(id, "competitor_price", data).await?;
        price_becomes(&engine.api, id, 90.0).await?;
        price_becomes(&other, id, 90.0).await?;
    }
    engine.worker.kill()?;
    engine.listener.kill()?;
    ensure!(Utc::now() < sale[0], "the host is too slow for this test");

    let mut replies = Vec::new();
    eventually("every price has reached its target", PATIENCE, async || {
        for product_id in PRODUCTS {
            for api in [&engine.api, &other] {
                replies.push(read(api, product_id).await?);
            }
        }
        let last: Vec<f64> = replies.iter().rev().take(6).map(|reply| reply.price).collect();
        ensure!(last == [50.0, 50.0, 100.0, 100.0, 50.0, 50.0], "{last:?}");
        Ok(())
    })
    .await?;

    let store = engine.store().await?;
    let steps = [90.0, 81.0, 72.9, 65.61, 59.05, 53.15, 50.0];
    let held = history(&store, "HELD").await?;
    let (event_at, _) = *held.get(1).context("no event")?;
    let seconds = |number: i64| event_at + TimeDelta::seconds(3 * number);
    let expected: Vec<_> = (0..).map(seconds).zip(steps).collect();
    assert_eq!(held[1..], expected);
    assert_eq!(history(&store, "SALE").await?[1..], [(sale[0], 60.0), (sale[1], 100.0)]);
    // The sale takes 40% off whatever is held, and its end gives them back.
    let both = history(&store, "BOTH").await?;
    let (event_at, _) = *both.get(1).context("no event")?;
    for (instant, price) in &both[1..] {
        let is_step = (*instant - event_at).num_milliseconds() % 3_000 == 0;
        assert!(is_step || sale.contains(instant), "{both:?}");
        let is_in_sale = (sale[0]..sale[1]).contains(instant);
        let without = if is_in_sale { price / 0.6 } else { *price };
        assert!(steps.iter().any(|step| (step - without).abs() < 0.02), "{price}: {both:?}");
    }
    for reply in &replies {
        let prices = history(&store, reply.product_id).await?;
        let before = prices.iter().rposition(|(instant, _)| *instant <= reply.sent_at).unwrap_or_default();
        let meanwhile = prices[before..].iter().take_while(|(instant, _)| *instant <= reply.received_at);
        let allowed: Vec<f64> = meanwhile.map(|(_, price)| *price).collect();
        assert!(allowed.contains(&reply.price), "{} at {}: {allowed:?}", reply.product_id, reply.sent_at);
    }
    Ok(())
}

#[tokio::test]
async fn a_release_lets_held_prices_go_to_their_targets() -> Result<()> {
    let policy = "name: limits\nmarket: [{ name: follow, match: { competitor: { statistic: min } } }]\n\
                  guardrails: { max_step: 10% }\ncircuit_breaker: { median_move: 60% }\n";
    let engine = Engine::start(policy).await?;
    engine.import(2).await?;
    for (id, price) in [("P-0", 50), ("P-1", 10)] {
        engine
            .publish(id, "competitor_price", json!({"product_id": id, "competitor": "acme", "price": price}))
            .await?;
        price_becomes(&engine.api, id, 90.0).await?;
    }
    let recalculated = engine.request_recalculation(json!({})).await?;
    engine.ended(&recalculated).await?;
    price_becomes(&engine.api, "P-0", 90.0).await?;
    let released = engine.request_recalculation(json!({"product_ids": ["P-0"], "release": true})).await?;
    assert_eq!(engine.ended(&released).await?["state"], "done");
    price_becomes(&engine.api, "P-0", 50.0).await?;
    price_becomes(&engine.api, "P-1", 90.0).await
}
