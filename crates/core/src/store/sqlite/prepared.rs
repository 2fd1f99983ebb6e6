//! Products and prices encoded for SQLite's driver, for statements of many rows.
//!
//! Encoding needs no connection and would keep SQLite waiting, so it is done where prices are computed.

use std::sync::Arc;

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::error::BoxDynError;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, Sqlite, query_with};

use super::super::error::StoreError;
use super::super::json_rows::{bounded_cause, instant};
use super::super::prepared_rows::{ChangeRow, ProductRow, ProductRows, change_rows, digits};
use super::super::stored::PriceWrite;

const PRODUCT_COLUMNS: usize = 13;
const PRICE_COLUMNS: usize = 23;
const CHANGE_COLUMNS: usize = 9;

/// The most rows of a statement; batches of prices have this size. A row has 23 values, and a statement
/// may have 32,766.
const ROWS_PER_STATEMENT: usize = 500;
/// Up to this many remaining rows are written by one statement of exactly that length.
const ROWS_OF_ANY_STATEMENT: usize = 32;

/// Rows of `prices` and of `price_changes`, by statement.
#[derive(Debug)]
pub(in super::super) struct SqlitePrices {
    /// The number of prices.
    pub(super) count: u64,
    pub(super) prices: Vec<RowsOfStatement>,
    pub(super) changes: Vec<RowsOfStatement>,
}

/// The rows of one statement.
#[derive(Debug)]
pub(super) struct RowsOfStatement {
    rows: usize,
    columns: usize,
    values: SqliteArguments,
}

impl SqlitePrices {
    /// Encodes prices, which must be ordered by product with one price each.
    pub(in super::super) fn of(writes: Vec<PriceWrite>) -> Result<Self, StoreError> {
        let mut texts = Texts::default();
        let changing: Vec<ChangeRow<'_>> = writes.iter().flat_map(change_rows).collect();
        let changes = of_rows(changing, CHANGE_COLUMNS, |row, values| add_change(row, &mut texts, values))?;
        let count = writes.len() as u64;
        let prices = of_rows(writes, PRICE_COLUMNS, |write, values| add_price(write, &mut texts, values))?;
        Ok(Self { count, prices, changes })
    }
}

/// Rows of `products`, by statement.
pub(super) fn product_rows(
    products: ProductRows,
    now: DateTime<Utc>,
) -> Result<Vec<RowsOfStatement>, StoreError> {
    let mut texts = Texts::default();
    of_rows(products.rows, PRODUCT_COLUMNS, |row, values| {
        let stated_at = row.cost_stated_at.map(|instant| texts.of_statement(instant));
        add_product(row, stated_at, texts.of(now), values)
    })
}

impl RowsOfStatement {
    /// Builds the statement that writes the rows: `before` and `after` are the SQL around them.
    pub(super) fn into_query(self, before: &str, after: &str) -> Query<'static, Sqlite, SqliteArguments> {
        let row = format!("({}),", vec!["?"; self.columns].join(","));
        let all = row.repeat(self.rows);
        let statement = format!("{before}VALUES {}{after}", all.trim_end_matches(','));
        // The text is built from constants.
        query_with(AssertSqlSafe(statement), self.values)
    }
}

fn of_rows<R>(
    rows: Vec<R>,
    columns: usize,
    mut add: impl FnMut(R, &mut SqliteArguments) -> Result<(), BoxDynError>,
) -> Result<Vec<RowsOfStatement>, StoreError> {
    let lengths = statement_lengths(rows.len());
    let mut rows = rows.into_iter();
    let of_statement = |length: usize| {
        let mut values = SqliteArguments::default();
        values.reserve(length * columns, 0);
        rows.by_ref().take(length).try_for_each(|row| add(row, &mut values))?;
        Ok(RowsOfStatement { rows: length, columns, values })
    };
    let statements: Result<_, BoxDynError> = lengths.map(of_statement).collect();
    Ok(statements.map_err(sqlx::Error::Encode)?)
}

fn add_product(
    row: ProductRow,
    cost_stated_at: Option<Arc<str>>,
    now: Arc<str>,
    values: &mut SqliteArguments,
) -> Result<(), BoxDynError> {
    values.add(row.product_id)?;
    values.add(row.name)?;
    values.add(row.category)?;
    values.add(row.brand)?;
    values.add(row.currency)?;
    values.add(row.base_price)?;
    values.add(row.unit_cost)?;
    values.add(row.floor_price)?;
    values.add(row.ceiling_price)?;
    values.add(row.minimum_advertised_price)?;
    values.add(row.attributes)?;
    values.add(cost_stated_at)?;
    values.add(now)
}

fn add_price(write: PriceWrite, texts: &mut Texts, values: &mut SqliteArguments) -> Result<(), BoxDynError> {
    let entry = write.entry;
    values.add(entry.product_id.into_text())?;
    values.add(entry.revision)?;
    values.add(entry.category)?;
    values.add(entry.currency.code())?;
    values.add(entry.base_price.to_string())?;
    values.add(entry.list_price.to_string())?;
    values.add(digits(entry.lowest))?;
    values.add(digits(entry.highest))?;
    values.add(entry.policy_version)?;
    values.add(entry.valid_until.map(instant))?;
    values.add(write.opening_price.to_string())?;
    values.add(texts.of_day(write.opened_on))?;
    values.add(write.changed_at.map(|instant| texts.of(instant)))?;
    values.add(write.streak.map(|streak| streak.moves))?;
    values.add(write.streak.map(|streak| instant(streak.since)))?;
    values.add(texts.of(write.priced_at))?;
    values.add(write.explanation)?;
    values.add(write.explanation_digest)?;
    values.add(write.movement)?;
    values.add(write.held_by)?;
    let (since, reason, rejected_by) = match write.event_hold {
        Some(hold) => (Some(instant(hold.since)), Some(hold.reason), hold.rejected_by),
        None => (None, None, None),
    };
    values.add(since)?;
    values.add(reason)?;
    values.add(rejected_by)
}

fn add_change(
    row: ChangeRow<'_>,
    texts: &mut Texts,
    values: &mut SqliteArguments,
) -> Result<(), BoxDynError> {
    let entry = row.entry;
    values.add(entry.product_id.clone().into_text())?;
    values.add(row.revision)?;
    values.add(digits(row.from))?;
    values.add(row.to.to_string())?;
    values.add(entry.currency.code())?;
    values.add(row.policy_version)?;
    values.add(texts.of_cause(row.cause))?;
    values.add(texts.of(row.at))?;
    values.add(entry.revision)
}

/// Values shared by most rows of a batch, each encoded once.
#[derive(Default)]
struct Texts {
    last: Option<(DateTime<Utc>, Arc<str>)>,
    last_statement: Option<(DateTime<Utc>, Arc<str>)>,
    last_day: Option<(NaiveDate, Arc<str>)>,
    last_cause: Option<Arc<str>>,
}

impl Texts {
    fn of(&mut self, asked: DateTime<Utc>) -> Arc<str> {
        written_once(&mut self.last, asked, || instant(asked))
    }

    fn of_statement(&mut self, asked: DateTime<Utc>) -> Arc<str> {
        written_once(&mut self.last_statement, asked, || instant(asked))
    }

    fn of_day(&mut self, asked: NaiveDate) -> Arc<str> {
        written_once(&mut self.last_day, asked, || asked.to_string())
    }

    fn of_cause(&mut self, cause: &str) -> Arc<str> {
        let cause = bounded_cause(cause);
        match &self.last_cause {
            Some(known) if **known == *cause => Arc::clone(known),
            _ => Arc::clone(self.last_cause.insert(cause.into())),
        }
    }
}

fn written_once<T: PartialEq>(
    last: &mut Option<(T, Arc<str>)>,
    asked: T,
    write: impl FnOnce() -> String,
) -> Arc<str> {
    match last {
        Some((known, text)) if *known == asked => Arc::clone(text),
        _ => {
            let text: Arc<str> = write().into();
            *last = Some((asked, Arc::clone(&text)));
            text
        }
    }
}

/// Splits rows into statements of 500, 256, 128 and so on, and the remaining few in one. Preparing a long
/// statement is slow, so each is cached, and there are few long ones.
fn statement_lengths(mut rows: usize) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let length = match rows {
            0 => return None,
            1..=ROWS_OF_ANY_STATEMENT => rows,
            ROWS_PER_STATEMENT.. => ROWS_PER_STATEMENT,
            fewer => 1 << fewer.checked_ilog2()?,
        };
        rows -= length;
        Some(length)
    })
}
