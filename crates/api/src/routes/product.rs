//! `/api/v1/products/{product_id}`: one product of the catalogue.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pricing_core::domain::diagnostic::shorten;
use pricing_core::domain::product::{Product, ProductDraft, ProductId};
use serde::Serialize;

use crate::error::{ApiError, Problem};
use crate::extract::{BoundedBody, MAX_BODY_BYTES, Named, read_object};
use crate::state::AppState;

/// What putting a product did.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct PutAnswer {
    /// The product.
    #[schema(example = "P-100")]
    product_id: String,
    /// `created`, `updated` or `unchanged`.
    result: &'static str,
}

/// A product as the catalogue holds it; amounts are JSON numbers with their exact digits.
#[derive(Debug, utoipa::ToSchema)]
#[schema(as = Product)]
#[expect(dead_code, reason = "documents the wire form of a type of the core")]
pub(crate) struct ProductSchema {
    #[schema(example = "P-100", max_length = 64)]
    product_id: String,
    #[schema(max_length = 200)]
    name: Option<String>,
    category: Option<String>,
    brand: Option<String>,
    /// ISO 4217.
    #[schema(example = "USD")]
    currency: String,
    /// Above 0, in whole minor units.
    #[schema(example = 51.99)]
    base_price: f64,
    /// Above 0, up to six decimal places.
    unit_cost: Option<f64>,
    floor_price: Option<f64>,
    ceiling_price: Option<f64>,
    /// What its maker allows it to be advertised for; no price is lower.
    minimum_advertised_price: Option<f64>,
    /// Up to 32 more facts.
    attributes: std::collections::BTreeMap<String, String>,
}

/// A product as it is put: amounts may be numbers or texts, and what is left out is not known.
#[derive(Debug, utoipa::ToSchema)]
#[schema(as = ProductDraft)]
#[expect(dead_code, reason = "documents the wire form of a type of the core")]
pub(crate) struct ProductDraftSchema {
    /// That of the path, if it is said again.
    #[schema(example = "P-100", max_length = 64)]
    product_id: Option<String>,
    #[schema(max_length = 200)]
    name: Option<String>,
    #[schema(max_length = 100)]
    category: Option<String>,
    #[schema(max_length = 100)]
    brand: Option<String>,
    /// ISO 4217.
    #[schema(example = "USD")]
    currency: String,
    /// Above 0, in whole minor units.
    #[schema(example = 51.99)]
    base_price: f64,
    /// Up to six decimal places; 0 if it is not known. Putting the product states it as of the request: an event that says another
    /// one counts if it is later.
    unit_cost: Option<f64>,
    floor_price: Option<f64>,
    ceiling_price: Option<f64>,
    /// What its maker allows it to be advertised for; no price is lower.
    minimum_advertised_price: Option<f64>,
    /// Up to 32 more facts.
    #[schema(required = false)]
    attributes: std::collections::BTreeMap<String, String>,
}

/// The product.
#[utoipa::path(get, path = "/api/v1/products/{product_id}", tag = "catalogue", summary = "A product",
    params(("product_id" = String, Path, description = "The product")),
    responses(
        (status = 200, description = "The product", body = ProductSchema),
        (status = 404, description = "No such product", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn get(
    State(state): State<AppState>,
    Named(product_id): Named<String>,
) -> Result<Json<Product>, ApiError> {
    let not_found = || ApiError::ProductNotFound { product_id: product_id.clone() };
    let id = ProductId::parse(&product_id).map_err(|_| not_found())?;
    let product = state.repricer.catalogue.product(&id).await?;
    product.map(Json).ok_or_else(not_found)
}

/// Creates or replaces the product and prices it.
#[utoipa::path(put, path = "/api/v1/products/{product_id}", tag = "catalogue", summary = "Create or replace a product",
    params(("product_id" = String, Path, description = "The product")),
    request_body = ProductDraftSchema,
    responses(
        (status = 200, description = "It was updated, or is unchanged", body = PutAnswer),
        (status = 201, description = "It was created", body = PutAnswer),
        (status = 400, description = "Not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "More than 64 KiB", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is missing or not allowed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database or Redis does not answer", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn put(
    State(state): State<AppState>,
    Named(product_id): Named<String>,
    BoundedBody(body): BoundedBody<MAX_BODY_BYTES>,
) -> Result<Response, ApiError> {
    let product = read_product(&product_id, &body)?;
    state.require_redis().await?;
    let summary = state.repricer.put_products(vec![product], "product put").await?;
    let (status, result) = match summary {
        summary if summary.created > 0 => (StatusCode::CREATED, "created"),
        summary if summary.updated > 0 => (StatusCode::OK, "updated"),
        _ => (StatusCode::OK, "unchanged"),
    };
    Ok((status, Json(PutAnswer { product_id, result })).into_response())
}

/// Removes the product and what is known about it up to now; its price history stays.
#[utoipa::path(delete, path = "/api/v1/products/{product_id}", tag = "catalogue", summary = "Remove a product",
    params(("product_id" = String, Path, description = "The product")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "No such product", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database or Redis does not answer", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn delete(
    State(state): State<AppState>,
    Named(product_id): Named<String>,
) -> Result<StatusCode, ApiError> {
    let not_found = || ApiError::ProductNotFound { product_id: product_id.clone() };
    let id = ProductId::parse(&product_id).map_err(|_| not_found())?;
    state.require_redis().await?;
    let deleted = state.repricer.delete_product(id, "product deleted").await?;
    if deleted { Ok(StatusCode::NO_CONTENT) } else { Err(not_found()) }
}

fn read_product(product_id: &str, body: &[u8]) -> Result<Product, ApiError> {
    let mut draft: ProductDraft = read_object(body)?;
    let named = draft.product_id.get_or_insert_with(|| product_id.to_owned());
    if named != product_id {
        let problem = format!("\"{}\" is not the product of the path", shorten(named));
        return Err(ApiError::field("product_id", problem, format!("\"{}\", or none", shorten(product_id))));
    }
    draft.check().map_err(|errors| ApiError::Invalid { errors })
}
