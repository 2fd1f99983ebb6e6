//! Whether access control is on, and who a caller is.

use std::str::FromStr;

use chrono::{DateTime, Utc};

use super::identity::Identity;
use super::key::PresentedKey;
use super::key_ring::KeyRing;

/// The scheme of the `Authorization` header (RFC 6750), in any case.
const SCHEME: &str = "bearer ";

/// When callers need a key: from `PRICING_AUTH`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AccessMode {
    /// Once a key was created. Until then only loopback is served.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never, also on addresses that others reach.
    Off,
}

impl FromStr for AccessMode {
    type Err = ();

    fn from_str(written: &str) -> Result<Self, ()> {
        match written {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err(()),
        }
    }
}

/// Finds out who a caller is. A clone shares the keys.
#[derive(Clone)]
pub struct AccessControl {
    /// When callers need a key.
    pub mode: AccessMode,
    /// The keys in use.
    pub keys: KeyRing,
}

/// The reason that a caller has no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentifyError {
    /// The request presents nothing.
    #[error("the request has no key: send it as \"Authorization: Bearer pricing_…\"")]
    Missing,
    /// What it presents has not the form of a key.
    #[error("the Authorization header has no key: it must be \"Bearer pricing_…\"")]
    Malformed,
    /// The key was never created, or it was revoked, or it has expired.
    #[error("the key is unknown, revoked or expired")]
    Unknown,
}

impl AccessControl {
    /// Whether callers need a key now.
    pub fn is_on(&self) -> bool {
        match self.mode {
            AccessMode::Auto => self.keys.has_any(),
            AccessMode::On => true,
            AccessMode::Off => false,
        }
    }

    /// What is wanted of the identity of a caller that sent these `Authorization` headers. Where access
    /// control is off, the identity is unchecked, whatever was sent. (An identity is not returned: a clone of
    /// it for each price would be a write to memory that all threads share.)
    pub fn identify<'a, T>(
        &self,
        mut authorization: impl Iterator<Item = &'a [u8]>,
        now: impl FnOnce() -> DateTime<Utc>,
        wanted: impl FnOnce(&Identity) -> T,
    ) -> Result<T, IdentifyError> {
        if !self.is_on() {
            return Ok(wanted(&Identity::unchecked()));
        }
        let presented = match (authorization.next(), authorization.next()) {
            (None, _) => return Err(IdentifyError::Missing),
            (Some(header), None) => read_bearer(header).ok_or(IdentifyError::Malformed)?,
            // Which of two is meant is not known.
            (Some(_), Some(_)) => return Err(IdentifyError::Malformed),
        };
        self.keys.with_identity(&presented, now(), wanted).ok_or(IdentifyError::Unknown)
    }
}

fn read_bearer(header: &[u8]) -> Option<PresentedKey> {
    let (scheme, credentials) = header.split_at_checked(SCHEME.len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(SCHEME.as_bytes());
    PresentedKey::read(credentials.trim_ascii()).filter(|_| is_bearer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_key_is_read_whatever_the_case_of_its_scheme() {
        let key = format!("pricing_{}_{}", "1f".repeat(6), "a2".repeat(32));
        for header in [format!("Bearer {key}"), format!("bearer  {key} "), format!("BEARER {key}")] {
            assert!(read_bearer(header.as_bytes()).is_some(), "{header}");
        }
        for header in ["", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", &key, &format!("Bearer{key}")] {
            assert!(read_bearer(header.as_bytes()).is_none(), "{header}");
        }
    }
}
