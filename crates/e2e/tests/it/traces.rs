//! One trace over all services: from the request that published an event to the APIs that evict the old
//! price.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_core::store::{Store, StoreSettings};
use pricing_e2e::{OtlpCollector, PostgresServer, ReceivedSpan, eventually};
use reqwest::Method;
use serde_json::json;

use crate::fleet::{Fleet, Member, Service};
use crate::support::{Stores, new_policy};

const PATIENCE: Duration = Duration::from_secs(60);
const POLICY: &str = "name: following\nmarket:\n  - { name: match, when: competitor.min != null, match: { reference: competitor.min } }\n";

struct Engine {
    _stores: Stores,
    _postgres: Option<PostgresServer>,
    collector: OtlpCollector,
    api: Member,
    _others: [Member; 2],
}

impl Engine {
    /// One of everything on SQLite with a product `P-1`; of price requests this part is traced.
    async fn start(price_ratio: &str) -> Result<Self> {
        let stores = Stores::start().await?;
        let database_url = stores.database_url();
        Self::start_on(stores, None, &database_url, price_ratio).await
    }

    /// The same on PostgreSQL.
    async fn start_on_postgres() -> Result<Self> {
        let (stores, postgres) = (Stores::start().await?, PostgresServer::start().await?);
        let database_url = postgres.create_database("traces").await?;
        Self::start_on(stores, Some(postgres), &database_url, "0").await
    }

    async fn start_on(
        stores: Stores,
        postgres: Option<PostgresServer>,
        database_url: &str,
        price_ratio: &str,
    ) -> Result<Self> {
        let store = Store::open(database_url, StoreSettings::default()).await?;
        store.publish_policy(&new_policy(POLICY), None, chrono::Utc::now()).await?;
        let collector = OtlpCollector::start().await?;
        let fleet = Fleet::new(&stores.redis.url(), database_url)
            .with("PRICING_OTLP_ENDPOINT", &collector.endpoint())
            .with("PRICING_TRACE_PRICE_RATIO", price_ratio);
        let api = fleet.start(Service::Api).await?;
        let others = [fleet.start(Service::Listener).await?, fleet.start(Service::Worker).await?];
        let product = json!({"currency": "USD", "base_price": 100, "floor_price": 1});
        let reply = api.client.put("/api/v1/products/P-1", &product).await?;
        ensure!(reply.status == 201, "{}", reply.text);
        Ok(Self { _stores: stores, _postgres: postgres, collector, api, _others: others })
    }

    async fn publish(&self, id: &str, price: u32, traceparent: Option<&str>) -> Result<()> {
        let event = json!({
            "specversion": "1.0", "id": id, "source": "/test", "type": "pricing.competitor_price.v1",
            "data": {"product_id": "P-1", "competitor": "acme", "price": price},
        });
        let mut request = self.api.client.request(Method::POST, "/api/v1/publish-market-event").json(&event);
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        let reply = self.api.client.send(request).await?;
        ensure!(reply.status == 200, "{}", reply.text);
        Ok(())
    }

    /// The spans of a trace, once it has one of this name and, for as long, nothing new came.
    async fn trace(&self, trace_id: &str, last: &str) -> Result<Vec<ReceivedSpan>> {
        eventually(&format!("{last} is exported"), PATIENCE, async || {
            let spans: Vec<ReceivedSpan> =
                self.collector.spans().into_iter().filter(|span| span.trace_id == trace_id).collect();
            let ids: BTreeSet<&str> = spans.iter().map(|span| span.span_id.as_str()).collect();
            let orphans: Vec<&ReceivedSpan> = spans
                .iter()
                .filter(|span| span.kind != 2 && !ids.contains(span.parent_span_id.as_str()))
                .collect();
            ensure!(spans.iter().any(|span| span.name == last), "{spans:#?}");
            ensure!(orphans.is_empty(), "their parents are missing: {orphans:#?}");
            Ok(spans)
        })
        .await
    }
}

#[tokio::test]
async fn an_event_is_one_trace_over_all_services() -> Result<()> {
    is_one_trace(&Engine::start("0").await?, "transaction sqlite").await
}

// Its driver asks on our own threads whether its statements are logged, which once dropped the next span.
#[tokio::test]
async fn an_event_is_one_trace_on_postgresql_too() -> Result<()> {
    is_one_trace(&Engine::start_on_postgres().await?, "transaction postgresql").await
}

async fn is_one_trace(engine: &Engine, transaction: &str) -> Result<()> {
    let trace_id = "0af7651916cd43dd8448eb211c80319c";
    let parent = "b7ad6b7169203331";
    engine.publish("1", 40, Some(&format!("00-{trace_id}-{parent}-01"))).await?;
    let spans = engine.trace(trace_id, "process price_changes").await?;

    let by_id: HashMap<&str, &ReceivedSpan> =
        spans.iter().map(|span| (span.span_id.as_str(), span)).collect();
    let roots: Vec<&ReceivedSpan> =
        spans.iter().filter(|span| !by_id.contains_key(span.parent_span_id.as_str())).collect();
    assert_eq!(roots.len(), 1, "{spans:#?}");
    assert_eq!(
        (roots[0].name.as_str(), roots[0].parent_span_id.as_str()),
        ("POST /api/v1/publish-market-event", parent)
    );
    let found: BTreeSet<(&str, &str, i32)> =
        spans.iter().map(|span| (span.service.as_str(), span.name.as_str(), span.kind)).collect();
    let (server, client, producer, consumer) = (2, 3, 4, 5);
    let expected = BTreeSet::from([
        ("pricing-api", "POST /api/v1/publish-market-event", server),
        ("pricing-api", "send market_events:log", producer),
        ("pricing-listener", "process market_events:log", consumer),
        ("pricing-listener", "send jobs", producer),
        ("pricing-worker", "process jobs", consumer),
        ("pricing-worker", transaction, client),
        ("pricing-worker", "put prices", client),
        ("pricing-worker", "send price_changes", producer),
        ("pricing-api", "process price_changes", consumer),
    ]);
    assert_eq!(found, expected, "{spans:#?}");
    // The way from the last span to the first.
    let mut way = Vec::new();
    let mut span =
        *spans.iter().find(|span| span.name == "process price_changes").as_ref().context("none")?;
    loop {
        way.push(span.name.as_str());
        match by_id.get(span.parent_span_id.as_str()) {
            Some(parent) => span = parent,
            None => break,
        }
    }
    assert_eq!(
        way,
        [
            "process price_changes",
            "send price_changes",
            "process jobs",
            "send jobs",
            "process market_events:log",
            "send market_events:log",
            "POST /api/v1/publish-market-event",
        ]
    );
    let job = spans.iter().find(|span| span.name == "process jobs").context("no job")?;
    assert_eq!(job.attributes.get("pricing.job.kind").map(String::as_str), Some("apply_events"));
    let wait_ms: i64 = job.attributes.get("pricing.queue.wait_ms").context("no wait")?.parse()?;
    assert!((0..30_000).contains(&wait_ms), "{wait_ms}");
    assert_eq!(roots[0].attributes.get("http.response.status_code").map(String::as_str), Some("200"));
    assert!(
        spans.iter().all(|span| span.schema_url.starts_with("https://opentelemetry.io/schemas/")),
        "{spans:#?}"
    );
    assert!(spans.iter().all(|span| !span.is_error));
    Ok(())
}

#[tokio::test]
async fn a_batch_goes_on_with_its_first_events_trace_and_links_the_others() -> Result<()> {
    let mut engine = Engine::start("0").await?;
    let [listener, _] = &mut engine._others;
    listener.kill()?;
    let trace_ids = ["1", "2", "3"].map(|digit| digit.repeat(32));
    for (number, trace_id) in trace_ids.iter().enumerate() {
        let traceparent = format!("00-{trace_id}-b7ad6b7169203331-01");
        engine.publish(&number.to_string(), 40 + u32::try_from(number)?, Some(&traceparent)).await?;
    }
    let [listener, _] = &mut engine._others;
    listener.start_again()?;
    let spans = engine.trace(&trace_ids[0], "process price_changes").await?;
    let batch = spans.iter().find(|span| span.name == "process market_events:log").context("no batch")?;
    assert_eq!(batch.attributes.get("messaging.batch.message_count").map(String::as_str), Some("3"));
    let sent: Vec<String> = engine
        .collector
        .spans()
        .into_iter()
        .filter(|span| span.name == "send market_events:log" && span.trace_id != trace_ids[0])
        .map(|span| span.span_id)
        .collect();
    assert_eq!((batch.links.len(), sent.len()), (2, 2));
    assert!(sent.iter().all(|sent| batch.links.contains(sent)), "{batch:?} {sent:?}");
    Ok(())
}

#[tokio::test]
async fn prices_are_traced_when_the_caller_does_and_by_ratio() -> Result<()> {
    let never = Engine::start("0").await?;
    for number in 0..20 {
        ensure!(never.api.client.price("P-1", "NY", number % 2 == 0).await?.status == 200);
    }
    let trace_ids = [("a".repeat(32), "01"), ("b".repeat(32), "00")];
    for (trace_id, flags) in &trace_ids {
        let body = json!({"product_id": "P-1", "user_location": "NY"});
        let request = never.api.client.request(Method::POST, "/api/v1/price").json(&body);
        let request = request.header("traceparent", format!("00-{trace_id}-b7ad6b7169203331-{flags}"));
        ensure!(never.api.client.send(request).await?.status == 200);
    }
    never.publish("1", 40, Some(&format!("00-{}-b7ad6b7169203331-01", "c".repeat(32)))).await?;
    never.trace(&"c".repeat(32), "process price_changes").await?;
    let traced: Vec<String> = never
        .collector
        .spans()
        .into_iter()
        .filter(|span| span.name == "POST /api/v1/price")
        .map(|span| span.trace_id)
        .collect();
    assert_eq!(traced, [trace_ids[0].0.clone()]);

    let always = Engine::start("1").await?;
    for _ in 0..5 {
        ensure!(always.api.client.price("P-1", "NY", false).await?.status == 200);
    }
    eventually("all are traced", PATIENCE, async || {
        let spans = always.collector.spans();
        let traced = spans.iter().filter(|span| span.name == "POST /api/v1/price").count();
        ensure!(traced == 5, "{traced}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn without_a_collector_everything_goes_on_and_log_lines_name_their_trace() -> Result<()> {
    let mut stores = Stores::start().await?;
    let unused = format!("http://127.0.0.1:{}", pricing_e2e::free_port()?);
    let fleet = Fleet::new(&stores.redis.url(), &stores.database_url())
        .with("PRICING_OTLP_ENDPOINT", &unused)
        .with("PRICING_LOG_FORMAT", "json")
        .with("PRICING_TRACE_PRICE_RATIO", "1");
    let mut api = fleet.start(Service::Api).await?;
    for number in 0..3_000 {
        let reply = api.client.price(&format!("P-{number}"), "NY", false).await?;
        ensure!(reply.status == 404, "{}", reply.text);
    }
    stores.redis.kill()?;
    let product = json!({"currency": "USD", "base_price": 100});
    ensure!(api.client.put("/api/v1/products/P-1", &product).await?.status == 503);
    assert!(api.terminate().await?);
    let output = api.process.output()?;
    let refused =
        output.lines().find(|line| line.contains("writes are refused")).with_context(|| output.clone())?;
    let refused: serde_json::Value = serde_json::from_str(refused)?;
    let trace_id = refused["span"]["trace_id"].as_str().with_context(|| refused.to_string())?;
    assert_eq!(trace_id.len(), 32);
    ensure!(!output.contains("opentelemetry"), "the exporter's trouble fills the log: {output}");
    Ok(())
}
