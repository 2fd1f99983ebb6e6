//! Every Redis key, channel and time-to-live of the engine. No other module spells one out.
//!
//! | key | type | what | written by |
//! |---|---|---|---|
//! | `{prefix}{store}:price:{product_id}` | string | a revision of 20 digits, then a `PriceEntry` as JSON, or nothing for a removed product | `cache/put_and_publish.lua` only |
//! | `{prefix}{store}:mark` | hash | the newest revision that was in the catalogue, its product, and the newest policy version with a digest of its text | `catalogue_mark.lua` only |
//! | `{prefix}{store}:write_check` | string | empty; lives for a second | the check that Redis accepts writes |
//! | `market_events` | channel | a market event with its stream id, or anything a foreign program publishes | `events::publish` |
//! | `market_events:log` | stream | market events, until a while after their jobs were enqueued | `events::publish` |
//! | `market_events:dead` | stream | messages that are no valid market events, with the reason | the listener |
//! | `price_changes` | channel | that prices changed | `cache/put_and_publish.lua` |
//! | `price_changes:log` | stream | the latest price changes | `cache/put_and_publish.lua` |
//! | `{price_changes:log}:bytes` | hash | how much was added to that stream since a mark, and the mark, by which it is trimmed | `cache/put_and_publish.lua` |
//! | `policy_changes` | channel | that a policy or a location factor changed | `notifications` |
//! | `{prefix}processes` | sorted set | the processes that run, by when they last said so | `processes.lua` |
//! | `{prefix}write_check`, in a cluster with `:{number}` | string | empty; lives for a second | the health check |
//! | `{prefix}tz_versions` | sorted set | the versions of the time zone database in use, by when they were last published, of the last minute | `tz_versions.lua` |
//! | `{prefix}lease:{name}`, with `:token` | strings | who holds a lease; its last fencing token | `lease` |
//! | `{core:apalis:queues:list}:{prefix}jobs` and keys with this prefix | several | the queue of the workers | `jobs`, and the queue library |
//! | `{core:apalis:queues:list}:{prefix}jobs:wake` | channel | that there are jobs | `jobs` |
//! | `core:apalis:queues:list` | sorted set | the names of queues | the queue library |
//! | `tasks:{core:apalis:queues:list}:{prefix}jobs:done`, and other endings | channels | what became of a job; none listens | the queue library |
//!
//! `{store}` is the identity of the database: another database, with its own revisions, must not find these
//! prices. The prefix is `pricing:v1:` unless configured; the number changes when a stored form does. Names
//! that other programs use carry the prefix only if it was configured.
//!
//! In a cluster the names are the same, except that those of the two streams `market_events:…` begin with
//! `{core:apalis:queues:list}:`. So an event and its job are on one master, and a replica that has the
//! acknowledgement of an event has its job. Of the other keys each has a slot of its own, except for a lease
//! and its token, the stream of price changes and the count of its bytes, and all keys of the queue: a script
//! is given one price, or keys of one of these groups.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::catalogue::{Catalogue, CurrentCatalogue};

/// The prefix of all keys unless configured otherwise.
pub const DEFAULT_PREFIX: &str = "pricing:v1:";

/// The time to live of a price in Redis. A later read fills it from the database again.
pub const PRICE_TTL: Duration = Duration::from_secs(60 * 60);

/// The key names of the catalogue in use.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: Arc<str>,
    catalogue: CurrentCatalogue,
}

/// The key names of one catalogue.
#[derive(Debug, Clone)]
pub struct CatalogueKeys {
    prefix: Arc<str>,
    /// The catalogue.
    pub catalogue: Arc<Catalogue>,
}

impl Keys {
    /// Keys with this prefix, for prices of this catalogue and those that replace it.
    pub fn new(prefix: &str, catalogue: impl Into<CurrentCatalogue>) -> Self {
        Self { prefix: prefix.into(), catalogue: catalogue.into() }
    }

    /// The keys of the catalogue in use. Work that has begun with them ends with them.
    pub fn current(&self) -> CatalogueKeys {
        self.of(&self.catalogue.get())
    }

    /// The keys of this catalogue.
    pub fn of(&self, catalogue: &Arc<Catalogue>) -> CatalogueKeys {
        CatalogueKeys { prefix: Arc::clone(&self.prefix), catalogue: Arc::clone(catalogue) }
    }

    /// Whether this is still the catalogue in use.
    pub fn is_current(&self, catalogue: &Catalogue) -> bool {
        self.catalogue.is_current(catalogue)
    }
}

impl CatalogueKeys {
    /// A product's price entry.
    pub fn price(&self, product_id: &str) -> String {
        self.named("price:", product_id)
    }

    /// Written to check that Redis accepts writes.
    pub fn write_check(&self) -> String {
        self.named("write_check", "")
    }

    /// The mark of how far the catalogue has come.
    pub fn mark(&self) -> String {
        self.named("mark", "")
    }

    fn named(&self, kind: &str, name: &str) -> String {
        let identity = self.catalogue.identity();
        let mut key = String::with_capacity(self.prefix.len() + identity.len() + 1 + kind.len() + name.len());
        // Writing to a string cannot fail.
        let _ = write!(key, "{}{identity}:{kind}{name}", self.prefix);
        key
    }
}

/// The approximate number of the latest price changes that are kept.
pub const PRICE_CHANGES_KEPT: usize = 5_000;

/// The number of their bytes that are kept: at most about so many, at least half of them. An entry of a
/// hundred changes has about 25 kB.
pub const PRICE_CHANGES_KEPT_BYTES: usize = 32 * 1024 * 1024;

/// The beginning of the queue's keys; the part in braces decides on their slot.
const QUEUE_TAG: &str = "{core:apalis:queues:list}";

/// The consumer group in which listeners share the event log.
pub const LISTENER_GROUP: &str = "listeners";

/// The name of the event stream in traces, regardless of the prefix.
pub const EVENT_LOG: &str = "market_events:log";
/// The name of the channel of price changes in traces, regardless of the prefix.
pub const PRICE_CHANGES: &str = "price_changes";
/// The name of the queue in traces, regardless of the prefix.
pub const JOBS: &str = "jobs";

/// The keys and channels through which services message each other. They do not depend on the store: a
/// publisher of events does not know its identity.
#[derive(Debug, Clone)]
pub struct MessageKeys {
    prefix: String,
    is_cluster: bool,
}

impl MessageKeys {
    /// Names with this prefix. Those that other programs use carry it only if it is not the default, so that
    /// two installations can share a Redis.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), is_cluster: false }
    }

    /// The names in a cluster, or not: in a cluster, the streams of events lie beside the queue.
    pub fn in_cluster(self, is_cluster: bool) -> Self {
        Self { is_cluster, ..self }
    }

    /// The channel on which market events are published.
    pub fn event_channel(&self) -> String {
        self.public("market_events")
    }

    /// The stream of market events.
    pub fn event_log(&self) -> String {
        self.beside_queue(self.public("market_events:log"))
    }

    /// The stream of messages that are no valid market events.
    pub fn dead_events(&self) -> String {
        self.beside_queue(self.public("market_events:dead"))
    }

    /// The channel on which price changes are published.
    pub fn price_changes_channel(&self) -> String {
        self.public("price_changes")
    }

    /// The stream of the latest price changes.
    pub fn price_changes_log(&self) -> String {
        self.public("price_changes:log")
    }

    /// The count of the bytes of that stream, in the same slot of a cluster.
    pub fn price_changes_bytes(&self) -> String {
        let log = self.price_changes_log();
        if log.contains('{') { format!("{log}:bytes") } else { format!("{{{log}}}:bytes") }
    }

    /// The channel of changes of policies and location factors.
    pub fn policy_changes_channel(&self) -> String {
        self.public("policy_changes")
    }

    /// The queue; its keys begin with this. The part in braces is the queue library's own key, so that both
    /// lie in the same slot of a cluster.
    pub fn queue(&self) -> String {
        format!("{QUEUE_TAG}:{}jobs", self.prefix)
    }

    /// The channel that wakes workers.
    pub fn queue_wake(&self) -> String {
        format!("{}:wake", self.queue())
    }

    /// The attempts of each job: how many were started, and how many failed.
    pub fn queue_tries(&self) -> String {
        format!("{}:tries", self.queue())
    }

    /// The dead letters, by the time at which they became one.
    pub fn queue_dead(&self) -> String {
        format!("{}:dead_since", self.queue())
    }

    /// The outstanding jobs of one window.
    pub fn queue_window(&self, window: &str) -> String {
        format!("{}:outstanding:{window}", self.queue())
    }

    /// The jobs that were done in the previous period.
    pub fn queue_done_before(&self) -> String {
        format!("{}:done_before", self.queue())
    }

    /// Exists during a period of done jobs.
    pub fn queue_period(&self) -> String {
        format!("{}:period", self.queue())
    }

    /// The processes that run.
    pub fn processes(&self) -> String {
        format!("{}processes", self.prefix)
    }

    /// Keys that a health check writes: one beside those of prices and events, one beside the queue's.
    pub fn write_checks(&self) -> [String; 2] {
        [format!("{}write_check", self.prefix), format!("{}:write_check", self.queue())]
    }

    /// A key that a health check writes to one of the masters of a cluster: the one that has it.
    pub fn write_check(&self, number: usize) -> String {
        format!("{}write_check:{number}", self.prefix)
    }

    /// The versions of the time zone database in use by processes.
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

    fn beside_queue(&self, name: String) -> String {
        if self.is_cluster { format!("{QUEUE_TAG}:{name}") } else { name }
    }

    fn public(&self, name: &str) -> String {
        if self.prefix == DEFAULT_PREFIX { name.to_owned() } else { format!("{}{name}", self.prefix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::slot_of;

    /// Which keys are given to one script, or have to be on one master.
    #[test]
    fn keys_that_belong_together_have_one_slot_in_a_cluster() {
        for prefix in [DEFAULT_PREFIX, "shop:", "{shop}:"] {
            let keys = MessageKeys::new(prefix).in_cluster(true);
            for group in [
                vec![
                    keys.event_log(),
                    keys.dead_events(),
                    keys.queue(),
                    keys.queue_tries(),
                    keys.queue_wake(),
                ],
                vec![keys.price_changes_log(), keys.price_changes_bytes()],
                vec![keys.lease("run"), keys.lease_token("run")],
            ] {
                let slots: Vec<u16> = group.iter().map(|key| slot_of(key.as_bytes())).collect();
                assert!(slots.windows(2).all(|pair| pair[0] == pair[1]), "{group:?}: {slots:?}");
            }
            assert_eq!(slot_of(keys.queue().as_bytes()), slot_of(b"core:apalis:queues:list"));
        }
    }

    #[test]
    fn names_outside_a_cluster_are_those_of_earlier_versions() {
        let keys = MessageKeys::new(DEFAULT_PREFIX);
        assert_eq!(
            (keys.event_log().as_str(), keys.dead_events().as_str()),
            ("market_events:log", "market_events:dead")
        );
        assert_eq!(MessageKeys::new("shop:").event_log(), "shop:market_events:log");
    }
}
