//! `GET /api/v1/prices/differences`: compares the prices that are served with those that are stored.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use pricing_core::engine::{EngineError, MAX_COMPARED, Place, PriceDifference};
use pricing_domain::facts::product::ProductId;
use pricing_wire::price_difference::{PriceDifferenceAnswer, PriceDifferencesAnswer, PriceDifferencesQuery};

use crate::error::ApiError;
use crate::state::AppState;

/// Compares a page of stored prices with what this process's memory and Redis hold and would serve.
#[utoipa::path(get, path = "/api/v1/prices/differences", tag = "operations",
    summary = "Compare served prices with stored ones",
    description = "Compares a page of stored prices with what the memory of the process that answers and Redis hold and would serve. An absent or expired entry is no difference. A difference is looked at again after three seconds before it is reported, as a price may be on its way; such a page takes that long.",
    params(PriceDifferencesQuery),
    responses(
        (status = 200, description = "The differences, by product", body = PriceDifferencesAnswer),
        (status = 422, description = "`limit` or `after` is invalid"),
        (status = 503, description = "The database or Redis does not answer")))]
pub(crate) async fn list(
    State(state): State<AppState>,
    query: Result<Query<PriceDifferencesQuery>, QueryRejection>,
) -> Result<Json<PriceDifferencesAnswer>, ApiError> {
    let Query(PriceDifferencesQuery { after, limit }) =
        query.map_err(|rejection| ApiError::field("query", rejection.body_text(), "after, limit"))?;
    let limit = limit.unwrap_or(MAX_COMPARED);
    if !(1..=MAX_COMPARED).contains(&limit) {
        return Err(ApiError::field("limit", format!("{limit} is not allowed"), "1 to 1000"));
    }
    let after = after.map(|after| ProductId::parse(&after)).transpose();
    let after = after.map_err(|problem| ApiError::field("after", problem.to_string(), "a product"))?;
    let page = state.engine.compare_prices(after.as_ref(), limit).await.map_err(|error| match error {
        // Nothing is written here.
        EngineError::Redis(error) => ApiError::from(error),
        other => ApiError::from(other),
    })?;
    Ok(Json(PriceDifferencesAnswer {
        compared: u64::try_from(page.compared).unwrap_or(u64::MAX),
        differences: page.differences.iter().map(answer).collect(),
        next_after: page.next_after.map(|next| next.as_str().to_owned()),
    }))
}

fn answer(difference: &PriceDifference) -> PriceDifferenceAnswer {
    PriceDifferenceAnswer {
        product_id: difference.product_id.as_str().to_owned(),
        place: match difference.place {
            Place::Memory => "memory",
            Place::Redis => "redis",
        }
        .to_owned(),
        served_revision: difference.served_revision,
        stored_revision: difference.stored_revision,
        served_list_price: difference.served_list_price,
        stored_list_price: difference.stored_list_price,
    }
}
