//! The keys of locks: PKCS#8 files (RFC 8410) with the private ones, a JSON Web Key Set (RFC 7517, RFC 8037)
//! with the public ones.
//!
//! A key's identifier is its thumbprint (RFC 7638), so that it need not be chosen.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::claims::Claims;
use super::scope::NoSalt;
use super::{ALGORITHM, TYPE};

/// The most keys in use at the same time: the one that signs, and those before and after it.
pub const MAX_KEYS: usize = 8;

/// The PKCS#8 form (version 0) of an Ed25519 key, up to its 32 secret bytes (RFC 8410, 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const PUBLIC_KEY_BYTES: usize = 32;

/// Why keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// No PEM file with a private key.
    #[error("it has no `BEGIN PRIVATE KEY` in the form of PEM: {0}")]
    NotPem(String),
    /// A private key of another algorithm.
    #[error("its private key is not one of Ed25519: {0}")]
    NotEd25519(String),
    /// Too few or too many.
    #[error("1 to {MAX_KEYS} keys are needed")]
    Count,
    /// Two are the same.
    #[error("the key {0} is there twice")]
    Twice(String),
    /// Not a set of public keys.
    #[error("it is no JSON Web Key Set: {0}")]
    NotKeySet(String),
    /// A public key cannot be used.
    #[error("the key {0} is not a public key of Ed25519")]
    NotPublicKey(String),
}

/// The private keys: the first signs, and all are published.
#[derive(Debug)]
pub struct SigningKeys {
    pairs: Vec<Ed25519KeyPair>,
    /// The encoded header of every lock.
    header: String,
}

/// The public keys of the locks of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwkSet {
    keys: Vec<Jwk>,
}

/// A public key; members that are absent here are ignored (RFC 7517, 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    alg: String,
    #[serde(default, rename = "use")]
    usage: String,
}

/// Public keys to verify with, by identifier.
#[derive(Debug, Clone)]
pub struct PublicKeys(Vec<(String, [u8; PUBLIC_KEY_BYTES])>);

/// Draws a private key; a PKCS#8 file in PEM, as `openssl genpkey -algorithm ed25519` writes it.
pub fn new_key_pem() -> Result<String, NoSalt> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(NoSalt::of)?;
    let key = STANDARD.encode([&PKCS8_PREFIX[..], &secret].concat());
    Ok(format!("-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n"))
}

impl SigningKeys {
    /// The keys of these PEM texts; the first of them signs.
    pub fn from_pem(texts: &[impl AsRef<[u8]>]) -> Result<Self, InvalidKey> {
        let pairs: Vec<_> = texts.iter().map(|text| read_pair(text.as_ref())).collect::<Result<_, _>>()?;
        let ids: Vec<String> = pairs.iter().map(|pair| thumbprint(&encoded(pair))).collect();
        if let Some((_, twice)) =
            ids.iter().enumerate().find(|(index, id)| ids.iter().skip(index + 1).any(|other| other == *id))
        {
            return Err(InvalidKey::Twice(twice.clone()));
        }
        let current = ids.first().filter(|_| pairs.len() <= MAX_KEYS).ok_or(InvalidKey::Count)?;
        let header = format!(r#"{{"alg":"{ALGORITHM}","kid":"{current}","typ":"{TYPE}"}}"#);
        Ok(Self { pairs, header: URL_SAFE_NO_PAD.encode(header) })
    }

    /// The compact JWS of these claims (RFC 7515, 7.1).
    pub(super) fn sign(&self, claims: &Claims) -> String {
        // Writing numbers and texts cannot fail, and there is a first key.
        let claims = serde_json::to_vec(claims).unwrap_or_default();
        let mut token = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims));
        let signature = self.pairs.first().map(|pair| pair.sign(token.as_bytes()));
        if let Some(signature) = signature {
            token.push('.');
            URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        }
        token
    }

    /// The public keys, the signing one first.
    pub fn public_keys(&self) -> JwkSet {
        JwkSet { keys: self.pairs.iter().map(Jwk::of).collect() }
    }
}

impl JwkSet {
    /// A set without keys.
    pub fn empty() -> Self {
        Self { keys: Vec::new() }
    }
}

impl Jwk {
    fn of(pair: &Ed25519KeyPair) -> Self {
        let x = encoded(pair);
        let kid = thumbprint(&x);
        let [kty, crv, alg, usage] = ["OKP", "Ed25519", ALGORITHM, "sig"].map(str::to_owned);
        Self { kty, crv, x, kid, alg, usage }
    }

    /// Whether it is meant for locks; a set may have keys for other purposes.
    fn is_for_locks(&self) -> bool {
        let is_absent_or = |value: &str, expected| value.is_empty() || value == expected;
        self.kty == "OKP"
            && self.crv == "Ed25519"
            && is_absent_or(&self.alg, ALGORITHM)
            && is_absent_or(&self.usage, "sig")
    }
}

impl PublicKeys {
    /// The keys for locks of a JSON Web Key Set.
    pub fn from_json(text: &str) -> Result<Self, InvalidKey> {
        let set: JwkSet =
            serde_json::from_str(text).map_err(|error| InvalidKey::NotKeySet(error.to_string()))?;
        let mut keys: Vec<(String, [u8; PUBLIC_KEY_BYTES])> = Vec::new();
        for key in set.keys.into_iter().filter(Jwk::is_for_locks) {
            let bytes = URL_SAFE_NO_PAD.decode(&key.x).ok().and_then(|bytes| bytes.try_into().ok());
            let bytes = bytes.filter(|_| !key.kid.is_empty());
            let bytes = bytes.ok_or_else(|| InvalidKey::NotPublicKey(key.kid.clone()))?;
            if keys.iter().any(|(kid, _)| *kid == key.kid) {
                return Err(InvalidKey::Twice(key.kid));
            }
            keys.push((key.kid, bytes));
        }
        if keys.is_empty() { Err(InvalidKey::Count) } else { Ok(Self(keys)) }
    }

    /// The key with this identifier.
    pub(super) fn find(&self, kid: &str) -> Option<&[u8; PUBLIC_KEY_BYTES]> {
        self.0.iter().find(|(known, _)| known == kid).map(|(_, key)| key)
    }
}

fn read_pair(pem: &[u8]) -> Result<Ed25519KeyPair, InvalidKey> {
    let key =
        PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|error| InvalidKey::NotPem(error.to_string()))?;
    // A file of version 0 has no public key to compare with.
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der())
        .map_err(|error| InvalidKey::NotEd25519(error.to_string()))
}

fn encoded(pair: &Ed25519KeyPair) -> String {
    URL_SAFE_NO_PAD.encode(pair.public_key())
}

/// The thumbprint of a public key (RFC 7638; RFC 8037, appendix A.3).
fn thumbprint(x: &str) -> String {
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    URL_SAFE_NO_PAD.encode(Sha256::digest(members))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thumbprint_is_that_of_the_standard() {
        // RFC 8037, appendix A.3.
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        assert_eq!(thumbprint(x), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let [one, two] = [new_key_pem().unwrap(), new_key_pem().unwrap()];
        let keys = SigningKeys::from_pem(&[&one, &two]).unwrap();
        let published = serde_json::to_string(&keys.public_keys()).unwrap();
        let read = PublicKeys::from_json(&published).unwrap();
        assert_eq!(read.0.len(), 2);
        assert!(!published.contains("\"d\""), "{published}");
        assert!(matches!(SigningKeys::from_pem(&[&one, &one]), Err(InvalidKey::Twice(_))));
        assert!(matches!(SigningKeys::from_pem(&["x"]), Err(InvalidKey::NotPem(_))));
        let other = one.replace("MC4CAQAwBQYDK2Vw", "MC4CAQAwBQYDK2Vu");
        assert!(matches!(SigningKeys::from_pem(&[other]), Err(InvalidKey::NotEd25519(_))));
        assert_eq!(SigningKeys::from_pem(&[""; 0]).err(), Some(InvalidKey::Count));
    }

    #[test]
    fn a_set_of_keys_is_checked() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let key = |kid: &str, x: &str| format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"{x}"}}"#);
        let read = |keys: &str| PublicKeys::from_json(&format!(r#"{{"keys":[{keys}]}}"#)).err();
        let other_kind = r#"{"kty":"EC","crv":"P-256","x":"?","y":"?"}"#;
        assert_eq!(read(&format!("{},{other_kind}", key("a", x))), None);
        assert_eq!(read(other_kind), Some(InvalidKey::Count));
        assert_eq!(read(&key("", x)), Some(InvalidKey::NotPublicKey(String::new())));
        assert_eq!(read(&key("a", "AAAA")), Some(InvalidKey::NotPublicKey("a".to_owned())));
        assert_eq!(read(&[key("a", x), key("a", x)].join(",")), Some(InvalidKey::Twice("a".to_owned())));
    }
}
