//! Consuming: listeners share the stream as a consumer group and reclaim entries that another leaves
//! unacknowledged.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use redis::Script;
use redis::streams::{
    StreamAutoClaimReply, StreamId, StreamInfoGroupsReply, StreamPendingReply, StreamReadReply,
};

use super::EVENT_FIELD;
use super::publish::EVENT_LOG_CAPACITY;
use crate::keys::{LISTENER_GROUP, MessageKeys};
use crate::redis::{ExclusiveConnection, ExclusiveConnections, RedisConnection, RedisError};
use crate::telemetry::spans::{TRACEPARENT, TraceParent};

/// How long entries stay in the stream after their jobs were enqueued, for inspection.
const PROCESSED_KEPT: Duration = Duration::from_secs(60 * 60);
/// Above this length, entries whose jobs are enqueued are trimmed at once.
const COMFORTABLE_LENGTH: usize = 200_000;
/// Entries removed per call, so that Redis does not block other clients for long.
const TRIM_STEP: usize = 10_000;
/// A consumer without pending entries that was idle for this long is deleted.
const IDLE_CONSUMER: Duration = Duration::from_secs(60 * 60);
/// How long a read blocks waiting for entries.
pub const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How long an answer may take beyond the wait. Without this limit, a frozen or unreachable server would
/// never be noticed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// An entry of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its identifier, which orders it among all entries.
    pub id: String,
    /// The published message, usually an event as JSON.
    pub event: Vec<u8>,
    /// The trace that it is part of.
    pub trace: Option<TraceParent>,
}

impl Entry {
    /// Returns when it was published, by Redis' clock, which its identifier contains.
    pub fn published_at(&self) -> Option<DateTime<Utc>> {
        let (time_ms, _) = self.id.split_once('-')?;
        DateTime::from_timestamp_millis(time_ms.parse().ok()?)
    }
}

/// The reason that the stream could not be consumed.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// Redis does not answer.
    #[error(transparent)]
    Redis(#[from] RedisError),
}

impl From<redis::RedisError> for ConsumeError {
    fn from(error: redis::RedisError) -> Self {
        Self::Redis(error.into())
    }
}

/// One listener's membership in the consumer group.
pub struct EventConsumer {
    redis: RedisConnection,
    keys: MessageKeys,
    exclusive: ExclusiveConnections,
    name: String,
    leave: Arc<Script>,
}

/// Reads entries over a connection of its own, as a blocking read occupies it. After an error, get another
/// reader, which opens another connection.
pub struct EntryReader<'a> {
    consumer: &'a EventConsumer,
    connection: ExclusiveConnection,
}

impl EventConsumer {
    /// A consumer with this name, which must be unique.
    pub fn new(
        url: &str,
        redis: &RedisConnection,
        keys: &MessageKeys,
        name: &str,
    ) -> Result<Self, RedisError> {
        let exclusive = ExclusiveConnections::new(url, &keys.event_log(), LONGEST_WAIT + ANSWER_TIMEOUT)?;
        let leave = Arc::new(Script::new(include_str!("leave.lua")));
        Ok(Self { redis: redis.clone(), keys: keys.clone(), exclusive, name: name.to_owned(), leave })
    }

    /// Creates the stream and the group unless they exist. A new group starts at the oldest entry.
    pub async fn ensure_group(&self) -> Result<(), ConsumeError> {
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(self.keys.event_log()).arg(LISTENER_GROUP).arg("0").arg("MKSTREAM");
        match create.query_async::<()>(&mut self.redis.writes()).await {
            Err(error) if error.code() != Some("BUSYGROUP") => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// A reader with a connection of its own, as reads block.
    pub async fn reader(&self) -> Result<EntryReader<'_>, ConsumeError> {
        let connection = self.exclusive.get().await?;
        Ok(EntryReader { consumer: self, connection })
    }

    /// Reclaims entries that were delivered to another listener at least this long ago and are still
    /// unacknowledged, at most `max`.
    pub async fn reclaim(&self, idle: Duration, max: usize) -> Result<Vec<Entry>, ConsumeError> {
        let mut claim = redis::cmd("XAUTOCLAIM");
        claim.arg(self.keys.event_log()).arg(LISTENER_GROUP).arg(&self.name);
        claim.arg(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX)).arg("0").arg("COUNT").arg(max);
        let reply: StreamAutoClaimReply = claim.query_async(&mut self.redis.writes()).await?;
        Ok(reply.claimed.into_iter().map(entry).collect())
    }

    /// Acknowledges these entries, whose jobs are in the queue.
    pub async fn acknowledge(&self, ids: &[String]) -> Result<(), ConsumeError> {
        if ids.is_empty() {
            return Ok(());
        }
        Ok(self.acknowledgement(ids).query_async(&mut self.redis.writes()).await?)
    }

    fn acknowledgement(&self, ids: &[String]) -> redis::Cmd {
        let mut acknowledge = redis::cmd("XACK");
        acknowledge.arg(self.keys.event_log()).arg(LISTENER_GROUP).arg(ids);
        acknowledge
    }

    /// Resets the idle time of these entries, as they are being processed, so that no other listener reclaims
    /// them.
    pub async fn hold(&self, ids: &[String]) -> Result<(), ConsumeError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut claim = redis::cmd("XCLAIM");
        claim.arg(self.keys.event_log()).arg(LISTENER_GROUP).arg(&self.name).arg(0).arg(ids).arg("JUSTID");
        Ok(claim.query_async(&mut self.redis.writes()).await?)
    }

    /// The consumer group's lag: entries not yet delivered, and delivered but not acknowledged.
    pub async fn lag(&self) -> Result<u64, ConsumeError> {
        let Some(group) = self.group().await? else { return Ok(0) };
        let undelivered = group.lag.unwrap_or_default();
        Ok(u64::try_from(undelivered + group.pending).unwrap_or(u64::MAX))
    }

    /// Trims entries whose jobs were enqueued a while ago, or all such entries if the stream is long. Never
    /// trims one that is still undelivered or pending.
    pub async fn trim(&self, now: DateTime<Utc>) -> Result<(), ConsumeError> {
        let mut connection = self.redis.writes();
        let Some(group) = self.group().await? else { return Ok(()) };
        let mut pending = redis::cmd("XPENDING");
        pending.arg(self.keys.event_log()).arg(LISTENER_GROUP);
        let pending: StreamPendingReply = pending.query_async(&mut connection).await?;
        let oldest_to_keep = match pending {
            StreamPendingReply::Data(pending) => pending.start_id,
            // Nothing is pending, so the last delivered entry is done too; it may stay as the only one.
            _ => group.last_delivered_id,
        };
        let length: usize =
            redis::cmd("XLEN").arg(self.keys.event_log()).query_async(&mut connection).await?;
        let kept_since = now - PROCESSED_KEPT;
        let by_age = format!("{}-0", kept_since.timestamp_millis());
        let keep = if length > COMFORTABLE_LENGTH { oldest_to_keep } else { older(&by_age, &oldest_to_keep) };
        let mut trim = redis::cmd("XTRIM");
        trim.arg(self.keys.event_log()).arg("MINID").arg("~").arg(keep).arg("LIMIT").arg(TRIM_STEP);
        for _ in 0..EVENT_LOG_CAPACITY.div_ceil(TRIM_STEP) {
            let removed: usize = trim.query_async(&mut connection).await?;
            if removed == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Deletes stale consumers: each start of a listener adds one.
    pub async fn forget_idle_consumers(&self) -> Result<(), ConsumeError> {
        let mut connection = self.redis.writes();
        let mut list = redis::cmd("XINFO");
        list.arg("CONSUMERS").arg(self.keys.event_log()).arg(LISTENER_GROUP);
        let consumers: Vec<HashMap<String, redis::Value>> = list.query_async(&mut connection).await?;
        for consumer in consumers {
            let number = |field: &str| match consumer.get(field) {
                Some(redis::Value::Int(number)) => u128::try_from(*number).unwrap_or_default(),
                _ => 0,
            };
            let is_gone = number("pending") == 0 && number("idle") > IDLE_CONSUMER.as_millis();
            if let (true, Some(name)) = (is_gone, consumer.get("name")) {
                let name: Vec<u8> = redis::from_redis_value(name.clone()).map_err(redis::RedisError::from)?;
                self.remove(&name).await?;
            }
        }
        Ok(())
    }

    /// Leaves the group unless this consumer has pending entries, which others then reclaim.
    pub async fn leave(&self) -> Result<(), ConsumeError> {
        self.remove(self.name.as_bytes()).await
    }

    /// Checks and removes in one step: an entry delivered in between would be lost.
    async fn remove(&self, name: &[u8]) -> Result<(), ConsumeError> {
        let mut leave = self.leave.key(self.keys.event_log());
        leave.arg(LISTENER_GROUP).arg(name);
        Ok(leave.invoke_async(&mut self.redis.writes()).await?)
    }

    async fn group(&self) -> Result<Option<redis::streams::StreamInfoGroup>, ConsumeError> {
        let mut info = redis::cmd("XINFO");
        info.arg("GROUPS").arg(self.keys.event_log());
        let groups: StreamInfoGroupsReply = info.query_async(&mut self.redis.writes()).await?;
        Ok(groups.groups.into_iter().find(|group| group.name == LISTENER_GROUP))
    }
}

impl EntryReader<'_> {
    /// Undelivered entries, at most `max`; blocks up to [`LONGEST_WAIT`] for the first of them. Acknowledges
    /// `done` in the same round trip: a server that syncs every write to disk does so once for both.
    pub async fn next(&mut self, done: &[String], max: usize) -> Result<Vec<Entry>, ConsumeError> {
        self.read(done, max, Some(LONGEST_WAIT)).await
    }

    /// Undelivered entries, at most `max`; does not block.
    pub async fn more(&mut self, max: usize) -> Result<Vec<Entry>, ConsumeError> {
        self.read(&[], max, None).await
    }

    async fn read(
        &mut self,
        done: &[String],
        max: usize,
        wait: Option<Duration>,
    ) -> Result<Vec<Entry>, ConsumeError> {
        let EventConsumer { keys, name, .. } = self.consumer;
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(LISTENER_GROUP).arg(name).arg("COUNT").arg(max);
        if let Some(wait) = wait {
            read.arg("BLOCK").arg(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        }
        read.arg("STREAMS").arg(keys.event_log()).arg(">");
        let mut pipeline = redis::pipe();
        if !done.is_empty() {
            pipeline.add_command(self.consumer.acknowledgement(done)).ignore();
        }
        pipeline.add_command(read);
        let (reply,): (Option<StreamReadReply>,) = pipeline.query_async(&mut self.connection.get()).await?;
        let streams = reply.map(|reply| reply.keys).unwrap_or_default();
        Ok(streams.into_iter().flat_map(|stream| stream.ids).map(entry).collect())
    }
}

impl ConsumeError {
    /// Whether the stream or the group is missing: Redis has lost its data, or no listener has started yet.
    pub fn is_missing_group(&self) -> bool {
        let Self::Redis(RedisError::Command(error)) = self else { return false };
        let refused = error.clone().into_server_errors();
        refused.is_some_and(|refused| refused.iter().any(|(_, error)| error.code() == "NOGROUP"))
    }
}

fn entry(entry: StreamId) -> Entry {
    let event = entry.map.get(EVENT_FIELD).and_then(|value| redis::from_redis_value(value.clone()).ok());
    let trace: Option<String> =
        entry.map.get(TRACEPARENT).and_then(|value| redis::from_redis_value(value.clone()).ok());
    let trace = trace.as_deref().and_then(TraceParent::parse);
    Entry { id: entry.id, event: event.unwrap_or_default(), trace }
}

/// Returns the older of two identifiers.
fn older(one: &str, other: &str) -> String {
    let parts = |id: &str| {
        let (time, number) = id.split_once('-').unwrap_or((id, "0"));
        (time.parse::<u64>().unwrap_or_default(), number.parse::<u64>().unwrap_or_default())
    };
    if parts(one) <= parts(other) { one.to_owned() } else { other.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_compared_as_numbers() {
        for (one, other, expected) in
            [("9-0", "10-0", "9-0"), ("10-2", "10-10", "10-2"), ("10-1", "9-5", "9-5")]
        {
            assert_eq!(older(one, other), expected);
        }
    }
}
