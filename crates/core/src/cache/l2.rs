//! The cache in Redis, shared by all processes.
//!
//! Redis may be unavailable: a read then counts as a cache miss, and further reads skip Redis briefly, so
//! that requests do not queue behind an unresponsive server.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::future::try_join_all;
use redis::{Cmd, Script};

use super::metrics::CacheMetrics;
use super::{Cached, PutMode};
use crate::catalogue::Catalogue;
use crate::clock::Clock;
use crate::keys::{CatalogueKeys, Keys, PRICE_TTL};
use crate::notifications::Announcement;
use crate::redis::{MeasuredConnection, RedisConnection, RedisError};
use crate::telemetry::registry::Counter;
use crate::telemetry::repeated_warning::RepeatedWarning;
use pricing_domain::facts::price_entry::{EntryFault, PriceEntry};
use pricing_domain::facts::product::ProductId;

/// The entries stored by one call, during which Redis blocks other clients for some milliseconds. A server
/// that syncs every write to disk does so once per call.
const PUT_BATCH: usize = 1_000;

/// The time limit of the check that Redis accepts writes.
const WRITE_CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// How long reads skip Redis after a failure.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(250);

/// The digits of the revision at the head of an entry: those of the largest `u64`.
const REVISION_DIGITS: usize = 20;

/// The largest size of an entry that is read: the names of a product and a category, escaped, are most of it.
const LARGEST_ENTRY_BYTES: usize = 8 * 1024;

/// What `PTTL` answers for a key that does not expire.
const NO_TTL: i64 = -1;

/// The initial buffer size; most entries fit.
const USUAL_ENTRY_BYTES: usize = 384;

/// An entry encoded for Redis.
struct EncodedEntry {
    key: String,
    value: Vec<u8>,
    ttl_ms: u64,
}

#[derive(Clone)]
pub(super) struct L2 {
    redis: RedisConnection,
    keys: Keys,
    put_and_publish: Arc<Script>,
    forget_foreign: Arc<Script>,
    errors: Counter,
    refused: Counter,
    pause: Arc<Pause>,
    clock: Clock,
    warnings: Arc<Warnings>,
}

/// The warnings of all connections of a process.
struct Warnings {
    silent: RepeatedWarning,
    rejected: RepeatedWarning,
    takes_no_writes: RepeatedWarning,
    foreign: RepeatedWarning,
}

/// The reason that a value is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error("it is no price entry")]
    Unreadable,
    #[error("it is the entry of another product")]
    OtherProduct,
    #[error("the database cannot have issued its revision")]
    Revision,
    #[error(transparent)]
    Entry(EntryFault),
}

impl Default for Warnings {
    fn default() -> Self {
        Self {
            silent: RepeatedWarning::new("redis does not answer reads; they continue without it"),
            rejected: RepeatedWarning::new("redis rejects commands; reads continue without it"),
            takes_no_writes: RepeatedWarning::new("redis takes no writes; writes are refused"),
            foreign: RepeatedWarning::new(
                "redis holds a value that is no price of this catalogue; it is passed over and deleted",
            ),
        }
    }
}

impl L2 {
    pub(super) fn new(redis: &RedisConnection, keys: Keys, metrics: &CacheMetrics) -> Self {
        let (pause, clock, warnings) = (Arc::default(), Clock::default(), Arc::default());
        Self {
            redis: redis.clone(),
            keys,
            put_and_publish: Arc::new(Script::new(include_str!("put_and_publish.lua"))),
            forget_foreign: Arc::new(Script::new(include_str!("forget_foreign.lua"))),
            errors: metrics.l2_errors.clone(),
            refused: metrics.l2_refused.clone(),
            pause,
            clock,
            warnings,
        }
    }

    /// The same cache, with entries that expire by this clock.
    pub(super) fn timed_by(&self, clock: &Clock) -> Self {
        Self { clock: clock.clone(), ..self.clone() }
    }

    /// The same cache with its own connection for reads.
    pub(super) fn with_own_reads(&self) -> Self {
        // Failures are tracked per connection, too: one slow thread does not make others skip Redis.
        Self { redis: self.redis.with_own_reads(), pause: Arc::default(), ..self.clone() }
    }

    /// The entry of the product; `None` on a cache miss, if Redis does not answer, or if the value cannot be
    /// an entry of this catalogue, which is then deleted, so that a fill can replace it.
    pub(super) async fn get(&self, keys: &CatalogueKeys, product_id: &ProductId) -> Option<Cached> {
        if self.pause.is_on() {
            return None;
        }
        let key = keys.price(product_id.as_str());
        let mut read = redis::pipe();
        read.get(&key).pttl(&key);
        let found: redis::RedisResult<(Option<Vec<u8>>, i64)> =
            read.query_async(&mut self.redis.reads()).await;
        let (stored, ttl_ms) = match found {
            Ok((stored, ttl_ms)) => {
                self.warnings.silent.succeeded();
                self.warnings.rejected.succeeded();
                (stored?, ttl_ms)
            }
            Err(error) if error.code() == Some("WRONGTYPE") => {
                self.forget(&key, &[], Refused::Unreadable).await;
                return None;
            }
            Err(error) => {
                self.failed(&error);
                return None;
            }
        };
        match checked(&stored, product_id, &keys.catalogue) {
            Ok(cached) => {
                if ttl_ms == NO_TTL {
                    self.expire(&key).await;
                }
                Some(cached)
            }
            Err(refused) => {
                self.forget(&key, &stored, refused).await;
                None
            }
        }
    }

    /// Deletes a value that is not served, if it is still there.
    async fn forget(&self, key: &str, stored: &[u8], refused: Refused) {
        self.refused.increment(1);
        self.warnings.foreign.failed(&format_args!("{key}: {refused}"));
        let head = stored.get(..REVISION_DIGITS).unwrap_or(stored);
        let mut forget = self.forget_foreign.key(key);
        if let Err(error) = forget.arg(head).invoke_async::<()>(&mut self.redis.reads()).await {
            self.failed(&error);
        }
    }

    /// Lets an entry expire that something else has stored for ever.
    async fn expire(&self, key: &str) {
        let mut expire = redis::cmd("PEXPIRE");
        expire.arg(key).arg(PRICE_TTL.as_millis().to_string());
        if let Err(error) = expire.query_async::<()>(&mut self.redis.reads()).await {
            self.failed(&error);
        }
    }

    /// Stores the result of a read unless Redis holds the same or a newer revision, or does not answer in
    /// time.
    pub(super) async fn offer(&self, keys: &CatalogueKeys, product_id: &ProductId, cached: &Cached) {
        if self.pause.is_on() {
            return;
        }
        let product = [(product_id.clone(), cached.clone())];
        let put = self.put_batch(self.redis.reads(), keys, &product, PutMode::Insert, None).await;
        if let Err(error) = put {
            self.failed(&error);
        }
    }

    /// Stores each entry unless Redis holds the same or a newer revision, and publishes the notification of
    /// all with the last batch, or in a cluster after them. After an error, some entries may be stored, and
    /// the notification of all may have been published.
    pub(super) async fn put_all(
        &self,
        keys: &CatalogueKeys,
        products: &[(ProductId, Cached)],
        mode: PutMode,
        announcement: Option<&Announcement>,
    ) -> redis::RedisResult<()> {
        let there: Vec<(ProductId, Cached)>;
        let products = match mode {
            PutMode::Insert => products,
            // Most products are not cached, or are not older, and need not be sent.
            PutMode::Replace => {
                let ids = products.iter().map(|(product_id, cached)| (product_id, cached.revision()));
                let is_older = self.holds_older(keys, ids).await?;
                let older = products.iter().zip(is_older).filter(|(_, is_older)| *is_older);
                there = older.map(|(product, _)| product.clone()).collect();
                &there
            }
        };
        if self.redis.is_cluster() {
            return self.put_all_in_cluster(keys, products, mode, announcement).await;
        }
        let mut batches = products.chunks(PUT_BATCH);
        let last = batches.next_back().unwrap_or_default();
        // The batches are sent without waiting for one another.
        let before =
            batches.map(async |batch| self.put_batch(self.redis.writes(), keys, batch, mode, None).await);
        let (before, last) = tokio::join!(
            biased;
            try_join_all(before),
            self.put_batch(self.redis.writes(), keys, last, mode, announcement)
        );
        before.and(last)
    }

    /// Returns for each product whether Redis holds an older revision than this one, or a foreign value or
    /// revision.
    pub(super) async fn holds_older(
        &self,
        keys: &CatalogueKeys,
        products: impl IntoIterator<Item = (&ProductId, i64)>,
    ) -> redis::RedisResult<Vec<bool>> {
        let mut pipeline = redis::pipe();
        // A value of another type is an error of its own command only.
        pipeline.ignore_errors();
        let mut revisions = Vec::new();
        for (product_id, revision) in products {
            pipeline.getrange(keys.price(product_id.as_str()), 0, REVISION_DIGITS.cast_signed() - 1);
            revisions.push(revision);
        }
        if revisions.is_empty() {
            return Ok(Vec::new());
        }
        let heads: Vec<redis::RedisResult<Vec<u8>>> = pipeline.query_async(&mut self.redis.writes()).await?;
        let largest = keys.catalogue.largest_possible_revision();
        let is_older = heads.into_iter().zip(revisions).map(|(head, revision)| match head {
            Ok(head) if head.is_empty() => false,
            Ok(head) => revision_of(&head).is_none_or(|held| held < revision || held > largest),
            Err(_) => true,
        });
        Ok(is_older.collect())
    }

    /// Returns the entries of these products, in their order; `None` for one that is absent or no entry.
    pub(super) async fn held(
        &self,
        keys: &CatalogueKeys,
        ids: &[&ProductId],
    ) -> redis::RedisResult<Vec<Option<Cached>>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        // A value of another type is an error of its own command only.
        pipeline.ignore_errors();
        for id in ids {
            pipeline.get(keys.price(id.as_str()));
        }
        let stored: Vec<redis::RedisResult<Option<Vec<u8>>>> =
            pipeline.query_async(&mut self.redis.writes()).await?;
        Ok(stored.into_iter().map(|stored| decode(&stored.ok()??)).collect())
    }

    async fn put_batch(
        &self,
        mut connection: MeasuredConnection,
        keys: &CatalogueKeys,
        batch: &[(ProductId, Cached)],
        mode: PutMode,
        announcement: Option<&Announcement>,
    ) -> redis::RedisResult<()> {
        let now = self.clock.now();
        // An entry that has expired meanwhile is no longer a valid price.
        let entries: Vec<EncodedEntry> =
            batch.iter().filter_map(|(product_id, cached)| encoded(keys, product_id, cached, now)).collect();
        if entries.is_empty() && announcement.is_none() {
            return Ok(());
        }
        let call = self.call(keys, &entries, mode, announcement);
        self.send(&mut connection, &call).await
    }

    /// The same in a cluster, where each entry has a slot of its own: one call for each, and one for the
    /// notification.
    async fn put_all_in_cluster(
        &self,
        keys: &CatalogueKeys,
        products: &[(ProductId, Cached)],
        mode: PutMode,
        announcement: Option<&Announcement>,
    ) -> redis::RedisResult<()> {
        let batches = products.chunks(PUT_BATCH);
        try_join_all(batches.map(async |batch| self.put_each(keys, batch, mode).await)).await?;
        let Some(announcement) = announcement else { return Ok(()) };
        self.send(&mut self.redis.writes(), &self.call(keys, &[], mode, Some(announcement))).await
    }

    async fn put_each(
        &self,
        keys: &CatalogueKeys,
        batch: &[(ProductId, Cached)],
        mode: PutMode,
    ) -> redis::RedisResult<()> {
        let (now, mut connection) = (self.clock.now(), self.redis.writes());
        let mut calls = redis::pipe();
        calls.ignore_errors();
        for entry in batch.iter().filter_map(|(product_id, cached)| encoded(keys, product_id, cached, now)) {
            calls.add_command(self.call(keys, &[entry], mode, None));
        }
        if calls.is_empty() {
            return Ok(());
        }
        let mut answers: Vec<redis::RedisResult<u64>> = calls.query_async(&mut connection).await?;
        let is_missing =
            |answer: &redis::RedisResult<u64>| answer.as_ref().is_err_and(RedisError::is_missing_script);
        if answers.iter().any(is_missing) {
            self.put_and_publish.load_async(&mut connection).await?;
            answers = calls.query_async(&mut connection).await?;
        }
        answers.into_iter().try_for_each(|answer| answer.map(|_| ()))
    }

    /// Builds a call of the script. (`Script::key` and `arg` would copy everything twice.)
    fn call(
        &self,
        keys_of: &CatalogueKeys,
        entries: &[EncodedEntry],
        mode: PutMode,
        announcement: Option<&Announcement>,
    ) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        let keys = entries.len() + announcement.map_or(0, |announcement| announcement.keys.len());
        call.arg(self.put_and_publish.get_hash()).arg(keys);
        for entry in entries {
            call.arg(&entry.key);
        }
        if let Some(announcement) = announcement {
            call.arg(&announcement.keys);
        }
        call.arg(match mode {
            PutMode::Insert => "insert",
            PutMode::Replace => "replace",
        });
        call.arg(entries.len());
        call.arg(format!("{:0REVISION_DIGITS$}", keys_of.catalogue.largest_possible_revision()));
        for entry in entries {
            call.arg(&entry.value).arg(entry.ttl_ms);
        }
        if let Some(announcement) = announcement {
            call.arg(&announcement.arguments);
        }
        call
    }

    /// Sends a call of the script.
    async fn send(&self, connection: &mut MeasuredConnection, call: &Cmd) -> redis::RedisResult<()> {
        match call.query_async(connection).await {
            Err(error) if RedisError::is_missing_script(&error) => {
                self.put_and_publish.load_async(connection).await?;
                call.query_async(connection).await
            }
            done => done,
        }
    }

    /// Checks that Redis accepts writes: a full server, or one without its replicas, answers reads but
    /// rejects writes.
    pub(super) async fn check_writable(&self) -> Result<(), RedisError> {
        let mut connection = self.redis.writes();
        let mut write = redis::cmd("SET");
        write.arg(self.keys.current().write_check()).arg("").arg("PX").arg(1_000);
        let twice = async {
            // A connection that breaks under the first command is replaced for the second.
            match write.query_async::<()>(&mut connection).await {
                Err(error) if error.is_io_error() => write.query_async(&mut connection).await,
                other => other,
            }
        };
        let silence = || redis::RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        let answer = tokio::time::timeout(WRITE_CHECK_TIMEOUT, twice).await;
        match answer.unwrap_or_else(|_| Err(silence())) {
            Ok(()) => {
                self.warnings.takes_no_writes.succeeded();
                Ok(())
            }
            Err(error) => {
                self.warnings.takes_no_writes.failed(&error);
                Err(error.into())
            }
        }
    }

    fn failed(&self, error: &redis::RedisError) {
        self.errors.increment(1);
        if !(error.is_io_error() || error.is_timeout()) {
            self.warnings.rejected.failed(error);
            return;
        }
        self.pause.start();
        self.warnings.silent.failed(error);
    }
}

fn encoded(
    keys: &CatalogueKeys,
    product_id: &ProductId,
    cached: &Cached,
    now: DateTime<Utc>,
) -> Option<EncodedEntry> {
    let (value, ttl_ms) = encode(cached, now)?;
    Some(EncodedEntry { key: keys.price(product_id.as_str()), value, ttl_ms })
}

/// The revision at the head of a stored entry; `None` if it is no entry.
fn revision_of(stored: &[u8]) -> Option<i64> {
    std::str::from_utf8(stored.get(..REVISION_DIGITS)?).ok()?.parse().ok()
}

/// Encodes an entry and returns its time to live in milliseconds. `None` if it has expired.
fn encode(cached: &Cached, now: DateTime<Utc>) -> Option<(Vec<u8>, u64)> {
    let mut value = Vec::with_capacity(USUAL_ENTRY_BYTES);
    write!(value, "{:0width$}", cached.revision(), width = REVISION_DIGITS).ok()?;
    let ttl = match cached {
        Cached::Priced(entry) => {
            entry.append_json(&mut value).ok()?;
            time_to_live(entry, now)?
        }
        Cached::Gone { .. } => PRICE_TTL,
    };
    Some((value, u64::try_from(ttl.as_millis()).ok()?))
}

/// Returns the time to live; `None` for an expired entry.
fn time_to_live(entry: &PriceEntry, now: DateTime<Utc>) -> Option<Duration> {
    let Some(valid_until) = entry.valid_until else {
        return Some(PRICE_TTL);
    };
    let left = (valid_until - now).to_std().ok()?;
    (left >= Duration::from_millis(1)).then(|| left.min(PRICE_TTL))
}

/// The entry of this product that a value holds, if it can be one of this catalogue.
fn checked(stored: &[u8], product_id: &ProductId, catalogue: &Catalogue) -> Result<Cached, Refused> {
    let is_small = stored.len() <= LARGEST_ENTRY_BYTES;
    let cached = is_small.then(|| decode(stored)).flatten().ok_or(Refused::Unreadable)?;
    if !catalogue.can_have_issued(cached.revision()) {
        return Err(Refused::Revision);
    }
    if let Cached::Priced(entry) = &cached {
        if entry.product_id != *product_id {
            return Err(Refused::OtherProduct);
        }
        if let Some(fault) = entry.fault() {
            return Err(Refused::Entry(fault));
        }
    }
    Ok(cached)
}

fn decode(stored: &[u8]) -> Option<Cached> {
    let (revision, body) = stored.split_at_checked(REVISION_DIGITS)?;
    let revision = std::str::from_utf8(revision).ok()?.parse().ok()?;
    if body.is_empty() {
        return Some(Cached::Gone { revision });
    }
    let entry: PriceEntry = serde_json::from_slice(body).ok()?;
    (entry.revision == revision).then(|| Cached::Priced(Arc::new(entry)))
}

/// A pause during which reads skip Redis.
struct Pause {
    origin: Instant,
    /// Milliseconds after `origin`.
    until_ms: AtomicU64,
}

impl Default for Pause {
    fn default() -> Self {
        Self { origin: Instant::now(), until_ms: AtomicU64::new(0) }
    }
}

impl Pause {
    fn is_on(&self) -> bool {
        self.now_ms() < self.until_ms.load(Ordering::Relaxed)
    }

    fn start(&self) {
        let pause_ms = u64::try_from(PAUSE_AFTER_FAILURE.as_millis()).unwrap_or(u64::MAX);
        self.until_ms.store(self.now_ms().saturating_add(pause_ms), Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
