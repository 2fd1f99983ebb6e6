//! Tests of the table of routes: its page in the documents, and who is admitted to each.

use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::Request;
use chrono::{DateTime, TimeDelta, Utc};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use pricing_core::access::key::{NewKey, PresentedKey};
use pricing_core::access::scope::Scope;
use pricing_core::audit::Origin;
use pricing_core::store::AccessKey;
use tempfile::TempDir;

use super::*;
use crate::pipeline::tests::state;

#[test]
fn the_list_of_probes_is_complete() {
    let probes = every_route().into_iter().filter(|(route, _)| route.audience == Audience::Probe);
    let probes: Vec<&str> = probes.map(|(route, _)| route.name).collect();
    assert_eq!(probes, PROBES);
}

/// The table in docs/access.md, between these lines.
const BEGIN: &str = "<!-- routes: written by the tests of the API -->\n";
const END: &str = "<!-- end of routes -->\n";

#[test]
fn the_page_lists_the_scope_of_every_route() {
    let mut table = "| route | scope |\n|---|---|\n".to_owned();
    for (route, methods) in every_route() {
        for method in methods {
            let scope = route.needs.scope_of(&method);
            let scope = scope.map_or("none".to_owned(), |scope| format!("`{scope}`"));
            writeln!(table, "| `{method} {}` | {scope} |", route.name).unwrap();
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/access.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert_eq!(written, table, "write it again: BLESS=1 cargo test -p pricing-api --lib the_page_lists");
    }
}

/// Stores a key with this scope, and returns its text.
async fn key(state: &AppState, scope: &str, expires_at: Option<DateTime<Utc>>) -> NewKey {
    let key = NewKey::draw().unwrap();
    let stored = AccessKey {
        id: key.id.to_string(),
        name: scope.to_owned(),
        digest: key.digest.to_hex(),
        scopes: scope.to_owned(),
        created_at: Utc::now(),
        created_by: "test".to_owned(),
        expires_at,
        revoked_at: None,
    };
    assert!(state.engine.store.create_access_key(&stored, &Origin::engine()).await.unwrap());
    key
}

/// The keys that open nothing, each with what is wrong with it.
async fn useless_keys(state: &AppState) -> Vec<(&'static str, Option<String>)> {
    let every_scope = pricing_core::access::scope::Scopes::all().to_string();
    let in_use = key(state, &every_scope, None).await.text;
    let expired = key(state, &every_scope, Some(Utc::now() - TimeDelta::seconds(1))).await;
    let revoked = key(state, &every_scope, None).await;
    assert!(
        state
            .engine
            .store
            .revoke_access_key(revoked.id.as_str(), &Origin::engine(), Utc::now())
            .await
            .unwrap()
    );
    let last = if in_use.ends_with('0') { "1" } else { "0" };
    let wrong = format!("{}{last}", &in_use[..in_use.len() - 1]);
    vec![
        ("none", None),
        ("never created", Some(NewKey::draw().unwrap().text)),
        ("of another secret", Some(wrong)),
        ("expired", Some(expired.text)),
        ("revoked", Some(revoked.text)),
        ("no key", Some("let me in".to_owned())),
    ]
}

/// Answers a request with this key; returns the status, and whether the request reached a handler.
async fn ask(
    state: &AppState,
    routes: &TowerToHyperService<Router>,
    (method, path): (&Method, &str),
    key: Option<&str>,
) -> (u16, bool) {
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    let request = match key {
        Some(key) => request.header("authorization", format!("Bearer {key}")),
        None => request,
    };
    let before = state.admitted.load(Ordering::Relaxed);
    let response = routes.call(request.body(Body::empty()).unwrap()).await.unwrap();
    (response.status().as_u16(), state.admitted.load(Ordering::Relaxed) > before)
}

/// Every route, with every method, on both listeners, with no key, each key that opens nothing, and a key of
/// each scope: only the right one reaches a handler.
#[tokio::test]
async fn only_a_key_with_the_scope_of_the_route_reaches_a_handler() {
    let directory = TempDir::new().unwrap();
    let state = state(&directory).await;
    let useless = useless_keys(&state).await;
    let mut keys = Vec::new();
    for scope in Scope::ALL {
        keys.push((scope, key(&state, scope.as_str(), None).await.text));
    }
    state.access.control.keys.refresh(Utc::now()).await.unwrap();
    let mut asked = 0;
    for served in [Served::Prices, Served::Administration] {
        let routes = TowerToHyperService::new(router(&state, served));
        for (route, methods) in every_route() {
            let is_served = served == Served::Administration
                || matches!(route.audience, Audience::Price)
                || ["/healthz", "/readyz"].contains(&route.name);
            // A path of the right form, of something that does not exist.
            let path = route.name.replace("{version}", "9").replace(['{', '}'], "");
            for method in methods {
                let needed = route.needs.scope_of(&method);
                for (what, key) in &useless {
                    let (status, is_admitted) = ask(&state, &routes, (&method, &path), key.as_deref()).await;
                    let case = format!("{served:?} {method} {path}, key: {what}: {status}");
                    assert!(is_served || status == 404, "{case}");
                    assert!(!is_served || needed.is_none() || (status == 401 && !is_admitted), "{case}");
                    asked += 1;
                }
                for (scope, key) in &keys {
                    let (status, is_admitted) = ask(&state, &routes, (&method, &path), Some(key)).await;
                    let case = format!("{served:?} {method} {path}, scope {scope}: {status}");
                    let may = needed.is_none_or(|needed| needed == *scope);
                    assert!(is_served || status == 404, "{case}");
                    assert!(!is_served || (is_admitted == may && (status == 403) != may), "{case}");
                    assert!(status != 401, "{case}");
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 1_000, "{asked}");
}

#[tokio::test]
async fn open_scopes_need_no_key_and_a_useless_key_is_still_reported() {
    let directory = TempDir::new().unwrap();
    let state = state(&directory).await;
    let useless = key(&state, "prices:read", Some(Utc::now() - TimeDelta::seconds(1))).await.text;
    let of_others = key(&state, "events:write", None).await.text;
    state.access.control.keys.refresh(Utc::now()).await.unwrap();
    let mut open = crate::state::StateInner::clone(&state);
    open.access.open = "prices:read".parse().unwrap();
    let state = AppState::from(open);
    let routes = TowerToHyperService::new(router(&state, Served::Everything));
    let prices = (&Method::POST, "/api/v1/prices");
    assert!(ask(&state, &routes, prices, None).await.1);
    assert!(ask(&state, &routes, prices, Some(&of_others)).await.1);
    assert_eq!(ask(&state, &routes, prices, Some(&useless)).await, (401, false));
    assert_eq!(ask(&state, &routes, (&Method::GET, "/metrics"), None).await, (401, false));
}

/// A process that cannot read the keys again still refuses one that has expired.
#[tokio::test]
async fn expiry_needs_no_look_at_the_database() {
    let directory = TempDir::new().unwrap();
    let state = state(&directory).await;
    let now = Utc::now();
    let key = key(&state, "prices:read", Some(now + TimeDelta::hours(1))).await;
    let keys = &state.access.control.keys;
    keys.refresh(now).await.unwrap();
    let presented = PresentedKey::read(key.text.as_bytes()).unwrap();
    assert!(keys.with_identity(&presented, now, |_| ()).is_some());
    assert!(keys.with_identity(&presented, now + TimeDelta::hours(1), |_| ()).is_none());
    assert!(!keys.is_active(key.id, now + TimeDelta::hours(1)));
}
