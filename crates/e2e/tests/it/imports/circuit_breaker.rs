//! An import whose rows together would move prices too far is held, and stores nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use pricing_core::store::{Store, StoreSettings};
use pricing_domain::facts::signal::{Signal, SignalKind, Subject};
use pricing_e2e::{HttpReply, RedisServer, ServiceProcess, eventually};
use reqwest::Method;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Api, Stores, new_policy, shared_postgres};

const PATIENCE: Duration = Duration::from_secs(60);

const CAREFUL: &str = "
name: careful
market:
  - { name: demand, when: demand.index != null, multiply_by: demand.index }
circuit_breaker: { moved_products: 20%, moved_by: 10% }
";
const CARELESS: &str = "name: careless\nmarket: []\n";

/// More than a batch.
const PRODUCTS: usize = 3_000;

/// A catalogue file in which each product has this price.
fn file(products: usize, price: &str) -> String {
    let rows = (0..products).map(|number| format!("P-{number},USD,{price}\n"));
    "product_id,currency,base_price\n".chars().chain(rows.collect::<String>().chars()).collect()
}

async fn import(api: &Api, query: &str, csv: &str) -> Result<HttpReply> {
    let request = api.client.request(Method::POST, &format!("/api/v1/products/import{query}"));
    api.client.send(request.header("content-type", "text/csv").body(csv.to_owned())).await
}

/// An API whose spools are in a directory of their own.
async fn start(redis: &RedisServer, database_url: &str, spools: &str, limit: &str) -> Result<Api> {
    let settings = [("PRICING_IMPORT_SPOOL_DIRECTORY", spools), ("PRICING_IMPORT_SPOOL_LIMIT_BYTES", limit)];
    Api::start_with(&redis.url(), database_url, &settings).await
}

/// Stores with a policy, and an API on them.
async fn start_with_policy(policy: &str, spools: &str, limit: &str) -> Result<(Stores, Api)> {
    let stores = Stores::start().await?;
    stores.store().await?.publish_policy(&new_policy(policy), None, Utc::now()).await?;
    let api = start(&stores.redis, &stores.database_url(), spools, limit).await?;
    Ok((stores, api))
}

fn path_of(directory: &TempDir) -> Result<&str> {
    directory.path().to_str().context("a path of text")
}

/// The number of products in each range of the distribution that has any, by its lower bound.
fn distribution(reply: &HttpReply) -> Vec<(&Value, &Value)> {
    let ranges = reply.body["moves"]["distribution"].as_array().into_iter().flatten();
    let ranges = ranges.map(|range| (&range["from_percent"], &range["products"]));
    ranges.filter(|(_, products)| **products != json!(0)).collect()
}

#[tokio::test]
async fn a_file_divided_by_a_hundred_is_held_on_sqlite() -> Result<()> {
    let stores = Stores::start().await?;
    let database_url = stores.database_url();
    a_file_divided_by_a_hundred_is_held(&stores.store().await?, &stores.redis, &database_url).await
}

#[tokio::test]
async fn a_file_divided_by_a_hundred_is_held_on_postgres() -> Result<()> {
    let redis = RedisServer::start().await?;
    let database = shared_postgres().await?.create_database("held_imports").await?;
    let store = Store::open(&database, StoreSettings::default()).await?;
    a_file_divided_by_a_hundred_is_held(&store, &redis, &database).await
}

async fn a_file_divided_by_a_hundred_is_held(
    store: &Store,
    redis: &RedisServer,
    database_url: &str,
) -> Result<()> {
    let directory = tempfile::tempdir()?;
    store.publish_policy(&new_policy(CAREFUL), None, Utc::now()).await?;
    let api = start(redis, database_url, path_of(&directory)?, "10000000").await?;
    let first = import(&api, "", &file(PRODUCTS, "100.00")).await?;
    assert_eq!((first.status.as_u16(), &first.body["created"]), (200, &json!(PRODUCTS)), "{}", first.text);
    assert_eq!((distribution(&first), &first.body["moves"]["unchanged"]), (vec![], &json!(0)));

    let divided = file(PRODUCTS, "1.00") + "N-1,USD,5\nP-bad,USD,nonsense\n";
    let held = import(&api, "", &divided).await?;
    assert_eq!(
        (held.status.as_u16(), &held.body["type"]),
        (409, &json!("/problems/held-by-circuit-breaker"))
    );
    let reason = "3000 of 3000 products would move by more than 10% (allowed: 20% of them)";
    assert!(held.text.contains(reason), "{}", held.text);
    let stored = api.client.get("/api/v1/products/P-7").await?;
    assert_eq!(stored.body["base_price"], json!(100.0));
    assert_eq!(api.client.get("/api/v1/products/N-1").await?.status, 404, "nothing was stored");
    assert_eq!(api.price("P-7", false).await?.body["list_price"], json!(100.0));

    let dry = import(&api, "?dry_run=true", &divided).await?;
    assert_eq!((&dry.body["held"], &dry.body["failed"]), (&json!([reason]), &json!(1)), "{}", dry.text);
    assert_eq!(distribution(&dry), [(&json!(null), &json!(PRODUCTS))]);
    let biggest = dry.body["moves"]["biggest_moves"].as_array().context("no biggest moves")?;
    assert_eq!((biggest.len(), &biggest[0]["change_percent"]), (20, &json!(-99)));

    let unnamed = import(&api, "?approved_by=%20", &divided).await?;
    assert_eq!(unnamed.status, 422, "{}", unnamed.text);
    let approved = import(&api, "?approved_by=kim", &divided).await?;
    assert_eq!((approved.status.as_u16(), &approved.body["updated"]), (200, &json!(PRODUCTS)));
    assert_eq!(approved.body["moves"], dry.body["moves"], "it moves as it was simulated");
    assert_eq!(api.price("P-7", false).await?.body["list_price"], json!(1.0));
    let history = api.client.get("/api/v1/products/P-7/history").await?;
    let causes: Vec<&Value> =
        history.body["changes"].as_array().into_iter().flatten().map(|change| &change["cause"]).collect();
    assert_eq!(causes, ["import approved by kim", "import"]);

    // Products that are not in the file count, and so does the demand for the category that a row brings.
    let demand = Subject::Category("rising".to_owned());
    let demand = Signal::new(demand, SignalKind::DemandIndex, Decimal::new(150, 2), Utc::now());
    let mut transaction = store.begin().await?;
    transaction.put_signals(&[demand]).await?;
    transaction.commit().await?;
    let part = "product_id,currency,base_price,category\n".to_owned()
        + &(0..600).map(|number| format!("P-{number},USD,1.00,rising\n")).collect::<String>();
    for query in ["?dry_run=true", ""] {
        let taken = import(&api, query, &part).await?;
        assert_eq!((taken.status.as_u16(), &taken.body["held"]), (200, &json!([])), "{}", taken.text);
        assert_eq!(distribution(&taken), [(&json!(50), &json!(600))], "{query}");
    }
    let more = import(&api, "", &part.replace("rising", "").replace(",1.00,", ",1.30,")).await?;
    assert_eq!(more.status, 200, "{}", more.text);
    let too_many = import(&api, "", &file(601, "9.00")).await?;
    assert_eq!(too_many.status, 409, "{}", too_many.text);
    assert!(too_many.text.contains("601 of 3001 products would move"), "{}", too_many.text);
    assert_eq!((api.open_files(directory.path())?, directory.path().read_dir()?.count()), (0, 0));
    Ok(())
}

#[tokio::test]
async fn a_dry_run_moves_as_the_import_then_does_on_sqlite() -> Result<()> {
    let stores = Stores::start().await?;
    let database_url = stores.database_url();
    a_dry_run_moves_as_the_import(&stores.store().await?, &stores.redis, &database_url).await
}

#[tokio::test]
async fn a_dry_run_moves_as_the_import_then_does_on_postgres() -> Result<()> {
    let redis = RedisServer::start().await?;
    let database = shared_postgres().await?.create_database("simulated_imports").await?;
    let store = Store::open(&database, StoreSettings::default()).await?;
    a_dry_run_moves_as_the_import(&store, &redis, &database).await
}

/// Products whose price, cost, category or currency changes, or nothing, with facts that move, limit and
/// freeze prices.
async fn a_dry_run_moves_as_the_import(store: &Store, redis: &RedisServer, database_url: &str) -> Result<()> {
    const POLICY: &str = "
name: following
market:
  - { name: follow, when: competitor.min != null, match: { reference: competitor.min } }
  - { name: fails, when: demand.index != null, multiply_by: demand.index / (demand.index - 2) }
guardrails: { floor_of_base: 70%, ceiling_of_base: 140%, min_margin: 20%, max_step: 12% }
rounding: { mode: half_up, endings: [0.49, 0.99] }
";
    store.publish_policy(&new_policy(POLICY), None, Utc::now()).await?;
    let api = start(redis, database_url, "/no/such/directory", "1").await?;
    let heading = "product_id,currency,base_price,unit_cost,category\n";
    let row = |number: usize, changed: bool| {
        let is = |kind: usize| changed && number % 5 == kind;
        let currency = if is(0) && number.is_multiple_of(2) { "EUR" } else { "USD" };
        let price = if is(1) { 20 + number % 90 } else { 40 + number % 70 };
        let cost = if is(2) { 45 + number % 11 } else { 10 + number % 9 };
        let category = if is(3) { "fails" } else { "calm" };
        format!("P-{number},{currency},{price},{cost},{category}\n")
    };
    let rows = |changed: bool| (0..PRODUCTS).map(|number| row(number, changed)).collect::<String>();
    assert_eq!(import(&api, "", &format!("{heading}{}", rows(false))).await?.status, 200);
    let signal = |subject: Subject, kind: SignalKind, cents: i64| {
        Signal::new(subject, kind, Decimal::new(cents, 2), Utc::now())
    };
    let seen = (0..PRODUCTS).filter(|number| number.is_multiple_of(3)).map(|number| {
        let subject = Subject::Product(format!("P-{number}"));
        signal(
            subject,
            SignalKind::CompetitorPrice,
            3_000 + (i64::try_from(number).unwrap_or(0) * 13) % 9_000,
        )
    });
    let demand = signal(Subject::Category("fails".to_owned()), SignalKind::DemandIndex, 200);
    let mut transaction = store.begin().await?;
    transaction.put_signals(&seen.chain([demand]).collect::<Vec<Signal>>()).await?;
    transaction.commit().await?;

    let changed = format!("{heading}{}", rows(true));
    let mut dry = import(&api, "?dry_run=true", &changed).await?;
    let mut real = import(&api, "", &changed).await?;
    // A step interval begins when a price moves.
    for answer in [&mut dry, &mut real] {
        let moves = answer.body["moves"]["biggest_moves"].as_array_mut().context("no biggest moves")?;
        for held in moves.iter_mut().filter_map(|moved| moved["held"].as_object_mut()) {
            held.retain(|name, _| !name.ends_with("_at"));
        }
    }
    for name in ["created", "updated", "unchanged", "lost", "moves"] {
        assert_eq!(dry.body[name], real.body[name], "{name}");
    }
    for name in ["up", "down", "unchanged", "frozen"] {
        ensure!(real.body["moves"][name].as_u64() > Some(0), "{name}: {}", real.body["moves"]);
    }
    let moves = real.body["moves"]["biggest_moves"].as_array().context("no biggest moves")?;
    let first = moves.first().and_then(|price| price["product_id"].as_str()).context("no product")?;
    let history = api.client.get(&format!("/api/v1/products/{first}/history")).await?;
    let change = &history.body["changes"][0];
    assert_eq!(
        (&moves[0]["list_price"], &moves[0]["simulated_list_price"]),
        (&change["old_list_price"], &change["new_list_price"])
    );
    Ok(())
}

#[tokio::test]
async fn without_a_circuit_breaker_and_with_an_approval_an_import_is_not_spooled() -> Result<()> {
    let (_stores, api) = start_with_policy(CARELESS, "/no/such/directory", "10").await?;
    for price in ["100.00", "1.00"] {
        let streamed = import(&api, "", &file(10, price)).await?;
        assert_eq!(streamed.status, 200, "{}", streamed.text);
    }
    let (_stores, api) = start_with_policy(CAREFUL, "/no/such/directory", "1000").await?;
    let refused = import(&api, "", &file(10, "100.00")).await?;
    assert_eq!((refused.status.as_u16(), &refused.body["type"]), (503, &json!("/problems/unavailable")));
    let approved = import(&api, "?approved_by=kim", &file(10, "100.00")).await?;
    assert_eq!(approved.status, 200, "{}", approved.text);
    let dry = import(&api, "?dry_run=true", &file(10, "1.00")).await?;
    assert_eq!((dry.status.as_u16(), distribution(&dry)), (200, vec![(&json!(null), &json!(10))]));
    Ok(())
}

#[tokio::test]
async fn a_body_above_the_bound_stores_nothing() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (_stores, api) = start_with_policy(CAREFUL, path_of(&directory)?, "100").await?;
    let refused = import(&api, "", &file(10, "100.00")).await?;
    assert_eq!((refused.status.as_u16(), &refused.body["type"]), (413, &json!("/problems/body-too-large")));
    assert!(refused.text.contains("100 bytes"), "{}", refused.text);
    assert!(refused.text.contains("PRICING_IMPORT_SPOOL_LIMIT_BYTES"), "{}", refused.text);
    assert_eq!(api.client.get("/api/v1/products/P-0").await?.status, 404);
    assert_eq!(api.open_files(directory.path())?, 0);
    let unusable = import(&api, "", "product_id,price\n").await?;
    assert_eq!((unusable.status.as_u16(), api.open_files(directory.path())?), (400, 0));
    Ok(())
}

/// An import whose sender has sent the head and this much of the body.
async fn begin(api: &Api, body: &str, sent_bytes: usize) -> Result<TcpStream> {
    let mut sender = TcpStream::connect(&api.address).await?;
    let head = format!(
        "POST /api/v1/products/import HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/csv\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    sender.write_all(head.as_bytes()).await?;
    sender.write_all(body.get(..sent_bytes).context("a part of the body")?.as_bytes()).await?;
    Ok(sender)
}

#[tokio::test]
async fn a_sender_that_hangs_up_leaves_no_file() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (_stores, api) = start_with_policy(CAREFUL, path_of(&directory)?, "10000000").await?;
    let body = file(PRODUCTS, "100.00");
    let sender = begin(&api, &body, body.len() - 1).await?;
    let open_files = async |expected: usize| {
        eventually("the spool is open, or closed", PATIENCE, async || {
            let open = api.open_files(directory.path())?;
            ensure!(open == expected, "{open} files are open");
            Ok(())
        })
        .await
    };
    open_files(1).await?;
    assert_eq!(directory.path().read_dir()?.count(), 0, "the file has no name");
    drop(sender);
    open_files(0).await?;
    assert_eq!(api.client.get("/api/v1/products/P-0").await?.status, 404);
    Ok(())
}

#[tokio::test]
async fn a_policy_that_is_published_meanwhile_judges_the_rows_again() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let lenient = CAREFUL.replace("moved_by: 10%", "moved_by: 99.5%");
    let (stores, api) = start_with_policy(&lenient, path_of(&directory)?, "10000000").await?;
    assert_eq!(import(&api, "", &file(PRODUCTS, "100.00")).await?.status, 200);
    let body = file(PRODUCTS, "1.00");
    let mut sender = begin(&api, &body, body.len() - 1).await?;
    eventually("the rows are being judged", PATIENCE, async || {
        ensure!(api.open_files(directory.path())? == 1);
        Ok(())
    })
    .await?;
    stores.store().await?.publish_policy(&new_policy(CAREFUL), None, Utc::now()).await?;
    eventually("the API uses the new policy", PATIENCE, async || {
        let policies = api.client.get("/api/v1/policies").await?;
        ensure!(policies.body["current_version"] == 2, "{}", policies.text);
        Ok(())
    })
    .await?;
    sender.write_all(b"\n").await?;
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, sender.read_to_string(&mut answer)).await??;
    assert!(answer.starts_with("HTTP/1.1 409 "), "{answer}");
    assert!(answer.contains("3000 of 3000 products would move by more than 10%"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn the_command_line_says_how_to_approve_a_file() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (_stores, api) = start_with_policy(CAREFUL, path_of(&directory)?, "10000000").await?;
    assert_eq!(import(&api, "", &file(10, "100.00")).await?.status, 200);
    let path = directory.path().join("divided.csv");
    std::fs::write(&path, file(10, "1.00"))?;
    let url = format!("http://{}", api.address);
    let run = async |more: &[&str]| {
        let arguments = [&["import", path.to_str().context("a path of text")?][..], more].concat();
        let mut process = ServiceProcess::start("pricing", &[("PRICING_URL", &url)], &arguments)?;
        let status = process.wait(PATIENCE).await?;
        anyhow::Ok((status.code(), process.output()?))
    };
    let reason = "10 of 10 products would move by more than 10% (allowed: 20% of them)";
    let (code, said) = run(&[]).await?;
    ensure!(code == Some(1) && said.contains(reason) && said.contains("--approved-by NAME"), "{said}");
    let (code, said) = run(&["--dry-run"]).await?;
    ensure!(code == Some(0) && said.contains("list prices would move: 0 up, 10 down, 0 not"), "{said}");
    ensure!(
        said.contains("below -50%")
            && said.contains(&format!("needs approval (--approved-by NAME): {reason}")),
        "{said}"
    );
    let (code, said) = run(&["--approved-by", "kim"]).await?;
    ensure!(code == Some(0) && said.contains("list prices moved: 0 up, 10 down, 0 not"), "{said}");
    Ok(())
}
