//! What becomes due or old, in a PostgreSQL database.

use chrono::{DateTime, Utc};
use sqlx::{query, query_scalar};

use super::super::error::StoreError;
use super::super::read_rows::product_ids;
use super::PostgresStore;
use pricing_domain::facts::product::ProductId;

// One that was left behind by hand has no product, and would be found for ever.
const EXPIRED: &str = "
    SELECT product_id FROM prices
    WHERE valid_until <= $1 AND EXISTS (SELECT FROM products WHERE products.product_id = prices.product_id)
    ORDER BY valid_until, product_id LIMIT $2";
const NEXT_EXPIRY: &str = "
    SELECT valid_until FROM prices WHERE valid_until IS NOT NULL ORDER BY valid_until LIMIT 1";
// What somebody else is about to delete is left to him.
const FORGET_EVENTS: &str = "
    WITH old AS (
        SELECT source, event_id FROM applied_events WHERE applied_at < $1
        ORDER BY applied_at LIMIT $2 FOR UPDATE SKIP LOCKED)
    DELETE FROM applied_events AS events USING old
    WHERE events.source = old.source AND events.event_id = old.event_id";

impl PostgresStore {
    pub(in super::super) async fn expired_prices(
        &self,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<ProductId>, StoreError> {
        let expired = query_scalar(EXPIRED).bind(now).bind(i64::from(limit));
        let mut session = self.session().await?;
        let column: Vec<String> = session.run(|connection| expired.fetch_all(connection)).await?;
        product_ids(&column)
    }

    pub(in super::super) async fn next_expiry(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let mut session = self.session().await?;
        session.run(|connection| query_scalar(NEXT_EXPIRY).fetch_optional(connection)).await
    }

    pub(in super::super) async fn forget_applied_events(
        &self,
        before: DateTime<Utc>,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let forget = query(FORGET_EVENTS).bind(before).bind(i64::from(limit));
        let mut session = self.session().await?;
        Ok(session.run(|connection| forget.execute(connection)).await?.rows_affected())
    }
}
