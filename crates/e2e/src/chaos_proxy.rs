//! A TCP proxy that simulates network failures between two processes.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::eventually::eventually;

/// Above this many connections, further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;
const BUFFER_BYTES: usize = 16 * 1024;
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(10);
const REBIND_PATIENCE: Duration = Duration::from_secs(10);

/// A proxy in front of one server. Ends, with all its connections, on drop.
#[derive(Debug)]
pub struct ChaosProxy {
    target: SocketAddr,
    address: SocketAddr,
    conditions: watch::Sender<Conditions>,
    /// The task that owns the listener and every connection; `None` while the network is cut.
    network: Option<JoinHandle<()>>,
}

/// The conditions for bytes in transit, in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conditions {
    Clear,
    Stalled,
    Slow(Duration),
}

impl ChaosProxy {
    /// Starts a proxy on a free loopback port that forwards to `target`, which need not listen yet.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no port for the proxy")?;
        let address = listener.local_addr()?;
        let (conditions, observed) = watch::channel(Conditions::Clear);
        let network = Some(tokio::spawn(serve(listener, target, observed)));
        Ok(Self { target, address, conditions, network })
    }

    /// The address for clients. It displays as `127.0.0.1:{port}`, for use in a URL.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks all connections and refuses new ones, from now until [`restore`](Self::restore).
    pub async fn cut(&mut self) {
        if let Some(network) = self.network.take() {
            network.abort();
            // When the task has ended it has dropped the listener and the connections.
            let _ = network.await;
        }
    }

    /// Keeps connections open and accepts new ones, but forwards nothing, not even the end of a stream.
    pub fn stall(&self) {
        self.conditions.send_replace(Conditions::Stalled);
    }

    /// Delays all forwarded data by `delay`, each way.
    pub fn slow(&self, delay: Duration) {
        self.conditions.send_replace(Conditions::Slow(delay));
    }

    /// Ends all failures. Stalled connections continue where they stopped.
    pub async fn restore(&mut self) -> Result<()> {
        self.conditions.send_replace(Conditions::Clear);
        if self.network.is_none() {
            // During the cut, an outgoing connection may briefly have used the port.
            let listener = eventually("the proxy gets its port back", REBIND_PATIENCE, async || {
                Ok(TcpListener::bind(self.address).await?)
            })
            .await?;
            self.network = Some(tokio::spawn(serve(listener, self.target, self.conditions.subscribe())));
        }
        Ok(())
    }
}

impl Drop for ChaosProxy {
    fn drop(&mut self) {
        if let Some(network) = self.network.take() {
            network.abort();
        }
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, conditions: watch::Receiver<Conditions>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((client, _)) => {
                connections.spawn(connect(client, target, conditions.clone()));
            }
            // The client disconnected before it was accepted, or the process is temporarily out of file
            // descriptors.
            Err(_) => sleep(ACCEPT_RETRY_DELAY).await,
        }
    }
}

/// Serves one client until either side closes or breaks. If the target is down, the client's connection is
/// closed.
async fn connect(mut client: TcpStream, target: SocketAddr, conditions: watch::Receiver<Conditions>) {
    let Ok(mut server) = TcpStream::connect(target).await else {
        return;
    };
    // Delays are set by the proxy, not by the kernel.
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    // A broken side is not an error of the proxy: both sides are closed, which clients see.
    let _ = tokio::try_join!(
        forward(from_client, to_server, conditions.clone()),
        forward(from_server, to_client, conditions),
    );
}

async fn forward(
    mut source: impl AsyncRead + Unpin,
    mut destination: impl AsyncWrite + Unpin,
    mut conditions: watch::Receiver<Conditions>,
) -> Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = source.read(&mut buffer).await?;
        let current = *conditions.wait_for(|conditions| *conditions != Conditions::Stalled).await?;
        if let Conditions::Slow(delay) = current {
            sleep(delay).await;
        }
        let Some(received) = buffer.get(..length).filter(|received| !received.is_empty()) else {
            return Ok(destination.shutdown().await?);
        };
        destination.write_all(received).await?;
    }
}
