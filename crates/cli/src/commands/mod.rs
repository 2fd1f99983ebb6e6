//! The commands, one per file: arguments, work and output.

use anyhow::Context;

pub(crate) mod approve;
pub(crate) mod doctor;
pub(crate) mod explain;
mod held_price;
pub(crate) mod history;
pub(crate) mod import;
pub(crate) mod jobs;
pub(crate) mod policy;
pub(crate) mod quote;
pub(crate) mod recalculate;
pub(crate) mod simulate;
pub(crate) mod up;
pub(crate) mod watch;

/// The name of the person who decides, from the flag or the environment.
fn name_of(name: Option<String>, flag: &str) -> anyhow::Result<String> {
    name.filter(|name| !name.trim().is_empty())
        .with_context(|| format!("USER is not set: say who decides with {flag} NAME"))
}
