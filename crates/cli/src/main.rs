//! `pricing`: the pricing engine at the command line.
//!
//! Here: arguments, output for people, and the exit code. Each command is one file in [`commands`]; they
//! reach the engine over its HTTP API ([`client`], with the types of `pricing-wire`), except `up`, which runs
//! it, and `backup`, `restore` and `keys create --direct`, which open the database.
//!
//! Exit codes: 0 done; 1 the work failed, or some rows of it; 2 wrong usage; 69 no service answers.

mod client;
mod commands;
mod data_directory;
mod output;
mod private_files;
mod redis_child;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use commands::{
    approve, audit, backup, doctor, explain, history, import, jobs, keys, policy, quote, recalculate,
    restore, simulate, up, watch,
};
use pricing_core::config::process_environment;
use pricing_core::tz_database::TzDatabase;
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Market-driven prices: run the engine, import products, query prices.
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
    /// Show what a product costs a shopper
    Quote(quote::Arguments),
    /// Explain a price step by step
    Explain(explain::Arguments),
    /// Show the history of a price, change by change
    History(history::Arguments),
    /// Check, publish, compare and roll back policies
    Policy(policy::Arguments),
    /// Show the effect of a policy on all prices, before it is published
    Simulate(simulate::Arguments),
    /// Recalculate prices for all or selected products
    Recalculate(recalculate::Arguments),
    /// Approve or reject what the circuit breaker holds: recalculations, and moves of prices by market events
    Approve(approve::Arguments),
    /// Follow price changes as they happen
    Watch(watch::Arguments),
    /// List failed jobs and requeue them
    Jobs(jobs::Arguments),
    /// Create, list, rotate and revoke access keys
    Keys(keys::Arguments),
    /// Show who changed what, or export it
    Audit(audit::Arguments),
    /// Copy the catalogue into a file, while everything runs
    Backup(backup::Arguments),
    /// Put a backup in the place of the catalogue, while nothing runs
    Restore(restore::Arguments),
    /// Check everything that the engine needs, with advice for each problem
    Doctor(doctor::Arguments),
}

fn main() -> ExitCode {
    let command = match CommandLine::try_parse() {
        Ok(command_line) => command_line.command,
        Err(error) if error.kind() == ErrorKind::DisplayVersion => {
            return output::show(&version()).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
        }
        Err(refusal) => refusal.exit(),
    };
    let outcome = Runtime::new().map_err(Into::into).and_then(|runtime| {
        let outcome = runtime.block_on(run(command));
        // Does not wait for a read of standard input, which may never end.
        runtime.shutdown_background();
        outcome
    });
    outcome.unwrap_or_else(|error| output::report(&error))
}

/// The version of this program and of its time zone database.
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
        Command::Keys(arguments) => keys::run(arguments).await,
        Command::Audit(arguments) => audit::run(arguments).await,
        Command::Backup(arguments) => backup::run(arguments).await,
        Command::Restore(arguments) => restore::run(arguments).await,
        Command::Doctor(arguments) => doctor::run(arguments).await,
    }
}

#[cfg(test)]
mod tests;
