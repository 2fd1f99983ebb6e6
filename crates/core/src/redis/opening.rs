//! Opening a connection: to a server, to the master that Sentinels name, or to the master of a slot of a
//! cluster, checked before it is used.
//!
//! A server is asked once who it is: a replica would refuse every write and may have left the set, a node of
//! a cluster has a part of the keys only, and a Sentinel has none. Of Sentinels, all are asked at once (see
//! "Guidelines for Redis clients with support for Redis Sentinel"); a server that one of them names and that
//! is no master, as that one has not learnt of a fail-over yet, is passed over. Of a cluster, all nodes that
//! are known are asked (see `cluster::view`).

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

use super::cluster::view;
use super::transport::{OpenConnection, timed_out};
use crate::redis_address::{Address, Cluster, Place, Sentinels, Server};

/// The reason that a connection could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum OpenError {
    /// A node of a cluster.
    #[error("the server {0} is a node of a Redis Cluster: use redis+cluster://{0}")]
    Cluster(Place),
    /// A server in place of a node of a cluster.
    #[error("the server {0} is not a node of a Redis Cluster: use redis://{0}")]
    NotACluster(Place),
    /// A slot without a master.
    #[error("slot {0} of the cluster has no master")]
    NoMaster(u16),
    /// A Sentinel in place of a server.
    #[error("{0} is a Sentinel and not a Redis server: use redis+sentinel://{0}/MASTER_NAME")]
    Sentinel(Place),
    /// Not a master, or not any more.
    #[error("the server {0} is a replica")]
    Replica(Place),
    /// Sentinels answered, and do not know this name.
    #[error("the Sentinels know no master \"{0}\"")]
    UnknownMaster(String),
    /// No answer, or a refused login.
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
}

impl From<std::io::Error> for OpenError {
    fn from(error: std::io::Error) -> Self {
        Self::Redis(error.into())
    }
}

impl From<OpenError> for redis::RedisError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Redis(error) => error,
            // To callers, the same as a server that does not answer.
            other => std::io::Error::other(other.to_string()).into(),
        }
    }
}

/// What a server says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Master,
    Replica,
    /// A master of a cluster.
    ClusterMaster,
    /// A replica in a cluster.
    ClusterReplica,
    Sentinel,
    /// It does not say, as this user may not ask.
    Unknown,
}

/// Opens a connection to the master within this time.
pub(super) async fn open(
    address: &Address,
    config: &AsyncConnectionConfig,
    limit: Duration,
) -> Result<OpenConnection, OpenError> {
    let opening = async {
        match address {
            Address::Server(server) => open_server(server, Expected::Server, config, limit).await,
            Address::Node(server) => open_server(server, Expected::Node, config, limit).await,
            Address::Sentinels(sentinels) => open_master(sentinels, config, limit).await,
            Address::Cluster(cluster) => open_owner(cluster, config, limit).await,
        }
    };
    tokio::time::timeout(limit, opening).await.map_err(|_| timed_out())?
}

/// What a server has to be, besides a master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// No part of a cluster.
    Server,
    /// A node of a cluster.
    Node,
}

impl Expected {
    /// What the address leads to.
    pub(super) fn at(address: &Address) -> Self {
        match address {
            Address::Server(_) | Address::Sentinels(_) => Self::Server,
            Address::Cluster(_) | Address::Node(_) => Self::Node,
        }
    }

    /// Whether a server of this role is usable.
    pub(super) fn allows(self, role: Role) -> bool {
        match role {
            Role::Unknown => true,
            Role::Master => self == Self::Server,
            Role::ClusterMaster => self == Self::Node,
            Role::Replica | Role::ClusterReplica | Role::Sentinel => false,
        }
    }
}

async fn open_server(
    server: &Server,
    expected: Expected,
    config: &AsyncConnectionConfig,
    limit: Duration,
) -> Result<OpenConnection, OpenError> {
    let open = OpenConnection::open(server, config.clone(), limit).await?;
    let mut connection = open.connection.clone();
    connection.set_response_timeout(limit);
    let role = role(&mut connection).await?;
    if expected.allows(role) { Ok(open) } else { Err(problem(role, expected, &server.place)) }
}

/// Why a server of this role, which is not usable, is not used.
pub(super) fn problem(role: Role, expected: Expected, place: &Place) -> OpenError {
    match role {
        Role::ClusterMaster | Role::ClusterReplica if expected == Expected::Server => {
            OpenError::Cluster(place.clone())
        }
        Role::Sentinel => OpenError::Sentinel(place.clone()),
        Role::Master if expected == Expected::Node => OpenError::NotACluster(place.clone()),
        _ => OpenError::Replica(place.clone()),
    }
}

/// Opens a connection to the master of the cluster's slot.
async fn open_owner(
    cluster: &Cluster,
    config: &AsyncConnectionConfig,
    limit: Duration,
) -> Result<OpenConnection, OpenError> {
    let view = view::best(cluster, limit).await?;
    let master = view.master_of(cluster.slot).ok_or(OpenError::NoMaster(cluster.slot))?;
    open_server(&cluster.node(master.clone()), Expected::Node, config, limit).await
}

/// Opens a connection to the master that Sentinels name.
pub(super) async fn open_master(
    sentinels: &Sentinels,
    config: &AsyncConnectionConfig,
    limit: Duration,
) -> Result<OpenConnection, OpenError> {
    let asked = sentinels.servers.iter().map(|sentinel| ask(sentinel, &sentinels.master_name, limit));
    let mut answers: FuturesUnordered<_> = asked.collect();
    let mut tried: Vec<Place> = Vec::new();
    let (mut of_master, mut of_sentinel) = (None, None);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(Some((host, port))) => {
                let master = sentinels.master(host, port);
                if tried.contains(&master.place) {
                    continue;
                }
                match open_server(&master, Expected::Server, config, limit).await {
                    Ok(open) => return Ok(open),
                    Err(error) => of_master = Some(error),
                }
                tried.push(master.place);
            }
            Ok(None) => of_sentinel = Some(OpenError::UnknownMaster(sentinels.master_name.clone())),
            Err(error) => of_sentinel = of_sentinel.or(Some(error.into())),
        }
    }
    Err(of_master.or(of_sentinel).unwrap_or_else(|| timed_out().into()))
}

/// Asks one of the Sentinels where the master is, or one of the cluster's nodes where that of its slot is;
/// `None` if there are neither, or if it does not answer. `turn` says which one.
pub(super) async fn named_master(address: &Address, turn: usize, limit: Duration) -> Option<Place> {
    let sentinels = match address {
        Address::Sentinels(sentinels) => sentinels,
        Address::Cluster(cluster) => {
            let view = view::of_one(cluster, turn, limit).await.filter(|view| view.is_ok)?;
            return view.master_of(cluster.slot).cloned();
        }
        Address::Server(_) | Address::Node(_) => return None,
    };
    let sentinel = sentinels.servers.get(turn.checked_rem(sentinels.servers.len())?)?;
    let asked = tokio::time::timeout(limit, ask(sentinel, &sentinels.master_name, limit)).await;
    let (host, port) = asked.ok()?.ok()??;
    Some(sentinels.master(host, port).place)
}

async fn ask(sentinel: &Server, name: &str, limit: Duration) -> redis::RedisResult<Option<(String, u16)>> {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(limit));
    let open = OpenConnection::open(sentinel, config, limit).await?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    question.query_async(&mut open.connection.clone()).await
}

/// Asks the server who it is.
pub(super) async fn role(connection: &mut MultiplexedConnection) -> redis::RedisResult<Role> {
    let mut questions = redis::pipe();
    questions.cmd("INFO").arg("server").cmd("INFO").arg("replication");
    match questions.query_async::<(String, String)>(connection).await {
        Ok((server, replication)) => Ok(role_of(&server, &replication)),
        Err(error) if error.code() == Some("NOPERM") => Ok(Role::Unknown),
        Err(error) => Err(error),
    }
}

fn role_of(server: &str, replication: &str) -> Role {
    let is = |info: &str, field: &str| info.lines().any(|line| line.trim_end() == field);
    // Valkey has another name for it.
    let has_mode =
        |mode: &str| ["redis_mode", "server_mode"].iter().any(|name| is(server, &format!("{name}:{mode}")));
    if has_mode("cluster") {
        if is(replication, "role:slave") { Role::ClusterReplica } else { Role::ClusterMaster }
    } else if has_mode("sentinel") {
        Role::Sentinel
    } else if is(replication, "role:slave") {
        Role::Replica
    } else {
        Role::Master
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_used_only_as_what_it_is() {
        let place = Place::Tcp { host: "a".to_owned(), port: 1 };
        for (expected, role, reason) in [
            (Expected::Server, Role::ClusterMaster, "use redis+cluster://a:1"),
            (Expected::Server, Role::ClusterReplica, "use redis+cluster://a:1"),
            (Expected::Server, Role::Replica, "is a replica"),
            (Expected::Node, Role::Master, "use redis://a:1"),
            (Expected::Node, Role::ClusterReplica, "is a replica"),
            (Expected::Node, Role::Sentinel, "is a Sentinel"),
        ] {
            assert!(!expected.allows(role), "{expected:?} {role:?}");
            let problem = problem(role, expected, &place).to_string();
            assert!(problem.contains(reason), "{problem}");
        }
        assert!(Expected::Server.allows(Role::Master) && Expected::Node.allows(Role::ClusterMaster));
    }

    #[test]
    fn a_servers_role_is_read_from_its_info() {
        let standalone = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n";
        for (server, replication, expected) in [
            (standalone, "# Replication\r\nrole:master\r\nconnected_slaves:1\r\n", Role::Master),
            (standalone, "# Replication\r\nrole:slave\r\nmaster_link_status:down\r\n", Role::Replica),
            ("redis_mode:cluster\r\n", "role:master\r\n", Role::ClusterMaster),
            ("redis_mode:cluster\r\n", "role:slave\r\n", Role::ClusterReplica),
            ("valkey_version:9.1.2\r\nserver_mode:cluster\r\n", "role:master\r\n", Role::ClusterMaster),
            ("valkey_version:9.1.2\r\nserver_mode:sentinel\r\n", "", Role::Sentinel),
            ("redis_mode:sentinel\r\n", "", Role::Sentinel),
            ("", "", Role::Master),
        ] {
            assert_eq!(role_of(server, replication), expected, "{server}{replication}");
        }
    }
}
