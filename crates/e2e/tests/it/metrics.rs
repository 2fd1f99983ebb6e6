//! The services' metrics under a known workload.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use pricing_core::telemetry::inventory::{INVENTORY, Kind, Metric};
use pricing_e2e::eventually;
use serde_json::json;

use crate::fleet::{Fleet, Member, Service};
use crate::support::{Stores, new_policy};

const PATIENCE: Duration = Duration::from_secs(60);
const POLICY: &str = "
name: following
market:
  - { name: match, when: competitor.min != null, match: { reference: competitor.min } }
guardrails: { max_step: 10% }
";

/// The value of one series, written as it is rendered.
async fn value(member: &Member, series: &str) -> Result<f64> {
    let text = member.client.get("/metrics").await?.text;
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    let value =
        line.and_then(|line| line.rsplit(' ').next()).with_context(|| format!("no {series} in {text}"))?;
    Ok(value.parse()?)
}

async fn check(member: &Member, expected: &[(&str, f64)]) -> Result<()> {
    for (series, expected) in expected {
        let found = value(member, series).await?;
        ensure!(found == *expected, "{series} is {found}, expected {expected}");
    }
    Ok(())
}

const OF_THE_API: &[(&str, f64)] = &[
    ("pricing_price_reads_total{from=\"catalogue\"}", 10.0),
    ("pricing_price_reads_total{from=\"l1\"}", 100.0),
    ("pricing_price_reads_total{from=\"l2\"}", 0.0),
    ("pricing_price_reads_total{from=\"unknown\"}", 3.0),
    ("pricing_fill_duration_seconds_count", 13.0),
    ("pricing_l1_evictions_total", 0.0),
    // Each fill reads Redis, and offers it each product that it found. (The import has loaded the script.)
    ("pricing_redis_duration_seconds_count{connection=\"reads\",outcome=\"done\"}", 23.0),
    ("pricing_imported_rows_total{result=\"taken\"}", 10.0),
    ("pricing_imported_rows_total{result=\"refused\"}", 1.0),
    ("pricing_events_published_total", 6.0),
    ("pricing_l1_invalidations_total", 5.0),
    ("http_request_duration_seconds_count{route=\"/api/v1/price\",status=\"200\"}", 110.0),
    ("http_request_duration_seconds_count{route=\"/api/v1/price\",status=\"404\"}", 3.0),
    ("http_request_duration_seconds_count{route=\"/api/v1/publish-market-event\",status=\"200\"}", 5.0),
];
const OF_THE_LISTENER: &[(&str, f64)] =
    &[("pricing_events_dispatched_total", 6.0), ("pricing_events_buried_total", 0.0)];
const OF_THE_WORKER: &[(&str, f64)] = &[
    ("pricing_guardrail_hits_total{guardrail=\"max_step\"}", 5.0),
    ("pricing_guardrail_hits_total{guardrail=\"floor_price\"}", 0.0),
    ("pricing_prices_computed_total{outcome=\"priced\"}", 5.0),
    ("pricing_prices_computed_total{outcome=\"frozen\"}", 0.0),
    ("pricing_jobs_buried_total", 0.0),
    ("pricing_held_runs", 0.0),
    ("pricing_run_wait_duration_seconds_count", 1.0),
];

/// Counted every few seconds: of ten products, the five with a competitor at half the price.
const OF_THE_CATALOGUE: &[(&str, f64)] = &[
    ("pricing_products", 10.0),
    ("pricing_frozen_products", 0.0),
    ("pricing_prices_held{limit=\"max_step\"}", 5.0),
    ("pricing_prices_held{limit=\"max_daily_move\"}", 0.0),
    ("pricing_prices_held{limit=\"min_time_between_changes\"}", 0.0),
    ("pricing_prices_held{limit=\"competitor_loop\"}", 0.0),
];

const NOTHING_FAILED: &[(&str, f64)] = &[
    ("pricing_redis_duration_seconds_count{connection=\"reads\",outcome=\"failed\"}", 0.0),
    ("pricing_redis_duration_seconds_count{connection=\"writes\",outcome=\"failed\"}", 0.0),
    ("pricing_redis_duration_seconds_count{connection=\"queue\",outcome=\"failed\"}", 0.0),
];
/// The listener has no database.
const NO_STATEMENT_FAILED: &[(&str, f64)] =
    &[("pricing_database_duration_seconds_count{operation=\"statement\",outcome=\"failed\"}", 0.0)];

/// Whether the service has exactly the metrics that the inventory gives it. A histogram is rendered once it
/// has a value.
async fn check_inventory(member: &Member, service: &str) -> Result<()> {
    let text = member.client.get("/metrics").await?.text;
    let rendered: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .filter(|name| !name.starts_with("process_"))
        .collect();
    let belongs =
        |metric: &&Metric| metric.services == "all" || metric.services.split(", ").any(|own| own == service);
    let own: Vec<&Metric> = INVENTORY.iter().filter(belongs).collect();
    for name in &rendered {
        ensure!(
            own.iter().any(|metric| metric.name == *name),
            "{service} has {name}, and the inventory denies it"
        );
    }
    for Metric { name, kind, .. } in own {
        ensure!(*kind == Kind::Histogram || rendered.contains(name), "{service} has no {name}");
    }
    Ok(())
}

/// Ten products; of prices ten that are in no cache, then a hundred that are in memory, and three that do not
/// exist.
async fn import_and_read(api: &Member) -> Result<()> {
    let rows: String = (0..10).map(|number| format!("P-{number},USD,100,1\n")).collect();
    let csv = format!("product_id,currency,base_price,floor_price\n{rows}bad row\n");
    let request = api.client.request(reqwest::Method::POST, "/api/v1/products/import");
    let reply = api.client.send(request.header("content-type", "text/csv").body(csv)).await?;
    ensure!(reply.body["created"] == 10 && reply.body["failed"] == 1, "{}", reply.text);
    for number in 0..110 {
        let reply = api.client.price(&format!("P-{}", number % 10), "NY", number % 2 == 0).await?;
        ensure!(reply.status == 200, "{}", reply.text);
    }
    for _ in 0..3 {
        ensure!(api.client.price("P-none", "NY", false).await?.status == 404);
    }
    Ok(())
}

#[tokio::test]
async fn a_known_workload_is_counted_exactly() -> Result<()> {
    let stores = Stores::start().await?;
    stores.store().await?.publish_policy(&new_policy(POLICY), None, Utc::now()).await?;
    let fleet =
        Fleet::new(&stores.redis.url(), &stores.database_url()).with("PRICING_L1_MAX_STALENESS", "1h");
    let api = fleet.start(Service::Api).await?;
    let (listener, worker) = (fleet.start(Service::Listener).await?, fleet.start(Service::Worker).await?);

    import_and_read(&api).await?;
    for number in 0..5 {
        let event = json!({
            "specversion": "1.0", "id": number.to_string(), "source": "/test",
            "type": "pricing.competitor_price.v1",
            "data": {"product_id": format!("P-{number}"), "competitor": "acme", "price": 50},
        });
        let reply = api.client.post("/api/v1/publish-market-event", &event).await?;
        ensure!(reply.status == 200, "{}", reply.text);
        let applied = f64::from(number + 1);
        eventually("it is applied", PATIENCE, async || {
            check(&worker, &[("pricing_events_applied_total{outcome=\"applied\"}", applied)]).await?;
            check(&api, &[("pricing_event_to_visible_duration_seconds_count", applied)]).await
        })
        .await?;
    }
    let asked = api.client.post("/api/v1/recalculations", &json!({"category": "none"})).await?;
    let task_id = asked.body["task_id"].as_str().context("no task_id")?;
    eventually("it is done", PATIENCE, async || {
        let run = api.client.get(&format!("/api/v1/recalculations/{task_id}")).await?;
        ensure!(run.body["state"] == "done", "{}", run.text);
        check(&worker, &[("pricing_run_duration_seconds_count", 1.0), ("pricing_queue_depth", 0.0)]).await
    })
    .await?;

    check(&api, OF_THE_API).await?;
    check(&listener, OF_THE_LISTENER).await?;
    check(&worker, OF_THE_WORKER).await?;
    eventually("the catalogue is counted", PATIENCE, async || check(&worker, OF_THE_CATALOGUE).await).await?;
    check(&api, NO_STATEMENT_FAILED).await?;
    check(&worker, NO_STATEMENT_FAILED).await?;
    for (member, service) in [(&api, "api"), (&listener, "listener"), (&worker, "worker")] {
        check_inventory(member, service).await?;
        check(member, NOTHING_FAILED).await?;
        ensure!(value(member, "process_resident_memory_bytes").await? > 1_000_000.0);
        let text = member.client.get("/metrics").await?.text;
        ensure!(text.contains("# HELP pricing_build_info "), "{text}");
    }
    Ok(())
}
