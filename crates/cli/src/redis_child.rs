//! A private redis-server for `pricing up`: started on a Unix socket, restarted if it ends, and stopped with
//! this process.
//!
//! It must not outlive this process, however this process ends. So beside each server runs a *guard*, a shell
//! that reads from a pipe whose other end only this process holds. When that end closes, on purpose or
//! because this process was killed, the guard sends the server SIGTERM. If the guard is killed too, the
//! server is left over; the next start on the same directory finds it by its address file and stops it first,
//! as two servers must not write one append-only file.
//!
//! A server that reads a large file does not hold up a start: [`PrivateRedis::start`] returns while it loads.

mod leftover;
mod log_file;
mod server;
mod socket;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use pricing_core::backoff::Backoff;
use reqwest::Url;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::leftover::end_leftover;
use self::log_file::LogFile;
use self::server::{Launch, Server};
use self::socket::Socket;
use crate::private_files;

/// How long a start waits for a server that does not answer at all.
const START_PATIENCE: Duration = Duration::from_secs(3);
/// How long it waits for one that says that it reads its file: a short file is read by then.
const LOADING_PATIENCE: Duration = Duration::from_secs(1);
/// How long the server may take to end before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The pause before the first restart; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Once a server has run for this long, the back-off is reset.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// The directory of the append-only files, and that file in versions of Redis before 7.
const DATA_NAMES: [&str; 2] = ["appendonlydir", "appendonly.aof"];

/// What a server has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// It does not answer yet.
    Started,
    /// It answers that it reads its file.
    Loading,
    /// It has answered commands.
    Answers,
}

/// A server that is kept running until [`stop`](Self::stop).
#[derive(Debug)]
pub(crate) struct PrivateRedis {
    url: String,
    /// Removed after the server has ended.
    socket: Socket,
    progress: watch::Receiver<Progress>,
    stop: CancellationToken,
    /// Ends with an error if the first server never answered.
    supervisor: JoinHandle<Result<()>>,
}

impl PrivateRedis {
    /// Starts a server that keeps its data in this directory and stores at most so many megabytes in memory.
    /// Returns when it answers, or when it is clear that it needs longer to read its file.
    pub(crate) async fn start(directory: &Path, memory_mb: u32) -> Result<Self> {
        let create = || format!("cannot use {} for Redis", directory.display());
        private_files::create_directory(directory).with_context(create)?;
        let directory = directory.canonicalize().with_context(create)?;
        end_leftover(&directory).await?;
        let log = LogFile::open(&directory).with_context(create)?;
        let socket = Socket::choose(&directory)?;
        let url = Url::from_file_path(socket.path())
            .map_err(|()| anyhow!("{} is not an absolute path", socket.path().display()))?;
        let url = format!("redis+unix://{}", url.path());
        let launch = Launch { directory, socket: socket.path().to_owned(), memory_mb, log };
        let server = launch.start()?;
        let stop = CancellationToken::new();
        let (report, progress) = watch::channel(Progress::Started);
        let supervisor = tokio::spawn(supervise(server, launch, report, stop.clone()));
        let mut started = Self { url, socket, progress, stop, supervisor };
        started.settle().await?;
        Ok(started)
    }

    /// Waits for the first server for a while; fails if it ends.
    async fn settle(&mut self) -> Result<()> {
        let mut progress = self.progress.clone();
        let settled = async {
            let _ = timeout(START_PATIENCE, progress.wait_for(|seen| *seen != Progress::Started)).await;
            let _ = timeout(LOADING_PATIENCE, async {
                if *progress.borrow() == Progress::Loading {
                    let _ = progress.wait_for(|seen| *seen == Progress::Answers).await;
                }
            })
            .await;
        };
        tokio::select! {
            failure = self.failed() => Err(failure),
            () = settled => Ok(()),
        }
    }

    /// The URL of the server, which stays the same after a restart.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Whether the first server has not answered a command yet.
    pub(crate) fn is_starting(&self) -> bool {
        *self.progress.borrow() != Progress::Answers
    }

    /// A future that ends when the first server has answered a command; it never does if that has ended.
    pub(crate) fn answering(&self) -> impl Future<Output = ()> + use<> {
        let mut progress = self.progress.clone();
        async move {
            if progress.wait_for(|seen| *seen == Progress::Answers).await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Waits until the first server ends without having answered: it cannot read its file, for example.
    pub(crate) async fn failed(&mut self) -> Error {
        match (&mut self.supervisor).await {
            Ok(Err(failure)) => failure,
            Ok(Ok(())) => anyhow!("redis-server was stopped"),
            Err(panicked) => panicked.into(),
        }
    }

    /// Stops the server, and waits until it has ended.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        if !self.supervisor.is_finished() {
            let _ = self.supervisor.await;
        }
        self.socket.remove();
    }
}

/// Whether a server has kept data in this directory.
pub(crate) fn has_data(directory: &Path) -> bool {
    DATA_NAMES.iter().any(|name| directory.join(name).exists())
}

/// The size of the file that a server in this directory reads when it starts, in bytes.
pub(crate) fn data_bytes(directory: &Path) -> u64 {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |data| data.len());
    let [folder, file] = DATA_NAMES.map(|name| directory.join(name));
    let parts = std::fs::read_dir(folder).into_iter().flatten().flatten();
    parts.map(|part| size(&part.path())).sum::<u64>() + size(&file)
}

/// Restarts the server whenever it ends, until shutdown. Fails if the first one ends before it answers.
async fn supervise(
    mut server: Server,
    launch: Launch,
    report: watch::Sender<Progress>,
    stop: CancellationToken,
) -> Result<()> {
    tokio::select! {
        answering = launch.until_answering(&mut server, &report) => answering?,
        () = stop.cancelled() => {
            server.end().await;
            return Ok(());
        }
    }
    let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
    loop {
        let ended = tokio::select! {
            ended = server.ended() => ended,
            () = stop.cancelled() => {
                server.end().await;
                return Ok(());
            }
        };
        let ended = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
        let log = launch.log.last_lines();
        tracing::warn!(log, "the private redis-server ended ({ended}), starting it again");
        if server.started.elapsed() > STABLE_AFTER {
            backoff.reset();
        }
        server = loop {
            tokio::select! {
                () = sleep(backoff.pause()) => {}
                () = stop.cancelled() => return Ok(()),
            }
            match launch.start() {
                Ok(server) => break server,
                Err(error) => tracing::error!("the private redis-server does not start: {error:#}"),
            }
        };
    }
}
