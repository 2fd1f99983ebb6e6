//! Imports: of two rows for one product the first counts, nothing is lost without a warning, and the circuit
//! breaker judges a file before its rows are stored.

mod circuit_breaker;

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_e2e::HttpReply;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::support::{Api, Stores, shared_postgres};

const PATIENCE: Duration = Duration::from_secs(60);

async fn dry_run(api: &Api, csv: &str) -> Result<HttpReply> {
    let request = api.client.request(Method::POST, "/api/v1/products/import?dry_run=true");
    api.client.send(request.header("content-type", "text/csv").body(csv.to_owned())).await
}

/// The answer without what a dry run says differently.
fn outcome(reply: &HttpReply) -> Value {
    let mut body = reply.body.clone();
    body["dry_run"] = json!(null);
    body
}

#[tokio::test]
async fn the_first_row_of_a_product_counts_across_batches_on_sqlite() -> Result<()> {
    let stores = Stores::start().await?;
    the_first_row_counts(&stores.api().await?).await
}

#[tokio::test]
async fn the_first_row_of_a_product_counts_across_batches_on_postgres() -> Result<()> {
    let stores = Stores::start().await?;
    let database = shared_postgres().await?.create_database("first_rows").await?;
    the_first_row_counts(&Api::start(&stores.redis.url(), &database).await?).await
}

/// Some batches of 2,000, of which several are stored at a time.
async fn the_first_row_counts(api: &Api) -> Result<()> {
    const ROWS: usize = 9_000;
    let mut csv = "product_id,currency,base_price\n".to_owned();
    let row = |number: usize, price: usize| format!("P-{number},USD,{price}.00\n");
    csv.extend((0..ROWS).map(|number| row(number, 10)));
    // Each far behind its first row, and in a batch of its own.
    csv.extend((0..ROWS).map(|number| row(number, if number % 3 == 0 { 11 } else { 10 })));
    let dry = dry_run(api, &csv).await?;
    let real = api.import_as("text/csv", &csv).await?;
    assert_eq!(outcome(&dry), outcome(&real));
    let counts =
        ["rows", "created", "repeated", "failed", "not_compared"].map(|name| real.body[name].clone());
    assert_eq!(counts, [2 * ROWS, ROWS, ROWS - ROWS / 3, ROWS / 3, 0].map(|count| json!(count)));
    let first = &real.body["errors"][0];
    assert_eq!((&first["line"], &first["product_id"]), (&json!(ROWS + 2), &json!("P-0")));
    assert_eq!(
        first["errors"][0],
        json!({"field": "product_id", "problem": "is in line 2 already, with other values; that row counts",
               "allowed": "one row for each product"})
    );
    for product in ["P-0", "P-3", "P-8997"] {
        let stored = api.client.get(&format!("/api/v1/products/{product}")).await?;
        assert_eq!(stored.body["base_price"], json!(10.0), "{product}");
    }
    Ok(())
}

#[tokio::test]
async fn a_price_list_of_a_wholesaler_is_refused_with_what_to_write() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    let csv = "product_id,currency,base_price,min_quantity,customer,valid_from\nB-1,EUR,10.00,1,,\n";
    let reply = api.import_as("text/csv", csv).await?;
    assert_eq!((reply.status.as_u16(), &reply.body["type"]), (400, &json!("/problems/malformed-body")));
    let fields: Vec<&Value> =
        reply.body["errors"].as_array().into_iter().flatten().map(|error| &error["field"]).collect();
    assert_eq!(fields, ["min_quantity", "customer", "valid_from"], "{}", reply.text);

    let semicolons = api.import_as("text/csv", "product_id;currency;base_price\nB-1;EUR;10,00\n").await?;
    assert!(semicolons.text.contains("is it separated by semicolons?"), "{}", semicolons.text);
    Ok(())
}

#[tokio::test]
async fn what_an_import_takes_away_or_may_not_mean_is_said() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    let full = "product_id,currency,base_price,unit_cost,floor_price,ceiling_price,minimum_advertised_price,colour\n\
        W-1,USD,100,60,70,200,80,red\n\
        W-2,USD,100,60,,,,\n\
        W-3,BGN,100,,,,,\n";
    let reply = api.import_as("text/csv", full).await?;
    assert_eq!(reply.body["attributes"], json!(["colour"]), "{}", reply.text);
    assert_eq!(
        reply.body["warnings"],
        json!([{"warning": "BGN is withdrawn; EUR has taken its place", "line": 4, "rows": 1}])
    );
    let prices_only =
        "product_id,currency,base_price\nW-1,USD,99\nW-2,USD,99\nW-3,BGN,99\n1.23457E+12,USD,5\n";
    let lost = json!({"unit_cost": 2, "floor_price": 1, "ceiling_price": 1, "minimum_advertised_price": 1,
                      "product_ids": ["W-1", "W-2"], "product_ids_left_out": 0});
    let dry = dry_run(&api, prices_only).await?;
    assert_eq!(dry.body["lost"], lost, "{}", dry.text);
    let real = api.import_as("text/csv", prices_only).await?;
    assert_eq!(outcome(&dry), outcome(&real));
    assert_eq!(real.body["warnings"].as_array().map(Vec::len), Some(2), "{}", real.text);
    Ok(())
}

#[tokio::test]
async fn a_text_is_the_same_on_every_way_in() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    let product = json!({"currency": " USD ", "base_price": "10", "category": "toys ", "name": " Kettle"});
    assert_eq!(api.client.put("/api/v1/products/P-1", &product).await?.status, 201);
    let ndjson = "{\"product_id\":\"P-1 \",\"currency\":\"USD\",\"base_price\":1E+1,\"category\":\" toys\",\"name\":\"Kettle\"}\n";
    let csv = "product_id,currency,base_price,category,name\nP-1 , USD,10, toys ,Kettle\n";
    for (content_type, rows) in [("application/x-ndjson", ndjson), ("text/csv", csv)] {
        let reply = api.import_as(content_type, rows).await?;
        assert_eq!(reply.body["unchanged"], json!(1), "{}", reply.text);
    }
    let price = json!({"product_id": "P-1", "user_location": " NY "});
    let spaced = api.client.post("/api/v1/price", &price).await?;
    assert_eq!(spaced.body["final_price"], api.price("P-1", false).await?.body["final_price"]);
    Ok(())
}

/// Runs `pricing import -` against this address, with a pipe as its standard input.
fn import_from_a_pipe(address: std::net::SocketAddr) -> Result<std::process::Child> {
    let program = std::env::current_exe()?;
    let directory = program.ancestors().nth(2).context("no target directory")?;
    let mut command = std::process::Command::new(directory.join("pricing"));
    command.args(["import", "-", "--format", "csv", "--url", &format!("http://{address}")]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command.spawn()?)
}

#[tokio::test]
async fn an_import_from_a_silent_pipe_begins_with_its_first_bytes() -> Result<()> {
    let api = TcpListener::bind("127.0.0.1:0").await?;
    let mut import = import_from_a_pipe(api.local_addr()?)?;
    let silent = tokio::time::timeout(Duration::from_secs(1), api.accept()).await;
    ensure!(silent.is_err(), "the request was sent before there was anything to send");
    let mut input = import.stdin.take().context("no input")?;
    input.write_all(b"product_id,currency,base_price\nP-1,USD,1\nP-2,USD,2\n")?;
    let (mut connection, _) = tokio::time::timeout(PATIENCE, api.accept()).await??;
    let mut received = String::new();
    while !received.contains("P-2,USD,2") {
        let mut bytes = [0; 4_096];
        let read = tokio::time::timeout(PATIENCE, connection.read(&mut bytes)).await??;
        ensure!(read > 0, "{received}");
        received.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    // The API is killed, and has not said what is stored.
    drop(connection);
    drop(input);
    let output = tokio::task::spawn_blocking(move || import.wait_with_output()).await??;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "{said}");
    ensure!(said.contains("2 rows were sent") && said.contains("can be repeated"), "{said}");
    Ok(())
}
