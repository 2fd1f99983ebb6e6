//! Bulk reads and writes, which differ by database: SQLite uses long statements of values and rows of JSON,
//! PostgreSQL arrays.

use chrono::{DateTime, Utc};

use super::error::StoreError;
use super::facts::{Products, UnreadFacts};
use super::prepared_rows::{PreparedFor, PreparedPrices, ProductRows};
use super::session::Session;
use super::{postgres, sqlite};
use pricing_domain::facts::product::{Product, ProductId};

/// Reads these products, without locks.
pub(super) async fn products(session: &mut Session, ids: &[ProductId]) -> Result<Products, StoreError> {
    match session {
        Session::Sqlite(connection) => sqlite::facts::products_named(connection, ids).await,
        Session::Postgres(connection) => postgres::facts::products_named(connection, ids).await,
    }
}

/// Reads the facts that the prices of these products depend on, without locks.
pub(super) async fn facts(session: &mut Session, ids: &[ProductId]) -> Result<UnreadFacts, StoreError> {
    match session {
        Session::Sqlite(connection) => sqlite::facts::facts_named(connection, ids).await,
        Session::Postgres(connection) => postgres::facts::facts_named(connection, ids).await,
    }
}

/// See [`StoreTransaction::lock_facts`](super::StoreTransaction::lock_facts).
pub(super) async fn lock_facts(session: &mut Session, ids: &[ProductId]) -> Result<UnreadFacts, StoreError> {
    match session {
        Session::Sqlite(connection) => sqlite::facts::facts_named(connection, ids).await,
        Session::Postgres(connection) => postgres::facts::lock_facts(connection, ids).await,
    }
}

/// See [`StoreTransaction::facts_of`](super::StoreTransaction::facts_of).
pub(super) async fn facts_of(
    session: &mut Session,
    products: Vec<Product>,
) -> Result<UnreadFacts, StoreError> {
    match session {
        Session::Sqlite(connection) => sqlite::facts::facts_of(connection, products).await,
        Session::Postgres(connection) => postgres::facts::facts_of(connection, products).await,
    }
}

/// See [`StoreTransaction::lock_products`](super::StoreTransaction::lock_products).
pub(super) async fn lock_products(session: &mut Session, ids: &[ProductId]) -> Result<Products, StoreError> {
    match session {
        Session::Sqlite(connection) => sqlite::facts::products_named(connection, ids).await,
        Session::Postgres(connection) => postgres::facts::lock_products(connection, ids).await,
    }
}

/// See [`StoreTransaction::put_products`](super::StoreTransaction::put_products).
pub(super) async fn put_products(
    session: &mut Session,
    products: ProductRows,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    match session {
        Session::Sqlite(connection) => sqlite::rows::put_products(connection, products, now).await,
        Session::Postgres(connection) => postgres::rows::put_products(connection, &products, now).await,
    }
}

/// See [`StoreTransaction::add_products`](super::StoreTransaction::add_products).
pub(super) async fn add_products(
    session: &mut Session,
    products: ProductRows,
    now: DateTime<Utc>,
) -> Result<u64, StoreError> {
    match session {
        Session::Sqlite(connection) => sqlite::rows::add_products(connection, products, now).await,
        Session::Postgres(connection) => postgres::rows::add_products(connection, &products, now).await,
    }
}

/// See [`StoreTransaction::next_revisions`](super::StoreTransaction::next_revisions).
pub(super) async fn next_revisions(session: &mut Session, count: i64) -> Result<Vec<i64>, StoreError> {
    match session {
        Session::Sqlite(connection) => sqlite::rows::next_revisions(connection, count).await,
        Session::Postgres(connection) => postgres::rows::next_revisions(connection, count).await,
    }
}

/// See [`StoreTransaction::write_prices`](super::StoreTransaction::write_prices).
pub(super) async fn write_prices(session: &mut Session, prices: PreparedPrices) -> Result<(), StoreError> {
    match (session, prices.rows) {
        (Session::Sqlite(connection), PreparedFor::Sqlite(prices)) => {
            sqlite::rows::write_prices(connection, prices).await
        }
        (Session::Postgres(connection), PreparedFor::Postgres(prices)) => {
            postgres::rows::write_prices(connection, *prices).await
        }
        (Session::Sqlite(_), PreparedFor::Postgres(_)) | (Session::Postgres(_), PreparedFor::Sqlite(_)) => {
            Err(StoreError::PreparedForAnother)
        }
    }
}
