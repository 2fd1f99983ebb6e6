//! A connection to either database, and the calls on it.
//!
//! All calls that both databases share use this module, so the code of products, prices, policies, drafts and
//! runs exists once. Bulk rows differ: see [`sqlite`](super::sqlite) and [`postgres`](super::postgres).

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Postgres, Sqlite, query_as_with, query_with, raw_sql};

use super::connection::Connection;
use super::error::StoreError;
use super::statement::Query;

/// A connection borrowed from its pool, with or without a transaction.
#[derive(Debug)]
pub(super) enum Session {
    Sqlite(Connection<Sqlite>),
    Postgres(Connection<Postgres>),
}

/// A row of a result of either database. A one-element tuple is a single column.
pub(super) trait Record:
    for<'row> FromRow<'row, SqliteRow> + for<'row> FromRow<'row, PgRow> + Send + Unpin
{
}

impl<R> Record for R where
    R: for<'row> FromRow<'row, SqliteRow> + for<'row> FromRow<'row, PgRow> + Send + Unpin
{
}

impl Session {
    /// Runs a statement that returns no rows. Returns how many rows it changed.
    pub(super) async fn execute(&mut self, query: impl Into<Query<'_>>) -> Result<u64, StoreError> {
        let query = query.into();
        let statement = query.statement;
        match self {
            Self::Sqlite(connection) => {
                let query = query_with(statement.sqlite, query.sqlite_arguments()?);
                Ok(connection.run(|connection| query.execute(connection)).await?.rows_affected())
            }
            Self::Postgres(connection) => {
                let query = query_with(statement.postgres, query.postgres_arguments()?);
                Ok(connection.run(|connection| query.execute(connection)).await?.rows_affected())
            }
        }
    }

    /// Runs a statement that returns no rows. Returns whether it changed any.
    pub(super) async fn changes_any(&mut self, query: impl Into<Query<'_>>) -> Result<bool, StoreError> {
        Ok(self.execute(query).await? > 0)
    }

    /// All rows.
    pub(super) async fn all<R: Record>(&mut self, query: impl Into<Query<'_>>) -> Result<Vec<R>, StoreError> {
        let query = query.into();
        let statement = query.statement;
        match self {
            Self::Sqlite(connection) => {
                let query = query_as_with(statement.sqlite, query.sqlite_arguments()?);
                connection.run(|connection| query.fetch_all(connection)).await
            }
            Self::Postgres(connection) => {
                let query = query_as_with(statement.postgres, query.postgres_arguments()?);
                connection.run(|connection| query.fetch_all(connection)).await
            }
        }
    }

    /// The first row, if there is one.
    pub(super) async fn optional<R: Record>(
        &mut self,
        query: impl Into<Query<'_>>,
    ) -> Result<Option<R>, StoreError> {
        let query = query.into();
        let statement = query.statement;
        match self {
            Self::Sqlite(connection) => {
                let query = query_as_with(statement.sqlite, query.sqlite_arguments()?);
                connection.run(|connection| query.fetch_optional(connection)).await
            }
            Self::Postgres(connection) => {
                let query = query_as_with(statement.postgres, query.postgres_arguments()?);
                connection.run(|connection| query.fetch_optional(connection)).await
            }
        }
    }

    /// The row of a statement that always has one.
    pub(super) async fn one<R: Record>(&mut self, query: impl Into<Query<'_>>) -> Result<R, StoreError> {
        self.optional(query).await?.ok_or_else(|| sqlx::Error::RowNotFound.into())
    }

    /// Runs a locking statement that only PostgreSQL needs: a SQLite writer holds the lock of the file.
    pub(super) async fn lock(&mut self, sql: &'static str) -> Result<(), StoreError> {
        if let Self::Postgres(connection) = self {
            connection.run(|connection| raw_sql(sql).execute(connection)).await?;
        }
        Ok(())
    }

    /// Begins a transaction that writes.
    pub(super) async fn begin(&mut self) -> Result<(), StoreError> {
        match self {
            // A transaction that begins with a read cannot be upgraded once another process has written.
            Self::Sqlite(connection) => {
                connection.begin_transaction();
                connection.run(|connection| raw_sql("BEGIN IMMEDIATE").execute(connection)).await?;
            }
            // Every statement must see earlier commits: rows are read after the wait for their lock.
            Self::Postgres(connection) => {
                let begin = raw_sql("BEGIN ISOLATION LEVEL READ COMMITTED");
                connection.begin_transaction();
                connection.run(|connection| begin.execute(connection)).await?;
            }
        }
        Ok(())
    }

    /// Ends the transaction without its changes, and keeps the connection.
    pub(super) async fn roll_back(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(connection) => {
                connection.run(|connection| raw_sql("ROLLBACK").execute(connection)).await?;
                connection.end_transaction()
            }
            Self::Postgres(connection) => {
                connection.run(|connection| raw_sql("ROLLBACK").execute(connection)).await?;
                connection.end_transaction()
            }
        }
    }

    /// Commits the transaction, unless one of its statements failed.
    pub(super) async fn commit(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(connection) => {
                connection.end_transaction()?;
                connection.run(|connection| raw_sql("COMMIT").execute(connection)).await?;
            }
            Self::Postgres(connection) => {
                connection.end_transaction()?;
                connection.run(|connection| raw_sql("COMMIT").execute(connection)).await?;
            }
        }
        Ok(())
    }
}
