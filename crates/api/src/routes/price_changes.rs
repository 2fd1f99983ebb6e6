//! `GET /api/v1/price-changes`: changes of list prices, as server-sent events.
//!
//! The changes come from a bounded stream in Redis, so a client that reconnects resumes after its
//! `Last-Event-ID`, which browsers send automatically. Notifications only wake this route, which then reads
//! the stream. Three events are sent:
//!
//! | event | id | data | when |
//! |---|---|---|---|
//! | `position` | yes | the id | first, and later if only the position has moved |
//! | `price_change` | yes | the change, as JSON | a list price has changed |
//! | `gap` | no | a sentence | changes before the next event are no longer kept |
//!
//! All have names, so an `onmessage` handler receives none of them. `position` comes first because a client
//! keeps an id only with an event that has data: without it, a client that has seen no change yet would not
//! resume. It comes again in place of a keep-alive comment, so that a client that follows one quiet product
//! does not return to a position that is no longer kept.
//!
//! A client that connects while Redis does not answer receives 200 and comments, and its first event when
//! Redis is back: by the standard, an `EventSource` gives up after any other status.
//!
//! Here: the request. [`followers`] limits how many follow, [`follower`] produces the events, and
//! [`repetitions`] leaves out changes that a process published twice.

mod follower;
mod followers;
mod repetitions;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use pricing_core::notifications::Position;
use pricing_domain::facts::product::ProductId;
use pricing_wire::price_change::FollowQuery;

use self::follower::{Follower, Progress};
pub(crate) use self::followers::Followers;
use crate::accept::Peer;
use crate::access::Caller;
use crate::error::ApiError;
use crate::state::AppState;

/// The header with the last event that a client has received.
const LAST_EVENT_ID: &str = "last-event-id";
/// How long the answer waits for Redis to say where the stream ends. Changes after the answer are sent,
/// unless this passes.
const MAX_WAIT_FOR_END: Duration = Duration::from_secs(1);

/// Streams the changes of list prices.
#[utoipa::path(get, path = "/api/v1/price-changes", tag = "prices", summary = "Follow price changes",
    description = "Server-sent events without end, for a library of these (EventSource); a generated client would wait for the end of the answer.",
    params(FollowQuery, ("Last-Event-ID" = Option<String>, Header, description = "Resume after this event; without it, only new changes are sent")),
    responses(
        (status = 200, description = "Events `price_change` with product_id, revision, old_list_price, new_list_price, currency, policy_version, cause and changed_at; an event `position` at first, and now and then, whose id is the place to resume from; an event `gap` if some changes are no longer kept, or the database was restored from a backup. Delivery is at least once: a change that is sent again, after a process has died, has the same revision", body = String, content_type = "text/event-stream"),
        (status = 422, description = "Last-Event-ID or `product_id` is invalid"),
        (status = 429, description = "Too many clients of this address follow; see PRICING_API_MAX_FOLLOWERS_PER_PEER"),
        (status = 503, description = "Too many clients follow")))]
pub(crate) async fn follow(
    State(state): State<AppState>,
    caller: Caller,
    peer: Option<Extension<Peer>>,
    query: Result<Query<FollowQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let allowed = "a product's identifier";
    let Query(query) =
        query.map_err(|rejection| ApiError::field("product_id", rejection.body_text(), allowed))?;
    let only = match query.product_id.as_deref().map(ProductId::parse) {
        None => None,
        Some(Ok(product_id)) => Some(product_id),
        Some(Err(error)) => return Err(ApiError::field("product_id", error.to_string(), allowed)),
    };
    let seen = headers.get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or_default().parse::<Position>());
    let seen = seen.transpose().map_err(|error| {
        ApiError::field("Last-Event-ID", error.to_string(), "the id of an event that was received")
    })?;
    let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Extension(Peer(peer))| peer);
    let permit = state.followers.admit(peer, &state.metrics)?;
    let notifications = state.engine.notifications.clone();
    let position = match seen {
        Some(seen) => Some(seen),
        None => match tokio::time::timeout(MAX_WAIT_FOR_END, notifications.end()).await {
            Ok(Ok(end)) => Some(end),
            Ok(Err(_)) | Err(_) => None,
        },
    };
    let catalogue = notifications.catalogue().generation();
    let follower = Follower {
        notifications,
        catalogue,
        followers: state.followers.clone(),
        position,
        only,
        progress: Progress::of(seen.is_some()),
        access: state.access.clone(),
        identity: caller.identity,
        _permit: permit,
    };
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    Ok((headers, Body::from_stream(follower.events())).into_response())
}
