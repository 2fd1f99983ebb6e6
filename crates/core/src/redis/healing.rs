//! A shared connection that heals.
//!
//! Clones share an open connection (a link) and replace it as a whole: a link that has ended, or whose server
//! turned out not to be the master, makes room for one that the next command opens. A late failure of an
//! older link replaces nothing. A link that has ended is noticed before a command is sent, so an outage that
//! is over fails no command; a command that was sent is never sent again, as it may have been executed.
//!
//! A silent link is not replaced because of time limits, as Redis may just be busy. Its watcher asks every
//! second who the server is. If nothing at all arrives on the link for [`SILENCE`], the watcher opens another
//! connection beside it. If that one answers, it takes the place of the silent one, whose commands fail. If
//! it does not answer either, the link stays, and the watcher tries again. So a link heals within four
//! seconds of the path being whole, however few commands there are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use redis::AsyncConnectionConfig;
use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, Value};
use tokio::time::{Instant, sleep, timeout};

use super::answers::{self, Refusal, Seen};
use super::opening::{Expected, named_master, open, role};
use super::transport::{OpenConnection, timed_out};
use crate::redis_address::Address;

/// How often a watcher asks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How long nothing has arrived on a silent link, although an answer is outstanding.
const SILENCE: Duration = Duration::from_secs(2);
/// How often a watcher of a silent link tries to open another connection.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// How long opening may take, whether a command waits for it or not.
const OPENING_LIMIT: Duration = Duration::from_secs(1);
/// How long a server may be loading its data before another connection is tried.
const LOADING_PATIENCE: Duration = Duration::from_secs(1);

/// The time limits of commands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How long a command waits for a connection to be opened.
    pub(super) opening: Duration,
    /// How long a command waits for its answer.
    pub(super) answer: Duration,
}

/// A connection that heals; its clones share it.
#[derive(Clone)]
pub(super) struct HealingConnection {
    slot: Arc<Slot>,
}

/// The place of the current link.
struct Slot {
    address: Arc<Address>,
    limits: Limits,
    link: ArcSwap<Link>,
}

type Opening = Shared<BoxFuture<'static, redis::RedisResult<Arc<OpenConnection>>>>;

/// One connection, from before it is opened until it is replaced. Its identity is the generation: only the
/// current link is replaced.
struct Link {
    opening: Opening,
    opened: OnceLock<Arc<OpenConnection>>,
    created_at: Instant,
    /// Milliseconds after `created_at` at which the server first said that it is loading; 0 if it is not.
    loading_since_ms: AtomicU64,
}

/// A link that is open, as far as is known.
pub(super) struct Ready {
    slot: Arc<Slot>,
    link: Arc<Link>,
    open: Arc<OpenConnection>,
}

impl HealingConnection {
    /// A connection that is opened by its first command, and driven by the runtime of that command.
    pub(super) fn new(address: Arc<Address>, limits: Limits) -> Self {
        let link = ArcSwap::from_pointee(Link::unopened(&address, limits));
        Self { slot: Arc::new(Slot { address, limits, link }) }
    }

    /// An open connection, as far as is known: nothing was sent if there is none.
    pub(super) async fn ready(&self) -> redis::RedisResult<Ready> {
        self.slot.ready().await
    }

    /// Ends the connection: commands that wait for an answer fail at once.
    pub(super) fn close(&self) {
        if let Some(open) = self.slot.link.load().opened.get() {
            open.close();
        }
    }

    /// Sends a command, and returns what its answer says with the answer.
    pub(super) async fn send(&self, command: &Cmd) -> (redis::RedisResult<Value>, Seen) {
        match self.slot.ready().await {
            Ok(ready) => ready.send(command).await,
            Err(error) => {
                let answer = Err(error);
                let seen = answers::of_command(&answer);
                (answer, seen)
            }
        }
    }

    /// Sends a pipeline, and returns what its answers say with them.
    pub(super) async fn send_all(
        &self,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
    ) -> (redis::RedisResult<Vec<Value>>, Seen) {
        match self.slot.ready().await {
            Ok(ready) => ready.send_all(pipeline, offset, count).await,
            Err(error) => {
                let answers = Err(error);
                let seen = answers::of_pipeline(&answers);
                (answers, seen)
            }
        }
    }

    /// The number of the database.
    pub(super) fn database(&self) -> i64 {
        self.slot.address.database()
    }
}

impl Ready {
    /// Sends a command, and returns what its answer says with the answer.
    pub(super) async fn send(&self, command: &Cmd) -> (redis::RedisResult<Value>, Seen) {
        let answer = self.open.connection.clone().req_packed_command(command).await;
        let seen = answers::of_command(&answer);
        self.slot.learn(&self.link, seen);
        (answer, seen)
    }

    /// Sends a pipeline, and returns what its answers say with them.
    pub(super) async fn send_all(
        &self,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
    ) -> (redis::RedisResult<Vec<Value>>, Seen) {
        let answers = self.open.connection.clone().req_packed_commands(pipeline, offset, count).await;
        let seen = answers::of_pipeline(&answers);
        self.slot.learn(&self.link, seen);
        (answers, seen)
    }
}

impl Slot {
    /// Returns an open connection, as far as is known.
    async fn ready(self: &Arc<Self>) -> redis::RedisResult<Ready> {
        let slot = Arc::clone(self);
        let link = self.link.load_full();
        let open = self.opened(&link).await?;
        if !open.has_ended() {
            return Ok(Ready { slot, link, open });
        }
        self.replace(&link);
        let link = self.link.load_full();
        let open = self.opened(&link).await?;
        Ok(Ready { slot, link, open })
    }

    /// Returns the connection of the link, which the first caller opens; those who come meanwhile wait for
    /// it, too.
    async fn opened(self: &Arc<Self>, link: &Arc<Link>) -> redis::RedisResult<Arc<OpenConnection>> {
        if let Some(open) = link.opened.get() {
            return Ok(Arc::clone(open));
        }
        match timeout(self.limits.opening, link.opening.clone()).await {
            Ok(Ok(open)) => {
                self.begin(link, &open);
                Ok(open)
            }
            Ok(Err(error)) => {
                self.replace(link);
                Err(error)
            }
            // It is still being opened, for those who come later.
            Err(_) => Err(timed_out()),
        }
    }

    fn begin(self: &Arc<Self>, link: &Arc<Link>, open: &Arc<OpenConnection>) {
        if link.opened.set(Arc::clone(open)).is_ok() {
            tokio::spawn(watch(Arc::downgrade(self), Arc::downgrade(link)));
        }
    }

    /// Replaces the link, if it is the current one, by one that the next command opens.
    /// Returns whether it was.
    fn replace(&self, link: &Arc<Link>) -> bool {
        let new = Arc::new(Link::unopened(&self.address, self.limits));
        Arc::ptr_eq(&self.link.compare_and_swap(link, new), link)
    }

    fn leave_replica(&self, link: &Arc<Link>) {
        if self.replace(link) {
            tracing::warn!("redis is a replica now; looking for the master");
        }
    }

    /// Replaces the link, if it is the current one, by an open connection. Returns whether it was.
    fn replace_by(self: &Arc<Self>, link: &Arc<Link>, open: OpenConnection) -> bool {
        let open = Arc::new(open);
        let new = Arc::new(Link::new(futures::future::ready(Ok(Arc::clone(&open))).boxed()));
        let before = self.link.compare_and_swap(link, Arc::clone(&new));
        let is_replaced = Arc::ptr_eq(&before, link);
        if is_replaced {
            self.begin(&new, &open);
        }
        is_replaced
    }

    fn learn(&self, link: &Arc<Link>, seen: Seen) {
        match seen.refusal {
            Some(Refusal::NotMaster) => self.leave_replica(link),
            Some(Refusal::Starting) => {
                if link.is_loading_for_long() {
                    self.replace(link);
                }
            }
            None => link.loading_since_ms.store(0, Ordering::Relaxed),
        }
    }

    fn config(limits: Limits) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new().set_response_timeout(Some(limits.answer))
    }
}

impl Link {
    fn new(opening: BoxFuture<'static, redis::RedisResult<Arc<OpenConnection>>>) -> Self {
        Self {
            opening: opening.shared(),
            opened: OnceLock::new(),
            created_at: Instant::now(),
            loading_since_ms: AtomicU64::new(0),
        }
    }

    fn unopened(address: &Arc<Address>, limits: Limits) -> Self {
        let address = Arc::clone(address);
        let opening = async move {
            // A task of its own: it continues when a command has waited for long enough.
            let task = tokio::spawn(async move {
                Ok(Arc::new(open(&address, &Slot::config(limits), OPENING_LIMIT).await?))
            });
            task.await.map_err(std::io::Error::other)?
        };
        Self::new(opening.boxed())
    }

    fn is_loading_for_long(&self) -> bool {
        let now_ms = u64::try_from(self.created_at.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let first = self.loading_since_ms.compare_exchange(0, now_ms, Ordering::Relaxed, Ordering::Relaxed);
        first
            .is_err_and(|since_ms| u128::from(now_ms.saturating_sub(since_ms)) > LOADING_PATIENCE.as_millis())
    }
}

/// Watches a link until it is replaced.
async fn watch(slot: Weak<Slot>, link: Weak<Link>) {
    for turn in 0.. {
        sleep(WATCH_INTERVAL).await;
        let (Some(slot), Some(link)) = (slot.upgrade(), link.upgrade()) else { return };
        let Some(open) = link.opened.get().map(Arc::clone) else { return };
        if !Arc::ptr_eq(&slot.link.load(), &link) {
            return;
        }
        match look(&open, Expected::at(&slot.address)).await {
            State::Well => slot.follow_sentinels(&link, &open, turn).await,
            State::Ended => {
                slot.replace(&link);
                return;
            }
            State::NotMaster => return slot.leave_replica(&link),
            State::Silent => slot.heal(&link, &open).await,
        }
    }
}

/// The state of a link.
enum State {
    Well,
    Silent,
    Ended,
    NotMaster,
}

async fn look(open: &OpenConnection, expected: Expected) -> State {
    let received = open.received();
    let mut connection = open.connection.clone();
    connection.set_response_timeout(SILENCE);
    match role(&mut connection).await {
        Ok(role) if !expected.allows(role) => State::NotMaster,
        Err(_) if open.has_ended() => State::Ended,
        Err(error) if error.is_timeout() && open.received() == received => State::Silent,
        // An answer, or a part of one, has arrived; a server's error is an answer, too.
        Ok(_) | Err(_) => State::Well,
    }
}

impl Slot {
    /// Replaces a silent link as soon as another connection answers, unless the link does.
    async fn heal(self: &Arc<Self>, link: &Arc<Link>, silent: &OpenConnection) {
        let received = silent.received();
        while silent.received() == received && !silent.has_ended() {
            match open(&self.address, &Self::config(self.limits), OPENING_LIMIT).await {
                Ok(_) if silent.received() != received => return,
                Ok(open) => {
                    if self.replace_by(link, open) {
                        tracing::warn!("a connection to redis was silent and is replaced");
                    }
                    return silent.close();
                }
                Err(_) => sleep(RETRY_INTERVAL).await,
            }
        }
    }

    /// Replaces a link to a server that the Sentinels do not name any more by one to the master.
    async fn follow_sentinels(self: &Arc<Self>, link: &Arc<Link>, current: &OpenConnection, turn: usize) {
        let named = named_master(&self.address, turn, OPENING_LIMIT).await;
        if named.is_none_or(|named| named == *current.place()) {
            return;
        }
        if let Ok(open) = open(&self.address, &Self::config(self.limits), OPENING_LIMIT).await
            && open.place() != current.place()
        {
            tracing::warn!(from = %current.place(), to = %open.place(), "redis has another master now");
            self.replace_by(link, open);
        }
    }
}
