//! What market events move: the counts that the circuit breaker judges, and the moves that it holds.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use sqlx::FromRow;

use super::Store;
use super::columns::Columns;
use super::error::StoreError;
use super::json_rows::{as_instant, as_json};
use super::read_rows::{count, decimal, product_id};
use super::statement::{Statement, Value};
use super::transaction::{StoreTransaction, texts_of};
use pricing_domain::facts::product::ProductId;
use pricing_domain::pricing::event_move::EventMove;

const EVENT_MOVES: Statement = Statement {
    sqlite: "
    SELECT product_id, list_price_before, list_price, moved_at FROM event_moves
    WHERE product_id IN (SELECT value FROM json_each($1)) AND moved_at > $2",
    postgres: "
    SELECT product_id, list_price_before::text AS list_price_before, list_price::text AS list_price, moved_at
    FROM event_moves WHERE product_id = ANY($1) AND moved_at > $2",
};
const PUT_EVENT_MOVES: Statement = Statement {
    sqlite: "
    INSERT INTO event_moves (product_id, list_price_before, list_price, distance_millionths, moved_at)
    SELECT value ->> 'product_id', value ->> 'list_price_before', value ->> 'list_price',
           value ->> 'distance_millionths', value ->> 'moved_at'
    FROM jsonb_each($1) WHERE true
    ON CONFLICT (product_id) DO UPDATE SET
        list_price_before = excluded.list_price_before, list_price = excluded.list_price,
        distance_millionths = excluded.distance_millionths, moved_at = excluded.moved_at",
    postgres: "
    INSERT INTO event_moves (product_id, list_price_before, list_price, distance_millionths, moved_at)
    SELECT product_id, list_price_before, list_price, distance_millionths, moved_at
    FROM json_to_recordset($1::json) AS written (
        product_id text, list_price_before numeric, list_price numeric, distance_millionths bigint,
        moved_at timestamptz)
    ON CONFLICT (product_id) DO UPDATE SET
        list_price_before = excluded.list_price_before, list_price = excluded.list_price,
        distance_millionths = excluded.distance_millionths, moved_at = excluded.moved_at",
};
/// Without this lock, two transactions could each make the last move that is allowed. An advisory lock is
/// used because the counted rows are written meanwhile.
const LOCK_EVENT_MOVES: &str = "SELECT pg_advisory_xact_lock('event_moves'::regclass::oid::bigint)";
const COUNT_EVENT_MOVES: Statement =
    Statement::same("SELECT count(*) FROM event_moves WHERE distance_millionths > $1 AND moved_at > $2");
const COUNT_PRODUCTS_UP_TO: Statement =
    Statement::same("SELECT count(*) FROM (SELECT 1 FROM products LIMIT $1) AS counted");
const COUNT_HELD: Statement = Statement::same(
    "SELECT count(*) FROM prices WHERE events_held_since IS NOT NULL AND events_rejected_by IS NULL",
);
const HELD_MOVES: Statement = Statement::same(
    "
    SELECT product_id, CAST(list_price AS text) AS list_price, currency, events_held_since, events_held_reason
    FROM prices
    WHERE events_held_since IS NOT NULL AND events_rejected_by IS NULL AND product_id > $1
    ORDER BY product_id LIMIT $2",
);

/// A move that the circuit breaker holds and that waits for a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldMove {
    /// The product.
    pub product_id: ProductId,
    /// The list price in effect.
    pub list_price: Decimal,
    /// The code of its currency, which may be unknown to this program.
    pub currency: String,
    /// When the move was held.
    pub since: DateTime<Utc>,
    /// Why, with the figures.
    pub reason: String,
}

/// Some of the moves that wait for a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldMoves {
    /// The number of all.
    pub count: u64,
    /// These, ordered by product.
    pub moves: Vec<HeldMove>,
}

impl Store {
    /// The moves by events that wait for a decision: their number, and at most `limit` of the products after
    /// the given one, in byte order.
    pub async fn held_moves(&self, after: Option<&str>, limit: u32) -> Result<HeldMoves, StoreError> {
        let mut reader = self.reader().await?;
        let (held,) = reader.one(COUNT_HELD).await?;
        let records: Vec<HeldRecord> =
            reader.all(HELD_MOVES.bind(after.unwrap_or_default()).bind(limit)).await?;
        let moves = records.into_iter().map(HeldMove::try_from).collect::<Result<_, _>>()?;
        Ok(HeldMoves { count: count(held)?, moves })
    }

    /// The number of moves by events that wait for a decision.
    pub async fn count_held_moves(&self) -> Result<u64, StoreError> {
        let (held,) = self.reader().await?.one(COUNT_HELD).await?;
        count(held)
    }
}

impl StoreTransaction {
    /// What events have made of the list prices of these products, by counts that began after an instant.
    pub async fn event_moves(
        &mut self,
        ids: &[ProductId],
        since: DateTime<Utc>,
    ) -> Result<HashMap<ProductId, EventMove>, StoreError> {
        let records: Vec<MoveRecord> = self.session.all(EVENT_MOVES.bind(texts_of(ids)).bind(since)).await?;
        records.into_iter().map(MoveRecord::read).collect()
    }

    /// Waits for any other transaction that has locked the count of what events move, and locks it until this
    /// one ends. The products of this transaction must all be locked already.
    pub async fn lock_event_moves(&mut self) -> Result<(), StoreError> {
        self.session.lock(LOCK_EVENT_MOVES).await
    }

    /// The number of products that events have moved by more than so many millionths, by counts that began
    /// after an instant.
    pub async fn count_event_moves(
        &mut self,
        by_millionths: i64,
        since: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        let (moved,) = self.session.one(COUNT_EVENT_MOVES.bind(by_millionths).bind(since)).await?;
        count(moved)
    }

    /// The number of products, or the limit if that is smaller: counting fewer is faster.
    pub async fn count_products_up_to(&mut self, limit: u64) -> Result<u64, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (products,) = self.session.one(COUNT_PRODUCTS_UP_TO.bind(limit)).await?;
        count(products)
    }

    /// Stores what events have made of list prices. The products must be locked, and each occur once.
    pub async fn put_event_moves(&mut self, moves: &[(ProductId, EventMove)]) -> Result<(), StoreError> {
        let rows = as_json(moves.iter().map(|(product_id, by_events)| MoveRow {
            product_id: product_id.as_str(),
            list_price_before: by_events.list_price_before,
            list_price: by_events.list_price,
            distance_millionths: by_events.distance_millionths(),
            moved_at: by_events.moved_at,
        }))?;
        self.session.execute(PUT_EVENT_MOVES.bind(Value::Written(rows))).await?;
        Ok(())
    }
}

/// A row of `event_moves` to be written.
#[derive(Serialize)]
struct MoveRow<'a> {
    product_id: &'a str,
    list_price_before: Decimal,
    list_price: Decimal,
    distance_millionths: i64,
    #[serde(serialize_with = "as_instant")]
    moved_at: DateTime<Utc>,
}

/// A row of `event_moves`.
#[derive(Debug)]
struct MoveRecord {
    product_id: String,
    list_price_before: String,
    list_price: String,
    moved_at: DateTime<Utc>,
}

impl<'row, R: Columns> FromRow<'row, R> for MoveRecord {
    fn from_row(row: &'row R) -> Result<Self, sqlx::Error> {
        Ok(Self {
            product_id: row.value("product_id")?,
            list_price_before: row.value("list_price_before")?,
            list_price: row.value("list_price")?,
            moved_at: row.value("moved_at")?,
        })
    }
}

impl MoveRecord {
    fn read(self) -> Result<(ProductId, EventMove), StoreError> {
        let by_events = EventMove {
            list_price_before: decimal("list_price_before", &self.list_price_before)?,
            list_price: decimal("list_price", &self.list_price)?,
            moved_at: self.moved_at,
        };
        Ok((product_id(&self.product_id)?, by_events))
    }
}

/// Columns of `prices` of a held move.
#[derive(Debug)]
struct HeldRecord {
    product_id: String,
    list_price: String,
    currency: String,
    events_held_since: DateTime<Utc>,
    events_held_reason: Option<String>,
}

impl<'row, R: Columns> FromRow<'row, R> for HeldRecord {
    fn from_row(row: &'row R) -> Result<Self, sqlx::Error> {
        Ok(Self {
            product_id: row.value("product_id")?,
            list_price: row.value("list_price")?,
            currency: row.value("currency")?,
            events_held_since: row.value("events_held_since")?,
            events_held_reason: row.value("events_held_reason")?,
        })
    }
}

impl TryFrom<HeldRecord> for HeldMove {
    type Error = StoreError;

    fn try_from(record: HeldRecord) -> Result<Self, StoreError> {
        Ok(Self {
            product_id: product_id(&record.product_id)?,
            list_price: decimal("list_price", &record.list_price)?,
            currency: record.currency,
            since: record.events_held_since,
            reason: record.events_held_reason.unwrap_or_default(),
        })
    }
}
