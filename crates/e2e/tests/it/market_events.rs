//! Market events on their way from their publisher to the queue.
//!
//! | module | what goes there |
//! |---|---|
//! | `bridge` | what foreign programs publish on the channel |
//! | `consumers` | listeners share the stream: read, take over, acknowledge, trim, leave |
//! | `eviction` | a full Redis, and what it evicts |
//! | `hand_over` | from the stream to the queue, and the backlog when the queue is full |
//! | `publishing` | what the API and the core accept and refuse |

mod bridge;
mod consumers;
mod eviction;
mod hand_over;
mod publishing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use pricing_core::events::consume::EventConsumer;
use pricing_core::events::publish::EventLog;
use pricing_core::jobs::Job;
use pricing_core::jobs::queue::JobQueue;
use pricing_core::keys::{DEFAULT_PREFIX, LISTENER_GROUP, MessageKeys};
use pricing_core::redis::{RedisConnection, Subscription, SubscriptionEvent};
use pricing_domain::facts::market_event::{EventDraft, MarketEvent};
use pricing_e2e::RedisServer;
use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

use crate::fleet::Fleet;

const PATIENCE: Duration = Duration::from_secs(60);
/// The window of the queue in which event jobs are counted.
const EVENT_WINDOW: &str = "events";
/// How many jobs that window holds.
const WINDOW: usize = 48;

/// A private Redis as publishers and listeners see it, and as a test looks at it.
struct Messages {
    redis: RedisServer,
    keys: MessageKeys,
    log: EventLog,
    queue: JobQueue,
    connection: MultiplexedConnection,
}

impl Messages {
    async fn start() -> Result<Self> {
        Self::on(RedisServer::start().await?).await
    }

    async fn on(redis: RedisServer) -> Result<Self> {
        let keys = MessageKeys::new(DEFAULT_PREFIX);
        let shared = RedisConnection::open(&redis.url())?;
        let (log, queue) = (EventLog::new(&shared, &keys), JobQueue::new(&shared, &keys));
        let connection = redis.connection().await?;
        Ok(Self { redis, keys, log, queue, connection })
    }

    /// Processes on this Redis that need no database.
    fn listeners(&self) -> Fleet {
        Fleet::new(&self.redis.url(), "sqlite://unused.db")
    }

    fn consumer(&self, name: &str) -> Result<EventConsumer> {
        consumer_at(&self.redis.url(), name)
    }

    /// One event for each of these identifiers.
    async fn publish(&self, ids: impl IntoIterator<Item = String>) -> Result<Vec<String>> {
        let events: Result<Vec<MarketEvent>> = ids.into_iter().map(|id| checked(&event(&id))).collect();
        Ok(self.log.publish(&events?).await?)
    }

    async fn command<T: FromRedisValue>(&self, words: &[&str]) -> Result<T> {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        Ok(command.query_async(&mut self.connection.clone()).await?)
    }

    async fn length(&self) -> Result<usize> {
        self.command(&["XLEN", &self.keys.event_log()]).await
    }

    /// The entries of the stream, the oldest first.
    async fn entries(&self) -> Result<Vec<(String, Value)>> {
        let entries: Vec<(String, BTreeMap<String, String>)> =
            self.command(&["XRANGE", &self.keys.event_log(), "-", "+"]).await?;
        entries.into_iter().map(|(id, fields)| Ok((id, serde_json::from_str(&fields["event"])?))).collect()
    }

    /// The dead messages, the oldest first.
    async fn dead(&self) -> Result<Vec<BTreeMap<String, String>>> {
        let entries: Vec<(String, BTreeMap<String, String>)> =
            self.command(&["XRANGE", &self.keys.dead_events(), "-", "+"]).await?;
        Ok(entries.into_iter().map(|(_, fields)| fields).collect())
    }

    /// How many entries were delivered and not acknowledged.
    async fn pending(&self) -> Result<usize> {
        let entries: Vec<redis::Value> =
            self.command(&["XPENDING", &self.keys.event_log(), LISTENER_GROUP, "-", "+", "100000"]).await?;
        Ok(entries.len())
    }

    /// The identifiers of all events in the queue; an event that is there twice is an error.
    async fn queued(&self) -> Result<BTreeSet<String>> {
        let jobs: Vec<String> = self.command(&["SMEMBERS", &self.keys.queue_window(EVENT_WINDOW)]).await?;
        let mut ids = BTreeSet::new();
        for job in jobs {
            let payload = self.queue.payload(&job).await?.context("a job without a payload")?;
            let Job::ApplyEvents { events, .. } = Job::decode(&payload)? else { continue };
            for event in events {
                ensure!(ids.insert(event.id.id.clone()), "{} is in the queue twice", event.id.id);
            }
        }
        Ok(ids)
    }

    async fn depth(&self) -> Result<usize> {
        Ok(usize::try_from(self.queue.depth().await?)?)
    }
}

/// A consumer that reaches Redis at this address.
fn consumer_at(url: &str, name: &str) -> Result<EventConsumer> {
    let keys = MessageKeys::new(DEFAULT_PREFIX);
    Ok(EventConsumer::new(url, &RedisConnection::open(url)?, &keys, name)?)
}

/// What is published on the channel of market events from now on.
async fn subscribed(url: &str) -> Result<Subscription> {
    let channel = MessageKeys::new(DEFAULT_PREFIX).event_channel();
    let mut subscription = Subscription::open(url, vec![channel])?;
    let first = tokio::time::timeout(PATIENCE, subscription.next()).await?;
    ensure!(first == SubscriptionEvent::Subscribed, "{first:?}");
    Ok(subscription)
}

async fn next_message(subscription: &mut Subscription) -> Result<Value> {
    match tokio::time::timeout(PATIENCE, subscription.next()).await? {
        SubscriptionEvent::Message { payload, .. } => Ok(serde_json::from_slice(&payload)?),
        other => anyhow::bail!("{other:?} instead of a message"),
    }
}

/// A competitor's price of P-1, as a publisher writes it.
fn event(id: &str) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/test", "type": "pricing.competitor_price.v1",
        "time": Utc::now().to_rfc3339(), "data": {"product_id": "P-1", "competitor": "acme", "price": 41.95},
    })
}

fn checked(event: &Value) -> Result<MarketEvent> {
    let draft: EventDraft = serde_json::from_str(&event.to_string())?;
    draft.check(Utc::now()).map_err(|problems| anyhow::anyhow!("{problems:?}"))
}

fn numbered(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{name}-{number}")).collect()
}
