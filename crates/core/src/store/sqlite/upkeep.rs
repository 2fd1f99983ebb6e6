//! What becomes due or old, in a SQLite file.

use chrono::{DateTime, Utc};
use sqlx::{query, query_scalar};

use super::super::error::StoreError;
use super::super::json_rows::instant;
use super::super::read_rows::product_ids;
use super::SqliteStore;
use pricing_domain::facts::product::ProductId;

const EXPIRED: &str = "
    SELECT product_id FROM prices WHERE valid_until <= $1 ORDER BY valid_until, product_id LIMIT $2";
const NEXT_EXPIRY: &str = "
    SELECT valid_until FROM prices WHERE valid_until IS NOT NULL ORDER BY valid_until LIMIT 1";
const FORGET_EVENTS: &str = "
    DELETE FROM applied_events WHERE (source, event_id) IN (
        SELECT source, event_id FROM applied_events WHERE applied_at < $1 ORDER BY applied_at LIMIT $2)";

impl SqliteStore {
    pub(in super::super) async fn expired_prices(
        &self,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<ProductId>, StoreError> {
        let expired = query_scalar(EXPIRED).bind(instant(now)).bind(limit);
        let mut session = self.reader().await?;
        let column: Vec<String> = session.run(|connection| expired.fetch_all(connection)).await?;
        product_ids(&column)
    }

    pub(in super::super) async fn next_expiry(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let mut session = self.reader().await?;
        session.run(|connection| query_scalar(NEXT_EXPIRY).fetch_optional(connection)).await
    }

    pub(in super::super) async fn forget_applied_events(
        &self,
        before: DateTime<Utc>,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let forget = query(FORGET_EVENTS).bind(instant(before)).bind(limit);
        let mut session = self.writer().await?;
        Ok(session.run(|connection| forget.execute(connection)).await?.rows_affected())
    }
}
