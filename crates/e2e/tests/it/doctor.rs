//! What operators see: `pricing doctor` against the services, with the comparison of served prices with
//! stored ones, and messages that are no market events in `pricing jobs`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::{TimeDelta, Utc};
use pricing_core::health::CheckName;
use pricing_core::store::{Store, StoreSettings};
use pricing_e2e::{RedisServer, ServiceProcess, SetClock, eventually};
use redis::FromRedisValue;
use serde_json::{Value, json};

use crate::fleet::{Fleet, Member, Service};
use crate::support::{Api, Stores, new_policy, shared_postgres};

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the doctor against an API: its exit code, and what it printed.
async fn doctor(address: &str, arguments: &[&str]) -> Result<(i32, String)> {
    let url = format!("http://{address}");
    let all: Vec<&str> = std::iter::once("doctor").chain(arguments.iter().copied()).collect();
    let mut process = ServiceProcess::start("pricing", &[("PRICING_URL", &url)], &all)?;
    let code = process.wait(PATIENCE).await?.code().context("it was killed")?;
    Ok((code, process.output()?))
}

/// Waits until the doctor ends with this code and says all of this.
async fn says(address: &str, code: i32, expected: &[&str]) -> Result<String> {
    eventually(&format!("the doctor says {expected:?}"), PATIENCE, async || {
        let (found, said) = doctor(address, &[]).await?;
        ensure!(found == code, "{found}: {said}");
        for words in expected {
            ensure!(said.contains(words), "no {words:?} in: {said}");
        }
        Ok(said)
    })
    .await
}

async fn command<T: FromRedisValue>(redis: &RedisServer, words: &[&str]) -> Result<T> {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    Ok(command.query_async(&mut redis.connection().await?).await?)
}

async fn fleet_of(stores: &Stores) -> Result<[Member; 3]> {
    let fleet = Fleet::new(&stores.redis.url(), &stores.database_url());
    Ok([
        fleet.start(Service::Api).await?,
        fleet.start(Service::Worker).await?,
        fleet.start(Service::Listener).await?,
    ])
}

#[tokio::test]
async fn the_doctor_says_what_works_and_what_to_do_about_the_rest() -> Result<()> {
    let stores = Stores::start().await?;
    let [api, worker, _listener] = fleet_of(&stores).await?;
    let address = api.address();
    says(
        &address,
        0,
        &["prices are answered", "are accepted", "1 pricing-worker 0.", "1 pricing-listener 0."],
    )
    .await?;

    let checks = api.client.get("/readyz").await?.body["checks"].clone();
    for check in checks.as_array().context("no checks")? {
        ensure!(CheckName::ALL.iter().any(|name| check["name"] == name.as_str()), "unknown: {check}");
    }

    command::<()>(&stores.redis, &["CONFIG", "SET", "maxmemory", "1"]).await?;
    let said = says(
        &address,
        1,
        &["prices are answered", "events are refused", "OOM", "maxmemory-policy volatile-lfu"],
    )
    .await?;
    assert!(!said.contains("see the API's log"), "{said}");
    command::<()>(&stores.redis, &["CONFIG", "SET", "maxmemory", "0"]).await?;

    drop(worker);
    says(&address, 1, &["are accepted", "no pricing-worker runs", "start pricing-worker"]).await?;
    Ok(())
}

#[tokio::test]
async fn the_doctor_says_that_the_clock_of_an_api_is_wrong() -> Result<()> {
    let url = shared_postgres().await?.create_database("doctor_clock").await?;
    let stores = Stores::start().await?;
    let fleet = Fleet::new(&stores.redis.url(), &url);
    let _others = [fleet.start(Service::Worker).await?, fleet.start(Service::Listener).await?];
    let clock = SetClock::wrong_by(TimeDelta::seconds(100))?;
    let with_clock = clock.environment().iter().fold(fleet, |fleet, (name, value)| fleet.with(name, value));
    let api = with_clock.start(Service::Api).await?;
    let said =
        says(&api.address(), 1, &["FAILED  clock", "s ahead", "synchronise the clock of its host"]).await?;
    assert!(said.contains("warning own_clock") && said.contains("are accepted"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_warning_that_is_over_is_over_in_the_metrics_too() -> Result<()> {
    let stores = Stores::start().await?;
    let [api, _worker, _listener] = fleet_of(&stores).await?;
    for (policy, status) in [("allkeys-lru", 2), ("noeviction", 0)] {
        command::<()>(&stores.redis, &["CONFIG", "SET", "maxmemory-policy", policy]).await?;
        eventually("the gauge follows", PATIENCE, async || {
            let text = api.client.get("/metrics").await?.text;
            let line = format!("pricing_check_status{{check=\"redis_settings\"}} {status}");
            ensure!(text.lines().any(|found| found.starts_with(&line)), "{text}");
            Ok(())
        })
        .await?;
    }
    let free_bytes = api.client.get("/metrics").await?.text;
    let free_bytes = free_bytes.lines().find_map(|line| line.strip_prefix("pricing_database_free_bytes "));
    ensure!(free_bytes.context("no such gauge")?.parse::<f64>()? > 0.0);
    Ok(())
}

/// The key of a product's price in Redis.
async fn key(redis: &RedisServer, product_id: &str) -> Result<String> {
    let keys: Vec<String> = command(redis, &["KEYS", &format!("*:price:{product_id}")]).await?;
    keys.into_iter().next().context("no such key")
}

/// The entry in Redis with another list price and revision.
async fn poison(redis: &RedisServer, product_id: &str, revision: i64, list_price: &str) -> Result<()> {
    let key = key(redis, product_id).await?;
    let entry: String = command(redis, &["GET", &key]).await?;
    let mut body: Value = serde_json::from_str(entry.get(20..).context("too short")?)?;
    body["list_price"] = json!(list_price);
    body["revision"] = json!(revision);
    command(redis, &["SET", &key, &format!("{revision:020}{body}")]).await
}

/// The revision of the entry in Redis.
async fn revision(redis: &RedisServer, product_id: &str) -> Result<i64> {
    let entry: String = command(redis, &["GET", &key(redis, product_id).await?]).await?;
    Ok(entry.get(..20).context("too short")?.parse()?)
}

async fn differences(api: &Api, query: &str) -> Result<Value> {
    let reply = api.client.get(&format!("/api/v1/prices/differences{query}")).await?;
    ensure!(reply.status == 200, "{}", reply.text);
    Ok(reply.body)
}

#[tokio::test]
async fn served_prices_that_are_not_the_stored_ones_are_found() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    api.import("P-1,USD,10\nP-2,USD,20\nP-3,USD,30\nP-4,USD,40\n").await?;
    for product_id in ["P-1", "P-2", "P-3"] {
        api.price(product_id, false).await?;
    }
    let none = json!({"compared": 4, "differences": [], "next_after": null});
    for product_id in ["P-1", "P-2", "P-3"] {
        let is_there = async || key(&stores.redis, product_id).await.map(|_| ());
        eventually("what was read is in Redis", PATIENCE, is_there).await?;
    }
    assert_eq!(differences(&api, "").await?, none);
    let (code, said) = doctor(&api.address, &["--prices"]).await?;
    assert!(said.contains("4 stored prices compared") && said.contains("ok      prices"), "{code}: {said}");

    // No put replaces an entry of the same revision; one of an earlier revision is older than what is stored;
    // an entry that is no price is not served.
    let revision = revision(&stores.redis, "P-1").await?;
    poison(&stores.redis, "P-1", revision, "1.23").await?;
    poison(&stores.redis, "P-2", 0, "4.56").await?;
    command::<()>(&stores.redis, &["SET", &key(&stores.redis, "P-3").await?, "nonsense"]).await?;
    let found = differences(&api, "").await?;
    let second = &found["differences"][1];
    let expected = json!([
        {"product_id": "P-1", "where": "redis", "served_revision": revision, "stored_revision": revision,
         "served_list_price": 1.23, "stored_list_price": 10.00},
        {"product_id": "P-2", "where": "redis", "served_revision": 0, "stored_revision": second["stored_revision"],
         "served_list_price": 4.56, "stored_list_price": 20.00},
    ]);
    assert_eq!(found["differences"], expected);

    // Another process reads the wrong entry into its memory, and so serves it.
    let other = stores.api().await?;
    assert_eq!(other.price("P-1", false).await?.body["final_price"], json!(1.17));
    let of_other = differences(&other, "?limit=1").await?;
    let places: Vec<&Value> =
        of_other["differences"].as_array().context("a list")?.iter().map(|one| &one["where"]).collect();
    assert_eq!((places, &of_other["next_after"]), (vec![&json!("memory"), &json!("redis")], &json!("P-1")));
    let rest = differences(&other, "?after=P-2").await?;
    assert_eq!(rest, json!({"compared": 2, "differences": [], "next_after": null}));

    let (code, said) = doctor(&api.address, &["--prices"]).await?;
    assert_eq!(code, 1, "{said}");
    for words in ["served and are not what is stored: 2", "1.23", "4.56", "pricing recalculate"] {
        assert!(said.contains(words), "no {words:?} in: {said}");
    }
    Ok(())
}

/// Prices that end at an instant, and follow a competitor's price for as long as that is new.
const ENDING: &str = "
name: ending
market:
  - { name: sale, adjust: -20%, until: 2100-01-01T00:00:00.123456789Z }
  - { name: match, when: (competitor.age_hours ?? 9) < 5, match: { reference: competitor.min } }
";

#[tokio::test]
async fn what_the_engine_serves_is_what_it_stored_on_postgresql_too() -> Result<()> {
    let url = shared_postgres().await?.create_database("doctor_prices").await?;
    let store = Store::open(&url, StoreSettings::default()).await?;
    store.publish_policy(&new_policy(ENDING), None, Utc::now()).await?;
    let stores = Stores::start().await?;
    let fleet = Fleet::new(&stores.redis.url(), &url);
    let api = fleet.start(Service::Api).await?;
    let _others = [fleet.start(Service::Worker).await?, fleet.start(Service::Listener).await?];
    for number in 0..20 {
        let product = json!({"currency": "USD", "base_price": format!("{number}9.99"), "category": "toys"});
        let put = api.client.put(&format!("/api/v1/products/P-{number}"), &product).await?;
        ensure!(put.status == 201, "{}", put.text);
        ensure!(api.client.price(&format!("P-{number}"), "NY", false).await?.status == 200);
    }
    for number in 0..10 {
        let event = json!({
            "specversion": "1.0", "id": number.to_string(), "source": "/test",
            "type": "pricing.competitor_price.v1", "time": Utc::now(),
            "data": {"product_id": format!("P-{number}"), "competitor": "acme", "price": 7.77},
        });
        ensure!(api.client.post("/api/v1/publish-market-event", &event).await?.status == 200);
    }
    eventually("the events are applied and in Redis", PATIENCE, async || {
        let key = key(&stores.redis, "P-9").await?;
        let entry: String = command(&stores.redis, &["GET", &key]).await?;
        // No longer the end of the sale, but that of the competitor's price.
        ensure!(!entry.contains("\"valid_until\":null") && !entry.contains("2100-"), "{entry}");
        Ok(())
    })
    .await?;
    let found = api.client.get("/api/v1/prices/differences").await?.body;
    assert_eq!(found, json!({"compared": 20, "differences": [], "next_after": null}));
    Ok(())
}

#[tokio::test]
async fn a_price_on_its_way_is_no_difference() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    api.import("P-1,USD,10\n").await?;
    api.price("P-1", false).await?;
    eventually("the read is in Redis", PATIENCE, async || key(&stores.redis, "P-1").await.map(|_| ()))
        .await?;
    let right: String = command(&stores.redis, &["GET", &key(&stores.redis, "P-1").await?]).await?;
    poison(&stores.redis, "P-1", 0, "9").await?;
    let mend = async {
        // The first look lasts milliseconds, the second comes three seconds later.
        tokio::time::sleep(Duration::from_secs(1)).await;
        command::<()>(&stores.redis, &["SET", &key(&stores.redis, "P-1").await?, &right]).await
    };
    let (found, mended) = tokio::join!(differences(&api, ""), mend);
    mended?;
    assert_eq!(found?["differences"], json!([]));
    Ok(())
}

#[tokio::test]
async fn what_is_asked_wrongly_is_refused() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    for query in ["?limit=0", "?limit=1001", "?after=", "?page=2"] {
        let reply = api.client.get(&format!("/api/v1/prices/differences{query}")).await?;
        assert_eq!(reply.status, 422, "{query}: {}", reply.text);
    }
    Ok(())
}

#[tokio::test]
async fn messages_that_are_no_events_are_listed_with_the_failed_jobs() -> Result<()> {
    let stores = Stores::start().await?;
    let [api, _worker, _listener] = fleet_of(&stores).await?;
    for message in ["first", "second", "third"] {
        command::<()>(&stores.redis, &["XADD", "market_events:log", "*", "event", message]).await?;
    }
    eventually("all three are dead-lettered", PATIENCE, async || {
        let jobs = api.client.get("/api/v1/jobs?limit=2").await?.body;
        ensure!(jobs["dead_event_count"] == 3, "{jobs}");
        let messages: Vec<&Value> =
            jobs["dead_events"].as_array().context("a list")?.iter().map(|dead| &dead["message"]).collect();
        ensure!(messages == [&json!("third"), &json!("second")], "{jobs}");
        ensure!(jobs["dead_events"][0]["stream_id"].is_string(), "{jobs}");
        Ok(())
    })
    .await?;
    let url = format!("http://{}", api.address());
    let mut process = ServiceProcess::start("pricing", &[("PRICING_URL", &url)], &["jobs", "list"])?;
    assert!(process.wait(PATIENCE).await?.success());
    let said = process.output()?;
    for words in ["0 failed", "3 messages were no market events", "first", "third"] {
        assert!(said.contains(words), "no {words:?} in: {said}");
    }
    Ok(())
}
