//! Keys: `pricing_`, an identifier of 12 digits, `_`, and a secret of 64, both hexadecimal.
//!
//! The identifier is no secret: lists, logs and messages name a key by it. The secret has 256 random bits, so
//! a plain digest of it cannot be searched for, and no slow one is needed. The prefix lets scanners find keys
//! that were published by mistake.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const PREFIX: &str = "pricing_";
const ID_DIGITS: usize = 12;
const SECRET_DIGITS: usize = 64;
/// The length of a key, in bytes.
pub const KEY_BYTES: usize = PREFIX.len() + ID_DIGITS + 1 + SECRET_DIGITS;

/// The identifier of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; ID_DIGITS]);

/// Not the identifier of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an identifier of a key has {ID_DIGITS} digits, 0 to 9 and a to f, as `pricing keys list` shows it")]
pub struct InvalidKeyId;

impl KeyId {
    fn of(digits: &[u8]) -> Option<Self> {
        let digits: [u8; ID_DIGITS] = digits.try_into().ok()?;
        digits.iter().all(is_digit).then_some(Self(digits))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        // Digits are ASCII.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(written: &str) -> Result<Self, InvalidKeyId> {
        Self::of(written.as_bytes()).ok_or(InvalidKeyId)
    }
}

/// The SHA-256 digest of a key.
#[derive(Debug, Clone, Copy)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Whether both are of the same key, in a time that does not depend on where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// The digest as the store has it: 64 hexadecimal digits.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    /// Reads what [`to_hex`](Self::to_hex) wrote.
    pub fn from_hex(digits: &str) -> Option<Self> {
        let mut digest = [0; 32];
        hex::decode_to_slice(digits, &mut digest).ok()?;
        Some(Self(digest))
    }
}

/// A key as a request presents it: its form is right, and it may be any.
#[derive(Debug, Clone, Copy)]
pub struct PresentedKey {
    /// The key that it says to be.
    pub id: KeyId,
    /// To be compared with the stored one.
    pub digest: KeyDigest,
}

impl PresentedKey {
    /// Reads a key; `None` if it has not the form of one.
    pub fn read(written: &[u8]) -> Option<Self> {
        let rest = written.strip_prefix(PREFIX.as_bytes())?;
        let (id, rest) = rest.split_at_checked(ID_DIGITS)?;
        let secret = rest.strip_prefix(b"_")?;
        let is_secret = secret.len() == SECRET_DIGITS && secret.iter().all(is_digit);
        let id = KeyId::of(id).filter(|_| is_secret)?;
        Some(Self { id, digest: KeyDigest::of(written) })
    }
}

fn is_digit(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// A key that was just drawn. It is shown to its owner and kept nowhere.
pub struct NewKey {
    /// Its identifier.
    pub id: KeyId,
    /// The whole key.
    pub text: String,
    /// What is stored.
    pub digest: KeyDigest,
}

/// The system gave no random bytes.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the system gave no random bytes: {0}")]
pub struct NoRandomness(getrandom::Error);

impl NewKey {
    /// Draws a key from the system's source of randomness.
    pub fn draw() -> Result<Self, NoRandomness> {
        let (mut id, mut secret) = ([0; ID_DIGITS / 2], [0; SECRET_DIGITS / 2]);
        getrandom::fill(&mut id).and_then(|()| getrandom::fill(&mut secret)).map_err(NoRandomness)?;
        Ok(Self::from_bytes(id, secret))
    }

    fn from_bytes(id: [u8; ID_DIGITS / 2], secret: [u8; SECRET_DIGITS / 2]) -> Self {
        let mut digits = [0; ID_DIGITS];
        // The lengths agree, so this cannot fail.
        let _ = hex::encode_to_slice(id, &mut digits);
        let id = KeyId(digits);
        let text = format!("{PREFIX}{id}_{}", hex::encode(secret));
        let digest = KeyDigest::of(text.as_bytes());
        Self { id, text, digest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> NewKey {
        NewKey::from_bytes([0x1f; 6], [0xa2; 32])
    }

    #[test]
    fn a_key_is_read_as_it_is_drawn() {
        let key = key();
        assert_eq!(key.text.len(), KEY_BYTES);
        let read = PresentedKey::read(key.text.as_bytes()).unwrap();
        assert_eq!(read.id, key.id);
        assert!(read.digest.matches(&key.digest));
        let stored = KeyDigest::from_hex(&key.digest.to_hex()).unwrap();
        assert!(read.digest.matches(&stored));
        assert_eq!(key.id.to_string().parse(), Ok(key.id));
    }

    #[test]
    fn keys_differ() {
        let (one, other) = (NewKey::draw().unwrap(), NewKey::draw().unwrap());
        assert_ne!(one.id, other.id);
        assert!(!one.digest.matches(&other.digest));
    }

    #[test]
    fn every_other_form_is_refused() {
        let text = key().text;
        assert!(PresentedKey::read(text.as_bytes()).is_some());
        for length in 0..text.len() {
            assert!(PresentedKey::read(&text.as_bytes()[..length]).is_none(), "{length}");
        }
        let others = [
            format!("{text}0"),
            format!(" {text}"),
            text.to_uppercase(),
            text.replace("pricing_", "pricing-"),
            text.replace('a', "g"),
            text.replace('1', "é"),
        ];
        for other in others {
            assert!(PresentedKey::read(other.as_bytes()).is_none(), "{other}");
        }
    }

    #[test]
    fn another_secret_of_the_same_key_does_not_match() {
        let key = key();
        for place in KEY_BYTES - SECRET_DIGITS..KEY_BYTES {
            let mut other = key.text.clone().into_bytes();
            other[place] = if other[place] == b'0' { b'1' } else { b'0' };
            let read = PresentedKey::read(&other).unwrap();
            assert!(read.id == key.id && !read.digest.matches(&key.digest), "{place}");
        }
    }
}
