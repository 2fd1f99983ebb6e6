//! A PostgreSQL database: opening it, and what differs from SQLite.
//!
//! `connecting` opens connections, and says why there is none; `own_session` refuses a pooler that shares
//! sessions; `migrating` takes the lock of the migrations.

mod connecting;
pub(super) mod facts;
mod migrating;
mod own_session;
mod prepared;
pub(super) mod rows;

use sqlx::Connection as _;
use sqlx::postgres::PgPool;
use tokio::time::timeout;

use self::connecting::{Connector, pool};
pub(super) use self::prepared::PostgresPrices;
use super::StoreSettings;
use super::connection::ReadOnlyRefusals;
use super::error::StoreError;

/// The connections to a PostgreSQL server.
#[derive(Debug, Clone)]
pub(super) struct PostgresServer {
    pub(super) pool: PgPool,
    /// Connections that are older than the last refusal are replaced.
    pub(super) refusals: ReadOnlyRefusals,
    connector: Connector,
}

impl PostgresServer {
    /// Connects, refuses a pooler that shares sessions, and migrates the tables.
    pub(super) async fn open(url: &str, settings: StoreSettings) -> Result<Self, StoreError> {
        let connector = Connector::new(url, settings)?;
        let mut connection = connector.connect().await?;
        own_session::require(&mut connection, &connector).await?;
        migrating::migrate(&mut connection).await?;
        // If the farewell is not sent, the server notices that the socket is closed.
        let _ = timeout(settings.connect_timeout, connection.close()).await;
        let refusals = ReadOnlyRefusals::default();
        Ok(Self { pool: pool(&connector, refusals.clone()), refusals, connector })
    }

    /// Replaces the pool's error of an expired wait by its reason.
    pub(super) async fn explain(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Unavailable { cause: sqlx::Error::PoolTimedOut } => {
                self.connector.reason_of_no_connection().await
            }
            other => other,
        }
    }

    /// Whether all connections of the pool are in use.
    pub(super) fn is_busy(&self) -> bool {
        self.pool.num_idle() == 0 && self.pool.size() >= self.pool.options().get_max_connections()
    }

    /// Connects as the pool does, and closes that connection again.
    pub(super) async fn check_afresh(&self) -> Result<(), StoreError> {
        let mut connection = self.connector.connect().await?;
        connection.ping().await?;
        Ok(connection.close().await?)
    }
}
