//! Reading the columns of a row by name, for the rows of either database.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Postgres, Row, Sqlite, Type};

/// A type that both databases have a column for.
pub(super) trait Column:
    for<'row> Decode<'row, Sqlite> + for<'row> Decode<'row, Postgres> + Type<Sqlite> + Type<Postgres>
{
}

impl<T> Column for T where
    T: for<'row> Decode<'row, Sqlite> + for<'row> Decode<'row, Postgres> + Type<Sqlite> + Type<Postgres>
{
}

/// A row of either database.
pub(super) trait Columns: Row {
    /// The value of a column; an error if there is no such column, or it has another type.
    fn value<T: Column>(&self, name: &str) -> Result<T, sqlx::Error>;
}

impl Columns for SqliteRow {
    fn value<T: Column>(&self, name: &str) -> Result<T, sqlx::Error> {
        self.try_get(name)
    }
}

impl Columns for PgRow {
    fn value<T: Column>(&self, name: &str) -> Result<T, sqlx::Error> {
        self.try_get(name)
    }
}
