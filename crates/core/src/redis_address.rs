//! Where Redis is: the URL of a server, or of the Sentinels that know which server is the master.
//!
//! A server's URL is the client's (`redis://`, `rediss://`, `valkey://`, `valkeys://`, `unix://` and its
//! other names). That of Sentinels is
//! `redis+sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/MASTER_NAME[/DB]`, with `sentinel_user` and
//! `sentinel_password` in the query; USER and PASSWORD are those of the servers. `rediss+sentinel://` is TLS
//! to both. No error and no message of this module contains a password.

use std::fmt;
use std::path::PathBuf;

use redis::{ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};

/// The port of a Sentinel whose URL names none.
const SENTINEL_PORT: u16 = 26_379;
/// Sentinels that one URL may name.
const MAX_SENTINELS: usize = 16;

/// A URL that is not the address of a Redis. The message names the part that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// Redis Cluster.
    #[error("Redis Cluster is not supported: name a server, or Sentinels with redis+sentinel://")]
    Cluster,
    /// An unknown scheme.
    #[error("the scheme is not one of redis, rediss, unix, valkey, valkeys, redis+sentinel, rediss+sentinel")]
    Scheme,
    /// Several hosts without Sentinels.
    #[error("several hosts need redis+sentinel://")]
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
    /// Too many Sentinels.
    #[error("more than {MAX_SENTINELS} Sentinels")]
    TooManySentinels,
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
}

/// A server, and how to log in there.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) place: Place,
    pub(crate) settings: RedisConnectionInfo,
}

/// The place of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
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
            Self::Server(Server { settings, .. }) | Self::Sentinels(Sentinels { settings, .. }) => {
                *settings = settings.clone().set_protocol(protocol);
            }
        }
        address
    }

    /// The number of the database.
    pub(crate) fn database(&self) -> i64 {
        match self {
            Self::Server(server) => server.settings.db(),
            Self::Sentinels(sentinels) => sentinels.settings.db(),
        }
    }

    pub(crate) fn parse(url: &str) -> Result<Self, InvalidAddress> {
        let (scheme, rest) = url.split_once("://").ok_or(InvalidAddress::Scheme)?;
        if scheme.contains("cluster") || has_cluster_parameter(rest) {
            return Err(InvalidAddress::Cluster);
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
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let settings = with_credentials(decoded("the user", user)?, decoded("the password", password)?);
        let settings_of_sentinels = parse_query(query)?;
        let hosts: Vec<&str> = hosts.split(',').collect();
        if hosts.len() > MAX_SENTINELS {
            return Err(InvalidAddress::TooManySentinels);
        }
        let servers = hosts.into_iter().zip(1..).map(|(host, number)| {
            let (host, port) = parse_host(host).ok_or(InvalidAddress::Sentinel { number })?;
            Ok(Server { place: place(host, port, is_tls), settings: settings_of_sentinels.clone() })
        });
        let servers = servers.collect::<Result<_, _>>()?;
        Ok(Self { servers, master_name, settings: settings.set_db(database), is_tls })
    }
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
fn parse_host(written: &str) -> Option<(String, u16)> {
    let (host, port) = match written.rsplit_once(':') {
        Some((host, port)) if !written.ends_with(']') => (host, port.parse().ok()?),
        _ => (written, SENTINEL_PORT),
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
            Ok(Address::Server(_)) => panic!("a server"),
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
    fn a_refusal_names_the_part_that_is_wrong() {
        for (url, expected) in [
            ("redis+cluster://a", InvalidAddress::Cluster),
            ("redis-cluster://a,b", InvalidAddress::Cluster),
            ("redis://a?cluster=true", InvalidAddress::Cluster),
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
        for url in ["redis://user:p,q@a", "redis://a?cluster=false", "unix:///x.sock", "valkeys://a/1"] {
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
        ] {
            let shown = refusal(url).to_string();
            assert!(!shown.contains("secret"), "{shown}");
        }
    }
}
