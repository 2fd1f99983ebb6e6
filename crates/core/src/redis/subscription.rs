//! A publish/subscribe subscription that survives lost connections.
//!
//! A separate task keeps a RESP3 connection: it connects, subscribes, and pings every two seconds, to detect
//! an unreachable server. When the connection breaks, the task reconnects indefinitely. Messages published
//! meanwhile are lost, as are those that the reader is too slow for; the reader is notified that it missed
//! messages, but not which.
//!
//! Every node of a cluster delivers what is published at any. A subscription is at the master at which its
//! messages are published, so that none is lost between nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::{AsyncPushSender, SendError};
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, PushKind, Value};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::opening::{self, Expected};
use super::transport::OpenConnection;
use super::{RedisError, parse, slot_of};
use crate::backoff::Backoff;
use crate::redis_address::Address;

/// Messages buffered for the reader.
const WAITING_MESSAGES: usize = 1_024;
/// The interval of pings, and the time limit for an answer.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// Bounds of the back-off between attempts to connect.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// An event of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionEvent {
    /// A message arrived.
    Message {
        /// The channel.
        channel: String,
        /// Its content.
        payload: Vec<u8>,
    },
    /// The subscription is now active. Earlier messages may have been lost.
    Subscribed,
    /// Messages were lost: they arrived faster than they were read.
    Missed,
    /// The connection broke. Messages are lost from now on, until the next `Subscribed`.
    Disconnected,
}

/// A subscription that survives any outage. It ends when it is dropped.
pub struct Subscription {
    events: mpsc::Receiver<SubscriptionEvent>,
    missed: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Subscription {
    /// Subscribes to these channels as soon as the server can be reached; in a cluster, at the master of the
    /// first channel's slot.
    pub fn open(url: &str, channels: Vec<String>) -> Result<Self, RedisError> {
        let key = channels.first().cloned().unwrap_or_default();
        Self::open_beside(&key, url, channels)
    }

    /// Subscribes to these channels as soon as the server can be reached; in a cluster, at the master that
    /// has this key: that of the scripts that publish.
    pub fn open_beside(key: &str, url: &str, channels: Vec<String>) -> Result<Self, RedisError> {
        let address = match parse(url)?.with_protocol(ProtocolVersion::RESP3) {
            Address::Cluster(cluster) => Address::Cluster(cluster.at(slot_of(key.as_bytes()))),
            address => address,
        };
        let (sender, events) = mpsc::channel(WAITING_MESSAGES);
        let missed = Arc::new(AtomicBool::new(false));
        let reader = Reader { sender, missed: Arc::clone(&missed) };
        let task = tokio::spawn(stay_subscribed(address, channels, reader));
        Ok(Self { events, missed, task })
    }

    /// The next event.
    pub async fn next(&mut self) -> SubscriptionEvent {
        if self.missed.swap(false, Ordering::AcqRel) {
            return SubscriptionEvent::Missed;
        }
        match self.events.recv().await {
            Some(event) => event,
            // Unreachable: the task ends only with the subscription.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The sending side of the reader's buffer.
#[derive(Clone)]
struct Reader {
    sender: mpsc::Sender<SubscriptionEvent>,
    missed: Arc<AtomicBool>,
}

/// The push handler of one connection. Each connection has its own, as the end of one must not affect the
/// next.
#[derive(Clone)]
struct PushHandler {
    reader: Reader,
    broken: Arc<Notify>,
}

impl AsyncPushSender for PushHandler {
    /// Called by the connection, so it must not block.
    fn send(&self, push: PushInfo) -> Result<(), SendError> {
        match push.kind {
            PushKind::Disconnection => self.broken.notify_one(),
            PushKind::Message => {
                let sent = message(push).map(|message| self.reader.sender.try_send(message));
                if matches!(sent, Some(Err(_))) {
                    self.reader.missed.store(true, Ordering::Release);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn message(push: PushInfo) -> Option<SubscriptionEvent> {
    let mut parts = push.data.into_iter();
    let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) = (parts.next(), parts.next())
    else {
        return None;
    };
    Some(SubscriptionEvent::Message { channel: String::from_utf8_lossy(&channel).into_owned(), payload })
}

async fn stay_subscribed(address: Address, channels: Vec<String>, reader: Reader) {
    let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
    loop {
        let handler = PushHandler { reader: reader.clone(), broken: Arc::default() };
        match subscribe(&address, &channels, &handler).await {
            Ok(open) => {
                backoff.reset();
                if reader.sender.send(SubscriptionEvent::Subscribed).await.is_err() {
                    return;
                }
                until_broken(&address, &open, &handler).await;
                drop(open);
                if reader.sender.send(SubscriptionEvent::Disconnected).await.is_err() {
                    return;
                }
                // Also back off from a server that accepts connections and closes them at once.
                tokio::time::sleep(SHORTEST_PAUSE).await;
            }
            Err(error) => {
                if backoff.is_fresh() {
                    tracing::warn!(%error, ?channels, "could not subscribe to redis; retrying");
                }
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }
}

async fn subscribe(
    address: &Address,
    channels: &[String],
    handler: &PushHandler,
) -> redis::RedisResult<OpenConnection> {
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(Some(PING_TIMEOUT))
        .set_push_sender(handler.clone());
    let open = opening::open(address, &config, PING_TIMEOUT).await?;
    open.connection.clone().subscribe(channels).await?;
    Ok(open)
}

/// Returns when the connection has ended or is silent, or when its server is not the master any more: a
/// replica that still follows its master delivers messages, one that has left the set delivers none.
async fn until_broken(address: &Address, open: &OpenConnection, handler: &PushHandler) {
    let mut connection = open.connection.clone();
    for turn in 0.. {
        tokio::select! {
            () = handler.broken.notified() => return,
            () = tokio::time::sleep(PING_INTERVAL) => {
                match opening::role(&mut connection).await {
                    Ok(role) if Expected::at(address).allows(role) => {}
                    Ok(_) | Err(_) => return,
                }
                let named = opening::named_master(address, turn, PING_TIMEOUT).await;
                if named.is_some_and(|named| named != *open.place()) {
                    return;
                }
            }
        }
    }
}
