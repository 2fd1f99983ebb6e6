//! Health checks: whether a service is alive and ready, and the small HTTP server that reports it.
//!
//! `/healthz` answers while the process runs. `/readyz` checks the database and Redis, each within a time
//! limit: `ready` if both answer, `degraded` (still 200) if only one does, since reads work without the
//! other, and `unavailable` (503) if neither does, or if this version of the engine cannot use the policy
//! that was newest at start-up: a broken rolling upgrade then stops at its first process. Processes with
//! different versions of the time zone database are `degraded`, too, and one whose clock is wrong. Moves of
//! prices that the circuit breaker holds are a warning: the service does its work, and someone has to decide.

use std::future::Future;
use std::time::{Duration, Instant};

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::policy_snapshot::Policies;
use crate::redis::RedisConnection;
use crate::store::Store;
use crate::telemetry::registry::Registry;
use crate::tz_versions::TzVersions;

/// Time limit of one check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// The dependencies of a service; cheap to clone.
#[derive(Clone)]
pub struct Health {
    /// The service's name.
    pub service: &'static str,
    /// Checked as `redis`.
    pub redis: RedisConnection,
    /// Checked as `database`, for services that use one.
    pub store: Option<Store>,
    /// Reported as `policy` if the newest one cannot be used, for services that use policies.
    pub policies: Option<Policies>,
    /// Checked as `clock`.
    pub clock: Clock,
    /// Checked as `time_zones`, for services that use policies.
    pub tz_versions: Option<TzVersions>,
}

/// The response of `/readyz`.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Readiness {
    /// The service's readiness.
    pub status: ReadinessStatus,
    /// The service's name.
    pub service: &'static str,
    /// The version of the engine.
    pub version: &'static str,
    /// The version of its time zone database, such as `2026f`; null for services that use none.
    pub tz_version: Option<String>,
    /// The checks.
    pub checks: Vec<Check>,
}

/// The readiness of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadinessStatus {
    /// It can do all of its work.
    Ready,
    /// It can do part of its work, or its clock is wrong, or other processes use another time zone
    /// database.
    Degraded,
    /// It cannot do its work.
    Unavailable,
}

/// The check of a dependency.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Check {
    /// `redis`, `database`, `clock` or `time_zones`; or `policy`, if the newest one cannot be used or would
    /// be refused today; or `held_moves`, if the circuit breaker holds moves that market events would make.
    pub name: &'static str,
    /// `ok`, `warning` or `failed`.
    pub status: &'static str,
    /// The version of the dependency, or the problem.
    pub detail: String,
    /// The duration of the check, in milliseconds.
    pub duration_ms: u64,
}

impl Health {
    /// Runs all checks concurrently.
    pub async fn readiness(&self) -> Readiness {
        let redis =
            check("redis", async { self.redis.version().await.map(|version| format!("redis {version}")) });
        let database = async {
            match &self.store {
                Some(store) => Some(check("database", describe(store)).await),
                None => None,
            }
        };
        let (redis, database, held_moves) = tokio::join!(redis, database, self.held_moves());
        let mut checks: Vec<Check> = std::iter::once(redis).chain(database).collect();
        let working = checks.iter().filter(|check| check.status == "ok").count();
        let unusable = self.policies.as_ref().and_then(Policies::unusable);
        let status = match working {
            _ if unusable.is_some() => ReadinessStatus::Unavailable,
            0 => ReadinessStatus::Unavailable,
            some if some < checks.len() => ReadinessStatus::Degraded,
            _ => ReadinessStatus::Ready,
        };
        let found = |name, status, detail| Check { name, status, detail, duration_ms: 0 };
        let outdated = self.policies.as_ref().and_then(Policies::outdated);
        let of_policy = unusable.map(|detail| ("failed", detail));
        let of_policy = of_policy.or(outdated.map(|detail| ("warning", detail)));
        checks.extend(of_policy.map(|(status, detail)| found("policy", status, detail)));
        checks.extend(held_moves.map(|detail| found("held_moves", "warning", detail)));
        let time_zones = self.tz_versions.as_ref().map(time_zones);
        let clock = self.clock.fault();
        let status = match &time_zones {
            _ if clock.is_some() && status == ReadinessStatus::Ready => ReadinessStatus::Degraded,
            Some(("failed", _)) if status == ReadinessStatus::Ready => ReadinessStatus::Degraded,
            _ => status,
        };
        let clock = clock.map_or(("ok", "is right".to_owned()), |fault| ("failed", fault));
        checks.push(found("clock", clock.0, clock.1));
        checks.extend(time_zones.map(|(status, detail)| found("time_zones", status, detail)));
        let tz_version =
            self.tz_versions.as_ref().map(|versions| versions.database().zones.version().to_string());
        Readiness { status, service: self.service, version: env!("CARGO_PKG_VERSION"), tz_version, checks }
    }

    /// Says how many moves wait for a decision, if any do and the database answers.
    async fn held_moves(&self) -> Option<String> {
        let counting = tokio::time::timeout(CHECK_TIMEOUT, self.store.as_ref()?.count_held_moves());
        let held = counting.await.ok()?.ok().filter(|held| *held > 0)?;
        Some(format!(
            "moves of prices by market events that wait for a decision: {held} (pricing approve lists them)"
        ))
    }
}

/// Checks that all processes use the same time zone database, and returns this process's version.
fn time_zones(versions: &TzVersions) -> (&'static str, String) {
    let (own, others) = (versions.database().to_string(), versions.others());
    if others.is_empty() {
        return ("ok", own);
    }
    ("failed", format!("{own}; other processes use {}", others.join(", ")))
}

async fn describe(store: &Store) -> Result<String, crate::store::StoreError> {
    Ok(format!("{} {}", store.kind(), store.version().await?))
}

async fn check<E: std::fmt::Display>(
    name: &'static str,
    answer: impl Future<Output = Result<String, E>>,
) -> Check {
    let started = Instant::now();
    let (status, detail) = match tokio::time::timeout(CHECK_TIMEOUT, answer).await {
        Ok(Ok(detail)) => ("ok", detail),
        Ok(Err(error)) => ("failed", error.to_string()),
        Err(_) => ("failed", format!("no answer within {} s", CHECK_TIMEOUT.as_secs())),
    };
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Check { name, status, detail, duration_ms }
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
        .route("/healthz", get(async || "alive\n"))
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
