//! No server and no directory survives the test process, however it ends; every server survives the
//! thread that started it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_e2e::{RedisServer, ServiceProcess, eventually};
use redis::AsyncCommands;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::support::shared_postgres;

const PATIENCE: Duration = Duration::from_secs(60);
/// Where the inner test process records what it started.
const REPORT_VARIABLE: &str = "HARNESS_TEST_REPORT";
/// Set when the inner test process shall wait until it is killed.
const LINGER_VARIABLE: &str = "HARNESS_TEST_LINGER";

#[tokio::test]
async fn a_server_survives_the_thread_that_started_it() -> Result<()> {
    let starter = thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(RedisServer::start())
    });
    let redis = starter.join().expect("the starting thread does not panic")?;
    assert!(!redis.connection().await?.exists::<_, bool>("key").await?);
    Ok(())
}

#[tokio::test]
async fn a_dropped_server_leaves_no_directory() -> Result<()> {
    let redis = RedisServer::start().await?;
    let directory = redis.directory().to_owned();
    assert!(directory.exists());
    drop(redis);
    assert!(!directory.exists());
    Ok(())
}

#[tokio::test]
async fn a_test_process_that_ends_leaves_nothing_behind() -> Result<()> {
    let report = tempfile::tempdir()?;
    let report = report.path().join("report.json");
    let mut process = inner_test_process(&[(REPORT_VARIABLE, path_text(&report)?)])?;
    let status = process.wait(PATIENCE).await?;
    ensure!(status.success(), "the inner test failed:\n{}", process.output()?);
    ensure_nothing_is_left(&read_report(&report)?).await
}

#[tokio::test]
async fn a_test_process_that_is_killed_leaves_nothing_behind() -> Result<()> {
    let report = tempfile::tempdir()?;
    let report = report.path().join("report.json");
    let mut process =
        inner_test_process(&[(REPORT_VARIABLE, path_text(&report)?), (LINGER_VARIABLE, "yes")])?;
    let servers = eventually("the servers run", PATIENCE, async || {
        read_report(&report).with_context(|| process.output().unwrap_or_default())
    })
    .await?;
    for port in ports(&servers)? {
        TcpStream::connect(("127.0.0.1", port)).await.context("a server runs before the kill")?;
    }
    process.kill()?;
    ensure_nothing_is_left(&servers).await
}

/// Not a test: the process that the two tests above start and look at from outside.
#[tokio::test]
#[ignore = "run by other tests, in a process of its own"]
async fn inner_test_process_with_servers() -> Result<()> {
    static REDIS: OnceCell<RedisServer> = OnceCell::const_new();
    let Some(report) = std::env::var_os(REPORT_VARIABLE) else {
        return Ok(());
    };
    let redis = REDIS.get_or_try_init(RedisServer::start).await?;
    let postgres = shared_postgres().await?;
    let service = ServiceProcess::start_program(Path::new("/bin/sleep"), &[], &["300"])?;
    let servers = json!({
        "ports": [redis.port(), postgres.port()],
        "directories": [redis.directory(), postgres.directory()],
        "service": service.id(),
    });
    // A reader never sees half a report.
    let draft = Path::new(&report).with_extension("draft");
    fs::write(&draft, servers.to_string())?;
    fs::rename(draft, report)?;
    if std::env::var_os(LINGER_VARIABLE).is_some() {
        std::future::pending::<()>().await;
    }
    Ok(())
}

fn inner_test_process(environment: &[(&str, &str)]) -> Result<ServiceProcess> {
    let name = "harness::survival::inner_test_process_with_servers";
    let this_binary = std::env::current_exe()?;
    ServiceProcess::start_program(&this_binary, environment, &["--exact", name, "--ignored", "--nocapture"])
}

async fn ensure_nothing_is_left(servers: &Value) -> Result<()> {
    let service = servers["service"].as_u64().context("the report names the service")?;
    let directories: Vec<PathBuf> = serde_json::from_value(servers["directories"].clone())?;
    eventually("every server and directory is gone", PATIENCE, async || {
        for port in ports(servers)? {
            let connection = TcpStream::connect(("127.0.0.1", port)).await;
            ensure!(connection.is_err(), "something listens on port {port}");
        }
        for directory in &directories {
            ensure!(!directory.exists(), "{} exists", directory.display());
        }
        ensure!(!Path::new(&format!("/proc/{service}")).exists(), "process {service} runs");
        Ok(())
    })
    .await
}

fn read_report(path: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn ports(servers: &Value) -> Result<Vec<u16>> {
    Ok(serde_json::from_value(servers["ports"].clone())?)
}

fn path_text(path: &Path) -> Result<&str> {
    path.to_str().context("the path is text")
}
