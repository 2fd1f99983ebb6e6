//! Access: which scope a request needs, whether its caller has it, and under whose name it acts.
//!
//! [`crate::router`] declares the scopes of each route, and [`crate::pipeline`] calls [`Access::admit`]
//! before any handler runs. How a caller is identified is in `pricing_core::access`.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Method, Request, header};
use pricing_core::access::identity::Identity;
use pricing_core::access::scope::{Scope, Scopes};
use pricing_core::access::{AccessControl, AccessMode, IdentifyError};
use pricing_core::audit::{MAX_REQUEST_ID_BYTES, Origin, Place};
use pricing_core::clock::Clock;
use pricing_core::telemetry::spans::{TRACEPARENT, TraceParent};

use crate::accept::Peer;
use crate::error::ApiError;
use crate::routes::policy::check_name;

/// The header that names a request, from a gateway or the caller.
const REQUEST_ID: &str = "x-request-id";

/// What a route asks of its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// No key.
    Nothing,
    /// This scope.
    Scope(Scope),
    /// The first scope to read (GET and HEAD), the second one for every other method.
    ReadOrWrite(Scope, Scope),
}

impl Needs {
    /// The scope that a request of this method needs.
    pub(crate) fn scope_of(self, method: &Method) -> Option<Scope> {
        match self {
            Self::Nothing => None,
            Self::Scope(scope) => Some(scope),
            Self::ReadOrWrite(read, write) => {
                Some(if method == Method::GET || method == Method::HEAD { read } else { write })
            }
        }
    }
}

/// Decides which callers are admitted. A clone shares the keys.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) control: AccessControl,
    /// What every caller may do without a key: from `PRICING_OPEN_SCOPES`.
    pub(crate) open: Scopes,
    pub(crate) clock: Clock,
}

impl Access {
    /// Refuses a caller that may not do what the route does.
    pub(crate) fn admit<B>(&self, needs: Needs, request: &Request<B>) -> Result<(), ApiError> {
        self.admit_as(needs, request, |_| ()).map(drop)
    }

    /// The identity of the caller, if it may do what the route does.
    pub(crate) fn admit_by_name<B>(&self, needs: Needs, request: &Request<B>) -> Result<Identity, ApiError> {
        let identity = self.admit_as(needs, request, Identity::clone)?;
        Ok(identity.unwrap_or_else(Identity::anonymous))
    }

    /// What the route wants of the caller's identity, if the caller may do what the route does; `None` of one
    /// that needs no key and has sent none.
    fn admit_as<B, T>(
        &self,
        needs: Needs,
        request: &Request<B>,
        wanted: impl FnOnce(&Identity) -> T,
    ) -> Result<Option<T>, ApiError> {
        let Some(scope) = needs.scope_of(request.method()) else { return Ok(None) };
        let sent = request.headers().get_all(header::AUTHORIZATION).iter().map(|value| value.as_bytes());
        let may = |identity: &Identity| identity.may(scope) || self.open.has(scope);
        let found = self.control.identify(
            sent,
            || self.clock.now(),
            |identity| may(identity).then(|| wanted(identity)),
        );
        match found {
            Ok(Some(wanted)) => Ok(Some(wanted)),
            Ok(None) => Err(ApiError::ScopeMissing { scope }),
            // A key that opens nothing is reported even where none is needed.
            Err(IdentifyError::Missing) if self.open.has(scope) => Ok(None),
            Err(reason) => Err(ApiError::NotIdentified { reason }),
        }
    }

    /// Whether the caller could be admitted again: false once its key was revoked or has expired.
    pub(crate) fn is_still_known(&self, identity: &Identity) -> bool {
        identity.key().is_none_or(|key| self.control.keys.is_active(key, self.clock.now()))
    }

    /// Why this service may not be reached on an address beyond loopback; `None` if it may.
    pub(crate) fn refusal_beyond_loopback(&self) -> Option<&'static str> {
        let is_open_by_accident = self.control.mode == AccessMode::Auto && !self.control.is_on();
        is_open_by_accident.then_some(
            "no access key exists, so every caller of this address could change prices. Create one with \
             `pricing keys create --name NAME --scopes keys:admin` and the settings of this service, or set \
             PRICING_AUTH=off if every caller may do everything",
        )
    }
}

/// The caller of a route that needs a scope.
pub(crate) struct Caller {
    pub(crate) identity: Identity,
    origin: Origin,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // The pipeline has put it there.
        let identity: Identity = parts.extensions.get().cloned().unwrap_or_else(Identity::anonymous);
        let place = parts.extensions.get::<Peer>().map_or(Place::Engine, |peer| Place::Peer(peer.0));
        let origin = match (identity.key(), identity.name()) {
            (Some(id), Some(name)) => Origin::key(id.as_str(), name, place),
            _ => Origin::unnamed(place),
        };
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let request_id = header(REQUEST_ID).filter(|id| id.len() <= MAX_REQUEST_ID_BYTES);
        // The caller's, where this process records no trace.
        let trace = TraceParent::current().or_else(|| header(TRACEPARENT).and_then(TraceParent::parse));
        let trace_id = trace.map(|trace| trace.trace_id());
        Ok(Self { identity, origin: origin.within(request_id, trace_id.as_deref()) })
    }
}

impl Caller {
    /// What a change of this caller is recorded with.
    pub(crate) fn origin(&self) -> Origin {
        self.origin.clone()
    }

    /// The name to record for what the caller does. With access control it is the key's, and the request must
    /// not state one; without, it is the one that the request states in this field, if it states one.
    pub(crate) fn name(
        &self,
        field: &'static str,
        stated: Option<String>,
    ) -> Result<Option<String>, ApiError> {
        match (self.identity.name(), stated) {
            (Some(name), None) => Ok(Some(name.to_owned())),
            (Some(_), Some(_)) => {
                Err(ApiError::field(field, "is stated, but the key says who calls", "to leave it out"))
            }
            (None, Some(stated)) => {
                check_name(field, &stated)?;
                Ok(Some(stated))
            }
            (None, None) => Ok(None),
        }
    }

    /// As [`name`](Self::name), for what needs one.
    pub(crate) fn required_name(
        &self,
        field: &'static str,
        stated: Option<String>,
    ) -> Result<String, ApiError> {
        let name = self.name(field, stated)?;
        name.ok_or_else(|| ApiError::field(field, "is missing", "the name of who does this"))
    }

    /// The name of who approves what a circuit breaker holds, if the request approves it: by `approve`, or,
    /// without access control, by `approved_by`.
    pub(crate) fn approver(
        &self,
        approve: bool,
        approved_by: Option<String>,
    ) -> Result<Option<String>, ApiError> {
        if !approve && approved_by.is_none() {
            return Ok(None);
        }
        let approver = self.required_name("approved_by", approved_by)?;
        self.require(Scope::PoliciesApprove)?;
        Ok(Some(approver))
    }

    /// Refuses a caller that lacks this scope, beside the one that its route needs.
    pub(crate) fn require(&self, scope: Scope) -> Result<(), ApiError> {
        if self.identity.may(scope) { Ok(()) } else { Err(ApiError::ScopeMissing { scope }) }
    }
}
