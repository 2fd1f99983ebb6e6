//! A private redis-server for `pricing up`: started on a free loopback port, restarted if it ends, and
//! stopped with this process.
//!
//! It must not outlive this process, however this process ends. So beside each server runs a *guard*, a shell
//! that reads from a pipe whose other end only this process holds. When that end closes, on purpose or
//! because this process was killed, the guard sends the server SIGTERM. If the guard is killed too, the
//! server is left over; the next start on the same directory finds it by its port file and stops it first, as
//! two servers must not write one append-only file.

mod leftover;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use pricing_core::backoff::Backoff;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::leftover::{ask, end_leftover, serves};

/// Names of the server program; some systems have its successor only.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
/// Waits until its standard input is closed, then ends the process with the id it was given.
const GUARD: &str = r#"read -r _; kill -TERM "$0""#;
/// Holds the port while a server runs.
const PORT_FILE: &str = "port";
/// The log of the server.
const LOG_FILE: &str = "redis.log";
/// Lines of the log that an error quotes.
const QUOTED_LINES: usize = 3;
/// The message in the log if another process took the free port first.
const PORT_TAKEN: &str = "Address already in use";
/// The number of free ports to try.
const MAX_PORTS: usize = 3;
/// How long the server may take to read its append-only file.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// How long the server may take to end before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The pause before the first restart; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Once a server has run for this long, the back-off is reset.
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// A server that is kept running until [`stop`](Self::stop).
#[derive(Debug)]
pub(crate) struct PrivateRedis {
    paths: DataPaths,
    stop: CancellationToken,
    supervisor: JoinHandle<()>,
}

impl PrivateRedis {
    /// Starts a server that keeps its data in this directory; returns when it answers.
    pub(crate) async fn start(directory: &Path) -> Result<Self> {
        let create = || format!("cannot use {} for Redis", directory.display());
        std::fs::create_dir_all(directory).with_context(create)?;
        let directory = directory.canonicalize().with_context(create)?;
        end_leftover(&directory).await?;
        std::fs::write(directory.join(LOG_FILE), "").with_context(create)?;
        let (paths, server) = start_on_free_port(directory).await?;
        let stop = CancellationToken::new();
        let supervisor = tokio::spawn(supervise(server, paths.clone(), stop.clone()));
        Ok(Self { paths, stop, supervisor })
    }

    /// The URL of the server, which stays the same after a restart.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.paths.port)
    }

    /// Stops the server, and waits until it has ended.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let _ = self.supervisor.await;
        let _ = std::fs::remove_file(self.paths.directory.join(PORT_FILE));
    }
}

async fn start_on_free_port(directory: PathBuf) -> Result<(DataPaths, Server)> {
    let mut ports_tried = 0;
    loop {
        let port = TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?.port();
        let paths = DataPaths { directory: directory.clone(), port };
        ports_tried += 1;
        match paths.start().await {
            Ok(server) => return Ok((paths, server)),
            Err(error) if ports_tried < MAX_PORTS && error.to_string().contains(PORT_TAKEN) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Restarts the server whenever it ends, until shutdown.
async fn supervise(mut server: Server, paths: DataPaths, stop: CancellationToken) {
    let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
    loop {
        let ended = tokio::select! {
            ended = server.ended() => ended,
            () = stop.cancelled() => return server.end().await,
        };
        let ended = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
        tracing::warn!("the private redis-server ended ({ended}), starting it again");
        if server.started.elapsed() > STABLE_AFTER {
            backoff.reset();
        }
        server = loop {
            tokio::select! {
                () = sleep(backoff.pause()) => {}
                () = stop.cancelled() => return,
            }
            match paths.start().await {
                Ok(server) => break server,
                Err(error) => tracing::error!("the private redis-server does not start: {error:#}"),
            }
        };
    }
}

/// The data directory of a server, and its port.
#[derive(Debug, Clone)]
struct DataPaths {
    /// Absolute, without symbolic links.
    directory: PathBuf,
    port: u16,
}

impl DataPaths {
    /// Starts a server and waits until it answers.
    async fn start(&self) -> Result<Server> {
        std::fs::write(self.directory.join(PORT_FILE), self.port.to_string())
            .context("cannot write Redis's port file")?;
        let mut server = self.spawn()?;
        match self.answering(&mut server).await {
            Ok(()) => Ok(server),
            Err(error) => {
                server.end().await;
                Err(error)
            }
        }
    }

    fn spawn(&self) -> Result<Server> {
        for program in PROGRAMS {
            match self.command(program)?.spawn() {
                Ok(process) => return Server::guarded(process),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("cannot start {program}")),
            }
        }
        bail!("redis-server is not installed: install it, or name a running one with --redis-url")
    }

    fn command(&self, program: &str) -> Result<Command> {
        let mut log = std::fs::OpenOptions::new();
        let log = log.append(true).open(self.directory.join(LOG_FILE))?;
        let mut command = Command::new(program);
        command
            .args(["--port", &self.port.to_string()])
            .args(["--bind", "127.0.0.1", "--protected-mode", "yes"])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""])
            // The default of 64 MB caused three rewrites during a recalculation of 300,000 products.
            .args(["--auto-aof-rewrite-min-size", "512mb"])
            .args(["--maxmemory-policy", "noeviction"])
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

    async fn answering(&self, server: &mut Server) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < START_TIMEOUT {
            if let Some(status) = server.process.try_wait()? {
                bail!("redis-server ended at once ({status}): {}", self.end_of_log());
            }
            // While loading its file it answers -LOADING; a foreign server on the port has another directory.
            let ready = ask(self.port, "PING").await.is_ok_and(|answer| answer.starts_with("+PONG"));
            if ready && serves(self.port, &self.directory).await.unwrap_or(false) {
                return Ok(());
            }
            sleep(POLL_INTERVAL).await;
        }
        let seconds = START_TIMEOUT.as_secs();
        bail!("redis-server is not ready after {seconds} s: {}", self.end_of_log())
    }

    fn end_of_log(&self) -> String {
        let log = std::fs::read_to_string(self.directory.join(LOG_FILE)).unwrap_or_default();
        let mut lines: Vec<&str> = log.lines().rev().take(QUOTED_LINES).collect();
        lines.reverse();
        lines.join("; ")
    }
}

/// A running server and its guard. Dropping it stops the server without waiting for its end.
#[derive(Debug)]
struct Server {
    process: Child,
    guard: Child,
    started: Instant,
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
    async fn ended(&mut self) -> io::Result<ExitStatus> {
        let status = self.process.wait().await;
        // The guard must not signal another process that reuses the id.
        let _ = self.guard.start_kill();
        status
    }

    /// Stops the server through the guard, and kills it after a timeout.
    async fn end(mut self) {
        drop(self.guard.stdin.take());
        if timeout(END_TIMEOUT, self.process.wait()).await.is_err() {
            let _ = self.process.kill().await;
        }
        let _ = self.guard.kill().await;
    }
}
