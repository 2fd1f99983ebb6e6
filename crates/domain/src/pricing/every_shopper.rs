//! Determines whether offer rules may change the list price for every shopper.
//!
//! A shopper of whom only the location is known is not a prime member, has no segment and no channel, and
//! buys one unit. The price shown to such a shopper is the price applied, in the sense of Directive 98/6/EC,
//! article 6a.

use std::ops::Range;

use chrono::{DateTime, Utc};

use crate::expression::variable::Variable;
use crate::facts::price_entry::PriceEntry;
use crate::facts::shopper::Shopper;
use crate::policy::action::Action;
use crate::policy::pricing_policy::PricingPolicy;
use crate::policy::rule::Rule;
use crate::policy::view::View;

/// The shopper of whom nothing is known.
const ANY_SHOPPER: Shopper<'static> =
    Shopper { location: "", prime: false, quantity: 1, channel: None, segment: None, location_factor: None };

impl PricingPolicy {
    /// Whether an offer rule may have changed the price of this product for every shopper, or for every
    /// shopper at a location, within the period.
    pub fn may_move_every_shopper(&self, entry: &PriceEntry, period: &Range<DateTime<Utc>>) -> bool {
        let view = View::of_shopper(entry, &ANY_SHOPPER, period.start);
        let is_in_force = |rule: &&Rule| {
            rule.window.from.is_none_or(|from| from < period.end)
                && rule.window.until.is_none_or(|until| until > period.start)
        };
        self.offer
            .iter()
            .filter(is_in_force)
            .any(|rule| may_apply(rule, &view) && may_move(&rule.action, &view))
    }
}

fn may_apply(rule: &Rule, view: &View<'_>) -> bool {
    let asks_of_shopper = |variable: &Variable| {
        matches!(
            variable,
            Variable::ShopperPrime
                | Variable::ShopperQuantity
                | Variable::ShopperChannel
                | Variable::ShopperSegment
        )
    };
    // A condition on other variables may have been true at another time or location.
    let may_hold = rule.when.as_ref().is_none_or(|when| {
        !when.variables().iter().any(asks_of_shopper) || rule.condition_holds(view).unwrap_or(false)
    });
    may_hold && rule.only.may_select_at_some_place(view)
}

/// Whether the action may change the price of a single unit.
fn may_move(action: &Action, view: &View<'_>) -> bool {
    match action {
        Action::QuantityTiers(_) => {
            action.apply(view).is_ok_and(|moved| moved.is_some_and(|moved| moved != view.price))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::time_zone::TimeZones;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn entry() -> PriceEntry {
        serde_json::from_str(
            r#"{"product_id":"P-1","category":"toys","currency":"EUR","base_price":"100","list_price":"90",
                "lowest":null,"highest":null,"policy_version":1,"revision":1,"valid_until":null}"#,
        )
        .unwrap()
    }

    #[test]
    fn offers_that_every_shopper_may_get_are_told_from_those_for_some() {
        let period = at("2026-10-01T00:00:00Z")..at("2026-10-31T00:00:00Z");
        for (offer, expected) in [
            ("adjust: -30%", true),
            ("multiply_by: location.factor ?? 0.95", true),
            ("set_to: price.list * 0.9", true),
            ("adjust: +5%, when: price.list < 50", true),
            ("adjust: -5%, only: { locations: [DE] }", true),
            ("adjust: -5%, only: { categories: [toys] }", true),
            ("adjust: -5%, when: not shopper.prime", true),
            ("adjust: -5%, when: shopper.quantity < 5", true),
            ("adjust: -5%, until: 2026-10-01T00:00:01Z", true),
            ("adjust: -5%, from: 2026-10-30T00:00:00Z, schedule: { zone: UTC, days: [fri] }", true),
            ("quantity_tiers: [{ from: 1, adjust: -1% }]", true),
            ("quantity_tiers: [{ from: 2, adjust: -1% }]", false),
            ("adjust: -5%, when: shopper.prime", false),
            ("adjust: -5%, when: shopper.segment == \"vip\" and price.list > 1", false),
            ("adjust: -5%, when: shopper.channel == \"app\"", false),
            ("adjust: -5%, when: shopper.quantity >= 5", false),
            ("adjust: -5%, only: { segments: [vip] }", false),
            ("adjust: -5%, only: { channels: [app] }", false),
            ("adjust: -5%, only: { categories: [games] }", false),
            ("adjust: -5%, only: { products: [P-2] }", false),
            ("adjust: -5%, until: 2026-10-01T00:00:00Z", false),
            ("adjust: -5%, from: 2026-10-31T00:00:00Z", false),
        ] {
            let yaml = format!("name: x\noffer: [{{ name: a, {offer} }}]");
            let policy = PricingPolicy::from_yaml(&yaml, 1, &TimeZones::bundled()).unwrap();
            assert_eq!(policy.may_move_every_shopper(&entry(), &period), expected, "{offer}");
        }
    }
}
