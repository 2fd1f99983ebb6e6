//! Writing to a PostgreSQL database.
//!
//! Whoever changes a product or its price holds the lock of the product's row. What is read after waiting for
//! it is read by a statement of its own: only that sees what the transaction waited for has committed.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::{Postgres, query, query_as, query_scalar, query_with};

use super::super::error::StoreError;
use super::super::facts::{Products, Rows, UnreadFacts};
use super::super::json_rows::{bounded_cause, event_rows, row_count, signal_rows};
use super::super::prepared_rows::ProductRows;
use super::super::read_rows::{read_currencies, which_are_new};
use super::super::session::Session;
use super::super::stored::Readable;
use super::prepared::{PostgresPrices, column};
use super::{commit, price_columns, product_columns};
use pricing_domain::facts::money::Currency;
use pricing_domain::facts::product::{Product, ProductId};
use pricing_domain::facts::signal::Signal;

const PRODUCTS: &str = concat!(
    "SELECT ",
    product_columns!(),
    " FROM products WHERE product_id = ANY($1) ORDER BY product_id FOR UPDATE"
);
const PRICES: &str = concat!("SELECT ", price_columns!(), " FROM prices WHERE product_id = ANY($1)");
const SIGNALS: &str = "
    SELECT subject_kind, subject, kind, source, value::text, in_stock, observed_at, currency, expires_at,
           event_source
    FROM signals WHERE subject_kind = 'product' AND subject = ANY($1)
    UNION ALL
    SELECT subject_kind, subject, kind, source, value::text, in_stock, observed_at, currency, expires_at,
           event_source
    FROM signals WHERE subject_kind = 'category' AND subject IN (
        SELECT category FROM products WHERE product_id = ANY($1))";
macro_rules! insert_products {
    () => {
        "
    INSERT INTO products (product_id, name, category, brand, currency, base_price, unit_cost, floor_price,
                          ceiling_price, minimum_advertised_price, attributes, updated_at, cost_stated_at)
    SELECT product_id, name, category, brand, currency, base_price::numeric, unit_cost::numeric,
           floor_price::numeric, ceiling_price::numeric, minimum_advertised_price::numeric, attributes::jsonb, $12,
           cost_stated_at
    FROM (SELECT unnest($1::text[]) AS product_id, unnest($2::text[]) AS name, unnest($3::text[]) AS category,
                 unnest($4::text[]) AS brand, unnest($5::text[]) AS currency, unnest($6::text[]) AS base_price,
                 unnest($7::text[]) AS unit_cost, unnest($8::text[]) AS floor_price,
                 unnest($9::text[]) AS ceiling_price, unnest($10::text[]) AS minimum_advertised_price,
                 unnest($11::text[]) AS attributes, unnest($13::timestamptz[]) AS cost_stated_at) AS written"
    };
}
const ADD_PRODUCTS: &str = concat!(insert_products!(), " ON CONFLICT DO NOTHING");
const PUT_PRODUCTS: &str = concat!(
    insert_products!(),
    "
    ON CONFLICT (product_id) DO UPDATE SET
        name = excluded.name, category = excluded.category, brand = excluded.brand,
        currency = excluded.currency, base_price = excluded.base_price, unit_cost = excluded.unit_cost,
        floor_price = excluded.floor_price, ceiling_price = excluded.ceiling_price,
        minimum_advertised_price = excluded.minimum_advertised_price,
        attributes = excluded.attributes, updated_at = excluded.updated_at,
        cost_stated_at = greatest(excluded.cost_stated_at, products.cost_stated_at)"
);
const STATE_COSTS: &str = "
    UPDATE products SET cost_stated_at = $2
    WHERE product_id = ANY($1) AND (cost_stated_at IS NULL OR cost_stated_at < $2)";
const PUT_SIGNALS: &str = "
    INSERT INTO signals (subject_kind, subject, kind, source, value, in_stock, observed_at, currency, expires_at,
                         event_source)
    SELECT subject_kind, subject, kind, source, value, in_stock, observed_at, currency, expires_at, event_source
    FROM json_to_recordset($1::json) AS written (
        subject_kind text, subject text, kind text, source text, value numeric, in_stock boolean,
        observed_at timestamptz, currency text, expires_at timestamptz, event_source text)
    WHERE subject_kind <> 'product' OR NOT (
        EXISTS (SELECT FROM forgotten_facts
                WHERE product_id = subject AND (
                    observed_at <= facts_until
                    OR observed_at <= amounts_until AND written.currency IS NULL
                       AND kind IN ('competitor_price', 'unit_cost')))
        OR EXISTS (SELECT FROM products WHERE product_id = subject AND products.currency <> written.currency))
    ON CONFLICT (subject_kind, subject, kind, source) DO UPDATE SET
        value = excluded.value, in_stock = excluded.in_stock, observed_at = excluded.observed_at,
        currency = excluded.currency, expires_at = excluded.expires_at, event_source = excluded.event_source
    WHERE excluded.observed_at > signals.observed_at";
// Waits for a transaction that is recording one of these events: whether it commits decides whether it was
// new.
const RECORD_EVENTS: &str = "
    INSERT INTO applied_events (source, event_id, applied_at)
    SELECT source, event_id, $2 FROM json_to_recordset($1::json) AS written (source text, event_id text)
    ON CONFLICT DO NOTHING RETURNING source, event_id";
const NEXT_REVISIONS: &str = "SELECT nextval('price_revisions') FROM generate_series(1, $1)";
const WRITE_PRICES: &str = "
    INSERT INTO prices (product_id, revision, category, currency, base_price, list_price, lowest, highest,
                        policy_version, valid_until, opening_price, opened_on, changed_at, streak_moves,
                        streak_since, priced_at, explanation, explanation_digest)
    SELECT product_id, revision, category, currency, base_price::numeric, list_price::numeric, lowest::numeric,
           highest::numeric, policy_version, valid_until, opening_price::numeric, opened_on, changed_at,
           streak_moves, streak_since, priced_at, explanation, explanation_digest
    FROM (SELECT unnest($1::text[]) AS product_id, unnest($2::bigint[]) AS revision,
                 unnest($3::text[]) AS category, unnest($4::text[]) AS currency,
                 unnest($5::text[]) AS base_price, unnest($6::text[]) AS list_price,
                 unnest($7::text[]) AS lowest, unnest($8::text[]) AS highest,
                 unnest($9::bigint[]) AS policy_version, unnest($10::timestamptz[]) AS valid_until,
                 unnest($11::text[]) AS opening_price, unnest($12::date[]) AS opened_on,
                 unnest($13::timestamptz[]) AS changed_at, unnest($14::integer[]) AS streak_moves,
                 unnest($15::timestamptz[]) AS streak_since, unnest($16::timestamptz[]) AS priced_at,
                 unnest($17::text[]) AS explanation, unnest($18::bigint[]) AS explanation_digest) AS written
    ON CONFLICT (product_id) DO UPDATE SET
        revision = excluded.revision, category = excluded.category, currency = excluded.currency,
        base_price = excluded.base_price, list_price = excluded.list_price, lowest = excluded.lowest,
        highest = excluded.highest, policy_version = excluded.policy_version,
        valid_until = excluded.valid_until, opening_price = excluded.opening_price,
        opened_on = excluded.opened_on, changed_at = excluded.changed_at, streak_moves = excluded.streak_moves,
        streak_since = excluded.streak_since, priced_at = excluded.priced_at, explanation = excluded.explanation,
        explanation_digest = excluded.explanation_digest
    WHERE excluded.revision > prices.revision
          OR excluded.revision = prices.revision AND excluded.list_price = prices.list_price
             AND excluded.explanation_digest IS DISTINCT FROM prices.explanation_digest";
macro_rules! write_changes {
    () => {
        "
    INSERT INTO price_changes (product_id, revision, old_list_price, new_list_price, currency, policy_version,
                               cause, changed_at)
    SELECT product_id, revision, old_list_price::numeric, new_list_price::numeric, currency, policy_version, cause,
           changed_at
    FROM (SELECT unnest($1::text[]) AS product_id, unnest($2::bigint[]) AS revision,
                 unnest($3::text[]) AS old_list_price, unnest($4::text[]) AS new_list_price,
                 unnest($5::text[]) AS currency, unnest($6::bigint[]) AS policy_version,
                 unnest($7::text[]) AS cause, unnest($8::timestamptz[]) AS changed_at) AS written"
    };
}
// Of prices that all took effect: their revisions are new. To be ready for one that is not takes twice as
// long.
const WRITE_CHANGES: &str = write_changes!();
// Only of prices that are in effect now: one that lost to a newer revision was never anybody's price. A
// change that is there already is the same one, written twice.
const WRITE_CHANGES_IN_EFFECT: &str = concat!(
    write_changes!(),
    "
    WHERE EXISTS (SELECT 1 FROM prices
                  WHERE prices.product_id = written.product_id AND prices.revision = written.revision)
    ON CONFLICT DO NOTHING"
);
const FORGET_AMOUNTS: &str = "
    DELETE FROM signals USING unnest($1::text[], $2::text[]) AS changed (product_id, new_currency)
    WHERE subject_kind = 'product' AND subject = product_id AND kind IN ('competitor_price', 'unit_cost')
          AND (currency IS NULL OR currency <> new_currency)";
const FORGET_LATE_AMOUNTS: &str = "
    INSERT INTO forgotten_facts (product_id, amounts_until, currency)
    SELECT product_id, $3, new_currency FROM unnest($1::text[], $2::text[]) AS changed (product_id, new_currency)
    ON CONFLICT (product_id) DO UPDATE SET amounts_until = excluded.amounts_until, currency = excluded.currency";
const FORGET_LATE_FACTS: &str = "
    INSERT INTO forgotten_facts (product_id, facts_until, currency)
    SELECT product_id, $2, currency FROM products WHERE product_id = $1
    ON CONFLICT (product_id) DO UPDATE SET facts_until = excluded.facts_until, currency = excluded.currency";
const DROP_FORGOTTEN: &str = "
    DELETE FROM signals USING forgotten_facts
    WHERE subject_kind = 'product' AND subject = ANY($1) AND product_id = subject AND observed_at <= facts_until";
const LAST_CURRENCIES: &str = "
    SELECT product_id, currency FROM forgotten_facts WHERE product_id = ANY($1)";
const WRITE_REMOVAL: &str = "
    INSERT INTO price_changes (product_id, revision, old_list_price, new_list_price, currency, policy_version,
                               cause, changed_at)
    SELECT product_id, $2, list_price, NULL, currency, policy_version, $3, $4
    FROM prices WHERE product_id = $1";

/// A transaction.
#[derive(Debug)]
pub(in super::super) struct PostgresTransaction {
    pub(super) session: Session<Postgres>,
}

impl PostgresTransaction {
    pub(super) fn new(session: Session<Postgres>) -> Self {
        Self { session }
    }

    pub(in super::super) async fn lock_products(
        &mut self,
        ids: &[ProductId],
    ) -> Result<Readable<Product>, StoreError> {
        let ids: Vec<&str> = ids.iter().map(ProductId::as_str).collect();
        products_of(&mut self.session, &ids).await?.read_in_order()
    }

    pub(in super::super) async fn put_products(
        &mut self,
        products: ProductRows,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        self.insert_products(PUT_PRODUCTS, &products, now).await?;
        Ok(())
    }

    pub(in super::super) async fn add_products(
        &mut self,
        products: ProductRows,
        now: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        self.insert_products(ADD_PRODUCTS, &products, now).await
    }

    async fn insert_products(
        &mut self,
        statement: &'static str,
        products: &ProductRows,
        now: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        let rows = &products.rows;
        if rows.is_empty() {
            return Ok(0);
        }
        let insert = query(statement)
            .bind(column(rows, |row| &row.product_id))
            .bind(column(rows, |row| &row.name))
            .bind(column(rows, |row| &row.category))
            .bind(column(rows, |row| &row.brand))
            .bind(column(rows, |row| row.currency))
            .bind(column(rows, |row| &row.base_price))
            .bind(column(rows, |row| &row.unit_cost))
            .bind(column(rows, |row| &row.floor_price))
            .bind(column(rows, |row| &row.ceiling_price))
            .bind(column(rows, |row| &row.minimum_advertised_price))
            .bind(column(rows, |row| &row.attributes))
            .bind(now)
            .bind(column(rows, |row| row.cost_stated_at));
        let outcome = self.session.run(|connection| insert.execute(connection)).await?;
        Ok(outcome.rows_affected())
    }

    pub(in super::super) async fn lock_facts(
        &mut self,
        ids: &[ProductId],
    ) -> Result<UnreadFacts, StoreError> {
        let ids: Vec<&str> = ids.iter().map(ProductId::as_str).collect();
        let products = products_of(&mut self.session, &ids).await?;
        facts_of(&mut self.session, &ids, products).await
    }

    pub(in super::super) async fn facts_of(
        &mut self,
        products: Vec<Product>,
    ) -> Result<UnreadFacts, StoreError> {
        let ids: Vec<ProductId> = products.iter().map(|product| product.product_id.clone()).collect();
        let ids: Vec<&str> = ids.iter().map(ProductId::as_str).collect();
        facts_of(&mut self.session, &ids, Products::Known(products)).await
    }

    pub(in super::super) async fn record_events(
        &mut self,
        events: &[(&str, &str)],
        now: DateTime<Utc>,
    ) -> Result<Vec<bool>, StoreError> {
        let record = query_as(RECORD_EVENTS).bind(event_rows(events)?).bind(now);
        let new: Vec<(String, String)> = self.session.run(|connection| record.fetch_all(connection)).await?;
        Ok(which_are_new(events, &new))
    }

    pub(in super::super) async fn put_signals(&mut self, signals: &[Signal]) -> Result<u64, StoreError> {
        let put = query(PUT_SIGNALS).bind(signal_rows(signals)?);
        let outcome = self.session.run(|connection| put.execute(connection)).await?;
        Ok(outcome.rows_affected())
    }

    pub(in super::super) async fn state_costs(
        &mut self,
        ids: &[&str],
        stated_at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let state = query(STATE_COSTS).bind(ids).bind(stated_at);
        self.session.run(|connection| state.execute(connection)).await?;
        Ok(())
    }

    pub(in super::super) async fn forget_amounts(
        &mut self,
        products: &[(ProductId, Currency)],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let ids = column(products, |(id, _)| id.as_str());
        let currencies = column(products, |(_, currency)| currency.code());
        let late = query(FORGET_LATE_AMOUNTS).bind(&ids).bind(&currencies).bind(now);
        self.session.run(|connection| late.execute(connection)).await?;
        let forget = query(FORGET_AMOUNTS).bind(&ids).bind(&currencies);
        self.session.run(|connection| forget.execute(connection)).await?;
        Ok(())
    }

    pub(in super::super) async fn drop_forgotten(&mut self, ids: &[ProductId]) -> Result<(), StoreError> {
        let drop = query(DROP_FORGOTTEN).bind(column(ids, ProductId::as_str));
        self.session.run(|connection| drop.execute(connection)).await?;
        Ok(())
    }

    pub(in super::super) async fn last_currencies(
        &mut self,
        ids: &[ProductId],
    ) -> Result<HashMap<ProductId, Option<Currency>>, StoreError> {
        let currencies = query_as(LAST_CURRENCIES).bind(column(ids, ProductId::as_str));
        read_currencies(self.session.run(|connection| currencies.fetch_all(connection)).await?)
    }

    pub(in super::super) async fn next_revisions(&mut self, count: usize) -> Result<Vec<i64>, StoreError> {
        let draw = query_scalar(NEXT_REVISIONS).bind(row_count(count)?);
        let mut revisions: Vec<i64> = self.session.run(|connection| draw.fetch_all(connection)).await?;
        // The order of rows without an ORDER BY is nobody's promise.
        revisions.sort_unstable();
        Ok(revisions)
    }

    pub(in super::super) async fn write_prices(&mut self, written: PostgresPrices) -> Result<(), StoreError> {
        let PostgresPrices { count, prices, changes } = written;
        let Some(prices) = prices else { return Ok(()) };
        let write = query_with(WRITE_PRICES, prices);
        let written = self.session.run(|connection| write.execute(connection)).await?;
        if let Some(changes) = changes {
            let all_in_effect = written.rows_affected() == count;
            let write_changes = if all_in_effect { WRITE_CHANGES } else { WRITE_CHANGES_IN_EFFECT };
            let write = query_with(write_changes, changes);
            self.session.run(|connection| write.execute(connection)).await?;
        }
        Ok(())
    }

    pub(in super::super) async fn delete_product(
        &mut self,
        id: &ProductId,
        revision: i64,
        cause: &str,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let removal =
            query(WRITE_REMOVAL).bind(id.as_str()).bind(revision).bind(bounded_cause(cause)).bind(now);
        self.session.run(|connection| removal.execute(connection)).await?;
        let late = query(FORGET_LATE_FACTS).bind(id.as_str()).bind(now);
        self.session.run(|connection| late.execute(connection)).await?;
        self.drop_forgotten(std::slice::from_ref(id)).await?;
        // The price goes with its product.
        let delete = query("DELETE FROM products WHERE product_id = $1").bind(id.as_str());
        let outcome = self.session.run(|connection| delete.execute(connection)).await?;
        Ok(outcome.rows_affected() > 0)
    }

    pub(in super::super) async fn commit(&mut self) -> Result<(), StoreError> {
        commit(&mut self.session).await
    }
}

/// Locks the products with these identifiers.
async fn products_of(session: &mut Session<Postgres>, ids: &[&str]) -> Result<Products, StoreError> {
    let products = query(PRODUCTS).bind(ids);
    Ok(Products::of(Rows::Records(session.run(|connection| products.fetch_all(connection)).await?)))
}

/// What the prices of these products depend on.
pub(super) async fn facts_of(
    session: &mut Session<Postgres>,
    ids: &[&str],
    products: Products,
) -> Result<UnreadFacts, StoreError> {
    let signals = query(SIGNALS).bind(ids);
    let signals = session.run(|connection| signals.fetch_all(connection)).await?;
    let prices = query(PRICES).bind(ids);
    let prices = session.run(|connection| prices.fetch_all(connection)).await?;
    Ok(UnreadFacts { products, signals: Rows::Records(signals), prices: Rows::Records(prices) })
}
