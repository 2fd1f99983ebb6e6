//! Products, their signals, and location factors.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use super::error::StoreError;
use super::read_rows::{ProductRecord, SignalRecord, count, location_factors, product_ids, read_signals};
use super::statement::Statement;
use super::stored::{Readable, StoredFacts};
use super::{Store, bulk};
use pricing_domain::facts::product::{Product, ProductId};
use pricing_domain::facts::recalculation::RecalculationScope;
use pricing_domain::facts::signal::Signals;

macro_rules! product_columns {
    () => {
        "product_id, name, category, brand, currency, CAST(base_price AS text) AS base_price,
         CAST(unit_cost AS text) AS unit_cost, CAST(floor_price AS text) AS floor_price,
         CAST(ceiling_price AS text) AS ceiling_price,
         CAST(minimum_advertised_price AS text) AS minimum_advertised_price, attributes, cost_stated_at"
    };
}
pub(super) use product_columns;

const PRODUCT: Statement =
    Statement::same(concat!("SELECT ", product_columns!(), " FROM products WHERE product_id = $1"));
const SIGNALS: Statement = Statement::same(
    "
    SELECT subject_kind, subject, kind, source, CAST(value AS text) AS value, in_stock, observed_at,
           signals.currency, expires_at, event_source
    FROM signals WHERE subject_kind = 'product' AND subject = $1
    UNION ALL
    SELECT subject_kind, subject, kind, source, CAST(value AS text) AS value, in_stock, observed_at,
           signals.currency, expires_at, event_source
    FROM products JOIN signals ON subject_kind = 'category' AND subject = category
    WHERE product_id = $1",
);
const IDS: Statement =
    Statement::same("SELECT product_id FROM products WHERE product_id > $1 ORDER BY product_id LIMIT $2");
const IDS_IN_RANGE: Statement = Statement::same(
    "
    SELECT product_id FROM products
    WHERE product_id > $1 AND product_id <= $2 ORDER BY product_id LIMIT $3",
);
const IDS_OF_CATEGORY_IN_RANGE: Statement = Statement::same(
    "
    SELECT product_id FROM products
    WHERE product_id > $1 AND product_id <= $2 AND category = $4 ORDER BY product_id LIMIT $3",
);
const COUNT: Statement = Statement::same("SELECT count(*) FROM products");
const COUNT_OF_CATEGORY: Statement = Statement::same("SELECT count(*) FROM products WHERE category = $1");
const LOCATION_FACTORS: Statement = Statement::same(
    "
    SELECT subject, CAST(value AS text) FROM signals
    WHERE subject_kind = 'location' AND kind = 'location_factor' ORDER BY observed_at, source",
);

/// Sorts after every identifier, as none has a byte beyond `~`.
const AFTER_EVERY_ID: &str = "\u{7f}";

impl Store {
    /// Returns a product.
    pub async fn product(&self, id: &ProductId) -> Result<Option<Product>, StoreError> {
        let record: Option<ProductRecord> = self.reader().await?.optional(PRODUCT.bind(id.as_str())).await?;
        record.map(Product::try_from).transpose()
    }

    /// The facts that new prices of these products depend on, as of an instant and ordered by product;
    /// products that do not exist are left out. Locks nothing, and each statement sees the rows of its own
    /// time; to write prices computed from these facts, use
    /// [`StoreTransaction::lock_facts`](super::StoreTransaction::lock_facts) instead.
    pub async fn facts(
        &self,
        ids: &[ProductId],
        now: DateTime<Utc>,
    ) -> Result<Readable<StoredFacts>, StoreError> {
        bulk::facts(&mut self.reader().await?, ids).await?.read(now)
    }

    /// The products with these identifiers that exist, the readable ones ordered by identifier. Locks
    /// nothing.
    pub async fn products(&self, ids: &[ProductId]) -> Result<Readable<Product>, StoreError> {
        bulk::products(&mut self.reader().await?, ids).await?.read_in_order()
    }

    /// [`facts`](Self::facts) of these products as they are given, stored or not: their prices, and the
    /// signals of them and of their categories.
    pub async fn facts_of(
        &self,
        products: Vec<Product>,
        now: DateTime<Utc>,
    ) -> Result<Readable<StoredFacts>, StoreError> {
        bulk::facts_of(&mut self.reader().await?, products).await?.read(now)
    }

    /// The signals of a product as of an instant, its own and its category's; for an unknown product, only
    /// its own.
    pub async fn signals(&self, id: &ProductId, now: DateTime<Utc>) -> Result<Signals, StoreError> {
        let product = self.product(id).await?;
        let records: Vec<SignalRecord> = self.reader().await?.all(SIGNALS.bind(id.as_str())).await?;
        Ok(Signals::of_product(read_signals(records)?, product.as_ref(), now))
    }

    /// A page of identifiers after the given one, in byte order. A page begins where the last one ended, so
    /// concurrent additions and removals do not shift it.
    pub async fn product_ids(
        &self,
        after: Option<&ProductId>,
        limit: u32,
    ) -> Result<Vec<ProductId>, StoreError> {
        // Every identifier sorts after the empty text.
        let page = IDS.bind(after.map_or("", ProductId::as_str)).bind(limit);
        product_ids(&self.reader().await?.all(page).await?)
    }

    /// The identifiers of a category's products after the given one, as [`product_ids`](Self::product_ids)
    /// returns those of all.
    pub async fn product_ids_of_category(
        &self,
        category: &str,
        after: Option<&ProductId>,
        limit: u32,
    ) -> Result<Vec<ProductId>, StoreError> {
        self.product_ids_in_range(Some(category), after, None, limit).await
    }

    /// The identifiers after the first and up to and including the second, of one category or of all
    /// products. A missing limit leaves the range open. A range that is bounded by identifiers includes
    /// products that were added to it since.
    pub async fn product_ids_in_range(
        &self,
        category: Option<&str>,
        after: Option<&ProductId>,
        through: Option<&ProductId>,
        limit: u32,
    ) -> Result<Vec<ProductId>, StoreError> {
        let after = after.map_or("", ProductId::as_str);
        let through = through.map_or(AFTER_EVERY_ID, ProductId::as_str);
        let page = match category {
            None => IDS_IN_RANGE.bind(after).bind(through).bind(limit),
            Some(category) => IDS_OF_CATEGORY_IN_RANGE.bind(after).bind(through).bind(limit).bind(category),
        };
        product_ids(&self.reader().await?.all(page).await?)
    }

    /// The number of products.
    pub async fn count_products(&self) -> Result<u64, StoreError> {
        let (products,) = self.reader().await?.one(COUNT).await?;
        count(products)
    }

    /// The number of products of a category.
    pub async fn count_products_of_category(&self, category: &str) -> Result<u64, StoreError> {
        let (products,) = self.reader().await?.one(COUNT_OF_CATEGORY.bind(category)).await?;
        count(products)
    }

    /// The number of products that a recalculation of this scope covers; named ones count even if they do not
    /// exist.
    pub async fn count_products_of(&self, scope: &RecalculationScope) -> Result<u64, StoreError> {
        match scope.products() {
            RecalculationScope::All | RecalculationScope::Released(_) => self.count_products().await,
            RecalculationScope::Category(category) => self.count_products_of_category(category).await,
            RecalculationScope::Products(ids) => Ok(u64::try_from(ids.len()).unwrap_or(u64::MAX)),
        }
    }

    /// The identifiers of a scope after the given one, as [`product_ids`](Self::product_ids) returns those of
    /// all; named ones are returned all at once.
    pub async fn product_ids_of(
        &self,
        scope: &RecalculationScope,
        after: Option<&ProductId>,
        limit: u32,
    ) -> Result<Vec<ProductId>, StoreError> {
        match scope.products() {
            RecalculationScope::All | RecalculationScope::Released(_) => self.product_ids(after, limit).await,
            RecalculationScope::Category(category) => {
                self.product_ids_of_category(category, after, limit).await
            }
            RecalculationScope::Products(ids) => Ok(ids.clone()),
        }
    }

    /// The price factors of all locations that have one.
    pub async fn location_factors(&self) -> Result<HashMap<String, Decimal>, StoreError> {
        location_factors(self.reader().await?.all(LOCATION_FACTORS).await?)
    }
}
