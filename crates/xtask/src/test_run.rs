//! Runs and counts every test of the workspace: the end of `./dev test`.

use std::fs::{self, File};
use std::iter::Sum;

use anyhow::{Result, ensure};

use crate::checkout::Checkout;
use crate::tee::{Kept, tee};
use crate::{compose, instructions};

/// The results that the test binaries print.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Runs the tests, counts the instructions, and prints what passed and what was not run.
pub(crate) fn run() -> Result<()> {
    let checkout = Checkout::own()?;
    eprintln!("\n==> Running the tests: about 5 minutes the first time, most of it building");
    let report = checkout.target().join("test-report.txt");
    let tests = checkout.command("cargo", &["test", "--locked", "--workspace"]);
    tee(tests, Kept::OutputAndErrors, &mut File::create(&report)?)?;
    eprintln!(
        "\n==> Counting the instructions of the hot path: about 5 minutes the first time, all of it building"
    );
    instructions::check()?;
    let counts: Counts = fs::read_to_string(report)?.lines().filter_map(read_result).sum();
    ensure!(counts.passed > 0, "no test has run");
    println!("\n==> Every check passed\n\n==> {}", compose::last_run(&checkout));
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.ignored);
    Ok(())
}

/// Parses the numbers of `test result: ok. 12 passed; 0 failed; 1 ignored; …`.
fn read_result(line: &str) -> Option<Counts> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let of = |what: &str| {
        let part = counts.split("; ").find_map(|part| part.strip_suffix(what))?;
        part.trim().parse().ok()
    };
    Some(Counts { passed: of("passed")?, failed: of("failed")?, ignored: of("ignored")? })
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            passed: sum.passed + one.passed,
            failed: sum.failed + one.failed,
            ignored: sum.ignored + one.ignored,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_and_added() {
        let text = "running 3 tests\n\
            test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
            test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n\
            test result of another kind\n";
        let counts: Counts = text.lines().filter_map(read_result).sum();
        assert_eq!(counts, Counts { passed: 15, failed: 2, ignored: 1 });
    }
}
