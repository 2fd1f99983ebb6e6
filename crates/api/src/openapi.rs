//! The OpenAPI document, generated from the handlers, and Swagger UI, embedded in the binary.

use std::collections::BTreeMap;

use axum::http::Method;
use pricing_core::access::scope::Scope;
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::access::Needs;
use crate::error::PROBLEM_JSON;
use crate::pipeline::Audience;
use crate::routes::{market_event, recalculation};

/// The name of the security scheme.
const KEY_SCHEME: &str = "key";
const KEY_DESCRIPTION: &str =
    "An access key, `pricing_…`, if access control is on. The operations say which scope they need.";

/// The API as OpenAPI 3.1, without its paths.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Pricing engine",
        description = "What a product costs this shopper now: exact to the minor unit, with the reason. Errors are application/problem+json with stable types."
    ),
    tags(
        (name = "prices", description = "Prices, their changes and explanations"),
        (name = "catalogue", description = "Products and imports"),
        (name = "market", description = "Market events and recalculations"),
        (name = "policies", description = "Pricing policies"),
        (name = "operations", description = "Health, and failed jobs"),
        (name = "access", description = "Access keys"),
    )
)]
struct Head;

/// The document without its paths.
pub(crate) fn head() -> utoipa::openapi::OpenApi {
    Head::openapi()
}

/// Adds the identifiers and the shared errors of operations to the document.
pub(crate) fn completed(
    mut document: utoipa::openapi::OpenApi,
    routes: &BTreeMap<String, (Audience, Needs)>,
) -> utoipa::openapi::OpenApi {
    make_bodies_optional(&mut document);
    let key = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(KEY_DESCRIPTION)).build();
    let components = document.components.get_or_insert_default();
    components.security_schemes.insert(KEY_SCHEME.to_owned(), SecurityScheme::Http(key).into());
    for (path, item) in &mut document.paths.paths {
        let Some((audience, needs)) = routes.get(path) else { continue };
        for (method, operation) in operations(item) {
            operation.operation_id = Some(operation_name(method, path));
            describe_problems(operation);
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap_or_default();
            if let Some(scope) = needs.scope_of(&method) {
                ask_for_key(operation, scope);
            }
            add_common_problems(path, *audience == Audience::Administrative, operation);
        }
    }
    document
}

/// Adds the scope that the operation needs. The empty alternative is for services without access control.
fn ask_for_key(operation: &mut Operation, scope: Scope) {
    let keyed = SecurityRequirement::new(KEY_SCHEME, [scope.as_str()]);
    operation.security = Some(vec![keyed, SecurityRequirement::default()]);
    let responses = &mut operation.responses.responses;
    let unknown =
        "Access control is on, and the request has no key, or one that is unknown, revoked or expired";
    responses.insert("401".to_owned(), problem(unknown));
    let lacking = format!(
        "The key lacks the scope `{scope}`, or a browser sent the request for a page of another site"
    );
    responses.insert("403".to_owned(), problem(&lacking));
}

/// Makes the bodies of events and recalculations optional. The attributes of a handler cannot express that
/// for several media types, nor without allowing `null`.
fn make_bodies_optional(document: &mut utoipa::openapi::OpenApi) {
    for path in [market_event::PATH, recalculation::PATH] {
        let post = document.paths.paths.get_mut(path).and_then(|path| path.post.as_mut());
        if let Some(RefOr::T(body)) = post.and_then(|post| post.request_body.as_mut()) {
            body.required = None;
        }
    }
}

/// Gives each error that a handler describes a problem document as its body, unless it has another one.
fn describe_problems(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && status.starts_with(['4', '5'])
            && response.content.is_empty()
        {
            response.content.insert(PROBLEM_JSON.to_owned(), problem_content().into());
        }
    }
}

/// Adds the errors that all operations of a kind share; descriptions of the operation itself stay.
fn add_common_problems(path: &str, is_administrative: bool, operation: &mut Operation) {
    let has_body = operation.request_body.is_some();
    let kinds = [
        (path.contains('{'), "422", "The path is not percent-encoded UTF-8"),
        (path.starts_with("/api/"), "503", "A dependency does not answer, or the answer took too long"),
        (true, "400", "The Host header is missing, repeated or invalid"),
        (has_body, "408", "The body did not arrive in time"),
        (has_body, "415", "The media type, the coding or the character set of the body is not accepted"),
        (is_administrative, "421", "The Host header is not a name of this service"),
    ];
    for (_, status, description) in kinds.into_iter().filter(|(may, ..)| *may) {
        let responses = &mut operation.responses.responses;
        responses.entry(status.to_owned()).or_insert_with(|| problem(description));
    }
}

/// The methods of a path, each with the media types of its body.
pub(crate) fn media_types(item: &PathItem) -> impl Iterator<Item = (Method, Vec<String>)> {
    let operations = [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::DELETE, &item.delete),
    ];
    operations.into_iter().filter_map(|(method, operation)| {
        let taken = match &operation.as_ref()?.request_body {
            Some(RefOr::T(body)) => body.content.keys().cloned().collect(),
            _ => Vec::new(),
        };
        Some((method, taken))
    })
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let operations = [
        ("get", &mut item.get),
        ("put", &mut item.put),
        ("post", &mut item.post),
        ("delete", &mut item.delete),
    ];
    operations.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

fn problem(description: &str) -> RefOr<utoipa::openapi::Response> {
    ResponseBuilder::new().description(description).content(PROBLEM_JSON, problem_content()).build().into()
}

fn problem_content() -> Content {
    ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build()
}

/// `post_recalculations_task_id_approve` of `POST /api/v1/recalculations/{task_id}/approve`.
fn operation_name(method: &str, path: &str) -> String {
    let words = path.trim_start_matches("/api/v1").split(|c: char| !c.is_ascii_alphanumeric());
    std::iter::once(method).chain(words.filter(|word| !word.is_empty())).collect::<Vec<_>>().join("_")
}

/// Swagger UI at `/docs`, reading `/openapi.json`.
pub(crate) fn swagger_ui() -> SwaggerUi {
    SwaggerUi::new("/docs").config(Config::from("/openapi.json").try_it_out_enabled(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::document;

    #[test]
    fn operation_ids_are_unique() {
        let text = document().to_json().unwrap();
        let names: Vec<&str> =
            text.split(r#""operationId":""#).skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let different: std::collections::BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!((names.len(), names.len() > 20), (different.len(), true), "{names:?}");
        assert!(different.contains("post_recalculations_task_id_approve"), "{names:?}");
    }

    #[test]
    fn every_operation_describes_the_errors_of_its_kind() {
        for (path, mut item) in document().paths.paths {
            for (method, operation) in operations(&mut item) {
                let says = |status: &str| operation.responses.responses.contains_key(status);
                let has_body = operation.request_body.is_some();
                assert!(!has_body || (says("408") && says("413")), "{method} {path}");
                assert!(!path.contains('{') || says("422"), "{method} {path}");
                assert!(!path.starts_with("/api/") || says("503"), "{method} {path}");
                let of_shoppers =
                    ["/api/v1/price", "/api/v1/prices", "/api/v1/personalisation", "/api/v1/quote-lock-keys"];
                let is_open = of_shoppers.contains(&&*path) || path == "/healthz" || path == "/readyz";
                assert_eq!(says("421"), !is_open, "{method} {path}");
                let is_probe = ["/healthz", "/readyz"].contains(&&*path);
                assert_eq!((says("401"), says("403")), (!is_probe, !is_probe), "{method} {path}");
            }
        }
    }

    #[test]
    fn the_document_changes_only_on_purpose() {
        insta::assert_snapshot!(document().to_pretty_json().unwrap());
    }
}
