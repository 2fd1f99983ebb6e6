//! No cache wins over the database, whatever happened to either.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use pricing_e2e::{HttpClient, RedisServer, ServiceProcess, eventually, free_port};
use serde_json::{Value, json};

use crate::support::{Api, Stores, new_policy, shared_postgres, sqlite_url};

const PATIENCE: Duration = Duration::from_secs(60);

async fn put(api: &Api, product_id: &str, currency: &str, base_price: Value) -> Result<()> {
    let product = json!({"currency": currency, "base_price": base_price});
    let reply = api.client.put(&format!("/api/v1/products/{product_id}"), &product).await?;
    ensure!(reply.status.is_success(), "{}", reply.text);
    Ok(())
}

/// The price's key and value in Redis.
async fn in_redis(redis: &RedisServer, product_id: &str) -> Result<(String, Vec<u8>)> {
    let mut connection = redis.connection().await?;
    let pattern = format!("*:price:{product_id}");
    let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await?;
    let key = keys.into_iter().next().context("no such key")?;
    let value = redis::cmd("GET").arg(&key).query_async(&mut connection).await?;
    Ok((key, value))
}

#[tokio::test]
async fn a_redis_that_went_back_in_time_does_not_win_over_what_is_known() -> Result<()> {
    let stores = Stores::start().await?;
    let settings = [("PRICING_L1_MAX_STALENESS", "1ms")];
    let api = Api::start_with(&stores.redis.url(), &stores.database_url(), &settings).await?;
    put(&api, "P-1", "USD", json!(10)).await?;
    api.price("P-1", false).await?;
    let (key, old) = in_redis(&stores.redis, "P-1").await?;
    put(&api, "P-1", "USD", json!(20)).await?;
    let mut connection = stores.redis.connection().await?;
    redis::cmd("SET").arg(&key).arg(old).query_async::<()>(&mut connection).await?;
    for _ in 0..3 {
        assert_eq!(api.price("P-1", false).await?.body["final_price"], json!(19.0));
    }
    assert_eq!(
        stores.api().await?.price("P-1", false).await?.body["final_price"],
        json!(19.0),
        "redis was mended"
    );
    Ok(())
}

#[tokio::test]
async fn another_database_finds_no_prices_of_the_first_in_redis() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    for base_price in [10, 11, 12] {
        put(&api, "P-1", "USD", json!(base_price)).await?;
    }
    let files = tempfile::tempdir()?;
    let other = Api::start(&stores.redis.url(), &sqlite_url(&files.path().join("other.db"))).await?;
    assert_eq!(other.client.price("P-1", "NY", false).await?.status, 404);
    put(&other, "P-1", "EUR", json!(77)).await?;
    let price = other.price("P-1", false).await?;
    assert_eq!((&price.body["final_price"], &price.body["currency"]), (&json!(73.15), &json!("EUR")));
    Ok(())
}

#[tokio::test]
async fn a_value_that_is_no_price_is_replaced() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    put(&api, "P-1", "USD", json!(10)).await?;
    api.price("P-1", false).await?;
    let (key, _) = in_redis(&stores.redis, "P-1").await?;
    let mut connection = stores.redis.connection().await?;
    redis::cmd("DEL").arg(&key).query_async::<()>(&mut connection).await?;
    redis::cmd("LPUSH").arg(&key).arg("x").query_async::<()>(&mut connection).await?;
    let other = stores.api().await?;
    assert_eq!(other.price("P-1", false).await?.body["final_price"], json!(9.5));
    put(&other, "P-1", "USD", json!(20)).await?;
    assert_eq!(stores.api().await?.price("P-1", false).await?.header("x-cache"), Some("l2"));
    Ok(())
}

#[tokio::test]
async fn an_entry_that_cannot_be_the_catalogues_is_passed_over_and_replaced() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    for id in ["P-1", "P-2"] {
        put(&api, id, "USD", json!(10)).await?;
        api.price(id, false).await?;
    }
    let (key, sound) = in_redis(&stores.redis, "P-1").await?;
    let (_, of_other) = in_redis(&stores.redis, "P-2").await?;
    let sound = String::from_utf8(sound)?;
    let body = &sound[20..];
    let newest = i64::MAX.to_string();
    let mut cheap: Value = serde_json::from_str(body)?;
    cheap["list_price"] = json!("0.01");
    cheap["revision"] = json!(i64::MAX);
    let mut long = sound.clone();
    long.push_str(&" ".repeat(8_000_000));
    let forged = [
        format!("0{newest}{cheap}"),
        format!("0{newest}"),
        sound.replace("USD", "JPY"),
        sound.replace("USD", "ZZZ"),
        sound.replacen(body, "{}", 1),
        String::from_utf8(of_other)?,
        long,
    ];
    let mut connection = stores.redis.connection().await?;
    let settings = [("PRICING_L1_MAX_STALENESS", "1ms")];
    let other = Api::start_with(&stores.redis.url(), &stores.database_url(), &settings).await?;
    for forged in &forged {
        let refused = other.metric("pricing_l2_refused_total", "").await?;
        redis::cmd("SET").arg(&key).arg(forged).query_async::<()>(&mut connection).await?;
        let shown: String = forged.chars().take(200).collect();
        // A busy server may not answer a read in time; the price then comes from the database, too.
        eventually("it is replaced", PATIENCE, async || {
            let price = other.price("P-1", false).await?;
            assert_eq!(price.body["final_price"], json!(9.5), "{shown}");
            ensure!(other.metric("pricing_l2_refused_total", "").await? > refused, "{shown}");
            let (_, replaced) = in_redis(&stores.redis, "P-1").await?;
            ensure!(replaced == sound.as_bytes(), "{shown}");
            Ok(())
        })
        .await?;
    }
    // It does not hold back a newer price either.
    redis::cmd("SET").arg(&key).arg(&forged[0]).query_async::<()>(&mut connection).await?;
    put(&api, "P-1", "USD", json!(200)).await?;
    let (_, replaced) = in_redis(&stores.redis, "P-1").await?;
    assert!(!replaced.starts_with(&forged[0].as_bytes()[..20]));
    assert_eq!(stores.api().await?.price("P-1", false).await?.body["final_price"], json!(190.0));
    Ok(())
}

#[tokio::test]
async fn an_entry_without_an_expiry_gets_one_when_it_is_read() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    put(&api, "P-1", "USD", json!(10)).await?;
    api.price("P-1", false).await?;
    let (key, _) = in_redis(&stores.redis, "P-1").await?;
    let mut connection = stores.redis.connection().await?;
    redis::cmd("PERSIST").arg(&key).query_async::<()>(&mut connection).await?;
    let settings = [("PRICING_L1_MAX_STALENESS", "1ms")];
    let other = Api::start_with(&stores.redis.url(), &stores.database_url(), &settings).await?;
    eventually("it expires", PATIENCE, async || {
        other.price("P-1", false).await?;
        let ttl_ms: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection.clone()).await?;
        ensure!((1..=60 * 60 * 1_000).contains(&ttl_ms), "{ttl_ms}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_new_currency_or_base_price_is_not_held_back_by_the_old_price() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    for (currency, base_price, price) in [
        ("USD", json!(51.99), json!(49.39)),
        ("JPY", json!(8000), json!(7600)),
        ("JPY", json!(100), json!(95)),
        ("USD", json!(1000), json!(950.0)),
    ] {
        put(&api, "P-1", currency, base_price).await?;
        assert_eq!(api.price("P-1", false).await?.body["final_price"], price);
    }
    Ok(())
}

#[tokio::test]
async fn a_redis_that_takes_no_writes_refuses_them_before_anything_is_stored() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    let mut connection = stores.redis.connection().await?;
    let mut limit = redis::cmd("CONFIG");
    limit.arg("SET").arg("maxmemory").arg("1").query_async::<()>(&mut connection).await?;
    let product = json!({"currency": "USD", "base_price": 5});
    assert_eq!(api.client.put("/api/v1/products/P-9", &product).await?.status, 503);
    assert_eq!(api.client.get("/api/v1/products/P-9").await?.status, 404);
    Ok(())
}

#[tokio::test]
async fn a_policy_that_cannot_be_used_is_skipped() -> Result<()> {
    let stores = Stores::start().await?;
    let store = stores.store().await?;
    store.publish_policy(&new_policy("name: usable\noffer: []\n"), None, Utc::now()).await?;
    let api = stores.api().await?;
    for _ in 0..3 {
        store.publish_policy(&new_policy("nonsense: ["), None, Utc::now()).await?;
    }
    put(&api, "P-1", "USD", json!(10)).await?;
    let price = api.price("P-1", false).await?;
    assert_eq!((&price.body["final_price"], &price.body["policy_version"]), (&json!(10.0), &json!(1)));

    // A process that starts now reports that it cannot use the policy, until a usable one is published.
    let listen = format!("127.0.0.1:{}", free_port()?);
    let environment = [
        ("PRICING_API_LISTEN", listen.as_str()),
        ("PRICING_REDIS_URL", &stores.redis.url()),
        ("PRICING_DATABASE_URL", &stores.database_url()),
    ];
    let _process = ServiceProcess::start("pricing-api", &environment, &[])?;
    let later = HttpClient::new(format!("http://{listen}"))?;
    let readiness_becomes = async |status: u16| {
        eventually(&format!("/readyz answers {status}"), PATIENCE, async || {
            let reply = later.get("/readyz").await?;
            ensure!(reply.status == status, "{}", reply.text);
            Ok(reply.body)
        })
        .await
    };
    let body = readiness_becomes(503).await?;
    let is_policy = |check: &Value| check["name"] == "policy" && check["status"] == "failed";
    assert!(body["checks"].as_array().is_some_and(|checks| checks.iter().any(is_policy)), "{body}");
    assert_eq!(api.client.get("/readyz").await?.status, 200);
    store.publish_policy(&new_policy("name: better\n"), None, Utc::now()).await?;
    readiness_becomes(200).await?;
    Ok(())
}

#[tokio::test]
async fn a_price_of_an_unusable_policy_is_not_recomputed_by_an_earlier_one() -> Result<()> {
    const DATABASE: &str = "policy_that_cannot_be_read";
    let postgres = shared_postgres().await?;
    let database = postgres.create_database(DATABASE).await?;
    let redis = RedisServer::start().await?;
    let api = Api::start(&redis.url(), &database).await?;
    put(&api, "P-1", "USD", json!(10)).await?;
    // As a newer version of the engine would have left it.
    postgres.execute(DATABASE, "UPDATE prices SET policy_version = 9").await?;
    let other_redis = RedisServer::start().await?;
    let older = Api::start(&other_redis.url(), &database).await?;
    let reply = older.client.price("P-1", "NY", false).await?;
    assert_eq!(reply.status, 503, "{}", reply.text);
    let reply =
        older.client.put("/api/v1/products/P-1", &json!({"currency": "USD", "base_price": 11})).await?;
    assert_eq!(reply.status, 503, "{}", reply.text);
    let versions = postgres.execute(DATABASE, "SELECT policy_version FROM prices").await?;
    assert_eq!(versions.trim(), "9");
    Ok(())
}

#[tokio::test]
async fn a_delete_that_races_with_a_create_leaves_one_truth() -> Result<()> {
    let redis = RedisServer::start().await?;
    let database = shared_postgres().await?.create_database("delete_and_create").await?;
    let api = Api::start(&redis.url(), &database).await?;
    for round in 0..60 {
        let id = format!("P-{round}");
        let path = format!("/api/v1/products/{id}");
        let product = json!({"currency": "USD", "base_price": 10});
        tokio::try_join!(api.client.put(&path, &product), api.client.delete(&path))?;
        let (stored, priced) = tokio::try_join!(api.client.get(&path), api.client.price(&id, "NY", false))?;
        assert_eq!(stored.status, priced.status, "round {round}: {} / {}", stored.text, priced.text);
    }
    Ok(())
}
