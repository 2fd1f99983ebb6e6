//! The conventional alternative: `benches/peers/fastapi_price.py`, with the same products in Redis.

use std::path::{Path, PathBuf};

use anyhow::Result;
use pricing_e2e::{RedisServer, ServiceProcess, free_port};
use serde_json::json;

/// The variable that names a Python with the packages of `benches/peers/requirements.txt`.
const PYTHON: &str = "PEERS_PYTHON";
/// Processes, as many as there are cores.
const WORKERS: &str = "2";

/// Answers a price after one GET from Redis.
pub(super) const PRICE: &str = "/price";

/// Starts it; `None` if no Python is named.
pub(super) async fn start(redis: &RedisServer, products: usize) -> Result<Option<(ServiceProcess, String)>> {
    let Some(python) = std::env::var_os(PYTHON).map(PathBuf::from) else {
        eprintln!("NOT MEASURED: the FastAPI service; {PYTHON} names no Python (./dev bench does)");
        return Ok(None);
    };
    fill(redis, products).await?;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
    let port = free_port()?.to_string();
    let directory = directory.display().to_string();
    let arguments = [
        &["-m", "uvicorn", "--app-dir", &directory, "--host", "127.0.0.1", "--port", &port][..],
        &["--workers", WORKERS, "--loop", "uvloop", "--http", "httptools"],
        &["--no-access-log", "--log-level", "warning", "fastapi_price:app"],
    ];
    let redis_url = redis.url();
    let environment = [("REDIS_URL", redis_url.as_str()), ("PYTHONDONTWRITEBYTECODE", "1")];
    let mut process = ServiceProcess::start_program(&python, &environment, &arguments.concat())?;
    let url = format!("http://127.0.0.1:{port}");
    process.wait_until_ready(&url).await?;
    Ok(Some((process, url)))
}

async fn fill(redis: &RedisServer, products: usize) -> Result<()> {
    let mut connection = redis.connection().await?;
    let mut pipeline = redis::pipe();
    for number in 0..products {
        let entry = json!({
            "list_price": "100.00", "base_price": "100", "lowest": "60", "highest": "140",
            "currency": "USD", "policy_version": 1, "revision": number,
        });
        pipeline.cmd("SET").arg(format!("peer:B-{number:05}")).arg(entry.to_string()).ignore();
    }
    Ok(pipeline.query_async(&mut connection).await?)
}
