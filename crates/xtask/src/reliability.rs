//! The table of faults in `docs/reliability.md`: runs the tests that it names, and writes their results.

use std::collections::HashMap;
use std::fs::{self, File};

use anyhow::{Context, Result, ensure};

use crate::checkout::Checkout;
use crate::tee::{Kept, tee};

const PAGE: &str = "docs/reliability.md";

/// Runs the tests of the table, and writes the last column; fails if one of them does.
pub(crate) fn run() -> Result<()> {
    let checkout = Checkout::own()?;
    let path = checkout.directory().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("{PAGE} cannot be read"))?;
    let names: Vec<&str> = page.lines().filter_map(test_of).collect();
    ensure!(!names.is_empty(), "{PAGE} names no test");
    eprintln!("\n==> Running the {} tests that {PAGE} names", names.len());
    let report = checkout.target().join("reliability.txt");
    let mut arguments = vec!["test", "--locked", "-p", "pricing-e2e", "--test", "it", "--", "--exact"];
    arguments.extend(&names);
    let ran = tee(checkout.command("cargo", &arguments), Kept::OutputAndErrors, &mut File::create(&report)?);
    let report = fs::read_to_string(report)?;
    let results: HashMap<&str, &str> = report.lines().filter_map(read_result).collect();
    let commit = checkout.commit()?;
    fs::write(&path, with_results(&page, &results, &commit))?;
    ran?;
    let missing: Vec<&&str> = names.iter().filter(|name| !results.contains_key(**name)).collect();
    ensure!(missing.is_empty(), "these tests do not exist: {missing:?}");
    println!("{} faults, each tested at {commit}: {PAGE}", names.len());
    Ok(())
}

/// The test that a row of the table names in its last column but one.
fn test_of(line: &str) -> Option<&str> {
    let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
    cells.get(4)?.strip_prefix('`')?.strip_suffix('`')
}

/// Parses `test NAME ... ok`.
fn read_result(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ")?.rsplit_once(" ... ")
}

/// The page with the results of the tests that have run.
fn with_results(page: &str, results: &HashMap<&str, &str>, commit: &str) -> String {
    let rows = page.lines().map(|line| {
        let result = test_of(line).and_then(|name| results.get(name));
        let Some((row, result)) = line.strip_suffix(" |").and_then(|row| row.rsplit_once(" | ")).zip(result)
        else {
            return line.to_owned();
        };
        let said = if *result == "ok" { "passed" } else { "failed" };
        format!("{} | {said}, {commit} |", row.0)
    });
    rows.collect::<Vec<_>>().join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_column_becomes_the_result() {
        let page = "| fault | what | how long | lost | test | last result |\n|---|---|---|---|---|---|\n\
                    | A dies | B goes on | 5 s | nothing | `chaos::a_dies` | not run |\n\
                    | C dies | D goes on | 5 s | nothing | `chaos::c_dies` | passed, 1234567 |\n";
        assert_eq!(page.lines().filter_map(test_of).collect::<Vec<_>>(), ["chaos::a_dies", "chaos::c_dies"]);
        let report = "running 2 tests\ntest chaos::a_dies ... ok\ntest chaos::c_dies ... FAILED\n";
        let results: HashMap<&str, &str> = report.lines().filter_map(read_result).collect();
        let written = with_results(page, &results, "abcdef0");
        assert!(written.contains("| `chaos::a_dies` | passed, abcdef0 |\n"), "{written}");
        assert!(written.contains("| `chaos::c_dies` | failed, abcdef0 |\n"), "{written}");
        assert!(written.starts_with("| fault | what | how long | lost | test | last result |\n|---|"));
    }
}
