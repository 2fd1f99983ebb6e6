//! The checks of the containers, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use rust_decimal::Decimal;
use serde_json::Value;

use super::backup::backed_up;
use super::containers::{PATIENCE, Stack, end_of, inspect};
use super::events::{ask_price, known_price, publish};
use super::http::{ask_any, first_api, request};
use super::kills::killed_one_after_another;
use crate::pause::eventually;

/// A check, which returns a description of its result.
type Check = fn(&Stack) -> Result<String>;

pub(super) const CHECKS: [(&str, Check); 10] = [
    ("one command starts every service", started),
    ("a price is read from the database, then from the cache", miss_then_hit),
    ("an event changes a price, and one trace shows how", one_trace),
    ("metrics of every service are collected", scraped),
    ("recalculations do not run beside each other", one_run_at_a_time),
    ("services scale", scaled),
    ("it bears load", load),
    ("it heals itself", killed_one_after_another),
    ("it stops in time and loses nothing", stopped),
    ("it is saved and restored", backed_up),
];

const JAEGER_PORT: u16 = 16686;
const PROMETHEUS_PORT: u16 = 9090;
const STOP_LIMIT: Duration = Duration::from_secs(15);
const IMAGE_LIMIT_MB: u64 = 150;
const LOCUST_S: u32 = 20;
const SERVICES: [&str; 3] = ["pricing-api", "pricing-listener", "pricing-worker"];
const CONTAINERS: [(&str, usize); 3] = [("api", 2), ("worker", 3), ("listener", 2)];
const LAST_PRICE: Decimal = Decimal::from_parts(432_109, 0, 0, false, 2);

fn started(stack: &Stack) -> Result<String> {
    let (count, _) = eventually("every container is healthy", PATIENCE, || stack.all_healthy())?;
    let image = inspect(&stack.container("api")?, "{{.Image}}")?;
    let size_mb = (inspect(&image, "{{.Size}}")?.parse::<u64>()? + 500_000) / 1_000_000;
    ensure!(size_mb <= IMAGE_LIMIT_MB, "the image has {size_mb} MB");
    Ok(format!(
        "{count} containers are healthy, the last of them {:.1} s after the first was started; the image has \
        {size_mb} MB",
        stack.healthy_after()?.as_secs_f64()
    ))
}

fn miss_then_hit(_: &Stack) -> Result<String> {
    let (first, second) = (ask_price("P-100")?, ask_price("P-100")?);
    ensure!(
        first.source == "database" && second.source == "cache",
        "first from {}, then from {}",
        first.source,
        second.source
    );
    Ok(format!("P-100 costs {}, from the database; asked again, from the cache", first.final_price))
}

fn one_trace(_: &Stack) -> Result<String> {
    let visible_ms = changed_by_an_event("P-101", Decimal::new(93, 2))?.as_millis();
    let ((trace_id, spans), _) = eventually("the trace", PATIENCE, traced_event)?;
    let services = SERVICES.join(", ");
    Ok(format!(
        "an event was a new price after {visible_ms} ms; trace {trace_id} has {spans} spans, of {services}"
    ))
}

/// Publishes a competitor's price, as a fraction of a product's base price, and waits for a price that
/// reflects it; returns how long that took.
fn changed_by_an_event(product_id: &str, part: Decimal) -> Result<Duration> {
    let before = ask_price(product_id)?;
    let began = Instant::now();
    let id = format!("{:x}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos());
    let answer = publish(&id, product_id, (before.base_price * part).round_dp(2))?;
    ensure!(answer.status == 200, "publishing: {} {}", answer.status, answer.body);
    let changed = || Ok((ask_price(product_id)?.revision > before.revision).then_some(()));
    eventually("the new price", PATIENCE, changed)?;
    Ok(began.elapsed())
}

/// Searches for a trace of an event with spans of all three services and reads it by its identifier; returns
/// the number of its spans.
fn traced_event() -> Result<Option<(String, usize)>> {
    let found = request(JAEGER_PORT, "GET", "/api/traces?service=pricing-api&limit=100", None)?;
    for candidate in list(&found.body["data"]) {
        let id = candidate["traceID"].as_str().context("a trace without an identifier")?;
        let answer = request(JAEGER_PORT, "GET", &format!("/api/traces/{id}"), None)?;
        // A found trace may not be complete yet, and is then not an object.
        let trace = &answer.body["data"][0];
        let processes = trace["processes"].as_object().into_iter().flat_map(|all| all.values());
        let services: BTreeSet<_> = processes.filter_map(|process| process["serviceName"].as_str()).collect();
        let spans = list(&trace["spans"]);
        let is_event = |span: &Value| span["operationName"] == "POST /api/v1/publish-market-event";
        if services == BTreeSet::from(SERVICES) && spans.iter().any(is_event) {
            return Ok(Some((id.to_owned(), spans.len())));
        }
    }
    Ok(None)
}

fn scraped(stack: &Stack) -> Result<String> {
    let up = ["--profile", "observability", "up", "-d", "--wait", "--no-recreate", "prometheus"];
    stack.compose(&up)?;
    let up = || {
        let answer = request(PROMETHEUS_PORT, "GET", "/api/v1/query?query=sum%20by%20(job)%20(up)", None)?;
        let mut targets = BTreeMap::new();
        for one in list(&answer.body["data"]["result"]) {
            let job = one["metric"]["job"].as_str().context("a series without a job")?;
            let count: u64 = one["value"][1].as_str().context("a series without a value")?.parse()?;
            targets.insert(job.to_owned(), count);
        }
        Ok(Some(targets).filter(|targets| targets.len() == 3 && targets.values().all(|count| *count > 0)))
    };
    let (targets, _) = eventually("Prometheus has scraped every service", PATIENCE, up)?;
    let targets: Vec<_> = targets.iter().map(|(job, count)| format!("{count} {job}")).collect();
    Ok(format!("Prometheus scrapes {}", targets.join(", ")))
}

fn one_run_at_a_time(_: &Stack) -> Result<String> {
    let mut tasks = Vec::new();
    for _ in 0..3 {
        let answer = ask_any("POST", "/api/v1/recalculations", Some("{}"))?.body;
        tasks.push(answer["task_id"].as_str().with_context(|| format!("no task: {answer}"))?.to_owned());
    }
    let ended = || {
        let mut states = Vec::new();
        for task in &tasks {
            let answer = ask_any("GET", &format!("/api/v1/recalculations/{task}"), None)?.body;
            states.push(answer["state"].as_str().with_context(|| format!("no state: {answer}"))?.to_owned());
        }
        let all_ended = states.iter().all(|state| state == "done" || state == "skipped");
        Ok(all_ended.then_some(states))
    };
    let (states, took) = eventually("the recalculations", PATIENCE, ended)?;
    Ok(format!("three requests at once, {:.1} s later: {}", took.as_secs_f64(), states.join(", ")))
}

fn scaled(stack: &Stack) -> Result<String> {
    let up = ["up", "-d", "--wait", "--no-recreate", "--scale", "worker=3", "--scale", "listener=2"];
    stack.compose(&[&up[..], &["--scale", "api=2"]].concat())?;
    let mut shown = Vec::new();
    for (service, wanted) in CONTAINERS {
        let count = stack.containers(service)?.len();
        ensure!(count == wanted, "scaled {service} to {count}, not {wanted}");
        shown.push(format!("{count} {service}"));
    }
    changed_by_an_event("P-103", Decimal::new(95, 2)).context("a price through them")?;
    Ok(format!("{}; an event went through them", shown.join(", ")))
}

fn load(stack: &Stack) -> Result<String> {
    let locust = std::env::var("LOCUST").context("LOCUST names no program")?;
    let (host, time) = (format!("http://127.0.0.1:{}", first_api()?), format!("{LOCUST_S}s"));
    let users = ["-f", "locust/locustfile.py", "--headless", "-u", "200", "-r", "50", "--only-summary"];
    let arguments = [&users[..], &["--host", &host, "-t", &time]].concat();
    let done = stack.checkout.command(&locust, &arguments).output().context("running locust")?;
    let said = String::from_utf8_lossy(&done.stdout);
    let is_verdict = |line: &&str| line.starts_with("PASSED") || line.starts_with("FAILED");
    match said.lines().find(is_verdict) {
        Some(verdict) if done.status.success() => Ok(format!("Locust, 200 users, {LOCUST_S} s: {verdict}")),
        verdict => bail!("locust: {} {}", verdict.unwrap_or("no verdict"), end_of(&done.stderr)),
    }
}

fn stopped(stack: &Stack) -> Result<String> {
    publish("last", "P-104", LAST_PRICE)?;
    let began = Instant::now();
    stack.compose(&["stop", "api", "worker", "listener"])?;
    let took = began.elapsed();
    ensure!(took <= STOP_LIMIT, "stopping took {:.1} s", took.as_secs_f64());
    stack.compose(&["start", "api", "worker", "listener"])?;
    let applied = || Ok((known_price(stack, "P-104")? == Some(LAST_PRICE)).then_some(()));
    eventually("the last event is applied", PATIENCE, applied)?;
    Ok(format!(
        "api, worker and listener stopped in {:.1} s; an event acknowledged just before was applied after the start",
        took.as_secs_f64()
    ))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
