//! The bridge: copies events that foreign programs publish on the channel of market events into the stream.
//!
//! Every listener receives each message; only the holder of the lease copies it, and only a listener with a
//! working subscription may hold the lease. The engine's own events carry the identifier of their entry and
//! are in the stream already. Publish/subscribe stores nothing: a message that is published while no listener
//! holds the lease is lost, and a program that cannot afford that posts its events to the API.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use pricing_core::clock::Clock;
use pricing_core::events::dead::DeadEvents;
use pricing_core::events::is_in_stream;
use pricing_core::events::publish::EventLog;
use pricing_core::keys::MessageKeys;
use pricing_core::lease::Lease;
use pricing_core::redis::{RedisConnection, Subscription, SubscriptionEvent};
use pricing_domain::facts::market_event::{EventId, MarketEvent};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::dispatch::read_event;
use crate::metrics::ListenerMetrics;

const LEASE: &str = "bridge";
/// How long no listener copies messages after the holder of the lease crashed.
const LEASE_TTL: Duration = Duration::from_secs(3);
/// How often a listener without the lease tries to take it.
const LEASE_INTERVAL: Duration = Duration::from_millis(500);
/// The message by which the tutorial's services request a recalculation of everything.
const RECALCULATE: &[u8] = b"Recalculate_Triggered_v1";
/// The source of such a message, as it does not state one.
const CHANNEL_SOURCE: &str = "/channel/market_events";
/// The longest message that is accepted; an event with the largest allowed number of products is shorter.
const MAX_MESSAGE_BYTES: usize = 128 * 1024;

/// Copies foreign events into the stream.
pub(crate) struct Bridge {
    pub(crate) subscription: Subscription,
    pub(crate) redis: RedisConnection,
    pub(crate) keys: MessageKeys,
    pub(crate) clock: Clock,
    pub(crate) log: EventLog,
    pub(crate) dead: DeadEvents,
    pub(crate) owner: String,
    pub(crate) metrics: Arc<ListenerMetrics>,
}

impl Bridge {
    /// Runs until shutdown.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut lease: Option<Lease> = None;
        let mut tried_at: Option<Instant> = None;
        let mut is_subscribed = false;
        while !shutdown.is_cancelled() {
            lease = lease.filter(|lease| !lease.lost().is_cancelled());
            if is_subscribed && lease.is_none() && tried_at.is_none_or(|at| at.elapsed() >= LEASE_INTERVAL) {
                tried_at = Some(Instant::now());
                let acquired =
                    Lease::acquire(&self.redis, &self.keys, LEASE, &self.owner, LEASE_TTL, 0).await;
                // An unavailable Redis is logged where events are read.
                lease = acquired.ok().flatten();
            }
            let event = shutdown.run_until_cancelled(timeout(LEASE_INTERVAL, self.subscription.next())).await;
            let Some(Ok(event)) = event else { continue };
            let is_ours = lease.as_ref().is_some_and(|lease| !lease.lost().is_cancelled());
            match event {
                SubscriptionEvent::Subscribed => is_subscribed = true,
                SubscriptionEvent::Disconnected => {
                    is_subscribed = false;
                    let _ = shutdown.run_until_cancelled(release(lease.take())).await;
                }
                SubscriptionEvent::Message { payload, .. } if is_ours => self.accept(&payload).await,
                SubscriptionEvent::Missed if is_ours => {
                    tracing::warn!("foreign events may be lost: they arrived faster than they are accepted");
                }
                // Another listener handles it.
                SubscriptionEvent::Message { .. } | SubscriptionEvent::Missed => {}
            }
        }
        release(lease).await;
    }

    async fn accept(&self, message: &[u8]) {
        let reason = match read_message(message, self.clock.now()) {
            Message::Ours => return,
            Message::NoEvent(reason) => reason,
            Message::Foreign(event) => match self.log.publish(&[event]).await {
                Ok(_) => return self.metrics.events_published.increment(1),
                Err(error) => format!("it is an event, but could not be published: {error}"),
            },
        };
        tracing::warn!(reason, "rejected a message on the channel of market events");
        match self.dead.keep(message, None, &reason).await {
            Ok(()) => self.metrics.events_dead_lettered.increment(1),
            Err(error) => tracing::error!(%error, "could not store the dead message; it is lost"),
        }
    }
}

async fn release(lease: Option<Lease>) {
    if let Some(lease) = lease {
        // If this fails, the lease expires.
        let _ = lease.release().await;
    }
}

/// A classified message.
enum Message {
    /// An event that is in the stream already.
    Ours,
    /// An event of a foreign program.
    Foreign(MarketEvent),
    /// Not a valid event, with the reason.
    NoEvent(String),
}

fn read_message(message: &[u8], now: DateTime<Utc>) -> Message {
    if message.trim_ascii() == RECALCULATE {
        let id = EventId { source: CHANNEL_SOURCE.to_owned(), id: Uuid::now_v7().to_string() };
        return Message::Foreign(MarketEvent::recalculate_all(id, now));
    }
    if is_in_stream(message) {
        return Message::Ours;
    }
    if message.len() > MAX_MESSAGE_BYTES {
        return Message::NoEvent(format!("it is longer than {MAX_MESSAGE_BYTES} bytes"));
    }
    let event = read_event(message, now)
        .and_then(|event| event.check_time(now).map(|()| event).map_err(|problem| problem.to_string()));
    match event {
        Ok(event) => Message::Foreign(event),
        Err(reason) => Message::NoEvent(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_classified() {
        let foreign =
            r#"{"specversion":"1.0","id":"1","source":"s","type":"pricing.recalculation_requested.v1"}"#;
        let ours = foreign.replace('}', r#","streamid":"1-0"}"#);
        let future = foreign.replace('}', r#","time":"2999-01-01T00:00:00Z"}"#);
        assert!(matches!(read_message(b"Recalculate_Triggered_v1", Utc::now()), Message::Foreign(_)));
        assert!(matches!(read_message(b"Recalculate_Triggered_v1\n", Utc::now()), Message::Foreign(_)));
        assert!(matches!(read_message(foreign.as_bytes(), Utc::now()), Message::Foreign(_)));
        assert!(matches!(read_message(ours.as_bytes(), Utc::now()), Message::Ours));
        let long = format!("{foreign}{}", " ".repeat(MAX_MESSAGE_BYTES));
        for none in [future.as_bytes(), long.as_bytes(), b"", b"hello", b"{}", b"[1]", b"\xff"] {
            assert!(
                matches!(read_message(none, Utc::now()), Message::NoEvent(_)),
                "{}",
                String::from_utf8_lossy(none)
            );
        }
    }
}
