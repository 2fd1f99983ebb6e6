//! 20,000 products: imported whole, then read at random.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use serde_json::json;

use crate::support::{Api, Stores, price_request};

const PRODUCTS: usize = 20_000;
const CONCURRENT_REQUESTS: usize = 64;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_products_are_imported_and_every_shopper_gets_a_price() -> Result<()> {
    let stores = Stores::start().await?;
    // On a slow machine a pass takes longer than prices are held without word from Redis.
    let settings = [("PRICING_L1_MAX_STALENESS", "10m")];
    let api = Api::start_with(&stores.redis.url(), &stores.database_url(), &settings).await?;
    let csv = catalogue()?;
    let import = api.import_as("text/csv", &csv).await?;
    let taken = (import.body["created"].clone(), import.body["failed"].clone());
    ensure!(taken == (json!(PRODUCTS), json!(0)), "the import says {}", import.text);

    let ids: Vec<&str> = csv.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    for pass in 1..=2 {
        let requests = (0..PRODUCTS).map(|number| {
            // Every product once, in an order that jumps about.
            let id = ids[(number * 7_919) % ids.len()];
            let client = &api.client;
            async move {
                let request = price_request(id, "NY", number.is_multiple_of(2));
                let reply = client.post("/api/v1/price", &request).await?;
                ensure!(reply.status == 200, "{id}: {}", reply.text);
                let cached = reply.body["source"] == json!("cache");
                ensure!(pass == 1 || cached, "{id} was not in a cache: {}", reply.text);
                Ok(())
            }
        });
        futures::stream::iter(requests)
            .buffer_unordered(CONCURRENT_REQUESTS)
            .try_collect::<()>()
            .await
            .with_context(|| format!("pass {pass}"))?;
    }
    Ok(())
}

/// Names a CSV file with as many real products; `data/complete-journey.py --most-sold 20000` makes one.
const REAL_PRODUCTS: &str = "REAL_PRODUCTS_CSV";

/// The real products of that file if it is named, else as many generated ones.
pub(crate) fn catalogue() -> Result<String> {
    if let Some(file) = std::env::var_os(REAL_PRODUCTS) {
        return std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()));
    }
    // Not by a macro, whose text the test runner would keep to itself.
    writeln!(
        io::stderr(),
        "NOT WITH REAL PRODUCTS: {REAL_PRODUCTS} is not set, so the products are made up"
    )?;
    let mut csv = "product_id,name,category,brand,currency,base_price\n".to_owned();
    for number in 0..PRODUCTS {
        let cents = 99 + (number * 37) % 9_000;
        writeln!(
            csv,
            "G-{number},Product {number},Category {},Brand,USD,{}.{:02}",
            number % 50,
            cents / 100,
            cents % 100
        )?;
    }
    Ok(csv)
}
