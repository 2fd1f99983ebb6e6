//! The stream of market events: the truth about what was said, in the order it was taken in.
//!
//! Here: publishing ([`publish`]) and consuming ([`consume`]). Never here: what an event is
//! ([`domain::market_event`](crate::domain::market_event)) and what follows from it (the listener and the worker).
//!
//! An event is an entry of a Redis stream and, in the same step, a message on a channel. The stream is what counts;
//! the channel tells other programs, and its message carries the entry's identifier. Listeners share the stream as one
//! consumer group, and acknowledge an entry when a job for it is in the queue.

pub mod consume;
pub mod publish;

/// The field of an entry that holds the event.
const EVENT_FIELD: &str = "event";

/// The attribute by which an event on the channel names its entry; one without it came from a foreign program.
pub const STREAM_ID_ATTRIBUTE: &str = "streamid";
