//! Offers that go too far for some shoppers: held by the panel of a circuit breaker, limited by
//! `max_discount`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::{TimeDelta, Utc};
use pricing_domain::facts::signal::{Signal, SignalKind, Subject};
use pricing_e2e::{HttpClient, HttpReply, eventually};
use reqwest::Method;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::fleet::{Fleet, Member, Service};
use crate::support::{Stores, new_policy};

const PATIENCE: Duration = Duration::from_secs(60);

/// Prime members pay 5 % less, and no policy that moves the median price by more than a fifth passes.
const CAREFUL: &str = "
name: careful
offer: [{ name: prime, when: shopper.prime, adjust: -5% }]
circuit_breaker: { median_move: 20% }
";

/// Published by mistake for -9.5 %. It says nothing of a circuit breaker.
const CARELESS: &str = "name: careless\noffer: [{ name: prime, when: shopper.prime, adjust: -95% }]\n";

/// Publishes [`CAREFUL`] for a product at 100 USD and a location with a factor, which it does not use.
struct Shop {
    stores: Stores,
    client: HttpClient,
    _services: Vec<Member>,
}

impl Shop {
    async fn open() -> Result<Self> {
        Self::open_with(&[Service::Api, Service::Listener, Service::Worker]).await
    }

    /// The first service is the API.
    async fn open_with(services: &[Service]) -> Result<Self> {
        let stores = Stores::start().await?;
        let store = stores.store().await?;
        store.publish_first_policy(&new_policy(CAREFUL), Utc::now()).await?;
        let subject = Subject::Location("DE".to_owned());
        let factor = Signal::new(subject, SignalKind::LocationFactor, Decimal::new(8, 1), Utc::now());
        let mut transaction = store.begin().await?;
        transaction.put_signals(&[factor]).await?;
        transaction.commit().await?;
        let fleet = Fleet::new(&stores.redis.url(), &stores.database_url());
        let starting = services.iter().map(|service| fleet.start(*service));
        let services = futures::future::try_join_all(starting).await?;
        let client = services.first().context("no API")?.client.clone();
        let reply =
            client.put("/api/v1/products/P-1", &json!({"currency": "USD", "base_price": 100})).await?;
        ensure!(reply.status == 201, "{}", reply.text);
        let shop = Self { stores, client, _services: services };
        shop.prime_pays(95.0).await?;
        Ok(shop)
    }

    async fn prime_pays(&self, expected: f64) -> Result<()> {
        eventually(&format!("a prime member pays {expected}"), PATIENCE, async || {
            let reply = self.client.price("P-1", "NY", true).await?;
            ensure!(reply.body["final_price"] == json!(expected), "{}", reply.text);
            Ok(())
        })
        .await
    }

    async fn post(&self, path: &str, policy: &str) -> Result<HttpReply> {
        let request = self.client.request(Method::POST, path).header("content-type", "application/yaml");
        self.client.send(request.query(&[("author", "test")]).body(policy.to_owned())).await
    }

    /// For how many products a prime member would pay more, less and the same.
    async fn effect_on_prime(&self, policy: &str) -> Result<[u64; 3]> {
        let report = self.simulate(policy).await?;
        let prime = &report["panel"][1];
        ensure!(prime["name"] == "prime", "{report}");
        Ok(["up", "down", "unchanged"].map(|count| prime[count].as_u64().unwrap_or(u64::MAX)))
    }

    /// The report of a simulation.
    async fn simulate(&self, policy: &str) -> Result<Value> {
        let request = self.client.request(Method::POST, "/api/v1/policies/simulate");
        let request = request.header("content-type", "application/yaml").body(policy.to_owned());
        let reply = self.client.send(request).await?;
        let line: Value = serde_json::from_str(reply.text.lines().last().context("no report")?)?;
        Ok(line["report"].clone())
    }
}

fn refusal(reply: &HttpReply) -> (u16, &str, &str) {
    let text = |name: &str| reply.body[name].as_str().unwrap_or_default();
    (reply.status.as_u16(), text("type"), text("detail"))
}

#[tokio::test]
async fn an_offer_that_goes_too_far_for_some_shoppers_is_refused_until_it_is_approved() -> Result<()> {
    let shop = Shop::open().await?;
    let reason = "for prime: the median product would move by -94.74% (allowed: 20%)";
    let report = shop.simulate(CARELESS).await?;
    assert_eq!((&report["unchanged"], &report["down"]), (&json!(1), &json!(0)), "{report}");
    assert_eq!(report["held"], json!([reason]));
    let effect = |shopper: &Value| {
        let counts = ["name", "up", "down", "unchanged", "median_change_percent"];
        Value::from(counts.map(|field| shopper[field].clone()).to_vec())
    };
    let panel: Vec<Value> = report["panel"].as_array().context("no panel")?.iter().map(effect).collect();
    assert_eq!(
        panel,
        [
            json!(["anonymous", 0, 0, 1, 0]),
            json!(["prime", 0, 1, 0, -94.74]),
            json!(["location DE", 0, 0, 1, 0])
        ],
        "{report}"
    );
    assert_eq!(report["panel"][2]["location_factor"], json!(0.8));
    assert_eq!(
        report["panel"][1]["biggest_moves"],
        json!([{"product_id": "P-1", "currency": "USD", "final_price": 95.0, "simulated_final_price": 5.0, "change_percent": -94.74}])
    );

    let held = shop.post("/api/v1/policies", CARELESS).await?;
    let (status, kind, detail) = refusal(&held);
    assert_eq!((status, kind), (409, "/problems/held-by-circuit-breaker"), "{}", held.text);
    assert!(detail.contains(reason), "{detail}");
    // One whose offer begins later, and one for the location alone.
    let hour = (Utc::now() + TimeDelta::hours(1)).format("%FT%TZ");
    let later = CARELESS.replace("adjust", &format!("from: {hour}, adjust"));
    let held = shop.post("/api/v1/policies", &later).await?;
    assert!(held.status == 409 && held.text.contains(&format!("at {hour}, {reason}")), "{}", held.text);
    let at_location = "name: x\noffer: [{ name: location, multiply_by: (location.factor ?? 1) * 0.5 + 0.5 }, { name: prime, when: shopper.prime, adjust: -5% }, { name: close, only: { locations: [DE] }, adjust: -50% }]\n";
    let held = shop.post("/api/v1/policies", at_location).await?;
    let expected = "for location DE: the median product would move by -55% (allowed: 20%)";
    assert!(held.status == 409 && held.text.contains(expected), "{}", held.text);
    assert_eq!(shop.client.get("/api/v1/policies/latest").await?.body["version"], 1, "none was published");

    let approved = shop.post("/api/v1/policies?approved_by=kim", CARELESS).await?;
    ensure!(approved.status == 201, "{}", approved.text);
    shop.prime_pays(5.0).await?;
    let back = shop.post("/api/v1/policies/1/rollback", "").await?;
    assert_eq!(back.status, 409, "the way back goes as far: {}", back.text);
    let back = shop.post("/api/v1/policies/1/rollback?approved_by=kim", "").await?;
    ensure!(back.status == 201, "{}", back.text);
    shop.prime_pays(95.0).await
}

#[tokio::test]
async fn a_recalculation_is_judged_by_the_panel_of_the_policy_in_use() -> Result<()> {
    let shop = Shop::open().await?;
    let written = "[{ name: traders, segment: trade, quantity: 100 }]";
    let policy = format!(
        "name: trade\noffer: [{{ name: trade, only: {{ segments: [trade] }}, quantity_tiers: [{{ from: 100, adjust: -60% }}] }}]\ncircuit_breaker: {{ moved_products: 0%, moved_by: 30%, panel: {written} }}\n"
    );
    // Published behind the engine's back, as by a restored backup.
    shop.stores.store().await?.publish_policy(&new_policy(&policy), None, Utc::now()).await?;
    let asked = shop.client.post("/api/v1/recalculations", &json!({})).await?;
    let task_id = asked.body["task_id"].as_str().context("no task_id")?.to_owned();
    eventually("the recalculation is held", PATIENCE, async || {
        let run = shop.client.get(&format!("/api/v1/recalculations/{task_id}")).await?;
        ensure!(run.body["state"] == "held", "{}", run.text);
        let reason = "for traders: 1 of 1 products would move by more than 30% (allowed: 0% of them)";
        assert_eq!(run.body["reason"], reason);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_largest_discount_limits_offers_and_its_quotes_say_so() -> Result<()> {
    let shop = Shop::open().await?;
    let limited = format!("{CARELESS}guardrails: {{ max_discount: 15% }}\n");
    let published = shop.post("/api/v1/policies", &limited).await?;
    ensure!(published.status == 201, "{}", published.text);
    shop.prime_pays(85.0).await?;
    let path = "/api/v1/products/P-1/explanation?user_location=NY&is_prime_member=true";
    let explained = shop.client.get(path).await?;
    assert!(explained.text.contains(r#""guardrail":"max_discount""#), "{}", explained.text);
    let checked = shop.post("/api/v1/policies/check", &limited.replace("15%", "100%")).await?;
    let problem = &checked.body["problems"][0];
    assert_eq!(
        (&problem["field"], &problem["line"], &problem["column"]),
        (&json!("guardrails.max_discount"), &json!(3), &json!(15)),
        "{}",
        checked.text
    );
    Ok(())
}

#[tokio::test]
async fn a_price_whose_policy_is_no_longer_kept_counts_as_what_the_next_request_would_get() -> Result<()> {
    let shop = Shop::open_with(&[Service::Api]).await?;
    let half = CARELESS.replace("-95%", "-50%");
    // No worker moves the product over.
    for (policy, effect) in [(CARELESS, [0, 1, 0]), (&half, [0, 1, 0])] {
        assert_eq!(shop.effect_on_prime(&half).await?, effect, "before {policy}");
        let published = shop.post("/api/v1/policies?approved_by=kim", policy).await?;
        ensure!(published.status == 201, "{}", published.text);
    }
    assert_eq!(shop.effect_on_prime(&half).await?, [0, 0, 1]);
    assert_eq!(shop.effect_on_prime(CARELESS).await?, [0, 1, 0]);
    assert_eq!(shop.effect_on_prime(CAREFUL).await?, [1, 0, 0]);
    shop.prime_pays(50.0).await
}
