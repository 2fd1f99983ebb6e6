//! Publishing: an event is accepted once its entry is in the stream, which Redis persists, and in that of as
//! many replicas as are asked for.

use std::sync::Arc;

use redis::Script;
use tracing::Instrument;

use super::{EVENT_FIELD, STREAM_ID_ATTRIBUTE};
use crate::keys::{EVENT_LOG, MessageKeys};
use crate::redis::{RedisConnection, RedisError};
use crate::telemetry::spans::{self, TRACEPARENT, TraceParent};
use pricing_domain::facts::market_event::MarketEvent;

/// Entries the stream may hold. Beyond that, publishing is refused until listeners have caught up: Redis
/// keeps the stream in memory, which must not fill up.
pub const EVENT_LOG_CAPACITY: usize = 1_000_000;

/// The largest number of events published in one step.
pub const PUBLISH_BATCH: usize = 1_000;

/// The reason that events were refused; none was accepted unless stated otherwise.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Redis failed, so it is unknown whether the events were accepted. Publishing them again is harmless.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The stream is full: listeners are too far behind.
    #[error("the event stream is full: {EVENT_LOG_CAPACITY} events are waiting")]
    Full,
    /// Redis may evict the stream: events that it acknowledged would be lost.
    #[error("redis evicts events: its maxmemory-policy is {policy}; set volatile-lfu or noeviction")]
    Evicts {
        /// The setting.
        policy: String,
    },
}

/// The code of the script's error about a server that evicts events.
const EVICTS: &str = "EVICTS";

impl From<redis::RedisError> for PublishError {
    fn from(error: redis::RedisError) -> Self {
        match error.code() {
            Some(EVICTS) => Self::Evicts { policy: error.detail().unwrap_or_default().to_owned() },
            _ => Self::Redis(error.into()),
        }
    }
}

/// The publishing side of the stream; cheap to clone.
#[derive(Clone)]
pub struct EventLog {
    redis: RedisConnection,
    keys: MessageKeys,
    publish: Arc<Script>,
}

impl EventLog {
    /// The stream in this Redis.
    pub fn new(redis: &RedisConnection, keys: &MessageKeys) -> Self {
        let publish = Arc::new(Script::new(include_str!("publish.lua")));
        Self { redis: redis.clone(), keys: keys.clone(), publish }
    }

    /// The channel on which events are published.
    pub fn channel(&self) -> String {
        self.keys.event_channel()
    }

    /// Appends events, at most [`PUBLISH_BATCH`], all or none. Returns the identifiers of their entries.
    pub async fn publish(&self, events: &[MarketEvent]) -> Result<Vec<String>, PublishError> {
        let span = spans::send(EVENT_LOG, events.len());
        let published = self.publish_within(events).instrument(span.clone()).await;
        if let Err(error) = &published {
            spans::record_error(&span, error);
        }
        published
    }

    async fn publish_within(&self, events: &[MarketEvent]) -> Result<Vec<String>, PublishError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let mut script = self.publish.key(self.keys.event_log());
        script
            .arg(self.keys.event_channel())
            .arg(EVENT_LOG_CAPACITY)
            .arg(EVENT_FIELD)
            .arg(STREAM_ID_ATTRIBUTE)
            .arg(TRACEPARENT)
            .arg(TraceParent::current().as_ref().map_or("", TraceParent::as_str));
        for event in events {
            script.arg(event.to_json());
        }
        let ids: Vec<String> = match self.redis.write(&script).await {
            // A connection that breaks under the first command is replaced for the second. An event published
            // twice is applied once.
            Err(error) if RedisError::is_broken(&error) => self.redis.write(&script).await,
            answer => answer,
        }?;
        if ids.is_empty() { Err(PublishError::Full) } else { Ok(ids) }
    }
}
