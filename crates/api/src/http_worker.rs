//! An HTTP worker: a thread that serves its share of the connections.
//!
//! A request that the HTTP worker answers itself wakes no other thread and shares no connection to Redis with
//! one. Long requests run on the runtime of the service, where they delay no request here
//! ([`crate::hot_path`] decides). A work-stealing runtime would balance the load better, but moving a task
//! costs more than a price does.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::future::Either;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::accept::Peer;
use crate::connections::{Connection, ConnectionGuard, ObservedStream};
use crate::error::ApiError;

/// Time limit of an idle keep-alive connection; a head that has begun has a shorter one
/// ([`crate::connections`]). Longer than the minute after which
/// most load balancers close idle connections, so that none of them reuses one that was just closed here.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(75);

/// A thread that serves connections until its channel is closed and its connections have ended.
pub(crate) struct HttpWorker {
    /// Bounded by the places: each connection holds one.
    arriving: mpsc::UnboundedSender<Arriving>,
    open: Arc<AtomicUsize>,
    ended: oneshot::Receiver<()>,
}

/// A connection that is handed to an HTTP worker.
struct Arriving {
    stream: std::net::TcpStream,
    peer: Peer,
    counted: Counted,
}

/// Releases the place of a connection, and stops counting it, when it ends.
struct Counted {
    open: Arc<AtomicUsize>,
    guard: ConnectionGuard,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl HttpWorker {
    /// Starts an HTTP worker. `begin` runs inside its runtime and returns the handler of requests. When
    /// `abandoned` is cancelled, the worker ends at once, without a drain.
    pub(crate) fn start<S, A>(
        number: usize,
        begin: impl FnOnce() -> S + Send + 'static,
        abandoned: CancellationToken,
    ) -> io::Result<Self>
    where
        S: Fn(Request<Incoming>, Peer) -> A + Clone + Send + 'static,
        A: Future<Output = Response> + Send + 'static,
    {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (arriving, connections) = mpsc::unbounded_channel();
        let (ending, ended) = oneshot::channel();
        thread::Builder::new().name(format!("http-{number}")).spawn(move || {
            runtime.block_on(abandoned.run_until_cancelled(async { serve(connections, begin()).await }));
            // Drops its tasks, and what they hold.
            drop(runtime);
            // If the service was abandoned, no caller waits for this.
            let _ = ending.send(());
        })?;
        Ok(Self { arriving, open: Arc::default(), ended })
    }

    /// The number of open connections.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Hands a connection of this peer and its place to the worker. Fails if the worker has ended.
    pub(crate) fn take(&self, stream: TcpStream, peer: Peer, guard: ConnectionGuard) -> io::Result<()> {
        let stream = stream.into_std()?;
        self.open.fetch_add(1, Ordering::Relaxed);
        let counted = Counted { open: Arc::clone(&self.open), guard };
        self.arriving.send(Arriving { stream, peer, counted }).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Drains the requests under way, then ends the worker.
    pub(crate) async fn end(self) {
        drop(self.arriving);
        let _ = self.ended.await;
    }
}

async fn serve<S, A>(mut connections: mpsc::UnboundedReceiver<Arriving>, answer: S)
where
    S: Fn(Request<Incoming>, Peer) -> A + Clone + Send + 'static,
    A: Future<Output = Response> + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(KEEP_ALIVE_TIMEOUT);
    let under_way = GracefulShutdown::new();
    while let Some(Arriving { stream, peer, counted }) = connections.recv().await {
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be served");
                continue;
            }
        };
        let connection = Arc::clone(&counted.guard.0);
        let stream = ObservedStream { stream, connection: Arc::clone(&connection) };
        let (answer, of_requests) = (answer.clone(), Arc::clone(&connection));
        let service = service_fn(move |request| answer_of(&of_requests, peer, &answer, request));
        let serving = under_way.watch(http.serve_connection(TokioIo::new(stream), service));
        let task = tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::debug!(%error, "a connection has failed");
            }
            drop(counted);
        });
        connection.is_served_by(task.abort_handle());
    }
    under_way.shutdown().await;
}

/// Answers a request of this connection.
fn answer_of<S, A>(
    connection: &Arc<Connection>,
    peer: Peer,
    answer: &S,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response, Infallible>> + Send + use<S, A>
where
    S: Fn(Request<Incoming>, Peer) -> A + Clone + Send + 'static,
    A: Future<Output = Response> + Send + 'static,
{
    let connection = Arc::clone(connection);
    if connection.begin() {
        let answering = answer(request, peer);
        return Either::Left(async move { Ok(connection.end(answering.await)) });
    }
    let answer = answer.clone();
    // Boxed, so that the future of an admitted request reserves no space for it.
    Either::Right(Box::pin(async move {
        if !connection.leave_reserved_place(request.uri().path()).await {
            let close = [(header::CONNECTION, "close")];
            return Ok(connection.end((close, ApiError::Overloaded).into_response()));
        }
        let response = answer(request, peer).await;
        Ok(connection.end(response))
    }))
}
