//! Current prices, their explanations, and their history.

use std::collections::BTreeSet;

use super::Store;
use super::error::StoreError;
use super::read_rows::{ChangeRecord, PriceRecord, read_all, read_prices};
use super::statement::{Statement, Value};
use super::stored::{PriceChange, StoredPrice};
use super::transaction::texts_of;
use pricing_domain::facts::product::ProductId;

macro_rules! price_columns {
    () => {
        "product_id, revision, category, currency, CAST(base_price AS text) AS base_price,
         CAST(list_price AS text) AS list_price, CAST(lowest AS text) AS lowest, CAST(highest AS text) AS highest,
         policy_version, valid_until, CAST(opening_price AS text) AS opening_price, opened_on, changed_at,
         streak_moves, streak_since, explanation_digest, movement, events_held_since, events_held_reason,
         events_rejected_by, priced_at, held_by"
    };
}
pub(super) use price_columns;
macro_rules! change_columns {
    () => {
        "product_id, revision, CAST(old_list_price AS text) AS old_list_price,
         CAST(new_list_price AS text) AS new_list_price, currency, policy_version, cause, changed_at"
    };
}

const PRICE: Statement = Statement::same(concat!(
    "SELECT ",
    price_columns!(),
    ", NULL AS explanation FROM prices WHERE product_id = $1"
));
const PRICES: Statement = Statement {
    sqlite: concat!(
        "SELECT ",
        price_columns!(),
        ", NULL AS explanation FROM prices WHERE product_id IN (SELECT value FROM json_each($1)) ORDER BY product_id"
    ),
    postgres: concat!(
        "SELECT ",
        price_columns!(),
        ", NULL AS explanation FROM prices WHERE product_id = ANY($1) ORDER BY product_id"
    ),
};
const CHANGES_BETWEEN: Statement = Statement {
    sqlite: concat!(
        "SELECT ",
        change_columns!(),
        "
    FROM price_changes
    WHERE product_id IN (SELECT value FROM json_each($1)) AND revision BETWEEN $2 AND $3 ORDER BY revision"
    ),
    postgres: concat!(
        "SELECT ",
        change_columns!(),
        "
    FROM price_changes WHERE product_id = ANY($1) AND revision BETWEEN $2 AND $3 ORDER BY revision"
    ),
};
const EXPLANATION: Statement = Statement::same("SELECT explanation FROM prices WHERE product_id = $1");
const CHANGES: Statement = Statement::same(concat!(
    "SELECT ",
    change_columns!(),
    " FROM price_changes WHERE product_id = $1 AND revision < $2 ORDER BY revision DESC LIMIT $3"
));
const NEWEST_CHANGES: Statement = Statement {
    sqlite: concat!(
        "SELECT ",
        change_columns!(),
        "
    FROM json_each($1) AS asked JOIN price_changes ON product_id = asked.value
    WHERE revision = (SELECT max(revision) FROM price_changes WHERE product_id = asked.value)
    ORDER BY product_id"
    ),
    postgres: concat!(
        "SELECT ",
        change_columns!(),
        "
    FROM unnest($1::text[]) AS asked (id) CROSS JOIN LATERAL (
        SELECT * FROM price_changes WHERE product_id = asked.id ORDER BY revision DESC LIMIT 1) AS newest
    ORDER BY product_id"
    ),
};

impl Store {
    /// The current price of a product.
    pub async fn stored_price(&self, id: &ProductId) -> Result<Option<StoredPrice>, StoreError> {
        let record: Option<PriceRecord> = self.reader().await?.optional(PRICE.bind(id.as_str())).await?;
        Ok(read_prices(record)?.pop())
    }

    /// The current prices of these products, ordered by product; products without one are left out.
    pub async fn stored_prices(&self, ids: &[ProductId]) -> Result<Vec<StoredPrice>, StoreError> {
        let records: Vec<PriceRecord> = self.reader().await?.all(PRICES.bind(texts_of(ids))).await?;
        read_prices(records)
    }

    /// The changes of these products' list prices whose revisions lie between these two, in their order.
    pub async fn changes_between(
        &self,
        ids: &[ProductId],
        first_revision: i64,
        last_revision: i64,
    ) -> Result<Vec<PriceChange>, StoreError> {
        let changes = CHANGES_BETWEEN.bind(texts_of(ids)).bind(first_revision).bind(last_revision);
        let records: Vec<ChangeRecord> = self.reader().await?.all(changes).await?;
        read_all(records)
    }

    /// The explanation of the current price: JSON, byte for byte as it was written.
    pub async fn explanation(&self, id: &ProductId) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> = self.reader().await?.optional(EXPLANATION.bind(id.as_str())).await?;
        Ok(row.map(|(explanation,)| explanation))
    }

    /// The latest changes of a product's list price, newest first. Those of a removed product are kept.
    pub async fn price_changes(&self, id: &ProductId, limit: u32) -> Result<Vec<PriceChange>, StoreError> {
        self.price_changes_before(id, i64::MAX, limit).await
    }

    /// The latest changes of a product's list price before a revision, newest first.
    pub async fn price_changes_before(
        &self,
        id: &ProductId,
        before: i64,
        limit: u32,
    ) -> Result<Vec<PriceChange>, StoreError> {
        let changes = CHANGES.bind(id.as_str()).bind(before).bind(limit);
        let records: Vec<ChangeRecord> = self.reader().await?.all(changes).await?;
        read_all(records)
    }

    /// The latest change of each product's list price, ordered by product; products without one are left out.
    pub async fn newest_changes(&self, ids: &[ProductId]) -> Result<Vec<PriceChange>, StoreError> {
        // Duplicates are removed, or the change of a product that is named twice would be returned twice.
        let ids: BTreeSet<&str> = ids.iter().map(ProductId::as_str).collect();
        let changes = NEWEST_CHANGES.bind(Value::Texts(ids.into_iter().collect()));
        let records: Vec<ChangeRecord> = self.reader().await?.all(changes).await?;
        read_all(records)
    }
}
