//! `GET /api/v1/price-changes`: changes of list prices, as server-sent events.
//!
//! The changes come from a bounded stream in Redis, so a client that reconnects resumes after its
//! `Last-Event-ID`, which browsers send automatically. Notifications only wake this route, which then reads
//! the stream.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use pricing_core::notifications::{Notifications, Position, ProductChange};
use pricing_domain::facts::product::ProductId;
use pricing_wire::price_change::{FollowQuery, PriceChangeEvent};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;
use crate::metrics::ApiMetrics;
use crate::state::AppState;

/// The maximum number of concurrent followers; each reads the stream separately.
const MAX_STREAMS: usize = 256;
/// Entries read at a time, each with up to a hundred changes.
const ENTRIES: usize = 20;
/// Events that are buffered ahead of a client.
const EVENTS_AHEAD: usize = 16;
/// How long a client may leave a full buffer before it is disconnected, which releases its permit. It can
/// resume.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// The interval of keep-alive comments in a stream without events.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The pause after Redis did not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// The header with the last event that a client has received.
const LAST_EVENT_ID: &str = "last-event-id";

/// The state that the followers of one process share.
#[derive(Clone)]
pub(crate) struct Followers {
    count: Arc<AtomicUsize>,
    wake: watch::Receiver<u64>,
    shutdown: CancellationToken,
}

impl Followers {
    /// Starts without followers. `wake` changes when there may be something to read.
    pub(crate) fn new(wake: watch::Receiver<u64>, shutdown: CancellationToken) -> Self {
        Self { count: Arc::default(), wake, shutdown }
    }
}

/// Streams the changes of list prices.
#[utoipa::path(get, path = "/api/v1/price-changes", tag = "prices", summary = "Follow price changes",
    params(FollowQuery, ("Last-Event-ID" = Option<String>, Header, description = "Resume after this event; without it, only new changes are sent")),
    responses(
        (status = 200, description = "Events `price_change` with product_id, revision, old_list_price, new_list_price, currency, policy_version, cause and changed_at; an event `gap` if some are no longer kept, or the database was restored from a backup. Delivery is at least once: a change that is sent again, after a process has died, has the same revision", body = String, content_type = "text/event-stream"),
        (status = 422, description = "Last-Event-ID or `product_id` is invalid"),
        (status = 503, description = "Redis does not answer, or too many clients follow")))]
pub(crate) async fn follow(
    State(state): State<AppState>,
    query: Result<Query<FollowQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let allowed = "a product's identifier";
    let Query(query) =
        query.map_err(|rejection| ApiError::field("product_id", rejection.body_text(), allowed))?;
    let only = match query.product_id.as_deref().map(ProductId::parse) {
        None => None,
        Some(Ok(product_id)) => Some(product_id),
        Some(Err(error)) => return Err(ApiError::field("product_id", error.to_string(), allowed)),
    };
    let permit = StreamPermit::take(&state.followers, &state.metrics)
        .ok_or(ApiError::Unavailable { reason: "too many clients follow price changes" })?;
    let notifications = state.engine.notifications.clone();
    let seen = headers.get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or_default().parse::<Position>());
    let catalogue = notifications.catalogue().generation();
    let (position, has_gap) = match seen {
        None => (notifications.end().await?, false),
        Some(seen) => {
            let seen = seen.map_err(|error| {
                ApiError::field("Last-Event-ID", error.to_string(), "the id of an event that was received")
            })?;
            (seen, notifications.is_of_another_catalogue(seen).await?)
        }
    };
    let follower = Follower {
        notifications,
        catalogue,
        wake: state.followers.wake.clone(),
        shutdown: state.followers.shutdown.clone(),
        position,
        has_gap,
        only,
        waiting: Vec::new(),
        _permit: permit,
    };
    Ok(Sse::new(follower.events()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// A permit to follow, for one client.
struct StreamPermit {
    count: Arc<AtomicUsize>,
    metrics: Arc<ApiMetrics>,
}

impl StreamPermit {
    fn take(followers: &Followers, metrics: &Arc<ApiMetrics>) -> Option<Self> {
        let taken = followers.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count < MAX_STREAMS).then_some(count + 1)
        });
        taken.ok()?;
        metrics.price_change_streams.increment(1.0);
        Some(Self { count: Arc::clone(&followers.count), metrics: Arc::clone(metrics) })
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.metrics.price_change_streams.decrement(1.0);
    }
}

/// A client that follows price changes.
struct Follower {
    notifications: Notifications,
    wake: watch::Receiver<u64>,
    shutdown: CancellationToken,
    position: Position,
    /// The catalogue of the changes: the number of those before it.
    catalogue: u64,
    /// Whether the client still has to be notified that changes before the waiting ones may be missing.
    has_gap: bool,
    only: Option<ProductId>,
    /// The changes that were read but not sent yet, the next one last.
    waiting: Vec<(Position, ProductChange)>,
    _permit: StreamPermit,
}

impl Follower {
    /// The events, produced on the runtime of the service: the HTTP worker that writes them has prices to
    /// answer.
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        let (sender, mut events) = mpsc::channel(EVENTS_AHEAD);
        tokio::spawn(async move {
            let shutdown = self.shutdown.clone();
            let made = stream::unfold(self, |mut follower| async { Some((follower.next().await, follower)) });
            let following = send_all(made, &sender, MAX_PAUSE);
            tokio::select! {
                _ = shutdown.run_until_cancelled(following) => {}
                () = sender.closed() => {}
            }
        });
        stream::poll_fn(move |context| events.poll_recv(context).map(|event| event.map(Ok)))
    }

    async fn next(&mut self) -> Event {
        loop {
            if std::mem::take(&mut self.has_gap) {
                return Event::default().event("gap").data("some changes are not kept any more");
            }
            while let Some((position, change)) = self.waiting.pop() {
                if self.only.as_ref().is_some_and(|only| *only != change.product_id) {
                    continue;
                }
                // Serialising a change cannot fail.
                let data = serde_json::to_string(&event_data(change)).unwrap_or_default();
                return Event::default().event("price_change").id(position.to_string()).data(data);
            }
            self.read().await;
        }
    }

    /// Reads the next changes, or waits until there may be some.
    async fn read(&mut self) {
        // Marked as seen before the read, so that a change during the read wakes again.
        self.wake.borrow_and_update();
        let catalogue = self.notifications.catalogue().generation();
        if catalogue != self.catalogue {
            // What was announced of the former one may not be in this one.
            (self.catalogue, self.has_gap) = (catalogue, true);
            return;
        }
        match self.notifications.changes_after(self.position, ENTRIES).await {
            Ok(piece) if piece.reached != self.position || piece.has_gap => {
                self.waiting = piece.changes;
                self.waiting.reverse();
                (self.position, self.has_gap) = (piece.reached, piece.has_gap);
            }
            // There is nothing new. At shutdown no notification arrives, but the task is cancelled.
            Ok(_) => drop(self.wake.changed().await),
            Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }
}

fn event_data(change: ProductChange) -> PriceChangeEvent {
    let ProductChange { product_id, revision, change } = change;
    PriceChangeEvent {
        product_id: product_id.to_string(),
        revision,
        old_list_price: change.old_list_price,
        new_list_price: change.new_list_price,
        currency: change.currency.into_owned(),
        policy_version: change.policy_version,
        cause: change.cause,
        changed_at: change.changed_at,
    }
}

/// Sends events in order until the client disconnects, or takes none for `max_pause`.
async fn send_all(events: impl Stream<Item = Event>, sender: &mpsc::Sender<Event>, max_pause: Duration) {
    let mut events = pin!(events);
    while let Some(event) = events.next().await {
        if sender.send_timeout(event, max_pause).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_stalled_client_is_disconnected() {
        let (sender, _events) = mpsc::channel(EVENTS_AHEAD);
        let sent = send_all(stream::repeat_with(Event::default), &sender, Duration::from_millis(1));
        tokio::time::timeout(PATIENCE, sent).await.unwrap();
    }

    #[tokio::test]
    async fn a_slow_client_receives_every_event() {
        let (sender, mut events) = mpsc::channel(1);
        let sending = async {
            send_all(stream::repeat_with(Event::default).take(100), &sender, PATIENCE).await;
            drop(sender);
        };
        let taking = async {
            let mut taken = 0;
            while events.recv().await.is_some() {
                taken += 1;
                tokio::task::yield_now().await;
            }
            taken
        };
        assert_eq!(tokio::join!(sending, taking).1, 100);
    }
}
