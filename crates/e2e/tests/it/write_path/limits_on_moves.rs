//! Held prices continue to the millisecond at every reader, with nothing but API processes.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use pricing_core::store::Store;
use pricing_domain::facts::product::ProductId;
use pricing_e2e::eventually;
use rust_decimal::Decimal;
use serde_json::json;

use super::{Engine, PATIENCE, price_becomes};
use crate::fleet::{Member, Service};

/// A price that a process answered, and between which instants.
struct Reply {
    product_id: &'static str,
    sent_at: DateTime<Utc>,
    received_at: DateTime<Utc>,
    price: Decimal,
}

/// A price that a limit holds; one in a sale; both; one whose competitor goes away and comes back within the
/// pause; one that a policy changes and a rollback changes back; and one that climbs with each fact.
const PRODUCTS: [&str; 6] = ["HELD", "SALE", "BOTH", "GONE", "BACK", "CLIMBS"];

/// Those that follow a competitor.
const FOLLOWING: [&str; 4] = ["HELD", "BOTH", "GONE", "BACK"];

/// Four products follow a competitor, in steps of 10% every three seconds; two are in a sale of 40%.
fn policy(sale: [DateTime<Utc>; 2], more: &str) -> String {
    let [from, until] = sale.map(|instant| instant.to_rfc3339());
    format!(
        "name: limits\nmarket:\n  \
         - {{ name: follow, only: {{ products: [HELD, BOTH, GONE, BACK] }}, match: {{ competitor: {{ statistic: min }} }} }}\n  \
         - {{ name: sale, only: {{ products: [SALE, BOTH] }}, adjust: -40%, from: '{from}', until: '{until}' }}\n  \
         - {{ name: climb, only: {{ products: [CLIMBS] }}, set_to: price.current * 1.01 }}\n{more}\
         guardrails: {{ max_step: 10%, min_time_between_changes: 3s }}\n"
    )
}

fn prices<const N: usize>(written: [&str; N]) -> [Decimal; N] {
    written.map(|price| price.parse().unwrap_or_default())
}

async fn read(api: &Member, product_id: &'static str) -> Result<Reply> {
    let sent_at = Utc::now();
    let reply = api.client.price(product_id, "NY", false).await?;
    let price = reply.body["final_price"].to_string().parse()?;
    Ok(Reply { product_id, sent_at, received_at: Utc::now(), price })
}

/// The prices of a product with the instants from which they were in effect, the oldest first.
async fn history(store: &Store, product_id: &str) -> Result<Vec<(DateTime<Utc>, Decimal)>> {
    let changes = store.price_changes(&ProductId::parse(product_id)?, 100).await?;
    let mut prices = Vec::new();
    for change in changes.iter().rev() {
        let price = change.new_list_price.context("removed")?;
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
    let sale = [16, 22].map(|seconds| Utc::now().trunc_subsecs(3) + TimeDelta::seconds(seconds));
    let publish = async |document: String| {
        let publish = engine.api.client.request(reqwest::Method::POST, "/api/v1/policies?author=test");
        let publish = publish.header("content-type", "application/yaml").body(document);
        let published = engine.api.client.send(publish).await?;
        ensure!(published.status == 201, "{}", published.text);
        engine.ended(published.body["task_id"].as_str().context("no task_id")?).await
    };
    publish(policy(sale, "")).await?;
    for id in FOLLOWING {
        let data = json!({"product_id": id, "competitor": "acme", "price": 50});
        engine.publish(id, "competitor_price", data.clone()).await?;
        price_becomes(&engine.api, id, 90.0).await?;
        price_becomes(&other, id, 90.0).await?;
        if id == "GONE" {
            let gone = json!({"product_id": id, "kind": "competitor_price", "competitor": "acme"});
            engine.publish("gone", "fact_withdrawn", gone).await?;
            engine.publish("again", "competitor_price", data).await?;
        }
    }
    engine.publish("stock", "stock_level", json!({"product_id": "CLIMBS", "level": 5})).await?;
    price_becomes(&engine.api, "CLIMBS", 102.01).await?;
    let dear = "  - { name: dear, only: { products: [BACK] }, adjust: +20% }\n";
    publish(policy(sale, dear)).await?;
    publish(policy(sale, "")).await?;
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
        let last: Vec<Decimal> = replies.iter().rev().take(12).map(|reply| reply.price).collect();
        let targets = prices(["102.01", "50", "50", "50", "100", "50"]);
        ensure!(last.chunks(2).zip(targets).all(|(both, target)| both == [target; 2]), "{last:?}");
        ensure!(Utc::now() > sale[1], "the sale is not over");
        Ok(())
    })
    .await?;

    let store = engine.store().await?;
    histories_are_right(&store, sale).await?;
    replies_are_of_the_history(&store, &replies).await
}

/// Each change has the instant at which it fell due.
async fn histories_are_right(store: &Store, sale: [DateTime<Utc>; 2]) -> Result<()> {
    let steps = prices(["90", "81", "72.90", "65.61", "59.05", "53.15", "50"]);
    for product_id in ["HELD", "GONE"] {
        let held = history(store, product_id).await?;
        let (event_at, _) = *held.get(1).context("no event")?;
        let seconds = |number: i64| event_at + TimeDelta::seconds(3 * number);
        let expected: Vec<_> = (0..).map(seconds).zip(steps).collect();
        assert_eq!(held[1..], expected, "{product_id}");
    }
    let climbs = history(store, "CLIMBS").await?;
    assert_eq!(climbs.iter().map(|(_, price)| *price).collect::<Vec<_>>(), prices(["100", "101", "102.01"]));
    // The policy makes it a fifth dearer at once, the rollback takes that back, and the steps continue.
    let back = history(store, "BACK").await?;
    let (event_at, _) = *back.get(1).context("no event")?;
    let is_step = |instant: DateTime<Utc>| (instant - event_at).num_milliseconds() % 3_000 == 0;
    let by_policy: Vec<usize> = (1..back.len()).filter(|place| !is_step(back[*place].0)).collect();
    let [up, down] = by_policy[..] else { anyhow::bail!("{back:?}") };
    for (place, (times, parts)) in [(up, (12, 10)), (down, (10, 12))] {
        let (before, after) = (back[place - 1].1, back[place].1);
        let expected = before * Decimal::from(times) / Decimal::from(parts);
        assert!((after - expected).abs() < Decimal::new(2, 2), "{back:?}");
    }
    assert_eq!(back.last().map(|(_, price)| *price), Some(Decimal::from(50)), "{back:?}");
    assert_eq!(
        history(store, "SALE").await?[1..],
        [(sale[0], Decimal::from(60)), (sale[1], Decimal::ONE_HUNDRED)]
    );
    // The sale takes 40% off whatever is held, and its end gives them back.
    let both = history(store, "BOTH").await?;
    let (event_at, _) = *both.get(1).context("no event")?;
    for (instant, price) in &both[1..] {
        let is_step = (*instant - event_at).num_milliseconds() % 3_000 == 0;
        assert!(is_step || sale.contains(instant), "{both:?}");
        let is_in_sale = (sale[0]..sale[1]).contains(instant);
        let without = if is_in_sale { price * Decimal::TEN / Decimal::from(6) } else { *price };
        assert!(steps.iter().any(|step| (*step - without).abs() < Decimal::new(5, 2)), "{price}: {both:?}");
    }
    Ok(())
}

/// Each reply is a price that was in effect between the request and the answer.
async fn replies_are_of_the_history(store: &Store, replies: &[Reply]) -> Result<()> {
    let mut histories = HashMap::new();
    for product_id in PRODUCTS {
        histories.insert(product_id, history(store, product_id).await?);
    }
    for reply in replies {
        let prices = histories.get(reply.product_id).context("no history")?;
        let before = prices.iter().rposition(|(instant, _)| *instant <= reply.sent_at).unwrap_or_default();
        let meanwhile = prices[before..].iter().take_while(|(instant, _)| *instant <= reply.received_at);
        let allowed: Vec<Decimal> = meanwhile.map(|(_, price)| *price).collect();
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
