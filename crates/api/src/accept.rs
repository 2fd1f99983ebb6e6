//! Connections: their bound, the choice of an HTTP worker for each, and graceful shutdown.
//!
//! The bound on connections keeps answers prompt under overload: a connection carries one request at a time,
//! so at most that many requests wait here, and further connections wait in the socket's backlog.
//! `axum::serve` has neither such a bound nor HTTP workers, hence this loop around the same HTTP
//! implementation.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::http_worker::HttpWorker;

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
    S: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Response> + Send + 'static,
{
    // If the caller drops this future, the HTTP workers end too.
    let abandoned = CancellationToken::new();
    let _unless_waited_for = abandoned.clone().drop_guard();
    let http_workers = begins.into_iter().enumerate();
    let http_workers: Vec<HttpWorker> = http_workers
        .map(|(number, begin)| HttpWorker::start(number, begin, abandoned.clone()))
        .collect::<io::Result<_>>()?;
    let permits = Arc::new(Semaphore::new(max_connections));
    while let Some(Some((stream, permit))) = shutdown.run_until_cancelled(accept(&listener, &permits)).await {
        let Some(http_worker) = http_workers.iter().min_by_key(|http_worker| http_worker.open()) else {
            break;
        };
        http_worker.take(stream, permit)?;
    }
    // Further connections are refused instead of waiting in the backlog.
    drop(listener);
    futures::future::join_all(http_workers.into_iter().map(HttpWorker::end)).await;
    Ok(())
}

/// Waits for a permit, then for a connection. Never returns `None`, as the semaphore is never closed.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are written whole, so Nagle's algorithm would only delay them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection keeps its delay");
                }
                return Some((stream, permit));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted; trying again");
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
            move |request| routes.call(request).map(|answer| answer.unwrap_or_else(|never| match never {}))
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
