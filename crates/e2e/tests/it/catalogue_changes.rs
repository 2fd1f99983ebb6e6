//! Writes: products put, imported and removed, and what bad input gets.

use anyhow::Result;
use pricing_e2e::HttpReply;
use serde_json::{Value, json};

use crate::fleet::{Fleet, Service};
use crate::support::{Api, Stores, shared_postgres};

#[tokio::test]
async fn a_product_lives_from_put_to_delete() -> Result<()> {
    let stores = Stores::start().await?;
    let (api, other) = (stores.api().await?, stores.api().await?);
    let path = "/api/v1/products/P-1";
    let product =
        json!({"name": "Kettle", "currency": "USD", "base_price": 51.99, "attributes": {"colour": "red"}});
    let results = [api.client.put(path, &product).await?, api.client.put(path, &product).await?];
    assert_eq!(
        results.map(|reply| (reply.status.as_u16(), reply.body["result"].clone())),
        [(201, json!("created")), (200, json!("unchanged"))]
    );
    assert_eq!(
        api.client.get(path).await?.text,
        r#"{"product_id":"P-1","name":"Kettle","category":null,"brand":null,"currency":"USD","base_price":51.99,"unit_cost":null,"floor_price":null,"ceiling_price":null,"attributes":{"colour":"red"}}"#
    );
    assert_eq!(api.price("P-1", false).await?.body["final_price"], json!(49.39));

    let updated = json!({"currency": "USD", "base_price": "55.00"});
    assert_eq!(api.client.put(path, &updated).await?.body["result"], json!("updated"));
    // A step of more than 15 % is not needed: 55.00 × 0.95.
    assert_eq!(api.price("P-1", false).await?.body["final_price"], json!(52.25));
    assert_eq!(
        other.price("P-1", false).await?.body["final_price"],
        json!(52.25),
        "the other process finds it in redis"
    );

    assert_eq!(api.client.delete(path).await?.status, 204);
    assert_eq!(api.client.delete(path).await?.status, 404);
    assert_eq!(api.client.price("P-1", "NY", false).await?.status, 404);
    let third = stores.api().await?;
    assert_eq!(third.client.price("P-1", "NY", false).await?.status, 404, "redis knows that it is gone");

    assert_eq!(api.client.put(path, &product).await?.status, 201);
    assert_eq!(
        stores.api().await?.price("P-1", false).await?.body["final_price"],
        json!(49.39),
        "it is back"
    );
    Ok(())
}

#[tokio::test]
async fn an_empty_catalogue_begins_with_the_seed_file_and_no_other_does() -> Result<()> {
    let stores = Stores::start().await?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("seed.csv");
    std::fs::write(&file, "product_id,currency,base_price\nP-1,USD,10\nP-2,USD,nothing\nP-3,USD,30\n")?;
    let path = file.to_string_lossy().into_owned();
    let fleet = Fleet::new(&stores.redis.url(), &stores.database_url()).with("PRICING_SEED_FILE", &path);
    let first = fleet.start(Service::Api).await?;
    assert_eq!(first.client.price("P-3", "NY", false).await?.body["base_price"], json!(30.0));
    assert_eq!(first.client.delete("/api/v1/products/P-1").await?.status, 204);
    let second = fleet.start(Service::Api).await?;
    assert_eq!(second.client.price("P-1", "NY", false).await?.status, 404, "it is not brought back");
    let missing = fleet.with("PRICING_SEED_FILE", "/no/such/file").start(Service::Api).await?;
    assert_eq!(missing.client.price("P-3", "NY", false).await?.status, 200, "it serves all the same");
    Ok(())
}

#[tokio::test]
async fn an_import_takes_the_good_rows_and_reports_the_bad_ones() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    let csv = "product_id,currency,base_price,unit_cost,department\n\
        P-1,USD,10.00,5.5,Toys\n\
        P-2,USD,-1,,\n\
        P-3,XXX,1.999,,\n\
        P-4,USD\n\
        P-1,USD,11.00,5.5,Toys\n\
        P-1,USD,10,5.50,Toys\n\
        P-5,EUR,2.50,,\n";
    let dry = api
        .client
        .request(reqwest::Method::POST, "/api/v1/products/import?dry_run=true")
        .header("content-type", "text/csv")
        .body(csv);
    let dry = api.client.send(dry).await?;
    assert_eq!(
        counts(&dry),
        json!({"rows": 7, "created": 2, "updated": 0, "unchanged": 0, "repeated": 1, "failed": 4}),
        "{}",
        dry.text
    );
    assert_eq!(api.client.get("/api/v1/products/P-1").await?.status, 404, "a dry run writes nothing");

    let real = api.import_as("text/csv; charset=utf-8", csv).await?;
    assert_eq!(
        counts(&real),
        json!({"rows": 7, "created": 2, "updated": 0, "unchanged": 0, "repeated": 1, "failed": 4}),
        "{}",
        real.text
    );
    assert_eq!(
        refused_rows(&real),
        [r#"3 "P-2" base_price"#, r#"4 "P-3" currency"#, "5 null row", r#"6 "P-1" product_id"#]
    );
    assert_eq!(api.client.get("/api/v1/products/P-1").await?.body["base_price"], json!(10.0));

    let again = api.import_as("text/csv", "product_id,currency,base_price\nP-5,EUR,2.5\n").await?;
    assert_eq!(counts(&again)["unchanged"], json!(1));
    let ndjson = "{\"product_id\":\"N-1\",\"currency\":\"JPY\",\"base_price\":100}\n{\"product_id\":\"N-2\",\"currency\":\"JPY\",\"base_price\":1.5}\nnonsense\n";
    let ndjson = api.import_as("application/x-ndjson", ndjson).await?;
    assert_eq!(
        counts(&ndjson),
        json!({"rows": 3, "created": 1, "updated": 0, "unchanged": 0, "repeated": 0, "failed": 2}),
        "{}",
        ndjson.text
    );
    Ok(())
}

/// Line, product and fields of each refused row.
fn refused_rows(reply: &HttpReply) -> Vec<String> {
    let rows = reply.body["errors"].as_array().into_iter().flatten();
    rows.map(|row| {
        let errors = row["errors"].as_array().into_iter().flatten();
        let fields: Vec<&str> = errors.filter_map(|error| error["field"].as_str()).collect();
        format!("{} {} {}", row["line"], row["product_id"], fields.join(","))
    })
    .collect()
}

fn counts(reply: &HttpReply) -> Value {
    let mut counts = serde_json::Map::new();
    for name in ["rows", "created", "updated", "unchanged", "repeated", "failed"] {
        counts.insert(name.to_owned(), reply.body[name].clone());
    }
    Value::Object(counts)
}

#[tokio::test]
async fn a_price_is_explained_step_by_step() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    let product =
        json!({"name": "Kettle", "currency": "USD", "base_price": 50, "floor_price": 48.5, "unit_cost": 30});
    api.client.put("/api/v1/products/P-1", &product).await?;
    let path = "/api/v1/products/P-1/explanation?user_location=NY&is_prime_member=true";
    let reply = api.client.get(path).await?;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let mut body = reply.body;
    body["explanation"]["priced_at"] = json!("(then)");
    body["explanation"]["facts"]["signals"]["cost_stated_at"] = json!("(then)");
    body["facts_used"][0]["since"] = json!("(then)");
    insta::assert_json_snapshot!(body);
    assert!(reply.text.contains(r#""list_price":50.00"#), "amounts keep their digits: {}", reply.text);
    assert_eq!(api.client.get("/api/v1/products/none/explanation").await?.status, 404);
    assert_eq!(
        api.client.get("/api/v1/products/P-1/explanation?user_location=NY&quantity=-1").await?.status,
        422
    );
    Ok(())
}

/// method, path, body → status and problem type
const BAD_REQUESTS: &[(&str, &str, &str, u16, &str)] = &[
    ("POST", "/api/v1/price", "", 400, "malformed-body"),
    ("POST", "/api/v1/price", "{", 400, "malformed-body"),
    ("POST", "/api/v1/price", "[]", 400, "malformed-body"),
    ("POST", "/api/v1/price", r#"["P-1","NY",null,null,null]"#, 400, "malformed-body"),
    ("POST", "/api/v1/price", "{}", 422, "invalid-request"),
    ("POST", "/api/v1/price", r#"{"product_id":"P-1"}"#, 422, "invalid-request"),
    ("POST", "/api/v1/price", r#"{"product_id":5,"user_location":"NY"}"#, 422, "invalid-request"),
    ("POST", "/api/v1/price", r#"{"product_id":"","user_location":"NY"}"#, 422, "invalid-request"),
    ("POST", "/api/v1/price", r#"{"product_id":"a b","user_location":"NY"}"#, 422, "invalid-request"),
    ("POST", "/api/v1/price", r#"{"product_id":"P-1","user_location":""}"#, 422, "invalid-request"),
    ("POST", "/api/v1/price", r#"{"product_id":"P-1","user_location":null}"#, 422, "invalid-request"),
    (
        "POST",
        "/api/v1/price",
        r#"{"product_id":"P-1","user_location":"NY","is_prime_member":"yes"}"#,
        422,
        "invalid-request",
    ),
    (
        "POST",
        "/api/v1/price",
        r#"{"product_id":"P-1","user_location":"NY","quantity":0}"#,
        422,
        "invalid-request",
    ),
    (
        "POST",
        "/api/v1/price",
        r#"{"product_id":"P-1","user_location":"NY","quantity":-1}"#,
        422,
        "invalid-request",
    ),
    (
        "POST",
        "/api/v1/price",
        r#"{"product_id":"P-1","user_location":"NY","quantity":1.5}"#,
        422,
        "invalid-request",
    ),
    (
        "POST",
        "/api/v1/price",
        r#"{"product_id":"P-1","user_location":"NY","quantity":99999999999}"#,
        422,
        "invalid-request",
    ),
    (
        "POST",
        "/api/v1/price",
        r#"{"product_id":"P-1","user_location":"NY","quantity":1e400}"#,
        422,
        "invalid-request",
    ),
    (
        "POST",
        "/api/v1/price",
        r#"{"product_id":"P-1","user_location":"NY","channel":""}"#,
        422,
        "invalid-request",
    ),
    ("POST", "/api/v1/price", r#"{"product_id":"P-1","user_location":"NY"}"#, 404, "product-not-found"),
    ("GET", "/api/v1/price", "", 405, "method-not-allowed"),
    ("GET", "/nowhere", "", 404, "not-found"),
    ("POST", "/api/v1/prices", r#"{"user_location":"NY"}"#, 422, "invalid-request"),
    ("POST", "/api/v1/prices", r#"{"user_location":"NY","items":[]}"#, 422, "invalid-request"),
    (
        "POST",
        "/api/v1/prices",
        r#"{"user_location":"NY","items":[{"product_id":1}]}"#,
        422,
        "invalid-request",
    ),
    ("POST", "/api/v1/prices", r#"{"items":[{"product_id":"P-1"}]}"#, 422, "invalid-request"),
    ("POST", "/api/v1/prices", r#"["NY",false,null,null,[{"product_id":"P-1"}]]"#, 400, "malformed-body"),
    ("POST", "/api/v1/prices", r#"{"user_location":"NY","items":[["P-1",1]]}"#, 422, "invalid-request"),
    ("PUT", "/api/v1/products/P-1", "{", 400, "malformed-body"),
    ("PUT", "/api/v1/products/P-1", r#"{"currency":"USD","base_price":"NaN"}"#, 422, "invalid-request"),
    ("PUT", "/api/v1/products/P-1", r#"{"currency":"USD","base_price":-1}"#, 422, "invalid-request"),
    ("PUT", "/api/v1/products/P-1", r#"{"currency":"USD","base_price":1e400}"#, 422, "invalid-request"),
    (
        "PUT",
        "/api/v1/products/P-1",
        r#"{"currency":"USD","base_price":0.10000000000000000001}"#,
        422,
        "invalid-request",
    ),
    ("PUT", "/api/v1/products/P-1", r#"{"currency":"ABC","base_price":1}"#, 422, "invalid-request"),
    (
        "PUT",
        "/api/v1/products/P-1",
        r#"{"product_id":"P-2","currency":"USD","base_price":1}"#,
        422,
        "invalid-request",
    ),
    ("PUT", "/api/v1/products/P-1", r#"{"currency":"USD","base_prize":1}"#, 422, "invalid-request"),
    ("PUT", "/api/v1/products/%7Bx%7D", r#"{"currency":"USD","base_price":1}"#, 422, "invalid-request"),
    ("GET", "/api/v1/products/P-1", "", 404, "product-not-found"),
    ("DELETE", "/api/v1/products/P-1", "", 404, "product-not-found"),
    ("PUT", "/api/v1/products/P-1", r#"["P-1"]"#, 400, "malformed-body"),
    ("GET", "/api/v1/products/%FF", "", 422, "invalid-request"),
    ("GET", "/api/v1/products/%FF/history", "", 422, "invalid-request"),
    ("GET", "/api/v1/products/%FF/explanation", "", 422, "invalid-request"),
    ("GET", "/api/v1/jobs/%FF", "", 422, "invalid-request"),
    ("POST", "/api/v1/jobs/%FF/requeue", "", 422, "invalid-request"),
    ("GET", "/api/v1/recalculations/%FF", "", 422, "invalid-request"),
    ("POST", "/api/v1/recalculations/%FF/approve?by=zoe", "", 422, "invalid-request"),
    ("POST", "/api/v1/recalculations/%FF/reject?by=zoe", "", 422, "invalid-request"),
    ("GET", "/api/v1/policies/%FF", "", 422, "invalid-request"),
    ("GET", "/api/v1/policies/1/diff/%FF", "", 422, "invalid-request"),
    ("POST", "/api/v1/policies/%FF/rollback?author=zoe", "", 422, "invalid-request"),
    ("GET", "/api/v1/policies/drafts/%FF", "", 422, "invalid-request"),
    ("PUT", "/api/v1/policies/drafts/%FF", "name: x", 422, "invalid-request"),
    ("DELETE", "/api/v1/policies/drafts/%FF", "", 422, "invalid-request"),
    ("GET", "/api/v1/audit?subject=%00", "", 422, "invalid-request"),
    ("GET", "/api/v1/audit?action=product.steal", "", 422, "invalid-request"),
    ("GET", "/api/v1/audit?limit=0", "", 422, "invalid-request"),
    ("POST", "/api/v1/recalculations", "{", 400, "malformed-body"),
    ("POST", "/api/v1/recalculations", r#"{"category":"a\u0000"}"#, 422, "invalid-request"),
    ("POST", "/api/v1/recalculations", r#"{"category":"a\nb"}"#, 422, "invalid-request"),
    ("POST", "/api/v1/recalculations", r#"{"category":" "}"#, 422, "invalid-request"),
    ("GET", "/api/v1/products/%00", "", 404, "product-not-found"),
    ("GET", "/api/v1/products/%00/history", "", 404, "product-not-found"),
    ("GET", "/api/v1/products/%00/explanation", "", 404, "product-not-found"),
    ("DELETE", "/api/v1/products/%00", "", 404, "product-not-found"),
    ("GET", "/api/v1/jobs/%00", "", 404, "job-not-found"),
    ("POST", "/api/v1/jobs/%00/requeue", "", 404, "job-not-found"),
    ("GET", "/api/v1/recalculations/%00", "", 404, "recalculation-not-found"),
    ("POST", "/api/v1/recalculations/%00/approve?by=zoe", "", 404, "recalculation-not-found"),
    ("POST", "/api/v1/recalculations/%00/reject?by=zoe", "", 404, "recalculation-not-found"),
    ("GET", "/api/v1/policies/%00", "", 404, "policy-not-found"),
    ("GET", "/api/v1/policies/drafts/%00", "", 404, "draft-not-found"),
    ("PUT", "/api/v1/policies/drafts/%00", "name: x", 422, "invalid-request"),
    ("DELETE", "/api/v1/policies/drafts/%00", "", 404, "draft-not-found"),
    ("POST", "/api/v1/products/import?dry-run=true", "x", 422, "invalid-request"),
    ("POST", "/api/v1/products/import", "x", 415, "unsupported-media-type"),
    ("POST", "/api/v1/products/import?dry_run=perhaps", "x", 422, "invalid-request"),
];

#[tokio::test]
async fn bad_input_gets_a_problem_that_says_what_is_allowed() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    refuse_each(&api).await?;
    // It refuses what the other database takes.
    let database = shared_postgres().await?.create_database("bad_input").await?;
    refuse_each(&Api::start(&stores.redis.url(), &database).await?).await?;
    too_long(&api).await
}

async fn refuse_each(api: &Api) -> Result<()> {
    for (method, path, body, status, kind) in BAD_REQUESTS {
        let mut request = api.client.request(method.parse()?, path);
        let content_type = match *path {
            // It says nothing.
            "/api/v1/products/import" => None,
            path if path.contains("/import") => Some("text/csv"),
            path if path.contains("/drafts/") => Some("application/yaml"),
            _ => Some("application/json"),
        };
        if let Some(content_type) = content_type.filter(|_| !body.is_empty()) {
            request = request.header("content-type", content_type);
        }
        let request = request.body(*body);
        let reply = api.client.send(request).await?;
        let case = format!("{method} {path} {body} → {}", reply.text);
        assert_eq!(reply.status.as_u16(), *status, "{case}");
        assert_eq!(reply.body["type"], json!(format!("/problems/{kind}")), "{case}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{case}");
        assert_eq!(reply.body["status"], json!(status), "{case}");
        if *status == 422 {
            let errors = reply.body["errors"].as_array().cloned().unwrap_or_default();
            assert!(
                !errors.is_empty()
                    && errors.iter().all(|error| error["field"].is_string() && error["problem"].is_string()),
                "{case}"
            );
        }
    }
    Ok(())
}

async fn too_long(api: &Api) -> Result<()> {
    for (path, bytes) in [("/api/v1/price", 70_000), ("/api/v1/prices", 1_100_000)] {
        let body = format!(r#"{{"product_id":"{}"}}"#, "x".repeat(bytes));
        let reply = api.client.send(api.client.request(reqwest::Method::POST, path).body(body)).await?;
        assert_eq!(
            (reply.status.as_u16(), reply.body["type"].as_str()),
            (413, Some("/problems/body-too-large"))
        );
    }
    Ok(())
}
