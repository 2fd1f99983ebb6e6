//! The record of who changed what.
//!
//! Here: what a change is recorded with: who causes it and from where ([`Origin`]), and what it does
//! ([`Action`]). Never here: the table (`store::audit`), and how a caller is identified
//! ([`access`](crate::access)). A write for a caller takes an origin, and stores the entry in the transaction
//! of the change: there is neither a change without its entry nor an entry without its change.
//!
//! What the engine does by itself, such as pricing, is not recorded here: the history of prices has it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// The longest request identifier that is recorded, in bytes.
pub const MAX_REQUEST_ID_BYTES: usize = 128;

/// Who causes a change, and from where. A clone shares its texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    actor: Actor,
    place: Place,
    request_id: Option<Arc<str>>,
    trace_id: Option<Arc<str>>,
}

/// Who causes a change.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Actor {
    /// A caller without a name: access control is off, and the request states none.
    Unknown,
    /// A caller who states this name, which nothing proves.
    Stated(Arc<str>),
    /// The owner of a key.
    Key { id: Arc<str>, name: Arc<str> },
}

/// From where a change came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A client of the API at this address.
    Peer(IpAddr),
    /// The command line, in the database itself.
    CommandLine,
    /// The engine, such as for the sample catalogue.
    Engine,
}

impl Origin {
    /// A change that the engine makes itself.
    pub fn engine() -> Self {
        Self::unnamed(Place::Engine)
    }

    /// A change at the command line, by a user who states this name.
    pub fn command_line(name: &str) -> Self {
        Self { actor: Actor::Stated(name.into()), ..Self::unnamed(Place::CommandLine) }
    }

    /// A change by the owner of this key, whose name that proves.
    pub fn key(id: &str, name: &str, place: Place) -> Self {
        Self { actor: Actor::Key { id: id.into(), name: name.into() }, ..Self::unnamed(place) }
    }

    /// A change by a caller without a key.
    pub fn unnamed(place: Place) -> Self {
        Self { actor: Actor::Unknown, place, request_id: None, trace_id: None }
    }

    /// The same with the name that the request states, unless a key says who it is.
    #[must_use]
    pub fn stating(self, name: Option<&str>) -> Self {
        match (&self.actor, name) {
            (Actor::Unknown, Some(name)) => Self { actor: Actor::Stated(name.into()), ..self },
            _ => self,
        }
    }

    /// The same with identifiers of the request and of its trace.
    #[must_use]
    pub fn within(self, request_id: Option<&str>, trace_id: Option<&str>) -> Self {
        Self { request_id: request_id.map(Into::into), trace_id: trace_id.map(Into::into), ..self }
    }

    /// Who it is; `None` if the caller has no name.
    pub fn actor(&self) -> Option<&str> {
        match &self.actor {
            Actor::Unknown => None,
            Actor::Stated(name) | Actor::Key { name, .. } => Some(name),
        }
    }

    /// Whether the name is only what the caller states.
    pub fn is_as_stated(&self) -> bool {
        matches!(self.actor, Actor::Stated(_))
    }

    /// The key that proves the name.
    pub fn key_id(&self) -> Option<&str> {
        match &self.actor {
            Actor::Key { id, .. } => Some(id),
            _ => None,
        }
    }

    /// From where it came.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The `X-Request-Id` of the request.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// The trace of the request.
    pub fn trace_id(&self) -> Option<&str> {
        self.trace_id.as_deref()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(address) => address.fmt(formatter),
            Self::CommandLine => formatter.write_str("command line"),
            Self::Engine => formatter.write_str("engine"),
        }
    }
}

/// What a change does. The names are those of the table and of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A product was created or replaced.
    ProductPut,
    /// A product was removed.
    ProductDelete,
    /// A batch of an import created and changed products.
    ProductsImport,
    /// A policy was published.
    PolicyPublish,
    /// An earlier policy was published again.
    PolicyRollback,
    /// A draft was stored.
    DraftPut,
    /// A draft was removed.
    DraftDelete,
    /// A recalculation was requested.
    RecalculationRequest,
    /// A held recalculation was approved.
    RecalculationApprove,
    /// A held recalculation was rejected.
    RecalculationReject,
    /// Held moves were approved.
    MovesApprove,
    /// Held moves were rejected.
    MovesReject,
    /// A failed job was requeued.
    JobRequeue,
    /// A key was created.
    KeyCreate,
    /// A key was replaced by another one.
    KeyRotate,
    /// A key was revoked.
    KeyRevoke,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::ProductPut,
        Self::ProductDelete,
        Self::ProductsImport,
        Self::PolicyPublish,
        Self::PolicyRollback,
        Self::DraftPut,
        Self::DraftDelete,
        Self::RecalculationRequest,
        Self::RecalculationApprove,
        Self::RecalculationReject,
        Self::MovesApprove,
        Self::MovesReject,
        Self::JobRequeue,
        Self::KeyCreate,
        Self::KeyRotate,
        Self::KeyRevoke,
    ];

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ProductPut => "product.put",
            Self::ProductDelete => "product.delete",
            Self::ProductsImport => "products.import",
            Self::PolicyPublish => "policy.publish",
            Self::PolicyRollback => "policy.rollback",
            Self::DraftPut => "draft.put",
            Self::DraftDelete => "draft.delete",
            Self::RecalculationRequest => "recalculation.request",
            Self::RecalculationApprove => "recalculation.approve",
            Self::RecalculationReject => "recalculation.reject",
            Self::MovesApprove => "moves.approve",
            Self::MovesReject => "moves.reject",
            Self::JobRequeue => "job.requeue",
            Self::KeyCreate => "key.create",
            Self::KeyRotate => "key.rotate",
            Self::KeyRevoke => "key.revoke",
        }
    }
}

/// There is no action of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no action of this name")]
pub struct UnknownAction;

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(written: &str) -> Result<Self, UnknownAction> {
        Self::ALL.into_iter().find(|action| action.as_str() == written).ok_or(UnknownAction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stated_name_never_replaces_that_of_a_key() {
        let place = Place::Peer([192, 0, 2, 1].into());
        let unnamed = Origin::unnamed(place);
        assert_eq!((unnamed.actor(), unnamed.is_as_stated()), (None, false));
        let stated = unnamed.stating(Some("zoe"));
        assert_eq!((stated.actor(), stated.is_as_stated(), stated.key_id()), (Some("zoe"), true, None));
        let proven = Origin::key("1f0c9a7be452", "adam", place).stating(Some("zoe"));
        let key_id = proven.key_id();
        assert_eq!(
            (proven.actor(), proven.is_as_stated(), key_id),
            (Some("adam"), false, Some("1f0c9a7be452"))
        );
    }

    #[test]
    fn each_action_has_a_name_of_its_own() {
        for action in Action::ALL {
            assert_eq!(action.as_str().parse(), Ok(action));
        }
        assert_eq!("product.steal".parse::<Action>(), Err(UnknownAction));
    }
}
