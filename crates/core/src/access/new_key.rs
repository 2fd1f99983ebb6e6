//! Creating, rotating and revoking keys: the same for the API and for the command line, which creates the
//! first key.

use chrono::{DateTime, Utc};

use super::identity::MAX_NAME_CHARS;
use super::key::{KeyId, NewKey, NoRandomness};
use super::scope::Scopes;
use crate::audit::Origin;
use crate::store::{AccessKey, MAX_ACTIVE_KEYS, Store, StoreError};

/// Who creates a key where access control is off.
const UNNAMED: &str = "a caller without a key";

/// A key to create, checked.
#[derive(Debug, Clone)]
pub struct KeyOrder {
    name: String,
    scopes: Scopes,
    expires_at: Option<DateTime<Utc>>,
}

/// Why a key cannot be created as it was ordered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeyOrder {
    /// The name is not one of a person or a program.
    #[error("a name has 1 to {MAX_NAME_CHARS} characters on one line")]
    Name,
    /// A key without a scope would open nothing.
    #[error("a key needs at least one scope")]
    NoScope,
    /// The key would have expired already.
    #[error("the key would have expired already")]
    Expired,
}

/// The reason that no key was created or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gave no random bytes.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// There are too many keys.
    #[error("{MAX_ACTIVE_KEYS} keys are in use already: revoke some")]
    TooMany,
    /// No such key, or it cannot be used any more.
    #[error("there is no such key that can be used")]
    NotFound,
}

impl KeyOrder {
    /// Checks an order.
    pub fn new(
        name: &str,
        scopes: Scopes,
        expires_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<Self, InvalidKeyOrder> {
        let name = name.trim();
        let is_name =
            (1..=MAX_NAME_CHARS).contains(&name.chars().count()) && !name.contains(char::is_control);
        if !is_name {
            return Err(InvalidKeyOrder::Name);
        }
        if scopes.is_empty() {
            return Err(InvalidKeyOrder::NoScope);
        }
        if expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(InvalidKeyOrder::Expired);
        }
        Ok(Self { name: name.to_owned(), scopes, expires_at })
    }

    fn stored(&self, key: &NewKey, origin: &Origin, now: DateTime<Utc>) -> AccessKey {
        AccessKey {
            id: key.id.to_string(),
            name: self.name.clone(),
            digest: key.digest.to_hex(),
            scopes: self.scopes.to_string(),
            created_at: now,
            created_by: origin.actor().unwrap_or(UNNAMED).to_owned(),
            expires_at: self.expires_at,
            revoked_at: None,
        }
    }

    /// Creates the key. The secret is in what is returned, and nowhere else.
    pub async fn create(
        &self,
        store: &Store,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<(NewKey, AccessKey), KeyError> {
        let key = NewKey::draw()?;
        let stored = self.stored(&key, origin, now);
        if store.create_access_key(&stored, origin).await? {
            Ok((key, stored))
        } else {
            Err(KeyError::TooMany)
        }
    }
}

/// Creates a successor of a key, with its name and scopes; the old key expires at `old_expires_at`, if not
/// sooner.
pub async fn rotate(
    store: &Store,
    id: KeyId,
    (old_expires_at, expires_at): (DateTime<Utc>, Option<DateTime<Utc>>),
    origin: &Origin,
    now: DateTime<Utc>,
) -> Result<(NewKey, AccessKey), KeyError> {
    let old = store.access_key(id.as_str()).await?.ok_or(KeyError::NotFound)?;
    let scopes = old.scopes.parse().map_err(|_| KeyError::NotFound)?;
    let key = NewKey::draw()?;
    let stored = KeyOrder { name: old.name, scopes, expires_at }.stored(&key, origin, now);
    let is_rotated = store.rotate_access_key(id.as_str(), &stored, old_expires_at, origin).await?;
    if is_rotated { Ok((key, stored)) } else { Err(KeyError::NotFound) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_checked() {
        let now = DateTime::UNIX_EPOCH;
        let scopes: Scopes = "prices:read".parse().unwrap();
        let order = |name: &str, scopes, expires_at| KeyOrder::new(name, scopes, expires_at, now).map(|_| ());
        assert_eq!(order(" shop ", scopes, None), Ok(()));
        for name in ["", " ", "two\nlines", &"x".repeat(MAX_NAME_CHARS + 1)] {
            assert_eq!(order(name, scopes, None), Err(InvalidKeyOrder::Name), "{name}");
        }
        assert_eq!(order("shop", Scopes::default(), None), Err(InvalidKeyOrder::NoScope));
        assert_eq!(order("shop", scopes, Some(now)), Err(InvalidKeyOrder::Expired));
    }
}
