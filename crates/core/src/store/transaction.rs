//! Writes facts and prices in atomic transactions.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tracing::Span;

use super::bulk;
use super::error::StoreError;
use super::facts::UnreadFacts;
use super::json_rows::{bounded_cause, event_rows, row_count, signal_rows};
use super::prepared_rows::{PreparedPrices, ProductRows};
use super::read_rows::{read_currencies, which_are_new};
use super::session::Session;
use super::statement::{Statement, Value};
use super::stored::Readable;
use super::unserved::{Unserved, Written};
use crate::catalogue::Catalogue;
use crate::telemetry::spans;
use pricing_domain::facts::money::Currency;
use pricing_domain::facts::product::{Product, ProductId};
use pricing_domain::facts::signal::Signal;

const STATE_COSTS: Statement = Statement {
    sqlite:
        "
    UPDATE products SET cost_stated_at = $2
    WHERE product_id IN (SELECT value FROM json_each($1)) AND (cost_stated_at IS NULL OR cost_stated_at < $2)",
    postgres: "
    UPDATE products SET cost_stated_at = $2
    WHERE product_id = ANY($1) AND (cost_stated_at IS NULL OR cost_stated_at < $2)",
};
const PUT_SIGNALS: Statement = Statement {
    sqlite: "
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
    WHERE excluded.observed_at > signals.observed_at",
    postgres: "
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
    WHERE excluded.observed_at > signals.observed_at",
};
/// PostgreSQL waits for a transaction that is recording one of these events: whether it commits decides
/// whether the event was new. A SQLite upsert from a SELECT needs a WHERE clause, even a trivial one:
/// otherwise SQLite parses ON CONFLICT as the ON of a join.
const RECORD_EVENTS: Statement = Statement {
    sqlite: "
    INSERT INTO applied_events (source, event_id, applied_at)
    SELECT value ->> 'source', value ->> 'event_id', $2 FROM jsonb_each($1) WHERE true
    ON CONFLICT DO NOTHING RETURNING source, event_id",
    postgres: "
    INSERT INTO applied_events (source, event_id, applied_at)
    SELECT source, event_id, $2 FROM json_to_recordset($1::json) AS written (source text, event_id text)
    ON CONFLICT DO NOTHING RETURNING source, event_id",
};
const FORGET_AMOUNTS: Statement = Statement::same(
    "
    DELETE FROM signals
    WHERE subject_kind = 'product' AND subject = $1 AND kind IN ('competitor_price', 'unit_cost')
          AND (currency IS NULL OR currency <> $2)",
);
const FORGET_LATE_AMOUNTS: Statement = Statement::same(
    "
    INSERT INTO forgotten_facts (product_id, amounts_until, currency) VALUES ($1, $3, $2)
    ON CONFLICT (product_id) DO UPDATE SET amounts_until = excluded.amounts_until, currency = excluded.currency",
);
const FORGET_LATE_FACTS: Statement = Statement::same(
    "
    INSERT INTO forgotten_facts (product_id, facts_until, currency)
    SELECT product_id, $2, currency FROM products WHERE product_id = $1
    ON CONFLICT (product_id) DO UPDATE SET facts_until = excluded.facts_until, currency = excluded.currency",
);
const DROP_FORGOTTEN: Statement = Statement {
    sqlite: "
    DELETE FROM signals
    WHERE subject_kind = 'product' AND subject IN (SELECT value FROM json_each($1)) AND EXISTS (
        SELECT 1 FROM forgotten_facts WHERE product_id = subject AND observed_at <= facts_until)",
    postgres: "
    DELETE FROM signals USING forgotten_facts
    WHERE subject_kind = 'product' AND subject = ANY($1) AND product_id = subject AND observed_at <= facts_until",
};
const LAST_CURRENCIES: Statement = Statement {
    sqlite: "
    SELECT product_id, currency FROM forgotten_facts
    WHERE product_id IN (SELECT value FROM json_each($1)) ORDER BY product_id",
    postgres: "SELECT product_id, currency FROM forgotten_facts WHERE product_id = ANY($1)",
};
const WRITE_REMOVAL: Statement = Statement::same(
    "
    INSERT INTO price_changes (product_id, revision, old_list_price, new_list_price, currency, policy_version,
                               cause, changed_at)
    SELECT product_id, $2, list_price, NULL, currency, policy_version, $3, $4
    FROM prices WHERE product_id = $1",
);
const DELETE_EVENT_MOVE: Statement = Statement::same("DELETE FROM event_moves WHERE product_id = $1");
const DELETE_PRODUCT: Statement = Statement::same("DELETE FROM products WHERE product_id = $1");

/// A transaction. Dropped without [`commit`](Self::commit), it is rolled back.
///
/// Every statement takes any number of rows; the caller bounds its batches. There are no deadlocks if each
/// transaction follows this order: it records events, writes signals, requests a recalculation or locks its
/// run, locks products, locks the count of what events move, draws revisions, writes prices, finishes its
/// range, records what is not served yet; the products may come in several pieces, each locked, then written,
/// in the order of their keys, but not in a transaction that locks the count. A statement locks its rows in
/// that order too. If two still deadlock, the database ends one of them with a transient error.
#[derive(Debug)]
pub struct StoreTransaction {
    pub(super) session: Session,
    /// The span of the transaction; it ends with it.
    pub(super) span: Span,
    /// The catalogue in use when it began.
    pub(super) catalogue: Arc<Catalogue>,
    /// The newest revision that was known when it began: its own are larger.
    pub(super) known_revision: i64,
    /// The prices that it has written and removed.
    pub(super) written: Written,
}

impl StoreTransaction {
    /// Locks the products and returns those that exist, the readable ones ordered by identifier. Until this
    /// transaction ends, any other that locks one of them waits.
    pub async fn lock_products(&mut self, ids: &[ProductId]) -> Result<Readable<Product>, StoreError> {
        bulk::lock_products(&mut self.session, ids).await?.read_in_order()
    }

    /// Adds or replaces products, and locks them.
    pub async fn put_products(
        &mut self,
        products: ProductRows,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        bulk::put_products(&mut self.session, products, now).await
    }

    /// Adds products that do not exist, and locks them; returns how many were added. Waits for another
    /// transaction that adds one of them: a row that does not exist cannot be locked beforehand.
    pub async fn add_products(
        &mut self,
        products: ProductRows,
        now: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        bulk::add_products(&mut self.session, products, now).await
    }

    /// Locks the products as [`lock_products`](Self::lock_products) does and returns the facts that their
    /// next prices depend on.
    pub async fn lock_facts(&mut self, ids: &[ProductId]) -> Result<UnreadFacts, StoreError> {
        bulk::lock_facts(&mut self.session, ids).await
    }

    /// The facts that the next prices of these products depend on. This transaction must have put or locked
    /// exactly these.
    pub async fn facts_of(&mut self, products: Vec<Product>) -> Result<UnreadFacts, StoreError> {
        bulk::facts_of(&mut self.session, products).await
    }

    /// Records events, each a source and an identifier that is unique there, as applied. Returns for each
    /// whether it was new: not if it was recorded before, or occurs earlier in the list. Waits for another
    /// transaction that is recording one of them.
    pub async fn record_events(
        &mut self,
        events: &[(&str, &str)],
        now: DateTime<Utc>,
    ) -> Result<Vec<bool>, StoreError> {
        let record = RECORD_EVENTS.bind(Value::Written(event_rows(events)?)).bind(now);
        let new: Vec<(String, String)> = self.session.all(record).await?;
        Ok(which_are_new(events, &new))
    }

    /// Stores the signals that are newer than the stored ones of the same key, and returns how many were.
    /// Signals about a product are ignored if they are not later than its removal, or are in another currency
    /// than the product's.
    pub async fn put_signals(&mut self, signals: &[Signal]) -> Result<u64, StoreError> {
        self.session.execute(PUT_SIGNALS.bind(Value::Written(signal_rows(signals)?))).await
    }

    /// Records that the seller stated the costs of these products again, in rows that are otherwise
    /// unchanged. Locks the products.
    pub async fn state_costs(&mut self, ids: &[&str], stated_at: DateTime<Utc>) -> Result<(), StoreError> {
        self.session.execute(STATE_COSTS.bind(Value::Texts(ids.to_vec())).bind(stated_at)).await?;
        Ok(())
    }

    /// Deletes the amounts in signals of these products, whose currency has changed to the given one; signals
    /// that arrive later but are dated up to this instant are ignored as well. (This comes after the lock of
    /// the products, against the order above: a currency changes so rarely that it may end in a transient
    /// error.)
    pub async fn forget_amounts(
        &mut self,
        products: &[(ProductId, Currency)],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        for (id, currency) in products {
            let (id, currency) = (id.as_str(), currency.code());
            self.session.execute(FORGET_LATE_AMOUNTS.bind(id).bind(currency).bind(now)).await?;
            self.session.execute(FORGET_AMOUNTS.bind(id).bind(currency)).await?;
        }
        Ok(())
    }

    /// Deletes the facts of removed products that are not later than their removal. A transaction that has
    /// written facts of a product and then finds it gone may have done so during the removal, which deletes
    /// them too.
    pub async fn drop_forgotten(&mut self, ids: &[ProductId]) -> Result<(), StoreError> {
        self.session.execute(DROP_FORGOTTEN.bind(texts_of(ids))).await?;
        Ok(())
    }

    /// Returns the last currencies of those of these products that were removed before, or whose currency
    /// changed.
    pub async fn last_currencies(
        &mut self,
        ids: &[ProductId],
    ) -> Result<HashMap<ProductId, Option<Currency>>, StoreError> {
        read_currencies(self.session.all(LAST_CURRENCIES.bind(texts_of(ids))).await?)
    }

    /// Draws ascending revisions; a committed one is never drawn again. Draw them while the products are
    /// locked: then the revisions of a product grow in the order in which its prices are committed.
    pub async fn next_revisions(&mut self, count: usize) -> Result<Vec<i64>, StoreError> {
        let revisions = bulk::next_revisions(&mut self.session, row_count(count)?).await?;
        self.written.drew(&revisions);
        match revisions.first().filter(|first| **first <= self.known_revision) {
            Some(first) => {
                let what = format!("it gives revision {first} after {}", self.known_revision);
                self.catalogue.suspect();
                Err(StoreError::Behind { what })
            }
            None => Ok(revisions),
        }
    }

    /// Stores prices, unless one with a newer revision is stored, and adds those that change the list price
    /// to the history.
    pub async fn write_prices(&mut self, prices: PreparedPrices) -> Result<(), StoreError> {
        self.written.add_prices(&prices);
        bulk::write_prices(&mut self.session, prices).await
    }

    /// Deletes a product and its price, and records the removal in the history. Returns whether there was
    /// such a product. Facts dated up to this instant are deleted, including those that arrive later; newer
    /// ones are kept, as the product may be sold again.
    pub async fn delete_product(
        &mut self,
        id: &ProductId,
        revision: i64,
        cause: &str,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let removal = WRITE_REMOVAL.bind(id.as_str()).bind(revision).bind(bounded_cause(cause)).bind(now);
        self.session.execute(removal).await?;
        self.session.execute(FORGET_LATE_FACTS.bind(id.as_str()).bind(now)).await?;
        self.drop_forgotten(std::slice::from_ref(id)).await?;
        self.session.execute(DELETE_EVENT_MOVE.bind(id.as_str())).await?;
        self.written.add(id, revision);
        // The price is deleted with its product.
        self.session.changes_any(DELETE_PRODUCT.bind(id.as_str())).await
    }

    /// Commits. If the connection breaks meanwhile, whether the transaction took effect is unknown.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.commit_prices().await.map(drop)
    }

    /// Commits, and records that the prices that it has written with revisions of its own, and those that it
    /// has removed, are not in Redis yet. The caller serves them and then [marks](super::Store::mark_served)
    /// them; if it does not, another process does so.
    pub async fn commit_prices(mut self) -> Result<Unserved, StoreError> {
        let committed = async {
            let id = self.written.record(&mut self.session, &self.catalogue).await?;
            self.session.commit().await?;
            Ok(id)
        };
        match committed.await {
            Ok(id) => Ok(self.written.committed(self.catalogue, id)),
            Err(error) => {
                spans::record_error(&self.span, &error);
                Err(error)
            }
        }
    }
}

pub(super) fn texts_of(ids: &[ProductId]) -> Value<'_> {
    Value::Texts(ids.iter().map(ProductId::as_str).collect())
}
