//! The store: the facts of the engine in a SQL database.
//!
//! Here: products, signals, policies, prices and their history, in SQLite (one host, no set-up) or in
//! PostgreSQL. Never here: how a price is computed (see [`domain`](pricing_domain)) and when, and caches.
//!
//! Code that both databases share is written once, on a [`session`] of either: `products`, `prices`,
//! `policies`, `drafts`, `access_keys`, `audit`, `runs` (the state machine of recalculations and its
//! fencing), `unserved` (what Redis may not have yet), `upkeep` (expiry). The differences have a folder each:
//! `sqlite` and `postgres` open the database and read and write rows in bulk; `bulk` selects between them.
//! The contract tests verify the same guarantees for both: exact digits, instants to the microsecond, no
//! older fact over a newer one, and errors that tell transient from permanent failures
//! ([`StoreError::is_transient`]).
//!
//! Reads are methods of [`Store`], nearly all of one statement; facts and prices are written by a
//! [`StoreTransaction`]. Where next: `statement` for SQL and its values, `connection` for time limits and
//! failed connections, `migrations/` for the tables and their reasons. Callers are `engine`, the API's routes
//! and the worker.

mod access_keys;
mod audit;
pub mod backup;
mod bulk;
mod columns;
mod connection;
mod drafts;
mod error;
mod event_moves;
mod facts;
mod identity;
mod json_rows;
mod metrics;
mod migrations;
mod policies;
mod postgres;
mod prepared_rows;
mod prices;
mod products;
mod read_rows;
mod runs;
mod session;
mod sqlite;
mod statement;
mod stored;
mod transaction;
mod unserved;
mod upkeep;

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::SqlitePool;

pub use self::access_keys::{AccessKey, MAX_ACTIVE_KEYS};
pub use self::audit::{AuditEntry, AuditFilter, RecordedChange};
use self::connection::{Connection, ReadOnlyRefusals};
pub use self::drafts::{DraftCondition, NewDraft, StoredDraft};
pub use self::error::{ConnectionShortage, StoreError};
pub use self::event_moves::{HeldMove, HeldMoves};
pub use self::facts::UnreadFacts;
pub use self::identity::Progress;
use self::metrics::DatabaseDuration;
use self::postgres::PostgresServer;
pub use self::prepared_rows::{PreparedPrices, ProductRows};
pub use self::runs::{
    CoalescedRun, MAX_REASON_CHARS, RangeEnds, RangeOutcome, RunRequest, StoredRun, run_of_policy,
};
use self::session::Session;
use self::sqlite::SqliteFile;
use self::statement::Statement;
pub use self::stored::{
    EarlierChange, EventHold, FROZEN, HeldSignals, LeftOut, MAX_CAUSE_CHARS, NewPolicy, PriceChange,
    PriceWrite, Readable, StoredFacts, StoredPolicy, StoredPrice, TIME,
};
pub use self::transaction::StoreTransaction;
use self::unserved::{ServedRows, Written};
pub use self::unserved::{Unserved, UnservedPrices};
use crate::catalogue::CurrentCatalogue;
use crate::telemetry::registry::Registry;
use crate::telemetry::spans;

const CHECK: Statement = Statement::same("SELECT EXISTS (SELECT 1 FROM policies)");
const WRITE_CHECK: Statement = Statement::same("UPDATE catalogue_identity SET identity = identity");
const VERSION: Statement = Statement { sqlite: "SELECT sqlite_version()", postgres: "SHOW server_version" };
const TIME_NOW: Statement = Statement::same("SELECT clock_timestamp()");

/// Limits on connections and waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreSettings {
    /// Connections to PostgreSQL; for SQLite, readers, in addition to the one writer.
    pub max_connections: u32,
    /// The longest wait for a connection, both for a free one and for the server to accept a new one.
    pub connect_timeout: Duration,
    /// The longest run of one statement, including the wait for locks. A transaction that idles for longer is
    /// ended, too: its process may be frozen while it holds locks.
    pub statement_timeout: Duration,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            max_connections: 16,
            connect_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(10),
        }
    }
}

/// The store. A clone is a handle to the same connections.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
    statement_timeout: Duration,
    duration: DatabaseDuration,
    /// The identity of the database as this process knows it.
    pub catalogue: CurrentCatalogue,
    served: ServedRows,
}

#[derive(Debug, Clone)]
enum Database {
    /// A file on this host.
    Sqlite(SqliteFile),
    /// A PostgreSQL server.
    Postgres(PostgresServer),
}

impl Store {
    /// Opens the database and brings its tables up to date; safe when several processes do so at once.
    ///
    /// `sqlite:///absolute/path.db` and `sqlite://relative/path.db` name a file, which is created if absent;
    /// `?synchronous=full` makes every commit survive a loss of power. `postgres://…` names a database that
    /// exists.
    pub async fn open(url: &str, settings: StoreSettings) -> Result<Self, StoreError> {
        let database = match url.split_once("://") {
            Some(("sqlite", _)) => Database::Sqlite(SqliteFile::open(url, settings).await?),
            Some(("postgres" | "postgresql", _)) => {
                Database::Postgres(PostgresServer::open(url, settings).await?)
            }
            _ => {
                return Err(StoreError::InvalidUrl {
                    reason: "it must begin with sqlite://, postgres:// or postgresql://".to_owned(),
                });
            }
        };
        let statement_timeout = settings.statement_timeout;
        let duration = DatabaseDuration::unmeasured();
        let (catalogue, served) = (CurrentCatalogue::new(""), ServedRows::default());
        let store = Self { database, statement_timeout, duration, catalogue, served };
        store.check().await?;
        let catalogue = CurrentCatalogue::new(&store.identity().await?);
        Ok(Self { catalogue, ..store })
    }

    /// Returns the same store, with its statements measured.
    #[must_use]
    pub fn measured_by(self, registry: &Registry) -> Self {
        Self { duration: DatabaseDuration::new(registry), ..self }
    }

    /// The kind of database in telemetry: `sqlite` or `postgresql`.
    pub fn kind(&self) -> &'static str {
        match self.database {
            Database::Sqlite(_) => "sqlite",
            Database::Postgres(_) => "postgresql",
        }
    }

    /// The directory of a database that is a file.
    pub fn directory(&self) -> Option<PathBuf> {
        match &self.database {
            Database::Sqlite(file) => Some(file.directory()),
            Database::Postgres(_) => None,
        }
    }

    /// The number of concurrent write transactions that are useful to one caller: SQLite has one writer;
    /// PostgreSQL has a process for each, and works on a second one while the first waits for its caller.
    pub fn useful_writers(&self) -> usize {
        match self.database {
            Database::Sqlite(_) => 1,
            Database::Postgres(_) => 2,
        }
    }

    /// Encodes prices for this database's driver, for a transaction to write; of two of the same product the
    /// newer one is kept. Needs no connection.
    pub fn prepare_prices(&self, writes: Vec<PriceWrite>) -> Result<PreparedPrices, StoreError> {
        match self.database {
            Database::Sqlite(_) => PreparedPrices::for_sqlite(writes),
            Database::Postgres(_) => PreparedPrices::for_postgres(writes),
        }
    }

    /// Checks that the database answers a query that reads a table.
    pub async fn check(&self) -> Result<(), StoreError> {
        let (_,): (bool,) = self.reader().await?.one(CHECK).await?;
        Ok(())
    }

    /// Checks that the database accepts a write; nothing is changed.
    pub async fn check_writes(&self) -> Result<(), StoreError> {
        let mut session = self.begin_session().await?;
        session.execute(WRITE_CHECK).await?;
        session.roll_back().await
    }

    /// Whether the database answers on a new connection, outside the pool. Never if all of the pool are in
    /// use, as these may work, and never for SQLite, whose connections do not break.
    pub async fn answers_a_new_connection(&self) -> bool {
        match &self.database {
            Database::Sqlite(_) => false,
            Database::Postgres(server) => !server.is_busy() && server.check_afresh().await.is_ok(),
        }
    }

    /// The version of the database's software.
    pub async fn version(&self) -> Result<String, StoreError> {
        let (version,) = self.reader().await?.one(VERSION).await?;
        Ok(version)
    }

    /// The time by the database's clock; `None` for SQLite, which has no other than this process's.
    pub async fn time(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        match self.database {
            Database::Sqlite(_) => Ok(None),
            Database::Postgres(_) => {
                let (time,) = self.reader().await?.one(TIME_NOW).await?;
                Ok(Some(time))
            }
        }
    }

    /// Waits for running statements and closes every connection. Later calls fail.
    pub async fn close(&self) {
        // Otherwise other processes would serve them once more.
        if let Err(error) = self.forget_served().await {
            tracing::debug!(%error, "could not delete the records of served prices");
        }
        match &self.database {
            Database::Sqlite(file) => file.close().await,
            Database::Postgres(server) => server.pool.close().await,
        }
    }

    /// Begins a transaction. SQLite admits one at a time, so keep it short, without long computations.
    pub async fn begin(&self) -> Result<StoreTransaction, StoreError> {
        // The span includes the wait for a connection, or for the file.
        let span = spans::database(self.kind(), "transaction");
        let catalogue = self.catalogue.get();
        Ok(StoreTransaction {
            session: self.begin_session().await?,
            span,
            known_revision: catalogue.newest_revision(),
            catalogue,
            written: Written::default(),
        })
    }

    async fn begin_session(&self) -> Result<Session, StoreError> {
        let mut session = self.writer().await?;
        if let (Database::Sqlite(file), Session::Sqlite(writer)) = (&self.database, &mut session)
            && !file.move_log(writer).await
        {
            session = self.writer().await?;
        }
        session.begin().await?;
        Ok(session)
    }

    async fn reader(&self) -> Result<Session, StoreError> {
        match &self.database {
            Database::Sqlite(file) => self.sqlite_session(&file.readers).await,
            Database::Postgres(server) => self.postgres_session(server).await,
        }
    }

    async fn writer(&self) -> Result<Session, StoreError> {
        match &self.database {
            Database::Sqlite(file) => {
                file.expect_writes();
                self.sqlite_session(&file.writer).await
            }
            Database::Postgres(server) => self.postgres_session(server).await,
        }
    }

    async fn sqlite_session(&self, pool: &SqlitePool) -> Result<Session, StoreError> {
        let refusals = ReadOnlyRefusals::default();
        let connection = Connection::acquire(pool, self.statement_timeout, &self.duration, &refusals).await?;
        Ok(Session::Sqlite(connection))
    }

    async fn postgres_session(&self, server: &PostgresServer) -> Result<Session, StoreError> {
        let (limit, duration) = (self.statement_timeout, &self.duration);
        match Connection::acquire(&server.pool, limit, duration, &server.refusals).await {
            Ok(connection) => Ok(Session::Postgres(connection)),
            Err(error) => Err(server.explain(error).await),
        }
    }
}
