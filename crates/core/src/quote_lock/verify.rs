//! The strict verification of a lock: one algorithm, known keys, canonical encodings, nothing ignored in the
//! header (RFC 8725).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use pricing_domain::Shopper;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::Deserialize;

use super::claims::Claims;
use super::keys::PublicKeys;
use super::{ALGORITHM, TYPE};

/// The longest lock. The engine's have less than a thousand bytes.
const MAX_TOKEN_BYTES: usize = 4_096;

/// How far the clock of the issuer may be ahead, in seconds.
const MAX_CLOCK_SKEW_S: i64 = 60;

/// What a lock has to state; what is absent is not compared.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected<'a> {
    /// The product.
    pub product_id: Option<&'a str>,
    /// The number of units.
    pub quantity: Option<u32>,
    /// The shopper; the quantity is not compared.
    pub shopper: Option<Shopper<'a>>,
}

/// Why a lock is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Too long.
    #[error("it is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// Not three parts with full stops between.
    #[error("it is no compact JWS: three parts in base64url with full stops between")]
    NotCompact,
    /// A part is not canonical base64url without padding.
    #[error("its {0} is not canonical base64url")]
    Encoding(&'static str),
    /// The header or the payload is not the expected JSON.
    #[error("its {0} cannot be read: {1}")]
    Unreadable(&'static str, String),
    /// Another algorithm, or none.
    #[error("its algorithm is not {ALGORITHM}")]
    Algorithm,
    /// A token for another purpose.
    #[error("its type is not {TYPE}")]
    Type,
    /// No key of this identifier.
    #[error("it is signed with a key that is not in the set")]
    UnknownKey,
    /// The signature is not of this key over this text.
    #[error("the signature is wrong: the lock was changed, or another key has signed it")]
    Signature,
    /// It was issued in the future.
    #[error("it was issued in the future; is the clock right?")]
    NotYetIssued,
    /// It has expired.
    #[error("it expired at {0}")]
    Expired(DateTime<Utc>),
    /// It is for another product.
    #[error("it is for another product")]
    OtherProduct,
    /// It is for another quantity.
    #[error("it is for another quantity")]
    OtherQuantity,
    /// It is for another shopper.
    #[error(
        "it is for another shopper: location, prime, channel and segment have to be those of the request"
    )]
    OtherShopper,
}

/// The header of a lock. Other members are refused, among them keys that it brings along and `crit`, as no
/// extension is known.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    typ: Option<String>,
}

/// Returns what a lock states if one of these keys has signed it, it has not expired, and it states what is
/// expected.
pub fn verify(
    token: &str,
    keys: &PublicKeys,
    expected: &Expected<'_>,
    now: DateTime<Utc>,
) -> Result<Claims, LockError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(LockError::TooLong);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(LockError::NotCompact)?;
    let (header, payload) = signed.split_once('.').ok_or(LockError::NotCompact)?;
    if payload.contains('.') {
        return Err(LockError::NotCompact);
    }
    let key = keys.find(&check_header(header)?).ok_or(LockError::UnknownKey)?;
    let signature = decode("signature", signature)?;
    let is_right = UnparsedPublicKey::new(&ED25519, key).verify(signed.as_bytes(), &signature);
    is_right.map_err(|_| LockError::Signature)?;
    let claims: Claims = serde_json::from_slice(&decode("payload", payload)?)
        .map_err(|error| LockError::Unreadable("payload", error.to_string()))?;
    check_time(&claims, now)?;
    expected.check(&claims)?;
    Ok(claims)
}

/// The identifier of the key in a header, if the header is allowed.
fn check_header(encoded: &str) -> Result<String, LockError> {
    let header: Header = serde_json::from_slice(&decode("header", encoded)?)
        .map_err(|error| LockError::Unreadable("header", error.to_string()))?;
    if header.alg != ALGORITHM {
        return Err(LockError::Algorithm);
    }
    if header.typ.as_deref() != Some(TYPE) {
        return Err(LockError::Type);
    }
    header.kid.ok_or(LockError::UnknownKey)
}

fn decode(part: &'static str, encoded: &str) -> Result<Vec<u8>, LockError> {
    URL_SAFE_NO_PAD.decode(encoded).map_err(|_| LockError::Encoding(part))
}

fn check_time(claims: &Claims, now: DateTime<Utc>) -> Result<(), LockError> {
    if claims.exp <= now.timestamp() {
        return Err(LockError::Expired(DateTime::from_timestamp(claims.exp, 0).unwrap_or_default()));
    }
    if claims.iat > now.timestamp().saturating_add(MAX_CLOCK_SKEW_S) {
        return Err(LockError::NotYetIssued);
    }
    Ok(())
}

impl Expected<'_> {
    fn check(&self, claims: &Claims) -> Result<(), LockError> {
        if self.product_id.is_some_and(|product_id| product_id != claims.product_id) {
            return Err(LockError::OtherProduct);
        }
        if self.quantity.is_some_and(|quantity| quantity != claims.quantity) {
            return Err(LockError::OtherQuantity);
        }
        if self.shopper.is_some_and(|shopper| !claims.scope.is_of(&shopper)) {
            return Err(LockError::OtherShopper);
        }
        Ok(())
    }
}
