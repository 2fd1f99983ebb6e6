//! The quote lock: a price that the engine has promised to one kind of shopper, signed, until it expires.
//!
//! A lock is a compact JWS (RFC 7515) whose payload is a JSON claims set as of RFC 7519, signed with Ed25519
//! (RFC 8037). Here: what it states ([`Claims`], [`ShopperScope`]), the keys ([`SigningKeys`],
//! [`PublicKeys`]), signing ([`QuoteLock`]) and strict verification ([`verify`]). Never here: how a price is
//! computed, and files. docs/quote-lock.md says how others verify a lock.

mod claims;
mod keys;
mod scope;
mod verify;

use std::time::Duration;

use chrono::{DateTime, Utc};

pub use claims::{Claims, Terms};
pub use keys::{InvalidKey, JwkSet, MAX_KEYS, PublicKeys, SigningKeys, new_key_pem};
pub use scope::{NoSalt, SALT_BYTES, ShopperScope};
pub use verify::{Expected, LockError, verify};

/// The `typ` of a lock's header, so that no other token of these keys passes for a lock (RFC 8725, 3.11).
const TYPE: &str = "quote-lock+jwt";

/// The `alg` of a lock's header: the only one (RFC 8037, 3.1).
const ALGORITHM: &str = "EdDSA";

/// Signs locks.
#[derive(Debug)]
pub struct QuoteLock {
    keys: SigningKeys,
    ttl: Duration,
}

impl QuoteLock {
    /// Signs with the first of these keys; a lock lasts for at most `ttl`.
    pub fn new(keys: SigningKeys, ttl: Duration) -> Self {
        Self { keys, ttl }
    }

    /// Locks the terms of a quote that was computed at this instant.
    pub fn lock(&self, terms: &Terms<'_>, now: DateTime<Utc>) -> Result<String, NoSalt> {
        let claims = Claims::of(terms, ShopperScope::salted(&terms.shopper)?, self.ttl, now);
        Ok(self.keys.sign(&claims))
    }

    /// The public keys, as [`JwkSet`].
    pub fn public_keys(&self) -> JwkSet {
        self.keys.public_keys()
    }
}

#[cfg(test)]
mod tests;
