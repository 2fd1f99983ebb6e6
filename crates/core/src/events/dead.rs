//! Dead messages: messages that are not valid events, kept with the reason, so that their sender can be
//! fixed.

use chrono::{DateTime, Utc};
use redis::streams::{StreamId, StreamRangeReply};

use super::EVENT_FIELD;
use crate::keys::MessageKeys;
use crate::redis::{RedisConnection, RedisError};

/// Dead messages that are kept, approximately; the oldest are dropped first.
pub const DEAD_EVENTS_KEPT: usize = 10_000;
/// Characters of a dead message, and of its reason, that are kept.
const MAX_MESSAGE_CHARS: usize = 4_096;
const MAX_REASON_CHARS: usize = 1_000;

const REASON_FIELD: &str = "reason";
const STREAM_ID_FIELD: &str = "stream_id";

/// A message that is no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadEvent {
    /// Its identifier among the dead.
    pub id: String,
    /// The beginning of what was published.
    pub message: String,
    /// Why it is no event.
    pub reason: String,
    /// Which entry of the stream it was; none if it came over the channel.
    pub stream_id: Option<String>,
    /// When it was looked at.
    pub died_at: DateTime<Utc>,
}

/// The stream of dead messages; cheap to clone.
#[derive(Clone)]
pub struct DeadEvents {
    redis: RedisConnection,
    keys: MessageKeys,
}

impl DeadEvents {
    /// The stream of dead messages in this Redis.
    pub fn new(redis: &RedisConnection, keys: &MessageKeys) -> Self {
        Self { redis: redis.clone(), keys: keys.clone() }
    }

    /// Stores a dead message, with the identifier of its entry unless it came over the channel.
    pub async fn keep(
        &self,
        message: &[u8],
        stream_id: Option<&str>,
        reason: &str,
    ) -> Result<(), RedisError> {
        let mut add = redis::cmd("XADD");
        add.arg(self.keys.dead_events()).arg("MAXLEN").arg("~").arg(DEAD_EVENTS_KEPT).arg("*");
        add.arg(EVENT_FIELD).arg(beginning(message, MAX_MESSAGE_CHARS));
        add.arg(REASON_FIELD).arg(beginning(reason.as_bytes(), MAX_REASON_CHARS));
        if let Some(stream_id) = stream_id {
            add.arg(STREAM_ID_FIELD).arg(stream_id);
        }
        Ok(add.query_async(&mut self.redis.writes()).await?)
    }

    /// The number of dead messages that are kept.
    pub async fn count(&self) -> Result<u64, RedisError> {
        let mut length = redis::cmd("XLEN");
        length.arg(self.keys.dead_events());
        Ok(length.query_async(&mut self.redis.writes()).await?)
    }

    /// The dead messages, the latest first.
    pub async fn list(&self, limit: usize) -> Result<Vec<DeadEvent>, RedisError> {
        let mut newest = redis::cmd("XREVRANGE");
        newest.arg(self.keys.dead_events()).arg("+").arg("-").arg("COUNT").arg(limit.min(DEAD_EVENTS_KEPT));
        let newest: StreamRangeReply = newest.query_async(&mut self.redis.writes()).await?;
        Ok(newest.ids.into_iter().map(dead_event).collect())
    }
}

fn dead_event(entry: StreamId) -> DeadEvent {
    // The first part of an identifier is Redis' clock in milliseconds.
    let milliseconds = entry.id.split('-').next().and_then(|time| time.parse().ok()).unwrap_or_default();
    DeadEvent {
        message: entry.get(EVENT_FIELD).unwrap_or_default(),
        reason: entry.get(REASON_FIELD).unwrap_or_default(),
        stream_id: entry.get(STREAM_ID_FIELD),
        died_at: DateTime::from_timestamp_millis(milliseconds).unwrap_or_default(),
        id: entry.id,
    }
}

/// Returns at most `max_chars` characters; UTF-8 has at most four bytes per character, which bounds the bytes
/// read.
fn beginning(text: &[u8], max_chars: usize) -> String {
    let bytes = text.get(..max_chars * 4).unwrap_or(text);
    String::from_utf8_lossy(bytes).chars().take(max_chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_messages_are_bounded_text() {
        assert_eq!(beginning(b"short", 10), "short");
        assert_eq!(beginning("ääää".as_bytes(), 3), "äää");
        assert_eq!(beginning(b"\xff!", 10), "\u{fffd}!");
        assert_eq!(beginning(&[b'x'; 1_000], 10).len(), 10);
    }
}
