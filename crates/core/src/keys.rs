//! Every Redis key, channel and time-to-live of the engine. Nothing is spelled anywhere else.
//!
//! | key | type | what | written by |
//! |---|---|---|---|
//! | `{prefix}{catalogue}:price:{product_id}` | string | a revision of 20 digits, then a `PriceEntry` as JSON, or nothing for a product that is gone | `cache/put_and_tell.lua` only |
//! | `{prefix}{catalogue}:write_check` | string | nothing; lives for a second | a check that Redis takes writes |
//! | `market_events` | channel | a market event with its stream id, or anything a foreign program publishes | `events::publish` |
//! | `market_events:log` | stream | market events, until a while after they were handed to workers | `events::publish` |
//! | `market_events:dead` | stream | messages that are no market events, with the reason | the listener |
//! | `price_changes` | channel | that prices changed | `cache/put_and_tell.lua` |
//! | `price_changes:log` | stream | the latest price changes | `cache/put_and_tell.lua` |
//! | `policy_changes` | channel | that a policy or a location factor changed | `notifications` |
//! | `{prefix}tz_versions` | sorted set | the versions of the time zone database in use, by when they were last told, of the last minute | `tz_versions.lua` |
//! | `{prefix}lease:{name}`, with `:token` | strings | who holds a lease; its last fencing token | `lease` |
//! | `{core:apalis:queues:list}:{prefix}jobs` and what begins so | several | the queue of the workers | `jobs` |
//!
//! `{catalogue}` is the identity of the database: another one, with revisions of its own, finds no prices of
//! the first. The prefix is `pricing:v1:` unless configured; the number changes when a stored shape does.
//! Names that other programs use carry the prefix only if it was configured. Every command and script names
//! keys of one slot, so the schema works on Redis Cluster; only prices are put by the batch, together with
//! the notice of them, until a server refuses that because it is one.

use std::time::Duration;

/// The prefix of all keys unless configured otherwise.
pub const DEFAULT_PREFIX: &str = "pricing:v1:";

/// How long an untouched price stays in Redis. A price that is read again later is filled from the catalogue.
pub const PRICE_TTL: Duration = Duration::from_secs(60 * 60);

/// The key names of one installation.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// Keys with this prefix, for prices out of the catalogue with this identity.
    pub fn new(prefix: &str, store: &str) -> Self {
        Self { prefix: format!("{prefix}{store}:") }
    }

    /// A product's price entry.
    pub fn price(&self, product_id: &str) -> String {
        format!("{}price:{product_id}", self.prefix)
    }

    /// Written to see whether Redis takes writes.
    pub fn write_check(&self) -> String {
        format!("{}write_check", self.prefix)
    }
}

/// How many of the latest notices of price changes stay readable.
pub const PRICE_CHANGES_KEPT: usize = 5_000;

/// The consumer group in which listeners share the event log.
pub const LISTENER_GROUP: &str = "listeners";

/// How traces name the stream of events, whatever the prefix.
pub const EVENT_LOG: &str = "market_events:log";
/// How traces name the channel of price changes, whatever the prefix.
pub const PRICE_CHANGES: &str = "price_changes";
/// How traces name the queue, whatever the prefix.
pub const JOBS: &str = "jobs";

/// The names through which services message each other. They belong to no catalogue: who publishes an event
/// does not know one.
#[derive(Debug, Clone)]
pub struct MessageKeys {
    prefix: String,
}

impl MessageKeys {
    /// Names with this prefix. Those that other programs use carry it only if it is not the usual one, so
    /// that two installations can share a Redis.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The channel on which market events are heard.
    pub fn event_channel(&self) -> String {
        self.public("market_events")
    }

    /// The stream of market events.
    pub fn event_log(&self) -> String {
        self.public("market_events:log")
    }

    /// The stream of messages that are no market events.
    pub fn dead_events(&self) -> String {
        self.public("market_events:dead")
    }

    /// The channel on which price changes are heard.
    pub fn price_changes_channel(&self) -> String {
        self.public("price_changes")
    }

    /// The stream of the latest price changes.
    pub fn price_changes_log(&self) -> String {
        self.public("price_changes:log")
    }

    /// The channel on which is heard that policies or location factors changed.
    pub fn policy_changes_channel(&self) -> String {
        self.public("policy_changes")
    }

    /// The queue; the keys of it begin so. The part in braces is the queue library's own key, so that both
    /// lie in the same slot of a cluster.
    pub fn queue(&self) -> String {
        format!("{{core:apalis:queues:list}}:{}jobs", self.prefix)
    }

    /// The channel that wakes workers.
    pub fn queue_wake(&self) -> String {
        format!("{}:wake", self.queue())
    }

    /// How often jobs were begun, and how often they failed.
    pub fn queue_tries(&self) -> String {
        format!("{}:tries", self.queue())
    }

    /// The dead jobs, by the time of their death.
    pub fn queue_dead(&self) -> String {
        format!("{}:dead_since", self.queue())
    }

    /// The outstanding jobs of one window.
    pub fn queue_window(&self, window: &str) -> String {
        format!("{}:outstanding:{window}", self.queue())
    }

    /// The jobs that were done a period ago.
    pub fn queue_done_before(&self) -> String {
        format!("{}:done_before", self.queue())
    }

    /// Exists while a period of done jobs lasts.
    pub fn queue_period(&self) -> String {
        format!("{}:period", self.queue())
    }

    /// The versions of the time zone database that processes use.
    pub fn tz_versions(&self) -> String {
        format!("{}tz_versions", self.prefix)
    }

    /// The owner of a lease, until it expires.
    pub fn lease(&self, name: &str) -> String {
        format!("{}lease:{{{name}}}", self.prefix)
    }

    /// The last fencing token of a lease.
    pub fn lease_token(&self, name: &str) -> String {
        format!("{}lease:{{{name}}}:token", self.prefix)
    }

    fn public(&self, name: &str) -> String {
        if self.prefix == DEFAULT_PREFIX { name.to_owned() } else { format!("{}{name}", self.prefix) }
    }
}
