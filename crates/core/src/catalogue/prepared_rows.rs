//! Products and prices as rows, their values written out as a database takes them. That takes a while and needs no
//! connection, so it is done before a transaction begins, or while the database works on the rows before.
//!
//! The rows are ordered by their key, so that two transactions lock them in the same order and cannot wait for each
//! other, and each key comes once, which PostgreSQL's upsert demands.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;

use super::error::CatalogueError;
use super::json_rows::bounded_cause;
use super::stored::PriceWrite;
use crate::domain::product::{Product, ProductId};

/// Rows of `products`.
#[derive(Debug, Clone, Default)]
pub struct ProductRows {
    pub(super) rows: Vec<ProductRow>,
}

/// Rows of `prices`, and with each the row of `price_changes` that comes with it.
#[derive(Debug, Clone, Default)]
pub struct PriceRows {
    pub(super) rows: Vec<PriceRow>,
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
}

#[derive(Debug, Clone)]
pub(super) struct PriceRow {
    pub(super) product_id: String,
    pub(super) revision: i64,
    pub(super) category: Option<String>,
    pub(super) currency: &'static str,
    pub(super) base_price: String,
    pub(super) list_price: String,
    pub(super) lowest: Option<String>,
    pub(super) highest: Option<String>,
    pub(super) policy_version: i64,
    pub(super) valid_until: Option<DateTime<Utc>>,
    pub(super) opening_price: String,
    pub(super) opened_on: NaiveDate,
    pub(super) changed_at: Option<DateTime<Utc>>,
    pub(super) streak_moves: Option<i32>,
    pub(super) streak_since: Option<DateTime<Utc>>,
    pub(super) priced_at: DateTime<Utc>,
    pub(super) explanation: String,
    /// Absent if the list price stays.
    change: Option<Change>,
}

#[derive(Debug, Clone)]
struct Change {
    old_list_price: Option<String>,
    cause: String,
}

/// A row of `price_changes`.
pub(super) struct PriceChangeRow {
    pub(super) product_id: String,
    pub(super) revision: i64,
    pub(super) old_list_price: Option<String>,
    pub(super) new_list_price: String,
    pub(super) currency: &'static str,
    pub(super) policy_version: i64,
    pub(super) cause: String,
    pub(super) changed_at: DateTime<Utc>,
}

impl ProductRows {
    /// The rows of these products; of two with the same identifier the later one.
    pub fn of(products: &[Product]) -> Result<Self, CatalogueError> {
        if products.is_sorted_by(|one, next| one.product_id < next.product_id) {
            return Ok(Self { rows: products.iter().map(ProductRow::of).collect::<Result<_, _>>()? });
        }
        let last: BTreeMap<&ProductId, &Product> =
            products.iter().map(|product| (&product.product_id, product)).collect();
        Ok(Self { rows: last.into_values().map(ProductRow::of).collect::<Result<_, _>>()? })
    }

    /// Takes out the rows of the products up to this one.
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

impl PriceRows {
    /// The rows of these prices; of two of the same product the newer one.
    pub fn of(writes: &[PriceWrite]) -> Self {
        if writes.is_sorted_by(|one, next| one.entry.product_id < next.entry.product_id) {
            return Self { rows: writes.iter().map(PriceRow::of).collect() };
        }
        let mut newest: BTreeMap<&ProductId, &PriceWrite> = BTreeMap::new();
        for write in writes {
            let kept = newest.entry(&write.entry.product_id).or_insert(write);
            if kept.entry.revision < write.entry.revision {
                *kept = write;
            }
        }
        Self { rows: newest.into_values().map(PriceRow::of).collect() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Gives each its revision, in the order of the products.
    #[must_use]
    pub fn with_revisions(mut self, revisions: &[i64]) -> Self {
        for (row, revision) in self.rows.iter_mut().zip(revisions) {
            row.revision = *revision;
        }
        self
    }

    /// The rows of `price_changes`: most recalculations find few.
    pub(super) fn changes(&self) -> impl Iterator<Item = PriceChangeRow> {
        self.rows.iter().filter_map(|row| {
            let Change { old_list_price, cause } = row.change.clone()?;
            Some(PriceChangeRow {
                product_id: row.product_id.clone(),
                revision: row.revision,
                old_list_price,
                new_list_price: row.list_price.clone(),
                currency: row.currency,
                policy_version: row.policy_version,
                cause,
                changed_at: row.priced_at,
            })
        })
    }
}

impl ProductRow {
    fn of(product: &Product) -> Result<Self, CatalogueError> {
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
        })
    }
}

impl PriceRow {
    fn of(write: &PriceWrite) -> Self {
        let entry = &write.entry;
        let is_another = write.previous_list_price != Some(entry.list_price);
        Self {
            product_id: entry.product_id.to_string(),
            revision: entry.revision,
            category: entry.category.as_deref().map(str::to_owned),
            currency: entry.currency.code(),
            base_price: entry.base_price.to_string(),
            list_price: entry.list_price.to_string(),
            lowest: digits(entry.lowest),
            highest: digits(entry.highest),
            policy_version: entry.policy_version,
            valid_until: entry.valid_until,
            opening_price: write.opening_price.to_string(),
            opened_on: write.opened_on,
            changed_at: write.changed_at,
            streak_moves: write.streak.map(|streak| streak.moves),
            streak_since: write.streak.map(|streak| streak.since),
            priced_at: write.priced_at,
            explanation: write.explanation.clone(),
            change: is_another.then(|| Change {
                old_list_price: digits(write.previous_list_price),
                cause: bounded_cause(&write.cause).to_owned(),
            }),
        }
    }
}

/// An amount as text: neither database's JSON reader nor PostgreSQL's driver keeps every digit of a number.
fn digits(amount: Option<Decimal>) -> Option<String> {
    amount.map(|amount| amount.to_string())
}
