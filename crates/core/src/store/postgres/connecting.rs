//! Connections to the server, their time limits, and the reason why there is none.
//!
//! The limits are set by a statement after connecting, and no startup parameter is sent that PgBouncer
//! refuses by default (`options`, `extra_float_digits`), so it needs no setting for this program.

use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, raw_sql};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::super::StoreSettings;
use super::super::connection::ReadOnlyRefusals;
use super::super::error::{ConnectionShortage, StoreError};
use crate::backoff::Backoff;

/// A connection used within this time is trusted without a ping, which would double the cost of a read; one
/// that idled for longer is tested, as the server may have been restarted since.
const TRUSTED_IDLE_TIME: Duration = Duration::from_secs(1);
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// The longest wait for the reason of a failure that is known already.
const REASON_TIMEOUT: Duration = Duration::from_millis(500);
/// A reason holds for this long: a server without free connections is not asked for one at every failure.
const REASON_VALIDITY: Duration = Duration::from_secs(5);

/// Opens connections to one server.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    options: Arc<PgConnectOptions>,
    settings: StoreSettings,
    last_reason: Arc<Mutex<Option<(Instant, ConnectionShortage)>>>,
}

impl Connector {
    pub(super) fn new(url: &str, settings: StoreSettings) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|problem| StoreError::InvalidUrl { reason: problem.to_string() })?;
        // PostgreSQL writes a float8 exactly by default since version 12.
        let options = options.application_name("pricing").extra_float_digits(None);
        Ok(Self { options: Arc::new(options), settings, last_reason: Arc::default() })
    }

    /// The time limit of each step until the server is in use.
    pub(super) fn limit(&self) -> Duration {
        self.settings.connect_timeout
    }

    /// Opens a connection; a transient failure is repeated until the limit. Its error is the server's own.
    pub(super) async fn connect(&self) -> Result<PgConnection, StoreError> {
        let deadline = Instant::now() + self.limit();
        let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
        let mut last = StoreError::TimedOut { limit: self.limit() };
        while let Ok(connected) = timeout_at(deadline, self.options.connect()).await {
            match connected.map_err(StoreError::from) {
                Ok(connection) => return Ok(connection),
                Err(error) if error.is_transient() => last = error,
                Err(error) => return Err(error),
            }
            sleep(backoff.pause()).await;
        }
        Err(last)
    }

    /// The statements that limit the time of a session's statements and of its idle transactions.
    pub(super) fn set_limits(&self) -> String {
        let milliseconds = self.limit_ms();
        format!(
            "SET statement_timeout = {milliseconds}; SET idle_in_transaction_session_timeout = {milliseconds}"
        )
    }

    /// The limit that [`set_limits`](Self::set_limits) sets.
    pub(super) fn limit_ms(&self) -> u128 {
        self.settings.statement_timeout.as_millis()
    }

    /// Finds out why the pool gave no connection in time, by opening one itself. Logs the reason.
    pub(super) async fn reason_of_no_connection(&self) -> StoreError {
        let last = self.last_reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, shortage)) = last.filter(|(found, _)| found.elapsed() < REASON_VALIDITY) {
            return StoreError::NoConnection { shortage };
        }
        let shortage = match timeout(REASON_TIMEOUT, self.try_connection()).await {
            Ok(Ok(())) => ConnectionShortage::AllInUse { allowed: self.settings.max_connections },
            Ok(Err(StoreError::NoConnection { shortage })) => shortage,
            Ok(Err(other)) => return other,
            Err(_) => ConnectionShortage::NoAnswer { waited: self.limit() + REASON_TIMEOUT },
        };
        tracing::warn!(reason = %shortage, "the database gives no connection");
        let reason = Some((Instant::now(), shortage.clone()));
        *self.last_reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
        StoreError::NoConnection { shortage }
    }

    async fn try_connection(&self) -> Result<(), StoreError> {
        let mut connection = self.options.connect().await?;
        raw_sql("SELECT 1").execute(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }
}

/// The pool, which opens connections as they are needed.
pub(super) fn pool(connector: &Connector, refusals: ReadOnlyRefusals) -> PgPool {
    let set_limits: Arc<str> = connector.set_limits().into();
    PgPoolOptions::new()
        .max_connections(connector.settings.max_connections)
        .acquire_timeout(connector.settings.connect_timeout)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let set_limits = AssertSqlSafe(set_limits.to_string());
            Box::pin(async move { raw_sql(set_limits).execute(connection).await.map(|_| ()) })
        })
        .before_acquire(move |connection, metadata| {
            let is_outdated = refusals.came_after_opening(metadata.age);
            Box::pin(async move {
                if is_outdated {
                    return Ok(false);
                }
                if metadata.idle_for > TRUSTED_IDLE_TIME {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with((*connector.options).clone())
}
