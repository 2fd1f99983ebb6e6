//! Tests of the findings.

use anstream::adapter::strip_str;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderValue};

use super::*;

#[test]
fn a_failure_comes_with_advice() -> Result<()> {
    let readiness: Readiness = serde_json::from_str(
        r#"{"version": "0.0.9", "reads": "ok", "writes": "failing",
            "processes": [{"service": "pricing-api", "version": "0.0.9", "running": 2},
                          {"service": "pricing-worker", "version": "0.1.0", "running": 1}],
            "checks": [{"name": "redis", "status": "failed", "detail": "connection refused", "duration_ms": 1},
                       {"name": "worker", "status": "ok", "detail": "1 running", "duration_ms": 0},
                       {"name": "database", "status": "ok", "detail": "sqlite 3.50", "duration_ms": 2}]}"#,
    )?;
    let mut findings = vec![version(OWN_VERSION), version(&readiness.version)];
    findings.extend(work(&readiness));
    findings.extend(readiness.processes.as_deref().map(processes));
    findings.extend(readiness.checks.iter().map(dependency));
    insta::assert_snapshot!(strip_str(&render(&findings)), @r"
    ok      version         0.2.0
    FAILED  version         the API is 0.0.9, this program 0.2.0
              → install the same version of both
    ok      reads           prices are answered
    FAILED  writes          products, policies or events are refused
              → clients get 503 and may send again later: resolve what failed below
    warning processes       2 pricing-api 0.0.9, 1 pricing-worker 0.1.0
              → an upgrade is under way, or did not reach every process: start all of them with one version
    FAILED  redis           connection refused
              → prices are still read, from memory and the database; products, policies and events are refused: start Redis, or let PRICING_REDIS_URL lead to a master
    ok      worker          1 running
    ok      database        sqlite 3.50 in 2 ms
    ");
    Ok(())
}

#[test]
fn an_answer_of_an_older_version_is_understood() -> Result<()> {
    let readiness: Readiness = serde_json::from_str(r#"{"version": "0.1.0", "checks": []}"#)?;
    assert!(work(&readiness).is_empty() && readiness.processes.is_none());
    Ok(())
}

#[test]
fn an_old_time_zone_database_is_a_warning_and_different_ones_are_a_failure() -> Result<()> {
    for (status, detail, expected) in [
        ("ok", "2026f (bundled)", Status::Ok),
        ("ok", "2026f (/usr/share/zoneinfo)", Status::Ok),
        ("ok", "2025b (bundled)", Status::Warning),
        ("ok", "unknown", Status::Warning),
        ("failed", "2026f (bundled); other processes use 2025b", Status::Failed),
    ] {
        let check =
            serde_json::json!({"name": "time_zones", "status": status, "detail": detail, "duration_ms": 0});
        let finding = time_zones(&serde_json::from_value(check)?, "2026-11-30T00:00:00Z".parse()?);
        assert_eq!(finding.status, expected, "{detail}");
        assert!(finding.detail.starts_with(detail), "{}", finding.detail);
    }
    Ok(())
}

#[test]
fn clocks_may_differ_by_two_seconds() -> Result<()> {
    let api_time = httpdate::parse_http_date("Fri, 15 Jan 2027 08:00:00 GMT")?;
    let answer = Answer {
        status: StatusCode::OK,
        headers: HeaderMap::from_iter([(DATE, HeaderValue::from_static("Fri, 15 Jan 2027 08:00:00 GMT"))]),
        body: String::new(),
    };
    for (now, status) in [
        (api_time, Status::Ok),
        (api_time + Duration::from_secs(2), Status::Ok),
        (api_time + Duration::from_secs(3), Status::Warning),
        (api_time - Duration::from_secs(3), Status::Warning),
    ] {
        assert_eq!(clock(&answer, now).map(|finding| finding.status), Some(status), "{now:?}");
    }
    Ok(())
}
