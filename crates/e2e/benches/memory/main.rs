//! Memory use and read latency of an API that has all products in memory.
//!
//! `cargo bench -p pricing-e2e --bench memory` does this for ten thousand products, a hundred thousand and a
//! million (`-- --most 100000` stops earlier). For each it starts a Redis, an SQLite file and an API as
//! delivered, imports made-up products, asks for the price of each once in batches of a thousand, and then
//! asks for the prices of products here and there at a fixed rate that leaves the machine time for everything
//! else. A look-up in memory should take the same time whatever the number of products.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]
#![expect(clippy::indexing_slicing, reason = "where one of these panics, the measurement has failed")]
#![expect(clippy::float_arithmetic, reason = "these are measurements, not prices")]

#[path = "../bulk/products.rs"]
mod products;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_e2e::open_loop::{Latencies, OpenLoop};
use pricing_e2e::wire_client::{WireClient, post};
use pricing_e2e::{HttpClient, RedisServer, ServiceProcess, free_port};
use tokio_util::sync::CancellationToken;

const SIZES: [usize; 3] = [10_000, 100_000, 1_000_000];
/// Products of one request while memory is filled.
const BATCH: usize = 1_000;
const CONNECTIONS: u32 = 16;
const PER_SECOND: u32 = 2_000;
const READING: Duration = Duration::from_secs(10);

struct Measured {
    products: usize,
    idle_kb: u64,
    full_kb: u64,
    reads: Latencies,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let most = match arguments.as_slice() {
        [] => usize::MAX,
        [flag, most] if flag == "--most" => most.parse()?,
        unknown => anyhow::bail!("unknown arguments {unknown:?}"),
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure_all(most))
}

async fn measure_all(most: usize) -> Result<()> {
    println!("## Memory and the size of the catalogue\n");
    println!("| products in memory | api MB before | api MB | bytes a product | read p50 ms | read p99 ms |");
    println!("|---|---|---|---|---|---|");
    for products in SIZES.into_iter().filter(|products| *products <= most) {
        let one = measure(products).await.with_context(|| format!("{products} products"))?;
        let milliseconds = |permille| one.reads.permille(permille).as_secs_f64() * 1e3;
        println!(
            "| {} | {} | {} | {} | {:.3} | {:.3} |",
            one.products,
            one.idle_kb / 1_000,
            one.full_kb / 1_000,
            (one.full_kb - one.idle_kb) * 1_024 / u64::try_from(one.products)?,
            milliseconds(500),
            milliseconds(990)
        );
    }
    Ok(())
}

async fn measure(products: usize) -> Result<Measured> {
    let redis = RedisServer::start().await?;
    let directory = tempfile::tempdir()?;
    let database = format!("sqlite://{}", directory.path().join("catalogue.db").display());
    let address = format!("127.0.0.1:{}", free_port()?);
    let environment = [
        ("PRICING_API_LISTEN", address.as_str()),
        ("PRICING_REDIS_URL", &redis.url()),
        ("PRICING_DATABASE_URL", &database),
    ];
    let mut api = ServiceProcess::start("pricing-api", &environment, &[])?;
    api.wait_until_ready(&format!("http://{address}")).await?;
    let idle_kb = api.memory_kb("VmRSS")?;
    products::import(&HttpClient::new(format!("http://{address}"))?, products).await?;
    read_each(&address, products).await?;
    let full_kb = api.memory_kb("VmRSS")?;
    let reads = read_here_and_there(&address, products).await?;
    api.terminate(Duration::from_secs(20)).await?;
    Ok(Measured { products, idle_kb, full_kb, reads })
}

/// Afterwards all of them are in memory.
async fn read_each(address: &str, products: usize) -> Result<()> {
    let mut client = WireClient::connect(address).await?;
    for start in (0..products).step_by(BATCH) {
        let items: Vec<_> = (start..products.min(start + BATCH))
            .map(|number| format!(r#"{{"product_id":"{}"}}"#, product_id(number)))
            .collect();
        let body = format!(r#"{{"user_location":"NY","items":[{}]}}"#, items.join(","));
        let answer = client.ask(&post("/api/v1/prices", "application/json", &body)).await?.ok()?;
        ensure!(!String::from_utf8_lossy(answer).contains("\"error\""), "a product has no price");
    }
    Ok(())
}

async fn read_here_and_there(address: &str, products: usize) -> Result<Latencies> {
    let load = OpenLoop { address: address.to_owned(), connections: CONNECTIONS, per_second: PER_SECOND };
    let stop = CancellationToken::new();
    let reading = tokio::spawn({
        let stop = stop.clone();
        async move { load.run(move |number| one_price(number, products), stop).await }
    });
    tokio::time::sleep(READING).await;
    stop.cancel();
    reading.await?
}

fn one_price(number: u64, products: usize) -> Vec<u8> {
    // Jumps about: a step that shares no factor with the sizes.
    let product = usize::try_from(number).unwrap_or_default().wrapping_mul(611_953) % products;
    let body = format!(r#"{{"product_id":"{}","user_location":"NY"}}"#, product_id(product));
    post("/api/v1/price", "application/json", &body)
}

fn product_id(number: usize) -> String {
    format!("SKU-{number:07}")
}
