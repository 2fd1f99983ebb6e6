//! Configuration of the API, besides that of all services (`pricing_core::config`).

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use pricing_core::access::AccessMode;
use pricing_core::access::scope::{Scope, Scopes};
use pricing_core::config::{Allowed, ConfigError, Environment, SharedConfig, Variable};
use pricing_core::quote_lock::{MAX_KEYS, QuoteLock, SigningKeys};
use pricing_core::service::ServiceConfig;

use crate::browser::{AllowedHosts, CorsOrigins};

/// The API's own variables.
const VARIABLES: &[Variable] = &[
    LISTEN,
    ADMIN_LISTEN,
    AUTH,
    OPEN_SCOPES,
    MAX_CONNECTIONS,
    MAX_FOLLOWERS_PER_PEER,
    HOSTS,
    CORS_ORIGINS,
    SEED_FILE,
    IMPORT_SPOOL_DIRECTORY,
    IMPORT_SPOOL_LIMIT_BYTES,
    QUOTE_LOCK_KEY_FILE,
    QUOTE_LOCK_TTL_S,
    PERSONALISATION_DISCLOSURE,
];

const LISTEN: Variable = Variable {
    name: "PRICING_API_LISTEN",
    default: "127.0.0.1:8000",
    allowed: Allowed::Socket,
    used_by: "API",
    text: "Address to serve on.",
    is_secret: false,
};

const ADMIN_LISTEN: Variable = Variable {
    name: "PRICING_ADMIN_LISTEN",
    default: "",
    allowed: Allowed::Text("an address and a port, such as 127.0.0.1:8001"),
    used_by: "API",
    text: "Address of a second listener, which serves all routes; PRICING_API_LISTEN then serves prices and \
           health only.",
    is_secret: false,
};

const AUTH: Variable = Variable {
    name: "PRICING_AUTH",
    default: "auto",
    allowed: Allowed::OneOf(&["auto", "on", "off"]),
    used_by: "API",
    text: "Whether callers need an access key. auto: once a key was created; until then the API refuses to \
           start on an address beyond loopback. on: always. off: never, so that every caller may do everything.",
    is_secret: false,
};

const OPEN_SCOPES: Variable = Variable {
    name: "PRICING_OPEN_SCOPES",
    default: "",
    allowed: Allowed::Text("prices:read, metrics:read, or both, separated by commas"),
    used_by: "API",
    text: "What every caller may do without an access key.",
    is_secret: false,
};

const MAX_CONNECTIONS: Variable = Variable {
    name: "PRICING_API_MAX_CONNECTIONS",
    default: "4096",
    allowed: Allowed::Whole(1..=1_000_000),
    used_by: "API",
    text: "Connections served at the same time. When they are taken, the one that has been idle for the \
           longest time makes room; probes of health and metrics are always answered.",
    is_secret: false,
};

/// Public because the error of a refused follower names it.
pub const MAX_FOLLOWERS_PER_PEER: Variable = Variable {
    name: "PRICING_API_MAX_FOLLOWERS_PER_PEER",
    default: "64",
    allowed: Allowed::Whole(1..=256),
    used_by: "API",
    text: "Clients of one address that follow price changes at the same time; 256 in all. Behind a gateway, all \
           clients have the gateway's address.",
    is_secret: false,
};

const HOSTS: Variable = Variable {
    name: "PRICING_HOSTS",
    default: "",
    allowed: Allowed::Text(
        "names or addresses, with or without port, separated by commas, such as pricing.example.com",
    ),
    used_by: "API",
    text: "Names and addresses that clients call the API by, beside those of loopback.",
    is_secret: false,
};

const CORS_ORIGINS: Variable = Variable {
    name: "PRICING_CORS_ORIGINS",
    default: "",
    allowed: Allowed::Text("origins separated by commas, such as https://shop.example.com"),
    used_by: "API",
    text: "Origins whose pages may ask for prices.",
    is_secret: false,
};

const SEED_FILE: Variable = Variable {
    name: "PRICING_SEED_FILE",
    default: "",
    allowed: Allowed::Text("the path of a CSV file"),
    used_by: "API",
    text: "Products to import at the start if the catalogue is empty.",
    is_secret: false,
};

const IMPORT_SPOOL_DIRECTORY: Variable = Variable {
    name: "PRICING_IMPORT_SPOOL_DIRECTORY",
    default: "",
    allowed: Allowed::Text("the path of a directory"),
    used_by: "API",
    text: "Where an import is kept while a circuit breaker judges it, in a file without a name. If it is \
           unset, the system's temporary directory is used.",
    is_secret: false,
};

/// Public because the error of a longer import names it.
pub const IMPORT_SPOOL_LIMIT_BYTES: Variable = Variable {
    name: "PRICING_IMPORT_SPOOL_LIMIT_BYTES",
    default: "1073741824",
    allowed: Allowed::Whole(1..=4_294_967_296),
    used_by: "API",
    text: "The longest import that a circuit breaker judges, in bytes. Four at a time are kept on disk.",
    is_secret: false,
};

/// Public because the error of a request for a lock names it.
pub const QUOTE_LOCK_KEY_FILE: Variable = Variable {
    name: "PRICING_QUOTE_LOCK_KEY_FILE",
    default: "",
    allowed: Allowed::Text("paths of PEM files, each with a private key of Ed25519, separated by commas"),
    used_by: "API",
    text: "The keys of quote locks: the first signs, the public keys of all are published. `pricing quote \
           new-key` creates one.",
    is_secret: false,
};

const QUOTE_LOCK_TTL_S: Variable = Variable {
    name: "PRICING_QUOTE_LOCK_TTL_S",
    default: "900",
    allowed: Allowed::Whole(1..=86_400),
    used_by: "API",
    text: "Seconds that a quote lock lasts at most. It never lasts longer than the price it is for.",
    is_secret: false,
};

const PERSONALISATION_DISCLOSURE: Variable = Variable {
    name: "PRICING_PERSONALISATION_DISCLOSURE",
    default: "This price was personalised on the basis of automated decision-making.",
    allowed: Allowed::Text("a text of up to 2000 bytes"),
    used_by: "API",
    text: "The text for shoppers beside a personalised price; GET /api/v1/personalisation has it.",
    is_secret: false,
};

/// The longest disclosure, in bytes.
const MAX_DISCLOSURE_BYTES: usize = 2_000;

/// The longest file of a key, in bytes.
const MAX_KEY_FILE_BYTES: u64 = 16_384;

/// The configuration of the API.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// The address to serve on.
    pub listen: SocketAddr,
    /// The address of the listener that serves all routes, if prices have one of their own.
    pub admin_listen: Option<SocketAddr>,
    /// Whether callers need an access key.
    pub auth: AccessMode,
    /// What every caller may do without one.
    pub open_scopes: OpenScopes,
    /// Connections served at the same time.
    pub max_connections: usize,
    /// Followers of price changes of one peer.
    pub max_followers_per_peer: usize,
    /// Host names of the API besides loopback's.
    pub hosts: AllowedHosts,
    /// Origins whose pages may request prices.
    pub cors_origins: CorsOrigins,
    /// A file of products to import if the catalogue is empty.
    pub seed_file: Option<String>,
    /// Where imports are kept while a circuit breaker judges them.
    pub import_spool_directory: PathBuf,
    /// The longest import that is kept there.
    pub import_spool_limit_bytes: u64,
    /// Signs quote locks, if there is a key.
    pub quote_lock: Option<Arc<QuoteLock>>,
    /// The text for shoppers beside a personalised price.
    pub personalisation_disclosure: String,
    /// The configuration that all services share.
    pub shared: SharedConfig,
}

impl ApiConfig {
    /// Reads the environment through `lookup`; reports all problems at once.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut environment = Environment::new(lookup);
        let config = Self::of(&mut environment);
        environment.finish(config)
    }

    fn of(environment: &mut Environment<'_>) -> Option<Self> {
        let (listen, max_connections) = (environment.read(&LISTEN), environment.read(&MAX_CONNECTIONS));
        let max_followers_per_peer = environment.read(&MAX_FOLLOWERS_PER_PEER);
        let (hosts, cors_origins) = (environment.read(&HOSTS), environment.read(&CORS_ORIGINS));
        let (auth, open_scopes) = (environment.read(&AUTH), environment.read(&OPEN_SCOPES));
        let admin_listen = read_admin_listen(environment);
        let seed_file = environment.optional(&SEED_FILE);
        let import_spool_directory = environment.optional(&IMPORT_SPOOL_DIRECTORY).map(PathBuf::from);
        let import_spool_limit_bytes = environment.read(&IMPORT_SPOOL_LIMIT_BYTES);
        let quote_lock = read_quote_lock(environment);
        let disclosure = read_disclosure(environment);
        let shared = SharedConfig::read(environment);
        Some(Self {
            listen: listen?,
            admin_listen: admin_listen?,
            auth: auth?,
            open_scopes: open_scopes?,
            max_connections: max_connections?,
            max_followers_per_peer: max_followers_per_peer?,
            hosts: hosts?,
            cors_origins: cors_origins?,
            seed_file,
            import_spool_directory: import_spool_directory.unwrap_or_else(std::env::temp_dir),
            import_spool_limit_bytes: import_spool_limit_bytes?,
            quote_lock: quote_lock?,
            personalisation_disclosure: disclosure?,
            shared: shared?,
        })
    }
}

/// The address of the second listener; `Some(None)` if there is none.
#[expect(clippy::option_option, reason = "an invalid value is another thing than none")]
fn read_admin_listen(environment: &mut Environment<'_>) -> Option<Option<SocketAddr>> {
    let Some(written) = environment.optional(&ADMIN_LISTEN) else { return Some(None) };
    match written.trim().parse() {
        Ok(address) => Some(Some(address)),
        Err(_) => {
            environment.refuse(&ADMIN_LISTEN, written, ADMIN_LISTEN.allowed.to_string());
            None
        }
    }
}

/// What signs quote locks; `Some(None)` if there is no key.
#[expect(clippy::option_option, reason = "an invalid value is another thing than none")]
fn read_quote_lock(environment: &mut Environment<'_>) -> Option<Option<Arc<QuoteLock>>> {
    let ttl_s = environment.read(&QUOTE_LOCK_TTL_S);
    let Some(written) = environment.optional(&QUOTE_LOCK_KEY_FILE) else { return ttl_s.map(|_| None) };
    match read_keys(&written) {
        Ok(keys) => Some(Some(Arc::new(QuoteLock::new(keys, Duration::from_secs(ttl_s?))))),
        Err(problem) => {
            let allowed = format!("{}; {problem}", QUOTE_LOCK_KEY_FILE.allowed);
            environment.refuse(&QUOTE_LOCK_KEY_FILE, written, allowed);
            None
        }
    }
}

/// The keys in the files of this list; an error says which file has which problem.
fn read_keys(list: &str) -> Result<SigningKeys, String> {
    let paths: Vec<&str> = list.split(',').map(str::trim).take(MAX_KEYS + 1).collect();
    let mut texts = Vec::new();
    for path in &paths {
        let problem = |error: std::io::Error| format!("{path}: {error}");
        let mut text = Vec::new();
        let file = File::open(path).map_err(problem)?;
        file.take(MAX_KEY_FILE_BYTES).read_to_end(&mut text).map_err(problem)?;
        // Each alone first, so that the error names the file.
        SigningKeys::from_pem(&[&text]).map_err(|error| format!("{path}: {error}"))?;
        texts.push(text);
    }
    SigningKeys::from_pem(&texts).map_err(|error| error.to_string())
}

fn read_disclosure(environment: &mut Environment<'_>) -> Option<String> {
    let written: String = environment.read(&PERSONALISATION_DISCLOSURE)?;
    if written.len() > MAX_DISCLOSURE_BYTES {
        let value = format!("{} bytes", written.len());
        environment.refuse(
            &PERSONALISATION_DISCLOSURE,
            value,
            PERSONALISATION_DISCLOSURE.allowed.to_string(),
        );
        return None;
    }
    Some(written)
}

/// What every caller may do without an access key: from `PRICING_OPEN_SCOPES`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenScopes(pub Scopes);

impl FromStr for OpenScopes {
    type Err = ();

    /// Accepts what shops show to everybody, and what monitoring reads.
    fn from_str(written: &str) -> Result<Self, ()> {
        let scopes: Scopes = written.parse().map_err(drop)?;
        let may_be_open: Scopes = [Scope::PricesRead, Scope::MetricsRead].into_iter().collect();
        if may_be_open.includes(scopes) { Ok(Self(scopes)) } else { Err(()) }
    }
}

impl ServiceConfig for ApiConfig {
    const SUMMARY: &'static str = "answers price requests and takes in changes, over HTTP";
    const VARIABLES: &'static [Variable] = VARIABLES;

    fn listen(&self) -> SocketAddr {
        self.listen
    }

    fn shared(&self) -> &SharedConfig {
        &self.shared
    }
}
