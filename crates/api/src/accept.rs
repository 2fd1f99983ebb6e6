//! Connections: how many there may be, which HTTP worker serves each, and how they end.
//!
//! The bound on connections is what keeps answers prompt when more is asked than can be answered: a
//! connection carries one request at a time, so no more of them than that wait here, and who finds no place
//! waits in the socket's queue. `axum::serve` has no such bound, and no HTTP workers, hence this loop around
//! the same HTTP implementation.

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

/// How long no connection is accepted after that has failed, as it does while the process has too many files
/// open.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Serves at most so many connections at once until shutdown, and then until those requests that are
/// under way have their answers. Each of `begins` makes an HTTP worker; there is at least one.
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
    // A caller that stops waiting for the end leaves no HTTP worker behind.
    let abandoned = CancellationToken::new();
    let _unless_waited_for = abandoned.clone().drop_guard();
    let http_workers = begins.into_iter().enumerate();
    let http_workers: Vec<HttpWorker> = http_workers
        .map(|(number, begin)| HttpWorker::start(number, begin, abandoned.clone()))
        .collect::<io::Result<_>>()?;
    let places = Arc::new(Semaphore::new(max_connections));
    while let Some(Some((stream, place))) = shutdown.run_until_cancelled(accept(&listener, &places)).await {
        let Some(http_worker) = http_workers.iter().min_by_key(|http_worker| http_worker.open()) else {
            break;
        };
        http_worker.take(stream, place)?;
    }
    // Who connects from now on is refused, not left waiting.
    drop(listener);
    futures::future::join_all(http_workers.into_iter().map(HttpWorker::end)).await;
    Ok(())
}

/// The next connection, once there is a place for it. `None` never comes: the places are never closed.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // An answer is written at once and whole; there is nothing to wait for.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection keeps its delay");
                }
                return Some((stream, place));
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

    const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

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
    async fn who_finds_no_place_waits_until_another_leaves() {
        let (address, shutdown, serving) = start(1, Router::new().route("/", get(async || "here"))).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(ASK).await.unwrap();
        assert_eq!(status(&mut first).await, "HTTP/1.1 200 OK");

        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(ASK).await.unwrap();
        // The first is answered once more, so that the second had its chance.
        first.write_all(ASK).await.unwrap();
        assert_eq!(status(&mut first).await, "HTTP/1.1 200 OK");
        let mut nothing = [0; 1];
        assert!(second.try_read(&mut nothing).is_err());

        drop(first);
        assert_eq!(status(&mut second).await, "HTTP/1.1 200 OK");
        shutdown.cancel();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_request_under_way_is_answered_after_the_signal_to_stop() {
        let (asked, heard) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let handler = {
            let (asked, heard) = (Arc::clone(&asked), Arc::clone(&heard));
            async move || {
                asked.add_permits(1);
                heard.acquire().await.unwrap().forget();
                "at last"
            }
        };
        let (address, shutdown, serving) = start(10, Router::new().route("/", get(handler))).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        let mut busy = TcpStream::connect(address).await.unwrap();
        busy.write_all(ASK).await.unwrap();
        asked.acquire().await.unwrap().forget();
        shutdown.cancel();
        // One that asks for nothing is closed.
        assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(TcpStream::connect(address).await.is_err());
        heard.add_permits(1);
        assert_eq!(status(&mut busy).await, "HTTP/1.1 200 OK");
        serving.await.unwrap();
    }
}
