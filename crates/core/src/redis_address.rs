//! Where Redis is: the URL of a server, of the Sentinels that know which server is the master, or of a
//! cluster.
//!
//! A server's URL is the client's (`redis://`, `rediss://`, `valkey://`, `valkeys://`, `unix://` and its
//! other names). That of Sentinels is
//! `redis+sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/MASTER_NAME[/DB]`, with `sentinel_user` and
//! `sentinel_password` in the query; USER and PASSWORD are those of the servers. `rediss+sentinel://` is TLS
//! to both. That of a cluster is `redis+cluster://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]`, with any of
//! its nodes, which name the others; `rediss+cluster://` is TLS to all of them. No error and no message of
//! this module contains a password.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use redis::{ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};

/// The port of a Sentinel whose URL names none.
const SENTINEL_PORT: u16 = 26_379;
/// The port of a node of a cluster whose URL names none.
const NODE_PORT: u16 = 6_379;
/// Sentinels, or nodes of a cluster, that one URL may name.
const MAX_HOSTS: usize = 16;

/// A URL that is not the address of a Redis. The message names the part that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// Redis Cluster in another form.
    #[error("the address of a Redis Cluster is redis+cluster://HOST:PORT,HOST:PORT, with any of its nodes")]
    Cluster,
    /// An unknown scheme.
    #[error(
        "the scheme is not one of redis, rediss, unix, valkey, valkeys, redis+sentinel, rediss+sentinel, redis+cluster, rediss+cluster"
    )]
    Scheme,
    /// Several hosts that are neither Sentinels nor nodes of a cluster.
    #[error("several hosts need redis+sentinel:// or redis+cluster://")]
    SeveralHosts,
    /// `#insecure`.
    #[error("TLS without checking certificates is not supported: remove #insecure")]
    Insecure,
    /// The client does not understand it.
    #[error("{0}")]
    Server(String),
    /// A Sentinel's host or port.
    #[error("Sentinel number {number} is not HOST or HOST:PORT")]
    Sentinel {
        /// Its place in the list, from 1.
        number: usize,
    },
    /// A node's host or port.
    #[error("node number {number} is not HOST or HOST:PORT")]
    Node {
        /// Its place in the list, from 1.
        number: usize,
    },
    /// A database other than the first, or a parameter.
    #[error("nothing may follow the nodes of a cluster, which has no numbered databases")]
    AfterNodes,
    /// Too many hosts.
    #[error("more than {MAX_HOSTS} hosts")]
    TooManyHosts,
    /// No name of a master.
    #[error("the name of the master is missing: redis+sentinel://HOST:PORT/MASTER_NAME")]
    MasterName,
    /// The path continues after the database.
    #[error("the path is not /MASTER_NAME or /MASTER_NAME/DB, with DB a number")]
    Path,
    /// Not percent-encoded UTF-8.
    #[error("{part} is not percent-encoded text")]
    Encoding {
        /// Which part.
        part: &'static str,
    },
    /// An unknown parameter. Its name only, as the value may be a password.
    #[error("the parameter {name} is unknown: there are sentinel_user and sentinel_password")]
    Parameter {
        /// Its name.
        name: String,
    },
}

/// Where Redis is.
#[derive(Clone)]
pub(crate) enum Address {
    /// At this server.
    Server(Server),
    /// Where Sentinels say.
    Sentinels(Sentinels),
    /// At the nodes of a cluster; for a single connection, at the master of one of its slots.
    Cluster(Cluster),
    /// At this master of a cluster.
    Node(Server),
}

/// A server, and how to log in there.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) place: Place,
    pub(crate) settings: RedisConnectionInfo,
}

/// The place of a server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Tcp { host: String, port: u16 },
    Tls { host: String, port: u16 },
    Unix(PathBuf),
}

/// Sentinels, and what they are asked for.
#[derive(Clone)]
pub(crate) struct Sentinels {
    pub(crate) servers: Vec<Server>,
    /// The name of the master that they watch.
    pub(crate) master_name: String,
    /// Credentials and database of the master.
    settings: RedisConnectionInfo,
    is_tls: bool,
}

/// Nodes of a cluster, which is asked for the others.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// The nodes that the URL names.
    pub(crate) seeds: Vec<Place>,
    /// All nodes that the cluster has named last.
    pub(crate) named: Arc<ArcSwap<Vec<Place>>>,
    /// The slot whose master a single connection leads to.
    pub(crate) slot: u16,
    settings: RedisConnectionInfo,
    is_tls: bool,
}

/// Checks that a URL is the address of a Redis.
pub(crate) fn check(url: &str) -> Result<(), InvalidAddress> {
    Address::parse(url).map(|_| ())
}

/// A URL without passwords, for logs and messages.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (before, after) = match rest.split_once('?') {
        // A password with such characters cannot be separated from the rest.
        Some((_, query)) if query.contains('@') => return format!("{scheme}://…"),
        Some((before, _)) => (before, "?…"),
        None => (rest, ""),
    };
    match before.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://…@{host}{after}"),
        None => format!("{scheme}://{before}{after}"),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } | Self::Tls { host, port } => write!(formatter, "{host}:{port}"),
            Self::Unix(path) => write!(formatter, "{}", path.display()),
        }
    }
}

impl Address {
    /// The same address, for connections with this protocol.
    pub(crate) fn with_protocol(&self, protocol: ProtocolVersion) -> Self {
        let mut address = self.clone();
        match &mut address {
            Self::Server(Server { settings, .. })
            | Self::Node(Server { settings, .. })
            | Self::Sentinels(Sentinels { settings, .. })
            | Self::Cluster(Cluster { settings, .. }) => {
                *settings = settings.clone().set_protocol(protocol);
            }
        }
        address
    }

    /// The number of the database.
    pub(crate) fn database(&self) -> i64 {
        match self {
            Self::Server(server) | Self::Node(server) => server.settings.db(),
            Self::Sentinels(sentinels) => sentinels.settings.db(),
            Self::Cluster(cluster) => cluster.settings.db(),
        }
    }

    pub(crate) fn parse(url: &str) -> Result<Self, InvalidAddress> {
        let (scheme, rest) = url.split_once("://").ok_or(InvalidAddress::Scheme)?;
        match scheme {
            "redis+cluster" | "rediss+cluster" => {
                return Cluster::parse(rest, scheme == "rediss+cluster").map(Self::Cluster);
            }
            _ if scheme.contains("cluster") || has_cluster_parameter(rest) => {
                return Err(InvalidAddress::Cluster);
            }
            _ => {}
        }
        match scheme {
            "redis+sentinel" | "rediss+sentinel" => {
                Sentinels::parse(rest, scheme == "rediss+sentinel").map(Self::Sentinels)
            }
            "unix" | "redis+unix" | "valkey+unix" => parse_server(url).map(Self::Server),
            "redis" | "rediss" | "valkey" | "valkeys" => {
                let (_, hosts) = split_authority(rest);
                if hosts.contains(',') {
                    return Err(InvalidAddress::SeveralHosts);
                }
                parse_server(url).map(Self::Server)
            }
            _ => Err(InvalidAddress::Scheme),
        }
    }
}

impl Sentinels {
    /// The master at this address.
    pub(crate) fn master(&self, host: String, port: u16) -> Server {
        Server { place: place(host, port, self.is_tls), settings: self.settings.clone() }
    }

    fn parse(rest: &str, is_tls: bool) -> Result<Self, InvalidAddress> {
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (credentials, hosts) = split_authority(before);
        let (hosts, path) = hosts.split_once('/').unwrap_or((hosts, ""));
        let (master_name, database) = parse_path(path)?;
        let settings = parse_credentials(credentials)?;
        let settings_of_sentinels = parse_query(query)?;
        let places = parse_hosts(hosts, SENTINEL_PORT, is_tls)?
            .map_err(|number| InvalidAddress::Sentinel { number })?;
        let servers = places
            .into_iter()
            .map(|place| Server { place, settings: settings_of_sentinels.clone() })
            .collect();
        Ok(Self { servers, master_name, settings: settings.set_db(database), is_tls })
    }
}

impl Cluster {
    /// The node at this place.
    pub(crate) fn node(&self, place: Place) -> Server {
        Server { place, settings: self.settings.clone() }
    }

    /// The place of the node with this host, and this port.
    pub(crate) fn place(&self, host: String, port: u16) -> Place {
        place(host, port, self.is_tls)
    }

    /// All nodes that are known: those named last, and those of the URL.
    pub(crate) fn known(&self) -> Vec<Server> {
        let mut places: Vec<Place> = self.named.load().iter().chain(&self.seeds).cloned().collect();
        places.sort();
        places.dedup();
        places.into_iter().map(|place| self.node(place)).collect()
    }

    /// The same cluster, and a single connection to the master of this slot.
    pub(crate) fn at(&self, slot: u16) -> Self {
        Self { slot, ..self.clone() }
    }

    fn parse(rest: &str, is_tls: bool) -> Result<Self, InvalidAddress> {
        let (credentials, hosts) = split_authority(rest);
        let hosts = hosts.strip_suffix("/0").or(hosts.strip_suffix('/')).unwrap_or(hosts);
        if hosts.contains(['/', '?', '#']) {
            return Err(InvalidAddress::AfterNodes);
        }
        let settings = parse_credentials(credentials)?;
        let seeds =
            parse_hosts(hosts, NODE_PORT, is_tls)?.map_err(|number| InvalidAddress::Node { number })?;
        Ok(Self { seeds, named: Arc::default(), slot: 0, settings, is_tls })
    }
}

fn parse_credentials(credentials: &str) -> Result<RedisConnectionInfo, InvalidAddress> {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    Ok(with_credentials(decoded("the user", user)?, decoded("the password", password)?))
}

/// Parses hosts with commas between them; or returns the number of the one that is wrong.
fn parse_hosts(
    hosts: &str,
    default_port: u16,
    is_tls: bool,
) -> Result<Result<Vec<Place>, usize>, InvalidAddress> {
    let hosts: Vec<&str> = hosts.split(',').collect();
    if hosts.len() > MAX_HOSTS {
        return Err(InvalidAddress::TooManyHosts);
    }
    let places = hosts.into_iter().zip(1_usize..).map(|(host, number)| {
        let (host, port) = parse_host(host, default_port).ok_or(number)?;
        Ok(place(host, port, is_tls))
    });
    Ok(places.collect())
}

fn place(host: String, port: u16, is_tls: bool) -> Place {
    if is_tls { Place::Tls { host, port } } else { Place::Tcp { host, port } }
}

fn with_credentials(user: String, password: String) -> RedisConnectionInfo {
    let mut settings = RedisConnectionInfo::default();
    if !user.is_empty() {
        settings = settings.set_username(user);
    }
    if !password.is_empty() {
        settings = settings.set_password(password);
    }
    settings
}

/// Parses the URL of a server as the client does.
fn parse_server(url: &str) -> Result<Server, InvalidAddress> {
    let info = url.into_connection_info().map_err(|error| InvalidAddress::Server(error.to_string()))?;
    let place = match info.addr().clone() {
        ConnectionAddr::Tcp(host, port) => Place::Tcp { host, port },
        ConnectionAddr::TcpTls { insecure: true, .. } => return Err(InvalidAddress::Insecure),
        ConnectionAddr::TcpTls { host, port, .. } => Place::Tls { host, port },
        ConnectionAddr::Unix(path) => Place::Unix(path),
        _ => return Err(InvalidAddress::Scheme),
    };
    Ok(Server { place, settings: info.redis_settings().clone() })
}

/// Splits what follows the scheme into user and password, and the rest.
fn split_authority(rest: &str) -> (&str, &str) {
    rest.rsplit_once('@').unwrap_or(("", rest))
}

fn has_cluster_parameter(rest: &str) -> bool {
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    query
        .split(['&', '#'])
        .any(|pair| matches!(pair.split_once('='), Some(("cluster", value)) if value != "false"))
}

/// Returns the name of the master, and the database.
fn parse_path(path: &str) -> Result<(String, i64), InvalidAddress> {
    let (name, database) = path.split_once('/').unwrap_or((path, ""));
    let name = decoded("the name of the master", name)?;
    if name.is_empty() {
        return Err(InvalidAddress::MasterName);
    }
    let database = match database {
        "" => 0,
        written => written.parse::<u16>().map_err(|_| InvalidAddress::Path)?,
    };
    Ok((name, i64::from(database)))
}

/// Returns how to log in at a Sentinel.
fn parse_query(query: &str) -> Result<RedisConnectionInfo, InvalidAddress> {
    let (mut user, mut password) = (String::new(), String::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "sentinel_user" => user = decoded("sentinel_user", value)?,
            "sentinel_password" => password = decoded("sentinel_password", value)?,
            _ => return Err(InvalidAddress::Parameter { name: name.to_owned() }),
        }
    }
    Ok(with_credentials(user, password))
}

/// Parses `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
fn parse_host(written: &str, default_port: u16) -> Option<(String, u16)> {
    let (host, port) = match written.rsplit_once(':') {
        Some((host, port)) if !written.ends_with(']') => (host, port.parse().ok()?),
        _ => (written, default_port),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_valid = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '[', ']', ' ', '#']),
    };
    (is_valid && port != 0).then(|| (bare.unwrap_or(host).to_owned(), port))
}

/// Decodes percent-encoding.
fn decoded(part: &'static str, written: &str) -> Result<String, InvalidAddress> {
    let invalid = || InvalidAddress::Encoding { part };
    let mut bytes = Vec::with_capacity(written.len());
    let mut rest = written;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let digits = after.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let byte = u8::from_str_radix(digits.ok_or_else(invalid)?, 16).map_err(|_| invalid())?;
        bytes.push(byte);
        rest = after.get(2..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentinels(url: &str) -> Sentinels {
        match Address::parse(url) {
            Ok(Address::Sentinels(sentinels)) => sentinels,
            Ok(_) => panic!("no Sentinels"),
            Err(error) => panic!("{error}"),
        }
    }

    fn refusal(url: &str) -> InvalidAddress {
        check(url).unwrap_err()
    }

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("redis://user:secret@host:6379/0", "redis://…@host:6379/0"),
            ("redis://:p@ss@host", "redis://…@host"),
            ("redis://host:6379", "redis://host:6379"),
            ("redis+unix:///x.sock?pass=secret&db=2", "redis+unix:///x.sock?…"),
            ("redis+sentinel://u:p@a,b:1/m/2?sentinel_password=x", "redis+sentinel://…@a,b:1/m/2?…"),
            ("redis+sentinel://a/m?sentinel_password=x@y", "redis+sentinel://…"),
            ("redis://:p?ss@host", "redis://…"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn sentinels_are_understood() {
        let parsed = sentinels(
            "redis+sentinel://me:p%40s%3As@a,b:26000,[::1]:1,[fe80::2]/my-master/3?sentinel_user=s&sentinel_password=x%26y",
        );
        let places: Vec<String> = parsed.servers.iter().map(|server| server.place.to_string()).collect();
        assert_eq!(places, ["a:26379", "b:26000", "::1:1", "fe80::2:26379"]);
        assert_eq!(parsed.master_name, "my-master");
        let master = parsed.master("10.0.0.1".to_owned(), 6379);
        assert_eq!(master.place, Place::Tcp { host: "10.0.0.1".to_owned(), port: 6379 });
        let settings = &master.settings;
        assert_eq!((settings.username(), settings.password()), (Some("me"), Some("p@s:s")));
        assert_eq!(settings.db(), 3);
        let settings = &parsed.servers[0].settings;
        assert_eq!((settings.username(), settings.password()), (Some("s"), Some("x&y")));
        let parsed = sentinels("rediss+sentinel://:secret@a/m");
        assert_eq!(parsed.servers[0].place, Place::Tls { host: "a".to_owned(), port: 26_379 });
        let settings = parsed.master("h".to_owned(), 1).settings;
        assert_eq!((settings.username(), settings.password(), settings.db()), (None, Some("secret"), 0));
    }

    #[test]
    fn nodes_of_a_cluster_are_understood() {
        for (url, expected) in [
            ("redis+cluster://me:p%40s@a,b:7000,[::1]", "Tcp a:6379, Tcp b:7000, Tcp ::1:6379"),
            ("rediss+cluster://me:p%40s@a/", "Tls a:6379"),
        ] {
            let Ok(Address::Cluster(cluster)) = Address::parse(url) else { panic!("{url}") };
            let shown = cluster.seeds.iter().map(|place| match place {
                Place::Tcp { .. } => format!("Tcp {place}"),
                _ => format!("Tls {place}"),
            });
            assert_eq!(shown.collect::<Vec<_>>().join(", "), expected);
            let node = cluster.node(cluster.place("c".to_owned(), 1));
            assert_eq!(node.place.to_string(), "c:1");
            assert_eq!((node.settings.username(), node.settings.password()), (Some("me"), Some("p@s")));
            cluster.named.store(Arc::new(vec![node.place, cluster.seeds[0].clone()]));
            assert_eq!(cluster.known().len(), cluster.seeds.len() + 1);
        }
    }

    #[test]
    fn a_refusal_names_the_part_that_is_wrong() {
        for (url, expected) in [
            ("redis-cluster://a,b", InvalidAddress::Cluster),
            ("redis://a?cluster=true", InvalidAddress::Cluster),
            ("redis+cluster://", InvalidAddress::Node { number: 1 }),
            ("redis+cluster://a,b:x", InvalidAddress::Node { number: 2 }),
            ("redis+cluster://a/1", InvalidAddress::AfterNodes),
            ("redis+cluster://a?protocol=resp3", InvalidAddress::AfterNodes),
            ("redis+cluster://:%zz@a", InvalidAddress::Encoding { part: "the password" }),
            ("http://a", InvalidAddress::Scheme),
            ("redis-sentinel://a/m", InvalidAddress::Scheme),
            ("a:6379", InvalidAddress::Scheme),
            ("redis://a,b:1", InvalidAddress::SeveralHosts),
            ("redis+sentinel://a", InvalidAddress::MasterName),
            ("redis+sentinel://a/?sentinel_user=u", InvalidAddress::MasterName),
            ("redis+sentinel://a/m/x", InvalidAddress::Path),
            ("redis+sentinel://a/m/0/1", InvalidAddress::Path),
            ("redis+sentinel:///m", InvalidAddress::Sentinel { number: 1 }),
            ("redis+sentinel://a,,b/m", InvalidAddress::Sentinel { number: 2 }),
            ("redis+sentinel://a:x/m", InvalidAddress::Sentinel { number: 1 }),
            ("redis+sentinel://a,::1/m", InvalidAddress::Sentinel { number: 2 }),
            ("redis+sentinel://:%zz@a/m", InvalidAddress::Encoding { part: "the password" }),
            ("redis+sentinel://a/m?password=x", InvalidAddress::Parameter { name: "password".to_owned() }),
        ] {
            assert_eq!(refusal(url), expected, "{url}");
        }
        assert!(matches!(refusal("redis://a/x"), InvalidAddress::Server(_)));
        assert!(matches!(refusal("redis://a:x"), InvalidAddress::Server(_)));
        for url in [
            "redis://user:p,q@a",
            "redis://a?cluster=false",
            "unix:///x.sock",
            "valkeys://a/1",
            "redis+cluster://a/0",
        ] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
    }

    #[test]
    fn no_refusal_shows_a_password() {
        for url in [
            "redis://:secret@a,b",
            "redis://:secret@a/x",
            "redis+sentinel://:secret@a:x/m",
            "redis+sentinel://a/m/secret?sentinel_password=secret",
            "redis+sentinel://a/m?sentinel_pass=secret",
            "redis+sentinel://u:%zzsecret@a/m",
            "redis+cluster://:secret@a/m",
            "redis+cluster://:secret@a,b:x",
        ] {
            let shown = refusal(url).to_string();
            assert!(!shown.contains("secret"), "{shown}");
        }
    }
}
