//! Notifications between processes and to clients: changed prices leave the memory of every API, and each
//! client of the stream of changes gets each of them once, in order.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pricing_core::keys::{DEFAULT_PREFIX, MessageKeys};
use pricing_e2e::{ChaosProxy, RedisServer, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::fleet::{Fleet, Member, Service};
use crate::support::{Stores, shared_postgres};

const PATIENCE: Duration = Duration::from_secs(60);
/// The largest number of clients that may follow one process.
const MAX_STREAMS: usize = 256;

/// Processes whose memory changes by notifications only.
fn fleet(redis_url: &str, stores: &Stores) -> Fleet {
    Fleet::new(redis_url, &stores.database_url()).with("PRICING_L1_MAX_STALENESS", "1h")
}

async fn put(api: &Member, product_id: &str, base_price: u32) -> Result<()> {
    let product = json!({"currency": "USD", "base_price": base_price});
    let reply = api.client.put(&format!("/api/v1/products/{product_id}"), &product).await?;
    ensure!(reply.status.is_success(), "{}", reply.text);
    Ok(())
}

async fn list_price_becomes(api: &Member, product_id: &str, expected: Option<u32>) -> Result<()> {
    eventually(&format!("{product_id} is listed at {expected:?}"), PATIENCE, async || {
        let reply = api.client.price(product_id, "NY", false).await?;
        let price = reply.body["base_price"].as_f64();
        ensure!(price == expected.map(f64::from), "{} {}", reply.status, reply.text);
        Ok(())
    })
    .await
}

/// A client of the stream of changes.
struct Follower {
    response: reqwest::Response,
    received: String,
}

/// An event that a follower received.
#[derive(Debug, PartialEq, Eq)]
enum Received {
    Position { id: String },
    Change { id: String, product_id: String, new_list_price: Option<String> },
    Gap,
}

impl Follower {
    /// Follows from now on, or from after an event that was seen. The first event is the position.
    async fn of(api: &Member, query: &str, seen: Option<&str>) -> Result<Self> {
        let mut this = Self::waiting(api, query, seen).await?;
        let Received::Position { id } = this.next_event().await? else { bail!("no position") };
        ensure!(seen.is_none_or(|seen| seen == id), "{id} after {seen:?}");
        Ok(this)
    }

    /// Follows, and reads nothing yet.
    async fn waiting(api: &Member, query: &str, seen: Option<&str>) -> Result<Self> {
        let response = Self::ask(api, query, seen).await?;
        ensure!(response.status() == 200, "{}", response.status());
        let content_type = response.headers()["content-type"].to_str()?;
        ensure!(content_type == "text/event-stream", "{content_type}");
        Ok(Self { response, received: String::new() })
    }

    async fn ask(api: &Member, query: &str, seen: Option<&str>) -> Result<reqwest::Response> {
        let path = format!("/api/v1/price-changes{query}");
        let mut request = api.client.request(Method::GET, &path).timeout(PATIENCE * 2);
        if let Some(seen) = seen {
            request = request.header("last-event-id", seen);
        }
        Ok(request.send().await?)
    }

    /// The next event that is no position.
    async fn next(&mut self) -> Result<Received> {
        loop {
            match self.next_event().await? {
                Received::Position { .. } => {}
                other => return Ok(other),
            }
        }
    }

    async fn next_event(&mut self) -> Result<Received> {
        loop {
            // Comments are signs of life; no blank line follows them.
            while let Some(rest) = self.received.strip_prefix(":\n") {
                self.received = rest.to_owned();
            }
            if let Some((event, rest)) = self.received.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.received = rest;
                return parse(&event);
            }
            let chunk =
                tokio::time::timeout(PATIENCE, self.response.chunk()).await.context("no event came")??;
            self.received.push_str(std::str::from_utf8(&chunk.context("the stream has ended")?)?);
        }
    }

    async fn next_price(&mut self) -> Result<String> {
        match self.next().await? {
            Received::Change { new_list_price: Some(price), .. } => Ok(price),
            other => bail!("{other:?} instead of a price"),
        }
    }

    /// Nothing but signs of life until the end.
    async fn until_end(mut self) -> Result<()> {
        while let Some(chunk) = tokio::time::timeout(PATIENCE, self.response.chunk()).await?? {
            ensure!(chunk == b":\n"[..], "{chunk:?}");
        }
        Ok(())
    }
}

fn parse(event: &str) -> Result<Received> {
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    if field("event") == Some("gap") {
        return Ok(Received::Gap);
    }
    if field("event") == Some("position") {
        ensure!(field("id").is_some() && field("id") == field("data"), "{event}");
        return Ok(Received::Position { id: field("id").context("no id")?.to_owned() });
    }
    ensure!(field("event") == Some("price_change"), "{event}");
    let data: Value = serde_json::from_str(field("data").context("no data")?)?;
    Ok(Received::Change {
        id: field("id").context("no id")?.to_owned(),
        product_id: data["product_id"].as_str().context("no product")?.to_owned(),
        new_list_price: data["new_list_price"].as_f64().map(|price| price.to_string()),
    })
}

#[tokio::test]
async fn changes_by_one_api_leave_the_memory_of_the_other() -> Result<()> {
    let stores = Stores::start().await?;
    let fleet = fleet(&stores.redis.url(), &stores);
    let (one, other) = (fleet.start(Service::Api).await?, fleet.start(Service::Api).await?);
    put(&one, "P-1", 10).await?;
    list_price_becomes(&other, "P-1", Some(10)).await?;
    put(&one, "P-1", 20).await?;
    list_price_becomes(&other, "P-1", Some(20)).await?;
    let rows = "product_id,currency,base_price\nP-1,USD,30\n";
    let import =
        one.client.request(Method::POST, "/api/v1/products/import").header("content-type", "text/csv");
    assert_eq!(one.client.send(import.body(rows)).await?.status, 200);
    list_price_becomes(&other, "P-1", Some(30)).await?;
    assert_eq!(one.client.delete("/api/v1/products/P-1").await?.status, 204);
    list_price_becomes(&other, "P-1", None).await?;
    put(&one, "P-1", 40).await?;
    list_price_becomes(&other, "P-1", Some(40)).await
}

#[tokio::test]
async fn the_changes_of_an_import_into_sqlite_arrive_in_the_order_of_its_rows() -> Result<()> {
    let stores = Stores::start().await?;
    changes_of_an_import_arrive_in_order(&fleet(&stores.redis.url(), &stores)).await
}

#[tokio::test]
async fn the_changes_of_an_import_into_postgres_arrive_in_the_order_of_its_rows() -> Result<()> {
    let redis = RedisServer::start().await?;
    let database = shared_postgres().await?.create_database("changes_of_an_import").await?;
    changes_of_an_import_arrive_in_order(&Fleet::new(&redis.url(), &database)).await
}

/// Several batches of an import are in flight at a time, and Redis gets several at once.
async fn changes_of_an_import_arrive_in_order(fleet: &Fleet) -> Result<()> {
    const BATCHES: u32 = 6;
    let api = fleet.start(Service::Api).await?;
    let mut follower = Follower::of(&api, "", None).await?;
    let mut rows = "product_id,currency,base_price\n".to_owned();
    for batch in 1..=BATCHES {
        rows += &format!("F-{batch},USD,{batch}00\n");
        rows.extend((1..2_000).map(|number| format!("P-{batch}-{number},USD,5\n")));
    }
    let import = api.client.request(Method::POST, "/api/v1/products/import");
    let reply = api.client.send(import.header("content-type", "text/csv").body(rows)).await?;
    assert_eq!((reply.status.as_u16(), &reply.body["repeated"]), (200, &json!(0)), "{}", reply.text);
    let mut prices = Vec::new();
    while prices.len() < BATCHES as usize {
        if let Received::Change { product_id, new_list_price, .. } = follower.next().await?
            && product_id.starts_with("F-")
        {
            prices.extend(new_list_price);
        }
    }
    assert_eq!(prices, ["100", "200", "300", "400", "500", "600"]);
    list_price_becomes(&api, "F-6", Some(600)).await
}

#[tokio::test]
async fn changes_published_while_an_api_was_cut_off_are_seen_when_it_is_back() -> Result<()> {
    let stores = Stores::start().await?;
    let mut network = ChaosProxy::start(stores.redis.address()).await?;
    let one = fleet(&stores.redis.url(), &stores).start(Service::Api).await?;
    // Logs every interruption: the second follows so soon that it is counted towards the first.
    let behind = fleet(&format!("redis://{}", network.address()), &stores);
    let behind = behind.with("PRICING_LOG", "info,pricing_core::telemetry::repeated_warning=debug");
    let behind = behind.start(Service::Api).await?;
    put(&one, "P-1", 10).await?;
    list_price_becomes(&behind, "P-1", Some(10)).await?;
    // Notified while subscribed; then cut off, changed, and connected again.
    put(&one, "P-1", 15).await?;
    list_price_becomes(&behind, "P-1", Some(15)).await?;
    network.cut().await;
    put(&one, "P-1", 20).await?;
    let meanwhile = behind.client.price("P-1", "NY", false).await?;
    assert_eq!(meanwhile.status, 200, "{}", meanwhile.text);
    network.restore().await?;
    list_price_becomes(&behind, "P-1", Some(20)).await?;
    // The same when nothing gets through and no error is reported.
    network.stall();
    put(&one, "P-1", 30).await?;
    eventually("the silence is noticed", PATIENCE, async || {
        ensure!(
            behind.process.output()?.matches("notifications of price changes do not arrive").count() >= 2
        );
        Ok(())
    })
    .await?;
    network.restore().await?;
    list_price_becomes(&behind, "P-1", Some(30)).await
}

#[tokio::test]
async fn each_change_arrives_once_in_order_and_a_client_that_reconnects_goes_on() -> Result<()> {
    let stores = Stores::start().await?;
    let fleet = fleet(&stores.redis.url(), &stores);
    let (one, other) = (fleet.start(Service::Api).await?, fleet.start(Service::Api).await?);
    put(&one, "P-0", 1).await?;
    let mut follower = Follower::of(&other, "", None).await?;
    let mut of_p_2 = Follower::of(&other, "?product_id=P-2", None).await?;
    // Several changes in one entry of the stream, and entries with one.
    let rows: String = (0..5).map(|number| format!("P-{number},USD,{}\n", 10 + number)).collect();
    let import =
        one.client.request(Method::POST, "/api/v1/products/import").header("content-type", "text/csv");
    let import = import.body(format!("product_id,currency,base_price\n{rows}"));
    assert_eq!(one.client.send(import).await?.status, 200);
    for price in 20..25 {
        put(&one, "P-2", price).await?;
    }
    // An attribute that no price depends on: no notification.
    let renamed = json!({"currency": "USD", "base_price": 24, "name": "new name"});
    assert_eq!(one.client.put("/api/v1/products/P-2", &renamed).await?.status, 200);
    assert_eq!(other.client.delete("/api/v1/products/P-2").await?.status, 204);

    let expected: Vec<(String, Option<String>)> = (0..5)
        .map(|number| (format!("P-{number}"), Some((10 + number).to_string())))
        .chain((20..25).map(|price| ("P-2".to_owned(), Some(price.to_string()))))
        .chain([("P-2".to_owned(), None)])
        .collect();
    let mut ids = Vec::new();
    for change in &expected {
        let Received::Change { id, product_id, new_list_price } = follower.next().await? else {
            bail!("a gap")
        };
        assert_eq!((&product_id, &new_list_price), (&change.0, &change.1), "after {ids:?}");
        ids.push(id);
    }
    for change in expected.iter().filter(|(product_id, _)| product_id == "P-2") {
        let Received::Change { new_list_price, .. } = of_p_2.next().await? else { bail!("a gap") };
        assert_eq!(new_list_price, change.1);
    }
    // From every position, at either process.
    for (place, id) in ids.iter().enumerate() {
        let mut again = Follower::of(if place % 2 == 0 { &one } else { &other }, "", Some(id)).await?;
        for expected_id in &ids[place + 1..] {
            let Received::Change { id, .. } = again.next().await? else { bail!("a gap") };
            assert_eq!(&id, expected_id);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_client_gets_a_gap_event_when_changes_were_trimmed() -> Result<()> {
    let stores = Stores::start().await?;
    let api = fleet(&stores.redis.url(), &stores).start(Service::Api).await?;
    let mut connection = stores.redis.connection().await?;
    let mut follower = Follower::of(&api, "", None).await?;
    put(&api, "P-1", 1).await?;
    let Received::Change { id: first, .. } = follower.next().await? else { bail!("a gap") };
    for price in 2..5 {
        put(&api, "P-1", price).await?;
        assert_eq!(follower.next_price().await?, price.to_string());
    }
    let log = MessageKeys::new(DEFAULT_PREFIX).price_changes_log();
    let _: i64 = redis::cmd("XTRIM").arg(&log).arg("MAXLEN").arg(1).query_async(&mut connection).await?;
    let mut late = Follower::of(&api, "", Some(&first)).await?;
    assert_eq!(late.next().await?, Received::Gap);
    assert_eq!(late.next_price().await?, "4");
    // Redis loses everything, the stream starts again, and both go on.
    let _: String = redis::cmd("FLUSHALL").query_async(&mut connection).await?;
    put(&api, "P-1", 5).await?;
    for follower in [&mut follower, &mut late] {
        assert_eq!(follower.next().await?, Received::Gap);
        assert_eq!(follower.next_price().await?, "5");
    }
    put(&api, "P-1", 6).await?;
    for follower in [&mut follower, &mut late] {
        assert_eq!(follower.next_price().await?, "6");
    }
    Ok(())
}

#[tokio::test]
async fn following_goes_on_after_an_outage_of_redis() -> Result<()> {
    let mut stores = Stores::start().await?;
    let api = fleet(&stores.redis.url(), &stores).start(Service::Api).await?;
    let mut follower = Follower::of(&api, "", None).await?;
    put(&api, "P-1", 1).await?;
    assert_eq!(follower.next_price().await?, "1");
    for price in 2..4 {
        stores.redis.restart().await?;
        eventually("it is changed", PATIENCE, async || put(&api, "P-1", price).await).await?;
        eventually("the change arrives", PATIENCE, async || {
            put(&api, "P-2", price).await?;
            Ok(())
        })
        .await?;
        let mut prices = Vec::new();
        while prices.len() < 2 {
            prices.push(follower.next().await?);
        }
        let of = |product: &str| {
            prices.iter().any(|received| {
                matches!(received, Received::Change { product_id, new_list_price, .. }
                    if product_id == product && *new_list_price == Some(price.to_string()))
            })
        };
        assert!(of("P-1") && of("P-2"), "{prices:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_invalid_request_to_follow_is_refused() -> Result<()> {
    let stores = Stores::start().await?;
    let api = fleet(&stores.redis.url(), &stores).start(Service::Api).await?;
    let nonsense = ["", "nonsense", "1-2", "1-2.x", "-1-0.0", "99999999999999999999999-0.0"];
    for seen in nonsense {
        let refused = Follower::ask(&api, "", Some(seen)).await?;
        assert_eq!(refused.status(), 422, "{seen}");
        assert!(refused.text().await?.contains("Last-Event-ID"), "{seen}");
    }
    for query in ["?product_id=", "?product_id=%20", "?product=P-1"] {
        let refused = Follower::ask(&api, query, None).await?;
        assert_eq!(refused.status(), 422, "{query}");
    }
    Ok(())
}

#[tokio::test]
async fn followers_are_bounded_and_disconnected_at_shutdown() -> Result<()> {
    let stores = Stores::start().await?;
    let fleet = fleet(&stores.redis.url(), &stores).with("PRICING_API_MAX_FOLLOWERS_PER_PEER", "256");
    let mut api = fleet.start(Service::Api).await?;
    let mut followers = Vec::new();
    for _ in 0..MAX_STREAMS {
        followers.push(Follower::of(&api, "", None).await?);
    }
    let refused = Follower::ask(&api, "", None).await?;
    assert_eq!(refused.status(), 503);
    assert!(refused.text().await?.contains("too many clients"));
    assert_eq!(api.metric("pricing_price_change_streams", "").await?, 256);
    // One disconnects; its slot is used again.
    followers.pop();
    let newcomer =
        eventually("there is room again", PATIENCE, async || Follower::of(&api, "", None).await).await?;
    followers.push(newcomer);
    assert!(api.terminate().await?);
    for follower in followers {
        follower.until_end().await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_followers_of_one_address_leave_places_for_others() -> Result<()> {
    const MAX_PER_PEER: usize = 64;
    let stores = Stores::start().await?;
    let api = fleet(&stores.redis.url(), &stores).start(Service::Api).await?;
    let mut followers = Vec::new();
    for _ in 0..MAX_PER_PEER {
        followers.push(Follower::of(&api, "", None).await?);
    }
    let refused = Follower::ask(&api, "", None).await?;
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str()?), (429, "1"));
    let problem: Value = serde_json::from_str(&refused.text().await?)?;
    assert_eq!(problem["type"], "/problems/too-many-followers");
    let other = reqwest::Client::builder()
        .no_proxy()
        .local_address("127.0.0.2".parse::<std::net::IpAddr>()?)
        .build()?;
    let url = format!("http://{}/api/v1/price-changes", api.address());
    let mut admitted = other.get(&url).send().await?;
    assert_eq!(admitted.status(), 200);
    let first = admitted.chunk().await?.context("the stream has ended")?;
    ensure!(first.starts_with(b"event: position\n"), "{first:?}");
    followers.clear();
    eventually("there is room again", PATIENCE, async || Follower::of(&api, "", None).await).await?;
    Ok(())
}

#[tokio::test]
async fn a_client_that_comes_while_redis_is_away_follows_when_it_is_back() -> Result<()> {
    let mut stores = Stores::start().await?;
    let api = fleet(&stores.redis.url(), &stores).start(Service::Api).await?;
    put(&api, "P-1", 1).await?;
    stores.redis.kill()?;
    let mut early = Follower::waiting(&api, "", None).await?;
    stores.redis.restart().await?;
    // The first one since: it must not receive the error of the broken connection either.
    let mut late = Follower::of(&api, "", None).await?;
    ensure!(matches!(early.next_event().await?, Received::Position { .. }));
    eventually("it is changed", PATIENCE, async || put(&api, "P-1", 2).await).await?;
    for follower in [&mut early, &mut late] {
        assert_eq!(follower.next_price().await?, "2");
    }
    Ok(())
}

#[tokio::test]
async fn the_position_of_a_client_moves_with_changes_that_it_does_not_follow() -> Result<()> {
    let stores = Stores::start().await?;
    let api = fleet(&stores.redis.url(), &stores).start(Service::Api).await?;
    let mut connection = stores.redis.connection().await?;
    put(&api, "QUIET", 1).await?;
    let mut follower = Follower::of(&api, "?product_id=QUIET", None).await?;
    for price in 1..4 {
        put(&api, "P-1", price).await?;
    }
    let Received::Position { id } = follower.next_event().await? else { bail!("no position") };
    drop(follower);
    // All that was before the new position is no longer kept, and nothing is missing for all that.
    let log = MessageKeys::new(DEFAULT_PREFIX).price_changes_log();
    let _: i64 = redis::cmd("XTRIM").arg(&log).arg("MAXLEN").arg(1).query_async(&mut connection).await?;
    put(&api, "QUIET", 2).await?;
    let mut again = Follower::of(&api, "?product_id=QUIET", Some(&id)).await?;
    assert_eq!(again.next_price().await?, "2");
    Ok(())
}

#[tokio::test]
async fn a_change_that_is_published_twice_is_sent_once() -> Result<()> {
    let stores = Stores::start().await?;
    let fleet = fleet(&stores.redis.url(), &stores);
    let api = fleet.start(Service::Api).await?;
    let mut connection = stores.redis.connection().await?;
    let log = MessageKeys::new(DEFAULT_PREFIX).price_changes_log();
    let mut follower = Follower::of(&api, "", None).await?;
    put(&api, "P-1", 1).await?;
    let Received::Change { id, .. } = follower.next().await? else { bail!("a gap") };
    // What a worker does that dies between Redis and the acknowledgement of its job: after the delivery of
    // the job to another one, the same change is in the stream twice.
    let mut last = redis::cmd("XREVRANGE");
    last.arg(&log).arg("+").arg("-").arg("COUNT").arg(1);
    let last: Vec<(String, Vec<(String, String)>)> = last.query_async(&mut connection).await?;
    let (field, notice) = last.first().and_then(|(_, fields)| fields.first()).context("no entry")?;
    for _ in 0..2 {
        let mut add = redis::cmd("XADD");
        add.arg(&log).arg("*").arg(field).arg(notice).query_async::<()>(&mut connection).await?;
    }
    put(&api, "P-1", 2).await?;
    assert_eq!(follower.next_price().await?, "2");
    // A process that has not seen the first one recognises the others as well.
    let other = fleet.start(Service::Api).await?;
    let mut again = Follower::of(&other, "", Some(&id)).await?;
    assert_eq!(again.next_price().await?, "2");
    Ok(())
}
