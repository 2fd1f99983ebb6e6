//! The checks that take minutes: `./dev upgrade`, `./dev failover` and `./dev soak`.
//!
//! The checks themselves are the bench `longer_runs` of `pricing-e2e`. Here the programs are built, the older
//! version too, and the figures are written into the section "Longer runs" of `docs/reliability.md`.

use std::fs::{self, File};

use anyhow::{Context, Result};

use crate::checkout::Checkout;
use crate::tee::{Kept, tee};

const PAGE: &str = "docs/reliability.md";
/// Begins the line with the figures.
const RESULT: &str = "RESULT ";
/// The version that `./dev upgrade` begins with, unless another is named.
const OLDER: &str = "b3198c9";

/// Runs an older version and this one side by side.
pub(crate) fn upgrade(arguments: &[&str]) -> Result<()> {
    let (revision, rest) = match arguments {
        [revision, rest @ ..] if !revision.starts_with('-') => (*revision, rest),
        rest => (OLDER, rest),
    };
    let checkout = Checkout::own()?;
    let older = checkout.of_commit(revision)?;
    eprintln!("==> Building {revision} in a checkout of its own: about 10 minutes the first time");
    let programs = older.build_programs()?;
    let programs = programs.to_str().context("the target directory's name is no UTF-8")?;
    let name = if revision == OLDER { "upgrade".to_owned() } else { format!("upgrade {revision}") };
    run(&checkout, &name, &[&["upgrade", programs], rest].concat())
}

/// Runs a check that needs this version only.
pub(crate) fn check(name: &str, arguments: &[&str]) -> Result<()> {
    run(&Checkout::own()?, name, &[&[name], arguments].concat())
}

/// Builds the programs, runs the check, and writes its figures; fails if a promise was broken.
fn run(checkout: &Checkout, name: &str, arguments: &[&str]) -> Result<()> {
    eprintln!("==> Building this checkout, and the check");
    checkout.build_programs()?;
    let bench =
        ["bench", "--quiet", "--locked", "--profile", "dev", "--workspace", "--bench", "longer_runs", "--"];
    let report = checkout.target().join("longer-run.txt");
    let command = checkout.command("cargo", &[&bench[..], arguments].concat());
    let ran = tee(command, Kept::Output, &mut File::create(&report)?);
    let report = fs::read_to_string(report)?;
    let figures = report.lines().find_map(|line| line.strip_prefix(RESULT));
    let result = format!("{}, {}", figures.unwrap_or("failed"), checkout.commit()?);
    let path = checkout.directory().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("{PAGE} cannot be read"))?;
    fs::write(&path, with_result(&page, name, &result))?;
    ran?;
    println!("{PAGE} has the figures");
    Ok(())
}

/// The page with the last cell of the check's row replaced.
fn with_result(page: &str, name: &str, result: &str) -> String {
    let row = format!("| `./dev {name}` | ");
    let lines =
        page.lines().map(|line| match line.strip_prefix(&row).and_then(|rest| rest.split_once(" | ")) {
            Some((promise, _)) => format!("{row}{promise} | {result} |"),
            None => line.to_owned(),
        });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_of_the_check_gets_its_figures() {
        let page = "| run | promise | last result |\n|---|---|---|\n| `./dev soak` | no leak | not run |\n\
                    | `./dev failover` | no loss | not run |\n";
        let written = with_result(page, "soak", "20 minutes, 1234567");
        assert!(written.contains("| `./dev soak` | no leak | 20 minutes, 1234567 |\n"), "{written}");
        assert!(written.contains("| `./dev failover` | no loss | not run |\n"), "{written}");
        assert_eq!(with_result(&written, "soak", "failed, 7654321").lines().count(), 4);
    }
}
