//! Commands whose process receives a signal when the test process dies: `setpriv --pdeathsig`, which executes
//! a shell and then the program, so that the process id stays the same.
//!
//! The shell closes a gap: if the test process dies before the signal is requested, it is never sent.
//!
//! Only Linux has this signal. On other systems a killed test process leaves its servers running.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::Result;

use crate::account::Account;
use crate::programs::find_program;

/// Runs its arguments if its parent is still the process with the given id.
const UNLESS_ORPHANED: &str = r#"[ "$PPID" = "$0" ] && exec "$@""#;

/// The signals that the harness sends, by their names in `kill` and `setpriv`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Kill,
    Terminate,
    Quit,
    Stop,
    Continue,
}

impl Signal {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Terminate => "TERM",
            Self::Quit => "QUIT",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }
}

/// Creates a command for `program` that receives `death_signal` when this process dies, and runs under
/// `account` if given. Arguments and environment are added as usual.
pub(crate) fn tied_command(
    program: impl AsRef<OsStr>,
    death_signal: Signal,
    account: Option<Account>,
) -> Result<Command> {
    if !cfg!(target_os = "linux") {
        return Ok(Command::new(program));
    }
    let mut command = Command::new(find_program("setpriv", "util-linux")?);
    command.args(["--pdeathsig", death_signal.name()]);
    if let Some(account) = account {
        command.arg(format!("--reuid={}", account.user_id));
        command.arg(format!("--regid={}", account.group_id));
        command.arg("--clear-groups");
    }
    command.args(["--", "sh", "-c", UNLESS_ORPHANED, &std::process::id().to_string()]);
    command.arg(program);
    Ok(command)
}
