//! Tests of the findings.

use anstream::adapter::strip_str;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderValue};

use super::*;

#[test]
fn a_failure_comes_with_advice() -> Result<()> {
    let checks: Vec<ReportedCheck> = serde_json::from_str(
        r#"[{"name": "redis", "status": "failed", "detail": "connection refused", "duration_ms": 1},
            {"name": "database", "status": "ok", "detail": "sqlite 3.50", "duration_ms": 2}]"#,
    )?;
    let mut findings = vec![version(OWN_VERSION), version("0.0.9")];
    findings.extend(checks.iter().map(dependency));
    insta::assert_snapshot!(strip_str(&render(&findings)), @r"
    ok      version    0.2.0
    FAILED  version    the API is 0.0.9, this program 0.2.0
              → install the same version of both
    FAILED  redis      connection refused
              → prices are still read, changes are refused: start Redis, or correct the API's PRICING_REDIS_URL
    ok      database   sqlite 3.50 in 2 ms
    ");
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
