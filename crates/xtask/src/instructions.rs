//! Counts the instructions of the hot path by callgrind: unlike times, they do not depend on other load.
//!
//! `PROGRAM --instructions WORK CALLS` repeats one kind of work. Each is run twice, the second time with
//! twice as many calls: the difference is the cost of the calls, without start-up and exit. Those vary by
//! some thousand instructions: random seeds, addresses, the time at which a connection is refused.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::checkout::{Checkout, Counts};

/// The instructions of a run, enough that variations of start-up and exit are negligible.
const INSTRUCTIONS: u64 = 60_000_000;
/// Other compilers, and other processors through the C library's dispatch, change counts by up to a tenth.
const TOLERATED_TENTHS: u64 = 11;

/// The instructions of one kind of work: saved, and counted now.
struct Counted {
    work: String,
    kept: u64,
    now: u64,
}

/// Fails if a count is more than a tenth larger than the saved one.
pub(crate) fn check() -> Result<()> {
    let mut worse = 0;
    for (_, counted) in count_all()? {
        for one in counted {
            worse += usize::from(is_more(one.now, one.kept));
        }
    }
    ensure!(
        worse == 0,
        "{worse} of them take more instructions than before; if that is meant: ./dev instructions --write"
    );
    Ok(())
}

/// Saves the current counts.
pub(crate) fn write() -> Result<()> {
    for (mut counts, counted) in count_all()? {
        counts.works = counted.into_iter().map(|one| (one.work, one.now)).collect();
        counts.write()?;
    }
    Ok(())
}

/// Counts each kind of work of each bench, and prints the counts.
fn count_all() -> Result<Vec<(Counts, Vec<Counted>)>> {
    let checkout = Checkout::own()?;
    let mut all = Vec::new();
    for counts in checkout.counts()? {
        let program = checkout.build_bench(&counts.bench)?;
        let mut counted = Vec::new();
        for (work, kept) in &counts.works {
            let one = Counted { work: work.clone(), kept: *kept, now: count(&program, work, *kept)? };
            println!("{work:24} {:>8} instructions, {kept:>8} before{}", one.now, one.remark());
            counted.push(one);
        }
        all.push((counts, counted));
    }
    Ok(all)
}

impl Counted {
    fn remark(&self) -> &'static str {
        if is_more(self.now, self.kept) {
            "  TOO MANY"
        } else if is_more(self.kept, self.now) {
            "  fewer: keep it with --write"
        } else {
            ""
        }
    }
}

fn is_more(count: u64, than: u64) -> bool {
    count * 10 > than * TOLERATED_TENTHS
}

/// Counts the instructions per call of the work; `about` is an estimate.
pub(crate) fn count(program: &Path, work: &str, about: u64) -> Result<u64> {
    let calls = (INSTRUCTIONS / about.max(1)).clamp(1_000, 1_000_000);
    let (once, twice) = (collected(program, work, calls)?, collected(program, work, 2 * calls)?);
    ensure!(twice >= once, "{work}: {once} instructions for {calls} calls, {twice} for twice as many");
    Ok((twice - once + calls / 2) / calls)
}

fn collected(program: &Path, work: &str, calls: u64) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--instructions", work, &calls.to_string()])
        .output()
        .context("running valgrind; it is in the package of that name")?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.split("Collected : ").nth(1).and_then(|rest| rest.split_whitespace().next());
    ensure!(output.status.success(), "{work} cannot be counted: {text}");
    collected.with_context(|| text.clone().into_owned())?.parse().with_context(|| text.into_owned())
}
