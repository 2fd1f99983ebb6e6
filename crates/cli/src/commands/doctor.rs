//! `pricing doctor`: checks everything that the engine needs, with advice for each problem.
//!
//! Here: the findings and how they are shown. The next step for each check of the API is in [`advice`], the
//! comparison of prices in [`prices`].

mod advice;
mod prices;

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anstyle::AnsiColor;
use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;
use pricing_domain::facts::time_zone::TzVersion;
use pricing_wire::price_difference::PriceDifferenceAnswer;
use reqwest::header::DATE;
use serde::{Deserialize, Serialize};

use crate::client::{Answer, ApiAddress, Client, ClientError};
use crate::output::{self, paint};

/// The largest accepted difference of the clocks. The API's clock is known in whole seconds only.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(2);
/// The API's name for the check of its time zone database, whose detail begins with the version.
const TIME_ZONES: &str = "time_zones";
/// The name of the finding about this program's clock; that about the API's is `clock`.
const OWN_CLOCK: &str = "own_clock";
/// This program's version.
const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The API to check.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Also compare all prices that are served with those that are stored
    #[arg(long)]
    prices: bool,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiAddress,
}

/// The outcome of one check.
#[derive(Debug, Serialize)]
struct Finding {
    name: String,
    status: Status,
    detail: String,
    /// Advice on how to resolve it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
    /// The prices that are served and are not the stored ones; the first of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differences: Vec<PriceDifferenceAnswer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Ok,
    /// A problem that does not stop the engine.
    Warning,
    Failed,
}

/// The API's readiness report.
#[derive(Debug, Deserialize)]
struct Readiness {
    version: String,
    /// Absent in answers of older versions, as the next two.
    reads: Option<String>,
    writes: Option<String>,
    processes: Option<Vec<ReportedProcesses>>,
    checks: Vec<ReportedCheck>,
}

/// The processes of a service and version.
#[derive(Debug, Deserialize)]
struct ReportedProcesses {
    service: String,
    version: String,
    running: usize,
}

/// The API's report on one dependency.
#[derive(Debug, Deserialize)]
struct ReportedCheck {
    name: String,
    status: String,
    detail: String,
    duration_ms: u64,
}

impl Finding {
    fn ok(name: &str, detail: String) -> Self {
        Self { name: name.to_owned(), status: Status::Ok, detail, advice: None, differences: Vec::new() }
    }

    fn bad(name: &str, status: Status, detail: String, advice: &str) -> Self {
        Self {
            name: name.to_owned(),
            status,
            detail,
            advice: Some(advice.to_owned()),
            differences: Vec::new(),
        }
    }
}

/// Runs the checks, and shows the findings.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let (mut findings, reachable) = examine(&arguments).await?;
    if arguments.prices && reachable {
        let compared = prices::compare(&Client::new(&arguments.api)?).await;
        findings.push(compared.unwrap_or_else(|error| {
            let advice = "the comparison needs the database and Redis: see the findings above";
            Finding::bad("prices", Status::Failed, error.to_string(), advice)
        }));
    }
    if arguments.json {
        output::show(&serde_json::to_string(&findings)?)?;
    } else {
        output::show_coloured(&render(&findings))?;
    }
    Ok(match findings.iter().any(|finding| finding.status == Status::Failed) {
        _ if !reachable => ExitCode::from(output::UNREACHABLE),
        true => ExitCode::from(output::FAILED),
        false => ExitCode::SUCCESS,
    })
}

/// All findings, and whether the API could be reached.
async fn examine(arguments: &Arguments) -> Result<(Vec<Finding>, bool), ClientError> {
    let client = Client::new(&arguments.api)?;
    let answer = match client.send_for_any_status(client.get(&["readyz"])).await {
        Ok(answer) => answer,
        Err(ClientError::Unreachable { url, reason }) => {
            let advice = "start it with `pricing up`, or name another with --url or PRICING_URL";
            let finding =
                Finding::bad("api", Status::Failed, format!("no answer from {url} ({reason})"), advice);
            return Ok((vec![finding], false));
        }
        Err(error) => return Err(error),
    };
    let mut findings = match client.read::<Readiness>(&answer) {
        Ok(readiness) => {
            let mut findings = vec![Finding::ok("api", format!("{} answers", arguments.api.url))];
            findings.push(version(&readiness.version));
            findings.extend(work(&readiness));
            findings.extend(readiness.processes.as_deref().map(processes));
            findings.extend(readiness.checks.iter().map(dependency));
            findings
        }
        Err(error) => {
            let advice = "is it the pricing API that answers there?";
            vec![Finding::bad("api", Status::Failed, error.to_string(), advice)]
        }
    };
    findings.extend(clock(&answer, SystemTime::now()));
    Ok((findings, true))
}

fn version(api_version: &str) -> Finding {
    if api_version == OWN_VERSION {
        return Finding::ok("version", api_version.to_owned());
    }
    Finding::bad(
        "version",
        Status::Failed,
        format!("the API is {api_version}, this program {OWN_VERSION}"),
        "install the same version of both",
    )
}

/// What works: reading prices, and changing them.
fn work(readiness: &Readiness) -> Vec<Finding> {
    let is_failing = |state: &str| state != "ok";
    let reads = readiness.reads.as_deref().map(|state| match is_failing(state) {
        false => Finding::ok("reads", "prices are answered".to_owned()),
        true => {
            let advice = "shoppers get no prices from this API: resolve what failed below";
            Finding::bad(
                "reads",
                Status::Failed,
                "prices are not answered, or only from memory".to_owned(),
                advice,
            )
        }
    });
    let writes = readiness.writes.as_deref().map(|state| match is_failing(state) {
        false => Finding::ok("writes", "products, policies and events are accepted".to_owned()),
        true => {
            let advice = "clients get 503 and may send again later: resolve what failed below";
            Finding::bad(
                "writes",
                Status::Failed,
                "products, policies or events are refused".to_owned(),
                advice,
            )
        }
    });
    reads.into_iter().chain(writes).collect()
}

/// Which processes run; whether a worker and a listener are missing, the API's checks say.
fn processes(running: &[ReportedProcesses]) -> Finding {
    let counts = running.iter().map(|found| format!("{} {} {}", found.running, found.service, found.version));
    let detail = counts.collect::<Vec<_>>().join(", ");
    let mut versions = running.iter().map(|found| &found.version);
    let first = versions.next();
    if versions.all(|version| Some(version) == first) {
        return Finding::ok("processes", detail);
    }
    let advice =
        "an upgrade is under way, or did not reach every process: start all of them with one version";
    Finding::bad("processes", Status::Warning, detail, advice)
}

fn dependency(check: &ReportedCheck) -> Finding {
    if check.name == TIME_ZONES {
        return time_zones(check, Utc::now());
    }
    if check.status == "ok" {
        // Some checks look at what is known already.
        let detail = match check.duration_ms {
            0 => check.detail.clone(),
            duration_ms => format!("{} in {duration_ms} ms", check.detail),
        };
        return Finding::ok(&check.name, detail);
    }
    let is_warning = check.status == "warning";
    let status = if is_warning { Status::Warning } else { Status::Failed };
    Finding::bad(&check.name, status, check.detail.clone(), advice::next_step(&check.name, is_warning))
}

/// Whether the time zone database is recent, and the same in all processes.
fn time_zones(check: &ReportedCheck, now: DateTime<Utc>) -> Finding {
    let version = check.detail.split(' ').next().and_then(TzVersion::parse);
    if check.status != "ok" {
        let advice = advice::next_step(TIME_ZONES, false);
        return Finding::bad(TIME_ZONES, Status::Failed, check.detail.clone(), advice);
    }
    if version.is_none_or(|version| version.is_outdated(now)) {
        let detail = format!("{}, older than 18 months", check.detail);
        let advice = "places may have changed their clocks since: update the engine, or the system's time zone database";
        return Finding::bad(TIME_ZONES, Status::Warning, detail, advice);
    }
    Finding::ok(TIME_ZONES, check.detail.clone())
}

/// Compares the clocks, if the answer has a date.
fn clock(answer: &Answer, now: SystemTime) -> Option<Finding> {
    let date = answer.headers.get(DATE)?.to_str().ok()?;
    let api_time = httpdate::parse_http_date(date).ok()?;
    let difference = api_time.duration_since(now).unwrap_or_else(|earlier| earlier.duration());
    if difference <= MAX_CLOCK_DIFFERENCE {
        return Some(Finding::ok(OWN_CLOCK, "as the API's".to_owned()));
    }
    Some(Finding::bad(
        OWN_CLOCK,
        Status::Warning,
        format!("differs from the API's by {} s", difference.as_secs()),
        "time rules would act at the wrong time: synchronise both clocks (NTP)",
    ))
}

fn render(findings: &[Finding]) -> String {
    let lines = findings.iter().map(|finding| {
        let (word, colour) = match finding.status {
            Status::Ok => ("ok     ", AnsiColor::Green),
            Status::Warning => ("warning", AnsiColor::Yellow),
            Status::Failed => ("FAILED ", AnsiColor::Red),
        };
        let mut line = format!("{} {:<15} {}", paint(word, colour), finding.name, finding.detail);
        if let Some(advice) = &finding.advice {
            line.push_str("\n          → ");
            line.push_str(advice);
        }
        if !finding.differences.is_empty() {
            line.push('\n');
            line.push_str(&prices::table(&finding.differences));
        }
        line
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
