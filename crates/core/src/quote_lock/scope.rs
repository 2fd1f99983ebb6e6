//! The shopper of a lock as a salted digest: a shop that knows the shopper's traits can compare, and no
//! reader can take the traits from it. A reader who guesses all traits can confirm the guess.
//!
//! `scope` = SHA-256( salt ‖ trait(location) ‖ prime ‖ trait(channel) ‖ trait(segment) ), in which `salt` is
//! 16 random bytes, `trait(t)` is one byte with the length of `t` in UTF-8 and then its bytes, or the byte 0
//! if there is none, and `prime` is the byte 1 for a prime member and 0 for others. Lengths in front of the
//! traits make different shoppers different inputs. The quantity is a claim of its own.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pricing_domain::Shopper;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The length of a salt.
pub const SALT_BYTES: usize = 16;

/// The system gave no random bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes: {0}")]
pub struct NoSalt(String);

impl NoSalt {
    pub(super) fn of(error: getrandom::Error) -> Self {
        Self(error.to_string())
    }
}

/// A shopper's location, prime membership, channel and segment as a salted digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShopperScope {
    /// The salt, in base64url without padding.
    salt: String,
    /// The digest, in base64url without padding.
    scope: String,
}

impl ShopperScope {
    /// The digest of this shopper with a new salt.
    pub(super) fn salted(shopper: &Shopper<'_>) -> Result<Self, NoSalt> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(NoSalt::of)?;
        Ok(Self::with(salt, shopper))
    }

    pub(super) fn with(salt: [u8; SALT_BYTES], shopper: &Shopper<'_>) -> Self {
        let mut digest = Sha256::new_with_prefix(salt);
        add_trait(&mut digest, shopper.location);
        digest.update([u8::from(shopper.prime)]);
        add_trait(&mut digest, shopper.channel.unwrap_or_default());
        add_trait(&mut digest, shopper.segment.unwrap_or_default());
        Self { salt: URL_SAFE_NO_PAD.encode(salt), scope: URL_SAFE_NO_PAD.encode(digest.finalize()) }
    }

    /// Whether it is of this shopper; false too if the salt is none.
    pub fn is_of(&self, shopper: &Shopper<'_>) -> bool {
        let salt = URL_SAFE_NO_PAD.decode(&self.salt).ok().and_then(|salt| salt.try_into().ok());
        salt.is_some_and(|salt| Self::with(salt, shopper) == *self)
    }
}

/// A checked trait has at most 64 bytes; a longer one, which no shopper has, stays distinct from others.
fn add_trait(digest: &mut Sha256, value: &str) {
    digest.update([u8::try_from(value.len()).unwrap_or(u8::MAX)]);
    digest.update(value);
}
