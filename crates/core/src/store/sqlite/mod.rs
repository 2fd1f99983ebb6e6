//! A SQLite file: opening it, and what differs from PostgreSQL.
//!
//! One connection writes, several read. SQLite admits only one writer; queueing for the connection is fair
//! and wakes at once, whereas queueing for the file's lock means polling. In write-ahead mode readers and the
//! writer do not wait for each other. Other processes that open the same file are serialised by its lock.

mod checkpoint;
pub(super) mod facts;
mod prepared;
pub(super) mod rows;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection as _, Sqlite, raw_sql};

use self::checkpoint::Checkpoints;
pub(super) use self::prepared::SqlitePrices;
use super::StoreSettings;
use super::connection::Connection;
use super::error::StoreError;
use super::migrations;

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
        // The buffer lets rows pass without pauses.
        let file = parse_url(url)?.busy_timeout(settings.statement_timeout).row_buffer_size(1024);
        // Closing a connection to a file gains nothing, so connections have no maximum age.
        let pool =
            || SqlitePoolOptions::new().max_lifetime(None).idle_timeout(None).test_before_acquire(false);
        // The wait for the writer counts as a wait for a lock.
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
        // Of two processes that open a new file, one may fail without waiting for the lock: the switch to
        // write-ahead mode precedes the time limit for locks.
        let deadline = Instant::now() + settings.connect_timeout;
        while let Err(error) = opened.migrate().await {
            if !error.is_transient() || Instant::now() > deadline {
                return Err(error);
            }
            tokio::time::sleep(OPEN_RETRY_PAUSE).await;
        }
        Ok(opened)
    }

    /// Migrates under the file's lock, as the migrator has none for SQLite: otherwise, of two processes that
    /// find no tables, the second would fail to create them.
    async fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = self.writer.acquire().await?;
        // This connection is closed afterwards: a migration may sort more than fits in memory, so it uses
        // temporary files.
        connection.close_on_drop();
        raw_sql("PRAGMA temp_store = default").execute(&mut *connection).await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        // `run_direct` is used because the compiler cannot prove that a future that awaits `run` is `Send`.
        migrations::of_sqlite().run_direct(None, &mut *transaction, false).await?;
        Ok(transaction.commit().await?)
    }

    /// The directory of the file.
    pub(super) fn directory(&self) -> PathBuf {
        let options = self.writer.connect_options();
        match options.get_filename().parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory.to_owned(),
            _ => PathBuf::from("."),
        }
    }

    /// Wakes the checkpoint task.
    pub(super) fn expect_writes(&self) {
        self.checkpoints.expect_writes();
    }

    /// Moves the rest of a long log into the file before the writer continues. Returns whether the connection
    /// is still usable.
    pub(super) async fn move_log(&self, writer: &mut Connection<Sqlite>) -> bool {
        if !self.checkpoints.should_move_rest() {
            return true;
        }
        let moved = writer.run(|connection| raw_sql(checkpoint::MOVE).execute(connection)).await;
        if let Err(error) = &moved {
            // The log keeps growing, but the write itself may still succeed.
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

/// Sets options for bulk writes. The cache (16 MB) keeps the pages of a batch of ordered products in memory
/// until it commits. A new file gets pages of 8 kB, which hold twice as many prices, each a kilobyte or more,
/// as the default: half as many pages are written, searched and split. The writer checkpoints only if the
/// checkpoint task does not, every 128 MB (64 MB in a file with pages of 4 kB). The undo data of a multi-row
/// statement stays in memory instead of a file per statement.
fn for_bulk_writes(file: SqliteConnectOptions) -> SqliteConnectOptions {
    file.create_if_missing(true)
        // Four multi-row statements have a separate text for each number of rows up to 32.
        .statement_cache_capacity(256)
        .page_size(8_192)
        .journal_mode(SqliteJournalMode::Wal)
        .pragma("cache_size", "-16384")
        .pragma("wal_autocheckpoint", "16000")
        .pragma("temp_store", "memory")
}

/// Parses `sqlite://path`, with the path taken verbatim, and `?synchronous=full` or `normal`.
///
/// NORMAL is the default: committed data survives a crash of the process, including `kill -9`, because the
/// operating system holds it; a power failure may lose the last commits, but never the file. FULL waits for
/// the disk at every commit.
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
