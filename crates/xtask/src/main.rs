//! The repository's larger tasks, started by `./dev`.
//!
//! Here: running the tests and counting them ([`test_run`]), the hot path's instructions ([`instructions`])
//! and its profile ([`profile`]), the table of faults ([`reliability`]), checks that take minutes
//! ([`longer_runs`]), the end-to-end tests again and again ([`repeat`]), the benches ([`bench`]), comparing
//! two commits ([`against`]), and the containers ([`compose`]). Never here: the installation of programs
//! (`.ci/install.sh`), and the benches themselves (`benches` of the crates).

#![expect(clippy::print_stdout, reason = "its output is what it is for")]
#![expect(clippy::print_stderr, reason = "what it is doing is said apart from the results")]

mod against;
mod bench;
mod checkout;
mod compose;
mod instructions;
mod longer_runs;
mod pause;
mod profile;
mod reliability;
mod repeat;
mod tee;
mod test_run;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "xtask test | xtask instructions [--write] | xtask bench [NAME [ARGUMENTS]] | \
    xtask against REV [ARGUMENTS] | xtask profile | xtask reliability | \
    xtask repeat [N] | xtask upgrade [REV] [OPTIONS] | xtask failover [OPTIONS] | xtask soak [MINUTES] [OPTIONS] | xtask compose | xtask compose-check COMPOSE...";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("./dev: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["test"] => test_run::run(),
        ["instructions"] => instructions::check(),
        ["instructions", "--write"] => instructions::write(),
        ["bench"] => bench::write(),
        ["bench", name, rest @ ..] => bench::print(name, rest),
        ["against", revision, rest @ ..] if !revision.starts_with('-') => against::compare(revision, rest),
        ["profile"] => profile::print(),
        ["reliability"] => reliability::run(),
        ["repeat"] => repeat::run("10"),
        ["repeat", rounds] => repeat::run(rounds),
        ["upgrade", rest @ ..] => longer_runs::upgrade(rest),
        [name @ ("failover" | "soak"), rest @ ..] => longer_runs::check(name, rest),
        ["compose"] => compose::run(),
        ["compose-check", program, rest @ ..] => compose::check(program, rest),
        _ => bail!("usage: {USAGE}"),
    }
}
