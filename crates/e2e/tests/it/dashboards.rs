//! What is watched in production works: rules, alerts and every panel of the dashboard, on a real Prometheus
//! that scrapes the running services.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_e2e::{PrometheusServer, eventually, promtool};
use serde_json::{Value, json};

use crate::fleet::{Fleet, Member, Service};
use crate::support::{Stores, new_policy};

const PATIENCE: Duration = Duration::from_secs(90);
const POLICY: &str = "
name: following
market:
  - { name: match, when: competitor.min != null, match: { reference: competitor.min } }
guardrails: { max_step: 10% }
";

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

#[test]
fn the_configuration_and_the_rules_are_right_and_each_alert_has_its_page() -> Result<()> {
    promtool(&["check", "config", &shipped("prometheus/prometheus.yml").display().to_string()], None)?;
    for tests in ["prometheus/rules_test.yml", "prometheus/rules_of_hours_test.yml"] {
        promtool(&["test", "rules", &shipped(tests).display().to_string()], None)?;
    }
    let rules = std::fs::read_to_string(shipped("prometheus/rules.yml"))?;
    let runbook = std::fs::read_to_string(shipped("docs/runbook.md"))?;
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 9, "{alerts:?}");
    for alert in alerts {
        assert!(runbook.contains(&format!("\n## {alert}\n")), "{alert} has no page");
        assert!(rules.contains(&format!("runbook: docs/runbook.md#{}", alert.to_lowercase())), "{alert}");
    }
    Ok(())
}

/// Produces some of everything that is counted, again and again, so that rates are known.
async fn work(api: &Member, round: u32) -> Result<()> {
    for number in 0..20 {
        ensure!(api.client.price(&format!("P-{number}"), "NY", false).await?.status.as_u16() < 500);
    }
    let items: Vec<Value> = (0..5).map(|number| json!({"product_id": format!("P-{number}")})).collect();
    api.client.post("/api/v1/prices", &json!({"user_location": "NY", "items": items})).await?;
    // Within the largest step, so that prices move again and again; and now and then beyond it.
    let price = if round.is_multiple_of(5) { 50 } else { 95 + round % 11 };
    let event = json!({
        "specversion": "1.0", "id": round.to_string(), "source": "/test", "type": "pricing.competitor_price.v1",
        "data": {"product_id": format!("P-{}", round % 10), "competitor": "acme", "price": price},
    });
    ensure!(api.client.post("/api/v1/publish-market-event", &event).await?.status == 200);
    if round.is_multiple_of(5) {
        api.client.post("/api/v1/recalculations", &json!({})).await?;
    }
    Ok(())
}

#[tokio::test]
async fn every_panel_and_every_alert_has_data() -> Result<()> {
    let stores = Stores::start().await?;
    stores.store().await?.publish_policy(&new_policy(POLICY), None, chrono::Utc::now()).await?;
    let fleet = Fleet::new(&stores.redis.url(), &stores.database_url());
    let members = [
        fleet.start(Service::Api).await?,
        fleet.start(Service::Worker).await?,
        fleet.start(Service::Listener).await?,
    ];
    let [api, ..] = &members;
    let rows: String = (0..10).map(|number| format!("P-{number},USD,100,1\n")).collect();
    let csv = format!("product_id,currency,base_price,floor_price\n{rows}");
    let request = api.client.request(reqwest::Method::POST, "/api/v1/products/import");
    ensure!(api.client.send(request.header("content-type", "text/csv").body(csv)).await?.status == 200);
    for member in &members {
        promtool(&["check", "metrics"], Some(&member.client.get("/metrics").await?.text))?;
    }

    let jobs: Vec<(&str, Vec<String>)> = ["api", "worker", "listener"]
        .into_iter()
        .zip(members.iter().map(|member| vec![member.address()]))
        .collect();
    let prometheus = PrometheusServer::start(&jobs, &[shipped("prometheus/rules.yml")]).await?;
    let mut expressions = panels()?;
    expressions.extend(
        [
            "route:http_request_duration_seconds:p99",
            "route:http_requests:rate",
            "pricing:price_reads_from_cache:ratio",
        ]
        .map(str::to_owned),
    );
    let round = std::sync::atomic::AtomicU32::new(0);
    eventually("every panel shows something", PATIENCE, async || {
        work(api, round.fetch_add(1, std::sync::atomic::Ordering::Relaxed)).await?;
        let mut empty = Vec::new();
        for expression in &expressions {
            let series = prometheus.query(expression).await?;
            let has_number =
                series.iter().any(|series| series["value"][1].as_str().is_some_and(|value| value != "NaN"));
            if !has_number {
                empty.push(expression);
            }
        }
        ensure!(empty.is_empty(), "nothing for {empty:#?}");
        Ok(())
    })
    .await?;
    let firing = prometheus.query("ALERTS{alertstate=\"firing\"}").await?;
    assert_eq!(firing, Vec::<Value>::new(), "all is well");
    drop(members);
    eventually("the alert for missing workers fires", PATIENCE, async || {
        let alerts = prometheus.query("ALERTS{alertname=~\"No(Api|Worker|Listener)\"}").await?;
        ensure!(alerts.len() == 3, "{alerts:?}");
        Ok(())
    })
    .await
}

/// The expressions of the dashboard's panels.
fn panels() -> Result<Vec<String>> {
    let dashboard = std::fs::read_to_string(shipped("grafana/dashboards/pricing.json"))?;
    let dashboard: Value = serde_json::from_str(&dashboard)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions: Vec<String> =
        targets.filter_map(|target| target["expr"].as_str()).map(str::to_owned).collect();
    ensure!(expressions.len() >= 18, "{expressions:?}");
    Ok(expressions)
}
