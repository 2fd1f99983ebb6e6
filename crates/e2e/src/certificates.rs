//! A certificate authority trusted only by a test, and a certificate issued by it for servers on loopback.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::scratch_directory::ScratchDirectory;

/// PEM files in a private directory.
#[derive(Debug)]
pub struct Certificates {
    directory: ScratchDirectory,
}

impl Certificates {
    /// Creates an authority, and a certificate for `127.0.0.1` and `localhost`.
    pub fn make() -> Result<Self> {
        let directory = ScratchDirectory::new("certificates")?;
        let mut authority = CertificateParams::new([])?;
        // Each authority has a unique name: with a shared name, a certificate would appear to be signed by
        // the wrong one, with an invalid signature.
        let name = directory.path().to_string_lossy();
        authority.distinguished_name.push(DnType::CommonName, name.as_ref());
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
        let made = Self { directory };
        fs::write(made.authority(), authority.pem())?;
        fs::write(made.certificate(), certificate.pem())?;
        fs::write(made.key(), key.serialize_pem())?;
        Ok(made)
    }

    /// The authority's own certificate: a client that gets it as `SSL_CERT_FILE` trusts the server.
    pub fn authority(&self) -> PathBuf {
        self.file("authority.pem")
    }

    /// The server's certificate.
    pub fn certificate(&self) -> PathBuf {
        self.file("certificate.pem")
    }

    /// The key of the server's certificate.
    pub fn key(&self) -> PathBuf {
        self.file("key.pem")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}
