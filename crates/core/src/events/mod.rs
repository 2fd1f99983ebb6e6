//! The stream of market events: the authoritative record of what was published, in order of arrival.
//!
//! Here: publishing ([`publish`]), consuming ([`consume`]) and messages that are not valid events ([`dead`]).
//! Never here: the format of events ([`market_event`](pricing_domain::facts::market_event)) and their
//! processing (the listener and the worker).
//!
//! An event is an entry of a Redis stream and, in the same step, a message on a channel. The stream is
//! authoritative; the channel is for other programs, and its message carries the entry's identifier.
//! Listeners share the stream as one consumer group, and acknowledge an entry when a job for it is in the
//! queue.

pub mod consume;
pub mod dead;
pub mod oldest;
pub mod publish;

use std::collections::HashMap;

use serde::de::IgnoredAny;

/// The field of an entry that holds the event.
const EVENT_FIELD: &str = "event";

/// The attribute by which an event on the channel names its entry.
const STREAM_ID_ATTRIBUTE: &str = "streamid";

/// Whether a message on the channel is an event that is already in the stream; any other came from a foreign
/// program.
pub fn is_in_stream(message: &[u8]) -> bool {
    let attributes: Result<HashMap<&str, IgnoredAny>, _> = serde_json::from_slice(message);
    attributes.is_ok_and(|attributes| attributes.contains_key(STREAM_ID_ATTRIBUTE))
}
