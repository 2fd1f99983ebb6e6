//! A child process that dies with the test process, no matter how that ends.
//!
//! A destructor covers the normal end of a test, but neither a killed test process nor a server in a
//! `static`, which is never dropped. For those, the kernel sends a signal (see `tied_command`) when the
//! parent dies. "Parent" means the *thread* that started the child, and threads of a runtime and of the test
//! runner are short-lived, so each child is started by a guardian thread that lives as long as the child's
//! owner.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};

use crate::tied_command::Signal;

const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// The part of a child's output that an error quotes.
const QUOTED_OUTPUT_BYTES: usize = 4096;

/// A running child and the file that holds its output. Killed and reaped on drop.
#[derive(Debug)]
pub(crate) struct SupervisedChild {
    name: String,
    process: Child,
    output_path: PathBuf,
    /// Nothing is sent on it: the guardian thread ends when it is dropped.
    _guardian: mpsc::Sender<()>,
}

impl SupervisedChild {
    /// Starts a command created by [`tied_command`](crate::tied_command::tied_command). Its output is
    /// appended to the file at `output_path`.
    pub(crate) fn spawn(name: &str, mut command: Command, output_path: &Path) -> Result<Self> {
        let output = open_output(output_path)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let (process, guardian) =
            spawn_from_guardian(command).with_context(|| format!("{name} cannot be started"))?;
        Ok(Self { name: name.to_owned(), process, output_path: output_path.to_owned(), _guardian: guardian })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal, unless the child has ended: its id may belong to another process by now.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!(self.with_output(anyhow!("{} has ended already: {status}", self.name)));
        }
        // The shell's built-in `kill`: not every system has the program.
        let mut kill = Command::new("sh");
        kill.args(["-c", r#"kill -s "$0" "$1""#, signal.name(), &self.id().to_string()]);
        ensure!(kill.status()?.success(), "signal {signal:?} could not be sent to {}", self.name);
        Ok(())
    }

    /// Sends SIGKILL and waits for the end of the process. Does nothing if it has already ended.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Waits for the child to exit.
    pub(crate) async fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        match tokio::time::timeout(patience, self.exit()).await {
            Ok(status) => status,
            Err(_) => Err(self.with_output(anyhow!("{} did not end within {patience:?}", self.name))),
        }
    }

    /// Like [`wait`](Self::wait), for destructors. Returns whether the child ended in time.
    pub(crate) fn wait_blocking(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return true;
            }
            pause_thread(POLL_INTERVAL);
        }
        false
    }

    /// Awaits `ready`, but fails at once if the child ends before. An error quotes the child's output.
    pub(crate) async fn until_ready<T>(&mut self, ready: impl Future<Output = Result<T>>) -> Result<T> {
        let outcome = tokio::select! {
            status = self.exit() => status.and_then(|status| bail!("ended before it was ready: {status}")),
            outcome = ready => outcome,
        };
        outcome.map_err(|failure| self.with_output(failure))
    }

    /// The child's output so far, of both streams.
    pub(crate) fn output(&self) -> Result<String> {
        let bytes = fs::read(&self.output_path)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn exit(&mut self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn with_output(&self, failure: Error) -> Error {
        let output = self.output().unwrap_or_else(|unreadable| format!("(unreadable: {unreadable})"));
        let start = output.floor_char_boundary(output.len().saturating_sub(QUOTED_OUTPUT_BYTES));
        let quoted = output.get(start..).unwrap_or_default();
        failure.context(format!("{} failed; the end of its output:\n{quoted}", self.name))
    }
}

impl Drop for SupervisedChild {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn open_output(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("{} cannot be written", path.display()))
}

/// Starts the command on a new thread that lives until the returned sender is dropped.
fn spawn_from_guardian(mut command: Command) -> io::Result<(Child, mpsc::Sender<()>)> {
    let (spawned_sender, spawned) = mpsc::sync_channel(1);
    let (guardian, dismissed) = mpsc::channel::<()>();
    thread::Builder::new().name("child-guardian".to_owned()).spawn(move || {
        let started = spawned_sender.send(command.spawn()).is_ok();
        if started {
            let _ = dismissed.recv();
        }
    })?;
    let process = spawned.recv().map_err(io::Error::other)??;
    Ok((process, guardian))
}

#[expect(clippy::disallowed_methods, reason = "a destructor has no runtime to sleep on")]
fn pause_thread(duration: Duration) {
    thread::sleep(duration);
}
