//! Hearing what is published on channels, whatever happens to the connection.
//!
//! A task of its own keeps a RESP3 connection: it connects, subscribes, and asks for a sign of life every two
//! seconds, since a server that is cut off does not say so. When the connection breaks it is made anew for as
//! long as it takes. What was published meanwhile is lost, and so is what its reader is too slow for; the
//! reader is told that it missed something, not what.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::{AsyncPushSender, MultiplexedConnection, SendError};
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, Value};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::{RedisError, without_password};

/// Messages that wait for their reader.
const WAITING_MESSAGES: usize = 1_024;
/// How often the server is asked for a sign of life, and how long it may take to give one.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// Pauses between tries to connect.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// What a subscriber hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionEvent {
    /// A message.
    Message {
        /// Where it was published.
        channel: String,
        /// What.
        payload: Vec<u8>,
    },
    /// From now on messages are heard. What was published before is unknown.
    Subscribed,
    /// Some messages were lost: they came faster than they were read.
    Missed,
    /// The connection broke. What is published from now on is lost, until the next `Subscribed`.
    Disconnected,
}

/// A subscription that survives any outage. Ends when it is dropped.
pub struct Subscription {
    events: mpsc::Receiver<SubscriptionEvent>,
    missed: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Subscription {
    /// Subscribes to these channels, as soon as the server can be reached.
    pub fn open(url: &str, channels: Vec<String>) -> Result<Self, RedisError> {
        let invalid = |error: redis::RedisError| RedisError::InvalidUrl {
            url: without_password(url),
            reason: error.to_string(),
        };
        let info = url.into_connection_info().map_err(invalid)?;
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(settings)).map_err(invalid)?;
        let (sender, events) = mpsc::channel(WAITING_MESSAGES);
        let missed = Arc::new(AtomicBool::new(false));
        let reader = Reader { sender, missed: Arc::clone(&missed) };
        let task = tokio::spawn(stay_subscribed(client, channels, reader));
        Ok(Self { events, missed, task })
    }

    /// The next thing that is heard.
    pub async fn next(&mut self) -> SubscriptionEvent {
        if self.missed.swap(false, Ordering::AcqRel) {
            return SubscriptionEvent::Missed;
        }
        match self.events.recv().await {
            Some(event) => event,
            // The task never ends by itself.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The way to the reader.
#[derive(Clone)]
struct Reader {
    sender: mpsc::Sender<SubscriptionEvent>,
    missed: Arc<AtomicBool>,
}

/// From one connection to the reader. Each has its own: the end of an earlier one says nothing about the
/// next.
#[derive(Clone)]
struct Line {
    reader: Reader,
    broken: Arc<Notify>,
}

impl AsyncPushSender for Line {
    /// Called by the connection, which must not wait.
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

async fn stay_subscribed(client: Client, channels: Vec<String>, reader: Reader) {
    let mut pause = SHORTEST_PAUSE;
    loop {
        let line = Line { reader: reader.clone(), broken: Arc::default() };
        match subscribe(&client, &channels, &line).await {
            Ok(connection) => {
                pause = SHORTEST_PAUSE;
                if reader.sender.send(SubscriptionEvent::Subscribed).await.is_err() {
                    return;
                }
                until_broken(connection, &line).await;
                if reader.sender.send(SubscriptionEvent::Disconnected).await.is_err() {
                    return;
                }
                // A server that takes connections and ends them at once is not asked without a pause.
                tokio::time::sleep(pause).await;
            }
            Err(error) => {
                if pause == SHORTEST_PAUSE {
                    tracing::warn!(%error, ?channels, "redis cannot be listened to; trying again");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

async fn subscribe(
    client: &Client,
    channels: &[String],
    line: &Line,
) -> redis::RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PING_TIMEOUT))
        .set_response_timeout(Some(PING_TIMEOUT))
        .set_push_sender(line.clone());
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    connection.subscribe(channels).await?;
    Ok(connection)
}

async fn until_broken(mut connection: MultiplexedConnection, line: &Line) {
    loop {
        tokio::select! {
            () = line.broken.notified() => return,
            () = tokio::time::sleep(PING_INTERVAL) => {
                if redis::cmd("PING").query_async::<()>(&mut connection).await.is_err() {
                    return;
                }
            }
        }
    }
}
