//! The report of a simulation agrees with what publishing then does.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use pricing_core::store::Store;
use pricing_domain::facts::product::ProductId;
use pricing_domain::facts::signal::{Signal, SignalKind, Subject};
use pricing_e2e::{HttpClient, HttpReply, eventually};
use reqwest::Method;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::fleet::{Fleet, Service};
use crate::real_catalogue::catalogue as products;
use crate::support::{Stores, new_policy};

const PATIENCE: Duration = Duration::from_secs(120);

/// What the prices are made by before.
const BEFORE: &str = "name: before\nmarket:\n  - { name: fair, set_to: product.base_price }\n";

/// Moves some up and some down, is stopped by guardrails, and fails for some.
const AFTER: &str = "
name: after
market:
  - { name: follow, when: competitor.min != null, match: { reference: competitor.min } }
  - { name: fails, when: demand.index != null, multiply_by: demand.index / (demand.index - 2) }
  - { name: misspelt, only: { categories: [no such category] }, adjust: -50% }
  - { name: clear, when: stock.level != null and stock.level > 50, adjust: -4% }
guardrails: { floor_of_base: 70%, max_step: 12%, min_margin: 20% }
rounding: { mode: half_up, endings: [0.49, 0.99] }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_simulation_of_the_whole_catalogue_is_what_publishing_then_does() -> Result<()> {
    let stores = Stores::start().await?;
    let store = stores.store().await?;
    store.publish_policy(&new_policy(BEFORE), None, Utc::now()).await?;
    let fleet = Fleet::new(&stores.redis.url(), &stores.database_url());
    let api = fleet.start(Service::Api).await?;
    let _others = [fleet.start(Service::Listener).await?, fleet.start(Service::Worker).await?];
    let csv = products()?;
    let request =
        api.client.request(Method::POST, "/api/v1/products/import").header("content-type", "text/csv");
    let reply = api.client.send(request.body(csv.clone())).await?;
    ensure!(reply.status == 200 && reply.body["failed"] == 0, "{}", reply.text);
    let ids: Vec<ProductId> = csv
        .lines()
        .skip(1)
        .filter_map(|line| line.split(',').next().and_then(|id| ProductId::parse(id).ok()))
        .collect();
    put_signals(&store, &ids).await?;
    let before = list_prices(&store, &ids).await?;

    let simulated = post_policy(&api.client, "/api/v1/policies/simulate?products=all", AFTER).await?;
    ensure!(simulated.status == 200, "{}", simulated.text);
    let lines: Vec<Value> = simulated.text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let report = lines.last().and_then(|line| line.get("report")).context("no report")?;
    assert_eq!(list_prices(&store, &ids).await?, before, "a simulation touches no price");

    let published = post_policy(&api.client, "/api/v1/policies?author=test", AFTER).await?;
    ensure!(published.status == 201, "{}", published.text);
    let task_id = published.body["task_id"].as_str().context("no task_id")?;
    let run = eventually("the products are moved over", PATIENCE, async || {
        let run = api.client.get(&format!("/api/v1/recalculations/{task_id}")).await?;
        ensure!(run.body["state"] == "done", "{}", run.text);
        Ok(run.body)
    })
    .await?;

    let after = list_prices(&store, &ids).await?;
    let priced: Vec<&Value> = lines.iter().filter_map(|line| line.get("product")).collect();
    assert_eq!((priced.len(), after.len()), (ids.len(), ids.len()));
    for price in priced {
        let id = price["product_id"].as_str().context("no product_id")?;
        let expected: Decimal = price["simulated_list_price"].to_string().parse()?;
        assert_eq!(after.get(id), Some(&expected), "{price}");
        let in_effect: Decimal = price["list_price"].to_string().parse()?;
        assert_eq!(before.get(id), Some(&in_effect), "{price}");
    }
    let count = |name: &str| report[name].as_u64().context("no such count");
    assert_eq!(run["products_done"], report["products"], "{run}");
    assert_eq!(run["prices_frozen"], report["frozen"], "{report}");
    assert_eq!(run["prices_changed"], json!(count("up")? + count("down")?), "{run} {report}");
    assert_eq!(count("up")? + count("down")? + count("unchanged")?, count("products")?);
    for name in ["up", "down", "unchanged", "frozen"] {
        assert!(count(name)? > 0, "{name}: {report}");
    }
    assert_eq!(report["failed_rules"], json!({"fails": count("frozen")?}));
    let effects = report["rules"].as_array().context("no rules")?;
    let names: Vec<&str> = effects.iter().filter_map(|rule| rule["name"].as_str()).collect();
    assert_eq!(names, ["follow", "fails", "misspelt", "clear"]);
    let effect = |place: usize, name: &str| effects.get(place).and_then(|rule| rule[name].as_u64());
    assert!(effect(0, "applied") > Some(0) && effect(3, "applied") > Some(0), "{report}");
    assert_eq!((effect(1, "failed"), effect(2, "applied")), (Some(count("frozen")?), Some(0)));
    assert!(report["guardrails"]["max_step"].as_u64() > Some(0), "{report}");
    assert!(report["margins"]["USD"]["products"].as_u64() > Some(0), "{report}");
    assert_eq!(report["biggest_moves"].as_array().map(Vec::len), Some(20));
    Ok(())
}

async fn post_policy(client: &HttpClient, path: &str, policy: &str) -> Result<HttpReply> {
    let request = client.request(Method::POST, path).header("content-type", "application/yaml");
    client.send(request.body(policy.to_owned())).await
}

#[tokio::test]
async fn simulations_are_bounded_and_bad_requests_are_refused() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    let simulate = async |query: &str, policy: &str| {
        post_policy(&api.client, &format!("/api/v1/policies/simulate{query}"), policy).await
    };
    for (query, policy, status) in [
        ("?products=some", BEFORE, 422),
        ("", "name: [", 422),
        ("", "name: x\nmarket:\n  - { name: y, adjust: six }", 422),
    ] {
        assert_eq!(simulate(query, policy).await?.status, status, "{query} {policy}");
    }
    let empty = simulate("?products=moved", BEFORE).await?;
    assert!(empty.text.starts_with(r#"{"report":{"products":0,"#), "{}", empty.text);
    Ok(())
}

/// Facts of every kind for some of the products each.
async fn put_signals(store: &Store, ids: &[ProductId]) -> Result<()> {
    let now = Utc::now();
    for page in ids.chunks(2_000) {
        let signals = page.iter().enumerate().flat_map(|(number, id)| {
            let subject = Subject::Product(id.to_string());
            let signal = move |kind, source: &str, value: i64| Signal {
                source: source.to_owned(),
                ..Signal::new(subject.clone(), kind, Decimal::new(value, 2), now)
            };
            let number = i64::try_from(number).unwrap_or(0);
            let mut signals = vec![
                signal(SignalKind::UnitsSold, "", 100 * (number % 40)),
                signal(SignalKind::UnitCost, "", 40 + number % 300),
            ];
            if number % 3 == 0 {
                signals.push(signal(SignalKind::CompetitorPrice, "acme", 80 + (number * 13) % 900));
            }
            if number % 5 == 0 {
                signals.push(signal(SignalKind::StockLevel, "", 100 * (number % 90)));
            }
            if number % 50 == 7 {
                // Exactly 2 is divided by: the rule fails.
                signals.push(signal(SignalKind::DemandIndex, "", 200));
            }
            signals
        });
        let signals: Vec<Signal> = signals.collect();
        let mut transaction = store.begin().await?;
        transaction.put_signals(&signals).await?;
        transaction.commit().await?;
    }
    Ok(())
}

async fn list_prices(store: &Store, ids: &[ProductId]) -> Result<HashMap<String, Decimal>> {
    let mut prices = HashMap::new();
    for page in ids.chunks(2_000) {
        for facts in store.facts(page, Utc::now()).await?.known {
            let price = facts.price.context("no price")?.entry.list_price;
            prices.insert(facts.product.product_id.to_string(), price);
        }
    }
    Ok(prices)
}
