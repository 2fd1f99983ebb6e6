//! The containers: queries by Docker and Compose, and kills.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, FixedOffset};
use serde_json::Value;

use crate::checkout::Checkout;
use crate::pause::eventually;

/// The time limit of an expected condition.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// The part of a program's output that an error quotes.
const QUOTED_BYTES: usize = 2_000;

/// The stack that docker-compose.yml has started.
pub(super) struct Stack {
    pub(super) checkout: Checkout,
    /// The Compose command.
    pub(super) compose: Vec<String>,
}

impl Stack {
    pub(super) fn new(checkout: Checkout, program: &str, arguments: &[&str]) -> Self {
        let compose = std::iter::once(&program).chain(arguments).map(|part| (*part).to_owned());
        Self { checkout, compose: compose.collect() }
    }

    /// Runs Compose and returns its output.
    pub(super) fn compose(&self, arguments: &[&str]) -> Result<String> {
        let (program, first) = self.compose.split_first().context("no program for Compose")?;
        let mut command = self.checkout.command(program, arguments_of(first, arguments).as_slice());
        output(&mut command)
    }

    /// Returns the identifiers of a service's containers.
    pub(super) fn containers(&self, service: &str) -> Result<Vec<String>> {
        Ok(self.compose(&["ps", "-q", service])?.split_whitespace().map(str::to_owned).collect())
    }

    /// Returns the first container of a service.
    pub(super) fn container(&self, service: &str) -> Result<String> {
        self.containers(service)?.into_iter().next().with_context(|| format!("{service} has no container"))
    }

    fn all_containers(&self) -> Result<Vec<String>> {
        let services = self.compose(&["ps", "--services"])?;
        let of_services = services.split_whitespace().map(|service| self.containers(service));
        Ok(of_services.collect::<Result<Vec<_>>>()?.concat())
    }

    /// Returns the number of containers if all are healthy.
    pub(super) fn all_healthy(&self) -> Result<Option<usize>> {
        let found = self.all_containers()?;
        for container in &found {
            if !is_healthy(container)? {
                return Ok(None);
            }
        }
        Ok(Some(found.len()).filter(|count| *count > 0))
    }

    /// Returns the time from the first start to the last container's first successful health check.
    pub(super) fn healthy_after(&self) -> Result<Duration> {
        let (mut started, mut healthy) = (Vec::new(), Vec::new());
        for container in self.all_containers()? {
            started.push(instant(&inspect(&container, "{{.State.StartedAt}}")?)?);
            let checks: Value = serde_json::from_str(&inspect(&container, "{{json .State.Health.Log}}")?)?;
            let checks = checks.as_array().map(Vec::as_slice).unwrap_or_default();
            let good = checks.iter().filter(|check| check["ExitCode"] == 0);
            let ends = good.map(|check| instant(check["End"].as_str().unwrap_or_default()));
            let ends = ends.collect::<Result<Vec<_>>>()?;
            healthy.push(ends.into_iter().min().with_context(|| format!("{container} was never healthy"))?);
        }
        let last = healthy.into_iter().max().context("there is no container")?;
        let first = started.into_iter().min().context("there is no container")?;
        Ok((last - first).to_std()?)
    }

    /// Kills a container's process from outside; returns how long it takes until the restart policy has
    /// restored it to health.
    pub(super) fn kill_9(&self, service: &str) -> Result<Duration> {
        let container = self.container(service)?;
        let restarts = restarts_of(&container)?;
        // The shell's built-in `kill`: not every system has the program.
        let id = inspect(&container, "{{.State.Pid}}")?;
        output(Command::new("sh").args(["-c", r#"kill -s KILL "$0""#, &id]))?;
        let is_back = || Ok((restarts_of(&container)? > restarts && is_healthy(&container)?).then_some(()));
        Ok(eventually(&format!("{service} is healthy again"), PATIENCE, is_back)?.1)
    }
}

fn arguments_of<'a>(first: &'a [String], then: &[&'a str]) -> Vec<&'a str> {
    first.iter().map(String::as_str).chain(then.iter().copied()).collect()
}

/// Runs a program and returns its output; on failure, an error with the end of its error output.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", end_of(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Returns the end of a program's output.
pub(super) fn end_of(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let said = said.trim();
    let start = said.floor_char_boundary(said.len().saturating_sub(QUOTED_BYTES));
    said.get(start..).unwrap_or_default().to_owned()
}

pub(super) fn inspect(container: &str, template: &str) -> Result<String> {
    Ok(output(Command::new("docker").args(["inspect", "-f", template, container]))?.trim().to_owned())
}

fn is_healthy(container: &str) -> Result<bool> {
    Ok(inspect(container, "{{.State.Health.Status}}")? == "healthy")
}

fn restarts_of(container: &str) -> Result<u64> {
    Ok(inspect(container, "{{.RestartCount}}")?.parse()?)
}

fn instant(written: &str) -> Result<DateTime<FixedOffset>> {
    DateTime::parse_from_rfc3339(written).with_context(|| format!("\"{written}\" is no instant"))
}
