//! What a backup and a restore need of the databases: a copy of a SQLite file while it is in use, and a look
//! at a PostgreSQL database.
//!
//! A restored catalogue takes a new identity, so that no cache serves a price of the catalogue that it
//! replaces: revisions count from the backup again, and those in Redis are greater.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _, query, query_scalar, raw_sql};

use super::error::StoreError;

/// How long a copy or a check waits for a writer.
const SQLITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long [`release_sqlite`] waits for other processes to close the file.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Tables, views and sequences that no extension has brought.
const HAS_TABLES: &str = "SELECT EXISTS (
    SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid
        AND deptype = 'e'))";
const OTHER_CLIENTS: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";

/// Copies a catalogue into a file that is absent or empty, and checks the copy. Other processes may read and
/// write the catalogue meanwhile; the copy is what was committed when it began.
pub async fn copy_sqlite(catalogue: &Path, copy: &Path) -> Result<(), StoreError> {
    let mut connection = open_sqlite(catalogue, SQLITE_TIMEOUT).await?;
    query("VACUUM INTO ?").bind(copy.to_string_lossy().into_owned()).execute(&mut connection).await?;
    connection.close().await?;
    check_sqlite(copy).await
}

/// Checks that a file is a catalogue and is not damaged.
pub async fn check_sqlite(file: &Path) -> Result<(), StoreError> {
    let mut connection = open_sqlite(file, SQLITE_TIMEOUT).await?;
    let found: Vec<String> = query_scalar("PRAGMA integrity_check(3)").fetch_all(&mut connection).await?;
    if found != ["ok"] {
        return Err(StoreError::Corrupt { what: format!("damaged data: {}", found.join("; ")) });
    }
    let has_identity: bool = query_scalar(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'catalogue_identity')",
    )
    .fetch_one(&mut connection)
    .await?;
    connection.close().await?;
    if !has_identity {
        return Err(StoreError::Corrupt { what: "no catalogue: it has other tables".to_owned() });
    }
    Ok(())
}

/// Moves a catalogue's write-ahead log into its file and removes the log. Fails with
/// [`StoreError::Unavailable`] while another process has the file open.
pub async fn release_sqlite(catalogue: &Path) -> Result<(), StoreError> {
    let mut connection = open_sqlite(catalogue, RELEASE_TIMEOUT).await?;
    // SQLite leaves write-ahead mode only if no other connection exists.
    raw_sql("PRAGMA journal_mode = DELETE").execute(&mut connection).await?;
    Ok(connection.close().await?)
}

async fn open_sqlite(file: &Path, timeout: Duration) -> Result<SqliteConnection, StoreError> {
    let options = SqliteConnectOptions::new().filename(file).busy_timeout(timeout);
    Ok(SqliteConnection::connect_with(&options).await?)
}

/// A PostgreSQL database that is backed up or restored into. The tables are those of the schema `public`.
#[derive(Debug)]
pub struct PostgresDatabase {
    connection: PgConnection,
}

impl PostgresDatabase {
    /// Connects, without migrating anything.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let server = PgConnectOptions::from_str(url)
            .map_err(|problem| StoreError::InvalidUrl { reason: problem.to_string() })?;
        Ok(Self { connection: PgConnection::connect_with(&server).await? })
    }

    /// The server's major version.
    pub async fn major_version(&mut self) -> Result<u32, StoreError> {
        let number: i32 = query_scalar("SELECT current_setting('server_version_num')::int")
            .fetch_one(&mut self.connection)
            .await?;
        Ok(u32::try_from(number).unwrap_or_default() / 10_000)
    }

    /// Whether the schema holds anything.
    pub async fn has_tables(&mut self) -> Result<bool, StoreError> {
        Ok(query_scalar(HAS_TABLES).fetch_one(&mut self.connection).await?)
    }

    /// The number of other connections to the database.
    pub async fn other_clients(&mut self) -> Result<i64, StoreError> {
        Ok(query_scalar(OTHER_CLIENTS).fetch_one(&mut self.connection).await?)
    }

    /// Renames the schema, with all that is in it, and creates an empty one in its place.
    pub async fn set_aside(&mut self, name: &str) -> Result<(), StoreError> {
        let rename = format!(r#"ALTER SCHEMA public RENAME TO "{name}""#);
        self.in_transaction(&[&rename, "CREATE SCHEMA public", "GRANT USAGE ON SCHEMA public TO PUBLIC"])
            .await
    }

    /// Undoes [`set_aside`](Self::set_aside).
    pub async fn take_back(&mut self, name: &str) -> Result<(), StoreError> {
        let rename = format!(r#"ALTER SCHEMA "{name}" RENAME TO public"#);
        self.in_transaction(&["DROP SCHEMA public CASCADE", &rename]).await
    }

    async fn in_transaction(&mut self, statements: &[&str]) -> Result<(), StoreError> {
        let mut transaction = self.connection.begin().await?;
        for statement in statements {
            raw_sql(AssertSqlSafe(*statement)).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }
}
