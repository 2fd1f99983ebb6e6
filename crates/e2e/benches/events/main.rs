//! How soon a market event becomes a new price at another API process, and the effect of a burst of events on
//! price reads.
//!
//! `cargo bench -p pricing-e2e --bench events` starts a Redis that syncs every write, an SQLite file, two API
//! processes, a listener and a worker. Events are posted to the first API; prices are read from the second,
//! at a fixed rate, whether answers come or not ([`visible`], [`burst`]). Servers and load share the
//! machine's cores.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]
#![expect(clippy::indexing_slicing, reason = "where one of these panics, the measurement has failed")]
#![expect(clippy::float_arithmetic, reason = "these are measurements, not prices")]

mod burst;
mod visible;

use std::time::Duration;

use anyhow::{Result, ensure};
use chrono::Utc;
use pricing_e2e::wire_client::post;
use pricing_e2e::{HttpClient, RedisServer, ServiceProcess, eventually, free_port};
use reqwest::Method;

const PRODUCTS: u64 = 2_000;
const PUBLISH: &str = "/api/v1/publish-market-event";

/// Prices follow demand, at once and without limits, as the same product moves again and again in the
/// measurement.
const POLICY: &str = "name: follows demand\nmarket:\n  - { name: demand, multiply_by: demand.index ?? 1 }\n";
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that is started.
struct Services {
    redis: RedisServer,
    /// Where events are posted.
    publishing: Service,
    /// Where prices are read.
    reading: Service,
    _listener: Service,
    worker: Service,
    _directory: tempfile::TempDir,
}

/// One program of the engine.
struct Service {
    _process: ServiceProcess,
    client: HttpClient,
    address: String,
}

fn main() -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let services = Services::start().await?;
        visible::measure(&services).await?;
        burst::measure(&services).await
    })
}

impl Services {
    async fn start() -> Result<Self> {
        let redis = RedisServer::start().await?;
        let directory = tempfile::tempdir()?;
        let database = format!("sqlite://{}", directory.path().join("catalogue.db").display());
        let start = async |program: &str, variable: &str| {
            Service::start(program, variable, &redis.url(), &database).await
        };
        let publishing = start("pricing-api", "PRICING_API_LISTEN").await?;
        let reading = start("pricing-api", "PRICING_API_LISTEN").await?;
        let listener = start("pricing-listener", "PRICING_LISTENER_LISTEN").await?;
        let worker = start("pricing-worker", "PRICING_WORKER_LISTEN").await?;
        import(&publishing.client).await?;
        publish_policy(&publishing.client).await?;
        for number in 0..PRODUCTS {
            reading.client.price(&product(number), "NY", false).await?;
        }
        Ok(Self { redis, publishing, reading, _listener: listener, worker, _directory: directory })
    }
}

impl Service {
    async fn start(program: &str, variable: &str, redis: &str, database: &str) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let environment = [
            (variable, address.as_str()),
            ("PRICING_REDIS_URL", redis),
            ("PRICING_DATABASE_URL", database),
            ("PRICING_LOG", "warn"),
        ];
        let mut process = ServiceProcess::start(program, &environment, &[])?;
        let url = format!("http://{address}");
        process.wait_until_ready(&url).await?;
        Ok(Self { _process: process, client: HttpClient::new(&url)?, address })
    }
}

async fn import(api: &HttpClient) -> Result<()> {
    let rows: String = (0..PRODUCTS).map(|number| format!("{},USD,100,1,200\n", product(number))).collect();
    let rows = format!("product_id,currency,base_price,floor_price,ceiling_price\n{rows}");
    let request = api.request(Method::POST, "/api/v1/products/import");
    let reply = api.send(request.header("content-type", "text/csv").body(rows)).await?;
    ensure!(reply.status == 200 && reply.body["failed"] == 0, "{}", reply.text);
    Ok(())
}

/// Publishes the policy; done when every product has a price by it.
async fn publish_policy(api: &HttpClient) -> Result<()> {
    let request = api.request(Method::POST, "/api/v1/policies?author=bench&approved_by=bench").body(POLICY);
    let published = api.send(request.header("content-type", "application/yaml")).await?;
    ensure!(published.status == 201, "{}", published.text);
    let run = format!("/api/v1/recalculations/{}", published.body["task_id"].as_str().unwrap_or_default());
    eventually("the policy is in use", PATIENCE, async || {
        let run = api.get(&run).await?;
        ensure!(run.body["state"] == "done", "{}", run.text);
        Ok(())
    })
    .await
}

fn product(number: u64) -> String {
    format!("P-{}", number % PRODUCTS)
}

/// An event that moves a product's price: the demand differs from the one before, and is never the usual.
fn event(name: &str, number: u64, product: &str) -> String {
    let time = Utc::now().to_rfc3339();
    let data = format!(r#"{{"product_id":"{product}","index":1.{:03}}}"#, 1 + number % 900);
    format!(
        r#"{{"specversion":"1.0","id":"{name}-{number}","source":"/bench","time":"{time}","type":"pricing.demand_index.v1","data":{data}}}"#
    )
}

/// A request for the price of a product.
fn price(product: &str) -> Vec<u8> {
    let body = format!(r#"{{"product_id":"{product}","user_location":"NY"}}"#);
    post("/api/v1/price", "application/json", &body)
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1e3)
}
