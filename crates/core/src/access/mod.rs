//! Who may do what: keys, the scopes that they have, and the identity that a request acts under.
//!
//! Here: the forms of keys and scopes ([`key`], [`scope`]), the identity of a caller ([`identity`]), and the
//! keys in use, as every API holds them in memory ([`key_ring`]). Never here: which route needs which scope
//! (the API's router), HTTP headers and statuses, and SQL (`store::access_keys`).
//!
//! A key is shown once, when it is created; the store has its digest. Where next:
//! [`AccessControl::identify`].

mod control;
pub mod identity;
pub mod key;
mod key_ring;
pub mod new_key;
pub mod scope;

pub use self::control::{AccessControl, AccessMode, IdentifyError};
pub use self::key_ring::KeyRing;
