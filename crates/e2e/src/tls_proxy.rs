//! TLS in front of a server without it, as with a gateway or a managed collector.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::certificates::Certificates;

/// A proxy on a free loopback port. Ends, with all its connections, on drop.
#[derive(Debug)]
pub struct TlsProxy {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl TlsProxy {
    /// Starts a proxy that terminates TLS with this certificate and forwards the decrypted stream to
    /// `target`. `protocol` is the target's HTTP version as an ALPN name: `http/1.1` or `h2`.
    pub async fn start(target: SocketAddr, certificates: &Certificates, protocol: &str) -> Result<Self> {
        let chain = CertificateDer::pem_file_iter(certificates.certificate())?.collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_file(certificates.key())?;
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no port for the proxy")?;
        let address = listener.local_addr()?;
        Ok(Self { address, serving: tokio::spawn(serve(listener, acceptor, target)) })
    }

    /// `https://127.0.0.1:{port}`
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, target: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let accepting = acceptor.accept(client);
        connections.spawn(async move {
            // A client that does not trust the certificate, or a closed connection, ends the forwarding
            // normally.
            if let (Ok(mut client), Ok(mut server)) = (accepting.await, TcpStream::connect(target).await) {
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}
