//! `/api/v1/policies`: checks policies, publishes them as versions, lists and compares versions, and rolls
//! back.
//!
//! A version is immutable. Publishing makes it the one that new prices are computed with, in every process,
//! and requests a recalculation; until that has re-priced a product, its quotes use the version that its
//! price was computed with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use pricing_core::audit::{Action, Origin};
use pricing_core::store::{FROZEN, NewPolicy, StoredPolicy, run_of_policy};
use pricing_domain::diagnostic::{Diagnostic, shorten};
use pricing_domain::facts::market_event::{Change, EventId, MarketEvent};
use pricing_domain::facts::recalculation::RecalculationScope;
use pricing_domain::facts::time_zone::TimeZones;
use pricing_domain::policy::PricingPolicy;
use pricing_domain::policy::{MAX_POLICY_BYTES, PolicyDraft};
use pricing_wire::held_price::HeldPrices;
use pricing_wire::policy::{
    CheckAnswer, PoliciesAnswer, PolicyAnswer, PolicyVersion, PublishPolicyAnswer, PublishQuery,
};
use pricing_wire::problem::FieldError;
use similar::TextDiff;

use crate::access::Caller;
use crate::error::ApiError;
use crate::extract::{BoundedBody, Named};
use crate::state::AppState;

/// The source of the events that this route publishes.
const SOURCE: &str = "/api/v1/policies";
/// The maximum number of versions in one answer.
const MAX_LISTED: u32 = 100;
/// The longest author and note, in characters.
pub(super) const MAX_AUTHOR_CHARS: usize = 100;
const MAX_NOTE_CHARS: usize = 1_000;
/// Lines around each difference.
const DIFF_CONTEXT: usize = 3;
/// Time limit of the search for a minimal diff; what is left then counts as removed and added.
const DIFF_TIMEOUT: Duration = Duration::from_secs(1);

/// [`PublishQuery`], checked.
struct Publication {
    author: String,
    note: String,
    approved_by: Option<String>,
    /// The version that has to be the latest.
    only_after: Option<i64>,
    /// What it is recorded with.
    recorded: (Origin, Action),
}

/// Lists the latest versions.
#[utoipa::path(get, path = "/api/v1/policies", tag = "policies", summary = "List policy versions",
    responses((status = 200, description = "The latest 100 versions, newest first", body = PoliciesAnswer)))]
pub(crate) async fn list(State(state): State<AppState>) -> Result<Json<PoliciesAnswer>, ApiError> {
    let policies = state.engine.store.policy_versions(MAX_LISTED).await?;
    let current_version = state.engine.policies.snapshot().current().version;
    let policies = policies.into_iter().map(|policy| split(policy).0).collect();
    Ok(Json(PoliciesAnswer { current_version, policies }))
}

/// Returns a version with its document.
#[utoipa::path(get, path = "/api/v1/policies/{version}", tag = "policies", summary = "Get a policy version",
    params(("version" = String, Path, description = "A version number, or `latest`")),
    responses(
        (status = 200, description = "The version; send its ETag as If-Match to publish the next one", body = PolicyAnswer),
        (status = 404, description = "No such version")))]
pub(crate) async fn get(
    State(state): State<AppState>,
    Named(version): Named<String>,
) -> Result<Response, ApiError> {
    let policy = find(&state, &version).await?;
    let etag = etag(policy.version);
    let (version, source) = split(policy);
    Ok(([(header::ETAG, etag)], Json(PolicyAnswer { version, source })).into_response())
}

/// Reports all problems of a policy; publishes nothing.
#[utoipa::path(post, path = "/api/v1/policies/check", tag = "policies", summary = "Check a policy",
    request_body(content = String, content_type = "application/yaml", description = "The policy, YAML or JSON"),
    responses(
        (status = 200, description = "The errors and warnings, if any", body = CheckAnswer),
        (status = 413, description = "The policy is longer than 256 KiB")))]
pub(crate) async fn check(
    State(state): State<AppState>,
    BoundedBody(body): BoundedBody<MAX_POLICY_BYTES>,
) -> Result<Json<CheckAnswer>, ApiError> {
    let found = compile(&body, state.time_zones()).map_or_else(|found| found, |policy| policy.warnings);
    let (problems, warnings): (Vec<_>, Vec<_>) = found.into_iter().partition(Diagnostic::is_refusal);
    Ok(Json(CheckAnswer {
        is_valid: problems.is_empty(),
        problems: FieldError::each_of(problems),
        warnings: FieldError::each_of(warnings),
    }))
}

/// Returns the JSON Schema of a policy, for completion and checks in editors.
#[utoipa::path(get, path = "/api/v1/policies/schema", tag = "policies", summary = "Get the JSON Schema of a policy",
    responses((status = 200, description = "A JSON Schema (2020-12)", body = Object, content_type = "application/schema+json")))]
pub(crate) async fn schema() -> Response {
    ([(header::CONTENT_TYPE, "application/schema+json")], Json(PolicyDraft::json_schema())).into_response()
}

/// Publishes a policy as the next version.
#[utoipa::path(post, path = "/api/v1/policies", tag = "policies", summary = "Publish a policy",
    params(PublishQuery, ("If-Match" = Option<String>, Header, pattern = r#"^(\*|"[0-9]+")$"#, description = "Publish only if this ETag is still that of the latest version")),
    request_body(content = String, content_type = "application/yaml", description = "The policy, YAML or JSON"),
    responses(
        (status = 201, description = "Published; a recalculation is requested", body = PublishPolicyAnswer),
        (status = 409, description = "A circuit breaker would hold it; `approve` or `approved_by` is required"),
        (status = 412, description = "Another version has been published since"),
        (status = 413, description = "The policy is longer than 256 KiB"),
        (status = 422, description = "The policy or a parameter is invalid; nothing was published"),
        (status = 503, description = "The database or Redis does not answer")))]
pub(crate) async fn publish(
    State(state): State<AppState>,
    caller: Caller,
    query: Result<Query<PublishQuery>, QueryRejection>,
    headers: HeaderMap,
    BoundedBody(body): BoundedBody<MAX_POLICY_BYTES>,
) -> Result<Response, ApiError> {
    let publication = Publication::read(&caller, query, &headers, Action::PolicyPublish)?;
    let policy = compile(&body, state.time_zones()).map_err(refused)?;
    let source = String::from_utf8_lossy(&body).into_owned();
    publish_version(state, policy, source, publication).await
}

/// Publishes an earlier version again, as the next one.
#[utoipa::path(post, path = "/api/v1/policies/{version}/rollback", tag = "policies", summary = "Roll back to a policy version",
    params(PublishQuery, ("version" = String, Path, description = "The version to publish again, or `latest`"),
        ("If-Match" = Option<String>, Header, pattern = r#"^(\*|"[0-9]+")$"#, description = "Publish only if this ETag is still that of the latest version")),
    responses(
        (status = 201, description = "Published again as a new version; a recalculation is requested", body = PublishPolicyAnswer),
        (status = 404, description = "No such version"),
        (status = 409, description = "A circuit breaker would hold it; `approve` or `approved_by` is required"),
        (status = 412, description = "Another version has been published since"),
        (status = 422, description = "`author` is missing, or this version of the engine refuses the policy"),
        (status = 503, description = "The database or Redis does not answer")))]
pub(crate) async fn rollback(
    State(state): State<AppState>,
    caller: Caller,
    Named(version): Named<String>,
    query: Result<Query<PublishQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut publication = Publication::read(&caller, query, &headers, Action::PolicyRollback)?;
    let earlier = find(&state, &version).await?;
    // A newer engine may have published it, or an older one with fewer checks.
    let policy = PricingPolicy::from_yaml(&earlier.source, earlier.version, state.time_zones());
    let policy = policy.map_err(refused)?;
    if publication.note.is_empty() {
        publication.note = format!("back to version {}", earlier.version);
    }
    publish_version(state, policy, earlier.source, publication).await
}

/// Compares two versions.
#[utoipa::path(get, path = "/api/v1/policies/{version}/diff/{other}", tag = "policies", summary = "Compare policy versions",
    params(("version" = String, Path, description = "The version to compare from, or `latest`"), ("other" = String, Path, description = "The version to compare to, or `latest`")),
    responses(
        (status = 200, description = "A unified diff of the documents; empty if they are equal", body = String, content_type = "text/plain"),
        (status = 404, description = "No such version")))]
pub(crate) async fn diff(
    State(state): State<AppState>,
    Named((version, other)): Named<(String, String)>,
) -> Result<String, ApiError> {
    let (from, to) = (find(&state, &version).await?, find(&state, &other).await?);
    // Comparing two long documents with little in common would block a thread of the runtime.
    let comparing = tokio::task::spawn_blocking(move || compare(&from, &to, DIFF_TIMEOUT));
    comparing.await.map_err(|error| ApiError::Internal { reason: format!("comparing panicked: {error}") })
}

fn compare(from: &StoredPolicy, to: &StoredPolicy, limit: Duration) -> String {
    let title =
        |policy: &StoredPolicy| format!("version {}, {}", policy.version, policy.published_at.to_rfc3339());
    let diff = TextDiff::configure().timeout(limit).diff_lines(&from.source, &to.source);
    diff.unified_diff().context_radius(DIFF_CONTEXT).header(&title(from), &title(to)).to_string()
}

/// Publishes a policy, unless a circuit breaker would hold it: its own, or that of the policy in use.
async fn publish_version(
    state: AppState,
    policy: PricingPolicy,
    source: String,
    publication: Publication,
) -> Result<Response, ApiError> {
    state.require_redis().await?;
    let Publication { author, note, approved_by, only_after, recorded } = publication;
    if let Some(expected) = only_after
        && find(&state, "latest").await?.version != expected
    {
        return Err(ApiError::PolicyVersionIsOld);
    }
    let new = NewPolicy { name: policy.name.clone(), source, author, note };
    let mut findings = Findings { warnings: policy.warnings.clone(), held_prices: None };
    let approved_by = match approved_by {
        Some(approved_by) => approved_by,
        None => {
            let (reasons, found) = review(&state, Arc::new(policy)).await?;
            if !reasons.is_empty() {
                return Err(ApiError::HeldByCircuitBreaker { reasons });
            }
            findings.warnings.extend(found.warnings);
            findings.held_prices = found.held_prices;
            "the circuit breaker, when it was published".to_owned()
        }
    };
    // Runs to the end even if the client disconnects, as a published policy needs its recalculation.
    let publishing = tokio::spawn(async move {
        publish_to_all(&state, &new, only_after, approved_by, recorded, findings).await
    });
    let published = publishing.await;
    published.map_err(|error| ApiError::Internal { reason: format!("publishing panicked: {error}") })?
}

/// What publishing answers with, besides the version.
#[derive(Default)]
struct Findings {
    /// Effects on products that the policy's author may not intend, too.
    warnings: Vec<Diagnostic>,
    /// The prices that limits hold back under the policy; absent if the catalogue was not simulated.
    held_prices: Option<Vec<HeldPrices>>,
}

/// The reasons to hold a policy, for its effect now and at later instants that it depends on; and warnings of
/// effects on products that its author may not intend. The catalogue is read only if one of the two is
/// possible.
async fn review(state: &AppState, policy: Arc<PricingPolicy>) -> Result<(Vec<String>, Findings), ApiError> {
    let mut simulator =
        state.engine.simulator(Arc::clone(&policy), RecalculationScope::All, state.engine.clock.now());
    if !simulator.is_judged() && !policy.needs_a_look_at_the_catalogue() {
        return Ok((Vec::new(), Findings::default()));
    }
    let _permit = state.simulations.take_place()?;
    if simulator.is_judged() {
        simulator = simulator.with_later_instants();
    }
    simulator.run(|| true).await?;
    let report = simulator.simulation().report();
    let met = report.catalogue_warnings.iter();
    let met = met.map(|warning| Diagnostic::bare(&*warning.about, warning.to_string()));
    let held_prices = report.held_prices.into_iter().map(Into::into).collect();
    let findings = Findings { warnings: met.collect(), held_prices: Some(held_prices) };
    Ok((simulator.reasons_to_hold().await?, findings))
}

/// The prices that limits hold back now. Empty if they cannot be counted, as the policy is published.
async fn prices_held_now(state: &AppState) -> Vec<HeldPrices> {
    let counted = state.engine.store.count_held_prices().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "a policy is published, and the prices that limits hold back are not counted");
        BTreeMap::new()
    });
    let of_limits = counted.into_iter().filter(|(held_by, _)| held_by != FROZEN);
    of_limits.map(|(limit, products)| HeldPrices::counted(limit, products)).collect()
}

/// Publishes a policy. Once the database has it, its recalculation will be done; a later failure only delays
/// other processes by a few seconds. Answers with the version and the task of the recalculation.
async fn publish_to_all(
    state: &AppState,
    policy: &NewPolicy,
    only_after: Option<i64>,
    approved_by: String,
    (origin, action): (Origin, Action),
    findings: Findings,
) -> Result<Response, ApiError> {
    let now = state.engine.clock.now();
    let recorded = (&origin, action);
    let store = &state.engine.store;
    let version =
        store.publish_policy_and_request_run(policy, only_after, &approved_by, recorded, now).await?;
    let version = version.ok_or(ApiError::PolicyVersionIsOld)?;
    if let Err(error) = state.engine.policies.refresh().await {
        tracing::warn!(%error, version, "a policy is published, and is not read at once");
    }
    let id = EventId { source: SOURCE.to_owned(), id: run_of_policy(version) };
    let event = MarketEvent { id, time: now, change: Change::PolicyPublished { version } };
    let task_id = event.task_id();
    match state.events.publish(&[event]).await {
        Ok(_) => state.metrics.events_published.increment(1),
        Err(error) => {
            tracing::warn!(%error, version, "a policy is published, and redis does not take the event that says so");
        }
    }
    let is_simulated = findings.held_prices.is_some();
    let held_prices = match findings.held_prices {
        Some(held_prices) => held_prices,
        None => prices_held_now(state).await,
    };
    let warnings = FieldError::each_of(findings.warnings);
    let answer = Json(PublishPolicyAnswer { version, task_id, warnings, held_prices, is_simulated });
    Ok((StatusCode::CREATED, [(header::ETAG, etag(version))], answer).into_response())
}

async fn find(state: &AppState, version: &str) -> Result<StoredPolicy, ApiError> {
    let store = &state.engine.store;
    let found = match version.parse() {
        Ok(version) => store.policy(version).await?,
        Err(_) if version == "latest" => store.latest_policies(1).await?.into_iter().next(),
        Err(_) => None,
    };
    found.ok_or_else(|| ApiError::PolicyNotFound { version: shorten(version) })
}

fn split(policy: StoredPolicy) -> (PolicyVersion, String) {
    let StoredPolicy { version, name, source, author, note, published_at } = policy;
    (PolicyVersion { version, name, author, note, published_at }, source)
}

pub(super) fn compile(body: &[u8], zones: &TimeZones) -> Result<PricingPolicy, Vec<Diagnostic>> {
    let text = std::str::from_utf8(body);
    let text = text.map_err(|error| vec![Diagnostic::bare("policy", format!("is not UTF-8: {error}"))])?;
    let mut policy = PricingPolicy::from_yaml(text, 0, zones)?;
    policy.warn_of_windows_that_are_over(text, Utc::now());
    Ok(policy)
}

/// The error of a refused policy, without its warnings.
pub(super) fn refused(mut found: Vec<Diagnostic>) -> ApiError {
    found.retain(Diagnostic::is_refusal);
    ApiError::Invalid { errors: found }
}

impl Publication {
    fn read(
        caller: &Caller,
        query: Result<Query<PublishQuery>, QueryRejection>,
        headers: &HeaderMap,
        action: Action,
    ) -> Result<Self, ApiError> {
        let Query(PublishQuery { author, note, approve, approved_by }) = query.map_err(|rejection| {
            ApiError::field("query", rejection.body_text(), "author, note, approve, approved_by")
        })?;
        let note = note.unwrap_or_default();
        let author = caller.required_name("author", author)?;
        check_length("note", &note, MAX_NOTE_CHARS)?;
        let approved_by = caller.approver(approve, approved_by)?;
        let recorded = (caller.origin().stating(Some(&author)), action);
        Ok(Self { author, note, approved_by, only_after: read_if_match(headers)?, recorded })
    }
}

/// Checks the name that publishing, approving and rejecting require.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), ApiError> {
    if name.trim().is_empty() {
        return Err(ApiError::field(field, "is missing", "a name"));
    }
    check_length(field, name, MAX_AUTHOR_CHARS)
}

pub(super) fn check_length(field: &str, written: &str, max_chars: usize) -> Result<(), ApiError> {
    if written.chars().count() > max_chars {
        return Err(ApiError::field(field, "is too long", format!("at most {max_chars} characters")));
    }
    // Databases refuse some control characters, and terminals interpret others.
    if written.contains(char::is_control) {
        return Err(ApiError::field(field, "contains a control character", "a text of one line"));
    }
    Ok(())
}

pub(super) fn etag(version: i64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// The version that `If-Match` names; `None` if it is absent or `*`.
pub(super) fn read_if_match(headers: &HeaderMap) -> Result<Option<i64>, ApiError> {
    let Some(written) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let written = written.to_str().unwrap_or_default().trim();
    if written == "*" {
        return Ok(None);
    }
    let version =
        written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).and_then(|tag| tag.parse().ok());
    let refuse = || {
        let problem = format!("\"{}\" is not allowed", shorten(written));
        ApiError::field("If-Match", problem, "the ETag of a version, such as \"3\"")
    };
    version.map(Some).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn version(version: i64, lines: impl Iterator<Item = usize>) -> StoredPolicy {
        StoredPolicy {
            version,
            name: "long".to_owned(),
            source: lines.map(|line| format!("# {line}\n")).collect(),
            author: String::new(),
            note: String::new(),
            published_at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_comparison_has_a_time_limit() {
        let (from, to) = (version(1, 0..100), version(2, (0..100).rev()));
        let lines = |diff: &str, sign: char| diff.lines().filter(|line| line.starts_with(sign)).count();
        let least = compare(&from, &to, Duration::from_secs(60));
        assert_eq!((lines(&least, '-'), lines(&least, '+')), (100, 100), "{least}");
        let timed_out = compare(&from, &to, Duration::ZERO);
        assert_eq!((lines(&timed_out, '-'), lines(&timed_out, '+')), (101, 101), "{timed_out}");
    }
}
