//! TLS to whoever this process calls.
//!
//! It is rustls with *ring* everywhere, and whoever the system trusts is trusted: the certificates in the
//! file `SSL_CERT_FILE` or, where that is not set, the system's own. The clients of Redis and of PostgreSQL
//! see to that by themselves; here is what HTTP clients are given.

use rustls::{ClientConfig, RootCertStore};

/// Reads whom to trust. Certificates that cannot be read are not trusted, which is said by whoever meets
/// them; without any, a connection that needs none can still be made.
pub fn client_config() -> ClientConfig {
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    ClientConfig::builder().with_root_certificates(trusted).with_no_client_auth()
}
