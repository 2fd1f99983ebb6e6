//! Reads the facts that prices depend on from a SQLite file: each kind of row as one JSON text.
//!
//! SQLite sorts a list of identifiers into a table before it looks up rows, and searches each row from the
//! root of the B-tree. Two cases are faster: if no rows lie between the first and the last identifier, as for
//! products that an import has just added, no row is looked up; and if no other products lie between them, as
//! in a range of a recalculation, products and prices are read sequentially.

use std::collections::BTreeSet;

use sqlx::{Sqlite, query_as, query_scalar};

use super::super::connection::Connection;
use super::super::error::StoreError;
use super::super::facts::{Products, Rows, UnreadFacts};
use super::super::json_rows::{row_count, texts};

use pricing_domain::facts::product::{Product, ProductId};

macro_rules! product_rows {
    () => {
        "json_group_array(json_array(
            product_id, name, category, brand, currency, base_price, unit_cost, floor_price, ceiling_price,
            minimum_advertised_price, json(attributes), cost_stated_at))"
    };
}
macro_rules! signal_rows {
    () => {
        "json_group_array(json_array(
            subject_kind, subject, kind, source, value, iif(in_stock, json('true'), iif(in_stock = 0, json('false'))),
            observed_at, currency, expires_at, event_source))"
    };
}
/// With the explanations of prices whose time may be over when they are priced: it has the facts by which the
/// steps that fell due are made.
macro_rules! price_rows {
    () => {
        "json_group_array(json_array(
            product_id, revision, category, currency, base_price, list_price, lowest, highest, policy_version,
            valid_until, opening_price, opened_on, changed_at, streak_moves, streak_since, explanation_digest,
            movement, events_held_since, events_held_reason, events_rejected_by, priced_at,
            held_by, iif(movement IS NULL OR valid_until <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+10 seconds'),
                explanation, NULL)))"
    };
}
/// The products and their categories.
macro_rules! products {
    ($which:literal) => {
        concat!(
            "SELECT ",
            product_rows!(),
            ", json_group_array(DISTINCT category) FILTER (WHERE category IS NOT NULL) FROM products WHERE ",
            $which
        )
    };
}
/// The signals of the named products and of these categories, and a further column.
macro_rules! signals_and {
    () => {
        concat!(
            "SELECT (SELECT ",
            signal_rows!(),
            "
    FROM (SELECT * FROM signals
          WHERE subject_kind = 'product' AND subject IN (
              SELECT value FROM json_each(CASE
                  WHEN EXISTS (SELECT 1 FROM signals WHERE subject_kind = 'product' AND subject BETWEEN $2 AND $3)
                  THEN $1 ELSE '[]' END))
          UNION ALL
          SELECT * FROM signals
          WHERE subject_kind = 'category' AND subject IN (SELECT value FROM json_each($4)))), "
        )
    };
}

const PRODUCTS_NAMED: &str = products!("product_id IN (SELECT value FROM json_each($1))");
const PRODUCTS_BETWEEN: &str = products!("product_id BETWEEN $1 AND $2");
// CASE evaluates only the selected branch.
const SIGNALS_AND_PRICES_NAMED: &str = concat!(
    signals_and!(),
    "(SELECT CASE WHEN EXISTS (SELECT 1 FROM prices WHERE product_id BETWEEN $2 AND $3) THEN (SELECT ",
    price_rows!(),
    " FROM prices WHERE product_id IN (SELECT value FROM json_each($1))) ELSE '[]' END)"
);
const SIGNALS_AND_PRICES_BETWEEN: &str =
    concat!(signals_and!(), "(SELECT ", price_rows!(), " FROM prices WHERE product_id BETWEEN $2 AND $3)");
/// Reads products, signals and prices by one statement: for few products, round trips dominate.
const FACTS_NAMED: &str = concat!(
    "WITH named AS MATERIALIZED (SELECT value FROM json_each($1))
    SELECT (SELECT ",
    product_rows!(),
    " FROM products WHERE product_id IN named),
           (SELECT ",
    signal_rows!(),
    " FROM (SELECT * FROM signals WHERE subject_kind = 'product' AND subject IN named
            UNION ALL
            SELECT * FROM signals WHERE subject_kind = 'category' AND subject IN (
                SELECT category FROM products WHERE product_id IN named))),
           (SELECT ",
    price_rows!(),
    " FROM prices WHERE product_id IN named)"
);
const COUNT: &str = "
    SELECT count(*) FROM (SELECT 1 FROM products WHERE product_id BETWEEN $1 AND $2 LIMIT $3 + 1)";

/// The number of identifiers from which each kind of row has a separate statement, and the rows of the range
/// are counted.
const MANY: usize = 64;

/// Product identifiers as arguments of statements.
struct Ids<'a> {
    json: String,
    first: &'a str,
    last: &'a str,
    /// The number of identifiers, if they are sorted and unique.
    in_order: Option<usize>,
}

/// The products that exist between the first and the last identifier.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Between {
    Nothing,
    /// As many products as identifiers; possibly others, if some identifiers do not exist.
    AsMany,
    /// Any number of products.
    Unknown,
}

impl<'a> Ids<'a> {
    fn of(ids: &[&'a str]) -> Result<Self, StoreError> {
        Ok(Self {
            json: texts(ids.iter().copied())?,
            first: ids.iter().min().unwrap_or(&""),
            last: ids.iter().max().unwrap_or(&""),
            in_order: ids.is_sorted_by(|one, next| one < next).then_some(ids.len()),
        })
    }

    async fn between(&self, connection: &mut Connection<Sqlite>) -> Result<Between, StoreError> {
        let Some(count) = self.in_order.filter(|count| *count >= MANY) else {
            return Ok(Between::Unknown);
        };
        let count = row_count(count)?;
        let counting = query_scalar(COUNT).bind(self.first).bind(self.last).bind(count);
        let between: i64 = connection.run(|connection| counting.fetch_one(connection)).await?;
        Ok(match between {
            0 => Between::Nothing,
            as_many if as_many == count => Between::AsMany,
            _ => Between::Unknown,
        })
    }
}

/// The products with these identifiers.
pub(in super::super) async fn products_named(
    connection: &mut Connection<Sqlite>,
    named: &[ProductId],
) -> Result<Products, StoreError> {
    let names: Vec<&str> = named.iter().map(ProductId::as_str).collect();
    let ids = Ids::of(&names)?;
    let between = ids.between(connection).await?;
    Ok(products_and_categories(connection, &ids, between, named).await?.0)
}

/// The facts that the prices of the products with these identifiers depend on.
pub(in super::super) async fn facts_named(
    connection: &mut Connection<Sqlite>,
    named: &[ProductId],
) -> Result<UnreadFacts, StoreError> {
    let names: Vec<&str> = named.iter().map(ProductId::as_str).collect();
    let ids = Ids::of(&names)?;
    if named.len() < MANY {
        let facts = query_as(FACTS_NAMED).bind(&ids.json);
        let (products, signals, prices): (String, String, String) =
            connection.run(|connection| facts.fetch_one(connection)).await?;
        let products = Products::of(Rows::Json(products));
        return Ok(UnreadFacts { products, signals: Rows::Json(signals), prices: Rows::Json(prices) });
    }
    let between = ids.between(connection).await?;
    let (products, categories) = products_and_categories(connection, &ids, between, named).await?;
    let (signals, prices) = signals_and_prices(connection, &ids, categories, between).await?;
    Ok(UnreadFacts { products, signals, prices })
}

/// Reads the facts of products that are already decoded.
pub(in super::super) async fn facts_of(
    connection: &mut Connection<Sqlite>,
    products: Vec<Product>,
) -> Result<UnreadFacts, StoreError> {
    let names: Vec<&str> = products.iter().map(|product| product.product_id.as_str()).collect();
    let ids = Ids::of(&names)?;
    let categories: BTreeSet<&str> =
        products.iter().filter_map(|product| product.category.as_deref()).collect();
    let (signals, prices) =
        signals_and_prices(connection, &ids, texts(categories)?, Between::Unknown).await?;
    Ok(UnreadFacts { products: Products::Known(products), signals, prices })
}

/// The products, and a JSON list of their categories.
async fn products_and_categories(
    connection: &mut Connection<Sqlite>,
    ids: &Ids<'_>,
    between: Between,
    named: &[ProductId],
) -> Result<(Products, String), StoreError> {
    let (rows, categories) = match between {
        Between::Nothing => ("[]".to_owned(), "[]".to_owned()),
        Between::AsMany => {
            let products = query_as(PRODUCTS_BETWEEN).bind(ids.first).bind(ids.last);
            connection.run(|connection| products.fetch_one(connection)).await?
        }
        Between::Unknown => {
            let products = query_as(PRODUCTS_NAMED).bind(&ids.json);
            connection.run(|connection| products.fetch_one(connection)).await?
        }
    };
    let only = (between == Between::AsMany).then(|| named.to_vec());
    Ok((Products::Unread { rows: Rows::Json(rows), only }, categories))
}

async fn signals_and_prices(
    connection: &mut Connection<Sqlite>,
    ids: &Ids<'_>,
    categories: String,
    between: Between,
) -> Result<(Rows, Rows), StoreError> {
    let statement = match between {
        Between::AsMany => SIGNALS_AND_PRICES_BETWEEN,
        Between::Nothing | Between::Unknown => SIGNALS_AND_PRICES_NAMED,
    };
    let facts = query_as(statement).bind(&ids.json).bind(ids.first).bind(ids.last).bind(categories);
    let (signals, prices) = connection.run(|connection| facts.fetch_one(connection)).await?;
    Ok((Rows::Json(signals), Rows::Json(prices)))
}
