//! The table of routes: whom each serves, which scopes it needs, and how it differs from the others.
//! Handlers declare path, method and responses; the OpenAPI document, the metric labels and the pipeline
//! around each route are derived from this table and those declarations.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::handler::Handler;
#[cfg(test)]
use axum::http::Method;
use axum::http::{StatusCode, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use pricing_core::access::scope::Scope::{
    AuditRead, CatalogueRead, CatalogueWrite, EventsWrite, KeysAdmin, MetricsRead, OperationsRead,
    OperationsWrite, PoliciesApprove, PoliciesRead, PoliciesWrite, PricesRead,
};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use crate::access::Needs;
use crate::error::ApiError;
use crate::listeners::Served;
use crate::openapi;
use crate::pipeline::{self, Audience, REQUEST_TIMEOUT, Route};
use crate::routes::{
    audit, explanation, failed_jobs, health, held_move, history, import, key, market_event, personalisation,
    policy, policy_draft, price, price_changes, price_differences, prices, product, quote_lock,
    recalculation, simulation,
};
use crate::state::AppState;

/// A policy in JSON is valid YAML. This type is not documented: a generated client would encode the document
/// as a JSON string.
const POLICY_AS_JSON: &[&str] = &["application/json"];
/// Aliases of the media types of imports.
const ROW_TYPES: &[&str] = &["application/csv", "application/ndjson", "application/jsonl"];

/// The paths of all routes of [`Audience::Probe`]: connections are accepted for them when all places are
/// taken.
pub(crate) const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// The routes that the OpenAPI document describes.
fn documented() -> Vec<Registration> {
    use Needs::{Nothing, ReadOrWrite};
    vec![
        price_registration(),
        Registration::of(Audience::Price, Needs::Scope(PricesRead), routes!(prices::prices)),
        Registration::of(Audience::Price, Needs::Scope(PricesRead), routes!(quote_lock::keys)),
        Registration::of(
            Audience::Price,
            Needs::Scope(PricesRead),
            routes!(personalisation::personalisation),
        ),
        administrative(Needs::Scope(CatalogueRead), routes!(price_changes::follow)).without_time_limit(),
        administrative(Needs::Scope(OperationsRead), routes!(price_differences::list)),
        administrative(
            ReadOrWrite(CatalogueRead, CatalogueWrite),
            routes!(product::get, product::put, product::delete),
        ),
        administrative(Needs::Scope(CatalogueRead), routes!(explanation::explanation)),
        administrative(Needs::Scope(CatalogueRead), routes!(history::history)),
        administrative(Needs::Scope(CatalogueWrite), routes!(import::import))
            .also_taking(ROW_TYPES)
            .without_time_limit(),
        administrative(Needs::Scope(EventsWrite), routes!(market_event::publish)),
        administrative(
            ReadOrWrite(OperationsRead, OperationsWrite),
            routes!(recalculation::list, recalculation::post),
        ),
        administrative(Needs::Scope(OperationsRead), routes!(recalculation::get)),
        administrative(Needs::Scope(PoliciesApprove), routes!(recalculation::approve)),
        administrative(Needs::Scope(PoliciesApprove), routes!(recalculation::reject)),
        administrative(Needs::Scope(OperationsRead), routes!(held_move::list)),
        administrative(Needs::Scope(PoliciesApprove), routes!(held_move::approve)).without_time_limit(),
        administrative(Needs::Scope(PoliciesApprove), routes!(held_move::reject)).without_time_limit(),
        administrative(ReadOrWrite(PoliciesRead, PoliciesWrite), routes!(policy::list, policy::publish))
            .also_taking(POLICY_AS_JSON)
            .without_time_limit(),
        administrative(Needs::Scope(PoliciesRead), routes!(policy::get)),
        administrative(Needs::Scope(PoliciesRead), routes!(policy::diff)),
        administrative(Needs::Scope(PoliciesWrite), routes!(policy::rollback)).without_time_limit(),
        administrative(Needs::Scope(PoliciesRead), routes!(policy::check)).also_taking(POLICY_AS_JSON),
        administrative(Needs::Scope(PoliciesRead), routes!(policy::schema)),
        administrative(Needs::Scope(PoliciesRead), routes!(simulation::simulate))
            .also_taking(POLICY_AS_JSON)
            .without_time_limit(),
        administrative(Needs::Scope(PoliciesRead), routes!(policy_draft::list)),
        administrative(
            ReadOrWrite(PoliciesRead, PoliciesWrite),
            routes!(policy_draft::get, policy_draft::put, policy_draft::delete),
        )
        .also_taking(POLICY_AS_JSON),
        administrative(Needs::Scope(OperationsRead), routes!(failed_jobs::list)),
        administrative(Needs::Scope(OperationsRead), routes!(failed_jobs::get)),
        administrative(Needs::Scope(OperationsWrite), routes!(failed_jobs::requeue)),
        administrative(Needs::Scope(KeysAdmin), routes!(key::list, key::create)),
        administrative(Needs::Scope(KeysAdmin), routes!(key::revoke)),
        administrative(Needs::Scope(KeysAdmin), routes!(key::rotate)),
        administrative(Needs::Scope(AuditRead), routes!(audit::list)),
        Registration::of(Audience::Probe, Nothing, routes!(health::alive)),
        Registration::of(Audience::Probe, Nothing, routes!(health::ready)),
    ]
}

/// The routes that the OpenAPI document leaves out.
fn undocumented(document: &OpenApi) -> [(Audience, Needs, &'static str, MethodRouter<AppState>); 3] {
    // Serialising the document cannot fail.
    let document = Bytes::from(document.to_json().unwrap_or_default());
    let document = async move || ([(header::CONTENT_TYPE, "application/json")], document);
    let metrics = async |State(state): State<AppState>| pricing_core::health::render(&state.engine.registry);
    [
        (Audience::Page, Needs::Nothing, "/", get(health::index)),
        (Audience::Page, Needs::Nothing, "/openapi.json", get(document)),
        (Audience::Probe, Needs::Scope(MetricsRead), "/metrics", get(metrics)),
    ]
}

/// The price route. HTTP workers answer its POST requests themselves ([`crate::hot_path`]); the router
/// receives its other methods only, and would give the same answer.
fn price_registration() -> Registration {
    Registration::of(Audience::Price, Needs::Scope(PricesRead), routes!(price::price))
}

/// A route for operators, and for programs that take in changes.
fn administrative(needs: Needs, handlers: UtoipaMethodRouter<AppState>) -> Registration {
    Registration::of(Audience::Administrative, needs, handlers)
}

/// A path with its handlers and properties.
struct Registration {
    audience: Audience,
    needs: Needs,
    time_limit: Option<Duration>,
    /// Media types of bodies that are accepted although the OpenAPI document does not list them.
    also_taken: &'static [&'static str],
    handlers: UtoipaMethodRouter<AppState>,
}

impl Registration {
    fn of(audience: Audience, needs: Needs, handlers: UtoipaMethodRouter<AppState>) -> Self {
        Self { audience, needs, time_limit: Some(REQUEST_TIMEOUT), also_taken: &[], handlers }
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
        let Self { audience, needs, time_limit, .. } = *self;
        Route { name, audience, needs, time_limit, answered: None, media_types }
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
    assemble(|_| true, |registration| registration.handlers).1
}

fn assemble(
    is_served: impl Fn(&Registration) -> bool,
    with_pipeline: impl Fn(Registration) -> UtoipaMethodRouter<AppState>,
) -> (Router<AppState>, OpenApi) {
    let mut api = OpenApiRouter::with_openapi(openapi::head());
    let mut routes = BTreeMap::new();
    for registration in documented().into_iter().filter(is_served) {
        routes.insert(registration.path(), (registration.audience, registration.needs));
        api = api.routes(with_pipeline(registration));
    }
    let (router, document) = api.split_for_parts();
    (router, openapi::completed(document, &routes))
}

/// The router of a listener, with the pipeline around each route.
pub(crate) fn router(state: &AppState, served: Served) -> Router {
    let pipeline = |route| from_fn_with_state((state.clone(), Arc::new(route)), pipeline::layer);
    let not_allowed = async || ApiError::MethodNotAllowed.into_response();
    // Added before the layer, so that the layer wraps this answer too.
    let with_pipeline =
        |route, handlers: MethodRouter<AppState>| handlers.fallback(not_allowed).layer(pipeline(route));
    let is_served = |registration: &Registration| match served {
        Served::Everything | Served::Administration => true,
        Served::Prices => matches!(registration.audience, Audience::Price | Audience::Probe),
    };
    let (mut router, document) = assemble(is_served, |registration| {
        let route = registration.route();
        registration.handlers.map(|handlers| with_pipeline(route, handlers))
    });
    let not_found = async || ApiError::RouteNotFound.into_response();
    let plain = |audience, needs, name| Route {
        name,
        audience,
        needs,
        time_limit: Some(REQUEST_TIMEOUT),
        answered: None,
        media_types: Vec::new(),
    };
    let unmatched = not_found.layer(pipeline(plain(Audience::Page, Needs::Nothing, "unmatched")));
    if served == Served::Prices {
        return router.fallback(unmatched).with_state(state.clone());
    }
    for (audience, needs, path, handlers) in undocumented(&document) {
        router = router.route(path, with_pipeline(plain(audience, needs, path), handlers));
    }
    // Swagger UI has an empty answer for files that it lacks.
    let described = async |response: Response| match response.status() {
        StatusCode::NOT_FOUND => ApiError::RouteNotFound.into_response(),
        _ => response,
    };
    let docs = Router::from(openapi::swagger_ui()).method_not_allowed_fallback(not_allowed);
    let docs = docs.layer(map_response(described));
    router
        .merge(docs.layer(pipeline(plain(Audience::Page, Needs::Nothing, "/docs"))))
        .fallback(unmatched)
        .with_state(state.clone())
}

/// Every route with its methods, in the order of the table.
#[cfg(test)]
fn every_route() -> Vec<(Route, Vec<Method>)> {
    let documented = documented().into_iter().map(|registration| {
        let route = registration.route();
        let methods = route.media_types.iter().map(|(method, _)| method.clone()).collect();
        (route, methods)
    });
    let others = undocumented(&document()).into_iter().map(|(audience, needs, name, _)| {
        let media_types = Vec::new();
        (Route { name, audience, needs, time_limit: None, answered: None, media_types }, vec![Method::GET])
    });
    documented.chain(others).collect()
}

#[cfg(test)]
mod tests;
