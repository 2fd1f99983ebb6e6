//! The OpenAPI document, made from the handlers, and Swagger UI, served from within the binary.

use axum::Json;
use axum::response::IntoResponse;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::error::PROBLEM_JSON;
use crate::routes::{
    explanation, failed_jobs, health, history, import, market_event, policy, policy_draft, price,
    price_changes, prices, product, recalculation, simulation,
};

/// The API as OpenAPI 3.1.
#[derive(OpenApi)]
#[openapi(
    modifiers(&OptionalBodies, &OperationNames, &CommonProblems),
    info(
        title = "Pricing engine",
        description = "What a product costs this shopper now: exact to the minor unit, with the reason. Errors are application/problem+json with stable types."
    ),
    paths(
        price::price,
        prices::prices,
        price_changes::follow,
        explanation::explanation,
        history::history,
        product::get,
        product::put,
        product::delete,
        import::import,
        market_event::publish,
        recalculation::list,
        recalculation::post,
        recalculation::get,
        recalculation::approve,
        recalculation::reject,
        policy::list,
        policy::get,
        policy::check,
        policy::schema,
        policy_draft::list,
        policy_draft::get,
        policy_draft::put,
        policy_draft::delete,
        simulation::simulate,
        policy::publish,
        policy::rollback,
        policy::diff,
        failed_jobs::list,
        failed_jobs::get,
        failed_jobs::requeue,
        health::alive,
        health::ready,
    ),
    tags(
        (name = "prices", description = "Prices and their reasons"),
        (name = "catalogue", description = "What is sold"),
        (name = "market", description = "What moves prices"),
        (name = "policies", description = "How prices are made"),
        (name = "operations", description = "Signs of life, and work that was given up"),
    )
)]
pub struct ApiDocument;

/// Events and recalculations may be asked for without a body, which the description of a handler cannot say
/// of several media types, nor without allowing `null`.
struct OptionalBodies;

impl Modify for OptionalBodies {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for path in [market_event::PATH, recalculation::PATH] {
            let post = document.paths.paths.get_mut(path).and_then(|path| path.post.as_mut());
            if let Some(RefOr::T(body)) = post.and_then(|post| post.request_body.as_mut()) {
                body.required = None;
            }
        }
    }
}

/// Each operation is named after its method and path: clients are generated from these names, which have to
/// differ, and those of the handlers do not.
struct OperationNames;

impl Modify for OperationNames {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut document.paths.paths {
            for (method, operation) in operations(item) {
                operation.operation_id = Some(operation_name(method, path));
            }
        }
    }
}

/// What any operation of a kind may answer, said once; what an operation says itself stays.
struct CommonProblems;

impl Modify for CommonProblems {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut document.paths.paths {
            let kinds = [
                (path.contains('{'), "422", "The path is not percent-encoded UTF-8"),
                (
                    path.starts_with("/api/"),
                    "503",
                    "What it needs does not answer, or the answer took too long",
                ),
            ];
            for (_, operation) in operations(item) {
                let body = (operation.request_body.is_some(), "408", "The body did not arrive in time");
                for (_, status, description) in kinds.into_iter().chain([body]).filter(|(may, ..)| *may) {
                    let responses = &mut operation.responses.responses;
                    responses.entry(status.to_owned()).or_insert_with(|| problem(description));
                }
            }
        }
    }
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
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(description).content(PROBLEM_JSON, content).build().into()
}

/// `post_recalculations_task_id_approve` of `POST /api/v1/recalculations/{task_id}/approve`.
fn operation_name(method: &str, path: &str) -> String {
    let words = path.trim_start_matches("/api/v1").split(|c: char| !c.is_ascii_alphanumeric());
    std::iter::once(method).chain(words.filter(|word| !word.is_empty())).collect::<Vec<_>>().join("_")
}

/// The document.
pub(crate) async fn document() -> impl IntoResponse {
    Json(ApiDocument::openapi())
}

/// Swagger UI at `/docs`, reading `/openapi.json`.
pub(crate) fn swagger_ui() -> SwaggerUi {
    SwaggerUi::new("/docs").config(Config::from("/openapi.json").try_it_out_enabled(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_operations_have_one_name() {
        let text = ApiDocument::openapi().to_json().unwrap();
        let names: Vec<&str> =
            text.split(r#""operationId":""#).skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let different: std::collections::BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!((names.len(), names.len() > 20), (different.len(), true), "{names:?}");
        assert!(different.contains("post_recalculations_task_id_approve"), "{names:?}");
    }

    #[test]
    fn every_operation_says_what_any_of_its_kind_may_answer() {
        for (path, mut item) in ApiDocument::openapi().paths.paths {
            for (method, operation) in operations(&mut item) {
                let says = |status: &str| operation.responses.responses.contains_key(status);
                let has_body = operation.request_body.is_some();
                assert!(!has_body || (says("408") && says("413")), "{method} {path}");
                assert!(!path.contains('{') || says("422"), "{method} {path}");
                assert!(!path.starts_with("/api/") || says("503"), "{method} {path}");
            }
        }
    }

    #[test]
    fn the_document_changes_only_on_purpose() {
        insta::assert_snapshot!(ApiDocument::openapi().to_pretty_json().unwrap());
    }
}
