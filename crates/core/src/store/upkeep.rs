//! Expiry: prices that are no longer valid, and records of events and of their moves that are no longer
//! needed. The numbers of prices that something keeps from their target, and of the server's connections.
//!
//! Each call does a bounded part of the work, so that it holds no lock for long. The worker's maintenance
//! calls these periodically.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::Store;
use super::error::StoreError;
use super::read_rows::{count, product_ids};
use super::statement::Statement;
use pricing_domain::facts::product::ProductId;

// EXISTS excludes prices whose product was deleted manually, which would be found forever.
const EXPIRED: Statement = Statement::same(
    "
    SELECT product_id FROM prices
    WHERE valid_until <= $1 AND EXISTS (SELECT 1 FROM products WHERE products.product_id = prices.product_id)
    ORDER BY valid_until, product_id LIMIT $2",
);
const NEXT_EXPIRY: Statement = Statement::same(
    "SELECT valid_until FROM prices WHERE valid_until IS NOT NULL ORDER BY valid_until LIMIT 1",
);
// Reads the partial index `prices_held` only.
const HELD: Statement =
    Statement::same("SELECT held_by, count(*) FROM prices WHERE held_by IS NOT NULL GROUP BY held_by");
/// Any user may read both. `reserved_connections` came with PostgreSQL 16.
const CONNECTIONS: &str = "
    SELECT (SELECT sum(numbackends)::bigint FROM pg_stat_database),
        current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
            - coalesce(current_setting('reserved_connections', true)::bigint, 0)";
/// A file has none.
const SERVER_CONNECTIONS: Statement = Statement { sqlite: "SELECT 0, 0", postgres: CONNECTIONS };
/// PostgreSQL skips rows that another worker is deleting.
const FORGET_EVENTS: Statement = Statement {
    sqlite: "
    DELETE FROM applied_events WHERE (source, event_id) IN (
        SELECT source, event_id FROM applied_events WHERE applied_at < $1 ORDER BY applied_at LIMIT $2)",
    postgres: "
    WITH old AS (
        SELECT source, event_id FROM applied_events WHERE applied_at < $1
        ORDER BY applied_at LIMIT $2 FOR UPDATE SKIP LOCKED)
    DELETE FROM applied_events AS events USING old
    WHERE events.source = old.source AND events.event_id = old.event_id",
};
/// PostgreSQL skips rows of products that are being priced.
const FORGET_EVENT_MOVES: Statement = Statement {
    sqlite: "
    DELETE FROM event_moves WHERE product_id IN (
        SELECT product_id FROM event_moves WHERE moved_at <= $1 ORDER BY moved_at LIMIT $2)",
    postgres: "
    WITH old AS (
        SELECT product_id FROM event_moves WHERE moved_at <= $1
        ORDER BY moved_at LIMIT $2 FOR UPDATE SKIP LOCKED)
    DELETE FROM event_moves AS moves USING old WHERE moves.product_id = old.product_id",
};

impl Store {
    /// At most `limit` products whose prices have expired, in order of expiry.
    pub async fn expired_prices(&self, now: DateTime<Utc>, limit: u32) -> Result<Vec<ProductId>, StoreError> {
        product_ids(&self.reader().await?.all(EXPIRED.bind(now).bind(limit)).await?)
    }

    /// The earliest expiry of a stored price, which may be in the past.
    pub async fn next_expiry(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let row: Option<(DateTime<Utc>,)> = self.reader().await?.optional(NEXT_EXPIRY).await?;
        Ok(row.map(|(expiry,)| expiry))
    }

    /// The number of prices by what keeps them from their target: the name of a limit on moves, or
    /// [`FROZEN`](super::FROZEN). One that keeps none is left out.
    pub async fn count_held_prices(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let rows: Vec<(String, i64)> = self.reader().await?.all(HELD).await?;
        rows.into_iter().map(|(held_by, prices)| Ok((held_by, count(prices)?))).collect()
    }

    /// The connections that the server has, of all programs, and how many it allows to users who are not
    /// superusers. Both are 0 with SQLite.
    pub async fn count_server_connections(&self) -> Result<(u64, u64), StoreError> {
        let (connections, allowed): (i64, i64) = self.reader().await?.one(SERVER_CONNECTIONS).await?;
        Ok((count(connections)?, count(allowed)?))
    }

    /// Deletes at most `limit` records of events that were applied before an instant, the oldest first.
    /// Returns how many. An event that is delivered again after that counts as new, so keep them for longer
    /// than an event may be in flight.
    pub async fn forget_applied_events(&self, before: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        self.writer().await?.execute(FORGET_EVENTS.bind(before).bind(limit)).await
    }

    /// Deletes at most `limit` counts of moves by events that began no later than an instant, the oldest
    /// first. Returns how many.
    pub async fn forget_event_moves(&self, until: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        self.writer().await?.execute(FORGET_EVENT_MOVES.bind(until).bind(limit)).await
    }
}
