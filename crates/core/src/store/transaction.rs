//! Writing to the catalogue: everything in a transaction, or nothing.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use tracing::Span;

use super::error::StoreError;
use super::facts::UnreadFacts;
use super::postgres::PostgresTransaction;
use super::prepared_rows::{PreparedFor, PreparedPrices, ProductRows};
use super::runs::{RangeOutcome, RunRequest};
use super::sqlite::SqliteTransaction;
use super::stored::Readable;
use crate::telemetry::spans;
use pricing_domain::facts::money::Currency;
use pricing_domain::facts::product::{Product, ProductId};
use pricing_domain::facts::signal::Signal;

/// A transaction. Dropped without [`commit`](Self::commit), it is rolled back.
///
/// Every statement takes any number of rows; the caller bounds its batches. Two transactions never wait for
/// each other if each goes on in this order: it records events, writes signals, asks for a recalculation or
/// locks its run, locks products, draws revisions, writes prices, finishes its range; the products may come
/// in several pieces, each locked, then written, in the order of their keys. A statement locks its rows in
/// that order too. Where two wait for each other all the same, the database ends one of them with a transient
/// error.
#[derive(Debug)]
pub struct StoreTransaction {
    store: Inner,
    /// How long it takes, for the trace; ends with it.
    span: Span,
}

#[derive(Debug)]
enum Inner {
    Sqlite(SqliteTransaction),
    Postgres(PostgresTransaction),
}

/// Calls the same method of whichever store it is.
macro_rules! on_store {
    ($transaction:expr, $store:ident => $call:expr) => {
        match $transaction.store {
            Inner::Sqlite(ref mut $store) => $call,
            Inner::Postgres(ref mut $store) => $call,
        }
    };
}

impl StoreTransaction {
    pub(super) fn sqlite(transaction: SqliteTransaction, span: Span) -> Self {
        Self { store: Inner::Sqlite(transaction), span }
    }

    pub(super) fn postgres(transaction: PostgresTransaction, span: Span) -> Self {
        Self { store: Inner::Postgres(transaction), span }
    }

    /// Locks the products and returns those that exist, the known ones ordered by identifier. Until this
    /// transaction ends, any other that locks one of them waits.
    pub async fn lock_products(&mut self, ids: &[ProductId]) -> Result<Readable<Product>, StoreError> {
        on_store!(self, store => store.lock_products(ids).await)
    }

    /// Adds or replaces products, and locks them.
    pub async fn put_products(
        &mut self,
        products: ProductRows,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        on_store!(self, store => store.put_products(products, now).await)
    }

    /// Adds products that do not exist, and locks them; returns how many there were. Waits for another
    /// transaction that adds one of them: nothing that does not exist can be locked before.
    pub async fn add_products(
        &mut self,
        products: ProductRows,
        now: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        on_store!(self, store => store.add_products(products, now).await)
    }

    /// Locks the products as [`lock_products`](Self::lock_products) does and returns what their next prices
    /// depend on.
    pub async fn lock_facts(&mut self, ids: &[ProductId]) -> Result<UnreadFacts, StoreError> {
        on_store!(self, store => store.lock_facts(ids).await)
    }

    /// What the next prices of these products depend on, which this transaction has put or locked just so.
    pub async fn facts_of(&mut self, products: Vec<Product>) -> Result<UnreadFacts, StoreError> {
        on_store!(self, store => store.facts_of(products).await)
    }

    /// Records events, each a source and an identifier that is unique there, as applied. Returns for each
    /// whether it was new: not if it was recorded before, or stands earlier in the list. Waits for another
    /// transaction that is recording one of them.
    pub async fn record_events(
        &mut self,
        events: &[(&str, &str)],
        now: DateTime<Utc>,
    ) -> Result<Vec<bool>, StoreError> {
        on_store!(self, store => store.record_events(events, now).await)
    }

    /// Stores the signals that are newer than what is known about the same thing, and returns how many were.
    /// Left out is what is about a product and not later than its removal, or in another currency than the
    /// product's.
    pub async fn put_signals(&mut self, signals: &[Signal]) -> Result<u64, StoreError> {
        on_store!(self, store => store.put_signals(signals).await)
    }

    /// Records that the seller said again, in rows that are otherwise as they were, what these products cost.
    /// They are locked.
    pub async fn state_costs(&mut self, ids: &[&str], stated_at: DateTime<Utc>) -> Result<(), StoreError> {
        on_store!(self, store => store.state_costs(ids, stated_at).await)
    }

    /// Forgets what the signals of these products say in money, whose currency is this other one now; also
    /// what arrives later and is of an instant up to this one. (After the lock of the products, so not in the
    /// order of the others: a currency changes so seldom that it may end in a transient error.)
    pub async fn forget_amounts(
        &mut self,
        products: &[(ProductId, Currency)],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        on_store!(self, store => store.forget_amounts(products, now).await)
    }

    /// Drops the facts of removed products that are not later than their removal. A transaction that has
    /// written facts of a product that it finds gone may have done so while the removal, which does the same,
    /// was under way.
    pub async fn drop_forgotten(&mut self, ids: &[ProductId]) -> Result<(), StoreError> {
        on_store!(self, store => store.drop_forgotten(ids).await)
    }

    /// The last currencies of those of these products that were removed before, or have changed it.
    pub async fn last_currencies(
        &mut self,
        ids: &[ProductId],
    ) -> Result<HashMap<ProductId, Option<Currency>>, StoreError> {
        on_store!(self, store => store.last_currencies(ids).await)
    }

    /// Draws ascending revisions; one that was committed is never given out again. Draw them while the
    /// products are locked: then the revisions of a product grow in the order in which its prices are
    /// committed.
    pub async fn next_revisions(&mut self, count: usize) -> Result<Vec<i64>, StoreError> {
        on_store!(self, store => store.next_revisions(count).await)
    }

    /// Stores prices, unless one with a newer revision is there, and adds to the history those that differ
    /// from their predecessor.
    pub async fn write_prices(&mut self, prices: PreparedPrices) -> Result<(), StoreError> {
        match (&mut self.store, prices.0) {
            (Inner::Sqlite(store), PreparedFor::Sqlite(prices)) => store.write_prices(prices).await,
            (Inner::Postgres(store), PreparedFor::Postgres(prices)) => store.write_prices(*prices).await,
            (Inner::Sqlite(_), PreparedFor::Postgres(_)) | (Inner::Postgres(_), PreparedFor::Sqlite(_)) => {
                Err(StoreError::PreparedForAnother)
            }
        }
    }

    /// Removes a product and its price, and says so in the history. Returns whether there was such a product.
    /// Its facts up to this instant go, also those that arrive later; later ones stay, as it may be sold
    /// again.
    pub async fn delete_product(
        &mut self,
        id: &ProductId,
        revision: i64,
        cause: &str,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        on_store!(self, store => store.delete_product(id, revision, cause, now).await)
    }

    /// Takes down that somebody asks for a recalculation. Returns whether the request is new.
    pub async fn request_run(&mut self, request: &RunRequest) -> Result<bool, StoreError> {
        on_store!(self, store => store.request_run(request).await)
    }

    /// Whether the run of this number is the newest. If so, no newer one begins before this transaction ends.
    /// If not, write nothing here: the newer run may have priced these products already, by a newer policy.
    /// What an earlier delivery of the same range has committed may still have to reach the caches.
    pub async fn lock_run(&mut self, run_number: i64) -> Result<bool, StoreError> {
        on_store!(self, store => store.lock_run(run_number).await)
    }

    /// Records that a range of a run, which this transaction holds by [`lock_run`](Self::lock_run), is
    /// priced. Returns `false` if it was recorded before, or if the run is over.
    pub async fn finish_range(
        &mut self,
        run_number: i64,
        range_start: &str,
        outcome: &RangeOutcome,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        on_store!(self, store => store.finish_range(run_number, range_start, outcome, now).await)
    }

    /// Makes everything permanent. If the connection breaks meanwhile, whether it did is unknown.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        let committed = on_store!(self, store => store.commit().await);
        if let Err(error) = &committed {
            spans::record_error(&self.span, error);
        }
        committed
    }
}
