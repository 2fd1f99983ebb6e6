//! The command line against the real engine: `pricing up` and what people do with it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_e2e::{HttpClient, ServiceProcess, eventually, free_port};
use serde_json::json;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running `pricing up`.
pub(crate) struct Engine {
    pub(crate) process: ServiceProcess,
    pub(crate) client: HttpClient,
    url: String,
}

impl Engine {
    /// Starts it on this directory, and waits until it says that it is up.
    pub(crate) async fn start(data_directory: &Path, more: &[&str]) -> Result<Self> {
        let listen = format!("127.0.0.1:{}", free_port()?);
        let data_directory = data_directory.to_str().context("a path of text")?;
        let mut arguments = vec!["up", "--listen", &listen, "--data-dir", data_directory];
        arguments.extend(more);
        let mut process = ServiceProcess::start("pricing", &[], &arguments)?;
        let url = format!("http://{listen}");
        process.wait_until_ready(&url).await?;
        eventually("pricing up says that it is up", PATIENCE, async || {
            let output = process.output()?;
            ensure!(output.contains("Ctrl-C stops everything"), "so far: {output}");
            Ok(())
        })
        .await?;
        Ok(Self { process, client: HttpClient::new(&url)?, url })
    }

    /// Runs another `pricing` against this engine: its exit code and what it printed.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<(i32, String)> {
        let mut process = ServiceProcess::start("pricing", &[("PRICING_URL", &self.url)], arguments)?;
        let status = process.wait(PATIENCE).await?;
        Ok((status.code().context("it ended by itself")?, process.output()?))
    }
}

#[tokio::test]
async fn the_engine_comes_up_with_a_sample_and_stops_cleanly_and_keeps_its_data() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut engine = Engine::start(directory.path(), &[]).await?;
    let prices = [
        engine.client.price("P-1", "NY", false).await?,
        engine.client.price("P-1", "NY", true).await?,
        engine.client.price("P-999", "MIA", true).await?,
    ];
    let found = prices.map(|reply| (reply.status.as_u16(), reply.body["source"].clone()));
    assert_eq!(found, [(200, json!("database")), (200, json!("cache")), (200, json!("database"))]);
    engine.client.put("/api/v1/products/P-1", &json!({"currency": "USD", "base_price": 50})).await?;

    let mut second = ServiceProcess::start(
        "pricing",
        &[],
        &[
            "up",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            directory.path().to_str().context("a path of text")?,
        ],
    )?;
    ensure!(!second.wait(PATIENCE).await?.success(), "two engines used one data directory");
    let status = engine.process.terminate(PATIENCE).await?;
    ensure!(status.success(), "SIGTERM ended it with {status}: {}", engine.process.output()?);

    let again = Engine::start(directory.path(), &[]).await?;
    assert_eq!(
        again.client.price("P-1", "NY", false).await?.body["final_price"],
        json!(47.5),
        "the change was kept"
    );
    Ok(())
}

#[tokio::test]
async fn the_engine_starts_again_after_it_was_killed() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut engine = Engine::start(directory.path(), &["--no-sample"]).await?;
    assert_eq!(engine.client.price("P-1", "NY", false).await?.status, 404, "no sample was asked for");
    let put =
        engine.client.put("/api/v1/products/P-1", &json!({"currency": "USD", "base_price": 10})).await?;
    assert_eq!(put.status, 201, "{}", put.text);
    engine.process.kill()?;
    let again = Engine::start(directory.path(), &["--no-sample"]).await?;
    assert_eq!(again.client.price("P-1", "NY", false).await?.body["final_price"], json!(9.5));
    Ok(())
}

#[tokio::test]
async fn people_import_quote_explain_and_ask_the_doctor() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let engine = Engine::start(&directory.path().join("data"), &["--no-sample"]).await?;
    let file = directory.path().join("products.csv");
    std::fs::write(
        &file,
        "product_id,name,currency,base_price\nP-1,Kettle,USD,51.99\nP-2,Pan,USD,nonsense\n",
    )?;
    let file = file.to_str().context("a path of text")?;

    let (code, said) = engine.run(&["import", "--dry-run", file]).await?;
    assert_eq!((code, engine.client.price("P-1", "NY", false).await?.status.as_u16()), (1, 404), "{said}");
    let (code, said) = engine.run(&["import", file]).await?;
    assert_eq!(code, 1, "{said}");
    ensure!(said.contains("line 3: base_price: \"nonsense\" is not a plain decimal number"), "{said}");

    let (code, said) = engine.run(&["quote", "P-1", "--location", "NY", "--prime"]).await?;
    ensure!(code == 0 && said.contains("P-1 costs 46.92 USD"), "{said}");
    let (code, said) = engine.run(&["quote", "P-2", "--location", "NY"]).await?;
    ensure!(code == 1 && said.contains("no product \"P-2\""), "{said}");
    let (code, said) = engine.run(&["explain", "P-1", "--location", "NY", "--prime"]).await?;
    ensure!(code == 0 && said.contains("Kettle (P-1)") && said.contains("46.920975"), "{said}");
    for unknown in [
        &["watch", "--product", "P-9"][..],
        &["recalculate", "P-1", "P-9"],
        &["recalculate", "--wait", "P-9"],
    ] {
        let (code, said) = engine.run(unknown).await?;
        ensure!(code == 1 && said.contains("no product \"P-9\""), "{unknown:?}: {said}");
    }
    let (code, said) = engine.run(&["recalculate", "--wait", "--category", "tyos"]).await?;
    ensure!(code == 1 && said.contains("no product is of category \"tyos\""), "{said}");
    let (code, said) = engine.run(&["doctor"]).await?;
    ensure!(code == 0 && said.contains("redis") && said.contains("database"), "{said}");
    let (code, _) = engine.run(&["doctor", "--url", "http://127.0.0.1:1"]).await?;
    assert_eq!(code, 69);
    Ok(())
}
