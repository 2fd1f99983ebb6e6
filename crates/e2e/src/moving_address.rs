//! An address that is moved from one server to another, as that of a database in a fail-over.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Above this many connections, further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;

/// Forwards new connections to the present target; existing ones keep theirs. Ends on drop.
#[derive(Debug)]
pub struct MovingAddress {
    address: SocketAddr,
    target: watch::Sender<SocketAddr>,
    forwarding: JoinHandle<()>,
}

impl MovingAddress {
    /// Listens on a free loopback port and forwards to `target`.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no port for the address")?;
        let address = listener.local_addr()?;
        let (target, present) = watch::channel(target);
        Ok(Self { address, target, forwarding: tokio::spawn(serve(listener, present)) })
    }

    /// The address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Moves it: new connections go to `target`.
    pub fn move_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }
}

impl Drop for MovingAddress {
    fn drop(&mut self) {
        self.forwarding.abort();
    }
}

async fn serve(listener: TcpListener, target: watch::Receiver<SocketAddr>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        connections.spawn(forward(client, *target.borrow()));
    }
}

/// A side that breaks ends both, which they see.
async fn forward(mut client: TcpStream, target: SocketAddr) {
    if let Ok(mut server) = TcpStream::connect(target).await {
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}
