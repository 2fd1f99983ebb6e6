//! A SQLite file: opening it, and what differs from PostgreSQL.
//!
//! One connection writes, several read. SQLite admits one writer at a time anyway; queueing for the
//! connection is fair and wakes at once, where queueing for the file's lock means polling. In write-ahead
//! mode readers and the writer do not wait for each other. Other processes may open the same file: then the
//! file's lock decides.

mod checkpoint;
pub(super) mod facts;
mod prepared;
pub(super) mod rows;

use std::time::{Duration, Instant};

use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection as _, Sqlite, raw_sql};

use self::checkpoint::Checkpoints;
pub(super) use self::prepared::SqlitePrices;
use super::StoreSettings;
use super::connection::Connection;
use super::error::StoreError;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Pause before a locked file is opened again.
const OPEN_RETRY_PAUSE: Duration = Duration::from_millis(20);

/// The connections to a file.
#[derive(Debug, Clone)]
pub(super) struct SqliteFile {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
    checkpoints: Checkpoints,
}

impl SqliteFile {
    pub(super) async fn open(url: &str, settings: StoreSettings) -> Result<Self, StoreError> {
        // Rows are passed over without a pause.
        let file = parse_url(url)?.busy_timeout(settings.statement_timeout).row_buffer_size(1024);
        // Closing a connection to a file gains nothing, so connections have no maximum age.
        let pool =
            || SqlitePoolOptions::new().max_lifetime(None).idle_timeout(None).test_before_acquire(false);
        // The wait for the writer is a wait for a lock.
        let writer = pool()
            .max_connections(1)
            .acquire_timeout(settings.statement_timeout)
            .connect_lazy_with(for_bulk_writes(file.clone()));
        let checkpoints = Checkpoints::start(file.clone());
        let readers = pool()
            .max_connections(settings.max_connections)
            .acquire_timeout(settings.connect_timeout)
            .connect_lazy_with(file.read_only(true));
        let opened = Self { writer, readers, checkpoints };
        // Of two processes that open a new file, one may find it locked without waiting for the lock: a file
        // is switched to write-ahead mode before the time limit for locks applies.
        let deadline = Instant::now() + settings.connect_timeout;
        while let Err(error) = opened.migrate().await {
            if !error.is_transient() || Instant::now() > deadline {
                return Err(error);
            }
            tokio::time::sleep(OPEN_RETRY_PAUSE).await;
        }
        Ok(opened)
    }

    /// Migrates under the file's lock, as the migrator itself has none for SQLite: of two processes that find
    /// the tables missing, the second would fail to create them.
    async fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = self.writer.acquire().await?;
        // Another connection replaces it: what a migration sorts may be more than fits in memory.
        connection.close_on_drop();
        raw_sql("PRAGMA temp_store = default").execute(&mut *connection).await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        // `run_direct`, as the compiler does not see that the future of a function that awaits `run` is
        // `Send`.
        MIGRATIONS.run_direct(None, &mut *transaction, false).await?;
        Ok(transaction.commit().await?)
    }

    /// Wakes the checkpoint task.
    pub(super) fn expect_writes(&self) {
        self.checkpoints.expect_writes();
    }

    /// Moves the rest of a long log into the file before the writer goes on. Returns whether the connection
    /// is still usable.
    pub(super) async fn move_log(&self, writer: &mut Connection<Sqlite>) -> bool {
        if !self.checkpoints.should_move_rest() {
            return true;
        }
        let moved = writer.run(|connection| raw_sql(checkpoint::MOVE).execute(connection)).await;
        if let Err(error) = &moved {
            // The log keeps growing; the write itself may succeed all the same.
            tracing::warn!(%error, "cannot restart the database's write-ahead log; it grows for now");
        }
        moved.is_ok()
    }

    pub(super) async fn close(&self) {
        // The writer is closed last: the last connection to close moves the log into the file and removes it,
        // which a read-only one cannot.
        self.checkpoints.close().await;
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Room for a batch of products in order: the pages that it touches stay in memory (16 MB) until it commits.
/// A new file gets pages of 8 kB, which hold twice as many prices as usual ones, each a kilobyte or more:
/// half as many pages are written, searched and split. The writer checkpoints only if the checkpoint task
/// does not, every 128 MB (64 MB in a file that has pages of 4 kB). The undo data of a statement of many rows
/// stays in memory: otherwise it would be written to a file for each.
fn for_bulk_writes(file: SqliteConnectOptions) -> SqliteConnectOptions {
    file.create_if_missing(true)
        // Four statements that write rows have a separate text for each number of rows up to 32.
        .statement_cache_capacity(256)
        .page_size(8_192)
        .journal_mode(SqliteJournalMode::Wal)
        .pragma("cache_size", "-16384")
        .pragma("wal_autocheckpoint", "16000")
        .pragma("temp_store", "memory")
}

/// `sqlite://path`, with the path taken as it is written, and `?synchronous=full` or `normal`.
///
/// NORMAL is the default: committed data survives the end of the process, `kill -9` included, because the
/// operating system has it; a loss of power may lose the last commits, never the file. FULL waits for the
/// disk at every commit.
fn parse_url(url: &str) -> Result<SqliteConnectOptions, StoreError> {
    let invalid = |reason: String| StoreError::InvalidUrl { reason };
    let location = url.strip_prefix("sqlite://").unwrap_or(url);
    let (path, parameters) = location.split_once('?').unwrap_or((location, ""));
    if path.is_empty() || path == ":memory:" {
        return Err(invalid("it names no file".to_owned()));
    }
    let mut synchronous = SqliteSynchronous::Normal;
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        synchronous = match parameter {
            "synchronous=normal" => SqliteSynchronous::Normal,
            "synchronous=full" => SqliteSynchronous::Full,
            unknown => {
                return Err(invalid(format!(
                    "\"{unknown}\" is not an option (allowed: synchronous=normal, synchronous=full)"
                )));
            }
        };
    }
    Ok(SqliteConnectOptions::new().filename(path).synchronous(synchronous).foreign_keys(true))
}
