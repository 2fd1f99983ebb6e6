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
    address: SocketAddr,
    settings: watch::Sender<Settings>,
    /// The task that owns the listener and every connection; `None` while the network is cut.
    network: Option<JoinHandle<()>>,
}

/// What a test has set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Settings {
    /// Where new connections lead.
    target: SocketAddr,
    conditions: Conditions,
    /// Connections with a smaller number forward nothing any more.
    silent_before: u64,
    /// The number of new connections.
    generation: u64,
}

impl Settings {
    fn holds_back(&self, generation: u64) -> bool {
        self.conditions == Conditions::Stalled || generation < self.silent_before
    }
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
        let clear = Settings { target, conditions: Conditions::Clear, silent_before: 0, generation: 0 };
        let (settings, observed) = watch::channel(clear);
        let network = Some(tokio::spawn(serve(listener, observed)));
        Ok(Self { address, settings, network })
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
        self.settings.send_modify(|settings| settings.conditions = Conditions::Stalled);
    }

    /// Lets new connections lead to another server; those that are open stay where they are.
    pub fn redirect(&self, target: SocketAddr) {
        self.settings.send_modify(|settings| settings.target = target);
    }

    /// Keeps the connections of this moment open and forwards nothing on them any more, for good; new ones
    /// are not affected.
    pub fn silence_open(&self) {
        self.settings.send_modify(|settings| {
            settings.generation += 1;
            settings.silent_before = settings.generation;
        });
    }

    /// Delays all forwarded data by `delay`, each way.
    pub fn slow(&self, delay: Duration) {
        self.settings.send_modify(|settings| settings.conditions = Conditions::Slow(delay));
    }

    /// Ends all failures but those of silenced connections. Stalled ones continue where they stopped.
    pub async fn restore(&mut self) -> Result<()> {
        self.settings.send_modify(|settings| settings.conditions = Conditions::Clear);
        if self.network.is_none() {
            // During the cut, an outgoing connection may briefly have used the port.
            let listener = eventually("the proxy gets its port back", REBIND_PATIENCE, async || {
                Ok(TcpListener::bind(self.address).await?)
            })
            .await?;
            self.network = Some(tokio::spawn(serve(listener, self.settings.subscribe())));
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

async fn serve(listener: TcpListener, settings: watch::Receiver<Settings>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((client, _)) => {
                connections.spawn(connect(client, settings.clone()));
            }
            // The client disconnected before it was accepted, or the process is temporarily out of file
            // descriptors.
            Err(_) => sleep(ACCEPT_RETRY_DELAY).await,
        }
    }
}

/// Serves one client until either side closes or breaks. If the target is down, the client's connection is
/// closed.
async fn connect(mut client: TcpStream, settings: watch::Receiver<Settings>) {
    let Settings { target, generation, .. } = *settings.borrow();
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
        forward(from_client, to_server, settings.clone(), generation),
        forward(from_server, to_client, settings, generation),
    );
}

async fn forward(
    mut source: impl AsyncRead + Unpin,
    mut destination: impl AsyncWrite + Unpin,
    mut settings: watch::Receiver<Settings>,
    generation: u64,
) -> Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = source.read(&mut buffer).await?;
        let current = *settings.wait_for(|settings| !settings.holds_back(generation)).await?;
        if let Conditions::Slow(delay) = current.conditions {
            sleep(delay).await;
        }
        let Some(received) = buffer.get(..length).filter(|received| !received.is_empty()) else {
            return Ok(destination.shutdown().await?);
        };
        destination.write_all(received).await?;
    }
}
