//! `/api/v1/products/{product_id}`: one product of the catalogue.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pricing_core::engine::{Attribution, Deletion};
use pricing_domain::diagnostic::shorten;
use pricing_domain::facts::product::{Product, ProductDraft, ProductId};
use pricing_domain::facts::product_tag::{OnlyIf, ProductTag};
use serde::Serialize;

use crate::access::Caller;
use crate::error::ApiError;
use crate::extract::{BoundedBody, MAX_BODY_BYTES, Named, read_object};
use crate::state::AppState;

/// The outcome of putting a product.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct PutAnswer {
    /// The product's identifier.
    #[schema(example = "P-100")]
    product_id: String,
    /// `created`, `updated` or `unchanged`.
    result: &'static str,
    /// Accepted values that are probably not intended; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    warnings: Vec<String>,
}

/// A product of the catalogue; amounts are JSON numbers with their exact decimal digits.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Product)]
pub(crate) struct ProductSchema {
    #[schema(example = "P-100", max_length = 64)]
    product_id: String,
    #[schema(max_length = 200)]
    name: Option<String>,
    category: Option<String>,
    brand: Option<String>,
    /// The ISO 4217 code of the amounts.
    #[schema(example = "USD")]
    currency: String,
    /// The price before any rule; above 0, in whole minor units.
    #[schema(example = 51.99)]
    base_price: f64,
    /// The cost of one unit; above 0, up to six decimal places.
    unit_cost: Option<f64>,
    floor_price: Option<f64>,
    ceiling_price: Option<f64>,
    /// The manufacturer's minimum advertised price; no price is lower.
    minimum_advertised_price: Option<f64>,
    /// Up to 32 further attributes.
    attributes: std::collections::BTreeMap<String, String>,
}

/// A product to put; it replaces the whole product. Amounts may be numbers or strings.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ProductDraft)]
pub(crate) struct ProductDraftSchema {
    /// The product's identifier; if given, that of the path.
    #[schema(example = "P-100", max_length = 64)]
    product_id: Option<String>,
    #[schema(max_length = 200)]
    name: Option<String>,
    #[schema(max_length = 100)]
    category: Option<String>,
    #[schema(max_length = 100)]
    brand: Option<String>,
    /// The ISO 4217 code of the amounts.
    #[schema(example = "USD")]
    currency: String,
    /// The price before any rule; above 0, in whole minor units.
    #[schema(example = 51.99)]
    base_price: f64,
    /// The cost of one unit, up to six decimal places; unknown if 0. It is stated as of the request: the cost
    /// of an event counts only if its time is later.
    unit_cost: Option<f64>,
    floor_price: Option<f64>,
    ceiling_price: Option<f64>,
    /// The manufacturer's minimum advertised price; no price is lower.
    minimum_advertised_price: Option<f64>,
    /// Up to 32 further attributes.
    #[schema(required = false)]
    attributes: std::collections::BTreeMap<String, String>,
}

/// Returns the product.
#[utoipa::path(get, path = "/api/v1/products/{product_id}", tag = "catalogue", summary = "Get a product",
    params(("product_id" = String, Path, description = "The product's identifier"),
        ("If-None-Match" = Option<String>, Header, pattern = r#"^(\*|(W/)?"[^"]*"( *, *(W/)?"[^"]*")*)$"#, description = "Return the product only if it does not have this ETag")),
    responses(
        (status = 200, description = "The product; send its ETag as If-Match to change it", body = ProductSchema),
        (status = 304, description = "The product has the ETag of If-None-Match"),
        (status = 404, description = "No such product")))]
pub(crate) async fn get(
    State(state): State<AppState>,
    Named(product_id): Named<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let not_found = || ApiError::ProductNotFound { product_id: product_id.clone() };
    let id = ProductId::parse(&product_id).map_err(|_| not_found())?;
    let product = state.engine.store.product(&id).await?.ok_or_else(not_found)?;
    let etag = etag(&product);
    if is_known(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    Ok(([(header::ETAG, etag)], Json(product)).into_response())
}

/// Creates or replaces the product and prices it.
#[utoipa::path(put, path = "/api/v1/products/{product_id}", tag = "catalogue", summary = "Create or replace a product",
    params(("product_id" = String, Path, description = "The product's identifier"),
        ("If-Match" = Option<String>, Header, pattern = r#"^(\*|(W/)?"[^"]*"( *, *(W/)?"[^"]*")*)$"#, description = "Put only if the product has this ETag; `*`: only if it exists"),
        ("If-None-Match" = Option<String>, Header, pattern = r"^\*$", description = "`*`: put only if the product does not exist")),
    request_body = ProductDraftSchema,
    responses(
        (status = 200, description = "Updated or unchanged; the ETag header has its current ETag", body = PutAnswer),
        (status = 201, description = "Created; the ETag header has its ETag", body = PutAnswer),
        (status = 400, description = "The body is not JSON"),
        (status = 412, description = "The product does not meet If-Match or If-None-Match; nothing was changed"),
        (status = 413, description = "The body is longer than 64 KiB"),
        (status = 422, description = "A field is missing, unknown or invalid"),
        (status = 503, description = "The database or Redis does not answer")))]
pub(crate) async fn put(
    State(state): State<AppState>,
    caller: Caller,
    Named(product_id): Named<String>,
    headers: HeaderMap,
    BoundedBody(body): BoundedBody<MAX_BODY_BYTES>,
) -> Result<Response, ApiError> {
    let product = read_product(&product_id, &body)?;
    let only_if = read_condition(&headers)?;
    let (etag, warnings) = (etag(&product), product.currency.warning().into_iter().collect());
    state.require_redis().await?;
    let by = Attribution::single("product put", caller.origin());
    let summary = state.engine.put_product(product, only_if, by).await?;
    let summary = summary.ok_or(ApiError::ProductChanged)?;
    let (status, result) = match summary {
        summary if summary.created > 0 => (StatusCode::CREATED, "created"),
        summary if summary.updated > 0 => (StatusCode::OK, "updated"),
        _ => (StatusCode::OK, "unchanged"),
    };
    Ok((status, [(header::ETAG, etag)], Json(PutAnswer { product_id, result, warnings })).into_response())
}

/// Removes the product and all facts about it up to now; its price history stays.
#[utoipa::path(delete, path = "/api/v1/products/{product_id}", tag = "catalogue", summary = "Remove a product",
    params(("product_id" = String, Path, description = "The product's identifier"),
        ("If-Match" = Option<String>, Header, pattern = r#"^(\*|(W/)?"[^"]*"( *, *(W/)?"[^"]*")*)$"#, description = "Remove only if the product has this ETag")),
    responses(
        (status = 204, description = "Removed"),
        (status = 412, description = "The product does not meet If-Match or If-None-Match; nothing was changed"),
        (status = 404, description = "No such product"),
        (status = 503, description = "The database or Redis does not answer")))]
pub(crate) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Named(product_id): Named<String>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let not_found = || ApiError::ProductNotFound { product_id: product_id.clone() };
    let id = ProductId::parse(&product_id).map_err(|_| not_found())?;
    let only_if = read_condition(&headers)?;
    state.require_redis().await?;
    let by = Attribution::single("product deleted", caller.origin());
    match state.engine.delete_product(id, only_if, by).await? {
        Deletion::Done => Ok(StatusCode::NO_CONTENT),
        Deletion::Unknown => Err(not_found()),
        Deletion::Changed => Err(ApiError::ProductChanged),
    }
}

fn etag(product: &Product) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{}\"", ProductTag::of(product)))
        .unwrap_or(HeaderValue::from_static("\"\""))
}

/// Whether `If-None-Match` has this ETag, so that the product need not be sent again.
fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let named = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|named| named.to_str().ok());
    let etag = etag.to_str().unwrap_or_default();
    named
        .flat_map(|tags| tags.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

/// The condition on which a product may be changed (RFC 9110, 13.1): `If-Match` with `*` or tags, or
/// `If-None-Match: *`.
fn read_condition(headers: &HeaderMap) -> Result<OnlyIf, ApiError> {
    let is_only_new = match headers.get(header::IF_NONE_MATCH) {
        None => false,
        Some(any) if any == "*" => true,
        Some(_) => return Err(ApiError::field("If-None-Match", "is not allowed", "*")),
    };
    let written: Vec<&str> =
        headers.get_all(header::IF_MATCH).iter().map(|tags| tags.to_str().unwrap_or_default()).collect();
    if written.is_empty() {
        return Ok(if is_only_new { OnlyIf::IsNew } else { OnlyIf::Always });
    }
    if is_only_new {
        return Err(ApiError::field("If-None-Match", "is given besides If-Match", "one of the two"));
    }
    let written = written.join(",");
    if written.trim() == "*" {
        return Ok(OnlyIf::Exists);
    }
    let mut tags = Vec::new();
    for tag in written.split(',').map(str::trim) {
        let quoted = tag.trim_start_matches("W/");
        let opaque = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let refuse = || {
            let problem = format!("\"{}\" is not allowed", shorten(tag));
            ApiError::field("If-Match", problem, "the ETag of a state of the product, in quotes")
        };
        let opaque = opaque.ok_or_else(refuse)?;
        // A weak tag never matches in If-Match.
        if quoted.len() == tag.len() {
            tags.push(opaque.to_owned());
        }
    }
    Ok(OnlyIf::IsOneOf(tags))
}

fn read_product(product_id: &str, body: &[u8]) -> Result<Product, ApiError> {
    let mut draft: ProductDraft = read_object(body)?;
    let named = draft.product_id.get_or_insert_with(|| product_id.to_owned());
    if named.trim() != product_id {
        let problem = format!("\"{}\" is not the product of the path", shorten(named));
        return Err(ApiError::field("product_id", problem, format!("\"{}\", or none", shorten(product_id))));
    }
    draft.check().map_err(|errors| ApiError::Invalid { errors })
}
