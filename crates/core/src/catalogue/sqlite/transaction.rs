//! Writing to a SQLite file. The transaction holds the file's lock from its beginning, so its rows need none.
//!
//! An upsert that reads from a SELECT needs a WHERE, even an empty one: without, SQLite takes ON CONFLICT for
//! the ON of a join.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use serde::de::DeserializeOwned;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, Sqlite, query, query_as, query_scalar, query_with};

use super::super::error::CatalogueError;
use super::super::read_rows::{
    PriceRecord, ProductRecord, SignalRecord, assemble_facts, read_all, which_are_new,
};
use super::super::session::Session;
use super::super::stored::{PriceWrite, StoredFacts};
use super::super::write_rows::{
    ChangeRow, PriceRow, ProductRow, as_json_object, bounded_cause, change_rows, event_rows, instant,
    price_rows, product_rows, row_count, signal_rows, texts,
};
use super::commit;
use crate::domain::product::{Product, ProductId};
use crate::domain::signal::Signal;

const PRODUCTS: &str = "
    SELECT json_group_array(json_array(
        product_id, name, category, brand, currency, base_price, unit_cost, floor_price, ceiling_price,
        minimum_advertised_price, json(attributes)))
    FROM products WHERE product_id IN (SELECT value FROM json_each($1))";
const PRICES: &str = "
    SELECT json_group_array(json_array(
        product_id, revision, category, currency, base_price, list_price, lowest, highest, policy_version,
        valid_until, opening_price, opened_on, changed_at, streak_moves, streak_since))
    FROM prices WHERE product_id IN (SELECT value FROM json_each($1))";
const SIGNALS: &str = "
    SELECT json_group_array(json_array(
        subject_kind, subject, kind, source, value, iif(in_stock, json('true'), iif(in_stock = 0, json('false'))),
        observed_at))
    FROM (SELECT * FROM signals
          WHERE subject_kind = 'product' AND subject IN (SELECT value FROM json_each($1))
          UNION ALL
          SELECT * FROM signals
          WHERE subject_kind = 'category' AND subject IN (SELECT value FROM json_each($2)))";
const PUT_PRODUCTS: &str = "
    INSERT INTO products (product_id, name, category, brand, currency, base_price, unit_cost, floor_price,
                          ceiling_price, minimum_advertised_price, attributes, updated_at) ";
const REPLACE_PRODUCT: &str = "
    ON CONFLICT (product_id) DO UPDATE SET
        name = excluded.name, category = excluded.category, brand = excluded.brand,
        currency = excluded.currency, base_price = excluded.base_price, unit_cost = excluded.unit_cost,
        floor_price = excluded.floor_price, ceiling_price = excluded.ceiling_price,
        minimum_advertised_price = excluded.minimum_advertised_price,
        attributes = excluded.attributes, updated_at = excluded.updated_at";
const PUT_SIGNALS: &str = "
    INSERT INTO signals (subject_kind, subject, kind, source, value, in_stock, observed_at)
    SELECT value ->> 'subject_kind', value ->> 'subject', value ->> 'kind', value ->> 'source',
           value ->> 'value', value ->> 'in_stock', value ->> 'observed_at'
    FROM jsonb_each($1) WHERE true
    ON CONFLICT (subject_kind, subject, kind, source) DO UPDATE SET
        value = excluded.value, in_stock = excluded.in_stock, observed_at = excluded.observed_at
    WHERE excluded.observed_at > signals.observed_at";
const RECORD_EVENTS: &str = "
    INSERT INTO applied_events (source, event_id, applied_at)
    SELECT value ->> 'source', value ->> 'event_id', $2 FROM jsonb_each($1) WHERE true
    ON CONFLICT DO NOTHING RETURNING source, event_id";
const NEXT_REVISIONS: &str =
    "UPDATE price_revisions SET last_revision = last_revision + $1 RETURNING last_revision";
const WRITE_PRICES: &str = "
    INSERT INTO prices (product_id, revision, category, currency, base_price, list_price, lowest, highest,
                        policy_version, valid_until, opening_price, opened_on, changed_at, streak_moves,
                        streak_since, priced_at, explanation) ";
const UNLESS_OLDER: &str = "
    ON CONFLICT (product_id) DO UPDATE SET
        revision = excluded.revision, category = excluded.category, currency = excluded.currency,
        base_price = excluded.base_price, list_price = excluded.list_price, lowest = excluded.lowest,
        highest = excluded.highest, policy_version = excluded.policy_version,
        valid_until = excluded.valid_until, opening_price = excluded.opening_price,
        opened_on = excluded.opened_on, changed_at = excluded.changed_at, streak_moves = excluded.streak_moves,
        streak_since = excluded.streak_since, priced_at = excluded.priced_at, explanation = excluded.explanation
    WHERE excluded.revision > prices.revision";
// Only of prices that are in effect now: one that lost to a newer revision was never anybody's price. A change
// that is there already is the same one, written twice.
const WRITE_CHANGES: &str = "
    INSERT INTO price_changes (product_id, revision, old_list_price, new_list_price, currency, policy_version,
                               cause, changed_at)
    SELECT * FROM (";
const OF_PRICES_IN_EFFECT: &str = ")
    WHERE EXISTS (SELECT 1 FROM prices WHERE product_id = column1 AND revision = column2)
    ON CONFLICT DO NOTHING";
const WRITE_REMOVAL: &str = "
    INSERT INTO price_changes (product_id, revision, old_list_price, new_list_price, currency, policy_version,
                               cause, changed_at)
    SELECT product_id, $2, list_price, NULL, currency, policy_version, $3, $4
    FROM prices WHERE product_id = $1";

/// The most rows of a statement; batches of prices come in as many. Of seventeen values each; a statement may have
/// 32,766.
const ROWS_PER_STATEMENT: usize = 250;

/// A transaction on the file's only writer.
#[derive(Debug)]
pub(in super::super) struct SqliteTransaction {
    pub(super) session: Session<Sqlite>,
}

impl SqliteTransaction {
    pub(super) fn new(session: Session<Sqlite>) -> Self {
        Self { session }
    }

    pub(in super::super) async fn lock_products(
        &mut self,
        ids: &[ProductId],
    ) -> Result<Vec<Product>, CatalogueError> {
        products_of(&mut self.session, ids).await
    }

    pub(in super::super) async fn put_products(
        &mut self,
        products: &[Product],
        now: DateTime<Utc>,
    ) -> Result<(), CatalogueError> {
        for rows in pieces(&product_rows(products)) {
            let products = insert_products(rows, now)?;
            self.session.run(|connection| products.execute(connection)).await?;
        }
        Ok(())
    }

    pub(in super::super) async fn facts_of(
        &mut self,
        products: Vec<Product>,
    ) -> Result<Vec<StoredFacts>, CatalogueError> {
        facts_of(&mut self.session, products).await
    }

    pub(in super::super) async fn lock_facts(
        &mut self,
        ids: &[ProductId],
    ) -> Result<Vec<StoredFacts>, CatalogueError> {
        let products = self.lock_products(ids).await?;
        facts_of(&mut self.session, products).await
    }

    pub(in super::super) async fn record_events(
        &mut self,
        events: &[(&str, &str)],
        now: DateTime<Utc>,
    ) -> Result<Vec<bool>, CatalogueError> {
        let record = query_as(RECORD_EVENTS).bind(event_rows(events)?).bind(instant(now));
        let new: Vec<(String, String)> = self.session.run(|connection| record.fetch_all(connection)).await?;
        Ok(which_are_new(events, &new))
    }

    pub(in super::super) async fn put_signals(&mut self, signals: &[Signal]) -> Result<u64, CatalogueError> {
        let put = query(PUT_SIGNALS).bind(signal_rows(signals)?);
        let outcome = self.session.run(|connection| put.execute(connection)).await?;
        Ok(outcome.rows_affected())
    }

    pub(in super::super) async fn next_revisions(
        &mut self,
        count: usize,
    ) -> Result<Vec<i64>, CatalogueError> {
        let count = row_count(count)?;
        let draw = query_scalar(NEXT_REVISIONS).bind(count);
        let last: i64 = self.session.run(|connection| draw.fetch_one(connection)).await?;
        Ok((last - count + 1..=last).collect())
    }

    pub(in super::super) async fn write_prices(
        &mut self,
        writes: &[PriceWrite],
    ) -> Result<(), CatalogueError> {
        for rows in pieces(&price_rows(writes)) {
            let prices = insert_prices(rows)?;
            self.session.run(|connection| prices.execute(connection)).await?;
        }
        for rows in pieces(&change_rows(writes)) {
            let changes = insert_changes(rows)?;
            self.session.run(|connection| changes.execute(connection)).await?;
        }
        Ok(())
    }

    pub(in super::super) async fn delete_product(
        &mut self,
        id: &ProductId,
        revision: i64,
        cause: &str,
        now: DateTime<Utc>,
    ) -> Result<bool, CatalogueError> {
        let removal = query(WRITE_REMOVAL)
            .bind(id.as_str())
            .bind(revision)
            .bind(bounded_cause(cause))
            .bind(instant(now));
        self.session.run(|connection| removal.execute(connection)).await?;
        // The price goes with its product.
        let delete = query("DELETE FROM products WHERE product_id = $1").bind(id.as_str());
        let outcome = self.session.run(|connection| delete.execute(connection)).await?;
        Ok(outcome.rows_affected() > 0)
    }

    pub(in super::super) async fn commit(&mut self) -> Result<(), CatalogueError> {
        commit(&mut self.session).await
    }
}

/// A statement with so many rows of values.
fn with_rows(
    insert: &str,
    rows: usize,
    upsert: &str,
    values: SqliteArguments,
) -> Query<'static, Sqlite, SqliteArguments> {
    let columns = values.len() / rows.max(1);
    let row = format!("({}),", vec!["?"; columns].join(","));
    let all = row.repeat(rows);
    let statement = format!("{insert}VALUES {}{upsert}", all.trim_end_matches(','));
    // Put together from constants.
    query_with(AssertSqlSafe(statement), values)
}

fn insert_products(
    rows: &[ProductRow<'_>],
    now: DateTime<Utc>,
) -> Result<Query<'static, Sqlite, SqliteArguments>, sqlx::Error> {
    let mut values = SqliteArguments::default();
    let mut texts = Texts::default();
    for row in rows {
        let attributes = as_json_object(row.attributes)?;
        let add = |row: &ProductRow<'_>| {
            values.add(row.product_id)?;
            values.add(row.name)?;
            values.add(row.category)?;
            values.add(row.brand)?;
            values.add(row.currency)?;
            values.add(row.base_price.to_string())?;
            values.add(digits(row.unit_cost))?;
            values.add(digits(row.floor_price))?;
            values.add(digits(row.ceiling_price))?;
            values.add(digits(row.minimum_advertised_price))?;
            values.add(attributes)?;
            values.add(texts.of(now))
        };
        add(row).map_err(sqlx::Error::Encode)?;
    }
    Ok(with_rows(PUT_PRODUCTS, rows.len(), REPLACE_PRODUCT, values))
}

fn insert_prices(rows: &[PriceRow<'_>]) -> Result<Query<'static, Sqlite, SqliteArguments>, sqlx::Error> {
    let mut values = SqliteArguments::default();
    let mut texts = Texts::default();
    let mut add = |row: &PriceRow<'_>| {
        values.add(row.product_id)?;
        values.add(row.revision)?;
        values.add(row.category)?;
        values.add(row.currency)?;
        values.add(row.base_price.to_string())?;
        values.add(row.list_price.to_string())?;
        values.add(digits(row.lowest))?;
        values.add(digits(row.highest))?;
        values.add(row.policy_version)?;
        values.add(row.valid_until.map(instant))?;
        values.add(row.opening_price.to_string())?;
        values.add(texts.of_day(row.opened_on))?;
        values.add(row.changed_at.map(|instant| texts.of(instant)))?;
        values.add(row.streak_moves)?;
        values.add(row.streak_since.map(instant))?;
        values.add(texts.of(row.priced_at))?;
        values.add(row.explanation)
    };
    rows.iter().try_for_each(&mut add).map_err(sqlx::Error::Encode)?;
    Ok(with_rows(WRITE_PRICES, rows.len(), UNLESS_OLDER, values))
}

fn insert_changes(rows: &[ChangeRow<'_>]) -> Result<Query<'static, Sqlite, SqliteArguments>, sqlx::Error> {
    let mut values = SqliteArguments::default();
    let mut texts = Texts::default();
    let mut add = |row: &ChangeRow<'_>| {
        values.add(row.product_id)?;
        values.add(row.revision)?;
        values.add(digits(row.old_list_price))?;
        values.add(row.new_list_price.to_string())?;
        values.add(row.currency)?;
        values.add(row.policy_version)?;
        values.add(row.cause)?;
        values.add(texts.of(row.changed_at))
    };
    rows.iter().try_for_each(&mut add).map_err(sqlx::Error::Encode)?;
    Ok(with_rows(WRITE_CHANGES, rows.len(), OF_PRICES_IN_EFFECT, values))
}

fn digits(amount: Option<Decimal>) -> Option<String> {
    amount.map(|amount| amount.to_string())
}

/// Instants and days as text. Most rows of a batch have the same, which is written once.
#[derive(Default)]
struct Texts {
    last: Option<(DateTime<Utc>, Arc<str>)>,
    last_day: Option<(NaiveDate, Arc<str>)>,
}

impl Texts {
    fn of(&mut self, asked: DateTime<Utc>) -> Arc<str> {
        written_once(&mut self.last, asked, || instant(asked))
    }

    fn of_day(&mut self, asked: NaiveDate) -> Arc<str> {
        written_once(&mut self.last_day, asked, || asked.to_string())
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

/// The rows in pieces of 250, then of 128, 64 and so on: a statement of many rows takes long to prepare, so each
/// is kept prepared, and there are few of them.
fn pieces<R>(mut rows: &[R]) -> impl Iterator<Item = &[R]> {
    std::iter::from_fn(move || {
        let length = match rows.len() {
            ROWS_PER_STATEMENT.. => ROWS_PER_STATEMENT,
            fewer => 1 << fewer.checked_ilog2()?,
        };
        let (piece, rest) = rows.split_at_checked(length)?;
        rows = rest;
        Some(piece)
    })
}

/// The products with these identifiers, ordered by them.
pub(super) async fn products_of(
    session: &mut Session<Sqlite>,
    ids: &[ProductId],
) -> Result<Vec<Product>, CatalogueError> {
    let ids = texts(ids.iter().map(ProductId::as_str))?;
    let records: String =
        session.run(|connection| query_scalar(PRODUCTS).bind(ids).fetch_one(connection)).await?;
    let mut products: Vec<Product> = read_all(records_of::<ProductRecord>(&records)?)?;
    products.sort_unstable_by(|one, other| one.product_id.cmp(&other.product_id));
    Ok(products)
}

/// What the prices of these products depend on.
pub(super) async fn facts_of(
    session: &mut Session<Sqlite>,
    products: Vec<Product>,
) -> Result<Vec<StoredFacts>, CatalogueError> {
    let ids = texts(products.iter().map(|product| product.product_id.as_str()))?;
    let categories: BTreeSet<&str> =
        products.iter().filter_map(|product| product.category.as_deref()).collect();
    let signals = query_scalar(SIGNALS).bind(ids.clone()).bind(texts(categories)?);
    let signals: String = session.run(|connection| signals.fetch_one(connection)).await?;
    let prices = query_scalar(PRICES).bind(ids);
    let prices: String = session.run(|connection| prices.fetch_one(connection)).await?;
    let signals = read_all(records_of::<SignalRecord>(&signals)?)?;
    Ok(assemble_facts(products, signals, read_all(records_of::<PriceRecord>(&prices)?)?))
}

/// Records out of the one text that a statement gives: the driver would copy every value of a row by itself, and hand rows
/// over one by one.
fn records_of<R: DeserializeOwned>(json: &str) -> Result<Vec<R>, CatalogueError> {
    serde_json::from_str(json).map_err(|problem| CatalogueError::corrupt("rows as JSON", problem))
}
