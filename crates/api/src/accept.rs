//! Accepts connections: their bound, the choice of an HTTP worker for each, and graceful shutdown.
//!
//! The bound on connections keeps answers prompt under overload: a connection carries one request at a time,
//! so at most that many requests wait here. [`crate::connections`] says who makes room when it is reached.
//! `axum::serve` has neither such a bound nor HTTP workers, hence this loop around the same HTTP
//! implementation.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::connections::Connections;
use crate::http_worker::HttpWorker;

/// The address that a connection comes from; behind a gateway, the gateway's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// The pause after a failed accept, as happens while the process has too many open files.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Serves at most `max_connections` at the same time until shutdown, then drains the requests under way. Each
/// of `begins` starts an HTTP worker; there is at least one.
pub(crate) async fn serve<B, S, A>(
    listener: TcpListener,
    begins: Vec<B>,
    max_connections: usize,
    shutdown: CancellationToken,
) -> io::Result<()>
where
    B: FnOnce() -> S + Send + 'static,
    S: Fn(Request<Incoming>, Peer) -> A + Clone + Send + 'static,
    A: Future<Output = Response> + Send + 'static,
{
    // If the caller drops this future, the HTTP workers end too.
    let abandoned = CancellationToken::new();
    let _unless_waited_for = abandoned.clone().drop_guard();
    let http_workers = begins.into_iter().enumerate();
    let http_workers: Vec<HttpWorker> = http_workers
        .map(|(number, begin)| HttpWorker::start(number, begin, abandoned.clone()))
        .collect::<io::Result<_>>()?;
    let connections = Connections::new(max_connections);
    let _watch = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&connections).watch()));
    let accepting = || async {
        let (stream, peer) = accept(&listener, &connections).await;
        Some((stream, peer, connections.admit().await?))
    };
    while let Some(Some((stream, peer, guard))) = shutdown.run_until_cancelled(accepting()).await {
        let Some(http_worker) = http_workers.iter().min_by_key(|http_worker| http_worker.open()) else {
            break;
        };
        http_worker.take(stream, peer, guard)?;
    }
    // Further connections are refused instead of waiting in the backlog.
    drop(listener);
    futures::future::join_all(http_workers.into_iter().map(HttpWorker::end)).await;
    Ok(())
}

/// Waits for a connection.
async fn accept(listener: &TcpListener, connections: &Connections) -> (TcpStream, Peer) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // Answers are written whole, so Nagle's algorithm would only delay them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection keeps its delay");
                }
                return (stream, Peer(address.ip()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted; trying again");
                connections.free_usual_place();
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use futures::FutureExt;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Semaphore;
    use tokio::task::JoinHandle;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

    async fn start(
        max_connections: usize,
        router: Router,
    ) -> (std::net::SocketAddr, CancellationToken, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let routes = TowerToHyperService::new(router);
        let begin = || {
            move |request, _| routes.call(request).map(|answer| answer.unwrap_or_else(|never| match never {}))
        };
        let serving = serve(listener, vec![begin], max_connections, shutdown.clone());
        let serving = tokio::spawn(async { serving.await.unwrap() });
        (address, shutdown, serving)
    }

    async fn status(stream: &mut TcpStream) -> String {
        let mut answer = vec![0; 1_024];
        let read = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..read]).lines().next().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn a_connection_above_the_bound_waits_until_another_ends() {
        let (address, shutdown, serving) = start(1, Router::new().route("/", get(async || "here"))).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(REQUEST).await.unwrap();
        assert_eq!(status(&mut first).await, "HTTP/1.1 200 OK");

        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(REQUEST).await.unwrap();
        // While the first is answered again, the second could have been served.
        first.write_all(REQUEST).await.unwrap();
        assert_eq!(status(&mut first).await, "HTTP/1.1 200 OK");
        let mut nothing = [0; 1];
        assert!(second.try_read(&mut nothing).is_err());

        drop(first);
        assert_eq!(status(&mut second).await, "HTTP/1.1 200 OK");
        shutdown.cancel();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn the_longest_idle_connection_makes_room() {
        let (address, shutdown, serving) = start(2, Router::new().route("/", get(async || "here"))).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        // So that it is the older one.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut answered = TcpStream::connect(address).await.unwrap();
        answered.write_all(REQUEST).await.unwrap();
        assert_eq!(status(&mut answered).await, "HTTP/1.1 200 OK");
        let mut newcomers = Vec::new();
        for evicted in [&mut silent, &mut answered] {
            let mut newcomer = TcpStream::connect(address).await.unwrap();
            newcomer.write_all(REQUEST).await.unwrap();
            assert_eq!(status(&mut newcomer).await, "HTTP/1.1 200 OK");
            assert_eq!(evicted.read(&mut [0; 1]).await.unwrap(), 0);
            newcomers.push(newcomer);
        }
        shutdown.cancel();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn probes_are_answered_while_all_places_are_taken_by_requests() {
        let released = Arc::new(Semaphore::new(0));
        let handler = {
            let released = Arc::clone(&released);
            async move || {
                released.acquire().await.unwrap().forget();
                "at last"
            }
        };
        let router = Router::new().route("/", get(handler)).route("/healthz", get(async || "alive"));
        let (address, shutdown, serving) = start(2, router).await;
        // More than the places of both kinds, so that some wait in reserved ones and the oldest are refused.
        let mut clients = Vec::new();
        for _ in 0..200 {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(REQUEST).await.unwrap();
            clients.push(client);
        }
        let mut probe = TcpStream::connect(address).await.unwrap();
        probe.write_all(b"GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
        assert_eq!(status(&mut probe).await, "HTTP/1.1 200 OK");
        // Some are refused to make room, and the others after a while.
        for refused in &mut clients[2..] {
            assert_eq!(status(refused).await, "HTTP/1.1 503 Service Unavailable");
        }
        released.add_permits(2);
        for client in &mut clients[..2] {
            assert_eq!(status(client).await, "HTTP/1.1 200 OK");
        }
        drop(clients);
        shutdown.cancel();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn requests_under_way_are_answered_after_shutdown_begins() {
        let (received, released) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let handler = {
            let (received, released) = (Arc::clone(&received), Arc::clone(&released));
            async move || {
                received.add_permits(1);
                released.acquire().await.unwrap().forget();
                "at last"
            }
        };
        let (address, shutdown, serving) = start(10, Router::new().route("/", get(handler))).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        let mut busy = TcpStream::connect(address).await.unwrap();
        busy.write_all(REQUEST).await.unwrap();
        received.acquire().await.unwrap().forget();
        shutdown.cancel();
        // An idle connection is closed.
        assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(TcpStream::connect(address).await.is_err());
        released.add_permits(1);
        assert_eq!(status(&mut busy).await, "HTTP/1.1 200 OK");
        serving.await.unwrap();
    }
}
