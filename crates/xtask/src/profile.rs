//! Profiles price requests by function: `./dev profile`.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::checkout::Checkout;
use crate::compose::request;
use crate::pause::eventually;

/// The time limit for the API to become ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// The script of the load.
const SCRIPT: &str = r#"wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = '{"product_id": "P-100", "user_location": "NY", "is_prime_member": true}'
"#;

/// Requests prices from a private API for ten seconds, while perf samples it 2,000 times a second.
pub(crate) fn print() -> Result<()> {
    let checkout = Checkout::own()?.with_target("profile");
    eprintln!("\n==> Building with symbols, apart from the other builds: about 15 minutes the first time");
    let symbols = ["profile.release.strip=false", "--config", "profile.release.debug='line-tables-only'"];
    let build = ["build", "--locked", "--release", "-p", "pricing-api", "--config"];
    checkout.run("cargo", &[&build[..], &symbols].concat())?;
    let directory = checkout.target().join("run");
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
    let (_redis, redis_port) = start_redis(&directory)?;
    let (api, port) = start_api(&checkout, &directory, redis_port)?;
    let ready = || Ok((request(port, "GET", "/readyz", None)?.status == 200).then_some(()));
    eventually("the API is ready", PATIENCE, ready)?;

    fs::write(directory.join("price.lua"), SCRIPT)?;
    let mut load = Command::new("wrk");
    load.args(["-t1", "-c64", "-d11s", "-s"]).arg(directory.join("price.lua"));
    load.arg(format!("http://127.0.0.1:{port}/api/v1/price"))
        .stdout(File::create(directory.join("wrk.txt"))?);
    let _load = Running::start(load)?;
    let data = directory.join("perf.data").display().to_string();
    let record =
        ["record", "-q", "-F", "2000", "-g", "-p", &api.0.id().to_string(), "-o", &data, "--", "sleep", "10"];
    checkout.run("perf", &record)?;
    let report = ["--no-children", "--percent-limit", "0.7", "-g", "none", "--stdio"];
    let report =
        Command::new("perf").args(["report", "-i", &data]).args(report).stderr(Stdio::null()).output()?;
    ensure!(report.status.success(), "perf report failed: {}", report.status);
    for line in String::from_utf8_lossy(&report.stdout).lines().filter(|line| !line.is_empty()) {
        println!("{line}");
    }
    println!("\n==> For a flame graph: perf script -i {data} | inferno-collapse-perf | inferno-flamegraph");
    Ok(())
}

fn start_redis(directory: &Path) -> Result<(Running, u16)> {
    let port = free_port()?;
    let mut redis = Command::new("redis-server");
    redis.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir", "./"]);
    redis.current_dir(directory).stdout(File::create(directory.join("redis.log"))?);
    Ok((Running::start(redis)?, port))
}

fn start_api(checkout: &Checkout, directory: &Path, redis_port: u16) -> Result<(Running, u16)> {
    let port = free_port()?;
    let program = checkout.target().join("release/pricing-api");
    let mut api = checkout.command(&program.to_string_lossy(), &[]);
    api.env("PRICING_REDIS_URL", format!("redis://127.0.0.1:{redis_port}"));
    api.env("PRICING_DATABASE_URL", format!("sqlite://{}", directory.join("catalogue.db").display()));
    api.env("PRICING_API_LISTEN", format!("127.0.0.1:{port}"));
    api.env("PRICING_SEED_FILE", "data/sample-products.csv");
    api.env("PRICING_LOG", "warn").env("PRICING_OTLP_ENDPOINT", "off");
    api.stderr(File::create(directory.join("api.log"))?);
    Ok((Running::start(api)?, port))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A process that is killed on drop.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Result<Self> {
        Ok(Self(command.spawn().with_context(|| format!("running {command:?}"))?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
