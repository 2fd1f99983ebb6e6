//! Configuration shared by all services, read from the environment once and checked as a whole.
//!
//! Here: the table of the shared variables ([`SHARED_VARIABLES`]) and the resulting [`SharedConfig`]. A
//! service's own variables are in its `config.rs`. The parser, `--help` and `docs/configuration.md` all use
//! these tables, so they cannot disagree. Never here: reading the environment a second time.

mod choices;
mod environment;
mod open_telemetry;
mod variable;

use std::path::PathBuf;
use std::time::Duration;

pub use choices::{LogFormat, MetricsSwitch, OtlpProtocol};
pub use environment::{ConfigError, ConfigProblem, Environment};
pub use open_telemetry::TraceSampler;
pub use variable::{Allowed, Variable};

use crate::keys;
use crate::redis_address::{self, InvalidAddress};

/// The exit code for a configuration that cannot be used (EX_USAGE).
pub const EXIT_USAGE: u8 = 64;

/// The variables that every service reads and checks, whether it uses them or not.
pub const SHARED_VARIABLES: &[Variable] = &[
    REDIS_URL,
    REDIS_HOST,
    REDIS_PORT,
    REDIS_REPLICAS,
    DATABASE_URL,
    DATABASE_CONNECTIONS,
    KEY_PREFIX,
    L1_CAPACITY,
    L1_MAX_STALENESS,
    LOG,
    LOG_FORMAT,
    METRICS,
    OTLP_ENDPOINT,
    OTLP_PROTOCOL,
    TRACE_PRICE_RATIO,
    open_telemetry::TRACES_ENDPOINT,
    open_telemetry::ENDPOINT,
    open_telemetry::TRACES_PROTOCOL,
    open_telemetry::PROTOCOL,
    open_telemetry::SERVICE_NAME,
    open_telemetry::SDK_DISABLED,
    open_telemetry::TRACES_SAMPLER,
    open_telemetry::TRACES_SAMPLER_ARG,
    TZDIR,
];

/// Variables that libraries read; listed here for `--help` and the page.
pub const LIBRARY_VARIABLES: &[Variable] =
    &[SSL_CERT_FILE, open_telemetry::RESOURCE_ATTRIBUTES, open_telemetry::HEADERS];

const SSL_CERT_FILE: Variable = Variable {
    name: "SSL_CERT_FILE",
    default: "",
    allowed: Allowed::Text("the path of a PEM file"),
    used_by: "all",
    text: "Certificate authorities trusted for TLS, in place of the system's.",
    is_secret: false,
};

const REDIS_URL: Variable = Variable {
    name: "PRICING_REDIS_URL",
    default: "redis://127.0.0.1:6379",
    allowed: Allowed::Url(&[
        "redis://",
        "rediss://",
        "valkey://",
        "valkeys://",
        "unix://",
        "redis+unix://",
        "valkey+unix://",
        "redis+sentinel://",
        "rediss+sentinel://",
        "redis+cluster://",
        "rediss+cluster://",
    ]),
    used_by: "all",
    text: "Redis; over TLS with rediss://. With Sentinel: \
           redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/MASTER_NAME/DB, with ?sentinel_user=… and \
           &sentinel_password=… if the Sentinels ask for them. A cluster: \
           redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT, with any of its nodes. If it is unset, \
           REDIS_HOST and REDIS_PORT are used.",
    is_secret: true,
};

const REDIS_HOST: Variable = Variable {
    name: "REDIS_HOST",
    default: "127.0.0.1",
    allowed: Allowed::Text("a host name or an address"),
    used_by: "all",
    text: "Host of Redis, if PRICING_REDIS_URL is unset.",
    is_secret: false,
};

const REDIS_PORT: Variable = Variable {
    name: "REDIS_PORT",
    default: "6379",
    allowed: Allowed::Whole(1..=65_535),
    used_by: "all",
    text: "Port of Redis, if PRICING_REDIS_URL is unset.",
    is_secret: false,
};

const REDIS_REPLICAS: Variable = Variable {
    name: "PRICING_REDIS_REPLICAS",
    default: "0",
    allowed: Allowed::Whole(0..=16),
    used_by: "API, listener",
    text: "Replicas of Redis that must have an event before it is acknowledged; with 1 or more, a fail-over \
           loses none. While fewer have it, events get 503.",
    is_secret: false,
};

const DATABASE_URL: Variable = Variable {
    name: "PRICING_DATABASE_URL",
    default: "sqlite://pricing.db",
    allowed: Allowed::Url(&["sqlite://", "postgres://", "postgresql://"]),
    used_by: "API, worker",
    text: "The database: sqlite://FILE or postgres://…; over TLS with ?sslmode=verify-full, verify-ca or \
           require, and &sslrootcert=FILE.",
    is_secret: true,
};

/// Public because the worker's concurrency is bounded by it.
pub const DATABASE_CONNECTIONS: Variable = Variable {
    name: "PRICING_DATABASE_CONNECTIONS",
    default: "8",
    allowed: Allowed::Whole(3..=200),
    used_by: "API, worker",
    text: "Connections to the database, at most, of one process.",
    is_secret: false,
};

const KEY_PREFIX: Variable = Variable {
    name: "PRICING_KEY_PREFIX",
    default: keys::DEFAULT_PREFIX,
    allowed: Allowed::Text("a text; the same for all services of an installation"),
    used_by: "all",
    text: "Prefix of the Redis keys. Two installations with different prefixes can share a Redis; a prefix \
           that is set here also applies to the public channels and streams. Database numbers do not separate \
           installations: a published message reaches all databases of a server.",
    is_secret: false,
};

const L1_CAPACITY: Variable = Variable {
    name: "PRICING_L1_CAPACITY",
    default: "1000000",
    allowed: Allowed::Whole(1..=100_000_000),
    used_by: "API",
    text: "Prices held in the memory of one process, at most.",
    is_secret: false,
};

const L1_MAX_STALENESS: Variable = Variable {
    name: "PRICING_L1_MAX_STALENESS",
    default: "30s",
    allowed: Allowed::Duration(Duration::ZERO..=Duration::from_secs(3_600)),
    used_by: "API, worker",
    text: "How long a price held in memory is served before Redis or the database has to confirm it.",
    is_secret: false,
};

const LOG: Variable = Variable {
    name: "PRICING_LOG",
    default: "info",
    allowed: Allowed::LogFilter,
    used_by: "all",
    text: "Which log lines are written, for example info or info,pricing_core=debug.",
    is_secret: false,
};

const LOG_FORMAT: Variable = Variable {
    name: "PRICING_LOG_FORMAT",
    default: "auto",
    allowed: Allowed::OneOf(&["auto", "json", "text"]),
    used_by: "all",
    text: "Form of the log lines; auto is text in a terminal and JSON elsewhere.",
    is_secret: false,
};

const METRICS: Variable = Variable {
    name: "PRICING_METRICS",
    default: "on",
    allowed: Allowed::OneOf(&["on", "off"]),
    used_by: "all",
    text: "Whether metrics are recorded; with off, /metrics is empty.",
    is_secret: false,
};

const OTLP_ENDPOINT: Variable = Variable {
    name: "PRICING_OTLP_ENDPOINT",
    default: "http://127.0.0.1:4317",
    allowed: Allowed::HttpUrl { may_be_off: true },
    used_by: "all",
    text: "Where traces are exported to; over TLS with https://. Over HTTP, the default port is 4318, and the \
           path /v1/traces is appended unless it is there.",
    is_secret: true,
};

const OTLP_PROTOCOL: Variable = Variable {
    name: "PRICING_OTLP_PROTOCOL",
    default: "grpc",
    allowed: Allowed::OneOf(&["grpc", "http"]),
    used_by: "all",
    text: "Protocol of the export of traces: OTLP over gRPC, or over HTTP as protobuf.",
    is_secret: false,
};

const TRACE_PRICE_RATIO: Variable = Variable {
    name: "PRICING_TRACE_PRICE_RATIO",
    default: "0.01",
    allowed: Allowed::Fraction,
    used_by: "API",
    text: "Fraction of price requests to trace. Other requests, and those with a sampled traceparent, are \
           always traced.",
    is_secret: false,
};

const TZDIR: Variable = Variable {
    name: "TZDIR",
    default: "",
    allowed: Allowed::Text("the path of a directory"),
    used_by: "API, worker",
    text: "The system's time zone database, if it is not in a usual place. It is used if it is newer than \
           the built-in one.",
    is_secret: false,
};

/// The configuration shared by all services.
#[derive(Debug, Clone)]
pub struct SharedConfig {
    /// The URL of Redis.
    pub redis_url: String,
    /// Replicas of Redis that must have an event before it is acknowledged.
    pub redis_replicas: u8,
    /// The URL of the database.
    pub database_url: String,
    /// Connections to the database.
    pub database_connections: u32,
    /// Prefix of the Redis keys.
    pub key_prefix: String,
    /// The number of prices cached in the process (L1).
    pub l1_capacity: usize,
    /// How long a price in L1 is served before it is looked up again.
    pub l1_max_staleness: Duration,
    /// The logging configuration.
    pub log: LogConfig,
    /// Whether metrics are recorded.
    pub metrics: MetricsSwitch,
    /// The tracing configuration.
    pub trace: TraceConfig,
    /// The directory of the system's time zone database, if not a default one.
    pub tz_directory: Option<PathBuf>,
}

/// The tracing configuration.
#[derive(Debug, Clone)]
pub struct TraceConfig {
    /// The collector's endpoint, over HTTP with its path; `None` disables the export.
    pub endpoint: Option<String>,
    /// The protocol of the export.
    pub protocol: OtlpProtocol,
    /// The service's name in traces, if it is not the usual one.
    pub service_name: Option<String>,
    /// Which traces are recorded.
    pub sampler: TraceSampler,
    /// The fraction of price requests that are traced.
    pub price_ratio: f64,
}

/// The logging configuration.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// The log filter.
    pub filter: String,
    /// The form of log lines.
    pub format: LogFormat,
}

impl SharedConfig {
    /// Reads the shared variables; `None` if any is invalid. The problems stay in `environment`.
    pub fn read(environment: &mut Environment<'_>) -> Option<Self> {
        let redis_url = redis_url(environment);
        let redis_replicas = environment.read(&REDIS_REPLICAS);
        let database_url = environment.read(&DATABASE_URL);
        let database_connections = environment.read(&DATABASE_CONNECTIONS);
        let key_prefix = environment.read(&KEY_PREFIX);
        let l1_capacity = environment.read(&L1_CAPACITY);
        let l1_max_staleness = environment.read::<humantime::Duration>(&L1_MAX_STALENESS);
        let (filter, format) = (environment.read(&LOG), environment.read(&LOG_FORMAT));
        let metrics = environment.read(&METRICS);
        let trace = trace(environment);
        let tz_directory = tz_directory(environment);
        Some(Self {
            redis_url: redis_url?,
            redis_replicas: redis_replicas?,
            database_url: database_url?,
            database_connections: database_connections?,
            key_prefix: key_prefix?,
            l1_capacity: l1_capacity?,
            l1_max_staleness: l1_max_staleness?.into(),
            log: LogConfig { filter: filter?, format: format? },
            metrics: metrics?,
            trace: trace?,
            tz_directory,
        })
    }
}

fn trace(environment: &mut Environment<'_>) -> Option<TraceConfig> {
    let protocol = open_telemetry::protocol(environment, &OTLP_PROTOCOL);
    let assumed = protocol.unwrap_or(OtlpProtocol::Grpc);
    let endpoint = open_telemetry::endpoint(environment, &OTLP_ENDPOINT, assumed);
    let (sampler, price_ratio) = (open_telemetry::sampler(environment), environment.read(&TRACE_PRICE_RATIO));
    let service_name = open_telemetry::service_name(environment);
    Some(TraceConfig {
        endpoint: endpoint?,
        protocol: protocol?,
        service_name,
        sampler: sampler?,
        price_ratio: price_ratio?,
    })
}

/// Returns the directory of the system's time zone database, if set; any value is valid.
pub fn tz_directory(environment: &Environment<'_>) -> Option<PathBuf> {
    environment.optional(&TZDIR).map(PathBuf::from)
}

fn redis_url(environment: &mut Environment<'_>) -> Option<String> {
    let host: Option<String> = environment.read(&REDIS_HOST);
    let port: Option<u16> = environment.read(&REDIS_PORT);
    let default = match (host, port) {
        (Some(host), Some(port)) => format!("redis://{host}:{port}"),
        _ => REDIS_URL.default.to_owned(),
    };
    let url = environment.optional(&REDIS_URL).unwrap_or(default);
    let allowed = match redis_address::check(&url) {
        Ok(()) => return Some(url),
        Err(InvalidAddress::Scheme) => REDIS_URL.allowed.to_string(),
        Err(reason) => format!("a URL of Redis ({reason})"),
    };
    environment.refuse(&REDIS_URL, url, allowed);
    None
}

/// Looks up a variable of this process.
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
        assert_eq!(config.redis_url, REDIS_URL.default);
        assert_eq!(config.l1_max_staleness, Duration::from_secs(30));
        assert_eq!(config.trace.endpoint.as_deref(), Some(OTLP_ENDPOINT.default));
    }

    #[test]
    fn the_tutorials_variables_are_understood_and_the_url_wins() {
        let config = read(&[("REDIS_HOST", "redis"), ("REDIS_PORT", "7000")]).unwrap();
        assert_eq!(config.redis_url, "redis://redis:7000");
        let config = read(&[("REDIS_HOST", "redis"), ("PRICING_REDIS_URL", "redis://other:1")]).unwrap();
        assert_eq!(config.redis_url, "redis://other:1");
    }

    #[test]
    fn a_refused_redis_url_is_explained_and_not_shown() {
        for (url, reason) in [
            ("redis+cluster://:secret@a/1", "nothing may follow the nodes of a cluster"),
            ("redis://:secret@a?cluster=true", "redis+cluster://HOST:PORT"),
            ("redis+sentinel://:secret@a", "the name of the master is missing"),
            ("redis://:secret@a,b", "several hosts need redis+sentinel://"),
            ("http://:secret@a", "an address that begins with redis://"),
        ] {
            let shown = read(&[("PRICING_REDIS_URL", url)]).unwrap_err().to_string();
            assert!(shown.contains(reason) && !shown.contains("secret"), "{url}: {shown}");
        }
        for url in [
            "redis+sentinel://u:p@a:1,b/m/2?sentinel_password=x",
            "redis+cluster://u:p@a:1,b",
            "rediss://:p@a:1/2",
        ] {
            assert_eq!(read(&[("PRICING_REDIS_URL", url)]).unwrap().redis_url, url);
        }
    }

    #[test]
    fn every_word_of_a_choice_is_understood() {
        for variable in SHARED_VARIABLES {
            let Allowed::OneOf(words) = variable.allowed else { continue };
            for word in words {
                assert!(read(&[(variable.name, word)]).is_ok(), "{}={word}", variable.name);
            }
        }
    }

    /// Variables, and the endpoint that they result in.
    type Case<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>);

    #[test]
    fn the_own_variables_of_traces_win_over_those_of_opentelemetry() {
        const OWN: &str = "PRICING_OTLP_ENDPOINT";
        const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const OWN_HTTP: (&str, &str) = ("PRICING_OTLP_PROTOCOL", "http");
        const HTTP: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        const DISABLED: (&str, &str) = ("OTEL_SDK_DISABLED", "True");
        let cases: [Case<'_>; 16] = [
            (&[], Some("http://127.0.0.1:4317")),
            (&[OWN_HTTP], Some("http://127.0.0.1:4318/v1/traces")),
            (&[HTTP], Some("http://127.0.0.1:4318/v1/traces")),
            (&[HTTP, ("PRICING_OTLP_PROTOCOL", "grpc")], Some("http://127.0.0.1:4317")),
            (&[HTTP, ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")], Some("http://127.0.0.1:4317")),
            (&[(ALL, "http://a:1")], Some("http://a:1")),
            (&[(ALL, "http://a:1"), (TRACES, "http://b:2")], Some("http://b:2")),
            (&[(ALL, "http://a:1"), (TRACES, "http://b:2"), (OWN, "http://c:3")], Some("http://c:3")),
            (&[HTTP, (ALL, "http://a:1/otlp/")], Some("http://a:1/otlp/v1/traces")),
            (&[HTTP, (TRACES, "http://b:2/otlp")], Some("http://b:2/otlp")),
            (&[HTTP, (OWN, "http://c:3")], Some("http://c:3/v1/traces")),
            (&[HTTP, (OWN, "http://c:3/v1/traces/")], Some("http://c:3/v1/traces")),
            (&[(OWN, "off"), (TRACES, "http://b:2")], None),
            (&[DISABLED], None),
            (&[DISABLED, (TRACES, "http://b:2")], None),
            (&[DISABLED, (OWN, "http://c:3")], Some("http://c:3")),
        ];
        for (variables, expected) in cases {
            assert_eq!(read(variables).unwrap().trace.endpoint.as_deref(), expected, "{variables:?}");
        }
        assert_eq!(read(&[]).unwrap().trace.service_name, None);
        assert_eq!(read(&[("OTEL_SERVICE_NAME", "shop")]).unwrap().trace.service_name.unwrap(), "shop");
    }

    #[test]
    fn samplers_have_opentelemetrys_names() {
        let ratio = ("OTEL_TRACES_SAMPLER_ARG", "0.25");
        for (written, follows_parent, expected) in [
            ("", true, 1.0),
            ("always_on", false, 1.0),
            ("always_off", false, 0.0),
            ("traceidratio", false, 0.25),
            ("parentbased_always_on", true, 1.0),
            ("parentbased_always_off", true, 0.0),
            ("parentbased_traceidratio", true, 0.25),
        ] {
            let sampler = read(&[("OTEL_TRACES_SAMPLER", written), ratio]).unwrap().trace.sampler;
            assert_eq!(sampler, TraceSampler { follows_parent, ratio: expected }, "{written}");
        }
    }

    #[test]
    fn a_collector_without_scheme_is_refused_and_its_password_not_shown() {
        for variable in
            ["PRICING_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]
        {
            for wrong in ["user:secret@127.0.0.1:4317", "grpc://user:secret@host", "http://us er:secret@host"]
            {
                let error = read(&[(variable, wrong)]).unwrap_err().to_string();
                assert!(error.contains(variable) && error.contains("http://"), "{error}");
                assert!(!error.contains("secret"), "{error}");
            }
        }
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
        assert!(shown.contains("must be a number from 0 to 1"), "{shown}");
        assert!(!shown.contains("secret"), "{shown}");
    }
}
