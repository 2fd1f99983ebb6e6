//! The checks of `/readyz`: each within a time limit, all at once.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use super::{Check, CheckName, Health};
use crate::access::{AccessControl, AccessMode};
use crate::events::oldest::oldest_wait;
use crate::policy_snapshot::Policies;
use crate::processes::ProcessCount;
use crate::redis::{RedisError, ServerInfo};
use crate::store::{Store, StoreError};
use crate::tz_versions::TzVersions;

pub(super) const OK: &str = "ok";
pub(super) const WARNING: &str = "warning";
pub(super) const FAILED: &str = "failed";

/// Time limit of one check.
pub(super) const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// An event that has waited for longer is not being applied.
const LONGEST_EVENT_WAIT: Duration = Duration::from_secs(60);
/// The services that every installation needs, besides an API.
const NEEDED_SERVICES: [(CheckName, &str); 2] =
    [(CheckName::Worker, "pricing-worker"), (CheckName::Listener, "pricing-listener")];

impl Check {
    fn found(name: CheckName, status: &'static str, detail: String) -> Self {
        Self { name, status, detail, duration_ms: 0 }
    }
}

/// Whether callers need a key, and whether keys that were revoked are known to be.
fn access(control: &AccessControl) -> Check {
    let active = control.keys.active();
    let (status, detail) = match control.mode {
        AccessMode::Off => (WARNING, "is off (PRICING_AUTH=off): every caller may do everything".to_owned()),
        _ if control.keys.is_stale() => {
            (WARNING, "the keys cannot be read from the database: none can be revoked meanwhile".to_owned())
        }
        _ if control.is_on() && active == 0 => {
            (WARNING, "callers need a key, and none is in use: create one".to_owned())
        }
        _ if control.is_on() => (OK, format!("callers need a key; {active} are in use")),
        _ => (OK, "no key exists: every program on this host may do everything".to_owned()),
    };
    Check::found(CheckName::Access, status, detail)
}

impl Health {
    /// The checks, and the processes that run; `None` while Redis does not say.
    pub(super) async fn run_checks(&self) -> (Vec<Check>, Option<Vec<ProcessCount>>) {
        let (mut checks, database, events, processes, held_moves) = tokio::join!(
            self.check_redis(),
            self.check_database(),
            self.check_events(),
            limited(self.processes.publish()),
            self.held_moves()
        );
        checks.extend(database);
        checks.extend(events);
        let processes = processes.ok();
        checks.extend(processes.iter().flat_map(|running| needed_services(running)));
        let clock = self.clock.fault();
        let clock = clock.map_or((OK, "is right".to_owned()), |fault| (FAILED, fault));
        checks.push(Check::found(CheckName::Clock, clock.0, clock.1));
        checks.extend(self.tz_versions.as_ref().map(time_zones));
        let policies = self.policies.as_ref();
        let unusable = policies.and_then(Policies::unusable).map(|detail| (FAILED, detail));
        let of_policy = unusable.or_else(|| Some((WARNING, policies.and_then(Policies::outdated)?)));
        checks.extend(of_policy.map(|(status, detail)| Check::found(CheckName::Policy, status, detail)));
        checks.extend(held_moves.map(|detail| Check::found(CheckName::HeldMoves, WARNING, detail)));
        checks.extend(self.access.as_ref().map(access));
        (checks, processes)
    }

    /// Checks that Redis answers, takes writes, is a master, and is set up not to lose events.
    async fn check_redis(&self) -> Vec<Check> {
        let asked = limited(self.redis.server_infos());
        let write_keys = self.keys.write_checks();
        let (started, (info, writes)) = (
            Instant::now(),
            tokio::join!(asked, measured(CheckName::RedisWrites, self.write_to_redis(&write_keys))),
        );
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let answered = match &info {
            Ok(Some(infos)) => software(infos),
            Ok(None) => (OK, "answers; this user may not run INFO, so it is not known what it is".to_owned()),
            Err(error) => (FAILED, error.clone()),
        };
        let mut checks =
            vec![Check { name: CheckName::Redis, status: answered.0, detail: answered.1, duration_ms }];
        checks.push(writes);
        let infos = info.ok().flatten().unwrap_or_default();
        let eviction: Vec<String> = infos.iter().filter_map(eviction).collect();
        let status = if eviction.is_empty() { WARNING } else { FAILED };
        let found: Vec<String> = eviction.into_iter().chain(infos.iter().flat_map(risks)).collect();
        if !found.is_empty() {
            checks.push(Check::found(CheckName::RedisSettings, status, found.join("; ")));
        }
        checks
    }

    async fn write_to_redis(&self, keys: &[String]) -> Result<String, RedisError> {
        let of_master = |number| self.keys.write_check(number);
        self.redis.check_writes(keys, of_master).await.map(|()| "accepted".to_owned())
    }

    /// Checks that the database answers, and that it takes writes.
    async fn check_database(&self) -> Vec<Check> {
        let Some(store) = &self.store else { return Vec::new() };
        let (answers, writes) =
            tokio::join!(measured(CheckName::Database, describe(store)), limited(store.check_writes()));
        let writes = match writes {
            Ok(()) => (OK, "accepted".to_owned()),
            // The only writer of a file is busy with a long write.
            Err(error) if store.kind() == "sqlite" && error == no_answer() => (OK, "busy".to_owned()),
            Err(error) => (FAILED, error),
        };
        vec![answers, Check::found(CheckName::DatabaseWrites, writes.0, writes.1)]
    }

    /// Checks that no event has waited for long; `None` if Redis does not say.
    async fn check_events(&self) -> Option<Check> {
        let oldest = limited(oldest_wait(&self.redis, &self.keys)).await.ok()?;
        let waits = oldest.filter(|wait| *wait > LONGEST_EVENT_WAIT);
        Some(match waits {
            None => Check::found(CheckName::Events, OK, "none waits for long".to_owned()),
            Some(wait) => {
                let detail = format!("the oldest event has waited for {} s", wait.as_secs());
                Check::found(CheckName::Events, FAILED, detail)
            }
        })
    }

    /// Says how many moves wait for a decision, if any do and the database answers.
    async fn held_moves(&self) -> Option<String> {
        let held = limited(self.store.as_ref()?.count_held_moves()).await;
        let held = held.ok().filter(|held| *held > 0)?;
        Some(format!(
            "moves of prices by market events that wait for a decision: {held} (pricing approve lists them)"
        ))
    }
}

/// The software of the server, or of the masters of a cluster, and what is wrong with them.
fn software(infos: &[ServerInfo]) -> (&'static str, String) {
    let mut software: Vec<&str> = infos.iter().map(|info| info.software.as_str()).collect();
    software.sort_unstable();
    software.dedup();
    let mut software = software.join(", ");
    if infos.iter().any(|info| info.node.is_some()) {
        software = format!("{software}, a cluster of {} masters", infos.len());
    }
    let faults: Vec<String> =
        infos.iter().filter_map(|info| info.fault().map(|fault| of_node(info, &fault))).collect();
    if faults.is_empty() { (OK, software) } else { (FAILED, format!("{software}: {}", faults.join("; "))) }
}

fn eviction(info: &ServerInfo) -> Option<String> {
    info.eviction().map(|eviction| of_node(info, &eviction))
}

fn risks(info: &ServerInfo) -> Vec<String> {
    info.risks().into_iter().map(|risk| of_node(info, &risk)).collect()
}

fn of_node(info: &ServerInfo, what: &str) -> String {
    info.node.as_ref().map_or_else(|| what.to_owned(), |node| format!("{node}: {what}"))
}

/// Checks that a worker and a listener run.
fn needed_services(running: &[ProcessCount]) -> Vec<Check> {
    let needed = NEEDED_SERVICES.iter().map(|(name, needed)| {
        let of_service = running.iter().filter(|count| count.service == *needed);
        match of_service.map(|count| count.running).sum() {
            0_usize => Check::found(*name, FAILED, format!("no {needed} runs, so market events wait")),
            running => Check::found(*name, OK, format!("{running} running")),
        }
    });
    needed.collect()
}

/// Checks that all processes use the same time zone database, and returns this process's version.
fn time_zones(versions: &TzVersions) -> Check {
    let (own, others) = (versions.database().to_string(), versions.others());
    if others.is_empty() {
        return Check::found(CheckName::TimeZones, OK, own);
    }
    let detail = format!("{own}; other processes use {}", others.join(", "));
    Check::found(CheckName::TimeZones, FAILED, detail)
}

async fn describe(store: &Store) -> Result<String, StoreError> {
    Ok(format!("{} {}", store.kind(), store.version().await?))
}

fn no_answer() -> String {
    format!("no answer within {} s", CHECK_TIMEOUT.as_secs())
}

/// The answer, or the message of its error, or that there was none in time.
pub(super) async fn limited<T, E: Display>(answer: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(CHECK_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(no_answer()),
    }
}

async fn measured<E: Display>(name: CheckName, answer: impl Future<Output = Result<String, E>>) -> Check {
    let started = Instant::now();
    let (status, detail) = match limited(answer).await {
        Ok(detail) => (OK, detail),
        Err(error) => (FAILED, error),
    };
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Check { name, status, detail, duration_ms }
}
