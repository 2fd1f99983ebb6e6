//! A product in a currency that this version does not know, as a newer version may have written it: it is
//! reported and left out, and everything else goes on. On either database.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_e2e::{HttpClient, RedisServer, eventually};
use serde_json::json;
use sqlx::Connection;

use crate::fleet::{Fleet, Service};
use crate::support::{shared_postgres, sqlite_url};

const PATIENCE: Duration = Duration::from_secs(60);
const UNKNOWN: [&str; 2] = [
    "UPDATE products SET currency = 'QQQ' WHERE product_id = 'P-2'",
    "UPDATE prices SET currency = 'QQQ' WHERE product_id = 'P-2'",
];

#[tokio::test]
async fn one_product_that_cannot_be_read_stops_nothing_on_sqlite() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let url = sqlite_url(&directory.path().join("catalogue.db"));
    let database = url.clone();
    everything_else_goes_on(&url, async || {
        let mut connection = sqlx::SqliteConnection::connect(&database).await?;
        for statement in UNKNOWN {
            sqlx::query(statement).execute(&mut connection).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_product_that_cannot_be_read_stops_nothing_on_postgres() -> Result<()> {
    let server = shared_postgres().await?;
    let url = server.create_database("unknown_currency").await?;
    everything_else_goes_on(&url, async || {
        for statement in UNKNOWN {
            server.execute("unknown_currency", statement).await?;
        }
        Ok(())
    })
    .await
}

async fn everything_else_goes_on(database: &str, make_unknown: impl AsyncFn() -> Result<()>) -> Result<()> {
    let redis = RedisServer::start().await?;
    let fleet = Fleet::new(&redis.url(), database);
    let api = fleet.start(Service::Api).await?;
    let _listener = fleet.start(Service::Listener).await?;
    let worker = fleet.start(Service::Worker).await?;
    let client = &api.client;
    for number in 1..=3 {
        let product = json!({"currency": "USD", "base_price": 10 * number});
        let put = client.put(&format!("/api/v1/products/P-{number}"), &product).await?;
        ensure!(put.status == 201, "{}", put.text);
    }
    make_unknown().await?;

    for path in ["/api/v1/products/P-2", "/api/v1/products/P-2/explanation"] {
        let unreadable = client.get(path).await?;
        assert_eq!(unreadable.body["type"], "/problems/product-unreadable", "{}", unreadable.text);
        assert!(unreadable.text.contains("P-2") && unreadable.text.contains("QQQ"), "{}", unreadable.text);
    }

    let policy = "name: dearer\nmarket: [{ name: dearer, adjust: +10% }]\n";
    let published = client
        .request(reqwest::Method::POST, "/api/v1/policies?author=zoe")
        .header("content-type", "application/yaml")
        .body(policy);
    let published = client.send(published).await?;
    ensure!(published.status == 201, "{}", published.text);
    let task_id = published.body["task_id"].as_str().context("no task_id")?;
    let done = eventually("the recalculation is done", PATIENCE, async || {
        let reply = client.get(&format!("/api/v1/recalculations/{task_id}")).await?;
        ensure!(reply.body["state"] == "done", "{}", reply.text);
        Ok(reply.body)
    })
    .await?;
    assert_eq!((&done["products_total"], &done["products_done"]), (&json!(3), &json!(2)));
    for (product, price) in [("P-1", 11.0), ("P-3", 33.0)] {
        assert_eq!(client.price(product, "NY", false).await?.body["final_price"], json!(price), "{product}");
    }
    let said = worker.process.output()?;
    assert!(said.contains("a product is left out") && said.contains("P-2") && said.contains("QQQ"), "{said}");

    assert_eq!(report(client).await?["left_out"], json!({"products": 1, "product_ids": ["P-2"]}));
    let mended = client.put("/api/v1/products/P-2", &json!({"currency": "EUR", "base_price": 20})).await?;
    assert_eq!((mended.status.as_u16(), &mended.body["result"]), (200, &json!("updated")), "{}", mended.text);
    assert_eq!(client.price("P-2", "NY", false).await?.body["final_price"], json!(22.0));
    assert_eq!(report(client).await?["left_out"]["products"], json!(0));

    make_unknown().await?;
    assert_eq!(client.delete("/api/v1/products/P-2").await?.status, 204);
    assert_eq!(client.price("P-2", "NY", false).await?.status, 404, "no cache sells it any more");
    let history = client.get("/api/v1/products/P-2/history").await?;
    let (old, new) = (&history.body["changes"][0]["currency"], &history.body["changes"][1]["currency"]);
    assert_eq!((old, new), (&json!("QQQ"), &json!("EUR")), "{}", history.text);
    let again = client.put("/api/v1/products/P-2", &json!({"currency": "USD", "base_price": 20})).await?;
    assert_eq!(again.status, 201, "{}", again.text);
    assert_eq!(client.price("P-2", "NY", false).await?.body["final_price"], json!(22.0));
    Ok(())
}

/// What a simulation says last.
async fn report(client: &HttpClient) -> Result<serde_json::Value> {
    let simulation = client
        .request(reqwest::Method::POST, "/api/v1/policies/simulate")
        .header("content-type", "application/yaml")
        .body("name: plain\n");
    let text = client.send(simulation).await?.text;
    let last: serde_json::Value = serde_json::from_str(text.lines().last().context("no answer")?)?;
    Ok(last["report"].clone())
}
