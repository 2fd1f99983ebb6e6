//! `pricing`: the pricing engine at the command line.
//!
//! Here: arguments, what people read, and the exit code. Each verb is one file in [`commands`]; they reach the
//! engine over its HTTP API ([`client`]).
//!
//! Exit codes: 0 done; 1 the work failed, or some rows of it; 2 wrong usage; 69 no service answers.

mod client;
mod commands;
mod output;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use commands::quote;
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
    /// Ask what a product costs a shopper
    Quote(quote::Arguments),
}

fn main() -> ExitCode {
    let command = CommandLine::parse().command;
    let outcome = Runtime::new().map_err(Into::into).and_then(|runtime| {
        let outcome = runtime.block_on(run(command));
        // Without waiting for a read of standard input, which may never end.
        runtime.shutdown_background();
        outcome
    });
    outcome.unwrap_or_else(|error| output::report(&error))
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Quote(arguments) => quote::run(arguments).await,
    }
}
