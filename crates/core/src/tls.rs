//! TLS for the connections that this process opens.
//!
//! All clients use rustls with *ring* and the trusted roots of the system: the certificates in the file
//! `SSL_CERT_FILE` or, if that is not set, the system's own. The clients of Redis and PostgreSQL load these
//! themselves; this is the configuration of HTTP clients.

use rustls::{ClientConfig, RootCertStore};

/// Loads the trusted roots. Unreadable certificates are skipped; the handshake that needs one reports it.
/// Without any, connections without TLS still work.
pub fn client_config() -> ClientConfig {
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    ClientConfig::builder().with_root_certificates(trusted).with_no_client_auth()
}
