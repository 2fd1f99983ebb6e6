//! The identity that a request acts under.

use std::sync::Arc;

use super::key::KeyId;
use super::scope::{Scope, Scopes};

/// The longest name of an identity, in characters.
pub const MAX_NAME_CHARS: usize = 100;

/// Who a caller is, and what it may do. A clone shares the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    proof: Proof,
    scopes: Scopes,
}

/// How the identity is known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    /// It is not: access control is off. Names in the request are recorded as stated.
    None,
    /// The caller presented this key.
    Key { id: KeyId, name: Arc<str> },
}

impl Identity {
    /// The identity of every caller where access control is off: all scopes, and no name.
    pub fn unchecked() -> Self {
        Self { proof: Proof::None, scopes: Scopes::all() }
    }

    /// The identity of a caller without a key, for routes that need none.
    pub fn anonymous() -> Self {
        Self { proof: Proof::None, scopes: Scopes::default() }
    }

    /// The identity of the owner of a key.
    pub fn of_key(id: KeyId, name: Arc<str>, scopes: Scopes) -> Self {
        Self { proof: Proof::Key { id, name }, scopes }
    }

    /// The proven name; `None` where access control is off.
    pub fn name(&self) -> Option<&str> {
        match &self.proof {
            Proof::None => None,
            Proof::Key { name, .. } => Some(name),
        }
    }

    /// The key that proved it.
    pub fn key(&self) -> Option<KeyId> {
        match self.proof {
            Proof::None => None,
            Proof::Key { id, .. } => Some(id),
        }
    }

    /// What it may do.
    pub fn scopes(&self) -> Scopes {
        self.scopes
    }

    /// Whether it may do what this scope is for.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.has(scope)
    }
}
