//! Writes that replicas must have before they count as done.
//!
//! Redis replicates asynchronously, and a fail-over, also one by command, promotes a replica without what
//! it has not read yet: `min-replicas-to-write` counts connected replicas, not what they have. `WAIT` does:
//! it answers with the number of replicas that have all writes of its connection
//! (<https://redis.io/docs/latest/commands/wait/>).

use redis::{ErrorKind, FromRedisValue, RedisResult, ScriptInvocation, ServerErrorKind};

use super::{RedisConnection, RedisError};

/// How long a write waits for its replicas, in milliseconds.
const WAIT_MS: u64 = 1_000;

impl RedisConnection {
    /// The same connections, whose [`write`](Self::write) waits until so many replicas have it. Their writes
    /// are sent on a connection of their own, as `WAIT` delays what comes after it. Refused for a cluster:
    /// `WAIT` has no key, so it may reach another server than the write.
    pub fn replicated(&self, replicas: u8) -> Result<Self, RedisError> {
        match replicas {
            0 => Ok(self.clone()),
            _ if self.is_cluster() => Err(RedisError::Unusable(
                "a Redis Cluster is not waited for: leave PRICING_REDIS_REPLICAS unset".to_owned(),
            )),
            _ => Ok(Self { replicas, ..self.with_own_writes() }),
        }
    }

    /// Runs a script that writes. Fails if too few replicas have it in time: it may then be lost in a
    /// fail-over, and has to be repeated.
    pub(crate) async fn write<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> RedisResult<T> {
        let mut connection = self.writes();
        if self.replicas == 0 {
            return script.invoke_async(&mut connection).await;
        }
        let mut calls = redis::pipe();
        // In one pipeline, so that both go to the same server.
        calls.invoke_script(script).cmd("WAIT").arg(self.replicas).arg(WAIT_MS);
        let (answer, replicas): (T, u8) = match calls.query_async(&mut connection).await {
            Err(error) if RedisError::is_missing_script(&error) => {
                script.load_async(&mut connection).await?;
                calls.query_async(&mut connection).await?
            }
            answers => answers?,
        };
        if replicas < self.replicas {
            let reason = format!("{replicas} of {} replicas have the write", self.replicas);
            return Err((ErrorKind::Server(ServerErrorKind::ResponseError), "NOREPLICAS", reason).into());
        }
        Ok(answer)
    }
}
