//! How long the oldest event has waited for its job.

use std::time::Duration;

use redis::streams::{StreamInfoGroupsReply, StreamPendingReply, StreamRangeReply};

use crate::keys::{LISTENER_GROUP, MessageKeys};
use crate::redis::{RedisConnection, RedisError};

/// Returns how long the oldest event that is not acknowledged has been in the stream, by Redis' clock; `None`
/// if none waits.
pub async fn oldest_wait(
    redis: &RedisConnection,
    keys: &MessageKeys,
) -> Result<Option<Duration>, RedisError> {
    let (mut connection, log) = (redis.writes(), keys.event_log());
    let mut groups = redis::cmd("XINFO");
    let groups: StreamInfoGroupsReply =
        match groups.arg("GROUPS").arg(&log).query_async(&mut connection).await {
            Ok(groups) => groups,
            // No event was published yet.
            Err(error) if error.code() == Some("ERR") => return Ok(None),
            Err(error) => return Err(error.into()),
        };
    let group = groups.groups.into_iter().find(|group| group.name == LISTENER_GROUP);
    let mut oldest = None;
    if group.as_ref().is_some_and(|group| group.pending > 0) {
        let mut pending = redis::cmd("XPENDING");
        let pending: StreamPendingReply =
            pending.arg(&log).arg(LISTENER_GROUP).query_async(&mut connection).await?;
        if let StreamPendingReply::Data(pending) = pending {
            oldest = Some(pending.start_id);
        }
    }
    if oldest.is_none() {
        let after = group.map_or_else(|| "-".to_owned(), |group| format!("({}", group.last_delivered_id));
        let mut next = redis::cmd("XRANGE");
        let next: StreamRangeReply =
            next.arg(&log).arg(after).arg("+").arg("COUNT").arg(1).query_async(&mut connection).await?;
        oldest = next.ids.into_iter().next().map(|entry| entry.id);
    }
    let Some(oldest) = oldest else { return Ok(None) };
    let published_ms: i64 = oldest.split('-').next().and_then(|time| time.parse().ok()).unwrap_or_default();
    let now_ms = redis.time().await?.timestamp_millis();
    Ok(Some(Duration::from_millis(u64::try_from(now_ms - published_ms).unwrap_or_default())))
}
