//! Reductions in the price history: the prior price from which one may be announced, and whether it is
//! certain.

use std::ops::Range;

use chrono::{DateTime, TimeDelta, Utc};
use pricing_core::store::StoreError;
use pricing_domain::facts::price_entry::PriceEntry;
use pricing_domain::facts::product::ProductId;
use pricing_domain::policy::PricingPolicy;
use pricing_domain::pricing::prior_price::{
    AppliedPrice, PRIOR_PRICE_DAYS, Reduction, Reductions, reductions,
};
use pricing_wire::reduction::{IncompleteBecause, ReductionAnswer};

use crate::state::AppState;

/// The maximum number of policy versions that are examined.
const MAX_VERSIONS: u32 = 30;

/// The reductions of the current list price.
#[derive(Debug, Default)]
pub(crate) struct ReductionAnswers {
    pub(crate) latest: Option<ReductionAnswer>,
    pub(crate) progressive: Option<ReductionAnswer>,
}

/// Computes the reductions of a product from its prices, oldest first.
pub(crate) async fn answers(
    state: &AppState,
    id: &ProductId,
    applied: &[AppliedPrice],
) -> Result<ReductionAnswers, StoreError> {
    let Reductions { latest, progressive } = reductions(applied);
    let Some(stored) =
        state.engine.store.stored_price(id).await?.filter(|_| latest.or(progressive).is_some())
    else {
        return Ok(ReductionAnswers::default());
    };
    Ok(ReductionAnswers {
        latest: answer(state, &stored.entry, latest).await?,
        progressive: answer(state, &stored.entry, progressive).await?,
    })
}

async fn answer(
    state: &AppState,
    entry: &PriceEntry,
    reduction: Option<Reduction>,
) -> Result<Option<ReductionAnswer>, StoreError> {
    let Some(Reduction { started_at, prior_price, percent, is_complete }) = reduction else {
        return Ok(None);
    };
    let period = started_at - TimeDelta::days(PRIOR_PRICE_DAYS)..started_at;
    let unknown = (!is_complete).then_some(IncompleteBecause::PricesUnknown);
    let offers = may_differ_from_list(state, entry, &period).await?;
    let offers = offers.then_some(IncompleteBecause::OffersForEveryShopper);
    let reasons = unknown.into_iter().chain(offers);
    let incomplete_because: Vec<String> = reasons.map(|reason| reason.name().to_owned()).collect();
    let is_complete = incomplete_because.is_empty();
    Ok(Some(ReductionAnswer { started_at, prior_price, percent, is_complete, incomplete_because }))
}

/// Whether every shopper may have paid another price than the list price, by the policies of the period. An
/// unknown policy counts as one that caused it.
async fn may_differ_from_list(
    state: &AppState,
    entry: &PriceEntry,
    period: &Range<DateTime<Utc>>,
) -> Result<bool, StoreError> {
    let store = &state.engine.store;
    // Each version applies until the next one; the latest, and the one that the product's price was computed
    // with, apply until now.
    let mut until = DateTime::<Utc>::MAX_UTC;
    for version in store.policy_versions(MAX_VERSIONS).await? {
        let from = version.published_at;
        if version.version == entry.policy_version {
            until = DateTime::<Utc>::MAX_UTC;
        }
        if from < period.end && until > period.start {
            let used = from.max(period.start)..until.min(period.end);
            let known = state.engine.policies.snapshot().policy(version.version).cloned();
            let may_differ = match known {
                Some(policy) => policy.may_move_every_shopper(entry, &used),
                None => store.policy(version.version).await?.is_none_or(|stored| {
                    let zones = state.time_zones();
                    let compiled = PricingPolicy::from_yaml(&stored.source, stored.version, zones);
                    compiled.map_or(true, |policy| policy.may_move_every_shopper(entry, &used))
                }),
            };
            if may_differ {
                return Ok(true);
            }
        }
        if from <= period.start || version.version == 1 {
            return Ok(false);
        }
        until = from;
    }
    // There were more versions than were examined.
    Ok(true)
}
