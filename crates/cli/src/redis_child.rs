//! A private redis-server for `pricing up`: started on a free loopback port, kept running, ended with us.
//!
//! It must not outlive this process, however that ends. So beside each server runs a *guard*, a shell that
//! reads from a pipe whose other end only this process holds. When that end closes, because we close it or
//! because we were killed, the guard sends the server SIGTERM. Should both the guard and we be killed, the
//! server is left over; the next start on the same directory finds it by its port file and ends it first, as
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

/// What the server is called; some systems have its successor only.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
/// Waits until its standard input is closed, then ends the process with the id it was given.
const GUARD: &str = r#"read -r _; kill -TERM "$0""#;
/// Holds the port while a server runs.
const PORT_FILE: &str = "port";
/// What the server writes.
const LOG_FILE: &str = "redis.log";
/// How much of the log an error repeats.
const QUOTED_LINES: usize = 3;
/// What the log says when another process was faster to take the free port.
const PORT_TAKEN: &str = "Address already in use";
/// Free ports that are tried.
const MAX_PORTS: usize = 3;
/// How long the server may take to read its append-only file.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// How long the server may take to end before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The pause before the first restart; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// A server that ran this long had a good start: back-off begins again.
const GOOD_START: Duration = Duration::from_secs(60);

/// A server that is kept running until [`stop`](Self::stop).
#[derive(Debug)]
pub(crate) struct PrivateRedis {
    place: DataPaths,
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
        let (place, server) = start_on_free_port(directory).await?;
        let stop = CancellationToken::new();
        let supervisor = tokio::spawn(supervise(server, place.clone(), stop.clone()));
        Ok(Self { place, stop, supervisor })
    }

    /// Where it answers; the same after a restart.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.place.port)
    }

    /// Ends the server and waits until it is gone.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let _ = self.supervisor.await;
        let _ = std::fs::remove_file(self.place.directory.join(PORT_FILE));
    }
}

async fn start_on_free_port(directory: PathBuf) -> Result<(DataPaths, Server)> {
    let mut ports_tried = 0;
    loop {
        let port = TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?.port();
        let place = DataPaths { directory: directory.clone(), port };
        ports_tried += 1;
        match place.start().await {
            Ok(server) => return Ok((place, server)),
            Err(error) if ports_tried < MAX_PORTS && error.to_string().contains(PORT_TAKEN) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Restarts the server whenever it ends, until shutdown.
async fn supervise(mut server: Server, place: DataPaths, stop: CancellationToken) {
    let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
    loop {
        let ended = tokio::select! {
            ended = server.ended() => ended,
            () = stop.cancelled() => return server.end().await,
        };
        let ended = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
        tracing::warn!("the private redis-server ended ({ended}), starting it again");
        if server.started.elapsed() > GOOD_START {
            backoff.reset();
        }
        server = loop {
            tokio::select! {
                () = sleep(backoff.pause()) => {}
                () = stop.cancelled() => return,
            }
            match place.start().await {
                Ok(server) => break server,
                Err(error) => tracing::error!("the private redis-server does not start: {error:#}"),
            }
        };
    }
}

/// Where a server keeps its data and answers.
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
            // By default from 64 MB on: a recalculation of 300,000 products had three processes that rewrote
            // it.
            .args(["--auto-aof-rewrite-min-size", "512mb"])
            .args(["--maxmemory-policy", "noeviction"])
            // Relative: the server would split a path with spaces.
            .args(["--dir", "./"])
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for us: the services end first.
            .process_group(0);
        Ok(command)
    }

    async fn answering(&self, server: &mut Server) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < START_TIMEOUT {
            if let Some(status) = server.process.try_wait()? {
                bail!("redis-server ended at once ({status}): {}", self.end_of_log());
            }
            // While it reads its file it answers -LOADING; a stranger on the port serves another directory.
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

/// A running server and its guard. Dropping it ends the server, without waiting for that.
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

    /// Waits until the server ends by itself.
    async fn ended(&mut self) -> io::Result<ExitStatus> {
        let status = self.process.wait().await;
        // Before the system gives the id to another process.
        let _ = self.guard.start_kill();
        status
    }

    /// Ends the server: through the guard, or if that does not help, by force.
    async fn end(mut self) {
        drop(self.guard.stdin.take());
        if timeout(END_TIMEOUT, self.process.wait()).await.is_err() {
            let _ = self.process.kill().await;
        }
        let _ = self.guard.kill().await;
    }
}
