//! The workspace's own programs, run as processes.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::child::SupervisedChild;
use crate::eventually::eventually;
use crate::http_client::HttpClient;
use crate::scratch_directory::ScratchDirectory;
use crate::tied_command::{Signal, tied_command};

const READY_PATIENCE: Duration = Duration::from_secs(180);

/// The only variables a service inherits: a developer's own configuration must not reach a test.
const INHERITED_VARIABLES: [&str; 5] = ["PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "RUST_BACKTRACE"];

/// A running service. Killed on drop.
// Fields are dropped in order: the process before its directory.
#[derive(Debug)]
pub struct ServiceProcess {
    process: SupervisedChild,
    _directory: ScratchDirectory,
}

impl ServiceProcess {
    /// Starts one of the workspace's programs by name, such as `pricing-api`, from the target directory that
    /// the test itself was built into. Apart from `environment`, it inherits few variables.
    pub fn start(binary_name: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Result<Self> {
        Self::start_program(&workspace_binary(binary_name)?, environment, arguments)
    }

    /// Like [`start`](Self::start), for a program at any path.
    pub fn start_program(program: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Result<Self> {
        let directory = ScratchDirectory::new("service")?;
        let mut command = tied_command(program, Signal::Kill, None)?;
        command.args(arguments).env_clear().envs(inherited_environment());
        // Traces are exported only if the test sets a collector.
        command.env("PRICING_OTLP_ENDPOINT", "off").envs(environment.iter().copied());
        command.current_dir(directory.path());
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
        let process = SupervisedChild::spawn(&name, command, &directory.path().join("output.log"))?;
        Ok(Self { process, _directory: directory })
    }

    /// Waits until `GET {base_url}/readyz` returns 200; fails at once if the process ends.
    pub async fn wait_until_ready(&mut self, base_url: &str) -> Result<()> {
        let client = HttpClient::new(base_url)?;
        let ready = eventually("GET /readyz says 200", READY_PATIENCE, async || {
            let reply = client.get("/readyz").await?;
            ensure!(reply.status.as_u16() == 200, "it says {}: {}", reply.status, reply.text);
            Ok(())
        });
        self.process.until_ready(ready).await
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns a memory field of the process: `VmRSS`, the current size, or `VmHWM`, the peak; in units of
    /// 1,024 bytes.
    pub fn memory_kb(&self, field: &str) -> Result<u64> {
        memory_kb(self.id(), field)
    }

    /// Sends SIGKILL, without a graceful shutdown.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Sends SIGSTOP: it does nothing until [`thaw`](Self::thaw).
    pub fn freeze(&mut self) -> Result<()> {
        self.process.signal(Signal::Stop)
    }

    /// Lets a frozen process continue.
    pub fn thaw(&mut self) -> Result<()> {
        self.process.signal(Signal::Continue)
    }

    /// Sends SIGTERM and waits for the graceful shutdown; an error if that takes longer than `patience`.
    pub async fn terminate(&mut self, patience: Duration) -> Result<ExitStatus> {
        self.process.signal(Signal::Terminate)?;
        self.process.wait(patience).await
    }

    /// Waits for the process to exit.
    pub async fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        self.process.wait(patience).await
    }

    /// Its output so far, of both streams.
    pub fn output(&self) -> Result<String> {
        self.process.output()
    }
}

/// [`ServiceProcess::memory_kb`] of the process with this id.
pub fn memory_kb(id: u32, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let value = value.with_context(|| format!("no {field}"))?;
    Ok(value.trim().trim_end_matches("kB").trim().parse()?)
}

/// Finds `target/{profile}/{name}`.
fn workspace_binary(name: &str) -> Result<PathBuf> {
    let directory = profile_directory()?;
    let binary = directory.join(name);
    ensure!(
        binary.is_file(),
        "{} does not exist: run `cargo build --workspace --bins` first",
        binary.display()
    );
    Ok(binary)
}

/// The target directory that the test itself was built into.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let directory = profile_directory()?;
    let target = directory.parent().with_context(|| format!("{} has no parent", directory.display()))?;
    Ok(target.to_owned())
}

/// `target/{profile}`; the test executable is in `deps` there.
fn profile_directory() -> Result<PathBuf> {
    let test_executable = env::current_exe()?;
    let directory = test_executable.ancestors().nth(2);
    let directory =
        directory.with_context(|| format!("{} has no target directory", test_executable.display()))?;
    Ok(directory.to_owned())
}

fn inherited_environment() -> impl Iterator<Item = (&'static str, std::ffi::OsString)> {
    INHERITED_VARIABLES.into_iter().filter_map(|name| env::var_os(name).map(|value| (name, value)))
}
