//! The conventional alternative: `benches/peers/celery_reprice.py`, a Celery worker with SQLite and Redis.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use pricing_e2e::RedisServer;
use tokio::process::Command;

use crate::Database;

/// The variable that names a Python with the packages of `benches/peers/requirements.txt`.
const PYTHON: &str = "PEERS_PYTHON";
const PRODUCTS: usize = 20_000;

/// Re-prices the same products by both, one after the other, and prints the durations.
pub(super) async fn compare() -> Result<()> {
    let Some(python) = std::env::var_os(PYTHON).map(PathBuf::from) else {
        eprintln!("NOT MEASURED: the Celery worker; {PYTHON} names no Python (./dev bench does)");
        return Ok(());
    };
    let ours = crate::measure(&Database::Sqlite { directory: tempfile::tempdir()? }, PRODUCTS).await?;
    let ours = ours.recalculation.as_secs_f64();
    let redis = RedisServer::start().await?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/celery_reprice.py");
    let output = Command::new(python)
        .arg(script)
        .args([&redis.url(), &PRODUCTS.to_string()])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs = String::from_utf8_lossy(&output.stdout);
    let theirs: f64 = theirs.trim().parse().with_context(|| theirs.to_string())?;
    println!(
        "\n{PRODUCTS} products on SQLite: {ours:.2} s; a Celery worker with two processes that does the same work: \
         {theirs:.2} s, {:.2} times as long (goal: 20).",
        theirs / ours
    );
    Ok(())
}
