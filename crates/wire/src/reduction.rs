//! Reductions that may be announced; a price history includes them.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::amount;

/// A reduction that may be announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReductionAnswer {
    /// When the step was.
    pub started_at: DateTime<Utc>,
    /// The lowest list price in the 30 days before it.
    #[serde(with = "amount")]
    #[schema(value_type = f64)]
    pub prior_price: Decimal,
    /// By what percentage of it the list price in effect is lower; above 0.
    #[serde(with = "amount")]
    #[schema(value_type = f64)]
    pub percent: Decimal,
    /// Whether that is all that is to be known of the 30 days. If not, nothing may be announced by these
    /// figures alone.
    #[serde(default)]
    #[schema(required)]
    pub is_complete: bool,
    /// Why it is not.
    #[schema(value_type = Vec<IncompleteBecause>)]
    pub incomplete_because: Vec<String>,
}

/// Why a prior price may not be the lowest that was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum IncompleteBecause {
    /// The list price of some of the days is not known: the product was not sold, or its history does not go
    /// back so far.
    PricesUnknown,
    /// An offer rule that every shopper gets, or every one at a place, was in force or may have been: what
    /// they paid was not the list price.
    OffersForEveryShopper,
}

impl IncompleteBecause {
    /// Returns the reason's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::PricesUnknown => "prices_unknown",
            Self::OffersForEveryShopper => "offers_for_every_shopper",
        }
    }

    /// Returns the reason with this name; `None` for one of a newer API.
    pub fn parse(written: &str) -> Option<Self> {
        [Self::PricesUnknown, Self::OffersForEveryShopper].into_iter().find(|reason| reason.name() == written)
    }
}

#[cfg(test)]
mod tests {
    use utoipa::PartialSchema;

    use super::*;

    #[test]
    fn every_reason_has_the_name_that_the_openapi_document_gives_it() {
        let described = serde_json::to_value(IncompleteBecause::schema()).unwrap();
        let names = described["enum"].as_array().unwrap().iter().filter_map(|name| name.as_str());
        let read: Vec<_> = names.clone().map(IncompleteBecause::parse).collect();
        let reasons = [IncompleteBecause::PricesUnknown, IncompleteBecause::OffersForEveryShopper];
        assert_eq!(read, reasons.map(Some));
        assert!(reasons.iter().map(|reason| reason.name()).eq(names));
        assert_eq!(IncompleteBecause::parse("currency_changed"), None);
    }
}
