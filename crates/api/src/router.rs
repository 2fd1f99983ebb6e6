//! Every route, in one table: who it is for, and what is special about it. Path, method and
//! responses are declared on the handlers; the OpenAPI document, the names under which requests are measured
//! and the pipeline around each route are made from this table and those declarations.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::handler::Handler;
use axum::http::header;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use crate::error::ApiError;
use crate::openapi;
use crate::pipeline::{self, Access, REQUEST_TIMEOUT, Route};
use crate::routes::{
    explanation, failed_jobs, health, history, import, market_event, policy, policy_draft, price,
    price_changes, prices, product, recalculation, simulation,
};
use crate::state::AppState;

/// A policy in JSON is one in YAML. Generated clients learn of one type, as they send texts as
/// JSON by writing them in quotes.
const POLICY_AS_JSON: &[&str] = &["application/json"];
/// Other names of the types of imports.
const ALSO_ROWS: &[&str] = &["application/csv", "application/ndjson", "application/jsonl"];

/// The routes that the OpenAPI document describes.
fn documented() -> Vec<Registration> {
    use Access::{Administrative, Price, Probe};
    vec![
        price_registration(),
        Registration::of(Price, routes!(prices::prices)),
        Registration::of(Administrative, routes!(price_changes::follow)).without_time_limit(),
        Registration::of(Administrative, routes!(product::get, product::put, product::delete)),
        Registration::of(Administrative, routes!(explanation::explanation)),
        Registration::of(Administrative, routes!(history::history)),
        Registration::of(Administrative, routes!(import::import)).also_taking(ALSO_ROWS).without_time_limit(),
        Registration::of(Administrative, routes!(market_event::publish)),
        Registration::of(Administrative, routes!(recalculation::list, recalculation::post)),
        Registration::of(Administrative, routes!(recalculation::get)),
        Registration::of(Administrative, routes!(recalculation::approve)),
        Registration::of(Administrative, routes!(recalculation::reject)),
        Registration::of(Administrative, routes!(policy::list, policy::publish))
            .also_taking(POLICY_AS_JSON)
            .without_time_limit(),
        Registration::of(Administrative, routes!(policy::get)),
        Registration::of(Administrative, routes!(policy::diff)),
        Registration::of(Administrative, routes!(policy::rollback)).without_time_limit(),
        Registration::of(Administrative, routes!(policy::check)).also_taking(POLICY_AS_JSON),
        Registration::of(Administrative, routes!(policy::schema)),
        Registration::of(Administrative, routes!(simulation::simulate))
            .also_taking(POLICY_AS_JSON)
            .without_time_limit(),
        Registration::of(Administrative, routes!(policy_draft::list)),
        Registration::of(Administrative, routes!(policy_draft::get, policy_draft::put, policy_draft::delete))
            .also_taking(POLICY_AS_JSON),
        Registration::of(Administrative, routes!(failed_jobs::list)),
        Registration::of(Administrative, routes!(failed_jobs::get)),
        Registration::of(Administrative, routes!(failed_jobs::requeue)),
        Registration::of(Probe, routes!(health::alive)),
        Registration::of(Probe, routes!(health::ready)),
    ]
}

/// The others.
fn undocumented(document: &OpenApi) -> [(Access, &'static str, MethodRouter<AppState>); 3] {
    // Nothing in it can fail to be written.
    let document = Bytes::from(document.to_json().unwrap_or_default());
    let document = async move || ([(header::CONTENT_TYPE, "application/json")], document);
    let metrics = async |State(state): State<AppState>| pricing_core::health::render(&state.engine.registry);
    [
        (Access::Page, "/", get(health::index)),
        (Access::Page, "/openapi.json", get(document)),
        (Access::Probe, "/metrics", get(metrics)),
    ]
}

/// The route that HTTP workers answer by themselves ([`crate::hot_path`]). The router gets it with other
/// methods only, and would answer the same.
fn price_registration() -> Registration {
    Registration::of(Access::Price, routes!(price::price))
}

/// A path with its handlers, and what is said of both.
struct Registration {
    access: Access,
    time_limit: Option<Duration>,
    /// Media types of bodies that are read, beside those that the document names.
    also_taken: &'static [&'static str],
    handlers: UtoipaMethodRouter<AppState>,
}

impl Registration {
    fn of(access: Access, handlers: UtoipaMethodRouter<AppState>) -> Self {
        Self { access, time_limit: Some(REQUEST_TIMEOUT), also_taken: &[], handlers }
    }

    /// It streams, or goes through the whole catalogue, and may take as long as it needs; its body may not.
    fn without_time_limit(self) -> Self {
        Self { time_limit: None, ..self }
    }

    fn also_taking(self, also_taken: &'static [&'static str]) -> Self {
        Self { also_taken, ..self }
    }

    fn path(&self) -> String {
        self.handlers.1.paths.keys().next().cloned().unwrap_or_default()
    }

    fn route(&self) -> Route {
        // Labels of metrics live as long as the process, and so does the one router that it has.
        let name = self.path().leak();
        let media_types = self.handlers.1.paths.values().flat_map(openapi::media_types);
        let media_types = media_types.map(|(method, mut taken)| {
            if !taken.is_empty() {
                taken.extend(self.also_taken.iter().map(|media_type| (*media_type).to_owned()));
            }
            (method, taken)
        });
        let media_types = media_types.collect();
        Route { name, access: self.access, time_limit: self.time_limit, answered: None, media_types }
    }
}

/// The route of prices, as HTTP workers know it.
pub(crate) fn price_route(state: &AppState) -> Route {
    let route = price_registration().route();
    Route { answered: Some(state.metrics.requests.series(route.name, 200)), ..route }
}

/// The OpenAPI document.
#[cfg(test)]
pub(crate) fn document() -> OpenApi {
    assemble(|registration| registration.handlers).1
}

fn assemble(
    with_pipeline: impl Fn(Registration) -> UtoipaMethodRouter<AppState>,
) -> (Router<AppState>, OpenApi) {
    let mut api = OpenApiRouter::with_openapi(openapi::head());
    let mut administrative = BTreeSet::new();
    for registration in documented() {
        if registration.access == Access::Administrative {
            administrative.insert(registration.path());
        }
        api = api.routes(with_pipeline(registration));
    }
    let (router, document) = api.split_for_parts();
    (router, openapi::completed(document, &administrative))
}

/// The routes as a service.
pub(crate) fn router(state: &AppState) -> Router {
    let pipeline = |route| from_fn_with_state((state.clone(), Arc::new(route)), pipeline::layer);
    let not_allowed = async || ApiError::MethodNotAllowed.into_response();
    // Before the layer, so that it is around this answer too.
    let with_pipeline =
        |route, handlers: MethodRouter<AppState>| handlers.fallback(not_allowed).layer(pipeline(route));
    let (mut router, document) = assemble(|registration| {
        let route = registration.route();
        registration.handlers.map(|handlers| with_pipeline(route, handlers))
    });
    let plain = |access, name| Route {
        name,
        access,
        time_limit: Some(REQUEST_TIMEOUT),
        answered: None,
        media_types: Vec::new(),
    };
    for (access, path, handlers) in undocumented(&document) {
        router = router.route(path, with_pipeline(plain(access, path), handlers));
    }
    let docs = Router::from(openapi::swagger_ui()).method_not_allowed_fallback(not_allowed);
    let not_found = async || ApiError::RouteNotFound.into_response();
    router
        .merge(docs.layer(pipeline(plain(Access::Page, "/docs"))))
        .fallback(not_found.layer(pipeline(plain(Access::Page, "unmatched"))))
        .with_state(state.clone())
}
