//! Runs the benches: prints one, or writes all to docs/benchmarks.md.

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use chrono::Utc;

use crate::checkout::{Checkout, succeed};
use crate::tee::{Kept, tee};

/// The benches, in the order of the report.
const NAMES: [&str; 6] = [PRICE, "http", "events", "overload", "memory", "bulk"];
/// The bench that is followed by one of a rules engine, a separate program, as it has several hundred
/// dependencies.
const PRICE: &str = "price";
const ZEN_ENGINE: &str = "crates/e2e/benches/peers/zen_engine/Cargo.toml";
const KB_IN_GB: u64 = 1024 * 1024;

/// Runs one bench with these arguments.
pub(crate) fn print(name: &str, arguments: &[&str]) -> Result<()> {
    ensure!(NAMES.contains(&name), "there is no bench called {name}; there are {}", NAMES.join(", "));
    let checkout = Checkout::own()?;
    build(&checkout, name == PRICE)?;
    for command in commands(&checkout, name, arguments) {
        succeed(command)?;
    }
    Ok(())
}

/// Runs all benches, shows their output, and writes the report if all succeed.
pub(crate) fn write() -> Result<()> {
    let checkout = Checkout::own()?;
    build(&checkout, true)?;
    checkout.run("cargo", &["bench", "--locked", "--workspace", "--benches", "--no-run"])?;
    eprintln!("\n==> Measuring: about half an hour; leave the machine alone");
    let path = checkout.target().join("benchmarks.md");
    let mut report = File::create(&path)?;
    let opening = opening(&checkout)?;
    print!("{opening}");
    report.write_all(opening.as_bytes())?;
    for name in NAMES {
        for command in commands(&checkout, name, &[]) {
            tee(command, Kept::Output, &mut report)?;
        }
        println!();
        writeln!(report)?;
    }
    fs::copy(&path, checkout.directory().join("docs/benchmarks.md")).context("writing docs/benchmarks.md")?;
    Ok(())
}

fn build(checkout: &Checkout, with_zen_engine: bool) -> Result<()> {
    eprintln!("\n==> Building in release mode: about 15 minutes the first time");
    checkout.build_services()?;
    if with_zen_engine {
        eprintln!("\n==> Building zen-engine, to compare with: several hundred packages, once");
        succeed(zen_engine(checkout, "build"))?;
    }
    Ok(())
}

/// Returns the commands that run a bench.
fn commands(checkout: &Checkout, name: &str, arguments: &[&str]) -> Vec<Command> {
    let bench = ["bench", "--quiet", "--locked", "--workspace", "--bench", name, "--"];
    let mut commands = vec![checkout.command("cargo", &[&bench[..], arguments].concat())];
    if name == PRICE {
        commands.push(zen_engine(checkout, "run"));
    }
    commands
}

fn zen_engine(checkout: &Checkout, verb: &str) -> Command {
    let arguments = [verb, "--quiet", "--release", "--manifest-path", ZEN_ENGINE];
    checkout.with_target("zen-engine").command("cargo", &arguments)
}

fn opening(checkout: &Checkout) -> Result<String> {
    let commit = checkout.commit()?;
    let cores = std::thread::available_parallelism()?;
    let processor =
        line_of("/proc/cpuinfo", "model name").unwrap_or_else(|| "an unknown processor".to_owned());
    let memory = line_of("/proc/meminfo", "MemTotal").unwrap_or_default();
    let memory_kb: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
    let memory_gb = (memory_kb + KB_IN_GB / 2) / KB_IN_GB;
    Ok(format!(
        "# Benchmarks\n\n\
        Made by `./dev bench` on {today} at {commit}, on {cores} cores of {processor} with {memory_gb} GB of memory. \
        Servers, databases and load generators share these cores, so rates say little: read the ratios, each of which \
        compares two things in the same run. What a benchmark does is at the head of its source. Redis and SQLite are \
        as durable as the engine asks for; the tests' PostgreSQL runs with `fsync` off, for the engine and for the \
        limit. Goals, and which are met: [performance.md](performance.md).\n\n",
        today = Utc::now().format("%F"),
    ))
}

/// Returns the text after `name` and a colon in the first line that begins so.
fn line_of(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim_start().strip_prefix(':')?.trim().to_owned())
}
