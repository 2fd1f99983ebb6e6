//! SQL with its values: a statement that both databases accept is written once.
//!
//! A value whose type SQLite lacks is encoded as SQLite's tables store it: an instant as text, a list of
//! texts as JSON.

use chrono::{DateTime, Utc};
use sqlx::Arguments;
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::sqlite::SqliteArguments;
use sqlx::types::Json;

use super::json_rows::{instant, texts};
use pricing_domain::facts::recalculation::RecalculationScope;

/// SQL, with the placeholders `$1`, `$2` and so on for its values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Statement {
    pub(super) sqlite: &'static str,
    pub(super) postgres: &'static str,
}

/// A statement and the values it is run with.
#[derive(Debug)]
pub(super) struct Query<'a> {
    pub(super) statement: Statement,
    values: Vec<Value<'a>>,
}

/// A value of a statement. `None` is NULL.
#[derive(Debug)]
pub(super) enum Value<'a> {
    Text(Option<&'a str>),
    Integer(Option<i64>),
    Instant(Option<DateTime<Utc>>),
    /// An encoded JSON document; text to both databases.
    Written(String),
    /// `text[]` in PostgreSQL (`= ANY($1)`), a JSON array in SQLite (`IN (SELECT value FROM json_each($1))`).
    Texts(Vec<&'a str>),
    /// A column of JSON.
    Scope(&'a RecalculationScope),
}

impl Statement {
    /// The same SQL for both databases.
    pub(super) const fn same(sql: &'static str) -> Self {
        Self { sqlite: sql, postgres: sql }
    }

    /// Binds the first value; further ones by [`Query::bind`].
    pub(super) fn bind<'a>(self, value: impl Into<Value<'a>>) -> Query<'a> {
        Query { statement: self, values: vec![value.into()] }
    }
}

impl<'a> Query<'a> {
    pub(super) fn bind(mut self, value: impl Into<Value<'a>>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Encodes the values for SQLite's driver.
    pub(super) fn sqlite_arguments(self) -> Result<SqliteArguments, sqlx::Error> {
        let mut arguments = SqliteArguments::default();
        for value in self.values {
            value.add_to_sqlite(&mut arguments).map_err(sqlx::Error::Encode)?;
        }
        Ok(arguments)
    }

    /// Encodes the values for PostgreSQL's driver.
    pub(super) fn postgres_arguments(self) -> Result<PgArguments, sqlx::Error> {
        let mut arguments = PgArguments::default();
        for value in self.values {
            value.add_to_postgres(&mut arguments).map_err(sqlx::Error::Encode)?;
        }
        Ok(arguments)
    }
}

impl Value<'_> {
    fn add_to_sqlite(self, arguments: &mut SqliteArguments) -> Result<(), BoxDynError> {
        match self {
            Self::Text(text) => arguments.add(text.map(str::to_owned)),
            Self::Integer(number) => arguments.add(number),
            Self::Instant(at) => arguments.add(at.map(instant)),
            Self::Written(json) => arguments.add(json),
            Self::Texts(list) => arguments.add(texts(list)?),
            Self::Scope(scope) => arguments.add(Json(scope)),
        }
    }

    fn add_to_postgres(self, arguments: &mut PgArguments) -> Result<(), BoxDynError> {
        match self {
            Self::Text(text) => arguments.add(text),
            Self::Integer(number) => arguments.add(number),
            Self::Instant(at) => arguments.add(at),
            Self::Written(json) => arguments.add(json),
            Self::Texts(list) => arguments.add(list),
            Self::Scope(scope) => arguments.add(Json(scope)),
        }
    }
}

impl From<Statement> for Query<'_> {
    fn from(statement: Statement) -> Self {
        Self { statement, values: Vec::new() }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Some(text))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(Some(text))
    }
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(text: Option<&'a str>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Integer(Some(number))
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(number: Option<i64>) -> Self {
        Self::Integer(number)
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Integer(Some(number.into()))
    }
}

impl From<DateTime<Utc>> for Value<'_> {
    fn from(at: DateTime<Utc>) -> Self {
        Self::Instant(Some(at))
    }
}

impl From<Option<DateTime<Utc>>> for Value<'_> {
    fn from(at: Option<DateTime<Utc>>) -> Self {
        Self::Instant(at)
    }
}

impl<'a> From<&'a RecalculationScope> for Value<'a> {
    fn from(scope: &'a RecalculationScope) -> Self {
        Self::Scope(scope)
    }
}
