//! Reductions that may be announced; a price history includes them.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::amount;

/// A reduction that may be announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReductionAnswer {
    /// When the step took effect.
    pub started_at: DateTime<Utc>,
    /// The lowest list price in the 30 days before `started_at`.
    #[serde(with = "amount")]
    #[schema(value_type = f64)]
    pub prior_price: Decimal,
    /// The reduction of the list price from `prior_price`, in percent with two decimal places; above 0.
    #[serde(with = "amount")]
    #[schema(value_type = f64)]
    pub percent: Decimal,
    /// Whether `prior_price` is certain to be the lowest price applied. If not, do not announce the reduction
    /// by these figures alone.
    #[serde(default)]
    #[schema(required)]
    pub is_complete: bool,
    /// Why it is not certain; empty if it is.
    #[schema(value_type = Vec<IncompleteBecause>)]
    pub incomplete_because: Vec<String>,
}

/// The reason that a prior price may not be the lowest price applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum IncompleteBecause {
    /// The list price of some of the days is unknown: the product was not sold, or its history does not go
    /// back that far.
    PricesUnknown,
    /// An offer rule for every shopper, or for every shopper at a location, was or may have been in force:
    /// they paid another price than the list price.
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
