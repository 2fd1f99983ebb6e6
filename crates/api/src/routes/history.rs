//! `GET /api/v1/products/{product_id}/history`: how a list price came to be what it is, change by change, and what a
//! reduction may be announced against.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use chrono::{DateTime, Utc};
use pricing_core::catalogue::PriceChange;
use pricing_core::domain::diagnostic::shorten;
use pricing_core::domain::money::{as_json_number, as_optional_json_number};
use pricing_core::domain::prior_price::{self, AppliedPrice, lowest_before};
use pricing_core::domain::product::ProductId;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::error::{ApiError, Problem};
use crate::extract::Named;
use crate::state::AppState;

/// Changes in one answer, if nothing else is asked for, and at most.
const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1_000;
/// Changes that are looked at for a reduction and the lowest price: a year of one every hour.
const MAX_CONSIDERED: u32 = 9_000;

/// Which changes.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryQuery {
    /// How many, from 1 to 1,000; 100 if absent.
    limit: Option<u32>,
    /// Only those before this revision: `next_before` of the answer before.
    before: Option<i64>,
}

/// A product's price changes.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct HistoryAnswer {
    /// The product.
    product_id: String,
    /// The reduction that the list price in effect is, by Directive 98/6/EC, article 6a; null if it is none.
    reduction: Option<ReductionAnswer>,
    /// The lowest list price of the last 30 days; null if there was none.
    #[serde(serialize_with = "as_optional_json_number")]
    #[schema(value_type = Option<f64>)]
    lowest_price_30_days: Option<Decimal>,
    /// The changes, the latest first.
    changes: Vec<ChangeAnswer>,
    /// Where the next page begins; null if this is the last.
    next_before: Option<i64>,
}

/// A reduction.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ReductionAnswer {
    /// When its first step was.
    started_at: DateTime<Utc>,
    /// The lowest list price in the 30 days before.
    #[serde(serialize_with = "as_json_number")]
    #[schema(value_type = f64)]
    prior_price: Decimal,
    /// The percentage that may be announced; 0 if the price is no lower than the prior price.
    #[serde(serialize_with = "as_json_number")]
    #[schema(value_type = f64)]
    percent: Decimal,
    /// Whether prices of all 30 days are known.
    is_complete: bool,
}

/// One change.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ChangeAnswer {
    /// Grows with every change of any price.
    revision: i64,
    /// The list price before; absent if it is the first.
    #[serde(serialize_with = "as_optional_json_number")]
    #[schema(value_type = Option<f64>)]
    old_list_price: Option<Decimal>,
    /// The list price after; absent if the product was removed.
    #[serde(serialize_with = "as_optional_json_number")]
    #[schema(value_type = Option<f64>)]
    new_list_price: Option<Decimal>,
    /// What both are in.
    currency: &'static str,
    /// The policy that made the new one.
    policy_version: i64,
    /// What made it change: an event's source and id, a recalculation, `product put`, `import`, `time`.
    cause: String,
    /// When.
    changed_at: DateTime<Utc>,
}

/// The changes of a product's list price.
#[utoipa::path(get, path = "/api/v1/products/{product_id}/history", tag = "prices", summary = "Price history",
    params(HistoryQuery, ("product_id" = String, Path, description = "The product; a removed one has a history too")),
    responses(
        (status = 200, description = "Its changes, the latest first", body = HistoryAnswer),
        (status = 404, description = "No such product, and there never was", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "limit or before is not allowed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database does not answer", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn history(
    State(state): State<AppState>,
    Named(product_id): Named<String>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<HistoryAnswer>, ApiError> {
    let Query(HistoryQuery { limit, before }) =
        query.map_err(|rejection| ApiError::field("query", rejection.body_text(), "limit, before"))?;
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::field("limit", format!("{limit} is not allowed"), "1 to 1000"));
    }
    let not_found = || ApiError::ProductNotFound { product_id: shorten(&product_id) };
    let id = ProductId::parse(&product_id).map_err(|_| not_found())?;
    let catalogue = &state.repricer.catalogue;
    let latest = catalogue.price_changes(&id, MAX_CONSIDERED).await?;
    if latest.is_empty() {
        return Err(not_found());
    }
    let applied = applied_prices(&latest);
    let kept = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut page = match before {
        // The first page is among those.
        None => latest,
        Some(before) => catalogue.price_changes_before(&id, before, limit + 1).await?,
    };
    let has_more = page.len() > kept;
    page.truncate(kept);
    Ok(Json(HistoryAnswer {
        product_id,
        reduction: prior_price::reduction(&applied).map(|reduction| ReductionAnswer {
            started_at: reduction.started_at,
            prior_price: reduction.prior_price,
            percent: reduction.percent,
            is_complete: reduction.is_complete,
        }),
        lowest_price_30_days: lowest_before(&applied, Utc::now()).map(|(lowest, _)| lowest),
        next_before: page.last().filter(|_| has_more).map(|last| last.revision),
        changes: page.into_iter().map(answer).collect(),
    }))
}

/// The prices, oldest first, in the currency in effect; one in another currency is none to compare with.
fn applied_prices(changes: &[PriceChange]) -> Vec<AppliedPrice> {
    let currency = changes.first().map(|newest| newest.currency);
    let applied = changes.iter().rev().map(|change| AppliedPrice {
        since: change.changed_at,
        price: change.new_list_price.filter(|_| Some(change.currency) == currency),
    });
    applied.collect()
}

fn answer(change: PriceChange) -> ChangeAnswer {
    ChangeAnswer {
        revision: change.revision,
        old_list_price: change.old_list_price,
        new_list_price: change.new_list_price,
        currency: change.currency.code(),
        policy_version: change.policy_version,
        cause: change.cause,
        changed_at: change.changed_at,
    }
}
