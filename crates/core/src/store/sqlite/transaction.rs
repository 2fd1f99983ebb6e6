//! Writing to a SQLite file. The transaction holds the file's lock from its beginning, so its rows need none.
//!
//! An upsert that reads from a SELECT needs a WHERE, even an empty one: without, SQLite takes ON CONFLICT for
//! the ON of a join.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::{Sqlite, query, query_as, query_scalar};

use super::super::error::StoreError;
use super::super::facts::UnreadFacts;
use super::super::json_rows::{bounded_cause, event_rows, instant, row_count, signal_rows, texts};
use super::super::prepared_rows::ProductRows;
use super::super::read_rows::{read_currencies, which_are_new};
use super::super::session::Session;
use super::super::stored::Readable;
use super::commit;
use super::facts::{facts_named, facts_of, products_named};
use super::prepared::{SqlitePrices, product_rows};
use pricing_domain::facts::money::Currency;
use pricing_domain::facts::product::{Product, ProductId};
use pricing_domain::facts::signal::Signal;

const PUT_PRODUCTS: &str = "
    INSERT INTO products (product_id, name, category, brand, currency, base_price, unit_cost, floor_price,
                          ceiling_price, minimum_advertised_price, attributes, cost_stated_at, updated_at) ";
const REPLACE_PRODUCT: &str = "
    ON CONFLICT (product_id) DO UPDATE SET
        name = excluded.name, category = excluded.category, brand = excluded.brand,
        currency = excluded.currency, base_price = excluded.base_price, unit_cost = excluded.unit_cost,
        floor_price = excluded.floor_price, ceiling_price = excluded.ceiling_price,
        minimum_advertised_price = excluded.minimum_advertised_price,
        attributes = excluded.attributes, updated_at = excluded.updated_at,
        cost_stated_at = max(coalesce(excluded.cost_stated_at, products.cost_stated_at),
                             coalesce(products.cost_stated_at, excluded.cost_stated_at))";
const STATE_COSTS: &str = "
    UPDATE products SET cost_stated_at = $2
    WHERE product_id IN (SELECT value FROM json_each($1)) AND (cost_stated_at IS NULL OR cost_stated_at < $2)";
const PUT_SIGNALS: &str = "
    INSERT INTO signals (subject_kind, subject, kind, source, value, in_stock, observed_at, currency, expires_at,
                         event_source)
    SELECT value ->> 'subject_kind', value ->> 'subject', value ->> 'kind', value ->> 'source',
           value ->> 'value', value ->> 'in_stock', value ->> 'observed_at', value ->> 'currency',
           value ->> 'expires_at', value ->> 'event_source'
    FROM jsonb_each($1)
    WHERE value ->> 'subject_kind' <> 'product' OR NOT (
        EXISTS (SELECT 1 FROM forgotten_facts
                WHERE product_id = value ->> 'subject' AND (
                    value ->> 'observed_at' <= facts_until
                    OR value ->> 'observed_at' <= amounts_until AND value ->> 'currency' IS NULL
                       AND value ->> 'kind' IN ('competitor_price', 'unit_cost')))
        OR EXISTS (SELECT 1 FROM products
                   WHERE product_id = value ->> 'subject' AND currency <> value ->> 'currency'))
    ON CONFLICT (subject_kind, subject, kind, source) DO UPDATE SET
        value = excluded.value, in_stock = excluded.in_stock, observed_at = excluded.observed_at,
        currency = excluded.currency, expires_at = excluded.expires_at, event_source = excluded.event_source
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
                        streak_since, priced_at, explanation, explanation_digest) ";
const UNLESS_OLDER: &str = "
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
             AND excluded.explanation_digest IS NOT prices.explanation_digest";
// A change that is there already is the same one, written twice.
const WRITE_CHANGES: (&str, &str) = (
    "
    INSERT INTO price_changes (product_id, revision, old_list_price, new_list_price, currency, policy_version,
                               cause, changed_at) ",
    "
    ON CONFLICT DO NOTHING",
);
// Only of prices that are in effect now: one that lost to a newer revision was never anybody's price.
const WRITE_CHANGES_IN_EFFECT: (&str, &str) = (
    "
    INSERT INTO price_changes (product_id, revision, old_list_price, new_list_price, currency, policy_version,
                               cause, changed_at)
    SELECT * FROM (",
    ")
    WHERE EXISTS (SELECT 1 FROM prices WHERE product_id = column1 AND revision = column2)
    ON CONFLICT DO NOTHING",
);
const FORGET_AMOUNTS: &str = "
    DELETE FROM signals
    WHERE subject_kind = 'product' AND subject = $1 AND kind IN ('competitor_price', 'unit_cost')
          AND (currency IS NULL OR currency <> $2)";
const FORGET_LATE_AMOUNTS: &str = "
    INSERT INTO forgotten_facts (product_id, amounts_until, currency) VALUES ($1, $3, $2)
    ON CONFLICT (product_id) DO UPDATE SET amounts_until = excluded.amounts_until, currency = excluded.currency";
const FORGET_LATE_FACTS: &str = "
    INSERT INTO forgotten_facts (product_id, facts_until, currency)
    SELECT product_id, $2, currency FROM products WHERE product_id = $1
    ON CONFLICT (product_id) DO UPDATE SET facts_until = excluded.facts_until, currency = excluded.currency";
const DROP_FORGOTTEN: &str = "
    DELETE FROM signals
    WHERE subject_kind = 'product' AND subject IN (SELECT value FROM json_each($1)) AND EXISTS (
        SELECT 1 FROM forgotten_facts WHERE product_id = subject AND observed_at <= facts_until)";
const LAST_CURRENCIES: &str = "
    SELECT product_id, currency FROM forgotten_facts
    WHERE product_id IN (SELECT value FROM json_each($1)) ORDER BY product_id";
const WRITE_REMOVAL: &str = "
    INSERT INTO price_changes (product_id, revision, old_list_price, new_list_price, currency, policy_version,
                               cause, changed_at)
    SELECT product_id, $2, list_price, NULL, currency, policy_version, $3, $4
    FROM prices WHERE product_id = $1";

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
    ) -> Result<Readable<Product>, StoreError> {
        products_named(&mut self.session, ids).await?.read_in_order()
    }

    pub(in super::super) async fn put_products(
        &mut self,
        products: ProductRows,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        for rows in product_rows(products, now)? {
            let put = rows.into_query(PUT_PRODUCTS, REPLACE_PRODUCT);
            self.session.run(|connection| put.execute(connection)).await?;
        }
        Ok(())
    }

    pub(in super::super) async fn add_products(
        &mut self,
        products: ProductRows,
        now: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        let mut added = 0;
        for rows in product_rows(products, now)? {
            let add = rows.into_query(PUT_PRODUCTS, "ON CONFLICT DO NOTHING");
            added += self.session.run(|connection| add.execute(connection)).await?.rows_affected();
        }
        Ok(added)
    }

    pub(in super::super) async fn facts_of(
        &mut self,
        products: Vec<Product>,
    ) -> Result<UnreadFacts, StoreError> {
        facts_of(&mut self.session, products).await
    }

    pub(in super::super) async fn lock_facts(
        &mut self,
        ids: &[ProductId],
    ) -> Result<UnreadFacts, StoreError> {
        facts_named(&mut self.session, ids).await
    }

    pub(in super::super) async fn record_events(
        &mut self,
        events: &[(&str, &str)],
        now: DateTime<Utc>,
    ) -> Result<Vec<bool>, StoreError> {
        let record = query_as(RECORD_EVENTS).bind(event_rows(events)?).bind(instant(now));
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
        let state = query(STATE_COSTS).bind(texts(ids.iter().copied())?).bind(instant(stated_at));
        self.session.run(|connection| state.execute(connection)).await?;
        Ok(())
    }

    pub(in super::super) async fn forget_amounts(
        &mut self,
        products: &[(ProductId, Currency)],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        for (id, currency) in products {
            let late = query(FORGET_LATE_AMOUNTS).bind(id.as_str()).bind(currency.code()).bind(instant(now));
            self.session.run(|connection| late.execute(connection)).await?;
            let forget = query(FORGET_AMOUNTS).bind(id.as_str()).bind(currency.code());
            self.session.run(|connection| forget.execute(connection)).await?;
        }
        Ok(())
    }

    pub(in super::super) async fn drop_forgotten(&mut self, ids: &[ProductId]) -> Result<(), StoreError> {
        let drop = query(DROP_FORGOTTEN).bind(texts(ids.iter().map(ProductId::as_str))?);
        self.session.run(|connection| drop.execute(connection)).await?;
        Ok(())
    }

    pub(in super::super) async fn last_currencies(
        &mut self,
        ids: &[ProductId],
    ) -> Result<HashMap<ProductId, Option<Currency>>, StoreError> {
        let currencies = query_as(LAST_CURRENCIES).bind(texts(ids.iter().map(ProductId::as_str))?);
        read_currencies(self.session.run(|connection| currencies.fetch_all(connection)).await?)
    }

    pub(in super::super) async fn next_revisions(&mut self, count: usize) -> Result<Vec<i64>, StoreError> {
        let count = row_count(count)?;
        let draw = query_scalar(NEXT_REVISIONS).bind(count);
        let last: i64 = self.session.run(|connection| draw.fetch_one(connection)).await?;
        Ok((last - count + 1..=last).collect())
    }

    pub(in super::super) async fn write_prices(&mut self, written: SqlitePrices) -> Result<(), StoreError> {
        let SqlitePrices { count, prices, changes } = written;
        let mut in_effect = 0;
        for rows in prices {
            let write = rows.into_query(WRITE_PRICES, UNLESS_OLDER);
            let written = self.session.run(|connection| write.execute(connection)).await?;
            in_effect += written.rows_affected();
        }
        let (insert, unless) = if in_effect == count { WRITE_CHANGES } else { WRITE_CHANGES_IN_EFFECT };
        for rows in changes {
            let write = rows.into_query(insert, unless);
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
        let removal = query(WRITE_REMOVAL)
            .bind(id.as_str())
            .bind(revision)
            .bind(bounded_cause(cause))
            .bind(instant(now));
        self.session.run(|connection| removal.execute(connection)).await?;
        let late = query(FORGET_LATE_FACTS).bind(id.as_str()).bind(instant(now));
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
