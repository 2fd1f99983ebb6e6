//! A price that a limit holds back: what the explanation, a simulation, publishing and the command line say.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use pricing_e2e::{HttpReply, ServiceProcess, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::fleet::{Fleet, Member, Service};
use crate::support::{Stores, new_policy};

const PATIENCE: Duration = Duration::from_secs(60);

/// Follows the cheapest competitor, by 15 % an hour.
const STEPS: &str = "
name: steps
market: [{ name: follow, match: { competitor: { statistic: min } } }]
guardrails: { max_step: 15% }
";

/// Its price points are further apart than a step.
const POINTS: &str = "
name: points
market: [{ name: follow, match: { competitor: { statistic: min } } }]
guardrails: { max_step: 5% }
rounding: { price_points: [50, 80, 100, 150] }
";

/// Has a product at 100 USD, of which a competitor asks another price.
struct Shop {
    stores: Stores,
    api: Member,
    _others: [Member; 2],
}

impl Shop {
    async fn open(policy: &str, competitor_price: u32) -> Result<Self> {
        let stores = Stores::start().await?;
        stores.store().await?.publish_first_policy(&new_policy(policy), Utc::now()).await?;
        let fleet = Fleet::new(&stores.redis.url(), &stores.database_url());
        let api = fleet.start(Service::Api).await?;
        let others = [fleet.start(Service::Listener).await?, fleet.start(Service::Worker).await?];
        let product = json!({"currency": "USD", "base_price": 100, "floor_price": 1});
        let reply = api.client.put("/api/v1/products/P-1", &product).await?;
        ensure!(reply.status == 201, "{}", reply.text);
        let event = json!({
            "specversion": "1.0", "id": "1", "source": "/test", "type": "pricing.competitor_price.v1",
            "data": {"product_id": "P-1", "competitor": "acme", "price": competitor_price},
        });
        let reply = api.client.post("/api/v1/publish-market-event", &event).await?;
        ensure!(reply.status == 200, "{}", reply.text);
        Ok(Self { stores, api, _others: others })
    }

    /// The explanation, once a limit holds the price back.
    async fn explanation(&self) -> Result<Value> {
        eventually("a limit holds the price back", PATIENCE, async || {
            let reply = self.api.client.get("/api/v1/products/P-1/explanation").await?;
            ensure!(!reply.body["held"].is_null(), "{}", reply.text);
            Ok(reply.body)
        })
        .await
    }

    async fn post(&self, path: &str, policy: &str) -> Result<HttpReply> {
        let request = self.api.client.request(Method::POST, path).header("content-type", "application/yaml");
        self.api.client.send(request.body(policy.to_owned())).await
    }

    /// The report of a simulation.
    async fn simulate(&self, policy: &str) -> Result<Value> {
        let reply = self.post("/api/v1/policies/simulate", policy).await?;
        let line: Value = serde_json::from_str(reply.text.lines().last().context("no report")?)?;
        Ok(line["report"].clone())
    }

    async fn publish(&self, policy: &str) -> Result<Value> {
        let reply = self.post("/api/v1/policies?author=test", policy).await?;
        ensure!(reply.status == 201, "{}", reply.text);
        Ok(reply.body)
    }

    /// What the command line prints.
    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let url = format!("http://{}", self.api.address());
        let mut process = ServiceProcess::start("pricing", &[("PRICING_URL", &url)], arguments)?;
        ensure!(process.wait(PATIENCE).await?.success(), "{}", process.output()?);
        process.output()
    }
}

/// A time to the second: a stored one may have fewer digits.
fn second(time: &Value) -> Option<&str> {
    time.as_str()?.get(..19)
}

#[tokio::test]
async fn a_held_price_says_how_far_it_is_from_its_target_and_until_when() -> Result<()> {
    let shop = Shop::open(STEPS, 50).await?;
    let explained = shop.explanation().await?;
    let held = &explained["held"];
    assert_eq!((explained["list_price"].as_f64(), held["target"].as_f64()), (Some(85.0), Some(50.0)));
    assert_eq!(held["by"], "max_step");
    let times = [second(&held["continues_at"]), second(&held["reaches_target_at"])];
    assert!(times[0].is_some() && times[0] < times[1], "{held}");

    let simulated = shop.simulate(STEPS).await?;
    let published = shop.publish(&format!("{STEPS}circuit_breaker: {{ median_move: 90% }}\n")).await?;
    assert_eq!(published["is_simulated"], true, "{published}");
    for answer in [&simulated, &published] {
        let held = &answer["held_prices"][0];
        assert_eq!((&held["limit"], &held["products"]), (&json!("max_step"), &json!(1)), "{answer}");
        // From 85 to 50.
        assert_eq!(held["largest_distance_percent"].as_f64(), Some(41.18), "{answer}");
        assert_eq!(held["products_that_stay"], 0, "{answer}");
        assert_eq!([second(&held["continues_at"]), second(&held["reaches_target_at"])], times, "{answer}");
    }

    let approved = shop.post("/api/v1/policies?author=test&approved_by=test", STEPS).await?;
    assert_eq!(approved.body["is_simulated"], false, "{}", approved.text);
    let held = &approved.body["held_prices"][0];
    assert_eq!(
        (&held["limit"], &held["products"], &held["continues_at"]),
        (&json!("max_step"), &json!(1), &Value::Null)
    );
    let said = shop.run(&["policy", "rollback", "2", "--author", "test"]).await?;
    assert!(said.contains("1 price is held by max_step and continues at "), "{said}");
    let counted = shop.stores.store().await?.count_held_prices().await?;
    assert_eq!(counted.into_iter().collect::<Vec<_>>(), [("max_step".to_owned(), 1)]);
    Ok(())
}

#[tokio::test]
async fn a_price_point_out_of_reach_says_that_the_price_stays() -> Result<()> {
    let shop = Shop::open(POINTS, 145).await?;
    let explained = shop.explanation().await?;
    assert_eq!(explained["list_price"].as_f64(), Some(100.0), "{explained}");
    assert_eq!(
        (&explained["held"]["continues_at"], &explained["held"]["reaches_target_at"]),
        (&Value::Null, &Value::Null)
    );
    let held = shop.simulate(POINTS).await?["held_prices"][0].clone();
    assert_eq!((&held["products"], &held["products_that_stay"]), (&json!(1), &json!(1)), "{held}");
    let said = shop.run(&["explain", "P-1"]).await?;
    assert!(
        said.contains("Its target is 145.00 USD; a limit, the largest move per step, holds it back."),
        "{said}"
    );
    assert!(said.contains("It stays short of its target"), "{said}");
    assert!(!said.contains("movement"), "{said}");
    Ok(())
}
