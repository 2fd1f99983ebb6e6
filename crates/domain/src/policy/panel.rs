//! The panel of a circuit breaker: named shoppers whose final prices are judged along with the list prices.
//!
//! Offer rules move no list price, so only the prices of shoppers show what they do.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::{Diagnostic, shorten};
use crate::facts::named_shopper::NamedShopper;
use crate::facts::shopper::{MAX_QUANTITY, MAX_TRAIT_BYTES, Shopper};
use crate::policy::scalar::{MAX_RULE_NAME_CHARS, Scalar};

/// The most shoppers of a panel.
pub const MAX_PANEL_SHOPPERS: usize = 16;

/// A shopper of a panel as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["name"]))]
pub struct NamedShopperDraft {
    /// Names the shopper in reports and reasons; unique in the panel.
    pub name: String,
    /// The shopper's location, with the factor that is set for it; a location without a factor if absent.
    pub location: Option<Scalar>,
    /// The segment that the seller assigned.
    pub segment: Option<Scalar>,
    /// The sales channel.
    pub channel: Option<Scalar>,
    /// Whether the shopper is a prime member; false if absent.
    pub prime: bool,
    /// How many units the shopper buys; 1 if absent.
    pub quantity: Option<Scalar>,
}

/// The shoppers of a panel; if none are written, those of [`Panel::shoppers`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Panel(Option<Arc<[NamedShopper]>>);

/// A shopper of a panel with the factor that is set for the location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PanelShopper {
    /// The shopper.
    pub shopper: NamedShopper,
    /// The price factor of the location, if one is set.
    pub location_factor: Option<Decimal>,
}

impl PanelShopper {
    /// Returns the shopper as one who requests a price.
    pub fn requesting(&self) -> Shopper<'_> {
        self.shopper.requesting(self.location_factor)
    }
}

impl Panel {
    /// Returns the shoppers in order, with these factors of locations. If none are written: an anonymous one
    /// at a location without a factor, a prime member there, and one each at the locations with the lowest
    /// and the highest factor. Of equal factors, the location that comes first by its name counts.
    pub fn shoppers(&self, location_factors: &HashMap<String, Decimal>) -> Vec<PanelShopper> {
        let shoppers = self.0.as_deref().map_or_else(|| usual(location_factors), <[_]>::to_vec);
        let at_location = |shopper: NamedShopper| {
            let location = shopper.location.as_deref();
            let location_factor = location.and_then(|location| location_factors.get(location)).copied();
            PanelShopper { shopper, location_factor }
        };
        shoppers.into_iter().map(at_location).collect()
    }

    /// Checks a panel; without one, the usual shoppers are judged.
    pub(crate) fn check(drafts: Option<&[NamedShopperDraft]>, problems: &mut Vec<Diagnostic>) -> Self {
        let Some(drafts) = drafts else { return Self::default() };
        const FIELD: &str = "circuit_breaker.panel";
        if drafts.len() > MAX_PANEL_SHOPPERS {
            let problem = format!("has {} shoppers", drafts.len());
            problems.push(Diagnostic::new(FIELD, problem, format!("at most {MAX_PANEL_SHOPPERS}")));
            return Self::default();
        }
        let mut names = HashSet::new();
        let mut shoppers = Vec::with_capacity(drafts.len());
        for (index, draft) in drafts.iter().enumerate() {
            let place = format!("{FIELD}[{index}]");
            if !names.insert(draft.name.trim()) {
                let problem = format!("\"{}\" is the name of an earlier shopper", shorten(&draft.name));
                problems.push(Diagnostic::new(format!("{place}.name"), problem, "a name of its own"));
            }
            shoppers.push(draft.check(&place, problems));
        }
        Self(Some(shoppers.into()))
    }
}

/// The shoppers of a panel that is not written.
fn usual(location_factors: &HashMap<String, Decimal>) -> Vec<NamedShopper> {
    let mut shoppers =
        vec![NamedShopper::new("anonymous"), NamedShopper { prime: true, ..NamedShopper::new("prime") }];
    let lowest = location_factors.iter().min_by_key(|(location, factor)| (**factor, *location));
    let highest = location_factors.iter().min_by_key(|(location, factor)| (-**factor, *location));
    for (location, _) in lowest.into_iter().chain(highest) {
        let name = format!("location {location}");
        if shoppers.iter().all(|shopper| *shopper.name != name) {
            shoppers
                .push(NamedShopper { location: Some(location.as_str().into()), ..NamedShopper::new(name) });
        }
    }
    shoppers
}

impl NamedShopperDraft {
    fn check(&self, place: &str, problems: &mut Vec<Diagnostic>) -> NamedShopper {
        let name = self.name.trim();
        let length = name.chars().count();
        if !(1..=MAX_RULE_NAME_CHARS).contains(&length) || name.contains(char::is_control) {
            let problem = "is missing, too long or has control characters";
            let allowed = format!("1 to {MAX_RULE_NAME_CHARS} characters");
            problems.push(Diagnostic::new(format!("{place}.name"), problem, allowed));
        }
        let mut label = |field: &str, written: &Option<Scalar>| -> Option<Arc<str>> {
            let label = written.as_ref()?.0.trim();
            if !(1..=MAX_TRAIT_BYTES).contains(&label.len()) {
                let problem = format!("\"{}\" is not allowed", shorten(label));
                let allowed = format!("a text of 1 to {MAX_TRAIT_BYTES} bytes");
                problems.push(Diagnostic::new(format!("{place}.{field}"), problem, allowed));
            }
            Some(label.into())
        };
        let location = label("location", &self.location);
        let segment = label("segment", &self.segment);
        let channel = label("channel", &self.channel);
        let quantity = self.quantity.as_ref().map_or(Some(1), |written| {
            written.0.trim().parse().ok().filter(|quantity| (1..=MAX_QUANTITY).contains(quantity))
        });
        if quantity.is_none() {
            let written = self.quantity.as_ref().map(|written| shorten(&written.0)).unwrap_or_default();
            let problem = format!("\"{written}\" is not allowed");
            let allowed = format!("a whole number from 1 to {MAX_QUANTITY}");
            problems.push(Diagnostic::new(format!("{place}.quantity"), problem, allowed));
        }
        let quantity = quantity.unwrap_or(1);
        NamedShopper { name: name.into(), location, segment, channel, prime: self.prime, quantity }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::time_zone::TimeZones;
    use crate::policy::pricing_policy::PricingPolicy;

    fn panel(written: &str) -> Result<Panel, Vec<String>> {
        let yaml = format!("name: x\ncircuit_breaker:\n  median_move: 5%\n  panel: {written}\n");
        let policy = PricingPolicy::from_yaml(&yaml, 1, &TimeZones::bundled());
        policy.map(|policy| policy.circuit_breaker.panel).map_err(|problems| {
            let located = problems.iter().map(|problem| {
                let place = problem.place.map(|place| format!("{}:{}", place.line, place.column));
                format!("{} {}", place.unwrap_or_default(), problem.field)
            });
            located.collect()
        })
    }

    fn factors(written: &[(&str, &str)]) -> HashMap<String, Decimal> {
        let decimal = |text: &str| Decimal::from_str_exact(text).unwrap();
        written.iter().map(|(location, factor)| ((*location).to_owned(), decimal(factor))).collect()
    }

    fn names(shoppers: &[PanelShopper]) -> Vec<&str> {
        shoppers.iter().map(|shopper| &*shopper.shopper.name).collect()
    }

    #[test]
    fn a_panel_that_is_not_written_has_the_usual_shoppers() {
        for (written, expected) in [
            (&[][..], &["anonymous", "prime"][..]),
            (&[("DE", "0.9")], &["anonymous", "prime", "location DE"]),
            (&[("DE", "0.9"), ("AT", "0.9")], &["anonymous", "prime", "location AT"]),
            (
                &[("SF", "1.2"), ("DE", "0.9"), ("LA", "1.20"), ("NY", "1")],
                &["anonymous", "prime", "location DE", "location LA"],
            ),
        ] {
            let factors = factors(written);
            let shoppers = Panel::default().shoppers(&factors);
            assert_eq!(names(&shoppers), expected);
            for PanelShopper { shopper, location_factor } in &shoppers {
                let location = shopper.location.as_deref();
                assert_eq!(*location_factor, location.map(|location| factors[location]));
                assert_eq!((shopper.prime, shopper.quantity), (&*shopper.name == "prime", 1));
            }
        }
    }

    #[test]
    fn a_written_panel_replaces_the_usual_shoppers() {
        let written = "[{ name: bulk, location: ' NY ', segment: vip, channel: app, prime: true, quantity: 100 }, { name: any }]";
        let shoppers = panel(written).unwrap().shoppers(&factors(&[("NY", "1.1"), ("DE", "0.9")]));
        assert_eq!(names(&shoppers), ["bulk", "any"]);
        let bulk = shoppers[0].requesting();
        assert_eq!(bulk.location_factor, Some(Decimal::new(11, 1)));
        assert_eq!((bulk.location, bulk.segment, bulk.channel), ("NY", Some("vip"), Some("app")));
        assert_eq!((bulk.prime, bulk.quantity), (true, 100));
        assert_eq!(shoppers[1].requesting(), Shopper::at(""));
        assert_eq!(panel("[]").unwrap().shoppers(&factors(&[("NY", "1.1")])), []);
    }

    #[test]
    fn what_is_wrong_with_a_panel_is_said_with_its_place() {
        let long = "x".repeat(65);
        for (written, expected) in [
            ("[{ name: a }, { name: ' a ' }]", "4:26 circuit_breaker.panel[1].name"),
            ("[{ name: '' }]", "4:13 circuit_breaker.panel[0].name"),
            ("[{ prime: true }]", "4:11 circuit_breaker.panel[0].name"),
            (&format!("[{{ name: {long} }}]"), "4:13 circuit_breaker.panel[0].name"),
            ("[{ name: a, location: '' }]", "4:22 circuit_breaker.panel[0].location"),
            (&format!("[{{ name: a, segment: {long} }}]"), "4:22 circuit_breaker.panel[0].segment"),
            (&format!("[{{ name: a, channel: {long} }}]"), "4:22 circuit_breaker.panel[0].channel"),
            ("[{ name: a, quantity: 0 }]", "4:22 circuit_breaker.panel[0].quantity"),
            ("[{ name: a, quantity: 1.5 }]", "4:22 circuit_breaker.panel[0].quantity"),
            ("[{ name: a, quantity: 1000001 }]", "4:22 circuit_breaker.panel[0].quantity"),
            ("[{ name: a, prime: maybe }]", "4:29 circuit_breaker.panel[0].prime"),
            ("[{ name: a, loction: NY }]", "4:22 circuit_breaker.panel[0].loction"),
            (&format!("[{}]", "{ name: a }, ".repeat(17)), "4:3 circuit_breaker.panel"),
        ] {
            assert_eq!(panel(written).unwrap_err(), [expected], "{written}");
        }
        let all: Vec<String> = (0..16).map(|number| format!("{{ name: s{number} }}")).collect();
        assert!(panel(&format!("[{}]", all.join(", "))).is_ok());
    }
}
