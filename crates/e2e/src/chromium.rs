//! A headless Chromium that shows one page.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::child::SupervisedChild;
use crate::programs::find_program;
use crate::scratch_directory::ScratchDirectory;
use crate::tied_command::{Signal, tied_command};

/// No sandbox, as tests may run as root; no network requests other than the page's.
const OPTIONS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A `chromium` with a private profile. Killed on drop.
// Fields are dropped in order: the process before its directory.
#[derive(Debug)]
pub struct Chromium {
    process: SupervisedChild,
    _directory: ScratchDirectory,
}

impl Chromium {
    /// Opens a page, which must report its results itself. `options` are added to those that every test
    /// needs.
    pub fn open(url: &str, options: &[&str]) -> Result<Self> {
        // Fedora uses the longer name.
        let program =
            find_program("chromium-browser", "chromium").or_else(|_| find_program("chromium", "chromium"))?;
        let directory = ScratchDirectory::new("chromium")?;
        let mut command = tied_command(&program, Signal::Kill, None)?;
        command.args(OPTIONS).args(options);
        command.arg(format!("--user-data-dir={}", directory.path().join("profile").display())).arg(url);
        // For files outside its profile.
        command.env("HOME", directory.path());
        let process = SupervisedChild::spawn("chromium", command, &directory.path().join("output.log"))?;
        Ok(Self { process, _directory: directory })
    }

    /// Returns the DOM of a page after its scripts have run.
    pub async fn dump(url: &str, patience: Duration) -> Result<String> {
        let mut this = Self::open(url, &["--dump-dom", "--virtual-time-budget=20000"])?;
        let status = this.process.wait(patience).await?;
        ensure!(status.success(), "chromium ended with {status}: {}", this.output()?);
        this.output()
    }

    /// Its output so far.
    pub fn output(&self) -> Result<String> {
        self.process.output()
    }
}
