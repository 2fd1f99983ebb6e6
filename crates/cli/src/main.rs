//! `pricing`: the pricing engine at the command line.
//!
//! Here: arguments, what people read, and the exit code. Each verb is one file in [`commands`]; they reach
//! the engine over its HTTP API ([`client`]), except `up`, which runs it.
//!
//! Exit codes: 0 done; 1 the work failed, or some rows of it; 2 wrong usage; 69 no service answers.

mod client;
mod commands;
mod data_directory;
mod output;
mod redis_child;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use commands::{
    approve, doctor, explain, history, import, jobs, policy, quote, recalculate, simulate, up, watch,
};
use pricing_core::config::process_environment;
use pricing_core::tz_database::TzDatabase;
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Prices that follow the market: run the engine, fill it, ask it.
#[derive(Debug, Parser)]
#[command(name = "pricing", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole engine on this machine
    Up(up::Arguments),
    /// Import products from a CSV or NDJSON file
    Import(import::Arguments),
    /// Ask what a product costs a shopper
    Quote(quote::Arguments),
    /// Show step by step why a price is what it is
    Explain(explain::Arguments),
    /// Show how a price came to be what it is, change by change
    History(history::Arguments),
    /// Check, publish, compare and go back on policies
    Policy(policy::Arguments),
    /// Show what a policy would do to the whole catalogue, before it does it
    Simulate(simulate::Arguments),
    /// Make prices anew, for all products or some
    Recalculate(recalculate::Arguments),
    /// Let through, or give up, a recalculation that the circuit breaker holds
    Approve(approve::Arguments),
    /// Follow prices as they change
    Watch(watch::Arguments),
    /// See the jobs that were given up, and give them another chance
    Jobs(jobs::Arguments),
    /// Check that everything the engine needs is there, and say what to do if not
    Doctor(doctor::Arguments),
}

fn main() -> ExitCode {
    let command = match CommandLine::try_parse() {
        Ok(command_line) => command_line.command,
        Err(asked) if asked.kind() == ErrorKind::DisplayVersion => {
            return output::show(&version()).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
        }
        Err(refusal) => refusal.exit(),
    };
    let outcome = Runtime::new().map_err(Into::into).and_then(|runtime| {
        let outcome = runtime.block_on(run(command));
        // Without waiting for a read of standard input, which may never end.
        runtime.shutdown_background();
        outcome
    });
    outcome.unwrap_or_else(|error| output::report(&error))
}

/// This program's version, and that of the time zone database that it would use.
fn version() -> String {
    let directory = process_environment("TZDIR").filter(|directory| !directory.is_empty());
    let time_zones = TzDatabase::load(directory.as_deref().map(Path::new));
    format!("pricing {} (time zones {time_zones})", env!("CARGO_PKG_VERSION"))
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(arguments) => up::run(arguments).await,
        Command::Import(arguments) => import::run(arguments).await,
        Command::Quote(arguments) => quote::run(arguments).await,
        Command::Explain(arguments) => explain::run(arguments).await,
        Command::History(arguments) => history::run(arguments).await,
        Command::Policy(arguments) => policy::run(arguments).await,
        Command::Simulate(arguments) => simulate::run(arguments).await,
        Command::Approve(arguments) => approve::run(arguments).await,
        Command::Recalculate(arguments) => recalculate::run(arguments).await,
        Command::Watch(arguments) => watch::run(arguments).await,
        Command::Jobs(arguments) => jobs::run(arguments).await,
        Command::Doctor(arguments) => doctor::run(arguments).await,
    }
}

#[cfg(test)]
mod tests;
