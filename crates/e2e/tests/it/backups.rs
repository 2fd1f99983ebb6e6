//! `pricing backup` and `pricing restore`, on both databases: after a restore every price that is served is
//! the stored one, although Redis still has those from before.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use pricing_e2e::{PostgresServer, ServiceProcess, eventually};
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::command_line::{Engine, PATIENCE};
use crate::support::shared_postgres;

const PRODUCTS: u32 = 20;

/// A policy that halves prices, or takes another part of them.
fn policy(name: &str, factor: &str) -> String {
    format!("name: {name}\nmarket:\n  - {{ name: part, multiply_by: {factor} }}\n")
}

/// A data directory, and perhaps a database elsewhere.
struct Installation<'a> {
    directory: TempDir,
    postgres: Option<(&'a PostgresServer, String)>,
}

impl Installation<'_> {
    fn data(&self) -> String {
        self.directory.path().join("data").display().to_string()
    }

    fn backup(&self) -> String {
        self.directory.path().join("catalogue.backup").display().to_string()
    }

    async fn start(&self) -> Result<Engine> {
        let mut more = vec!["--no-sample"];
        if let Some((_, url)) = &self.postgres {
            more.extend(["--database-url", url]);
        }
        Engine::start(Path::new(&self.data()), &more).await
    }

    /// Runs `backup` or `restore`; returns the exit code and what it printed.
    async fn run(&self, arguments: &[&str]) -> Result<(i32, String)> {
        let data = self.data();
        let mut arguments = arguments.to_vec();
        let mut path = std::env::var("PATH")?;
        match &self.postgres {
            Some((server, url)) => {
                arguments.extend(["--database-url", url]);
                path = format!("{}:{path}", server.programs().display());
            }
            None => arguments.extend(["--data-dir", &data]),
        }
        let mut process = ServiceProcess::start("pricing", &[("PATH", &path)], &arguments)?;
        let status = process.wait(PATIENCE).await?;
        Ok((status.code().context("it ended by itself")?, process.output()?))
    }
}

async fn put(engine: &Engine, number: u32, base_price: u32) -> Result<()> {
    let product = json!({"currency": "USD", "base_price": base_price});
    let put = engine.client.put(&format!("/api/v1/products/R-{number}"), &product).await?;
    ensure!(put.status.is_success(), "{}", put.text);
    Ok(())
}

/// Publishes a policy and waits until its recalculation is done.
async fn publish(engine: &Engine, text: &str) -> Result<u64> {
    let request = engine.client.request(Method::POST, "/api/v1/policies?author=zoe&approved_by=zoe");
    let request = request.header("content-type", "application/yaml").body(text.to_owned());
    let published = engine.client.send(request).await?;
    ensure!(published.status == 201, "{}", published.text);
    let task = published.body["task_id"].as_str().context("no task_id")?;
    eventually("its recalculation is done", PATIENCE, async || {
        let run = engine.client.get(&format!("/api/v1/recalculations/{task}")).await?;
        ensure!(run.body["state"] == "done", "{}", run.text);
        Ok(())
    })
    .await?;
    published.body["version"].as_u64().context("no version")
}

/// Checks that the served prices are the stored ones, and that they are these.
async fn check_prices(engine: &Engine, base_price: u32, list_price: f64) -> Result<()> {
    for number in 1..=PRODUCTS {
        let id = format!("R-{number}");
        let served = engine.client.price(&id, "NY", false).await?;
        let product = engine.client.get(&format!("/api/v1/products/{id}")).await?;
        let explained = engine.client.get(&format!("/api/v1/products/{id}/explanation")).await?;
        let found = (&served.body["base_price"], &served.body["list_price"]);
        assert_eq!(found, (&product.body["base_price"], &explained.body["list_price"]), "{id}");
        assert_eq!(served.body["base_price"].as_f64(), Some(f64::from(base_price)), "{id}");
        assert_eq!(served.body["list_price"].as_f64(), Some(list_price), "{id}");
    }
    Ok(())
}

async fn drill(installation: &Installation<'_>) -> Result<()> {
    let mut engine = installation.start().await?;
    for number in 1..=PRODUCTS {
        put(&engine, number, 100).await?;
    }
    assert_eq!(publish(&engine, &policy("first", "0.5")).await?, 2);
    check_prices(&engine, 100, 50.0).await?;
    let backup = installation.backup();
    let (code, said) = installation.run(&["backup", &backup]).await?;
    ensure!(code == 0 && said.contains("checked"), "{said}");
    let (code, said) = installation.run(&["backup", &backup]).await?;
    ensure!(code == 1 && said.contains("exists already"), "{said}");

    for base_price in 200..205 {
        for number in 1..=PRODUCTS {
            put(&engine, number, base_price).await?;
        }
    }
    assert_eq!(publish(&engine, &policy("second", "0.25")).await?, 3);
    check_prices(&engine, 204, 51.0).await?;
    let (code, said) = installation.run(&["restore", &backup, "--replace"]).await?;
    ensure!(code == 1 && said.contains("stop "), "it runs: {said}");
    check_prices(&engine, 204, 51.0).await?;
    engine.process.terminate(PATIENCE).await?;

    let (code, said) = installation.run(&["restore", &backup, "--replace"]).await?;
    ensure!(code == 0 && said.contains("replaced"), "{said}");
    let engine = installation.start().await?;
    ensure!(!engine.process.output()?.contains("another catalogue"), "{}", engine.process.output()?);
    check_prices(&engine, 100, 50.0).await?;
    let latest = engine.client.get("/api/v1/policies/latest").await?;
    assert_eq!(
        (&latest.body["version"], &latest.body["name"]),
        (&json!(2), &json!("first")),
        "{}",
        latest.text
    );
    // The number that the lost policy had.
    assert_eq!(publish(&engine, &policy("third", "0.8")).await?, 3);
    check_prices(&engine, 100, 80.0).await?;
    put(&engine, 1, 120).await?;
    assert_eq!(engine.client.price("R-1", "NY", false).await?.body["list_price"], json!(96.0));
    Ok(())
}

#[tokio::test]
async fn a_restored_sqlite_catalogue_is_what_is_served() -> Result<()> {
    let installation = Installation { directory: tempfile::tempdir()?, postgres: None };
    drill(&installation).await?;
    let files = std::fs::read_dir(installation.data())?;
    let names: Vec<String> = files.filter_map(|file| file.ok()?.file_name().into_string().ok()).collect();
    ensure!(names.iter().any(|name| name.contains("catalogue.db.replaced-")), "{names:?}");
    ensure!(!names.iter().any(|name| name.contains("unfinished")), "{names:?}");
    Ok(())
}

#[tokio::test]
async fn a_restored_postgres_catalogue_is_what_is_served() -> Result<()> {
    let server = shared_postgres().await?;
    let url = server.create_database("backups_drill").await?;
    let mut installation = Installation { directory: tempfile::tempdir()?, postgres: Some((server, url)) };
    drill(&installation).await?;
    let schemas = server.execute("backups_drill", "SELECT nspname FROM pg_namespace").await?;
    ensure!(schemas.contains("replaced_"), "{schemas}");
    // A backup of what was restored is as good.
    let second = format!("{}.second", installation.backup());
    let (code, said) = installation.run(&["backup", &second]).await?;
    ensure!(code == 0, "{said}");
    let (code, said) = installation.run(&["restore", &second, "--replace"]).await?;
    ensure!(code == 0, "{said}");
    let schemas = server.execute("backups_drill", "SELECT nspname FROM pg_namespace").await?;
    assert_eq!(schemas.matches("replaced_").count(), 2, "{schemas}");

    let backup = installation.backup();
    let url = server.create_database("backups_empty").await?;
    installation.postgres = Some((server, url));
    let (code, said) = installation.run(&["restore", &backup]).await?;
    ensure!(code == 0, "{said}");
    let (code, said) = installation.run(&["restore", &backup]).await?;
    ensure!(code == 1 && said.contains("--replace"), "{said}");
    // It continues with the same Redis, under another identity.
    check_prices(&installation.start().await?, 100, 50.0).await
}

#[tokio::test]
async fn a_restore_that_fails_changes_nothing() -> Result<()> {
    let server = shared_postgres().await?;
    let url = server.create_database("backups_failing").await?;
    for postgres in [None, Some((server, url))] {
        let installation = Installation { directory: tempfile::tempdir()?, postgres };
        let mut engine = installation.start().await?;
        for number in 1..=PRODUCTS {
            put(&engine, number, 100).await?;
        }
        let backup = installation.backup();
        let (code, said) = installation.run(&["backup", &backup]).await?;
        ensure!(code == 0, "{said}");
        engine.process.terminate(PATIENCE).await?;
        let whole = std::fs::read(&backup)?;
        for bad in [&whole[..whole.len() / 2], b"nonsense".as_slice()] {
            std::fs::write(&backup, bad)?;
            let (code, said) = installation.run(&["restore", &backup, "--replace"]).await?;
            ensure!(code == 1, "{said}");
        }
        check_prices(&installation.start().await?, 100, 100.0).await?;
    }
    Ok(())
}
