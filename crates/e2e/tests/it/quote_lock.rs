//! Quote locks with real processes: Python and Node verify them with the code of docs/quote-lock.md, the
//! command line verifies them without the engine, and keys change without a lock being lost.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_e2e::{Packages, ServiceProcess};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Api, Stores};

const PAGE: &str = include_str!("../../../../docs/quote-lock.md");
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a program: its exit code and its whole output.
async fn run(program: &Path, arguments: &[&str]) -> Result<(i32, String)> {
    let mut process = ServiceProcess::start_program(program, &[], arguments)?;
    let code = process.wait(PATIENCE).await?.code().context("it was killed")?;
    Ok((code, process.output()?))
}

async fn pricing(arguments: &[&str]) -> Result<(i32, String)> {
    let mut process = ServiceProcess::start("pricing", &[], arguments)?;
    let code = process.wait(PATIENCE).await?.code().context("it was killed")?;
    Ok((code, process.output()?))
}

/// Creates a key in this directory.
async fn new_key(directory: &TempDir, name: &str) -> Result<String> {
    let file = directory.path().join(name);
    let path = file.display().to_string();
    let (code, said) = pricing(&["quote", "new-key", &path]).await?;
    ensure!(code == 0 && said.contains("OKP"), "{said}");
    assert_eq!(std::fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    let (code, said) = pricing(&["quote", "new-key", &path]).await?;
    ensure!(code == 1 && said.contains("cannot be created"), "a key is never overwritten: {said}");
    Ok(path)
}

async fn api(stores: &Stores, keys: &str) -> Result<Api> {
    let settings = [("PRICING_QUOTE_LOCK_KEY_FILE", keys)];
    Api::start_with(&stores.redis.url(), &stores.database_url(), &settings).await
}

fn request(lock: bool) -> Value {
    json!({
        "product_id": "P-1", "user_location": " NY ", "is_prime_member": true, "quantity": 2, "channel": "app",
        "lock": lock,
    })
}

/// The lock of a price, and the keys to verify it.
async fn lock(api: &Api) -> Result<(String, String)> {
    let reply = api.client.post("/api/v1/price", &request(true)).await?;
    let lock = reply.body["lock"].as_str().with_context(|| reply.text.clone())?;
    let keys = api.client.get("/api/v1/quote-lock-keys").await?;
    assert_eq!(keys.header("content-type"), Some("application/jwk-set+json"));
    Ok((lock.to_owned(), keys.text))
}

/// The code of the page in this language, as a file.
fn example(directory: &TempDir, language: &str) -> Result<PathBuf> {
    let (_, rest) = PAGE.split_once(&format!("```{language}\n")).context("an example")?;
    let (code, _) = rest.split_once("```").context("its end")?;
    let file = directory.path().join(format!("verify.{language}"));
    std::fs::write(&file, code)?;
    Ok(file)
}

/// The lock with another amount.
fn tampered(lock: &str) -> String {
    let (head, rest) = lock.split_once('.').unwrap_or_default();
    let (body, signature) = rest.split_once('.').unwrap_or_default();
    // `ey` is `{"`; the second letter of the first name changes.
    let (start, end) = body.split_at(3);
    let other = if end.starts_with('A') { 'B' } else { 'A' };
    format!("{head}.{start}{other}{}.{signature}", end.get(1..).unwrap_or_default())
}

#[tokio::test]
async fn python_and_node_verify_a_lock_as_the_page_says() -> Result<()> {
    let (stores, directory) = (Stores::start().await?, tempfile::tempdir()?);
    let api = api(&stores, &new_key(&directory, "1.pem").await?).await?;
    api.import("P-1,USD,100\n").await?;
    let (lock, keys) = lock(&api).await?;
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/quote_lock/requirements.txt");
    let python = Packages::python("quote-lock", &list)?.program;
    for (program, language) in [(python.as_path(), "python"), (Path::new("node"), "javascript")] {
        let script = example(&directory, language)?.display().to_string();
        let (code, said) = run(program, &[&script, &lock, &keys]).await?;
        ensure!(code == 0, "{language}: {said}");
        let claims: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
        assert_eq!((&claims["product_id"], &claims["amount"]), (&json!("P-1"), &json!("90.25")));
        assert_eq!((&claims["currency"], &claims["quantity"]), (&json!("USD"), &json!(2)));
        let (code, said) = run(program, &[&script, &tampered(&lock), &keys]).await?;
        ensure!(code != 0, "{language} takes a changed lock: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_lock_is_verified_without_the_engine_for_what_it_is_for() -> Result<()> {
    let (stores, directory) = (Stores::start().await?, tempfile::tempdir()?);
    let api = api(&stores, &new_key(&directory, "1.pem").await?).await?;
    api.import("P-1,USD,100\nP-2,USD,50\n").await?;
    let unlocked = api.client.post("/api/v1/price", &request(false)).await?;
    assert!(unlocked.status == 200 && unlocked.body.get("lock").is_none(), "{}", unlocked.text);

    let items = json!([{"product_id": "P-1"}, {"product_id": "P-2", "lock": false}, {"product_id": "P-3"}]);
    let many = json!({"user_location": "NY", "lock": true, "items": items});
    let many = api.client.post("/api/v1/prices", &many).await?;
    let prices = &many.body["prices"];
    assert!(prices[0]["price"]["lock"].is_string() && prices[1]["price"].is_object(), "{}", many.text);
    assert!(prices[1]["price"].get("lock").is_none() && prices[2]["error"].is_object(), "{}", many.text);

    let (lock, keys) = lock(&api).await?;
    let file = directory.path().join("keys.json");
    std::fs::write(&file, keys)?;
    let url = format!("http://{}/api/v1/quote-lock-keys", api.address);
    let (code, said) = pricing(&["quote", "verify", &lock, "--keys", &url]).await?;
    assert_eq!(code, 0, "{said}");
    drop(api);
    let keys = file.display().to_string();
    let base = ["quote", "verify", &lock, "--keys", &keys];
    let shopper = ["--location", "NY", "--prime", "--channel", "app"];
    let verified = |more: &[&str]| {
        let arguments: Vec<String> = base.iter().chain(more).map(|word| (*word).to_owned()).collect();
        async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            pricing(&arguments).await
        }
    };
    let right = [&["--product", "P-1", "--quantity", "2"][..], &shopper].concat();
    let (code, said) = verified(&right).await?;
    assert!(code == 0 && said.contains("P-1 costs 90.25 USD"), "{code} {said}");
    for (more, reason) in [
        (&["--product", "P-2"][..], "another product"),
        (&["--quantity", "3"], "another quantity"),
        (&["--location", "NY", "--channel", "app"], "another shopper"),
        (&["--location", "NJ", "--prime", "--channel", "app"], "another shopper"),
    ] {
        let (code, said) = verified(more).await?;
        assert!(code == 1 && said.contains(reason), "{more:?}: {code} {said}");
    }
    let (code, said) = pricing(&["quote", "verify", &tampered(&lock), "--keys", &keys]).await?;
    assert!(code == 1 && said.contains("the signature is wrong"), "{code} {said}");
    Ok(())
}

#[tokio::test]
async fn keys_change_without_a_lock_being_lost() -> Result<()> {
    let (stores, directory) = (Stores::start().await?, tempfile::tempdir()?);
    let (old, new) = (new_key(&directory, "1.pem").await?, new_key(&directory, "2.pem").await?);
    let file = directory.path().join("keys.json");
    let keys_file = file.display().to_string();
    let mut locks = Vec::new();
    let steps = [
        (format!("{old},{new}"), [true, true]),
        (format!("{new},{old}"), [true, true]),
        (new, [false, true]),
    ];
    for (files, hold) in steps {
        let api = api(&stores, &files).await?;
        api.import("P-1,USD,100\n").await?;
        let (lock, keys) = lock(&api).await?;
        locks.push(lock);
        std::fs::write(&file, keys)?;
        for (lock, holds) in locks.iter().zip(hold) {
            let (code, said) = pricing(&["quote", "verify", lock, "--keys", &keys_file]).await?;
            assert_eq!(code == 0, holds, "{files}: {said}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn without_a_key_a_lock_is_refused_and_an_unusable_key_stops_the_start() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    api.import("P-1,USD,100\n").await?;
    let many = json!({"user_location": "NY", "items": [{"product_id": "P-1", "lock": true}]});
    for (path, body) in [("/api/v1/price", request(true)), ("/api/v1/prices", many)] {
        let refused = api.client.post(path, &body).await?;
        assert_eq!(
            (refused.status.as_u16(), &refused.body["type"]),
            (409, &json!("/problems/no-quote-lock-key"))
        );
        assert!(refused.text.contains("PRICING_QUOTE_LOCK_KEY_FILE"), "{}", refused.text);
    }
    assert_eq!(api.client.get("/api/v1/quote-lock-keys").await?.body, json!({"keys": []}));
    for file in ["/nonexistent/lock.pem", "/dev/null"] {
        let mut process =
            ServiceProcess::start("pricing-api", &[("PRICING_QUOTE_LOCK_KEY_FILE", file)], &[])?;
        let code = process.wait(PATIENCE).await?.code();
        let said = process.output()?;
        assert!(code == Some(64) && said.contains(file), "{code:?} {said}");
    }
    Ok(())
}
