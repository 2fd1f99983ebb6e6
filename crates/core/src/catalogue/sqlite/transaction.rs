//! Writing to a SQLite file. The transaction holds the file's lock from its beginning, so its rows need none.
//!
//! An upsert that reads from a SELECT needs a WHERE, even an empty one: without, SQLite takes ON CONFLICT for
//! the ON of a join.

use chrono::{DateTime, Utc};
use sqlx::{QueryBuilder, Sqlite, query, query_as, query_scalar};

use super::super::error::CatalogueError;
use super::super::read_rows::{
    PriceRecord, ProductRecord, SignalRecord, assemble_facts, read_all, which_are_new,
};
use super::super::session::Session;
use super::super::stored::{PriceWrite, StoredFacts};
use super::super::write_rows::{
    ChangeRow, PriceRow, bounded_cause, change_rows, event_rows, instant, price_rows, product_rows,
    row_count, signal_rows, texts,
};
use super::{commit, price_columns, product_columns};
use crate::domain::product::{Product, ProductId};
use crate::domain::signal::Signal;

const PRODUCTS: &str = concat!(
    "SELECT ",
    product_columns!(),
    " FROM products WHERE product_id IN (SELECT value FROM json_each($1)) ORDER BY product_id"
);
const PRICES: &str = concat!(
    "SELECT ",
    price_columns!(),
    " FROM prices WHERE product_id IN (SELECT value FROM json_each($1))"
);
const SIGNALS: &str = "
    SELECT subject_kind, subject, kind, source, value, in_stock, observed_at
    FROM signals WHERE subject_kind = 'product' AND subject IN (SELECT value FROM json_each($1))
    UNION ALL
    SELECT subject_kind, subject, kind, source, value, in_stock, observed_at
    FROM signals WHERE subject_kind = 'category' AND subject IN (SELECT value FROM json_each($2))";
const PUT_PRODUCTS: &str = "
    INSERT INTO products (product_id, name, category, brand, currency, base_price, unit_cost, floor_price,
                          ceiling_price, minimum_advertised_price, attributes, updated_at)
    SELECT value ->> 'product_id', value ->> 'name', value ->> 'category', value ->> 'brand',
           value ->> 'currency', value ->> 'base_price', value ->> 'unit_cost', value ->> 'floor_price',
           value ->> 'ceiling_price', value ->> 'minimum_advertised_price', value ->> 'attributes', $2
    FROM jsonb_each($1) WHERE true
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

/// The most rows of a statement: of seventeen values each, and a statement may have 32,766.
const ROWS_PER_STATEMENT: usize = 1_024;

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
        let ids = texts(ids.iter().map(ProductId::as_str))?;
        let records: Vec<ProductRecord> =
            self.session.run(|connection| query_as(PRODUCTS).bind(ids).fetch_all(connection)).await?;
        read_all(records)
    }

    pub(in super::super) async fn put_products(
        &mut self,
        products: &[Product],
        now: DateTime<Utc>,
    ) -> Result<(), CatalogueError> {
        let put = query(PUT_PRODUCTS).bind(product_rows(products)?).bind(instant(now));
        self.session.run(|connection| put.execute(connection)).await?;
        Ok(())
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
        for rows in powers_of_two(&price_rows(writes)) {
            let mut prices = insert_prices(rows);
            let prices = prices.build();
            self.session.run(|connection| prices.execute(connection)).await?;
        }
        for rows in powers_of_two(&change_rows(writes)) {
            let mut changes = insert_changes(rows);
            let changes = changes.build();
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

fn insert_prices(rows: &[PriceRow<'_>]) -> QueryBuilder<Sqlite> {
    let mut statement = QueryBuilder::new(WRITE_PRICES);
    statement.push_values(rows, |mut values, row| {
        values
            .push_bind(row.product_id.to_owned())
            .push_bind(row.revision)
            .push_bind(row.category.map(str::to_owned))
            .push_bind(row.currency)
            .push_bind(row.base_price.to_string())
            .push_bind(row.list_price.to_string())
            .push_bind(row.lowest.map(|amount| amount.to_string()))
            .push_bind(row.highest.map(|amount| amount.to_string()))
            .push_bind(row.policy_version)
            .push_bind(row.valid_until.map(instant))
            .push_bind(row.opening_price.to_string())
            .push_bind(row.opened_on)
            .push_bind(row.changed_at.map(instant))
            .push_bind(row.streak_moves)
            .push_bind(row.streak_since.map(instant))
            .push_bind(instant(row.priced_at))
            .push_bind(row.explanation.to_owned());
    });
    statement.push(UNLESS_OLDER);
    statement
}

fn insert_changes(rows: &[ChangeRow<'_>]) -> QueryBuilder<Sqlite> {
    let mut statement = QueryBuilder::new(WRITE_CHANGES);
    statement.push_values(rows, |mut values, row| {
        values
            .push_bind(row.product_id.to_owned())
            .push_bind(row.revision)
            .push_bind(row.old_list_price.map(|amount| amount.to_string()))
            .push_bind(row.new_list_price.to_string())
            .push_bind(row.currency)
            .push_bind(row.policy_version)
            .push_bind(row.cause.to_owned())
            .push_bind(instant(row.changed_at));
    });
    statement.push(OF_PRICES_IN_EFFECT);
    statement
}

/// The rows in pieces of 1,024, 512 and so on: a statement of many rows takes long to prepare, so each is kept prepared,
/// and there are few of them.
fn powers_of_two<R>(mut rows: &[R]) -> impl Iterator<Item = &[R]> {
    std::iter::from_fn(move || {
        let length = 1 << rows.len().min(ROWS_PER_STATEMENT).checked_ilog2()?;
        let (piece, rest) = rows.split_at_checked(length)?;
        rows = rest;
        Some(piece)
    })
}

/// What the prices of these products depend on.
pub(super) async fn facts_of(
    session: &mut Session<Sqlite>,
    products: Vec<Product>,
) -> Result<Vec<StoredFacts>, CatalogueError> {
    let ids = texts(products.iter().map(|product| product.product_id.as_str()))?;
    let categories = texts(products.iter().filter_map(|product| product.category.as_deref()))?;
    let signals = query_as(SIGNALS).bind(&ids).bind(&categories);
    let signals: Vec<SignalRecord> = session.run(|connection| signals.fetch_all(connection)).await?;
    let prices = query_as(PRICES).bind(&ids);
    let prices: Vec<PriceRecord> = session.run(|connection| prices.fetch_all(connection)).await?;
    Ok(assemble_facts(products, read_all(signals)?, read_all(prices)?))
}
