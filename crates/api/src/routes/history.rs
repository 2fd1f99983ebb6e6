//! `GET /api/v1/products/{product_id}/history`: the changes of a list price, and the prior price of a
//! reduction.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use chrono::{DateTime, TimeDelta, Utc};
use pricing_core::store::PriceChange;
use pricing_domain::diagnostic::shorten;
use pricing_domain::facts::product::ProductId;
use pricing_domain::pricing::prior_price::{AppliedPrice, PRIOR_PRICE_DAYS, lowest_before};
use pricing_wire::history::{ChangeAnswer, HistoryAnswer, HistoryQuery};

use crate::error::ApiError;
use crate::extract::Named;
use crate::routes::reduction;
use crate::state::AppState;

/// Changes in one answer: the default, and the maximum.
const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1_000;
/// Changes that are examined for a reduction and the lowest price: one an hour for a year.
const MAX_CONSIDERED: u32 = 9_000;

/// The changes of a product's list price.
#[utoipa::path(get, path = "/api/v1/products/{product_id}/history", tag = "prices", summary = "Get a price history",
    params(HistoryQuery, ("product_id" = String, Path, description = "The product's identifier; a removed product has a history, too")),
    responses(
        (status = 200, description = "The changes, newest first", body = HistoryAnswer),
        (status = 404, description = "No such product has ever existed"),
        (status = 422, description = "`limit` or `before` is invalid"),
        (status = 503, description = "The database does not answer")))]
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
    let store = &state.engine.store;
    let latest = store.price_changes(&id, MAX_CONSIDERED).await?;
    if latest.is_empty() {
        return Err(not_found());
    }
    let applied = applied_prices(&latest);
    let reductions = reduction::answers(&state, &id, &applied).await?;
    let now = state.engine.clock.now();
    let is_lowest_price_known = reaches_back(&latest, now);
    let lowest = lowest_before(&applied, now).filter(|_| is_lowest_price_known);
    let kept = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut page = match before {
        // `latest` includes the first page.
        None => latest,
        Some(before) => store.price_changes_before(&id, before, limit + 1).await?,
    };
    let has_more = page.len() > kept;
    page.truncate(kept);
    Ok(Json(HistoryAnswer {
        product_id,
        reduction: reductions.latest,
        progressive_reduction: reductions.progressive,
        lowest_price_30_days: lowest.map(|(lowest, _)| lowest),
        is_lowest_price_known,
        next_before: page.last().filter(|_| has_more).map(|last| last.revision),
        changes: page.into_iter().map(answer).collect(),
    }))
}

/// Whether these changes, latest first, are complete, or at least cover the last 30 days.
fn reaches_back(latest: &[PriceChange], now: DateTime<Utc>) -> bool {
    let are_all = u32::try_from(latest.len()).is_ok_and(|count| count < MAX_CONSIDERED);
    let start = now - TimeDelta::days(PRIOR_PRICE_DAYS);
    are_all || latest.last().is_some_and(|oldest| oldest.changed_at <= start)
}

/// The prices, oldest first; `None` for one in another currency than the current one, as they cannot be
/// compared.
fn applied_prices(changes: &[PriceChange]) -> Vec<AppliedPrice> {
    let currency = changes.first().map(|newest| &newest.currency);
    let applied = changes.iter().rev().map(|change| AppliedPrice {
        since: change.changed_at,
        price: change.new_list_price.filter(|_| Some(&change.currency) == currency),
    });
    applied.collect()
}

fn answer(change: PriceChange) -> ChangeAnswer {
    ChangeAnswer {
        revision: change.revision,
        old_list_price: change.old_list_price,
        new_list_price: change.new_list_price,
        currency: change.currency.into_owned(),
        policy_version: change.policy_version,
        cause: change.cause,
        changed_at: change.changed_at,
    }
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;

    /// This many changes, the latest of them now.
    fn changes(count: u32, apart: TimeDelta, now: DateTime<Utc>) -> Vec<PriceChange> {
        let change = |number: u32| PriceChange {
            revision: i64::from(count - number),
            product_id: ProductId::parse("P-1").unwrap(),
            old_list_price: None,
            new_list_price: Some(Decimal::ONE),
            currency: "EUR".into(),
            policy_version: 1,
            cause: "test".to_owned(),
            changed_at: now - apart * i32::try_from(number).unwrap(),
        };
        (0..count).map(change).collect()
    }

    #[test]
    fn the_lowest_price_is_not_known_if_changes_of_the_thirty_days_were_not_read() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(1_000);
        for (count, minutes_apart, expected) in [
            // A new product, with one change and with the most changes of which all are read.
            (1, 1, true),
            (MAX_CONSIDERED - 1, 2, true),
            // Twelve days and a half.
            (MAX_CONSIDERED, 2, false),
            // A month and more.
            (MAX_CONSIDERED, 5, true),
        ] {
            let latest = changes(count, TimeDelta::minutes(minutes_apart), now);
            assert_eq!(reaches_back(&latest, now), expected, "{count} every {minutes_apart} minutes");
        }
    }
}
