//! A PostgreSQL database: opening it, and what differs from SQLite.

pub(super) mod facts;
mod prepared;
pub(super) mod rows;

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection as _, query};
use tokio::time::timeout;

pub(super) use self::prepared::PostgresPrices;
use super::StoreSettings;
use super::error::StoreError;
use super::migrations;

/// Time limit of a migration statement, and of the wait for another process that migrates: tables may be
/// large.
const MIGRATION_TIMEOUT: &str = "SET statement_timeout = '30min'";

/// A connection used within this time is trusted without a ping, which would double the cost of a read; one
/// that idled for longer is tested, as the server may have been restarted since.
const TRUSTED_IDLE_TIME: Duration = Duration::from_secs(1);

/// Connects, and migrates the tables.
pub(super) async fn open(url: &str, settings: StoreSettings) -> Result<PgPool, StoreError> {
    let server = PgConnectOptions::from_str(url)
        .map_err(|problem| StoreError::InvalidUrl { reason: problem.to_string() })?;
    let milliseconds = settings.statement_timeout.as_millis();
    let server = server.application_name("pricing").options([
        ("statement_timeout", milliseconds),
        ("idle_in_transaction_session_timeout", milliseconds),
    ]);
    let pool = PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(settings.connect_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, metadata| {
            Box::pin(async move {
                if metadata.idle_for > TRUSTED_IDLE_TIME {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_with(server)
        .await?;
    let mut connection = pool.acquire().await?;
    query(MIGRATION_TIMEOUT).execute(&mut *connection).await?;
    // The migrator takes its own lock, so several processes may migrate concurrently. `run_direct` is used
    // because the compiler cannot prove that a future that awaits `run` is `Send`.
    migrations::of_postgres().run_direct(None, &mut *connection, false).await?;
    query("RESET statement_timeout").execute(&mut *connection).await?;
    drop(connection);
    Ok(pool)
}

/// Connects as the pool does, and closes that connection again.
pub(super) async fn check_afresh(pool: &PgPool) -> Result<(), sqlx::Error> {
    let server = pool.connect_options();
    let connecting = PgConnection::connect_with(&server);
    let mut connection = match timeout(pool.options().get_acquire_timeout(), connecting).await {
        Ok(connected) => connected?,
        Err(_) => return Err(sqlx::Error::PoolTimedOut),
    };
    connection.ping().await?;
    connection.close().await
}
