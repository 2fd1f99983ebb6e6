//! The end-to-end tests several times in a row, under other conditions each time: what fails now and then.

use std::fs::{self, File};
use std::process::{Child, Command};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::checkout::Checkout;
use crate::tee::{Kept, tee};

/// Files in memory, where the system has them.
const MEMORY: &str = "/dev/shm";

/// What a round has that the others have not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Usual,
    /// A process for each core that does nothing else.
    BusyCores,
    /// Temporary files, those of the servers among them, are in memory.
    FilesInMemory,
}

/// Runs the tests so many times, prints a line for each round, and fails if a test did.
pub(crate) fn run(rounds: &str) -> Result<()> {
    let rounds: u32 = rounds.parse().context("how many times?")?;
    let checkout = Checkout::own()?;
    checkout.build_programs()?;
    let mut lines = Vec::new();
    let mut failed = 0;
    for round in 1..=rounds {
        let condition = condition_of(round);
        eprintln!("\n==> Round {round} of {rounds}: {condition:?}");
        let began = Instant::now();
        let report = round_of(&checkout, condition)?;
        let failures = failures_in(&report);
        failed += failures.len();
        let result = report.lines().rfind(|line| line.starts_with("test result: "));
        let result = result.and_then(|line| line.split("; finished").next()).unwrap_or("no result");
        let seconds = began.elapsed().as_secs();
        lines.push(format!("{round:>3}  {condition:?}  {seconds} s  {result}  {}", failures.join(" ")));
        println!("\n{}", lines.join("\n"));
    }
    println!("\n{rounds} rounds at {}, {failed} failures", checkout.commit()?);
    ensure!(failed == 0, "{failed} tests have failed");
    Ok(())
}

fn condition_of(round: u32) -> Condition {
    match round % 4 {
        3 => Condition::FilesInMemory,
        0 => Condition::BusyCores,
        _ => Condition::Usual,
    }
}

/// Runs the tests once, and returns what they printed.
fn round_of(checkout: &Checkout, condition: Condition) -> Result<String> {
    let report = checkout.target().join("repeat.txt");
    let mut tests = checkout.command("cargo", &["test", "--locked", "-p", "pricing-e2e", "--test", "it"]);
    let mut load = Load(Vec::new());
    match condition {
        Condition::Usual => {}
        Condition::FilesInMemory => {
            tests.env("TMPDIR", MEMORY);
        }
        Condition::BusyCores => load.start()?,
    }
    let ran = tee(tests, Kept::OutputAndErrors, &mut File::create(&report)?);
    let report = fs::read_to_string(report)?;
    ensure!(ran.is_ok() || !failures_in(&report).is_empty(), "the tests did not end: {ran:?}");
    Ok(report)
}

/// Processes that keep the cores busy. Killed on drop.
struct Load(Vec<Child>);

impl Load {
    fn start(&mut self) -> Result<()> {
        for _ in 0..std::thread::available_parallelism()?.get() {
            self.0.push(Command::new("sh").args(["-c", "while :; do :; done"]).spawn()?);
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Each has ended by itself otherwise.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The tests of which a line says that they failed.
fn failures_in(report: &str) -> Vec<&str> {
    report.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_named_and_each_condition_comes() {
        let report = "test a::b ... ok\ntest c::d ... FAILED\ntest result: FAILED. 1 passed; 1 failed;\n";
        assert_eq!(failures_in(report), ["c::d"]);
        let conditions: Vec<Condition> = (1..=4).map(condition_of).collect();
        let expected = [Condition::Usual, Condition::Usual, Condition::FilesInMemory, Condition::BusyCores];
        assert_eq!(conditions, expected);
    }
}
