//! Health checks: whether a service is alive and ready, and the small HTTP server that reports it.
//!
//! Here: the answer of `/readyz`, what it is made of ([`checks`]), and the background task that measures it
//! and finds a process that is stuck ([`watch`]). Never here: how a fault is mended, which is for
//! connections.
//!
//! `/readyz` says `ready` if every check is passed or gives a warning only, `degraded` (still 200) if one
//! failed, since reads work without Redis or without the database, and `unavailable` (503) if neither
//! answers, or if this version of the engine cannot use the policy that was newest at start-up: a broken
//! rolling upgrade then stops at its first process. `reads` and `writes` say which of them are affected.
//!
//! `/healthz` fails only where a restart helps: a new connection has worked for 30 seconds while the
//! process's own has not.

mod checks;
mod disk;
mod watch;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::access::AccessControl;
use crate::clock::Clock;
use crate::keys::MessageKeys;
use crate::policy_snapshot::Policies;
use crate::processes::{ProcessCount, Processes};
use crate::redis::RedisConnection;
use crate::store::Store;
use crate::telemetry::registry::Registry;
use crate::tz_versions::TzVersions;

use self::checks::FAILED;
pub use self::watch::Liveness;

/// What a service depends on; cheap to clone.
#[derive(Clone)]
pub struct Health {
    /// The service's name.
    pub service: &'static str,
    /// Checked for answers, writes, its role and its settings.
    pub redis: RedisConnection,
    /// The names of what is checked in Redis.
    pub keys: MessageKeys,
    /// Checked for answers and writes, for services that use a database.
    pub store: Option<Store>,
    /// Checked for a policy that cannot be used, for services that use policies.
    pub policies: Option<Policies>,
    /// Checked to be right.
    pub clock: Clock,
    /// Checked to be on, for services that have callers.
    pub access: Option<AccessControl>,
    /// Checked to be the same everywhere, for services that use policies.
    pub tz_versions: Option<TzVersions>,
    /// Checked for a worker and a listener.
    pub processes: Processes,
    /// Whether the process is stuck.
    pub liveness: Liveness,
}

/// The response of `/readyz`.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Readiness {
    /// The service's readiness.
    pub status: ReadinessStatus,
    /// Whether prices can be read.
    pub reads: WorkStatus,
    /// Whether changes are accepted: products, policies, events, and the prices made of them.
    pub writes: WorkStatus,
    /// The service's name.
    pub service: &'static str,
    /// The version of the engine.
    pub version: &'static str,
    /// The version of its time zone database, such as `2026f`; null for services that use none.
    pub tz_version: Option<String>,
    /// The processes that run, this one among them; null while Redis does not answer.
    pub processes: Option<Vec<ProcessCount>>,
    /// The checks.
    pub checks: Vec<Check>,
}

/// The state of a part of a service's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkStatus {
    /// It is done.
    Ok,
    /// All of it, or some, fails.
    Failing,
}

/// The readiness of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadinessStatus {
    /// It can do all of its work.
    Ready,
    /// A check failed; what it can do meanwhile is in `reads` and `writes`.
    Degraded,
    /// It cannot do its work.
    Unavailable,
}

/// The check of a dependency.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Check {
    /// `redis`, `redis_writes`, `redis_settings`, `database`, `database_writes`, `events`, `worker`,
    /// `listener`, `clock` or `time_zones`; or `policy`, if the newest one cannot be used or would be refused
    /// today; or `held_moves`, if the circuit breaker holds moves that market events would make; or `access`,
    /// for the API.
    #[schema(value_type = String)]
    pub name: CheckName,
    /// `ok`, `warning` or `failed`.
    pub status: &'static str,
    /// The version of the dependency, or the problem.
    pub detail: String,
    /// The duration of the check, in milliseconds.
    pub duration_ms: u64,
}

/// The names of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "docs/operations.md says what each is")]
pub enum CheckName {
    Redis,
    RedisWrites,
    RedisSettings,
    Database,
    DatabaseWrites,
    Events,
    Worker,
    Listener,
    Clock,
    TimeZones,
    Policy,
    HeldMoves,
    Access,
}

impl CheckName {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Redis,
        Self::RedisWrites,
        Self::RedisSettings,
        Self::Database,
        Self::DatabaseWrites,
        Self::Events,
        Self::Worker,
        Self::Listener,
        Self::Clock,
        Self::TimeZones,
        Self::Policy,
        Self::HeldMoves,
        Self::Access,
    ];

    /// The name in answers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::RedisWrites => "redis_writes",
            Self::RedisSettings => "redis_settings",
            Self::Database => "database",
            Self::DatabaseWrites => "database_writes",
            Self::Events => "events",
            Self::Worker => "worker",
            Self::Listener => "listener",
            Self::Clock => "clock",
            Self::TimeZones => "time_zones",
            Self::Policy => "policy",
            Self::HeldMoves => "held_moves",
            Self::Access => "access",
        }
    }
}

impl Readiness {
    fn has_failed(&self, name: CheckName) -> bool {
        has_failed(&self.checks, name)
    }
}

fn has_failed(checks: &[Check], name: CheckName) -> bool {
    checks.iter().any(|check| check.name == name && check.status == FAILED)
}

impl Health {
    /// Spawns the background tasks of the checks.
    pub fn spawn_upkeep(&self, tasks: &mut JoinSet<()>, registry: &Registry, shutdown: &CancellationToken) {
        tasks.spawn(self.processes.clone().publish_periodically(shutdown.clone()));
        tasks.spawn(self.clone().watch(registry.clone(), shutdown.clone()));
        if let Some(directory) = self.store.as_ref().and_then(Store::directory) {
            tasks.spawn(disk::measure_periodically(directory, registry.clone(), shutdown.clone()));
        }
    }

    /// Runs all checks concurrently.
    pub async fn readiness(&self) -> Readiness {
        let (checks, processes) = self.run_checks().await;
        let has_failed = |name| has_failed(&checks, name);
        let (redis, database) = (has_failed(CheckName::Redis), has_failed(CheckName::Database));
        let is_unusable = self.policies.as_ref().is_some_and(|policies| policies.unusable().is_some());
        let is_cut_off = redis && (database || self.store.is_none());
        let status = if is_unusable || is_cut_off {
            ReadinessStatus::Unavailable
        } else if checks.iter().any(|check| check.status == FAILED) {
            ReadinessStatus::Degraded
        } else {
            ReadinessStatus::Ready
        };
        let of_writes = [CheckName::RedisWrites, CheckName::RedisSettings, CheckName::DatabaseWrites];
        let writes = redis || database || of_writes.into_iter().any(has_failed);
        let reads = status == ReadinessStatus::Unavailable;
        let tz_version = self.tz_versions.as_ref();
        Readiness {
            status,
            reads: WorkStatus::of(reads),
            writes: WorkStatus::of(writes || is_unusable),
            service: self.service,
            version: env!("CARGO_PKG_VERSION"),
            tz_version: tz_version.map(|versions| versions.database().zones.version().to_string()),
            processes,
            checks,
        }
    }
}

impl WorkStatus {
    fn of(is_failing: bool) -> Self {
        if is_failing { Self::Failing } else { Self::Ok }
    }
}

impl IntoResponse for Readiness {
    fn into_response(self) -> Response {
        let status = match self.status {
            ReadinessStatus::Ready | ReadinessStatus::Degraded => StatusCode::OK,
            ReadinessStatus::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, Json(self)).into_response()
    }
}

/// `/healthz`, `/readyz` and `/metrics`, for services without another HTTP server.
pub fn router(health: Health, registry: Registry) -> Router {
    Router::new()
        .route("/healthz", get(async |State((health, _)): State<(Health, Registry)>| health.liveness))
        .route("/readyz", get(async |State((health, _)): State<(Health, Registry)>| health.readiness().await))
        .route("/metrics", get(async |State((_, registry)): State<(Health, Registry)>| render(&registry)))
        .with_state((health, registry))
}

/// The metrics in the Prometheus text format.
pub fn render(registry: &Registry) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], registry.render()).into_response()
}

/// Serves [`router`] until shutdown.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}
