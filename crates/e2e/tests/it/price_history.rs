//! Price history: changes in pages, and the prior price of a reduction.

use anyhow::{Context, Result};
use chrono::{DateTime, TimeDelta, Utc};
use pricing_core::store::{PriceWrite, Store};
use pricing_domain::facts::product::ProductId;
use rust_decimal::Decimal;
use serde_json::json;

use crate::support::Stores;

/// Writes this history of an existing product: days before now, and cents.
async fn write_history(store: &Store, id: &ProductId, history: &[(i64, i64)]) -> Result<()> {
    for (days, cents) in history {
        let at: DateTime<Utc> = Utc::now() - TimeDelta::days(*days);
        let mut transaction = store.begin().await?;
        let facts = transaction.lock_facts(std::slice::from_ref(id)).await?.read(Utc::now())?.known;
        let stored = facts.into_iter().next().and_then(|facts| facts.price).context("no price")?;
        let revision = *transaction.next_revisions(1).await?.first().context("no revision")?;
        let mut entry = stored.entry.clone();
        (entry.revision, entry.list_price) = (revision, Decimal::new(*cents, 2));
        let write = PriceWrite {
            previous_list_price: Some(stored.entry.list_price),
            entry,
            opening_price: stored.state.opening_price,
            opened_on: stored.state.opened_on,
            movement: None,
            held_by: None,
            event_hold: None,
            earlier: Vec::new(),
            listed_at: at,
            changed_at: Some(at),
            streak: None,
            explanation: "{}".to_owned(),
            explanation_digest: 0,
            cause: "test".to_owned(),
            priced_at: at,
        };
        transaction.write_prices(store.prepare_prices(vec![write])?).await?;
        transaction.commit().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_reduction_is_announced_against_the_lowest_price_of_thirty_days() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    api.import("bananas,EUR,1.69\npineapple,EUR,1.69\nkettle,EUR,20.00\n").await?;
    let store = stores.store().await?;
    // The two cases of the Court of Justice, C-330/23, and a reduction in two steps.
    for (id, history) in [
        ("bananas", &[(50, 169), (30, 129), (12, 169), (5, 129)][..]),
        ("pineapple", &[(50, 169), (30, 139), (12, 169), (5, 149)]),
        ("kettle", &[(50, 2_500), (10, 1_500), (5, 1_000)]),
    ] {
        let id = ProductId::parse(id)?;
        // What the import wrote is of today, and would be the first.
        write_history(&store, &id, history).await?;
    }
    let none = (json!(null), json!(null));
    for (id, latest, progressive, lowest) in [
        ("bananas", none.clone(), none.clone(), 1.29),
        ("pineapple", none.clone(), none, 1.39),
        ("kettle", (json!(15.00), json!(33.33)), (json!(25.00), json!(60.0)), 10.00),
    ] {
        let reply = api.client.get(&format!("/api/v1/products/{id}/history")).await?;
        for (field, expected) in [("reduction", latest), ("progressive_reduction", progressive)] {
            let reduction = &reply.body[field];
            let said = (reduction["prior_price"].clone(), reduction["percent"].clone());
            assert_eq!(said, expected, "{id} {field}: {}", reply.text);
        }
        assert_eq!(reply.body["lowest_price_30_days"], json!(lowest), "{id}: {}", reply.text);
        assert_eq!(reply.body["is_lowest_price_known"], json!(true), "{id}: {}", reply.text);
    }
    Ok(())
}

#[tokio::test]
async fn a_reduction_is_not_complete_while_every_shopper_gets_an_offer() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    let publish = async |policy: &str| {
        let request = api.client.request(reqwest::Method::POST, "/api/v1/policies?author=zoe");
        let published = api
            .client
            .send(request.header("content-type", "application/yaml").body(policy.to_owned()))
            .await?;
        assert_eq!(published.status, 201, "{}", published.text);
        anyhow::Ok(())
    };
    let prices = async |id: &str, prices: &[&str]| {
        for price in prices {
            let product = json!({"currency": "EUR", "base_price": price});
            assert!(api.client.put(&format!("/api/v1/products/{id}"), &product).await?.status.is_success());
        }
        let reply = api.client.get(&format!("/api/v1/products/{id}/history")).await?;
        let reduction = &reply.body["reduction"];
        anyhow::Ok(
            ["prior_price", "percent", "is_complete", "incomplete_because"]
                .map(|name| reduction[name].clone()),
        )
    };
    // By the default policy, shoppers pay 95 % of the list price wherever no factor is set.
    let unknown_and_offers = json!(["prices_unknown", "offers_for_every_shopper"]);
    let expected = [json!(100.0), json!(4.0), json!(false), unknown_and_offers];
    assert_eq!(prices("P-1", &["100", "96"]).await?, expected);
    // Less than a hundredth of a percent is nothing to announce.
    assert_eq!(prices("P-2", &["1099.00", "1098.99"]).await?, [(); 4].map(|()| json!(null)));
    // It rose and fell to no less than it was.
    assert_eq!(prices("P-3", &["84.96", "119.94", "101.95"]).await?, [(); 4].map(|()| json!(null)));
    publish("name: plain\n").await?;
    // Still in the thirty days.
    assert_eq!(prices("P-4", &["100", "96"]).await?, expected);
    Ok(())
}

#[tokio::test]
async fn changes_are_read_in_pages_and_those_of_a_removed_product_stay() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    for price in [10, 11, 12, 13] {
        let product = json!({"currency": "USD", "base_price": price});
        assert!(api.client.put("/api/v1/products/P-1", &product).await?.status.is_success());
    }
    assert_eq!(api.client.delete("/api/v1/products/P-1").await?.status, 204);
    let mut changes = Vec::new();
    let mut path = "/api/v1/products/P-1/history?limit=2".to_owned();
    loop {
        let page = api.client.get(&path).await?;
        assert_eq!(page.status, 200, "{}", page.text);
        assert_eq!(page.body["reduction"], json!(null));
        changes.extend(page.body["changes"].as_array().context("no changes")?.clone());
        let Some(before) = page.body["next_before"].as_i64() else { break };
        path = format!("/api/v1/products/P-1/history?limit=2&before={before}");
    }
    let prices: Vec<String> = changes
        .iter()
        .map(|change| format!("{} {}", change["old_list_price"], change["new_list_price"]))
        .collect();
    assert_eq!(prices, ["13.0 null", "12.0 13.0", "11.0 12.0", "10.0 11.0", "null 10.0"]);
    assert_eq!(
        (&changes[0]["cause"], &changes[4]["cause"]),
        (&json!("product deleted"), &json!("product put"))
    );
    // A price in another currency is none to compare with, and does not hide the ones before it.
    for (currency, price) in [("EUR", 40), ("USD", 60), ("EUR", 80), ("EUR", 60)] {
        let product = json!({"currency": currency, "base_price": price});
        assert!(api.client.put("/api/v1/products/P-3", &product).await?.status.is_success());
    }
    let history = api.client.get("/api/v1/products/P-3/history?limit=4").await?;
    assert_eq!(history.body["lowest_price_30_days"], json!(40.0), "{}", history.text);
    assert_eq!(history.body["reduction"], json!(null), "60 is above 40: {}", history.text);
    assert_eq!(history.body["next_before"], json!(null), "{}", history.text);
    for (path, status) in [
        ("/api/v1/products/P-2/history", 404),
        ("/api/v1/products/a%20b/history", 404),
        ("/api/v1/products/P-1/history?limit=0", 422),
        ("/api/v1/products/P-1/history?limit=1001", 422),
        ("/api/v1/products/P-1/history?since=1", 422),
    ] {
        assert_eq!(api.client.get(path).await?.status, status, "{path}");
    }
    Ok(())
}
