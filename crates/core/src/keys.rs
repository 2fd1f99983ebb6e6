//! Every Redis key, channel and time-to-live of the engine. Nothing is spelled anywhere else.
//!
//! | key | type | what | written by |
//! |---|---|---|---|
//! | `{prefix}{catalogue}:price:{product_id}` | string | a revision of 20 digits, then a `PriceEntry` as JSON, or nothing for a product that is gone | fenced put only |
//! | `{prefix}{catalogue}:write_check` | string | nothing; lives for a second | a check that Redis takes writes |
//!
//! `{catalogue}` is the identity of the database: another one, with revisions of its own, finds no prices of the
//! first. The prefix is `pricing:v1:` unless configured; the number changes when a stored shape does. Names that other
//! programs use carry no prefix. Every command names one key, so the schema works on Redis Cluster.

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
    pub fn new(prefix: &str, catalogue: &str) -> Self {
        Self { prefix: format!("{prefix}{catalogue}:") }
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
