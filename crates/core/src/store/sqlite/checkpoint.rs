//! Checkpoints of the write-ahead log, concurrent with writes.
//!
//! By default SQLite checkpoints in the commit that makes the log too long, and that commit then takes as
//! long as the disk needs for megabytes of pages, with all other writers queued behind it. Here a separate
//! connection moves committed pages to the file in small steps while the writer continues; the writer
//! checkpoints only if this falls far behind. (<https://www.sqlite.org/wal.html>, "Application-Initiated
//! Checkpoints".)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::query_as;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Under writes, the ratio of the pause before the next checkpoint to the duration of the last one. So each
/// moves few pages, and a Redis on the same disk does not wait long for its own sync.
const PAUSE_PER_MOVE: u32 = 4;
/// Bounds of these pauses.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// The number of pages in the log at which it should be restarted (64 MB).
const LONG_LOG: i64 = 8_000;
/// Moves as many pages as possible without blocking readers or writers. Returns whether another checkpoint
/// was running, pages in the log, pages moved.
pub(super) const MOVE: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// The checkpoint task of one file; it ends with its last clone.
#[derive(Debug, Clone)]
pub(super) struct Checkpoints {
    written: Arc<Notify>,
    /// Whether the log is long and nearly all of it has been moved.
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

    /// Wakes the task before a write.
    pub(super) fn expect_writes(&self) {
        self.written.notify_one();
    }

    /// Whether the writer should move the rest of the log before it continues. SQLite restarts the log once
    /// all of it is moved; under steady writes only the writer can achieve that, and little is left to move.
    pub(super) fn should_move_rest(&self) -> bool {
        self.is_long.load(Ordering::Relaxed) && self.is_long.swap(false, Ordering::Relaxed)
    }

    /// Waits for a running checkpoint and starts no other.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

/// Runs the checkpoints. A commit after the last one stays in the log until the next write, or until the file
/// is closed.
async fn move_log(written: Arc<Notify>, is_long: Arc<AtomicBool>, pool: SqlitePool) {
    let mut failing = false;
    let mut pause = LONGEST_PAUSE;
    while !pool.is_closed() {
        written.notified().await;
        tokio::time::sleep(pause).await;
        let began = Instant::now();
        let mut moved: Result<(i64, i64, i64), sqlx::Error> = query_as(MOVE).fetch_one(&pool).await;
        if matches!(moved, Ok((_, pages, _)) if pages > LONG_LOG) {
            // Repeated, as much was written meanwhile.
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
