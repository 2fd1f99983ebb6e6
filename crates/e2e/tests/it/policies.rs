//! Policies over HTTP: checked, published, compared and rolled back, by several people at once.

use anyhow::{Context, Result, ensure};
use pricing_e2e::{HttpClient, HttpReply, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::fleet::{Fleet, Member, Service};
use crate::support::Stores;

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

const HALVING: &str = "name: halving\nmarket:\n  - { name: half, multiply_by: 0.5 }\n";

/// One of everything and a second API, with a product `P-1` at 100 USD.
struct Engine {
    _stores: Stores,
    apis: [Member; 2],
    _others: [Member; 2],
}

impl Engine {
    async fn start() -> Result<Self> {
        let stores = Stores::start().await?;
        let fleet =
            Fleet::new(&stores.redis.url(), &stores.database_url()).with("PRICING_L1_MAX_STALENESS", "1h");
        let apis = [fleet.start(Service::Api).await?, fleet.start(Service::Api).await?];
        let others = [fleet.start(Service::Listener).await?, fleet.start(Service::Worker).await?];
        let product = json!({"currency": "USD", "base_price": 100});
        let reply = apis[0].client.put("/api/v1/products/P-1", &product).await?;
        ensure!(reply.status == 201, "{}", reply.text);
        Ok(Self { _stores: stores, apis, _others: others })
    }

    fn client(&self) -> &HttpClient {
        &self.apis[0].client
    }

    /// At both APIs, which had it in memory before.
    async fn price_becomes(&self, expected: f64) -> Result<()> {
        for api in &self.apis {
            eventually(&format!("P-1 costs {expected}"), PATIENCE, async || {
                let reply = api.client.price("P-1", "NY", false).await?;
                ensure!(reply.body["final_price"] == json!(expected), "{}", reply.text);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

async fn post_policy(
    client: &HttpClient,
    path: &str,
    policy: &str,
    if_match: Option<&str>,
) -> Result<HttpReply> {
    let mut request = client.request(Method::POST, path).header("content-type", "application/yaml");
    if (path.ends_with("/policies") || path.contains("/rollback")) && !path.contains("author=") {
        request = request.query(&[("author", "test")]);
    }
    if let Some(etag) = if_match {
        request = request.header("if-match", etag);
    }
    client.send(request.body(policy.to_owned())).await
}

fn etag(reply: &HttpReply) -> Result<String> {
    Ok(reply.headers.get("etag").context("no ETag")?.to_str()?.to_owned())
}

#[tokio::test]
async fn a_policy_is_published_to_every_process_compared_and_rolled_back() -> Result<()> {
    let engine = Engine::start().await?;
    engine.price_becomes(95.0).await?;
    let client = engine.client();
    let published = post_policy(client, "/api/v1/policies?author=zoe&note=sale", HALVING, None).await?;
    ensure!(published.status == 201, "{}", published.text);
    assert_eq!(published.body["version"], 2);
    assert_eq!(etag(&published)?, "\"2\"");
    engine.price_becomes(50.0).await?;
    let task = published.body["task_id"].as_str().context("no task_id")?;
    eventually("its recalculation is done", PATIENCE, async || {
        let run = client.get(&format!("/api/v1/recalculations/{task}")).await?;
        ensure!(run.body["state"] == "done" && run.body["policy_version"] == 2, "{}", run.text);
        Ok(())
    })
    .await?;

    let latest = client.get("/api/v1/policies/latest").await?;
    assert_eq!(etag(&latest)?, "\"2\"");
    let mut body = latest.body;
    ensure!(body["published_at"].take().is_string());
    assert_eq!(
        body,
        json!({"version": 2, "name": "halving", "author": "zoe", "note": "sale", "published_at": null, "source": HALVING})
    );
    let listed = engine.apis[1].client.get("/api/v1/policies").await?.body;
    assert_eq!(listed["current_version"], 2);
    let versions: Vec<&Value> =
        listed["policies"].as_array().context("no list")?.iter().map(|policy| &policy["version"]).collect();
    assert_eq!(versions, [2, 1]);
    let diff = client.get("/api/v1/policies/1/diff/2").await?.text;
    assert!(diff.starts_with("--- version 1, ") && diff.contains("\n+name: halving\n"), "{diff}");
    assert_eq!(client.get("/api/v1/policies/2/diff/2").await?.text, "");

    let back = post_policy(client, "/api/v1/policies/1/rollback?author=zoe", "", None).await?;
    ensure!(back.status == 201 && back.body["version"] == 3, "{}", back.text);
    // At once and in full, although version 1 has a largest step of 15 %: that limits the market.
    engine.price_becomes(95.0).await?;
    assert_eq!(client.get("/api/v1/policies/3").await?.body["note"], "back to version 1");
    Ok(())
}

/// Subtracts ten from any price, and has an increment that small prices cannot meet.
const TENNER: &str =
    "name: tenner\noffer:\n  - { name: tenner, adjust: -10 }\nrounding: { increment: 5, ending: 0.99 }\n";

#[tokio::test]
async fn rules_that_products_are_too_cheap_for_are_warnings_and_not_refused() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    let client = &api.client;
    for (id, product) in [
        ("cheap", json!({"currency": "USD", "base_price": 1.20})),
        (
            "narrow",
            json!({"currency": "USD", "base_price": 1.20, "floor_price": 1.10, "ceiling_price": 1.50}),
        ),
        ("floored", json!({"currency": "USD", "base_price": 10, "floor_price": 5})),
        ("dear", json!({"currency": "USD", "base_price": 100})),
    ] {
        let reply = client.put(&format!("/api/v1/products/{id}"), &product).await?;
        ensure!(reply.status == 201, "{}", reply.text);
    }
    let checked = post_policy(client, "/api/v1/policies/check", TENNER, None).await?.body;
    assert_eq!((&checked["is_valid"], &checked["problems"]), (&json!(true), &json!([])), "{checked}");
    let fields = |body: &Value| -> Vec<String> {
        let warnings = body["warnings"].as_array().into_iter().flatten();
        warnings.map(|warning| format!("{} {}", warning["field"], warning["line"])).collect()
    };
    let in_document = [r#""offer[0]" 3"#, r#""rounding.increment" 4"#, r#""rounding.ending" 4"#];
    assert_eq!(fields(&checked), in_document, "{checked}");

    let simulated = post_policy(client, "/api/v1/policies/simulate", TENNER, None).await?;
    let report: Value = serde_json::from_str(simulated.text.lines().last().context("no report")?)?;
    let met = [
        json!({"about": "rounding.increment", "problem": "no multiple fits, and the list price keeps to the minor unit",
            "products": 1, "examples": ["narrow"]}),
        json!({"about": "tenner", "problem": "goes to the lowest price that is allowed", "products": 2, "examples": ["floored", "narrow"]}),
        json!({"about": "tenner", "problem": "would leave nothing, and is passed over", "products": 1, "examples": ["cheap"]}),
    ];
    assert_eq!(report["report"]["catalogue_warnings"], json!(met), "{report}");

    let published = post_policy(client, "/api/v1/policies", TENNER, None).await?;
    ensure!(published.status == 201, "{}", published.text);
    let in_catalogue = [r#""rounding.increment" null"#, r#""tenner" null"#, r#""tenner" null"#];
    assert_eq!(fields(&published.body), [&in_document[..], &in_catalogue[..]].concat());
    let last = published.body["warnings"][5]["problem"].as_str().unwrap_or_default();
    assert_eq!(last, "would leave nothing, and is passed over, for 1 product (cheap)");
    Ok(())
}

#[tokio::test]
async fn of_two_concurrent_publishers_one_gets_a_conflict() -> Result<()> {
    let stores = Stores::start().await?;
    let apis = [stores.api().await?, stores.api().await?];
    let seen = etag(&apis[0].client.get("/api/v1/policies/latest").await?)?;
    let races = (0..8).map(|number| {
        let (client, seen) = (apis[number % 2].client.clone(), seen.clone());
        async move { post_policy(&client, "/api/v1/policies", HALVING, Some(&seen)).await }
    });
    let mut statuses = Vec::new();
    for reply in futures::future::try_join_all(races).await? {
        if reply.status == 412 {
            assert_eq!(reply.body["type"], "/problems/policy-version-is-old", "{}", reply.text);
        }
        statuses.push(reply.status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 412, 412, 412, 412, 412, 412, 412]);
    assert_eq!(apis[1].client.get("/api/v1/policies/latest").await?.body["version"], 2);
    let rollback = post_policy(&apis[0].client, "/api/v1/policies/1/rollback", "", Some(&seen)).await?;
    assert_eq!(rollback.status, 412);
    Ok(())
}

#[tokio::test]
async fn problems_of_a_policy_have_a_line_and_a_column() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    let client = &api.client;
    let wrong = "name: wrong\nmarket:\n  - name: scarcity\n    when: stock.levle < 1\n    adjust: +6%\n  - { name: b, adjust: six }\n";
    let checked = post_policy(client, "/api/v1/policies/check", wrong, None).await?;
    assert_eq!((checked.status.as_u16(), &checked.body["is_valid"]), (200, &json!(false)));
    let problems = checked.body["problems"].as_array().context("no problems")?;
    let places: Vec<(&str, &Value, &Value)> = problems
        .iter()
        .map(|problem| (problem["field"].as_str().unwrap_or_default(), &problem["line"], &problem["column"]))
        .collect();
    assert_eq!(
        places,
        [("market[0].when", &json!(4), &json!(11)), ("market[1].adjust", &json!(6), &json!(16)),],
        "{}",
        checked.text
    );
    let refused = post_policy(client, "/api/v1/policies", wrong, None).await?;
    assert_eq!((refused.status.as_u16(), &refused.body["errors"]), (422, &checked.body["problems"]));
    let valid = post_policy(client, "/api/v1/policies/check", HALVING, None).await?;
    assert_eq!(valid.body, json!({"is_valid": true, "problems": [], "warnings": []}));
    let over = format!("{HALVING}    until: 2020-01-01T00:00:00Z\n")
        .replace("- { name: half, multiply_by: 0.5 }", "- name: half\n    multiply_by: 0.5");
    let warned = post_policy(client, "/api/v1/policies/check", &over, None).await?;
    assert_eq!((&warned.body["is_valid"], &warned.body["problems"]), (&json!(true), &json!([])));
    let warning = json!({"field": "market[0].until", "problem": "is over: the rule never applies again", "line": 5, "column": 5});
    assert_eq!(warned.body["warnings"], json!([warning]), "{}", warned.text);
    let simulated = post_policy(client, "/api/v1/policies/simulate", &over, None).await?;
    assert!(simulated.text.contains(r#""warnings":[{"field":"market[0].until""#), "{}", simulated.text);
    assert_eq!(client.get("/api/v1/policies/latest").await?.body["version"], 1, "nothing was published");

    for (path, policy, if_match, status) in [
        ("/api/v1/policies", HALVING, Some("2"), 422),
        ("/api/v1/policies", HALVING, Some("W/\"1\""), 422),
        ("/api/v1/policies?author=zoe&by=zoe", HALVING, None, 422),
        ("/api/v1/policies?author=%20", HALVING, None, 422),
        ("/api/v1/policies?author=zoe&note=%1b", HALVING, None, 422),
        ("/api/v1/policies/9/rollback?author=zoe", "", None, 404),
        ("/api/v1/policies/check", "\u{7}", None, 200),
    ] {
        let reply = post_policy(client, path, policy, if_match).await?;
        assert_eq!(reply.status, status, "{path} {if_match:?}: {}", reply.text);
    }
    let long = "#".repeat(300_000);
    assert_eq!(post_policy(client, "/api/v1/policies/check", &long, None).await?.status, 413);
    for path in ["/api/v1/policies/0", "/api/v1/policies/x", "/api/v1/policies/1/diff/7"] {
        let reply = client.get(path).await?;
        assert_eq!(
            (reply.status.as_u16(), &reply.body["type"]),
            (404, &json!("/problems/policy-not-found")),
            "{path}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_policy_that_moves_prices_too_far_is_held_until_it_is_approved() -> Result<()> {
    const CAREFUL: &str = "
name: careful
market:
  - { name: follow, when: competitor.min != null, match: { reference: competitor.min } }
offer: []
circuit_breaker: { moved_products: 50%, moved_by: 15% }
";
    let engine = Engine::start().await?;
    let client = engine.client();
    let published = post_policy(client, "/api/v1/policies", CAREFUL, None).await?;
    ensure!(
        published.status == 201,
        "without its offers a prime member pays 11 % more, within the limit: {}",
        published.text
    );
    engine.price_becomes(100.0).await?;
    let careless = HALVING.replace("halving", "careless");
    let held = post_policy(client, "/api/v1/policies", &careless, None).await?;
    assert_eq!(
        (held.status.as_u16(), &held.body["type"]),
        (409, &json!("/problems/held-by-circuit-breaker"))
    );
    let reason = "1 of 1 products would move by more than 15% (allowed: 50% of them)";
    assert!(held.text.contains(reason), "{}", held.text);
    // One that will go too far only in an hour.
    let hour = (chrono::Utc::now() + chrono::TimeDelta::hours(1)).format("%FT%TZ");
    let later = format!("name: later\nmarket:\n  - {{ name: sale, from: {hour}, adjust: -40% }}\n");
    let held_later = post_policy(client, "/api/v1/policies", &later, None).await?;
    assert_eq!(held_later.status, 409, "{}", held_later.text);
    assert!(held_later.text.contains(&format!("at {hour}, {reason}")), "{}", held_later.text);
    let simulated = post_policy(client, "/api/v1/policies/simulate", &later, None).await?;
    assert!(simulated.text.contains(&format!(r#""held":["at {hour}, {reason}"]"#)), "{}", simulated.text);
    // A publisher that was overtaken gets that answer, and no request for an approval.
    let old = post_policy(client, "/api/v1/policies", &careless, Some("\"1\"")).await?;
    assert_eq!(old.status, 412, "{}", old.text);
    let simulated = post_policy(client, "/api/v1/policies/simulate", &careless, None).await?;
    assert!(simulated.text.contains(&format!(r#""held":["{reason}"]"#)), "{}", simulated.text);
    assert_eq!(client.get("/api/v1/policies/latest").await?.body["version"], 2);
    let unnamed =
        post_policy(client, "/api/v1/policies?author=test&approved_by=%20", &careless, None).await?;
    assert_eq!(unnamed.status, 422, "{}", unnamed.text);
    let approved =
        post_policy(client, "/api/v1/policies?author=test&approved_by=kim", &careless, None).await?;
    ensure!(approved.status == 201, "{}", approved.text);
    engine.price_becomes(50.0).await?;
    let back = post_policy(client, "/api/v1/policies/2/rollback", "", None).await?;
    assert_eq!(back.status, 409, "the policy that is rolled back to would hold it: {}", back.text);
    let back = post_policy(client, "/api/v1/policies/2/rollback?approved_by=kim", "", None).await?;
    ensure!(back.status == 201, "{}", back.text);
    engine.price_becomes(100.0).await
}

/// The run in this state, or its follow-up. A request that arrives while the coordinator of an earlier run
/// releases its lease is left to a follow-up.
async fn run_in_state(client: &HttpClient, task_id: &str, state: &str) -> Result<(String, HttpReply)> {
    let run = client.get(&format!("/api/v1/recalculations/{task_id}")).await?;
    match run.body["follow_up_task_id"].as_str() {
        Some(follow_up) if run.body["state"] != state => {
            Box::pin(run_in_state(client, follow_up, state)).await
        }
        _ => {
            ensure!(run.body["state"] == state, "{}", run.text);
            Ok((task_id.to_owned(), run))
        }
    }
}

#[tokio::test]
async fn a_recalculation_that_goes_too_far_waits_for_a_decision() -> Result<()> {
    const CAREFUL: &str = "
name: careful
market:
  - { name: fair, multiply_by: 0.5, from: 2020-01-01T00:00:00Z }
offer: []
circuit_breaker: { median_move: 20% }
";
    let engine = Engine::start().await?;
    let client = engine.client();
    engine.price_becomes(95.0).await?;
    // Published behind the engine's back, as by a restored backup.
    let store = engine._stores.store().await?;
    store.publish_policy(&crate::support::new_policy(CAREFUL), None, chrono::Utc::now()).await?;
    let state_becomes = async |task_id: &str, state: &str| {
        let waited_for = format!("it is {state}");
        eventually(&waited_for, PATIENCE, async || run_in_state(client, task_id, state).await).await
    };
    let ask = async || {
        let asked = client.post("/api/v1/recalculations", &json!({})).await?;
        Ok::<_, anyhow::Error>(asked.body["task_id"].as_str().context("no task_id")?.to_owned())
    };
    let first = ask().await?;
    let (first, held) = state_becomes(&first, "held").await?;
    // Shoppers paid less than the list price until then, so their prices would fall less.
    let moves = ["", "for anonymous: ", "for prime: "].into_iter().zip(["-50%", "-47.37%", "-44.6%"]);
    let reasons: Vec<String> = moves
        .map(|(of, median)| format!("{of}the median product would move by {median} (allowed: 20%)"))
        .collect();
    assert_eq!(held.body["reason"], reasons.join("; "));
    assert_eq!(client.price("P-1", "NY", false).await?.body["base_price"], json!(100.00));
    let entry = store.stored_price(&pricing_domain::facts::product::ProductId::parse("P-1")?).await?;
    assert_eq!(entry.context("no price")?.entry.list_price, 100.into(), "nothing was touched");
    let (second, _) = state_becomes(&ask().await?, "held").await?;
    state_becomes(&first, "skipped").await?;

    let decide = |task_id: &str, decision: &str| {
        client.send(client.request(Method::POST, &format!("/api/v1/recalculations/{task_id}/{decision}")))
    };
    for (task_id, decision, status) in [
        (first.as_str(), "approve?by=zoe", 409),
        (&second, "approve", 422),
        (&second, "approve?by=", 422),
        ("none", "approve?by=zoe", 404),
        (&second, "approve?by=zoe", 202),
        (&second, "reject?by=zoe", 409),
    ] {
        let reply = decide(task_id, decision).await?;
        assert_eq!(reply.status, status, "{decision}: {}", reply.text);
    }
    let (_, done) = state_becomes(&second, "done").await?;
    assert_eq!((&done.body["approved_by"], &done.body["prices_changed"]), (&json!("zoe"), &json!(1)));
    engine.price_becomes(50.0).await?;
    store
        .publish_policy(&crate::support::new_policy(&CAREFUL.replace("0.5", "2")), None, chrono::Utc::now())
        .await?;
    let listed = client.get("/api/v1/recalculations?state=held").await?;
    assert_eq!(listed.body, json!({"recalculations": []}));
    let (third, _) = state_becomes(&ask().await?, "held").await?;
    let listed = client.get("/api/v1/recalculations?state=held").await?;
    assert_eq!(listed.body["recalculations"][0]["task_id"], json!(third), "{}", listed.text);
    assert_eq!(client.get("/api/v1/recalculations?state=done").await?.status, 422);
    let rejected = decide(&third, "reject?by=kim").await?;
    assert_eq!(
        (&rejected.body["state"], &rejected.body["reason"]),
        (&json!("failed"), &json!("it was rejected by kim"))
    );
    Ok(())
}

#[tokio::test]
async fn a_policy_that_would_be_refused_today_keeps_its_meaning_with_a_warning() -> Result<()> {
    const OLD: &str =
        "name: old\nmarket:\n  - { name: follow, set_to: competitor.median ?? product.base_price * 0.9 }\n";
    let stores = Stores::start().await?;
    let store = stores.store().await?;
    store.publish_first_policy(&crate::support::new_policy(OLD), chrono::Utc::now()).await?;
    let api = stores.api().await?;
    let client = &api.client;
    let product = json!({"currency": "USD", "base_price": 100});
    ensure!(client.put("/api/v1/products/P-1", &product).await?.status == 201);
    // What no floor stops is frozen, as before.
    let priced = client.price("P-1", "NY", false).await?;
    assert_eq!(priced.body["final_price"], json!(100.0), "{}", priced.text);

    let problem = "3:29: market[0].set_to: `??` binds tighter than `*`: this is `(competitor.median ?? product.base_price) * 0.9`";
    let ready = client.get("/readyz").await?;
    assert_eq!(ready.status.as_u16(), 200, "{}", ready.text);
    let checks = ready.body["checks"].as_array().context("no checks")?;
    let policy = checks.iter().find(|check| check["name"] == "policy").context("no check of the policy")?;
    assert_eq!(policy["status"], "warning");
    let detail = policy["detail"].as_str().context("no detail")?;
    assert!(detail.starts_with(&format!("version 1 would be refused today: {problem}")), "{detail}");

    ensure!(post_policy(client, "/api/v1/policies", HALVING, None).await?.status == 201);
    let checked = client.get("/readyz").await?;
    assert!(!checked.text.contains("\"policy\""), "{}", checked.text);
    let back = post_policy(client, "/api/v1/policies/1/rollback", "", None).await?;
    assert_eq!((back.status.as_u16(), &back.body["type"]), (422, &json!("/problems/invalid-request")));
    assert_eq!((&back.body["errors"][0]["line"], &back.body["errors"][0]["column"]), (&json!(3), &json!(29)));
    Ok(())
}
