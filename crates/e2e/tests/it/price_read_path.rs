//! Reads: the cache tiers, prices per shopper, and outages.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use chrono::{SecondsFormat, Utc};
use pricing_e2e::{PostgresServer, RedisServer, eventually};
use serde_json::{Value, json};

use crate::support::{Api, Stores, new_policy, price_request};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_price_comes_from_the_database_then_from_memory_and_elsewhere_from_redis() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    api.import("P-1,USD,51.99\n").await?;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let reply = api.price("P-1", false).await?;
        seen.push((reply.body["source"].clone(), reply.header("x-cache").unwrap_or_default().to_owned()));
    }
    let other = stores.api().await?;
    for _ in 0..2 {
        let reply = other.price("P-1", false).await?;
        seen.push((reply.body["source"].clone(), reply.header("x-cache").unwrap_or_default().to_owned()));
    }
    let expected = [("database", "miss"), ("cache", "l1"), ("cache", "l2"), ("cache", "l1")];
    assert_eq!(seen, expected.map(|(source, tier)| (json!(source), tier.to_owned())));
    Ok(())
}

#[tokio::test]
async fn the_answer_is_the_tutorials_with_exact_digits() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    api.import("P-1,USD,51.99\nP-2,JPY,1250\nP-3,BHD,1.234\nP-4,USD,20\n").await?;
    assert_eq!(
        api.price("P-1", false).await?.text,
        r#"{"product_id":"P-1","final_price":49.39,"base_price":51.99,"list_price":51.99,"discount_rate":0,"source":"database","currency":"USD","policy_version":1,"revision":1,"valid_until":null,"personalised":true}"#
    );
    let prime = api.price("P-1", true).await?.text;
    assert!(
        prime.contains(r#""final_price":46.92,"base_price":51.99,"list_price":51.99,"discount_rate":0.05,"#),
        "{prime}"
    );
    for (product, amounts) in [
        ("P-2", r#""final_price":1188,"base_price":1250,"#),
        ("P-3", r#""final_price":1.172,"base_price":1.234,"#),
        ("P-4", r#""final_price":19.00,"base_price":20.00,"#),
    ] {
        let text = api.price(product, false).await?.text;
        assert!(text.contains(amounts), "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn many_prices_come_each_with_its_own_result() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    api.import("P-1,USD,51.99\nP-2,USD,10.00\n").await?;
    let request = json!({
        "user_location": "NY", "is_prime_member": true,
        "items": [{"product_id": "P-2"}, {"product_id": "none"}, {"product_id": "P-1", "quantity": 3}, {"product_id": "{x}"}, {"product_id": "P-1", "quantity": 0}, {"product_id": "P-2"}]
    });
    for _ in 0..2 {
        let reply = api.client.post("/api/v1/prices", &request).await?;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let results: Vec<String> = reply.body["prices"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|item| {
                let result = if item["error"].is_null() {
                    &item["price"]["final_price"]
                } else {
                    &item["error"]["type"]
                };
                format!("{} {result}", item["product_id"].as_str().unwrap_or_default())
            })
            .collect();
        assert_eq!(
            results,
            [
                "P-2 9.02",
                r#"none "/problems/product-not-found""#,
                "P-1 46.92",
                r#"{x} "/problems/invalid-request""#,
                r#"P-1 "/problems/invalid-request""#,
                "P-2 9.02",
            ]
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_a_price_request_says_beyond_what_is_known_is_refused() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    api.import("P-1,USD,51.99\nP-2,EUR,9.50\n").await?;
    for (more, field, nearest) in [
        (json!({"quantitiy": 50}), "quantitiy", "; the nearest field is quantity"),
        (json!({"country": "DE"}), "country", "; the nearest field is user_location"),
        (json!({"is_prime": true}), "is_prime", "; the nearest field is is_prime_member"),
        (json!({"at": "2026-12-24T00:00:00Z"}), "at", ""),
    ] {
        let mut request = json!({"product_id": "P-1", "user_location": "NY"});
        request
            .as_object_mut()
            .into_iter()
            .for_each(|fields| fields.extend(more.as_object().cloned().into_iter().flatten()));
        let reply = api.client.post("/api/v1/price", &request).await?;
        assert_eq!((reply.status.as_u16(), &reply.body["type"]), (422, &json!("/problems/invalid-request")));
        let error = &reply.body["errors"][0];
        assert_eq!(
            (&error["field"], &error["problem"]),
            (&json!(field), &json!(format!("is not known{nearest}")))
        );
    }
    let in_euros = json!({"product_id": "P-1", "user_location": "NY", "currency": "EUR"});
    let reply = api.client.post("/api/v1/price", &in_euros).await?;
    assert_eq!((reply.status.as_u16(), &reply.body["type"]), (422, &json!("/problems/other-currency")));
    assert_eq!(reply.body["detail"], "the price of \"P-1\" is in USD, not in \"EUR\"");
    let in_dollars = json!({"product_id": "P-1", "user_location": "NY", "currency": "USD"});
    assert_eq!(api.client.post("/api/v1/price", &in_dollars).await?.body["final_price"], json!(49.39));

    let items = json!([{"product_id": "P-1", "qty": 5}, {"product_id": 7}]);
    let reply = api.client.post("/api/v1/prices", &json!({"user_location": "NY", "items": items})).await?;
    let fields: Vec<&Value> =
        reply.body["errors"].as_array().into_iter().flatten().map(|error| &error["field"]).collect();
    assert_eq!(fields, ["items[0].qty", "items[1].product_id"], "{}", reply.text);
    let items =
        json!([{"product_id": "P-1"}, {"product_id": "P-2"}, {"product_id": "P-2", "currency": "EUR"}]);
    let basket = json!({"user_location": "NY", "currency": "USD", "items": items});
    let reply = api.client.post("/api/v1/prices", &basket).await?;
    let prices = reply.body["prices"].as_array().cloned().unwrap_or_default();
    let found: Vec<&Value> = prices.iter().map(|item| &item["error"]["type"]).collect();
    assert_eq!(found, [&Value::Null, &json!("/problems/other-currency"), &Value::Null], "{}", reply.text);
    Ok(())
}

#[tokio::test]
async fn a_stampede_on_a_cold_product_is_one_fill() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    api.import("P-1,USD,51.99\n").await?;
    let requests = (0..200).map(|_| api.price("P-1", false));
    let replies = futures::future::try_join_all(requests).await?;
    assert!(replies.iter().all(|reply| reply.body["final_price"] == json!(49.39)));
    assert_eq!(api.metric("pricing_fill_duration_seconds_count", "").await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_time_rule_stops_on_time_without_any_job() -> Result<()> {
    let stores = Stores::start().await?;
    // Enough for two starts and an import; a busy host gets a longer sale.
    for seconds in [4, 16, 64] {
        if sale_was_seen_to_end(&stores, Duration::from_secs(seconds)).await? {
            return Ok(());
        }
    }
    bail!("the sale was always over before a price could be asked for")
}

/// Whether a price was seen both in a sale that ends after this time and after it.
async fn sale_was_seen_to_end(stores: &Stores, lasts: Duration) -> Result<bool> {
    let store = stores.store().await?;
    let end = Utc::now() + lasts;
    let written = end.to_rfc3339_opts(SecondsFormat::Millis, true);
    let policy = format!("name: sale\nmarket: [{{ name: sale, adjust: -10%, until: {written} }}]\n");
    store.publish_policy(&new_policy(&policy), None, Utc::now()).await?;
    let (api, other) = (stores.api().await?, stores.api().await?);
    api.import("P-1,USD,100.00\n").await?;
    let mut prices = HashSet::new();
    while Utc::now() < end + Duration::from_millis(500) {
        for api in [&api, &other] {
            let before = Utc::now();
            let reply = api.price("P-1", false).await?;
            let after = Utc::now();
            let price = reply.body["final_price"].to_string();
            // A request that spans the end may see either.
            let expected = if after < end { "90.0" } else { "100.0" };
            ensure!(
                price == expected || (before < end && end <= after),
                "{price} between {before} and {after}, end {end}"
            );
            prices.insert(price);
        }
    }
    Ok(prices.len() == 2)
}

/// Each shopper's price, computed by hand: the location's factor, then the member's discount, rounded once.
fn expected_price(base_cents: u32, prime: bool) -> String {
    let ten_thousandths = u64::from(base_cents) * 95 * if prime { 95 } else { 100 };
    // Half to even on whole cents.
    let (cents, rest) = (ten_thousandths / 10_000, ten_thousandths % 10_000);
    let cents = cents + u64::from(rest > 5_000 || (rest == 5_000 && cents % 2 == 1));
    format!("{}.{:02}", cents / 100, cents % 100)
}

#[tokio::test]
async fn no_shopper_sees_anothers_price_in_any_order_and_cache_state() -> Result<()> {
    let stores = Stores::start().await?;
    let apis = [stores.api().await?, stores.api().await?];
    let products: Vec<(String, u32)> =
        (0..40).map(|number| (format!("P-{number}"), 1_001 + number * 337)).collect();
    let rows: String =
        products.iter().map(|(id, cents)| format!("{id},USD,{}.{:02}\n", cents / 100, cents % 100)).collect();
    apis[0].import(&rows).await?;
    let mut connection = stores.redis.connection().await?;
    // A fixed sequence that mixes products, shoppers and processes; now and then a cache is emptied.
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap_or(0)
    };
    for round in 0..60 {
        if round % 7 == 3 {
            redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await?;
        }
        let asked: Vec<(usize, usize, bool)> =
            (0..32).map(|_| (random(2), random(40), random(2) == 0)).collect();
        let replies =
            asked.iter().map(|(api, product, prime)| apis[*api].price(&products[*product].0, *prime));
        let replies = futures::future::try_join_all(replies).await?;
        for ((_, product, prime), reply) in asked.iter().zip(replies) {
            let (id, cents) = &products[*product];
            let price = format!(r#""final_price":{},"#, expected_price(*cents, *prime));
            ensure!(
                reply.text.contains(&price) && reply.body["product_id"] == json!(id),
                "{price} not in {}",
                reply.text
            );
        }
    }
    Ok(())
}

/// Reads prices until it is stopped; counts answered and failed requests.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<Result<()>>>,
}

impl Load {
    fn start(api: &Api, products: usize) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let tasks = (0..8_usize).map(|task| {
            let (client, stop, answered) = (api.client.clone(), Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut number = task;
                while !stop.load(Ordering::Relaxed) {
                    number = (number * 31 + 7) % products;
                    let request = price_request(&format!("P-{number}"), "NY", number.is_multiple_of(2));
                    let reply = client.post("/api/v1/price", &request).await?;
                    ensure!(reply.status == 200, "{} {}", reply.status, reply.text);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        });
        let tasks = tasks.collect();
        Self { stop, answered, tasks }
    }

    /// Waits until this many more requests were answered.
    async fn more(&self, requests: usize) -> Result<()> {
        let target = self.answered.load(Ordering::Relaxed) + requests;
        eventually("more requests are answered", PATIENCE, async || {
            ensure!(self.answered.load(Ordering::Relaxed) >= target, "not yet");
            Ok(())
        })
        .await
    }

    /// Ends the load; the first request that failed is the error.
    async fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await??;
        }
        Ok(())
    }
}

#[tokio::test]
async fn reads_go_on_when_redis_is_killed_and_use_it_again_when_it_is_back() -> Result<()> {
    let mut stores = Stores::start().await?;
    let settings = [("PRICING_L1_MAX_STALENESS", "20ms")];
    let api = Api::start_with(&stores.redis.url(), &stores.database_url(), &settings).await?;
    let rows: String = (0..500).map(|number| format!("P-{number},USD,{}.99\n", number + 1)).collect();
    api.import(&rows).await?;
    let load = Load::start(&api, 500);
    load.more(300).await?;
    stores.redis.kill()?;
    load.more(300).await?;
    stores.redis.restart().await?;
    let before = api.metric("pricing_price_reads_total", "l2").await?;
    eventually("prices are read from redis again", PATIENCE, async || {
        ensure!(api.metric("pricing_price_reads_total", "l2").await? > before, "not yet");
        Ok(())
    })
    .await?;
    load.end().await
}

#[tokio::test]
async fn with_redis_away_reads_go_on_and_writes_are_refused() -> Result<()> {
    let mut stores = Stores::start().await?;
    let api = stores.api().await?;
    api.import("P-1,USD,51.99\n").await?;
    api.price("P-1", false).await?;
    stores.redis.kill()?;
    assert_eq!(api.price("P-1", false).await?.body["source"], json!("cache"));
    let product = json!({"currency": "USD", "base_price": 5});
    let put = api.client.put("/api/v1/products/P-9", &product).await?;
    assert_eq!(
        (put.status.as_u16(), put.body["type"].as_str()),
        (503, Some("/problems/unavailable")),
        "{}",
        put.text
    );
    assert!(put.header("retry-after").is_some());
    let import = api.import_as("text/csv", "product_id,currency,base_price\nP-9,USD,5\n").await?;
    assert_eq!(import.status, 503);
    assert_eq!(api.client.get("/api/v1/products/P-9").await?.status, 404, "nothing was written");
    let ready = api.client.get("/readyz").await?;
    assert_eq!((ready.status.as_u16(), ready.body["status"].as_str()), (200, Some("degraded")));
    stores.redis.restart().await?;
    eventually("writes work again", PATIENCE, async || {
        let put = api.client.put("/api/v1/products/P-9", &product).await?;
        ensure!(put.status == 201 || put.status == 200, "{}", put.text);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn with_the_database_away_cached_reads_go_on_and_the_rest_says_when_to_retry() -> Result<()> {
    let redis = RedisServer::start().await?;
    let mut postgres = PostgresServer::start().await?;
    let database = postgres.create_database("away").await?;
    let settings = [("PRICING_L1_CAPACITY", "1000")];
    let api = Api::start_with(&redis.url(), &database, &settings).await?;
    api.import("P-1,USD,51.99\nP-2,USD,10.00\n").await?;
    api.price("P-1", false).await?;
    let other = Api::start(&redis.url(), &database).await?;
    postgres.kill()?;
    // Its processes that serve connections end a moment after the one that was killed.
    eventually("the database is away", PATIENCE, async || {
        let ready = other.client.get("/readyz").await?;
        ensure!(ready.body["status"] == "degraded", "{}", ready.text);
        Ok(())
    })
    .await?;
    assert_eq!(api.price("P-1", false).await?.header("x-cache"), Some("l1"));
    assert_eq!(other.price("P-1", false).await?.header("x-cache"), Some("l2"));
    let miss = other.client.price("P-2", "NY", false).await?;
    assert_eq!(
        (miss.status.as_u16(), miss.body["type"].as_str()),
        (503, Some("/problems/unavailable")),
        "{}",
        miss.text
    );
    assert!(miss.header("retry-after").is_some());
    let put = api.client.put("/api/v1/products/P-1", &json!({"currency": "USD", "base_price": 5})).await?;
    assert_eq!(put.status, 503, "{}", put.text);
    postgres.restart().await?;
    eventually("the database is used again", PATIENCE, async || {
        other.price("P-2", false).await?;
        Ok(())
    })
    .await
}
