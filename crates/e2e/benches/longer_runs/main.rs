//! Checks that take minutes, each a promise of docs/reliability.md: `./dev upgrade`, `./dev failover` and
//! `./dev soak`.
//!
//! `cargo bench --profile dev -p pricing-e2e --bench longer_runs -- NAME [OPTIONS]`. Each starts its own
//! servers and services on loopback, prints what it does and finds, and fails if the promise is broken. Its
//! last line, `RESULT …`, has the figures; `xtask longer` writes them into the document.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]
#![expect(clippy::float_arithmetic, reason = "these are measurements, not prices")]

mod failover;
mod options;
mod soak;
mod upgrade;
mod verdict;

use std::process::ExitCode;

use anyhow::{Result, bail};

use options::Options;

const USAGE: &str = "upgrade OLDER [--seconds N] [--reads N] [--events N] | \
    failover [--seconds N] [--reads N] [--events N] [--replicas N] | soak [MINUTES] [--reads N] [--events N]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nFAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match arguments.as_slice() {
        ["upgrade", older, rest @ ..] => runtime.block_on(upgrade::run(older, &Options::parse(rest)?)),
        ["failover", rest @ ..] => runtime.block_on(failover::run(&Options::parse(rest)?)),
        ["soak", minutes, rest @ ..] if !minutes.starts_with('-') => {
            runtime.block_on(soak::run(minutes.parse()?, &Options::parse(rest)?))
        }
        ["soak", rest @ ..] => runtime.block_on(soak::run(soak::MINUTES, &Options::parse(rest)?)),
        _ => bail!("usage: {USAGE}"),
    }
}
