//! Prices encoded for PostgreSQL's driver: a column of many rows is an array. Prices are encoded where they
//! are computed, so that the database does not wait.

use sqlx::Arguments;
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;

use super::super::error::StoreError;
use super::super::json_rows::bounded_cause;
use super::super::prepared_rows::{ChangeRow, change_rows, digits};
use super::super::stored::PriceWrite;

/// Columns of `prices` and of `price_changes`.
#[derive(Debug)]
pub(in super::super) struct PostgresPrices {
    /// The number of prices.
    pub(super) count: u64,
    /// `None` if there are no prices.
    pub(super) prices: Option<PgArguments>,
    /// `None` if no list price changes.
    pub(super) changes: Option<PgArguments>,
}

impl PostgresPrices {
    /// Encodes prices, which must be ordered by product with one price each.
    pub(in super::super) fn of(writes: &[PriceWrite]) -> Result<Self, StoreError> {
        let changing: Vec<ChangeRow<'_>> = writes.iter().flat_map(change_rows).collect();
        let written_out = || {
            let prices = (!writes.is_empty()).then(|| price_columns(writes)).transpose()?;
            let changes = (!changing.is_empty()).then(|| change_columns(&changing)).transpose()?;
            Ok(Self { count: writes.len() as u64, prices, changes })
        };
        Ok(written_out().map_err(sqlx::Error::Encode)?)
    }
}

/// Collects one column of the rows. Columns are sent as arrays, which PostgreSQL unpacks faster than JSON.
pub(super) fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

fn price_columns<'a>(writes: &'a [PriceWrite]) -> Result<PgArguments, BoxDynError> {
    let mut columns = PgArguments::default();
    columns.add(column(writes, |write| write.entry.product_id.as_str()))?;
    columns.add(column(writes, |write| write.entry.revision))?;
    columns.add(column(writes, |write| write.entry.category.as_deref()))?;
    columns.add(column(writes, |write| write.entry.currency.code()))?;
    columns.add(column(writes, |write| write.entry.base_price.to_string()))?;
    columns.add(column(writes, |write| write.entry.list_price.to_string()))?;
    columns.add(column(writes, |write| digits(write.entry.lowest)))?;
    columns.add(column(writes, |write| digits(write.entry.highest)))?;
    columns.add(column(writes, |write| write.entry.policy_version))?;
    columns.add(column(writes, |write| write.entry.valid_until))?;
    columns.add(column(writes, |write| write.opening_price.to_string()))?;
    columns.add(column(writes, |write| write.opened_on))?;
    columns.add(column(writes, |write| write.changed_at))?;
    columns.add(column(writes, |write| write.streak.map(|streak| streak.moves)))?;
    columns.add(column(writes, |write| write.streak.map(|streak| streak.since)))?;
    columns.add(column(writes, |write| write.priced_at))?;
    columns.add(column(writes, |write| write.explanation.as_str()))?;
    columns.add(column(writes, |write| write.explanation_digest))?;
    columns.add(column(writes, |write| write.movement.as_deref()))?;
    columns.add(column(writes, |write| write.held_by))?;
    let hold = |write: &'a PriceWrite| write.event_hold.as_ref();
    columns.add(column(writes, |write| hold(write).map(|hold| hold.since)))?;
    columns.add(column(writes, |write| hold(write).map(|hold| hold.reason.as_str())))?;
    columns.add(column(writes, |write| hold(write).and_then(|hold| hold.rejected_by.as_deref())))?;
    Ok(columns)
}

fn change_columns(rows: &[ChangeRow<'_>]) -> Result<PgArguments, BoxDynError> {
    let mut columns = PgArguments::default();
    columns.add(column(rows, |row| row.entry.product_id.as_str()))?;
    columns.add(column(rows, |row| row.revision))?;
    columns.add(column(rows, |row| digits(row.from)))?;
    columns.add(column(rows, |row| row.to.to_string()))?;
    columns.add(column(rows, |row| row.entry.currency.code()))?;
    columns.add(column(rows, |row| row.policy_version))?;
    columns.add(column(rows, |row| bounded_cause(row.cause)))?;
    columns.add(column(rows, |row| row.at))?;
    columns.add(column(rows, |row| row.entry.revision))?;
    Ok(columns)
}
