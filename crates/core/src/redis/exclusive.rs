//! Connections for commands that block: each has one user at a time.
//!
//! Those to a server come from a pool, which tests a connection before it is used again. Those to the master
//! that Sentinels name, or to that of a key's slot in a cluster, are opened for each user, as the master may
//! be another one by then. A connection is used until an error; the next user checks whether it still leads
//! to a master.

use std::time::Duration;

use deadpool_redis::{Connection, Manager, Pool, Runtime};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use super::opening::{self, Expected, OpenError};
use super::transport::{self, OpenConnection};
use super::{RedisError, WRITE_CONNECTION_TIMEOUT, parse, slot_of};
use crate::redis_address::{Address, Place, Server, without_password};

/// Connections of one process; another one may be opened while the former is being closed.
const MAX_CONNECTIONS: usize = 2;

/// Where exclusive connections come from.
pub(crate) enum ExclusiveConnections {
    /// From a pool of connections to one server.
    OfServer { place: Place, pool: Pool },
    /// From the master that Sentinels name, or that of a slot of a cluster.
    OfMaster { address: Box<Address>, config: AsyncConnectionConfig },
}

/// A connection that is not shared.
pub(crate) enum ExclusiveConnection {
    Pooled(Connection),
    Opened(OpenConnection),
}

impl ExclusiveConnections {
    /// Connections to this address for commands with this key, whose answers may take this long; none is
    /// opened yet.
    pub(crate) fn new(url: &str, key: &str, answer: Duration) -> Result<Self, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(WRITE_CONNECTION_TIMEOUT))
            .set_response_timeout(Some(answer));
        let unusable = |error: String| RedisError::Unusable(format!("{}: {error}", without_password(url)));
        match parse(url)?.as_ref() {
            address @ (Address::Sentinels(_) | Address::Node(_)) => {
                Ok(Self::OfMaster { address: Box::new(address.clone()), config })
            }
            Address::Cluster(cluster) => {
                let address = Address::Cluster(cluster.at(slot_of(key.as_bytes())));
                Ok(Self::OfMaster { address: Box::new(address), config })
            }
            Address::Server(server) => {
                let info = connection_info(server)?;
                let manager = Manager::new_with_config(info, config)?;
                let pool = Pool::builder(manager)
                    .max_size(MAX_CONNECTIONS)
                    .wait_timeout(Some(WRITE_CONNECTION_TIMEOUT))
                    .create_timeout(Some(WRITE_CONNECTION_TIMEOUT))
                    .recycle_timeout(Some(WRITE_CONNECTION_TIMEOUT))
                    .runtime(Runtime::Tokio1)
                    .build()
                    .map_err(|error| unusable(error.to_string()))?;
                Ok(Self::OfServer { place: server.place.clone(), pool })
            }
        }
    }

    /// A connection to the master.
    pub(crate) async fn get(&self) -> Result<ExclusiveConnection, RedisError> {
        let (place, pool) = match self {
            Self::OfMaster { address, config } => {
                let open = opening::open(address, config, WRITE_CONNECTION_TIMEOUT).await;
                return open.map(ExclusiveConnection::Opened).map_err(refused);
            }
            Self::OfServer { place, pool } => (place, pool),
        };
        let pooled = pool.get().await;
        let mut connection =
            pooled.map_err(|error| RedisError::Command(std::io::Error::other(error).into()))?;
        let role = opening::role(&mut connection).await;
        let problem = match role {
            Ok(role) if Expected::Server.allows(role) => return Ok(ExclusiveConnection::Pooled(connection)),
            Ok(role) => opening::problem(role, Expected::Server, place),
            Err(error) => error.into(),
        };
        // Out of the pool, so that the next one is opened.
        drop(Connection::take(connection));
        Err(refused(problem))
    }
}

impl ExclusiveConnection {
    /// The connection.
    pub(crate) fn get(&self) -> MultiplexedConnection {
        match self {
            Self::Pooled(connection) => MultiplexedConnection::clone(connection),
            Self::Opened(open) => open.connection.clone(),
        }
    }
}

fn refused(error: OpenError) -> RedisError {
    RedisError::Command(error.into())
}

fn connection_info(server: &Server) -> redis::RedisResult<ConnectionInfo> {
    let address = match &server.place {
        Place::Tcp { host, port } => ConnectionAddr::Tcp(host.clone(), *port),
        Place::Tls { host, port } => {
            ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
        }
        Place::Unix(path) => ConnectionAddr::Unix(path.clone()),
    };
    let info = address.into_connection_info()?.set_redis_settings(server.settings.clone());
    Ok(info.set_tcp_settings(transport::tcp_settings()))
}
