//! A database is restored from a backup, under running services or before they start: what was done since is
//! gone from every cache and every process, and what is done afterwards has effect.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_e2e::{RedisServer, eventually};
use reqwest::Method;
use serde_json::json;

use crate::fleet::{Fleet, Member, Service};
use crate::support::{shared_postgres, sqlite_url};

const PATIENCE: Duration = Duration::from_secs(60);
/// Every process sees it within five seconds of its next look at the database; on a host with other work.
const SEEN: Duration = Duration::from_secs(30);
const BEFORE: &str = "name: before\noffer: []\n";
const LOST: &str = "name: lost\nmarket:\n  - { name: lost, multiply_by: 0.5 }\noffer: []\n";
const AFTER: &str = "name: after\nmarket:\n  - { name: after, multiply_by: 0.7 }\noffer: []\n";

/// All services, whose memory only notifications change.
struct Shop {
    redis: RedisServer,
    apis: Vec<Member>,
    others: Vec<Member>,
}

impl Shop {
    async fn open(database_url: &str) -> Result<Self> {
        let redis = RedisServer::start().await?;
        let fleet = Fleet::new(&redis.url(), database_url).with("PRICING_L1_MAX_STALENESS", "1h");
        let apis = vec![fleet.start(Service::Api).await?, fleet.start(Service::Api).await?];
        let others = vec![fleet.start(Service::Listener).await?, fleet.start(Service::Worker).await?];
        let shop = Self { redis, apis, others };
        shop.publish(BEFORE).await?;
        for number in 0..8 {
            shop.put(&format!("P-{number}"), 100).await?;
        }
        shop.agree(&[("P-1", Some(100.0)), ("P-7", Some(100.0))], PATIENCE).await?;
        Ok(shop)
    }

    fn members(&mut self) -> impl Iterator<Item = &mut Member> {
        self.apis.iter_mut().chain(&mut self.others)
    }

    async fn put(&self, product_id: &str, base_price: u32) -> Result<()> {
        let product = json!({"currency": "USD", "base_price": base_price, "floor_price": 1});
        let reply = self.apis[0].client.put(&format!("/api/v1/products/{product_id}"), &product).await?;
        ensure!(reply.status.is_success(), "{} {}", reply.status, reply.text);
        Ok(())
    }

    /// Publishes a policy, and waits until all prices follow it. Returns its version.
    async fn publish(&self, policy: &str) -> Result<i64> {
        let client = &self.apis[0].client;
        let request = client.request(Method::POST, "/api/v1/policies?author=test&approved_by=test");
        let reply =
            client.send(request.header("content-type", "application/yaml").body(policy.to_owned())).await?;
        ensure!(reply.status == 201, "{} {}", reply.status, reply.text);
        reply.body["version"].as_i64().context("no version")
    }

    /// What is done after the backup, and lost by restoring it.
    async fn trade(&self) -> Result<i64> {
        for base_price in 200..205 {
            self.put("P-1", base_price).await?;
        }
        self.put("P-new", 300).await?;
        self.apis[0].client.delete("/api/v1/products/P-7").await?;
        let version = self.publish(LOST).await?;
        let expected = [("P-1", Some(102.0)), ("P-new", Some(150.0)), ("P-2", Some(50.0)), ("P-7", None)];
        self.agree(&expected, PATIENCE).await?;
        Ok(version)
    }

    /// Waits until every API serves these prices, and explains and stores the same.
    async fn agree(&self, expected: &[(&str, Option<f64>)], patience: Duration) -> Result<()> {
        for (product_id, price) in expected {
            for (number, api) in self.apis.iter().enumerate() {
                let what = format!("API {number} serves {product_id} at {price:?}");
                eventually(&what, patience, async || {
                    let reply = api.client.price(product_id, "NY", false).await?;
                    ensure!(reply.body["final_price"].as_f64() == *price, "{} {}", reply.status, reply.text);
                    if price.is_some() {
                        let path = format!("/api/v1/products/{product_id}/explanation");
                        let explained = api.client.get(&path).await?.body;
                        ensure!(explained["list_price"] == reply.body["list_price"], "{explained}");
                        ensure!(
                            explained["policy_version"] == reply.body["policy_version"],
                            "{explained} {}",
                            reply.text
                        );
                    }
                    Ok(())
                })
                .await?;
            }
        }
        Ok(())
    }

    /// After the restore, nothing is left of what was done since the backup, and writes have effect.
    async fn starts_over(&self, lost_version: i64) -> Result<()> {
        let restored = [("P-1", Some(100.0)), ("P-new", None), ("P-2", Some(100.0)), ("P-7", Some(100.0))];
        self.agree(&restored, SEEN).await?;
        let latest = self.apis[1].client.get("/api/v1/policies/latest").await?.body;
        ensure!(latest["version"] == json!(lost_version - 1), "{latest}");
        eventually("a write is taken", SEEN, async || self.put("P-1", 120).await).await?;
        ensure!(self.apis[0].client.price("P-1", "NY", false).await?.body["final_price"] == json!(120.0));
        self.agree(&[("P-1", Some(120.0))], PATIENCE).await?;
        ensure!(self.publish(AFTER).await? == lost_version, "another version than that of the lost policy");
        self.agree(&[("P-1", Some(84.0)), ("P-2", Some(70.0)), ("P-7", Some(70.0))], PATIENCE).await
    }
}

/// Reads events until one has this name.
async fn receives(follower: &mut reqwest::Response, event: &str) -> Result<()> {
    let mut received = String::new();
    while !received.contains(&format!("event: {event}\n")) {
        let chunk = tokio::time::timeout(PATIENCE, follower.chunk()).await.context("no event came")??;
        received.push_str(std::str::from_utf8(&chunk.context("the stream has ended")?)?);
    }
    Ok(())
}

#[tokio::test]
async fn services_that_run_see_that_their_database_was_restored() -> Result<()> {
    const DATABASE: &str = "restored_under_services";
    let (postgres, files) = (shared_postgres().await?, tempfile::tempdir()?);
    let shop = Shop::open(&postgres.create_database(DATABASE).await?).await?;
    let backup = files.path().join("backup.sql");
    postgres.dump(DATABASE, &backup).await?;
    let lost_version = shop.trade().await?;
    let follow = shop.apis[0].client.request(Method::GET, "/api/v1/price-changes").timeout(PATIENCE * 2);
    let mut follower = follow.send().await?;
    let identity = postgres.execute(DATABASE, "SELECT identity FROM catalogue_identity").await?;
    postgres.restore(DATABASE, &backup).await?;
    shop.starts_over(lost_version).await?;
    receives(&mut follower, "gap").await?;
    receives(&mut follower, "price_change").await?;
    let now = postgres.execute(DATABASE, "SELECT identity FROM catalogue_identity").await?;
    assert_ne!(now, identity);
    // Every process works with the same one: a second restore of the same backup is seen, too.
    for member in shop.apis.iter().chain(&shop.others[1..]) {
        assert_eq!(member.metric("pricing_catalogues_replaced_total", "").await?, 1);
    }
    postgres
        .execute("postgres", &format!("ALTER DATABASE {DATABASE}_before RENAME TO {DATABASE}_first"))
        .await?;
    postgres.restore(DATABASE, &backup).await?;
    // At once, while the processes may still use the lost policy of the same version.
    let version = eventually("the policy is published", SEEN, async || shop.publish(AFTER).await).await?;
    assert_eq!(version, lost_version);
    shop.agree(&[("P-1", Some(70.0)), ("P-2", Some(70.0)), ("P-7", Some(70.0)), ("P-new", None)], SEEN)
        .await?;
    eventually("a write is taken", SEEN, async || shop.put("P-1", 120).await).await?;
    shop.agree(&[("P-1", Some(84.0))], SEEN).await
}

#[tokio::test]
async fn services_that_start_see_that_their_file_was_restored() -> Result<()> {
    let files = tempfile::tempdir()?;
    let file = files.path().join("catalogue.db");
    let mut shop = Shop::open(&sqlite_url(&file)).await?;
    stop(&mut shop).await?;
    let backup = files.path().join("backup.db");
    std::fs::copy(&file, &backup)?;
    start(&mut shop).await?;
    let lost_version = shop.trade().await?;
    stop(&mut shop).await?;
    restore(&file, &backup)?;
    start(&mut shop).await?;
    shop.starts_over(lost_version).await?;
    // Once more, without Redis' mark: the entries in it suffice.
    stop(&mut shop).await?;
    restore(&file, &backup)?;
    let mut connection = shop.redis.connection().await?;
    let marks: Vec<String> = redis::cmd("KEYS").arg("pricing:*:mark").query_async(&mut connection).await?;
    redis::cmd("DEL").arg(marks).query_async::<()>(&mut connection).await?;
    start(&mut shop).await?;
    shop.starts_over(lost_version).await
}

async fn stop(shop: &mut Shop) -> Result<()> {
    for member in shop.members() {
        ensure!(member.terminate().await?);
    }
    Ok(())
}

async fn start(shop: &mut Shop) -> Result<()> {
    for member in shop.members() {
        member.start_again()?;
        member.wait_until_ready().await?;
    }
    Ok(())
}

/// Replaces the file of a database, and removes its log.
fn restore(file: &Path, backup: &Path) -> Result<()> {
    for suffix in ["-wal", "-shm"] {
        let log = format!("{}{suffix}", file.display());
        if Path::new(&log).exists() {
            std::fs::remove_file(log)?;
        }
    }
    std::fs::copy(backup, file)?;
    Ok(())
}
