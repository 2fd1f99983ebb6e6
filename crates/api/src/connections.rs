//! The open connections: their places, and which of them makes room when places are short.
//!
//! There are as many places as connections may be served. When all are taken, a connection that has been idle
//! for [`MIN_IDLE`] or longer makes room, the longest idle first; only what waits for a request is idle, and
//! never a connection whose request is being answered or whose head has begun. Beside these places, a few are
//! reserved: who arrives while places are short gets one of them until there is room, and its probes
//! ([`PROBES`]) are answered at once, so that health and metrics do not depend on how others behave. When the
//! reserved places are taken too, the connection makes room that has waited there for the longest time.

use std::collections::HashMap;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::future::Either;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use crate::router::PROBES;

/// How long a connection is idle, at least, before it makes room: a client that sends one request after
/// another is never cut off between two of them.
const MIN_IDLE: Duration = Duration::from_secs(1);
/// How long a request's head may take, from its first byte; and a connection in a reserved place, until it
/// begins one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Places beside the usual ones.
const RESERVED_PLACES: usize = 128;
/// How long a connection has a reserved place without a request, at least, before it makes room: a request
/// that arrives with its connection is read before.
const MIN_SILENCE: Duration = Duration::from_millis(200);
/// How long a request waits for a usual place before it is refused.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// How often a request that waits makes one more connection give up its place.
const EVICTION_PAUSE: Duration = Duration::from_millis(100);
/// The resolution of the time that connections are measured by.
const TICK: Duration = Duration::from_millis(100);
/// How often the log says that places are short, at most.
const WARNING_PAUSE: Duration = Duration::from_secs(60);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It waits for a request: nothing of it has arrived.
    Idle = 0,
    /// A part of a request's head has arrived.
    Head = 1,
    /// A request is being answered.
    Answering = 2,
    /// A request waits for a usual place.
    Queued = 3,
    /// It is being closed.
    Closing = 4,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Idle, Self::Head, Self::Answering, Self::Queued, Self::Closing];
}

/// Bits of [`Connection::state`] that hold the phase; the others hold the tick of its beginning.
const PHASE_BITS: u32 = 3;

/// The place of a connection; dropping the permit releases it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Usual,
    Reserved,
}

/// An open connection.
pub(crate) struct Connection {
    number: u64,
    /// Phase and tick in one number, as both change together.
    state: AtomicU64,
    is_reserved: AtomicBool,
    permit: Mutex<OwnedSemaphorePermit>,
    task: OnceLock<AbortHandle>,
    /// Notified to have the request that waits refused.
    refusal: Notify,
    connections: Arc<Connections>,
}

/// All open connections of a process.
pub(crate) struct Connections {
    usual: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    next_number: AtomicU64,
    /// Time in ticks, kept by [`watch`](Self::watch): reading a clock for every request takes longer.
    now: AtomicU64,
    warned_at: Mutex<Option<Instant>>,
}

impl Connections {
    /// Without connections, and with this many usual places.
    pub(crate) fn new(max_connections: usize) -> Arc<Self> {
        Arc::new(Self {
            usual: Arc::new(Semaphore::new(max_connections)),
            reserved: Arc::new(Semaphore::new(RESERVED_PLACES)),
            open: Mutex::default(),
            next_number: AtomicU64::new(0),
            now: AtomicU64::new(0),
            warned_at: Mutex::default(),
        })
    }

    /// Gives a new connection a place, and waits for one only while all are taken by requests. `None` never
    /// happens, as the semaphores are never closed.
    pub(crate) async fn admit(self: &Arc<Self>) -> Option<ConnectionGuard> {
        if let Ok(permit) = Arc::clone(&self.usual).try_acquire_owned() {
            return Some(self.open(Place::Usual, permit));
        }
        self.warn();
        if let Ok(permit) = Arc::clone(&self.reserved).try_acquire_owned() {
            return Some(self.open(Place::Reserved, permit));
        }
        let usual = pin!(Arc::clone(&self.usual).acquire_owned());
        let reserved = pin!(Arc::clone(&self.reserved).acquire_owned());
        let mut room = futures::future::select(usual, reserved);
        loop {
            self.free_reserved_place();
            match tokio::time::timeout(EVICTION_PAUSE, &mut room).await {
                Ok(Either::Left((permit, _))) => return Some(self.open(Place::Usual, permit.ok()?)),
                Ok(Either::Right((permit, _))) => return Some(self.open(Place::Reserved, permit.ok()?)),
                Err(_) => {}
            }
        }
    }

    fn open(self: &Arc<Self>, place: Place, permit: OwnedSemaphorePermit) -> ConnectionGuard {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection {
            number,
            state: AtomicU64::new(0),
            is_reserved: AtomicBool::new(place == Place::Reserved),
            permit: Mutex::new(permit),
            task: OnceLock::new(),
            refusal: Notify::new(),
            connections: Arc::clone(self),
        });
        connection.enter(Phase::Idle);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(number, Arc::clone(&connection));
        ConnectionGuard(connection)
    }

    /// Closes the connection that has been idle for the longest time, if there is one.
    pub(crate) fn free_usual_place(&self) {
        let Some(idle_until) = self.ticks_ago(MIN_IDLE) else { return };
        let is_idle = |connection: &Connection, phase, since| {
            !connection.is_reserved() && phase == Phase::Idle && since <= idle_until
        };
        if let Some(connection) = self.longest(is_idle) {
            connection.close();
        }
    }

    /// Closes the connection that has been in a reserved place without a request for the longest time; if
    /// there is none, refuses the request that has waited there for the longest time.
    fn free_reserved_place(&self) {
        let silent_until = self.ticks_ago(MIN_SILENCE);
        let is_silent = |connection: &Connection, phase, since| {
            let has_no_request = matches!(phase, Phase::Idle | Phase::Head);
            connection.is_reserved() && has_no_request && silent_until.is_some_and(|until| since <= until)
        };
        let is_queued =
            |connection: &Connection, phase, _| connection.is_reserved() && phase == Phase::Queued;
        if let Some(connection) = self.longest(is_silent) {
            connection.close();
        } else if let Some(connection) = self.longest(is_queued) {
            connection.enter(Phase::Answering);
            connection.refusal.notify_one();
        }
    }

    /// The connection that has been in its phase for the longest time, of those that fit.
    fn longest(&self, fits: impl Fn(&Connection, Phase, u64) -> bool) -> Option<Arc<Connection>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let states = open.values().map(|connection| (connection, connection.state()));
        let fitting = states.filter(|(connection, (phase, since))| fits(connection, *phase, *since));
        let longest = fitting.min_by_key(|(_, (_, since))| *since);
        longest.map(|(connection, _)| Arc::clone(connection))
    }

    /// Keeps the time, and closes connections that take too long for a request's head. Never returns.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let started = Instant::now();
        let head_timeout = in_ticks(HEAD_TIMEOUT);
        loop {
            ticks.tick().await;
            let now = in_ticks(started.elapsed());
            self.now.store(now, Ordering::Relaxed);
            let Some(begun_before) = now.checked_sub(head_timeout) else { continue };
            let is_late = |connection: &Connection, phase, since| {
                let is_waited_for =
                    phase == Phase::Head || (phase == Phase::Idle && connection.is_reserved());
                is_waited_for && since <= begun_before
            };
            while let Some(connection) = self.longest(is_late) {
                connection.close();
            }
        }
    }

    /// The last tick that is this long ago; `None` if the process has not run for so long.
    fn ticks_ago(&self, ago: Duration) -> Option<u64> {
        self.now.load(Ordering::Relaxed).checked_sub(in_ticks(ago))
    }

    fn warn(&self) {
        let mut warned_at = self.warned_at.lock().unwrap_or_else(PoisonError::into_inner);
        if warned_at.is_none_or(|at| at.elapsed() >= WARNING_PAUSE) {
            *warned_at = Some(Instant::now());
            tracing::warn!("all connections are taken; idle ones are closed for new ones");
        }
    }
}

fn in_ticks(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX)
}

impl Connection {
    fn state(&self) -> (Phase, u64) {
        let state = self.state.load(Ordering::Relaxed);
        let phase = Phase::ALL.into_iter().find(|phase| *phase as u64 == state & ((1 << PHASE_BITS) - 1));
        (phase.unwrap_or(Phase::Closing), state >> PHASE_BITS)
    }

    fn enter(&self, phase: Phase) {
        let now = self.connections.now.load(Ordering::Relaxed);
        self.state.store((now << PHASE_BITS) | phase as u64, Ordering::Relaxed);
    }

    fn is_reserved(&self) -> bool {
        self.is_reserved.load(Ordering::Relaxed)
    }

    /// Ends the connection's task, at the latest when it begins.
    fn close(&self) {
        self.enter(Phase::Closing);
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// The task that serves this connection; it is aborted to close it.
    pub(crate) fn is_served_by(&self, task: AbortHandle) {
        let task = self.task.get_or_init(|| task);
        if self.state().0 == Phase::Closing {
            task.abort();
        }
    }

    /// A request begins. Returns whether it may be answered; if not, it first has to
    /// [leave its reserved place](Self::leave_reserved_place).
    pub(crate) fn begin(&self) -> bool {
        self.enter(Phase::Answering);
        !self.is_reserved()
    }

    /// Waits for a usual place, and returns whether the request may be answered now. A probe need not wait.
    pub(crate) async fn leave_reserved_place(&self, path: &str) -> bool {
        let usual = &self.connections.usual;
        if let Ok(permit) = Arc::clone(usual).try_acquire_owned() {
            self.take_usual_place(permit);
            return true;
        }
        if PROBES.contains(&path) {
            return true;
        }
        self.enter(Phase::Queued);
        let mut room = pin!(Arc::clone(usual).acquire_owned());
        let waiting = async {
            loop {
                self.connections.free_usual_place();
                if let Ok(permit) = tokio::time::timeout(EVICTION_PAUSE, room.as_mut()).await {
                    return permit.ok();
                }
            }
        };
        let permit = tokio::select! {
            permit = tokio::time::timeout(MAX_WAIT, waiting) => permit.ok().flatten(),
            () = self.refusal.notified() => None,
        };
        self.enter(Phase::Answering);
        permit.map(|permit| self.take_usual_place(permit)).is_some()
    }

    fn take_usual_place(&self, permit: OwnedSemaphorePermit) {
        // Dropping the earlier permit releases the reserved place.
        *self.permit.lock().unwrap_or_else(PoisonError::into_inner) = permit;
        self.is_reserved.store(false, Ordering::Relaxed);
    }

    /// The request is answered when this response was handed over, or its body has ended if it is produced
    /// piece by piece.
    pub(crate) fn end(self: &Arc<Self>, response: Response) -> Response {
        if response.body().size_hint().exact().is_some() {
            self.enter(Phase::Idle);
            return response;
        }
        response.map(|body| Body::new(Streamed { body, connection: Arc::clone(self) }))
    }
}

/// A body that is produced piece by piece; its connection is idle when it is dropped.
struct Streamed {
    body: Body,
    connection: Arc<Connection>,
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        self.connection.enter(Phase::Idle);
    }
}

/// Releases the place of a connection when it ends.
pub(crate) struct ConnectionGuard(pub(crate) Arc<Connection>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let mut open = self.0.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.0.number);
    }
}

/// A socket whose connection knows when the head of a request begins, and when it was last used.
pub(crate) struct ObservedStream {
    pub(crate) stream: TcpStream,
    pub(crate) connection: Arc<Connection>,
}

impl AsyncRead for ObservedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before && self.connection.state().0 == Phase::Idle {
            self.connection.enter(Phase::Head);
        }
        read
    }
}

impl AsyncWrite for ObservedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note_write(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note_write(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl ObservedStream {
    /// An answer that is still being taken keeps its connection from being idle.
    fn note_write(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(_))) && self.connection.state().0 == Phase::Idle {
            self.connection.enter(Phase::Idle);
        }
        written
    }
}
