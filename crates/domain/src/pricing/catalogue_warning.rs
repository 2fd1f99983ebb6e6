//! Warnings that depend on the catalogue: effects of a policy on products, counted in a simulation.

use std::fmt;
use std::sync::Arc;

use rust_decimal::Decimal;
use smallvec::SmallVec;

use crate::facts::Facts;
use crate::facts::product::ProductId;
use crate::policy::action::Action;
use crate::policy::pricing_policy::PricingPolicy;
use crate::policy::rule::Rule;
use crate::policy::view::View;
use crate::pricing::price::ListPrice;

/// The most products that a warning names.
const MAX_EXAMPLES: usize = 3;

/// The effect of an offer rule on a product whose list price is not above the reduction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfferEnd {
    /// The guardrails raise the price to the lowest allowed one.
    AtLowest,
    /// The price would not be above 0, and no lowest price is known: the rule, or the tier, is skipped.
    PassedOver,
}

/// The rules with such an effect, by their index in the policy.
pub(crate) type OfferEnds = SmallVec<[(usize, OfferEnd); 2]>;

/// An effect on some products.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueWarning {
    /// The cause in the policy: `rounding.increment`, or the name of an offer rule.
    pub about: Arc<str>,
    /// The effect.
    pub problem: &'static str,
    /// The number of affected products.
    pub products: u64,
    /// The first of them.
    pub examples: Vec<ProductId>,
}

/// The warnings, counted product by product.
#[derive(Debug, Clone, Default)]
pub(crate) struct CatalogueWarnings {
    increment: Option<CatalogueWarning>,
    /// For each offer rule of the policy, in order: [`OfferEnd::AtLowest`], then [`OfferEnd::PassedOver`].
    offers: Vec<[CatalogueWarning; 2]>,
}

/// Returns the effects of the policy's offer rules at this list price that do not depend on the shopper.
pub(crate) fn offer_ends(policy: &PricingPolicy, facts: &Facts<'_>, list_price: &ListPrice<'_>) -> OfferEnds {
    let now = list_price.explanation.priced_at;
    let lowest = list_price.limits.lowest.filter(|lowest| *lowest > Decimal::ZERO);
    let view = View { price: list_price.amount, ..View::of_product(*facts, now) };
    let is_meant =
        |rule: &Rule| rule.window.until.is_none_or(|until| now < until) && rule.only.may_select(&view);
    let end_of = |rule: &Rule| {
        let price = rule.action.takes_off().filter(|_| is_meant(rule))?.apply(list_price.amount)?;
        match lowest {
            Some(lowest) => (price < lowest).then_some(OfferEnd::AtLowest),
            None => (price <= Decimal::ZERO).then_some(OfferEnd::PassedOver),
        }
    };
    let ends = policy.offer.iter().enumerate().map(|(place, rule)| Some((place, end_of(rule)?)));
    ends.flatten().collect()
}

impl PricingPolicy {
    /// Whether the policy can cause catalogue warnings, so that the products must be simulated.
    pub fn needs_a_look_at_the_catalogue(&self) -> bool {
        self.rounding.increment.is_some() || self.offer.iter().any(|rule| rule.action.amount_off().is_some())
    }
}

impl CatalogueWarnings {
    pub(crate) fn of(policy: &PricingPolicy) -> Self {
        let none = |about: &str, problem| CatalogueWarning {
            about: about.into(),
            problem,
            products: 0,
            examples: Vec::new(),
        };
        let increment = policy.rounding.increment.map(|_| {
            none("rounding.increment", "no multiple fits, and the list price keeps to the minor unit")
        });
        let offers = policy.offer.iter().map(|rule| {
            let passed_over = match rule.action {
                Action::QuantityTiers(_) => "a tier would leave nothing, and a smaller one counts",
                _ => "would leave nothing, and is passed over",
            };
            [none(&rule.name, "goes to the lowest price that is allowed"), none(&rule.name, passed_over)]
        });
        Self { increment, offers: offers.collect() }
    }

    pub(crate) fn add(&mut self, product_id: &ProductId, passes_over_increment: bool, ends: &OfferEnds) {
        if let Some(warning) = self.increment.as_mut().filter(|_| passes_over_increment) {
            warning.add(product_id);
        }
        for (place, end) in ends {
            if let Some([at_lowest, passed_over]) = self.offers.get_mut(*place) {
                let warning = if *end == OfferEnd::AtLowest { at_lowest } else { passed_over };
                warning.add(product_id);
            }
        }
    }

    /// Returns the warnings that affect at least one product.
    pub(crate) fn met(&self) -> Vec<CatalogueWarning> {
        let all = self.increment.iter().chain(self.offers.iter().flatten());
        all.filter(|warning| warning.products > 0).cloned().collect()
    }
}

impl CatalogueWarning {
    fn add(&mut self, product_id: &ProductId) {
        self.products += 1;
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(product_id.clone());
        }
    }
}

impl fmt::Display for CatalogueWarning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let examples: Vec<&str> = self.examples.iter().map(ProductId::as_str).collect();
        let products = if self.products == 1 { "product" } else { "products" };
        write!(formatter, "{}, for {} {products} ({})", self.problem, self.products, examples.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::facts::product::ProductDraft;
    use crate::facts::signal::Signals;
    use crate::facts::time_zone::TimeZones;
    use crate::pricing::simulation::{SimulatedPrice, Simulation};

    fn policy(yaml: &str) -> PricingPolicy {
        PricingPolicy::from_yaml(yaml, 1, &TimeZones::bundled()).unwrap()
    }

    #[test]
    fn what_the_document_shows_is_said_with_its_place() {
        let policy = policy(
            "name: x\noffer:\n  - { name: percent, adjust: -5% }\n  - { name: tenner, adjust: -10, priority: 1 }\n  - { name: bulk, quantity_tiers: [{ from: 5, adjust: -1 }, { from: 9, adjust: -2 }] }\n  - { name: dearer, adjust: +3 }\n  - { name: below, match: { reference: price.list, offset: -4 } }\nrounding: { increment: 5, endings: [0.99, 5, 0.49], price_points: [10] }\n",
        );
        let found: Vec<_> = policy
            .warnings
            .iter()
            .map(|warning| (warning.field.as_str(), warning.place.map(|place| place.line)))
            .collect();
        assert_eq!(
            found,
            [
                ("offer[1]", Some(4)),
                ("offer[2]", Some(5)),
                ("offer[4]", Some(7)),
                ("rounding.increment", Some(8)),
                ("rounding.endings", Some(8)),
            ],
            "{:#?}",
            policy.warnings
        );
        assert!(policy.warnings[0].problem.starts_with("takes 10 off "), "{:?}", policy.warnings[0]);
        assert!(
            policy.warnings[4].problem.starts_with("0.99 (and 1 more) is no multiple of the increment 5,")
        );
    }

    #[test]
    fn a_policy_that_fits_every_product_has_no_warnings() {
        for document in [
            crate::policy::check::DEFAULT_POLICY,
            "name: x\nrounding: { increment: 0.05, endings: [0.95, 0.5], price_points: [9.95] }\noffer: [{ name: a, adjust: -5% }]",
        ] {
            assert_eq!(policy(document).warnings, []);
        }
    }

    #[test]
    fn products_that_meet_a_warning_are_counted_and_named() {
        let policy = policy(
            "name: x\noffer:\n  - { name: tenner, adjust: -10 }\n  - { name: bulk, quantity_tiers: [{ from: 5, adjust: -1 }, { from: 9, adjust: -30 }] }\n  - { name: toys, only: { categories: [toys] }, adjust: -50 }\n  - { name: over, adjust: -50, until: 1969-01-01T00:00:00Z }\nrounding: { increment: 5 }",
        );
        let mut simulation = Simulation::of(&policy);
        for (id, base_price, floor_price) in [
            ("cheap", "2.00", None),
            ("floored", "9.00", Some("4.00")),
            ("dear", "100.00", None),
            ("middle", "25", None),
        ] {
            let floor = floor_price.map_or(String::new(), |floor| format!(r#", "floor_price": {floor}"#));
            let draft =
                format!(r#"{{"product_id": "{id}", "currency": "USD", "base_price": {base_price}{floor}}}"#);
            let product = serde_json::from_str::<ProductDraft>(&draft).unwrap().check().unwrap();
            let facts = Facts { product: &product, signals: &Signals::default(), previous: None };
            let computed = crate::pricing::price::price(&facts, &policy, DateTime::UNIX_EPOCH);
            simulation.add(&SimulatedPrice::new(&facts, None, &computed, &policy));
        }
        let said: Vec<String> = simulation
            .report()
            .catalogue_warnings
            .iter()
            .map(|warning| format!("{}: {warning}", warning.about))
            .collect();
        assert_eq!(
            said,
            [
                "rounding.increment: no multiple fits, and the list price keeps to the minor unit, for 1 product (cheap)",
                "tenner: goes to the lowest price that is allowed, for 1 product (floored)",
                "tenner: would leave nothing, and is passed over, for 1 product (cheap)",
                "bulk: goes to the lowest price that is allowed, for 1 product (floored)",
                "bulk: a tier would leave nothing, and a smaller one counts, for 2 products (cheap, middle)",
            ]
        );
    }
}
