//! The commands, one per file: arguments, work and output.

use anyhow::Context;

pub(crate) mod approve;
pub(crate) mod backup;
mod database;
pub(crate) mod doctor;
pub(crate) mod explain;
mod held_price;
pub(crate) mod history;
pub(crate) mod import;
pub(crate) mod jobs;
pub(crate) mod policy;
mod postgres_programs;
pub(crate) mod quote;
pub(crate) mod recalculate;
pub(crate) mod restore;
pub(crate) mod simulate;
pub(crate) mod up;
pub(crate) mod watch;

/// The name of the person who decides, from the flag or the environment.
fn name_of(name: Option<String>, flag: &str) -> anyhow::Result<String> {
    name.filter(|name| !name.trim().is_empty())
        .with_context(|| format!("USER is not set: say who decides with {flag} NAME"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_name_is_asked_for_by_its_flag() {
        assert_eq!(name_of(Some("zoe".to_owned()), "--author").ok().as_deref(), Some("zoe"));
        for missing in [None, Some(" ".to_owned())] {
            let problem = name_of(missing, "--author").err().map(|error| error.to_string());
            assert!(problem.is_some_and(|problem| problem.contains("--author NAME")));
        }
    }
}
