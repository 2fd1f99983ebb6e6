//! How long the oldest event has waited for its job.

use std::time::Duration;

use redis::Script;

use crate::keys::{LISTENER_GROUP, MessageKeys};
use crate::redis::{RedisConnection, RedisError};

/// Returns how long the oldest event that is not acknowledged has been in the stream, by Redis' clock; `None`
/// if none waits.
pub async fn oldest_wait(
    redis: &RedisConnection,
    keys: &MessageKeys,
) -> Result<Option<Duration>, RedisError> {
    let script = Script::new(include_str!("oldest.lua"));
    let mut ask = script.key(keys.event_log());
    let wait_ms: i64 = ask.arg(LISTENER_GROUP).invoke_async(&mut redis.writes()).await?;
    Ok(u64::try_from(wait_ms).ok().map(Duration::from_millis))
}
