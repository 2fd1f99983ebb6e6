//! Leases: locks that end by themselves.
//!
//! Here: a lock in Redis with an owner, an end, and a fencing token that grows with every owner. Never here:
//! what is done under it. A lease makes it unlikely that two do the same work; that the work of a former
//! owner has no effect is up to the store that the work ends in, which compares tokens (as Martin Kleppmann
//! lays out in "How to do distributed locking", 2016). `model_tests.rs` tries both together, on clocks that
//! run differently and processes that are paused.

use std::sync::Arc;
use std::time::Duration;

use redis::Script;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::keys::MessageKeys;
use crate::redis::{RedisConnection, RedisError};

/// A lease is renewed when this part of it is over.
const RENEWALS_PER_TTL: u32 = 3;

/// A lease that this process holds. Dropped, it is not renewed any more and expires.
#[derive(Debug)]
pub struct Lease {
    hold: Hold,
    token: i64,
    lost: CancellationToken,
    renewing: tokio::task::JoinHandle<()>,
}

/// What is needed to keep it.
#[derive(Debug, Clone)]
struct Hold {
    redis: RedisConnection,
    key: String,
    /// What its key holds as long as it is this owner's.
    value: String,
    ttl: Duration,
    renew: Arc<Script>,
}

impl Lease {
    /// Takes the lease unless somebody holds it. Its token is larger than `token_after`, so that a Redis that
    /// has lost its data gives out no token a second time.
    pub async fn acquire(
        redis: &RedisConnection,
        keys: &MessageKeys,
        name: &'static str,
        owner: &str,
        ttl: Duration,
        token_after: i64,
    ) -> Result<Option<Self>, RedisError> {
        let key = keys.lease(name);
        let script = Script::new(include_str!("acquire.lua"));
        let mut take = script.key(&key);
        take.key(keys.lease_token(name)).arg(owner).arg(milliseconds(ttl)).arg(token_after);
        // Counted from before the request: Redis counts from when it came.
        let sent_at = Instant::now();
        let token: i64 = take.invoke_async(&mut redis.writes()).await?;
        if token == 0 {
            return Ok(None);
        }
        let renew = Arc::new(Script::new(include_str!("renew.lua")));
        let hold = Hold { redis: redis.clone(), key, value: format!("{owner} {token}"), ttl, renew };
        let lost = CancellationToken::new();
        let valid_until = valid_until(sent_at, ttl);
        if Instant::now() >= valid_until {
            // The answer took so long that it may be somebody else's by now.
            lost.cancel();
        }
        let renewing = tokio::spawn(keep(hold.clone(), valid_until, lost.clone()));
        Ok(Some(Self { hold, token, lost, renewing }))
    }

    /// The token of the last owner of a lease that nobody holds now; 0 if there was none. `None` if it is
    /// held.
    pub async fn last_token_if_free(
        redis: &RedisConnection,
        keys: &MessageKeys,
        name: &'static str,
    ) -> Result<Option<i64>, RedisError> {
        let mut look = redis::pipe();
        look.exists(keys.lease(name)).get(keys.lease_token(name));
        let (held, token): (bool, Option<i64>) = look.query_async(&mut redis.writes()).await?;
        Ok((!held).then_some(token.unwrap_or(0)))
    }

    /// The fencing token: larger than that of any owner before.
    pub fn token(&self) -> i64 {
        self.token
    }

    /// Cancelled as soon as the lease is not surely held any more.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Gives it up; somebody else's is left alone.
    pub async fn release(self) -> Result<(), RedisError> {
        self.renewing.abort();
        let script = Script::new(include_str!("release.lua"));
        let mut release = script.key(&self.hold.key);
        release.arg(&self.hold.value);
        Ok(release.invoke_async(&mut self.hold.redis.writes()).await?)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
        self.lost.cancel();
    }
}

/// Renews until that fails for too long.
async fn keep(hold: Hold, mut valid_until: Instant, lost: CancellationToken) {
    loop {
        tokio::time::sleep(renewal_pause(Instant::now(), valid_until, hold.ttl)).await;
        let sent_at = Instant::now();
        if sent_at >= valid_until {
            break;
        }
        let mut renew = hold.renew.key(&hold.key);
        renew.arg(&hold.value).arg(milliseconds(hold.ttl));
        let mut connection = hold.redis.writes();
        match tokio::time::timeout_at(valid_until, renew.invoke_async::<i64>(&mut connection)).await {
            Ok(Ok(1)) => valid_until = self::valid_until(sent_at, hold.ttl),
            Ok(Ok(_)) => break,
            // The next one may get through.
            Ok(Err(_)) => {}
            Err(_) => break,
        }
    }
    lost.cancel();
}

/// Until when a lease that was asked for, or renewed, at this instant may be relied on. Clocks do not run
/// equally fast; a tenth is left for that.
fn valid_until(sent_at: Instant, ttl: Duration) -> Instant {
    sent_at + ttl - ttl / 10
}

fn renewal_pause(now: Instant, valid_until: Instant, ttl: Duration) -> Duration {
    (ttl / RENEWALS_PER_TTL).min(valid_until.saturating_duration_since(now) / 2).max(Duration::from_millis(1))
}

fn milliseconds(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod model_tests;
