//! A temporary directory that is removed even if the test process is killed.
//!
//! A destructor does not run in a killed process, nor for a `static`, and a database cluster is 40 MB. So a
//! janitor process removes the directory: a shell that reads from a pipe whose other end only this process
//! holds. The pipe closes when the directory is dropped or the process ends, whichever comes first.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// Servers that are dying may still be writing, so removal is retried for five seconds.
const JANITOR: &str = r#"
    cat
    attempts=0
    until rm -rf -- "$1" || [ "$attempts" -ge 50 ]; do
        attempts=$((attempts + 1))
        sleep 0.1
    done"#;

/// A private directory of this process; the module describes when it is removed.
#[derive(Debug)]
pub(crate) struct ScratchDirectory {
    path: PathBuf,
    janitor: Child,
}

impl ScratchDirectory {
    /// Creates an empty directory with a random name that begins with `pricing-{purpose}-`.
    pub(crate) fn new(purpose: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix(&format!("pricing-{purpose}-")).tempdir()?;
        let janitor = Command::new("sh")
            .args(["-c", JANITOR, "janitor"])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // In a separate process group, so that a Ctrl-C that ends the tests does not end it, too.
            .process_group(0)
            .spawn()
            .context("sh, which removes temporary directories, cannot be started")?;
        Ok(Self { path: directory.keep(), janitor })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchDirectory {
    fn drop(&mut self) {
        // `wait` closes the pipe first, which is what the janitor waits for.
        let _ = self.janitor.wait();
    }
}
