//! Targets: the prices that rules, floors, ceilings and the minor unit give without limits on moves and
//! before endings.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use crate::facts::Facts;
use crate::facts::movement::KnownFacts;
use crate::facts::product::Product;
use crate::policy::guardrail::intersection;
use crate::policy::pricing_policy::PricingPolicy;
use crate::policy::view::View;
use crate::pricing::apply::{OnFailure, apply_rules};

/// The rules, windows and seller's data that targets are compared by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) product: &'a Product,
    pub(crate) policy: &'a PricingPolicy,
    /// The instant of windows and schedules.
    pub(crate) now: DateTime<Utc>,
}

impl Terms<'_> {
    /// Returns the target at earlier facts, with their ages as of then; `None` if a rule fails.
    pub(crate) fn target_at(
        &self,
        known: &KnownFacts<'_>,
        current_price: Option<Decimal>,
    ) -> Option<Decimal> {
        let Self { product, policy, now } = *self;
        let signals = known.signals.with_statements_of(product);
        let facts = Facts { product, signals: &signals, previous: None };
        let view = View {
            known_at: known.known_at,
            current_price,
            has_floor: policy.guardrails.has_floor(&facts),
            ..View::of_product(facts, now)
        };
        let applied = apply_rules(&policy.market, policy.market_apply, OnFailure::Stop, view, &mut None);
        let bounds = policy.guardrails.bounds(&facts);
        let limits = intersection(bounds.iter().map(|bound| &bound.limits));
        Some(policy.rounding.target(applied.price?, product.currency, limits))
    }
}

impl PricingPolicy {
    /// Whether a window or a schedule of a market rule begins or ends after `from` and not after `to`.
    pub(crate) fn windows_turn(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> bool {
        self.market.iter().filter(|rule| !rule.is_always_meant).any(|rule| {
            let scheduled = rule.schedule.as_ref().and_then(|schedule| schedule.next_change(from));
            let ends = [rule.window.next_change(from), scheduled];
            ends.into_iter().flatten().any(|turn| turn <= to)
        })
    }

    /// Whether the ages of facts can change a target.
    pub(crate) fn depends_on_ages(&self) -> bool {
        self.market.iter().any(|rule| !rule.age_tests.is_empty() || rule.action.may_change_with_time())
    }
}
