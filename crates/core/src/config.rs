//! Configuration that every service shares, read from the environment once and checked whole.
//!
//! | variable | default | what |
//! |---|---|---|
//! | `PRICING_REDIS_URL` | `redis://127.0.0.1:6379` | Redis, over TLS with `rediss://…`; if unset, `REDIS_HOST` and `REDIS_PORT` are used |
//! | `PRICING_DATABASE_URL` | `sqlite://pricing.db` | `sqlite://FILE` or `postgres://…`, over TLS with `?sslmode=verify-full`, `verify-ca` or `require`, and `&sslrootcert=FILE` |
//! | `PRICING_DATABASE_CONNECTIONS` | 8 | connections to the database, 3 to 200 |
//! | `PRICING_KEY_PREFIX` | `pricing:v1:` | prefix of the Redis keys |
//! | `PRICING_L1_CAPACITY` | 1000000 | prices held in process, 1 to 100000000 |
//! | `PRICING_L1_MAX_STALENESS` | `30s` | how long a price held in process is served without word from Redis |
//! | `PRICING_LOG` | `info` | what is logged: a level, or `target=level` pairs |
//! | `PRICING_LOG_FORMAT` | `auto` | `json`, `text`, or `auto`: text in a terminal |
//! | `PRICING_METRICS` | `on` | `on` or `off`: nothing is counted, and `/metrics` is empty |
//! | `PRICING_OTLP_ENDPOINT` | `http://127.0.0.1:4317` | where traces are exported to; `off` for nowhere; over TLS with `https://…`. The port is 4318 with `http` |
//! | `PRICING_OTLP_PROTOCOL` | `grpc` | `grpc` or `http` |
//! | `PRICING_TRACE_PRICE_RATIO` | 0.01 | the part of price requests that are traced, 0 to 1; others are always, and those whose caller does |
//!
//! `TZDIR` is where the system's time zone database is, if not where it usually is. It is used if it is newer
//! than the bundled one.
//!
//! TLS trusts whom the system trusts or, where `SSL_CERT_FILE` is set, the authorities in that file (PEM).
//!
//! What only one service needs is in that service's own `config.rs`.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::keys;

/// The exit code for a configuration that cannot be used (EX_USAGE).
pub const EXIT_USAGE: u8 = 64;

/// What every service needs to know.
#[derive(Debug, Clone)]
pub struct SharedConfig {
    /// Where Redis is.
    pub redis_url: String,
    /// Where the facts are.
    pub database_url: String,
    /// Connections to the database.
    pub database_connections: u32,
    /// Prefix of the Redis keys.
    pub key_prefix: String,
    /// Prices held in process.
    pub l1_capacity: usize,
    /// How long a price held in process is served without word from Redis.
    pub l1_max_staleness: Duration,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Whether metrics are recorded.
    pub metrics: MetricsSwitch,
    /// What is traced, and where to.
    pub trace: TraceConfig,
    /// Where the system's time zone database is, if not where it usually is.
    pub tz_directory: Option<PathBuf>,
}

/// What is traced, and where to.
#[derive(Debug, Clone)]
pub struct TraceConfig {
    /// The collector; none if nothing is exported.
    pub endpoint: Option<String>,
    /// How it is spoken to.
    pub protocol: OtlpProtocol,
    /// The part of price requests that are traced.
    pub price_ratio: f64,
}

/// What addresses of Redis begin with.
const REDIS_SCHEMES: &[&str] =
    &["redis://", "rediss://", "valkey://", "valkeys://", "unix://", "redis+unix://", "valkey+unix://"];
/// What addresses of databases begin with.
const DATABASE_SCHEMES: &[&str] = &["sqlite://", "postgres://", "postgresql://"];

/// How spans are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, as protobuf.
    Http,
}

impl FromStr for OtlpProtocol {
    type Err = &'static str;

    fn from_str(written: &str) -> Result<Self, Self::Err> {
        match written {
            "grpc" => Ok(Self::Grpc),
            "http" => Ok(Self::Http),
            _ => Err("grpc or http"),
        }
    }
}

/// Whether metrics are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsSwitch {
    /// All of them.
    On,
    /// None; to see what recording them costs.
    Off,
}

impl FromStr for MetricsSwitch {
    type Err = &'static str;

    fn from_str(written: &str) -> Result<Self, Self::Err> {
        match written {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err("on or off"),
        }
    }
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Which messages.
    pub filter: String,
    /// In which form.
    pub format: LogFormat,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text in a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(written: &str) -> Result<Self, Self::Err> {
        match written {
            "auto" => Ok(Self::Auto),
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("auto, json or text"),
        }
    }
}

impl SharedConfig {
    /// Reads the shared variables; problems stay in the reader.
    pub fn read(environment: &mut Environment<'_>) -> Self {
        Self {
            redis_url: redis_url(environment),
            database_url: environment.url("PRICING_DATABASE_URL", "sqlite://pricing.db", DATABASE_SCHEMES),
            database_connections: environment.number("PRICING_DATABASE_CONNECTIONS", 8, 3..=200),
            key_prefix: environment.text("PRICING_KEY_PREFIX", keys::DEFAULT_PREFIX),
            l1_capacity: environment.number("PRICING_L1_CAPACITY", 1_000_000, 1..=100_000_000),
            l1_max_staleness: environment.duration(
                "PRICING_L1_MAX_STALENESS",
                Duration::from_secs(30),
                Duration::ZERO..=Duration::from_secs(3_600),
            ),
            log: LogConfig {
                filter: environment.checked(
                    "PRICING_LOG",
                    "info".to_owned(),
                    "levels such as info, or targets with levels such as info,pricing_core=debug",
                    |written| is_log_filter(written).then(|| written.to_owned()),
                ),
                format: environment.parsed("PRICING_LOG_FORMAT", LogFormat::Auto, "auto, json or text"),
            },
            metrics: environment.parsed("PRICING_METRICS", MetricsSwitch::On, "on or off"),
            trace: trace(environment),
            tz_directory: tz_directory(environment),
        }
    }
}

fn trace(environment: &mut Environment<'_>) -> TraceConfig {
    let protocol = environment.parsed("PRICING_OTLP_PROTOCOL", OtlpProtocol::Grpc, "grpc or http");
    let default = match protocol {
        OtlpProtocol::Grpc => "http://127.0.0.1:4317",
        OtlpProtocol::Http => "http://127.0.0.1:4318",
    };
    let endpoint = environment.text("PRICING_OTLP_ENDPOINT", default);
    let endpoint = (endpoint != "off").then_some(endpoint);
    let price_ratio = environment.checked(
        "PRICING_TRACE_PRICE_RATIO",
        0.01,
        "a part from 0 to 1 such as 0.01",
        |written| written.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio)),
    );
    TraceConfig { endpoint, protocol, price_ratio }
}

fn tz_directory(environment: &mut Environment<'_>) -> Option<PathBuf> {
    Some(environment.text("TZDIR", "")).filter(|directory| !directory.is_empty()).map(PathBuf::from)
}

fn redis_url(environment: &mut Environment<'_>) -> String {
    let host = environment.text("REDIS_HOST", "127.0.0.1");
    let port: u16 = environment.number("REDIS_PORT", 6379, 1..=u16::MAX);
    environment.url("PRICING_REDIS_URL", &format!("redis://{host}:{port}"), REDIS_SCHEMES)
}

/// Whether each part of a log filter has a level: one without would be taken for the name of a target.
fn is_log_filter(written: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let level_of = |part: &str| part.rsplit_once('=').map_or(part, |(_, level)| level).trim().to_lowercase();
    written.split(',').all(|part| part.trim().is_empty() || LEVELS.contains(&level_of(part).as_str()))
}

/// One variable that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Its name.
    pub variable: &'static str,
    /// What it holds.
    pub value: String,
    /// What it may hold.
    pub allowed: String,
}

/// Everything that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub Vec<ConfigProblem>);

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the configuration cannot be used:")?;
        for ConfigProblem { variable, value, allowed } in &self.0 {
            write!(formatter, "\n  {variable}=\"{value}\": must be {allowed}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Reads variables and collects what is wrong with them, so that all of it is reported at once.
pub struct Environment<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<ConfigProblem>,
}

impl<'a> Environment<'a> {
    /// Reads through this function; tests give a map, services [`process_environment`].
    pub fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { lookup, problems: Vec::new() }
    }

    /// The text of a variable; empty counts as unset.
    pub fn text(&mut self, variable: &'static str, default: &str) -> String {
        (self.lookup)(variable).filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
    }

    /// An address with one of these schemes. A wrong one is not shown: it may hold a password.
    pub fn url(&mut self, variable: &'static str, default: &str, schemes: &[&str]) -> String {
        let url = self.text(variable, default);
        if !schemes.iter().any(|scheme| url.starts_with(scheme)) {
            let allowed = format!("an address that begins with {}", schemes.join(", "));
            self.problems.push(ConfigProblem { variable, value: "…".to_owned(), allowed });
        }
        url
    }

    /// A variable of any type that can be parsed.
    pub fn parsed<T: FromStr>(&mut self, variable: &'static str, default: T, allowed: &str) -> T {
        self.checked(variable, default, allowed, |text| text.parse().ok())
    }

    /// A whole number within bounds.
    pub fn number<T: FromStr + PartialOrd + fmt::Display>(
        &mut self,
        variable: &'static str,
        default: T,
        bounds: RangeInclusive<T>,
    ) -> T {
        let allowed = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let within = |text: &str| text.parse().ok().filter(|number| bounds.contains(number));
        self.checked(variable, default, &allowed, within)
    }

    /// A duration with its unit (`250ms`, `30s`, `5m`) within bounds.
    pub fn duration(
        &mut self,
        variable: &'static str,
        default: Duration,
        bounds: RangeInclusive<Duration>,
    ) -> Duration {
        let shown = |duration: &Duration| humantime::format_duration(*duration).to_string();
        let allowed = format!(
            "a duration such as 250ms or 30s, from {} to {}",
            shown(bounds.start()),
            shown(bounds.end())
        );
        let within = |text: &str| humantime::parse_duration(text).ok().filter(|value| bounds.contains(value));
        self.checked(variable, default, &allowed, within)
    }

    /// An address to listen on.
    pub fn address(&mut self, variable: &'static str, default: SocketAddr) -> SocketAddr {
        self.parsed(variable, default, "an address and a port, such as 127.0.0.1:8000")
    }

    /// The configuration, unless anything was wrong with it.
    pub fn finish<T>(self, config: T) -> Result<T, ConfigError> {
        if self.problems.is_empty() { Ok(config) } else { Err(ConfigError(self.problems)) }
    }

    fn checked<T>(
        &mut self,
        variable: &'static str,
        default: T,
        allowed: &str,
        check: impl Fn(&str) -> Option<T>,
    ) -> T {
        let Some(value) = (self.lookup)(variable).filter(|value| !value.is_empty()) else {
            return default;
        };
        check(value.trim()).unwrap_or_else(|| {
            self.problems.push(ConfigProblem { variable, value, allowed: allowed.to_owned() });
            default
        })
    }
}

/// The variables of this process.
pub fn process_environment(variable: &str) -> Option<String> {
    std::env::var(variable).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<SharedConfig, ConfigError> {
        let lookup = |wanted: &str| {
            variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned())
        };
        let mut environment = Environment::new(&lookup);
        let config = SharedConfig::read(&mut environment);
        environment.finish(config)
    }

    #[test]
    fn defaults_work() {
        let config = read(&[]).unwrap();
        assert_eq!(config.redis_url, "redis://127.0.0.1:6379");
        assert_eq!(config.l1_max_staleness, Duration::from_secs(30));
    }

    #[test]
    fn the_tutorials_variables_are_understood_and_the_url_wins() {
        let config = read(&[("REDIS_HOST", "redis"), ("REDIS_PORT", "7000")]).unwrap();
        assert_eq!(config.redis_url, "redis://redis:7000");
        let config = read(&[("REDIS_HOST", "redis"), ("PRICING_REDIS_URL", "redis://other:1")]).unwrap();
        assert_eq!(config.redis_url, "redis://other:1");
    }

    #[test]
    fn every_problem_is_reported_with_its_variable() {
        let error = read(&[
            ("PRICING_L1_CAPACITY", "0"),
            ("PRICING_L1_MAX_STALENESS", "30"),
            ("PRICING_LOG", "info,inof"),
            ("PRICING_LOG_FORMAT", "xml"),
            ("PRICING_TRACE_PRICE_RATIO", "1%"),
            ("PRICING_DATABASE_URL", "mysql://user:secret@host/prices"),
            ("REDIS_PORT", "x"),
        ])
        .unwrap_err();
        let variables: Vec<&str> = error.0.iter().map(|problem| problem.variable).collect();
        assert_eq!(
            variables,
            [
                "REDIS_PORT",
                "PRICING_DATABASE_URL",
                "PRICING_L1_CAPACITY",
                "PRICING_L1_MAX_STALENESS",
                "PRICING_LOG",
                "PRICING_LOG_FORMAT",
                "PRICING_TRACE_PRICE_RATIO",
            ]
        );
        let shown = error.to_string();
        assert!(shown.contains("must be a whole number from 1 to 100000000"), "{shown}");
        assert!(shown.contains("must be a part from 0 to 1 such as 0.01"), "{shown}");
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn a_log_filter_has_levels() {
        for (written, expected) in [
            ("info,", true),
            ("WARN,sqlx=off", true),
            ("inof", false),
            ("pricing_core", false),
            ("a=loud", false),
        ] {
            assert_eq!(is_log_filter(written), expected, "{written}");
        }
    }
}
