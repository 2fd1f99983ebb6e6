//! The table of routes: whom each serves, and how it differs from the others. Handlers declare path, method
//! and responses; the OpenAPI document, the metric labels and the pipeline around each route are derived from
//! this table and those declarations.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::handler::Handler;
use axum::http::{StatusCode, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use crate::error::ApiError;
use crate::openapi;
use crate::pipeline::{self, Access, REQUEST_TIMEOUT, Route};
use crate::routes::{
    explanation, failed_jobs, health, held_move, history, import, market_event, policy, policy_draft, price,
    price_changes, price_differences, prices, product, recalculation, simulation,
};
use crate::state::AppState;

/// A policy in JSON is valid YAML. This type is not documented: a generated client would encode the document
/// as a JSON string.
const POLICY_AS_JSON: &[&str] = &["application/json"];
/// Aliases of the media types of imports.
const ROW_TYPES: &[&str] = &["application/csv", "application/ndjson", "application/jsonl"];

/// The paths of all routes of [`Access::Probe`]: connections are accepted for them when all places are taken.
pub(crate) const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// The routes that the OpenAPI document describes.
fn documented() -> Vec<Registration> {
    use Access::{Administrative, Price, Probe};
    vec![
        price_registration(),
        Registration::of(Price, routes!(prices::prices)),
        Registration::of(Administrative, routes!(price_changes::follow)).without_time_limit(),
        Registration::of(Administrative, routes!(price_differences::list)),
        Registration::of(Administrative, routes!(product::get, product::put, product::delete)),
        Registration::of(Administrative, routes!(explanation::explanation)),
        Registration::of(Administrative, routes!(history::history)),
        Registration::of(Administrative, routes!(import::import)).also_taking(ROW_TYPES).without_time_limit(),
        Registration::of(Administrative, routes!(market_event::publish)),
        Registration::of(Administrative, routes!(recalculation::list, recalculation::post)),
        Registration::of(Administrative, routes!(recalculation::get)),
        Registration::of(Administrative, routes!(recalculation::approve)),
        Registration::of(Administrative, routes!(recalculation::reject)),
        Registration::of(Administrative, routes!(held_move::list)),
        Registration::of(Administrative, routes!(held_move::approve)).without_time_limit(),
        Registration::of(Administrative, routes!(held_move::reject)).without_time_limit(),
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

/// The routes that the OpenAPI document leaves out.
fn undocumented(document: &OpenApi) -> [(Access, &'static str, MethodRouter<AppState>); 3] {
    // Serialising the document cannot fail.
    let document = Bytes::from(document.to_json().unwrap_or_default());
    let document = async move || ([(header::CONTENT_TYPE, "application/json")], document);
    let metrics = async |State(state): State<AppState>| pricing_core::health::render(&state.engine.registry);
    [
        (Access::Page, "/", get(health::index)),
        (Access::Page, "/openapi.json", get(document)),
        (Access::Probe, "/metrics", get(metrics)),
    ]
}

/// The price route. HTTP workers answer its POST requests themselves ([`crate::hot_path`]); the router
/// receives its other methods only, and would give the same answer.
fn price_registration() -> Registration {
    Registration::of(Access::Price, routes!(price::price))
}

/// A path with its handlers and properties.
struct Registration {
    access: Access,
    time_limit: Option<Duration>,
    /// Media types of bodies that are accepted although the OpenAPI document does not list them.
    also_taken: &'static [&'static str],
    handlers: UtoipaMethodRouter<AppState>,
}

impl Registration {
    fn of(access: Access, handlers: UtoipaMethodRouter<AppState>) -> Self {
        Self { access, time_limit: Some(REQUEST_TIMEOUT), also_taken: &[], handlers }
    }

    /// Removes the time limit of a handler that streams or scans the whole catalogue. Reading its body stays
    /// bounded.
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
        // Metric labels live as long as the process. The leak is bounded: once per route, and once per HTTP
        // worker for the price route.
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

/// The price route of an HTTP worker, with the series of its usual status.
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

/// The router, with the pipeline around each route.
pub(crate) fn router(state: &AppState) -> Router {
    let pipeline = |route| from_fn_with_state((state.clone(), Arc::new(route)), pipeline::layer);
    let not_allowed = async || ApiError::MethodNotAllowed.into_response();
    // Added before the layer, so that the layer wraps this answer too.
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
    // Swagger UI has an empty answer for files that it lacks.
    let described = async |response: Response| match response.status() {
        StatusCode::NOT_FOUND => ApiError::RouteNotFound.into_response(),
        _ => response,
    };
    let docs = Router::from(openapi::swagger_ui()).method_not_allowed_fallback(not_allowed);
    let docs = docs.layer(map_response(described));
    let not_found = async || ApiError::RouteNotFound.into_response();
    router
        .merge(docs.layer(pipeline(plain(Access::Page, "/docs"))))
        .fallback(not_found.layer(pipeline(plain(Access::Page, "unmatched"))))
        .with_state(state.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_probes_is_complete() {
        let probes = documented().into_iter().filter(|registration| registration.access == Access::Probe);
        let mut probes: Vec<String> = probes.map(|registration| registration.path()).collect();
        let undocumented = undocumented(&document());
        let others = undocumented.iter().filter(|(access, ..)| *access == Access::Probe);
        probes.extend(others.map(|(_, path, _)| (*path).to_owned()));
        assert_eq!(probes, PROBES);
    }
}
