//! Products and prices as rows, with values encoded for a database (prices by the `prepared` of each).
//! Encoding takes a while and needs no connection, so it is done before a transaction begins, or while the
//! database works on earlier rows.
//!
//! The rows are ordered by their key, so that two transactions lock them in the same order and cannot
//! deadlock, and each key occurs once, which PostgreSQL's upsert requires.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use super::error::StoreError;
use super::postgres::PostgresPrices;
use super::sqlite::SqlitePrices;
use super::stored::{EarlierChange, PriceWrite, TIME};
use pricing_domain::facts::price_entry::PriceEntry;
use pricing_domain::facts::product::{Product, ProductId};

/// Rows of `products`.
#[derive(Debug, Clone, Default)]
pub struct ProductRows {
    pub(super) rows: Vec<ProductRow>,
}

/// Rows of `prices`, and a row of `price_changes` for each that changes the list price, encoded for one
/// database's driver.
#[derive(Debug)]
pub struct PreparedPrices {
    pub(super) rows: PreparedFor,
    /// The products, with the revisions of their prices.
    pub(super) revisions: Vec<(ProductId, i64)>,
    /// The newest policy version of these prices.
    pub(super) policy_version: i64,
}

#[derive(Debug)]
pub(super) enum PreparedFor {
    Sqlite(SqlitePrices),
    Postgres(Box<PostgresPrices>),
}

#[derive(Debug, Clone)]
pub(super) struct ProductRow {
    pub(super) product_id: String,
    pub(super) name: String,
    pub(super) category: Option<String>,
    pub(super) brand: Option<String>,
    pub(super) currency: &'static str,
    pub(super) base_price: String,
    pub(super) unit_cost: Option<String>,
    pub(super) floor_price: Option<String>,
    pub(super) ceiling_price: Option<String>,
    pub(super) minimum_advertised_price: Option<String>,
    /// A JSON object of texts.
    pub(super) attributes: String,
    pub(super) cost_stated_at: Option<DateTime<Utc>>,
}

impl ProductRows {
    /// Encodes the rows of these products; of two with the same identifier the later one is kept.
    pub fn of(products: &[Product]) -> Result<Self, StoreError> {
        if products.is_sorted_by(|one, next| one.product_id < next.product_id) {
            return Ok(Self { rows: products.iter().map(ProductRow::of).collect::<Result<_, _>>()? });
        }
        let last: BTreeMap<&ProductId, &Product> =
            products.iter().map(|product| (&product.product_id, product)).collect();
        Ok(Self { rows: last.into_values().map(ProductRow::of).collect::<Result<_, _>>()? })
    }

    /// Removes and returns the rows of the products up to this one.
    pub fn take_through(&mut self, product_id: &ProductId) -> Self {
        let rest = self.rows.partition_point(|row| row.product_id.as_str() <= product_id.as_str());
        let rest = self.rows.split_off(rest);
        Self { rows: std::mem::replace(&mut self.rows, rest) }
    }

    /// Keeps the rows of these products only.
    pub fn retain(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.rows.retain(|row| is_kept(&row.product_id));
    }
}

impl PreparedPrices {
    pub(super) fn for_sqlite(writes: Vec<PriceWrite>) -> Result<Self, StoreError> {
        let writes = newest_of_each(writes);
        let (revisions, policy_version) = (revisions_of(&writes), policy_version_of(&writes));
        Ok(Self { rows: PreparedFor::Sqlite(SqlitePrices::of(writes)?), revisions, policy_version })
    }

    pub(super) fn for_postgres(writes: Vec<PriceWrite>) -> Result<Self, StoreError> {
        let writes = newest_of_each(writes);
        let rows = PreparedFor::Postgres(Box::new(PostgresPrices::of(&writes)?));
        let (revisions, policy_version) = (revisions_of(&writes), policy_version_of(&writes));
        Ok(Self { rows, revisions, policy_version })
    }
}

fn revisions_of(writes: &[PriceWrite]) -> Vec<(ProductId, i64)> {
    writes.iter().map(|write| (write.entry.product_id.clone(), write.entry.revision)).collect()
}

fn policy_version_of(writes: &[PriceWrite]) -> i64 {
    writes.iter().map(|write| write.entry.policy_version).max().unwrap_or_default()
}

/// Orders the writes by product; of two of the same product the newer one is kept.
fn newest_of_each(mut writes: Vec<PriceWrite>) -> Vec<PriceWrite> {
    if !writes.is_sorted_by(|one, next| one.entry.product_id < next.entry.product_id) {
        let key = |write: &PriceWrite| (write.entry.product_id.clone(), Reverse(write.entry.revision));
        writes.sort_by_cached_key(key);
        writes.dedup_by(|later, kept| later.entry.product_id == kept.entry.product_id);
    }
    writes
}

impl ProductRow {
    fn of(product: &Product) -> Result<Self, StoreError> {
        let attributes = serde_json::to_string(&product.attributes)
            .map_err(|problem| sqlx::Error::Encode(problem.into()))?;
        Ok(Self {
            product_id: product.product_id.to_string(),
            name: product.name.clone(),
            category: product.category.clone(),
            brand: product.brand.clone(),
            currency: product.currency.code(),
            base_price: product.base_price.to_string(),
            unit_cost: digits(product.unit_cost),
            floor_price: digits(product.floor_price),
            ceiling_price: digits(product.ceiling_price),
            minimum_advertised_price: digits(product.minimum_advertised_price),
            attributes,
            cost_stated_at: product.cost_stated_at,
        })
    }
}

/// A row of `price_changes`.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChangeRow<'w> {
    /// The price that the change led to, at once or with later changes.
    pub(super) entry: &'w PriceEntry,
    pub(super) revision: i64,
    pub(super) policy_version: i64,
    pub(super) from: Option<Decimal>,
    pub(super) to: Decimal,
    pub(super) cause: &'w str,
    pub(super) at: DateTime<Utc>,
}

/// Returns the rows of the history of one price, in order.
pub(super) fn change_rows(write: &PriceWrite) -> impl Iterator<Item = ChangeRow<'_>> {
    let entry = &write.entry;
    let earlier =
        write.earlier.iter().map(move |EarlierChange { revision, policy_version, change }| ChangeRow {
            entry,
            policy_version: *policy_version,
            revision: *revision,
            from: Some(change.from),
            to: change.to,
            cause: TIME,
            at: change.at,
        });
    let last = write.changes_list_price().then(|| ChangeRow {
        entry,
        revision: entry.revision,
        policy_version: entry.policy_version,
        from: write.previous_list_price,
        to: entry.list_price,
        cause: &write.cause,
        at: write.listed_at,
    });
    earlier.chain(last)
}

/// Formats an amount as text: neither a database's JSON parser nor PostgreSQL's driver keeps every digit of a
/// number.
pub(super) fn digits(amount: Option<Decimal>) -> Option<String> {
    amount.map(|amount| amount.to_string())
}
