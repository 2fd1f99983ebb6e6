//! The repository's tasks that are more than a few commands; `./dev` starts them.
//!
//! Here: counting the hot path's instructions ([`instructions`]) and comparing two commits ([`against`]).
//! Never here: what installs programs (`./dev`), and what is measured (`benches` of the crates).

#![expect(clippy::print_stdout, reason = "its output is what it is for")]
#![expect(clippy::print_stderr, reason = "what it is doing is said apart from the results")]

mod against;
mod checkout;
mod instructions;

use anyhow::{Result, bail};

const USAGE: &str = "xtask instructions [--write] | xtask against REV [ARGUMENTS OF THE BENCH]";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["instructions"] => instructions::check(),
        ["instructions", "--write"] => instructions::write(),
        ["against", revision, rest @ ..] if !revision.starts_with('-') => against::compare(revision, rest),
        _ => bail!("usage: {USAGE}"),
    }
}
