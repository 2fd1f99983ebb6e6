//! Checks backup and restore with deploy/compose-backup.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rust_decimal::Decimal;

use super::containers::{PATIENCE, Stack, end_of};
use super::events::{known_price, publish};
use crate::pause::eventually;

const PRODUCT: &str = "P-105";
const BEFORE: Decimal = Decimal::from_parts(111_111, 0, 0, false, 2);
const AFTER: Decimal = Decimal::from_parts(222_222, 0, 0, false, 2);
const RESTORED: Decimal = Decimal::from_parts(333_333, 0, 0, false, 2);

/// Checks that the restored stack has an event from before the backup but not one from after it, and applies
/// the next one. Restoring a truncated backup changes nothing.
pub(super) fn backed_up(stack: &Stack) -> Result<String> {
    learn(stack, "before", BEFORE)?;
    let directory = tempfile::tempdir()?;
    must(&run(stack, "save", directory.path())?)?;
    let sizes = sizes(directory.path())?;
    learn(stack, "after", AFTER)?;
    for cut_off in sizes.keys() {
        refused_in_half(stack, cut_off, directory.path())?;
    }
    ensure!(known_price(stack, PRODUCT)? == Some(AFTER), "a backup that is cut off was restored");
    let began = Instant::now();
    must(&run(stack, "restore", directory.path())?)?;
    let took = began.elapsed();
    until_known(stack, "what was saved is back", BEFORE)?;
    learn(stack, "restored", RESTORED)?;
    let shown: Vec<_> =
        sizes.iter().map(|(name, bytes)| format!("{} {} MB", name.display(), megabytes(*bytes))).collect();
    Ok(format!(
        "saved {}; cut off, neither was restored; restored in {:.1} s, and the next event was applied",
        shown.join(", "),
        took.as_secs_f64()
    ))
}

fn learn(stack: &Stack, event: &str, price: Decimal) -> Result<()> {
    publish(&format!("backup-{event}"), PRODUCT, price)?;
    until_known(stack, &format!("{event} is applied"), price)
}

fn until_known(stack: &Stack, what: &str, price: Decimal) -> Result<()> {
    eventually(what, PATIENCE, || Ok((known_price(stack, PRODUCT)? == Some(price)).then_some(())))?;
    Ok(())
}

/// Checks that half of a backup file is refused, and that every service keeps running.
fn refused_in_half(stack: &Stack, cut_off: &OsString, directory: &Path) -> Result<()> {
    let shown = cut_off.display();
    let half = tempfile::tempdir()?;
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let content = fs::read(directory.join(&name))?;
        let kept = if name == *cut_off { content.len() / 2 } else { content.len() };
        fs::write(half.path().join(&name), content.get(..kept).unwrap_or_default())?;
    }
    let refused = !run(stack, "restore", half.path())?.status.success();
    ensure!(refused, "half of {shown} was restored");
    ensure!(stack.all_healthy()?.is_some(), "half of {shown} has stopped a service");
    Ok(())
}

fn run(stack: &Stack, action: &str, directory: &Path) -> Result<Output> {
    let mut command = stack.checkout.command("deploy/compose-backup", &[action]);
    command.arg(directory).args(&stack.compose).output().context("running deploy/compose-backup")
}

fn must(output: &Output) -> Result<()> {
    ensure!(output.status.success(), "deploy/compose-backup: {}", end_of(&output.stderr));
    Ok(())
}

/// Returns the files of a directory, with their lengths.
fn sizes(directory: &Path) -> Result<BTreeMap<OsString, u64>> {
    let entries = fs::read_dir(directory)?.map(|entry| {
        let entry = entry?;
        Ok((entry.file_name(), entry.metadata()?.len()))
    });
    entries.collect()
}

/// Formats a size in megabytes with one decimal place.
fn megabytes(bytes: u64) -> String {
    let tenths = (bytes + 50_000) / 100_000;
    format!("{}.{}", tenths / 10, tenths % 10)
}
