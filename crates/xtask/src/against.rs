//! Compares this checkout with another commit: `./dev bench against REV`.
//!
//! The commit is built in a separate checkout; then both builds run the same work in turns (the bench
//! `against` of `pricing-e2e`), and the instructions of both are counted.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::checkout::Checkout;
use crate::instructions::count;

/// The instructions per call of each work.
type Instructions = BTreeMap<String, u64>;

/// Builds both, and prints a table of their measurements and one of their instructions.
pub(crate) fn compare(revision: &str, bench_arguments: &[&str]) -> Result<()> {
    let after = Checkout::own()?;
    let before = after.of_commit(revision)?;
    eprintln!("==> Building {revision} in a checkout of its own: about 15 minutes the first time");
    let services_before = before.build_services()?;
    eprintln!("==> Building this checkout");
    let services_after = after.build_services()?;
    eprintln!("==> Building and running the bench: about 10 minutes more the first time");
    let directories = [services_before.to_string_lossy(), services_after.to_string_lossy()];
    let bench = ["bench", "--quiet", "--locked", "--workspace", "--bench", "against", "--"];
    after.run("cargo", &[&bench[..], &[&directories[0], &directories[1]], bench_arguments].concat())?;

    eprintln!("==> Counting instructions of both");
    let (before, after) = (count_all(&before)?, count_all(&after)?);
    println!("\n## Instructions\n\n| work | before | after | after ÷ before |\n|---|---|---|---|");
    for (work, now) in &after {
        match before.get(work) {
            Some(then) => println!("| {work} | {then} | {now} | {} |", ratio(*now, *then)),
            None => println!("| {work} | | {now} | |"),
        }
    }
    Ok(())
}

fn count_all(checkout: &Checkout) -> Result<Instructions> {
    let mut all = Instructions::new();
    for counts in checkout.counts()? {
        let program = checkout.build_bench(&counts.bench)?;
        for (work, kept) in counts.works {
            let now = count(&program, &work, kept)?;
            all.insert(work, now);
        }
    }
    Ok(all)
}

/// Formats a ratio with three decimal places, rounded down.
fn ratio(now: u64, then: u64) -> String {
    let thousandths = now * 1_000 / then.max(1);
    format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000)
}
