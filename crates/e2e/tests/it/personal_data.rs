//! What is personal of a shopper: prices say that they depend on it, and nothing of it is kept.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use pricing_e2e::{OtlpCollector, RedisServer, eventually};
use redis::Value as RedisValue;
use redis::aio::MultiplexedConnection;
use reqwest::Method;
use serde_json::{Value, json};

use crate::fleet::{Fleet, Member, Service};
use crate::support::{new_policy, sqlite_url};

const PATIENCE: Duration = Duration::from_secs(60);

/// Values that appear nowhere by chance.
const LOCATION: &str = "loc-quokka-7391";
const SEGMENT: &str = "seg-narwhal-4827";
const CHANNEL: &str = "chan-axolotl-1653";
const MARKS: [&str; 3] = ["quokka", "narwhal", "axolotl"];

/// A rule that fails for the shopper, so that a failure is reported, and one that looks at everything.
const POLICY: &str = r#"
name: personal
offer:
  - { name: fails, multiply_by: location.factor }
  - { name: looks, adjust: -5%, when: 'shopper.segment == "x" or shopper.channel == "y" or shopper.location == "z"' }
"#;

/// Sends the values through every route that takes them, right and wrong.
async fn send_everywhere(api: &Member) -> Result<()> {
    let long = format!("{LOCATION}-{}", "x".repeat(64));
    let shopper = |more: Value| {
        let mut body = json!({"user_location": LOCATION, "segment": SEGMENT, "channel": CHANNEL});
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        body
    };
    let item = json!([{"product_id": "P-1"}, {"product_id": "P-2"}]);
    let bodies = [
        ("/api/v1/price", shopper(json!({"product_id": "P-1"})), 200),
        ("/api/v1/price", shopper(json!({"product_id": "P-2"})), 404),
        ("/api/v1/price", shopper(json!({"product_id": "P-1", "currency": "ZZZ"})), 422),
        ("/api/v1/price", shopper(json!({"product_id": "P-1", "user_location": long})), 422),
        ("/api/v1/price", shopper(json!({"product_id": "P-1", SEGMENT: 1})), 422),
        ("/api/v1/price", shopper(json!({"product_id": "P-1", "quantity": LOCATION})), 422),
        ("/api/v1/price", shopper(json!({"product_id": "P-1", "lock": true})), 409),
        ("/api/v1/prices", shopper(json!({"items": item})), 200),
        ("/api/v1/prices", shopper(json!({"items": SEGMENT})), 422),
    ];
    for (path, body, status) in bodies {
        let reply = api.client.post(path, &body).await?;
        ensure!(reply.status == status, "{path} {body}: {} {}", reply.status, reply.text);
    }
    let query = format!("user_location={LOCATION}&segment={SEGMENT}&channel={CHANNEL}");
    for (query, status) in [
        (query.clone(), 200),
        (format!("{query}&quantity={LOCATION}"), 422),
        (format!("{query}&{SEGMENT}=1"), 422),
    ] {
        let reply = api.client.get(&format!("/api/v1/products/P-1/explanation?{query}")).await?;
        ensure!(reply.status == status, "{query}: {} {}", reply.status, reply.text);
    }
    let only = format!("only: {{ locations: [{LOCATION}], segments: [{SEGMENT}], channels: [{CHANNEL}] }}");
    let policy = format!("name: x\noffer: [{{ name: a, adjust: -5%, {only} }}]\n");
    for (path, body, status) in [
        ("/api/v1/policies/simulate", policy.clone(), 200),
        ("/api/v1/policies/simulate", policy.replace("adjust", LOCATION), 422),
        ("/api/v1/price", format!("{{\"user_location\": \"{LOCATION}\""), 400),
        ("/api/v1/price", format!("\"{LOCATION}\""), 400),
    ] {
        let request = api.client.request(Method::POST, path).header("content-type", "application/yaml");
        let reply = api.client.send(request.body(body.clone())).await?;
        ensure!(reply.status == status, "{path} {body}: {} {}", reply.status, reply.text);
    }
    Ok(())
}

/// All keys of Redis with their values, as text.
async fn everything_in(connection: &mut MultiplexedConnection) -> Result<String> {
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(connection).await?;
    let mut text = String::new();
    for key in keys {
        let kind: String = redis::cmd("TYPE").arg(&key).query_async(connection).await?;
        let mut command = match kind.as_str() {
            "string" => redis::cmd("GET"),
            "hash" => redis::cmd("HGETALL"),
            "list" => redis::cmd("LRANGE"),
            "set" => redis::cmd("SMEMBERS"),
            "zset" => redis::cmd("ZRANGE"),
            _ => redis::cmd("XRANGE"),
        };
        command.arg(&key);
        match kind.as_str() {
            "list" | "zset" => command.arg(0).arg(-1),
            "stream" => command.arg("-").arg("+"),
            _ => &mut command,
        };
        let value: RedisValue = command.query_async(connection).await?;
        text += &format!("{key} {value:?}\n");
    }
    Ok(text)
}

/// The bytes of all files of the database, as text: every table, and the log of writes.
fn everything_below(directory: &Path) -> Result<String> {
    let mut text = String::new();
    for file in std::fs::read_dir(directory)? {
        text += &String::from_utf8_lossy(&std::fs::read(file?.path())?);
    }
    Ok(text)
}

#[tokio::test]
async fn nothing_of_a_shopper_is_kept() -> Result<()> {
    let (redis, directory) = (RedisServer::start().await?, tempfile::tempdir()?);
    let database_url = sqlite_url(&directory.path().join("catalogue.db"));
    let store =
        pricing_core::store::Store::open(&database_url, pricing_core::store::StoreSettings::default())
            .await?;
    store.publish_policy(&new_policy(POLICY), None, chrono::Utc::now()).await?;
    let collector = OtlpCollector::start().await?;
    let fleet = Fleet::new(&redis.url(), &database_url)
        .with("PRICING_LOG", "debug")
        .with("PRICING_OTLP_ENDPOINT", &collector.endpoint())
        .with("PRICING_TRACE_PRICE_RATIO", "1");
    let members = [
        fleet.start(Service::Api).await?,
        fleet.start(Service::Listener).await?,
        fleet.start(Service::Worker).await?,
    ];
    let api = &members[0];
    let product = json!({"currency": "USD", "base_price": 100});
    let reply = api.client.put("/api/v1/products/P-1", &product).await?;
    ensure!(reply.status == 201, "{}", reply.text);
    send_everywhere(api).await?;
    // The last request's span has come, so those before it have, too.
    eventually("the spans are exported", PATIENCE, async || {
        let spans = collector.spans();
        let routes = ["POST /api/v1/price", "POST /api/v1/prices", "POST /api/v1/policies/simulate"];
        ensure!(routes.iter().all(|route| spans.iter().any(|span| span.name == *route)), "{spans:#?}");
        Ok(())
    })
    .await?;
    let mut places = vec![
        ("traces", format!("{:?}", collector.spans())),
        ("Redis", everything_in(&mut redis.connection().await?).await?),
        ("the database", everything_below(directory.path())?),
    ];
    for (place, text) in &places[1..] {
        ensure!(text.contains("P-1"), "{place} is not read: {text}");
    }
    for member in &members {
        places.push((member.service().program(), member.output()?));
    }
    for (place, text) in &places {
        let found = text.lines().find(|line| MARKS.iter().any(|mark| line.contains(mark)));
        ensure!(found.is_none(), "{place} has {found:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_personalised_price_says_so_and_the_text_can_be_set() -> Result<()> {
    let (redis, directory) = (RedisServer::start().await?, tempfile::tempdir()?);
    let database_url = sqlite_url(&directory.path().join("catalogue.db"));
    let store =
        pricing_core::store::Store::open(&database_url, pricing_core::store::StoreSettings::default())
            .await?;
    let policy =
        "name: x\noffer: [{ name: a, adjust: -5%, only: { products: [P-1] }, when: shopper.prime }]\n";
    store.publish_policy(&new_policy(policy), None, chrono::Utc::now()).await?;
    let fleet =
        Fleet::new(&redis.url(), &database_url).with("PRICING_PERSONALISATION_DISCLOSURE", "For you.");
    let api = fleet.start(Service::Api).await?;
    for (product_id, expected) in [("P-1", Some(true)), ("P-2", None)] {
        let product = json!({"currency": "USD", "base_price": 100});
        let reply = api.client.put(&format!("/api/v1/products/{product_id}"), &product).await?;
        ensure!(reply.status == 201, "{}", reply.text);
        let price = json!({"product_id": product_id, "user_location": "NY"});
        let price = api.client.post("/api/v1/price", &price).await?;
        assert_eq!(price.body.get("personalised").and_then(Value::as_bool), expected, "{}", price.text);
        let many = json!({"user_location": "NY", "items": [{"product_id": product_id}]});
        let many = api.client.post("/api/v1/prices", &many).await?;
        let many = &many.body["prices"][0]["price"];
        assert_eq!(many.get("personalised").and_then(Value::as_bool), expected, "{many}");
    }
    let answer = api.client.get("/api/v1/personalisation").await?.body;
    assert_eq!(answer["disclosure"], "For you.");
    let personal =
        answer["dimensions"].as_array().into_iter().flatten().filter(|one| one["personal"] == true);
    let fields: Vec<&str> = personal.filter_map(|one| one["field"].as_str()).collect();
    assert_eq!(fields, ["user_location", "is_prime_member", "segment"]);
    Ok(())
}
