//! A background task that measures the checks, and finds a process that only a restart helps.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::checks::{CHECK_TIMEOUT, FAILED, WARNING, limited};
use super::{CheckName, Health, Readiness};
use crate::telemetry::inventory::names::CHECK_STATUS;
use crate::telemetry::registry::Registry;

/// The interval of measurements.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long a new connection has to work while the process's own does not, until the process is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Whether a process is stuck; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Liveness {
    is_stuck: Arc<AtomicBool>,
}

/// Since when this process alone has been cut off.
#[derive(Debug, Default)]
struct Isolation {
    since: Option<Instant>,
}

impl Isolation {
    /// Whether only a restart helps, with what was seen now: whether a new connection works and the process's
    /// own does not.
    fn is_stuck(&mut self, is_alone: bool, now: Instant) -> bool {
        self.since = is_alone.then(|| self.since.unwrap_or(now));
        self.since.is_some_and(|since| now.duration_since(since) >= STUCK_AFTER)
    }
}

impl IntoResponse for Liveness {
    fn into_response(self) -> Response {
        if self.is_stuck.load(Ordering::Relaxed) {
            let stuck = "stuck: a new connection works and the process's own does not; restart it\n";
            return (StatusCode::SERVICE_UNAVAILABLE, stuck).into_response();
        }
        "alive\n".into_response()
    }
}

impl Health {
    /// Measures the checks every five seconds until shutdown, and notes when the process is stuck.
    pub async fn watch(self, registry: Registry, shutdown: CancellationToken) {
        let mut isolation = Isolation::default();
        let (mut reported, mut logged) = (BTreeSet::new(), None);
        loop {
            let readiness = self.readiness().await;
            record(&registry, &readiness, &mut reported);
            log_settings(&readiness, &mut logged);
            let is_alone = self.is_cut_off_alone(&readiness).await;
            let is_stuck = isolation.is_stuck(is_alone, Instant::now());
            if is_stuck && !self.liveness.is_stuck.load(Ordering::Relaxed) {
                tracing::error!("stuck: a new connection works and the process's own does not");
            }
            self.liveness.is_stuck.store(is_stuck, Ordering::Relaxed);
            if shutdown.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
                return;
            }
        }
    }

    /// Whether a connection of this process fails where a new one works.
    async fn is_cut_off_alone(&self, readiness: &Readiness) -> bool {
        if readiness.has_failed(CheckName::Redis) || readiness.has_failed(CheckName::RedisWrites) {
            let keys = self.keys.write_checks();
            // Within the time of the check that failed: a slow server is not the process's fault.
            let afresh = self.redis.with_own_writes();
            if limited(afresh.check_writes(&keys, |number| self.keys.write_check(number))).await.is_ok() {
                return true;
            }
        }
        match &self.store {
            Some(store) if readiness.has_failed(CheckName::Database) => {
                tokio::time::timeout(CHECK_TIMEOUT, store.answers_a_new_connection()).await.unwrap_or(false)
            }
            _ => false,
        }
    }
}

/// Logs what is wrong with Redis' settings, at the start and whenever it becomes better or worse.
fn log_settings(readiness: &Readiness, logged: &mut Option<&'static str>) {
    let check = readiness.checks.iter().find(|check| check.name == CheckName::RedisSettings);
    let status = check.map(|check| check.status);
    if let Some(check) = check
        && *logged != status
    {
        tracing::warn!(detail = check.detail, "the settings or limits of redis put events or writes at risk");
    }
    // A server that does not answer says nothing of its settings.
    if check.is_some() || !readiness.has_failed(CheckName::Redis) {
        *logged = status;
    }
}

/// Sets the gauge of each check: 0 passed, 1 a warning, 2 failed. A check that was reported before and is not
/// any more, as some are reported only if they find something, is 0.
fn record(registry: &Registry, readiness: &Readiness, reported: &mut BTreeSet<CheckName>) {
    let present: BTreeSet<CheckName> = readiness.checks.iter().map(|check| check.name).collect();
    for name in reported.difference(&present) {
        registry.labelled_gauge(CHECK_STATUS, "check", name.as_str()).set(0);
    }
    reported.extend(present);
    for check in &readiness.checks {
        let status = match check.status {
            FAILED => 2,
            WARNING => 1,
            _ => 0,
        };
        registry.labelled_gauge(CHECK_STATUS, "check", check.name.as_str()).set(status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_stuck_once_it_alone_has_been_cut_off_for_thirty_seconds() {
        // What was seen after so many seconds, and whether the process is stuck then.
        let looks = [
            (0, true, false),
            (29, true, false),
            // Nothing works for new connections either: the server is away.
            (30, false, false),
            (31, true, false),
            (60, true, false),
            (61, true, true),
            (90, true, true),
            (91, false, false),
            (92, true, false),
        ];
        let (mut isolation, start) = (Isolation::default(), Instant::now());
        for (second, is_alone, expected) in looks {
            let now = start + Duration::from_secs(second);
            assert_eq!(isolation.is_stuck(is_alone, now), expected, "after {second} s");
        }
    }

    #[test]
    fn liveness_says_so_with_its_status() {
        let liveness = Liveness::default();
        assert_eq!(liveness.clone().into_response().status(), StatusCode::OK);
        liveness.is_stuck.store(true, Ordering::Relaxed);
        assert_eq!(liveness.into_response().status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
