//! Checkpoints of the write-ahead log, concurrent with writes.
//!
//! By default SQLite checkpoints in the commit that makes the log too long, and that one commit then takes as
//! long as the disk needs for megabytes of pages, with all other writers queued behind it. Here a connection
//! of its own moves committed pages to the file little by little; the writer goes on meanwhile, and
//! checkpoints itself only if this falls far behind. (<https://www.sqlite.org/wal.html>,
//! "Application-Initiated Checkpoints".)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::query_as;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// While there are writes, the pause before the next checkpoint is so many times as long as the last one
/// took. So each moves little, and a Redis whose file is on the same disk does not wait long for its own sync
/// behind it.
const PAUSE_PER_MOVE: u32 = 4;
/// Bounds of these pauses.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// Pages in the log from which on it should be restarted (64 MB).
const LONG_LOG: i64 = 8_000;
/// Moves as much as possible while others read and write. Returns whether another checkpoint was running,
/// pages in the log, pages moved.
pub(super) const MOVE: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// The checkpoint task of one file; it ends with its last clone.
#[derive(Debug, Clone)]
pub(super) struct Checkpoints {
    written: Arc<Notify>,
    /// Whether the log is long and nearly all of it is moved.
    is_long: Arc<AtomicBool>,
    pool: SqlitePool,
    _moving: Arc<AbortOnDropHandle<()>>,
}

impl Checkpoints {
    /// Starts the task; the connection is opened on the first write.
    pub(super) fn start(file: SqliteConnectOptions) -> Self {
        let options = SqlitePoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
        let pool = options.test_before_acquire(false).connect_lazy_with(file);
        let (written, is_long) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let moving = tokio::spawn(move_log(Arc::clone(&written), Arc::clone(&is_long), pool.clone()));
        Self { written, is_long, pool, _moving: Arc::new(AbortOnDropHandle::new(moving)) }
    }

    /// Wakes the task: something is being written.
    pub(super) fn expect_writes(&self) {
        self.written.notify_one();
    }

    /// Whether the writer should move the rest of the log before it goes on. SQLite restarts the log once all
    /// of it is moved; under steady writes only the writer can achieve that, and what is left for it is
    /// little.
    pub(super) fn should_move_rest(&self) -> bool {
        self.is_long.load(Ordering::Relaxed) && self.is_long.swap(false, Ordering::Relaxed)
    }

    /// Lets a running checkpoint finish, and starts no other.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

/// A commit later than the last checkpoint stays in the log until the next write, or until the file is
/// closed.
async fn move_log(written: Arc<Notify>, is_long: Arc<AtomicBool>, pool: SqlitePool) {
    let mut failing = false;
    let mut pause = LONGEST_PAUSE;
    while !pool.is_closed() {
        written.notified().await;
        tokio::time::sleep(pause).await;
        let began = Instant::now();
        let mut moved: Result<(i64, i64, i64), sqlx::Error> = query_as(MOVE).fetch_one(&pool).await;
        if matches!(moved, Ok((_, pages, _)) if pages > LONG_LOG) {
            // Once more, as much was written meanwhile.
            moved = query_as(MOVE).fetch_one(&pool).await;
            is_long.store(true, Ordering::Relaxed);
        }
        if let (Err(error), false) = (&moved, failing || pool.is_closed()) {
            tracing::warn!(%error, "could not checkpoint the database's write-ahead log; it grows for now");
        }
        failing = moved.is_err();
        pause = if failing {
            LONGEST_PAUSE
        } else {
            (began.elapsed() * PAUSE_PER_MOVE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
        };
    }
}
