//! Reads the facts that prices depend on from a PostgreSQL database.
//!
//! Every change of a product or its price is made under the lock of the product's row. Rows that must be read
//! after the wait for that lock are read by a separate statement: only a later statement sees the commit that
//! the transaction waited for.

use std::collections::BTreeSet;

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{Postgres, query};

use super::super::connection::Connection;
use super::super::error::StoreError;
use super::super::facts::{Products, Rows, UnreadFacts};
use super::super::prices::price_columns;
use super::super::products::product_columns;
use super::prepared::column;
use pricing_domain::facts::product::{Product, ProductId};

macro_rules! products {
    ($lock:literal) => {
        concat!(
            "SELECT ",
            product_columns!(),
            " FROM products WHERE product_id = ANY($1) ORDER BY product_id",
            $lock
        )
    };
}
const PRODUCTS: &str = products!("");
const LOCK_PRODUCTS: &str = products!(" FOR UPDATE");
/// With the explanations of prices whose time may be over when they are priced: it has the facts by which the
/// steps that fell due are made.
const PRICES: &str = concat!(
    "SELECT ",
    price_columns!(),
    ", CASE WHEN movement IS NULL OR valid_until <= clock_timestamp() + interval '10 seconds'
            THEN explanation END AS explanation
     FROM prices WHERE product_id = ANY($1)"
);
macro_rules! signals {
    ($categories:literal) => {
        concat!(
            "
    SELECT subject_kind, subject, kind, source, value::text, in_stock, observed_at, currency, expires_at,
           event_source
    FROM signals WHERE subject_kind = 'product' AND subject = ANY($1)
    UNION ALL
    SELECT subject_kind, subject, kind, source, value::text, in_stock, observed_at, currency, expires_at,
           event_source
    FROM signals WHERE subject_kind = 'category' AND subject IN (",
            $categories,
            ")"
        )
    };
}
const SIGNALS: &str = signals!("SELECT category FROM products WHERE product_id = ANY($1)");
const SIGNALS_OF_CATEGORIES: &str = signals!("SELECT unnest($2::text[])");

pub(in super::super) async fn facts_named(
    connection: &mut Connection<Postgres>,
    ids: &[ProductId],
) -> Result<UnreadFacts, StoreError> {
    let ids = column(ids, ProductId::as_str);
    let products = products_of(connection, PRODUCTS, &ids).await?;
    signals_and_prices(connection, query(SIGNALS).bind(&ids), &ids, products).await
}

pub(in super::super) async fn lock_facts(
    connection: &mut Connection<Postgres>,
    ids: &[ProductId],
) -> Result<UnreadFacts, StoreError> {
    let ids = column(ids, ProductId::as_str);
    let products = products_of(connection, LOCK_PRODUCTS, &ids).await?;
    signals_and_prices(connection, query(SIGNALS).bind(&ids), &ids, products).await
}

/// Reads the facts of products that are already decoded.
pub(in super::super) async fn facts_of(
    connection: &mut Connection<Postgres>,
    products: Vec<Product>,
) -> Result<UnreadFacts, StoreError> {
    let ids = column(&products, |product| product.product_id.clone());
    let ids = column(&ids, ProductId::as_str);
    let categories: BTreeSet<String> =
        products.iter().filter_map(|product| product.category.clone()).collect();
    let categories: Vec<String> = categories.into_iter().collect();
    let signals = query(SIGNALS_OF_CATEGORIES).bind(&ids).bind(categories);
    signals_and_prices(connection, signals, &ids, Products::Known(products)).await
}

pub(in super::super) async fn products_named(
    connection: &mut Connection<Postgres>,
    ids: &[ProductId],
) -> Result<Products, StoreError> {
    products_of(connection, PRODUCTS, &column(ids, ProductId::as_str)).await
}

pub(in super::super) async fn lock_products(
    connection: &mut Connection<Postgres>,
    ids: &[ProductId],
) -> Result<Products, StoreError> {
    products_of(connection, LOCK_PRODUCTS, &column(ids, ProductId::as_str)).await
}

async fn products_of(
    connection: &mut Connection<Postgres>,
    statement: &'static str,
    ids: &[&str],
) -> Result<Products, StoreError> {
    let products = query(statement).bind(ids);
    Ok(Products::of(Rows::Records(connection.run(|connection| products.fetch_all(connection)).await?)))
}

async fn signals_and_prices(
    connection: &mut Connection<Postgres>,
    signals: Query<'_, Postgres, PgArguments>,
    ids: &[&str],
    products: Products,
) -> Result<UnreadFacts, StoreError> {
    let signals = connection.run(|connection| signals.fetch_all(connection)).await?;
    let prices = query(PRICES).bind(ids);
    let prices = connection.run(|connection| prices.fetch_all(connection)).await?;
    Ok(UnreadFacts { products, signals: Rows::Records(signals), prices: Rows::Records(prices) })
}
