//! The transport of a connection: TCP, TLS or a Unix socket, whose end is noticed and whose silence can be.
//!
//! The client is given the stream, so that this module can tell what the client does not: whether the
//! connection has ended, and whether anything arrives on it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::select_ok;
use redis::AsyncConnectionConfig;
use redis::aio::{AsyncStream, MultiplexedConnection};
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use crate::redis_address::{Place, Server};
use crate::tls;

/// TCP asks a peer that says nothing this often whether it is still there; after [`KEEPALIVE_PROBES`] without
/// an answer the connection ends.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_PROBES: u32 = 2;
/// How long the peer's TCP may leave sent data unacknowledged.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

type Stream = Pin<Box<dyn AsyncStream + Send + Sync>>;

/// An open connection. It ends when the last reference is dropped, or when it is [closed](Self::close).
pub(crate) struct OpenConnection {
    pub(super) connection: MultiplexedConnection,
    place: Place,
    has_ended: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    driver: AbortHandle,
}

impl OpenConnection {
    /// Opens a connection within this time, and logs in.
    pub(super) async fn open(
        server: &Server,
        config: AsyncConnectionConfig,
        limit: Duration,
    ) -> redis::RedisResult<Self> {
        let opening = async {
            let received = Arc::<AtomicU64>::default();
            let stream =
                ObservedStream { inner: connect(&server.place).await?, received: Arc::clone(&received) };
            let (connection, driver) =
                MultiplexedConnection::new_with_config(&server.settings, stream, config).await?;
            let has_ended = Arc::<AtomicBool>::default();
            let ended = EndNotice(Arc::clone(&has_ended));
            let driver = tokio::spawn(async move {
                let _ended = ended;
                driver.await;
            });
            let (place, driver) = (server.place.clone(), driver.abort_handle());
            Ok(Self { connection, place, has_ended, received, driver })
        };
        tokio::time::timeout(limit, opening).await.map_err(|_| timed_out())?
    }

    /// The server.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether the connection has ended: what is sent now was surely not executed.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// A number that grows whenever something arrives.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Ends the connection; commands that wait for an answer fail at once.
    pub(super) fn close(&self) {
        self.driver.abort();
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.close();
    }
}

/// Notes that the client's task has ended, however it did.
struct EndNotice(Arc<AtomicBool>);

impl Drop for EndNotice {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The error of a time limit.
pub(super) fn timed_out() -> redis::RedisError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

async fn connect(place: &Place) -> redis::RedisResult<Stream> {
    match place {
        Place::Tcp { host, port } => Ok(Box::pin(connect_tcp(host, *port).await?)),
        Place::Tls { host, port } => {
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            let connector = TlsConnector::from(Arc::new(tls::client_config()));
            Ok(Box::pin(connector.connect(name, connect_tcp(host, *port).await?).await?))
        }
        Place::Unix(path) => Ok(Box::pin(UnixStream::connect(path).await?)),
    }
}

/// Connects to the address of the host that answers first.
async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let attempts: Vec<_> = tokio::net::lookup_host((host, port))
        .await?
        .map(|address| Box::pin(TcpStream::connect(address)))
        .collect();
    if attempts.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address")));
    }
    let (stream, _) = select_ok(attempts).await?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&keepalive())?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(stream)
}

fn keepalive() -> TcpKeepalive {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_INTERVAL).with_interval(KEEPALIVE_INTERVAL);
    keepalive.with_retries(KEEPALIVE_PROBES)
}

/// The same settings for connections that the client opens by itself.
pub(super) fn tcp_settings() -> TcpSettings {
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive());
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(USER_TIMEOUT);
    settings
}

/// A stream that counts how often something arrives.
struct ObservedStream {
    inner: Stream,
    received: Arc<AtomicU64>,
}

impl AsyncRead for ObservedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = self.inner.as_mut().poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.received.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for ObservedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner.as_mut().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_shutdown(context)
    }
}
