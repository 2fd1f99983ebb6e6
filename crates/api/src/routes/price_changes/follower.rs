//! One follower: reads the stream from its position, and writes server-sent events.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::body::Bytes;
use futures::{Stream, StreamExt, stream};
use pricing_core::access::identity::Identity;
use pricing_core::notifications::{Notifications, Position, ProductChange};
use pricing_core::redis::RedisError;
use pricing_domain::facts::product::ProductId;
use pricing_wire::price_change::PriceChangeEvent;
use tokio::sync::mpsc;

use crate::access::Access;

use super::followers::{FollowerPermit, Followers};

/// Entries read at a time, each with up to a hundred changes.
const ENTRIES: usize = 20;
/// Entries before the first position that are searched for changes that later ones may repeat.
const EARLIER_ENTRIES: usize = 10;
/// Events that are buffered ahead of a client.
const EVENTS_AHEAD: usize = 16;
/// How long a client may leave a full buffer before it is disconnected, which releases its permit. It can
/// resume.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// The longest time without an event or a comment.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A comment without the blank line after it: some clients make an event of a blank line.
const COMMENT: Bytes = Bytes::from_static(b":\n");
/// How often a follower's key is checked.
const KEY_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The pause after Redis did not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A client that follows price changes.
pub(super) struct Follower {
    pub(super) notifications: Notifications,
    pub(super) followers: Followers,
    /// The catalogue of the changes: the number of those before it.
    pub(super) catalogue: u64,
    /// `None` until Redis has said where the stream ends.
    pub(super) position: Option<Position>,
    pub(super) only: Option<ProductId>,
    pub(super) progress: Progress,
    /// Whose key has to stay in use.
    pub(super) access: Access,
    pub(super) identity: Identity,
    pub(super) _permit: FollowerPermit,
}

/// How far a follower has come.
#[derive(Default)]
pub(super) struct Progress {
    /// The last position that was sent; `None` before the first event.
    sent: Option<Position>,
    /// Whether changes before the first position were searched.
    knows_earlier: bool,
    /// Whether the first position is that of a former stream, which may have been of another catalogue.
    is_resumed: bool,
    /// Whether the client still has to be notified that changes before the waiting ones may be missing.
    has_gap: bool,
    /// The changes that were read but not sent yet, the next one last.
    waiting: Vec<(Position, ProductChange)>,
}

impl Progress {
    /// Nothing sent yet, of a client that comes for the first time or again.
    pub(super) fn of(is_resumed: bool) -> Self {
        Self { is_resumed, ..Self::default() }
    }
}

impl Follower {
    /// The events, produced on the runtime of the service: the HTTP worker that writes them has prices to
    /// answer.
    pub(super) fn events(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        let (sender, mut events) = mpsc::channel(EVENTS_AHEAD);
        tokio::spawn(async move {
            let shutdown = self.followers.shutdown.clone();
            let key_in_use = key_in_use(self.access.clone(), self.identity.clone());
            let made = stream::unfold(self, |mut follower| async { Some((follower.next().await, follower)) });
            let following = send_all(made, &sender, MAX_PAUSE);
            tokio::select! {
                _ = shutdown.run_until_cancelled(following) => {}
                () = sender.closed() => {}
                () = key_in_use => {}
            }
        });
        stream::poll_fn(move |context| events.poll_recv(context).map(|event| event.map(Ok)))
    }

    /// The next event; after a while without one the position, if it has moved, or a comment.
    async fn next(&mut self) -> Bytes {
        // Dropping the future loses nothing: changes are kept in `progress` as soon as they are read.
        match tokio::time::timeout(KEEP_ALIVE, self.next_event()).await {
            Ok(event) => event,
            Err(_) => self.unsent_position().unwrap_or(COMMENT),
        }
    }

    async fn next_event(&mut self) -> Bytes {
        loop {
            if self.progress.sent.is_none()
                && let Some(position) = self.unsent_position()
            {
                return position;
            }
            if std::mem::take(&mut self.progress.has_gap) {
                return event("gap", None, "some changes are not kept any more");
            }
            while let Some((position, change)) = self.progress.waiting.pop() {
                let is_other = self.only.as_ref().is_some_and(|only| *only != change.product_id);
                if self.followers.repetitions.is_repetition(position, &change) || is_other {
                    continue;
                }
                self.progress.sent = Some(position);
                // Serialising a change cannot fail.
                let data = serde_json::to_string(&event_data(change)).unwrap_or_default();
                return event("price_change", Some(position), &data);
            }
            if self.read().await.is_err() {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// The position as an event, unless the client has it or one in the same entry. Only between reads:
    /// changes that wait come before it.
    fn unsent_position(&mut self) -> Option<Bytes> {
        let sent = self.progress.sent;
        let has_it = |position: &Position| sent.is_some_and(|sent| sent.is_in_entry_of(position));
        let position = self.position.filter(|position| !has_it(position))?;
        self.progress.sent = Some(position);
        Some(event("position", Some(position), &position.to_string()))
    }

    /// Reads the next changes, or waits until there may be some.
    async fn read(&mut self) -> Result<(), RedisError> {
        let Some(position) = self.position else {
            self.position = Some(self.notifications.end().await?);
            return Ok(());
        };
        if std::mem::take(&mut self.progress.is_resumed) {
            let is_of_another = self.notifications.is_of_another_catalogue(position).await;
            // Asked again after a failure.
            self.progress.is_resumed = is_of_another.is_err();
            self.progress.has_gap = is_of_another?;
            return Ok(());
        }
        if !self.progress.knows_earlier {
            for (position, change) in self.notifications.changes_before(position, EARLIER_ENTRIES).await? {
                self.followers.repetitions.is_repetition(position, &change);
            }
            self.progress.knows_earlier = true;
        }
        // Marked as seen before the read, so that a change during the read wakes again.
        self.followers.wake.borrow_and_update();
        let catalogue = self.notifications.catalogue().generation();
        if catalogue != self.catalogue {
            // What was announced of the former one may not be in this one.
            (self.catalogue, self.progress.has_gap) = (catalogue, true);
            return Ok(());
        }
        let page = self.notifications.changes_after(position, ENTRIES).await?;
        if page.reached == position && !page.has_gap {
            // There is nothing new. At shutdown no notification arrives, but the task is cancelled.
            drop(self.followers.wake.changed().await);
            return Ok(());
        }
        self.progress.waiting = page.changes;
        self.progress.waiting.reverse();
        (self.position, self.progress.has_gap) = (Some(page.reached), page.has_gap);
        Ok(())
    }
}

/// Ends when the caller's key was revoked or has expired.
async fn key_in_use(access: Access, identity: Identity) {
    while access.is_still_known(&identity) {
        tokio::time::sleep(KEY_CHECK_INTERVAL).await;
    }
}

/// A server-sent event. Neither kind nor data has a line end.
fn event(kind: &str, id: Option<Position>, data: &str) -> Bytes {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    Bytes::from(format!("event: {kind}\n{id}data: {data}\n\n"))
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
async fn send_all(events: impl Stream<Item = Bytes>, sender: &mpsc::Sender<Bytes>, max_pause: Duration) {
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
        let sent = send_all(stream::repeat_with(Bytes::default), &sender, Duration::from_millis(1));
        tokio::time::timeout(PATIENCE, sent).await.unwrap();
    }

    #[tokio::test]
    async fn a_slow_client_receives_every_event() {
        let (sender, mut events) = mpsc::channel(1);
        let sending = async {
            send_all(stream::repeat_with(Bytes::default).take(100), &sender, PATIENCE).await;
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

    #[test]
    fn an_event_is_written_as_the_standard_defines_it() {
        let position: Position = "5-0.1".parse().unwrap();
        assert_eq!(event("position", Some(position), "5-0.1"), "event: position\nid: 5-0.1\ndata: 5-0.1\n\n");
        assert_eq!(event("gap", None, "text"), "event: gap\ndata: text\n\n");
    }
}
