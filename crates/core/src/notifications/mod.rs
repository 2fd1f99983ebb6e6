//! Notifications between processes of changed prices, policies and location factors.
//!
//! Here: the notifications and the stream of the latest price changes. Never here: how a process reacts to
//! one (the API's `invalidation`). Prices are stored in Redis before their notification is published, or in
//! the same call; a notification caused by events carries the new entries for processes that hold older ones.
//! Delivery is publish/subscribe, so a notification may be lost: a process that depends on them starts from a
//! clean state whenever its subscription was interrupted.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use redis::streams::{StreamId, StreamRangeReply};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::catalogue::{Catalogue, CurrentCatalogue};
use crate::keys::{MessageKeys, PRICE_CHANGES_KEPT, PRICE_CHANGES_KEPT_BYTES};
use crate::redis::{RedisConnection, RedisError};
use crate::telemetry::spans::TraceParent;
use pricing_domain::facts::instant::as_instant;
use pricing_domain::facts::money::as_optional_json_number;
use pricing_domain::facts::price_entry::PriceEntry;
use pricing_domain::facts::product::{ProductId, optional_amount_from_json};

/// Changes per entry of the stream, and per message on the channel.
const CHANGES_PER_ENTRY: usize = 100;
/// The field of an entry that holds the changes.
const FIELD: &str = "notice";

/// A notification that prices of one store changed.
#[derive(Debug, Clone, Deserialize)]
pub struct PriceNotification {
    /// The identity of the store; revisions of another one cannot be compared.
    pub catalogue: String,
    /// At most [`CHANGES_PER_ENTRY`].
    pub changes: Vec<ReplacedPrice>,
    /// The trace that this is part of.
    #[serde(default)]
    pub traceparent: Option<String>,
    /// When the event that caused it was published, if an event did.
    #[serde(default)]
    pub published_at: Option<DateTime<Utc>>,
    /// The new entries, in the order of the changes, as JSON: a process decodes only those of products that
    /// it has cached. Sent on the channel and not kept in the stream.
    #[serde(default)]
    entries: Vec<Option<Box<RawValue>>>,
}

/// A replaced price entry: the part that caches need.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ReplacedPrice {
    /// The product.
    pub product_id: ProductId,
    /// The revision of the new entry.
    pub revision: i64,
}

/// A price entry that was replaced, and the change of its list price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedPrice {
    /// The product.
    pub product_id: ProductId,
    /// The revision of the new entry.
    pub revision: i64,
    /// The change of the list price, if it changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<ListPriceChange>,
    /// The new entry, for processes that have the older one cached; absent if the product is gone, or is
    /// unlikely to be cached.
    #[serde(skip)]
    pub entry: Option<Arc<PriceEntry>>,
}

/// A change of a list price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPriceChange {
    /// The list price before; absent if it is the product's first.
    #[serde(serialize_with = "as_optional_json_number", deserialize_with = "optional_amount_from_json")]
    pub old_list_price: Option<Decimal>,
    /// The list price after; absent if the product was removed.
    #[serde(serialize_with = "as_optional_json_number", deserialize_with = "optional_amount_from_json")]
    pub new_list_price: Option<Decimal>,
    /// The currency code of both.
    pub currency: Cow<'static, str>,
    /// The policy version of the new price.
    pub policy_version: i64,
    /// What caused the change.
    pub cause: String,
    /// When it changed.
    #[serde(serialize_with = "as_instant")]
    pub changed_at: DateTime<Utc>,
}

/// A position in the stream of the latest changes: an entry, and a change in it. Written `1700000000000-0.3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    time_ms: u64,
    number: u64,
    index: usize,
}

impl PriceNotification {
    /// Each change, with a function that decodes the new entry if the notification carries it.
    pub fn changes_with_entries(
        &self,
    ) -> impl Iterator<Item = (&ReplacedPrice, impl FnOnce() -> Option<PriceEntry>)> {
        let entries = self.entries.iter().map(Option::as_deref).chain(std::iter::repeat(None));
        self.changes.iter().zip(entries).map(|(changed, entry)| {
            let read = move || {
                let entry: PriceEntry = serde_json::from_str(entry?.get()).ok()?;
                (entry.revision == changed.revision && entry.product_id == changed.product_id)
                    .then_some(entry)
                    .filter(|entry| entry.fault().is_none())
            };
            (changed, read)
        })
    }
}

/// Encoded notifications for the cache's script, which publishes them with the last batch of their prices, or
/// alone if the prices are in Redis already.
#[derive(Debug)]
pub struct Announcement {
    /// The keys of the stream that keeps them, and of the count of its bytes.
    pub(crate) keys: [String; 2],
    /// The script's arguments.
    pub(crate) arguments: Vec<Vec<u8>>,
}

/// Publishes notifications and reads received ones; cheap to clone.
#[derive(Clone)]
pub struct Notifications {
    redis: RedisConnection,
    keys: MessageKeys,
    catalogue: CurrentCatalogue,
}

impl Notifications {
    /// Notifications about this catalogue and those that replace it.
    pub fn new(redis: &RedisConnection, keys: MessageKeys, catalogue: impl Into<CurrentCatalogue>) -> Self {
        Self { redis: redis.clone(), keys, catalogue: catalogue.into() }
    }

    /// The keys and channels in use.
    pub fn keys(&self) -> &MessageKeys {
        &self.keys
    }

    /// The catalogue in use.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.get()
    }

    /// Encodes the notification that these prices of a catalogue were replaced, with the current trace;
    /// `None` if there are none.
    pub fn announcement(
        &self,
        catalogue: &Catalogue,
        changes: &[ChangedPrice],
        published_at: Option<DateTime<Utc>>,
    ) -> Option<Announcement> {
        if changes.is_empty() {
            return None;
        }
        let traceparent = TraceParent::current();
        let traceparent = traceparent.as_ref().map(TraceParent::as_str);
        let (channel, kept) = (self.keys.price_changes_channel(), PRICE_CHANGES_KEPT.to_string());
        let half_of_bytes = (PRICE_CHANGES_KEPT_BYTES / 2).to_string();
        let mut arguments =
            vec![channel.into_bytes(), kept.into_bytes(), half_of_bytes.into_bytes(), FIELD.into()];
        for changes in changes.chunks(CHANGES_PER_ENTRY) {
            let notification =
                NotificationToWrite { catalogue: catalogue.identity(), changes, traceparent, published_at };
            // Either no entries at all, or one for each change.
            let brings_any = changes.iter().any(|changed| changed.entry.is_some());
            let entries: Vec<Option<&PriceEntry>> =
                changes.iter().filter(|_| brings_any).map(|changed| changed.entry.as_deref()).collect();
            // Serialising these types cannot fail.
            arguments.push(serde_json::to_vec(&notification).unwrap_or_default());
            arguments.push(serde_json::to_vec(&entries).unwrap_or_default());
        }
        let keys = [self.keys.price_changes_log(), self.keys.price_changes_bytes()];
        Some(Announcement { keys, arguments })
    }

    /// Publishes a notification of a changed policy or location factor.
    pub async fn announce_policy(&self) -> Result<(), RedisError> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(self.keys.policy_changes_channel()).arg("");
        Ok(publish.query_async(&mut self.redis.writes()).await?)
    }

    /// Decodes a received notification; `None` if it is about another catalogue than the one in use, has a
    /// revision that this one cannot have issued, or is not a notification.
    pub fn read(&self, payload: &[u8]) -> Option<PriceNotification> {
        let notification: PriceNotification = serde_json::from_slice(payload).ok()?;
        let catalogue = self.catalogue.get();
        let mut revisions = notification.changes.iter().map(|changed| changed.revision);
        if notification.catalogue != catalogue.identity()
            || !revisions.all(|revision| catalogue.can_have_issued(revision))
        {
            return None;
        }
        for changed in &notification.changes {
            catalogue.note(&changed.product_id, changed.revision);
        }
        Some(notification)
    }

    fn read_kept(&self, text: &[u8]) -> Option<KeptNotification> {
        let notification: KeptNotification = serde_json::from_slice(text).ok()?;
        (notification.catalogue == self.catalogue.get().identity()).then_some(notification)
    }

    /// The end of the stream: later changes come after this position.
    pub async fn end(&self) -> Result<Position, RedisError> {
        let mut last = redis::cmd("XREVRANGE");
        last.arg(self.keys.price_changes_log()).arg("+").arg("-").arg("COUNT").arg(1);
        // After a disconnect the first command fails on the broken connection and the second gets a new one.
        let last: StreamRangeReply = match last.query_async(&mut self.redis.writes()).await {
            Ok(last) => last,
            Err(_) => last.query_async(&mut self.redis.writes()).await?,
        };
        let last = last.ids.first().and_then(|entry| Position::of_entry(&entry.id));
        Ok(last.map_or(Position::START, |position| Position { index: usize::MAX, ..position }))
    }

    /// Whether the change at this position was of another catalogue than the one in use.
    pub async fn is_of_another_catalogue(&self, position: Position) -> Result<bool, RedisError> {
        let mut entry = redis::cmd("XRANGE");
        entry.arg(self.keys.price_changes_log()).arg(position.entry()).arg(position.entry());
        let entry: StreamRangeReply = entry.query_async(&mut self.redis.writes()).await?;
        let text: Option<Vec<u8>> = entry.ids.first().and_then(|entry| entry.get(FIELD));
        Ok(text.is_some_and(|text| self.read_kept(&text).is_none()))
    }

    /// Changes of list prices after this position, from the next `entries` entries of the stream.
    pub async fn changes_after(&self, after: Position, entries: usize) -> Result<ChangesAfter, RedisError> {
        let mut range = redis::cmd("XRANGE");
        // Includes the position's own entry, as some of its changes may come after the position.
        range.arg(self.keys.price_changes_log()).arg(after.entry()).arg("+").arg("COUNT").arg(entries + 1);
        let range: StreamRangeReply = range.query_async(&mut self.redis.writes()).await?;
        let has_gap = match after {
            Position::START => !range.ids.is_empty() && self.may_be_trimmed().await?,
            // As long as the position's own entry is kept, no entry after it was trimmed.
            _ => range.ids.first().is_none_or(|entry| entry.id != after.entry()),
        };
        let mut reached = if has_gap && range.ids.is_empty() { Position::START } else { after };
        let mut changes = Vec::new();
        for entry in &range.ids {
            let Some(position) = Position::of_entry(&entry.id) else { continue };
            let of_entry = self.changes_of(entry, position);
            changes.extend(of_entry.into_iter().filter(|(position, _)| *position > after));
            reached = reached.max(Position { index: usize::MAX, ..position });
        }
        Ok(ChangesAfter { changes, reached, has_gap })
    }

    /// Changes of list prices up to this position, from the last `entries` entries of the stream; the latest
    /// entry first.
    pub async fn changes_before(
        &self,
        until: Position,
        entries: usize,
    ) -> Result<Vec<(Position, ProductChange)>, RedisError> {
        let mut range = redis::cmd("XREVRANGE");
        range.arg(self.keys.price_changes_log()).arg(until.entry()).arg("-").arg("COUNT").arg(entries);
        let range: StreamRangeReply = range.query_async(&mut self.redis.writes()).await?;
        let of_entry = |entry: &StreamId| Some(self.changes_of(entry, Position::of_entry(&entry.id)?));
        let changes = range.ids.iter().filter_map(of_entry).flatten();
        Ok(changes.filter(|(position, _)| *position <= until).collect())
    }

    /// Whether the stream is so long that its first entries may have been trimmed.
    async fn may_be_trimmed(&self) -> Result<bool, RedisError> {
        let mut length = redis::cmd("XLEN");
        length.arg(self.keys.price_changes_log());
        let length: usize = length.query_async(&mut self.redis.writes()).await?;
        Ok(length >= PRICE_CHANGES_KEPT)
    }

    /// The changes of list prices in an entry of the stream, each with its position.
    fn changes_of(&self, entry: &StreamId, position: Position) -> Vec<(Position, ProductChange)> {
        let text: Option<Vec<u8>> =
            entry.map.get(FIELD).and_then(|value| redis::from_redis_value(value.clone()).ok());
        let notification = text.and_then(|text| self.read_kept(&text));
        let changes = notification.into_iter().flat_map(|notification| notification.changes).enumerate();
        let changes = changes.filter_map(|(index, ChangedPrice { product_id, revision, change, .. })| {
            Some((Position { index, ..position }, ProductChange { product_id, revision, change: change? }))
        });
        changes.collect()
    }
}

/// A page of the stream of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangesAfter {
    /// Each change with its position; empty if the page has none, or the stream has ended.
    pub changes: Vec<(Position, ProductChange)>,
    /// The position to continue from: the end of this page, or the requested position if the stream has
    /// ended.
    pub reached: Position,
    /// Whether changes between the requested position and these may have been trimmed.
    pub has_gap: bool,
}

/// A change of a product's list price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductChange {
    /// The product.
    pub product_id: ProductId,
    /// The revision of the new price.
    pub revision: i64,
    /// The change.
    pub change: ListPriceChange,
}

/// A notification as the stream keeps it.
#[derive(Deserialize)]
struct KeptNotification {
    catalogue: String,
    changes: Vec<ChangedPrice>,
}

#[derive(Serialize)]
struct NotificationToWrite<'a> {
    catalogue: &'a str,
    changes: &'a [ChangedPrice],
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    published_at: Option<DateTime<Utc>>,
}

impl Position {
    /// Before every entry.
    pub const START: Self = Self { time_ms: 0, number: 0, index: usize::MAX };

    /// Whether both are in the same entry: nothing is trimmed between them.
    pub fn is_in_entry_of(&self, other: &Self) -> bool {
        (self.time_ms, self.number) == (other.time_ms, other.number)
    }

    fn of_entry(id: &str) -> Option<Self> {
        let (time_ms, number) = id.split_once('-')?;
        Some(Self { time_ms: time_ms.parse().ok()?, number: number.parse().ok()?, index: 0 })
    }

    fn entry(&self) -> String {
        format!("{}-{}", self.time_ms, self.number)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}.{}", self.time_ms, self.number, self.index)
    }
}

/// The text is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a position in the stream of price changes")]
pub struct InvalidPosition;

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(written: &str) -> Result<Self, InvalidPosition> {
        let (entry, index) = written.split_once('.').ok_or(InvalidPosition)?;
        let position = Self::of_entry(entry).ok_or(InvalidPosition)?;
        Ok(Self { index: index.parse().map_err(|_| InvalidPosition)?, ..position })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_parse_as_they_are_written_and_sort_as_numbers() {
        let order = ["9-0.0", "10-2.0", "10-10.0", "10-10.9", "10-10.10", "11-0.0"];
        let positions: Vec<Position> = order.iter().map(|text| text.parse().unwrap()).collect();
        assert!(positions.is_sorted());
        for (text, position) in order.iter().zip(&positions) {
            assert_eq!(position.to_string(), *text);
        }
        for wrong in ["", "1", "1-2", "1.2", "a-1.2", "1-a.2", "1-2.a", "1-2.-3"] {
            assert_eq!(wrong.parse::<Position>(), Err(InvalidPosition), "{wrong}");
        }
    }
}
