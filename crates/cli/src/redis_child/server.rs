//! One redis-server process: its options, the wait for its first answer, and its guard.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::leftover::Address;
use super::log_file::LogFile;
use super::{END_TIMEOUT, POLL_INTERVAL, Progress};

/// Names of the server program; some systems have its successor only.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
/// Runs its arguments with files that only this user can read. The process id stays the same.
const PRIVATE: &str = r#"umask 077; exec "$0" "$@""#;
/// Waits until its standard input is closed, then ends the process with the id it was given.
const GUARD: &str = r#"read -r _; kill -TERM "$0""#;

/// What a server is started with.
#[derive(Debug)]
pub(super) struct Launch {
    /// Absolute, without symbolic links.
    pub(super) directory: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) memory_mb: u32,
    pub(super) log: LogFile,
}

impl Launch {
    /// Starts a server, and does not wait until it answers.
    pub(super) fn start(&self) -> Result<Server> {
        let directories = env::var_os("PATH").unwrap_or_default();
        let found = PROGRAMS.iter().find(|program| {
            env::split_paths(&directories).any(|directory| directory.join(program).is_file())
        });
        let Some(program) = found else {
            bail!("redis-server is not installed: install it, or name a running one with --redis-url");
        };
        let process = self.command(program)?.spawn();
        Server::guarded(process.with_context(|| format!("cannot start {program}"))?)
    }

    fn command(&self, program: &str) -> Result<Command> {
        let log = self.log.append()?;
        let mut command = Command::new("sh");
        command
            .args(["-c", PRIVATE, program])
            .args(["--port", "0", "--unixsocketperm", "700", "--unixsocket"])
            .arg(&self.socket)
            .args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""])
            // The default of 64 MB caused three rewrites during a recalculation of 300,000 products.
            .args(["--auto-aof-rewrite-min-size", "512mb"])
            // Prices have an expiry and are evicted first; events, jobs and leases never are.
            .args(["--maxmemory", &format!("{}mb", self.memory_mb), "--maxmemory-policy", "volatile-lfu"])
            // Relative: the server would split a path with spaces.
            .args(["--dir", "./"])
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C does not reach the server's process group, as the services stop first.
            .process_group(0);
        Ok(command)
    }

    /// Waits until the server answers commands, however long it reads its file; fails if it ends before.
    pub(super) async fn until_answering(
        &self,
        server: &mut Server,
        report: &watch::Sender<Progress>,
    ) -> Result<()> {
        let address = Address::Socket(self.socket.clone());
        loop {
            if let Some(status) = server.process.try_wait()? {
                bail!("redis-server ended at once ({status}): {}", self.log.last_lines());
            }
            match address.ask("PING").await {
                Ok(answer) if answer.starts_with("+PONG") => {
                    report.send_replace(Progress::Answers);
                    return Ok(());
                }
                Ok(answer) if answer.starts_with("-LOADING") => {
                    report.send_if_modified(|seen| {
                        std::mem::replace(seen, Progress::Loading) != Progress::Loading
                    });
                }
                Ok(_) | Err(_) => {}
            }
            sleep(POLL_INTERVAL).await;
        }
    }
}

/// A running server and its guard. Dropping it stops the server without waiting for its end.
#[derive(Debug)]
pub(super) struct Server {
    process: Child,
    guard: Child,
    pub(super) started: Instant,
}

impl Server {
    fn guarded(mut process: Child) -> Result<Self> {
        let id = process.id().map(|id| id.to_string()).unwrap_or_default();
        let guard = Command::new("sh")
            .args(["-c", GUARD, &id])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let guard = guard.inspect_err(|_| {
            let _ = process.start_kill();
        });
        Ok(Self {
            process,
            guard: guard.context("cannot start sh to guard redis-server")?,
            started: Instant::now(),
        })
    }

    /// Waits until the server ends.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        let status = self.process.wait().await;
        // The guard must not signal another process that reuses the id.
        let _ = self.guard.start_kill();
        status
    }

    /// Stops the server through the guard, and kills it after a timeout.
    pub(super) async fn end(mut self) {
        drop(self.guard.stdin.take());
        if timeout(END_TIMEOUT, self.process.wait()).await.is_err() {
            let _ = self.process.kill().await;
        }
        let _ = self.guard.kill().await;
    }
}
