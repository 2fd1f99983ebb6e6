//! Whether each connection has a session of the server to itself.
//!
//! A pooler in transaction or statement mode gives one session to several clients in turn. Prepared
//! statements then meet those of others, time limits hold for others, and the lock of the migrations stays on
//! a session that no client owns (PgBouncer, "Features" in its manual; it supports prepared statements since
//! 1.21, but not the others). The check uses simple statements only and changes no session before it has
//! passed, so it leaves nothing behind in such a pool.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _, raw_sql};
use tokio::time::timeout;

use super::super::error::{ConnectionShortage, StoreError};
use super::connecting::Connector;

/// Each round has a new second connection: a pooler may be several processes with a pool each, and one with
/// free sessions may give them in turn.
const ROUNDS: u32 = 3;
const PROCESS: &str = "SELECT pg_backend_pid()::text";
const LIMITS: &str = "SELECT string_agg(DISTINCT setting, ' and ') FROM pg_settings
    WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout')";

/// Fails if the session of `connection` is not its own, or does not keep the time limits, which it has after
/// this call.
pub(super) async fn require(connection: &mut PgConnection, connector: &Connector) -> Result<(), StoreError> {
    for _ in 0..ROUNDS {
        let mut other = connector.connect().await?;
        require_apart(connection, &mut other, connector).await?;
        let _ = timeout(connector.limit(), other.close()).await;
    }
    let set_limits = raw_sql(AssertSqlSafe(connector.set_limits())).execute(&mut *connection);
    timeout(connector.limit(), set_limits).await.map_err(|_| no_answer(connector))??;
    let (limit, set) = (connector.limit_ms().to_string(), answer(connection, LIMITS, connector).await?);
    if set == limit { Ok(()) } else { Err(StoreError::LimitsNotKept { limit, set }) }
}

/// While a transaction is open on the other connection, a session that has just run a statement of this one
/// must be neither in that transaction nor another one at the next statement.
async fn require_apart(
    connection: &mut PgConnection,
    other: &mut PgConnection,
    connector: &Connector,
) -> Result<(), StoreError> {
    let before = answer(connection, PROCESS, connector).await?;
    let begin = timeout(connector.limit(), raw_sql("BEGIN").execute(&mut *other)).await;
    // Statement mode admits no transaction.
    begin.map_err(|_| no_answer(connector))?.map_err(|cause| match StoreError::from(cause) {
        StoreError::Unavailable { cause: sqlx::Error::Database(refusal) } if is_of_pooler(&*refusal) => {
            StoreError::SharedSession
        }
        other => other,
    })?;
    if answer(other, PROCESS, connector).await? == before
        || answer(connection, PROCESS, connector).await? != before
    {
        return Err(StoreError::SharedSession);
    }
    Ok(())
}

/// PgBouncer reports everything of its own by the code of a protocol violation.
fn is_of_pooler(refusal: &dyn sqlx::error::DatabaseError) -> bool {
    refusal.code().is_some_and(|code| code == "08P01")
}

/// The first field of the only row.
async fn answer(
    connection: &mut PgConnection,
    statement: &'static str,
    connector: &Connector,
) -> Result<String, StoreError> {
    use sqlx::Executor as _;
    let row = timeout(connector.limit(), connection.fetch_one(raw_sql(statement))).await;
    Ok(row.map_err(|_| no_answer(connector))??.try_get(0)?)
}

/// A pooler without a free session takes a connection, and lets its first statement wait.
fn no_answer(connector: &Connector) -> StoreError {
    StoreError::NoConnection { shortage: ConnectionShortage::NoAnswer { waited: connector.limit() } }
}
