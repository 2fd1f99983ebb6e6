//! Leases: locks that expire.
//!
//! Here: a lock in Redis with an owner, an expiry, and a fencing token that grows with every owner. Never
//! here: the work done under it. A lease makes it unlikely that two processes do the same work; the store
//! compares tokens, so that the writes of a former owner have no effect (see Martin Kleppmann, "How to do
//! distributed locking", 2016). `model_tests.rs` tests both together, on clocks that run at different rates
//! and processes that are paused.

use std::sync::Arc;
use std::time::Duration;

use redis::Script;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::keys::MessageKeys;
use crate::redis::{RedisConnection, RedisError};

/// A lease is renewed after this fraction of its time to live.
const RENEWALS_PER_TTL: u32 = 3;

/// A lease that this process holds. When dropped, it is no longer renewed and expires.
#[derive(Debug)]
pub struct Lease {
    hold: Hold,
    token: i64,
    lost: CancellationToken,
    renewing: tokio::task::JoinHandle<()>,
}

/// The state that renewal and release need.
#[derive(Debug, Clone)]
struct Hold {
    redis: RedisConnection,
    key: String,
    /// The value of its key while this owner holds it.
    value: String,
    ttl: Duration,
    renew: Arc<Script>,
}

impl Lease {
    /// Acquires the lease unless it is held. Its token is larger than `token_after`, so that no token is
    /// issued twice even if Redis has lost its data.
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
        // Measured from before the request: Redis starts the time to live when the request arrives.
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
            // The response took so long that the lease may have expired and have another owner by now.
            lost.cancel();
        }
        let renewing = tokio::spawn(keep(hold.clone(), valid_until, lost.clone()));
        Ok(Some(Self { hold, token, lost, renewing }))
    }

    /// The token of the last owner if the lease is free; 0 if there was none. `None` if the lease is held.
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

    /// The fencing token: larger than that of any earlier owner.
    pub fn token(&self) -> i64 {
        self.token
    }

    /// Cancelled as soon as the lease may have expired.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Releases the lease; a lease that another owner holds by now is left alone.
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

/// Renews the lease until no renewal has succeeded for too long.
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
            // The next renewal may succeed.
            Ok(Err(_)) => {}
            Err(_) => break,
        }
    }
    lost.cancel();
}

/// Returns until when a lease that was requested or renewed at this instant may be relied on. Clocks run at
/// slightly different rates; a tenth of the time to live is the margin for that.
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
