//! The model's price for one shopper.

use std::cell::RefCell;
use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::facts::{Buyer, Item};
use crate::fraction::Fraction;
use crate::guardrails::Bounds;
use crate::list_price::ListPrice;
use crate::policy::{Action, Apply, Mode, Policy, Rounding, Rule};
use crate::rounding::round;
use crate::rules::{Scene, in_order};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quote {
    pub(crate) final_price: Fraction,
    pub(crate) discount_rate: Fraction,
}

pub(crate) fn quote(
    policy: &Policy,
    item: &Item,
    listed: &ListPrice,
    buyer: &Buyer,
    now: DateTime<Utc>,
    notes: &RefCell<BTreeSet<String>>,
) -> Quote {
    let scene = Scene { item, market: None, buyer: Some((buyer, listed.amount)), now, notes };
    let rules = in_order(&policy.offer);
    let without: Vec<&Rule> = rules.iter().copied().filter(|rule| !rule.is_discount).collect();
    let shown = |rules: &[&Rule]| shown(rules, policy, listed, &scene);
    let (final_price, before) = (shown(&rules), shown(&without));
    let part = (Fraction::ONE - final_price / before).max(Fraction::ZERO);
    let places = Rounding { mode: Some(Mode::HalfEven), ..Rounding::default() };
    let discount_rate = if part.is_zero() {
        part
    } else {
        // One place more than there are, so that 0.00004 may become 0.
        let shifted = part + Fraction::ONE;
        round(shifted, &places, Fraction::decimal(1, 4), &Bounds::default(), false).0 - Fraction::ONE
    };
    if discount_rate.is_above_zero() {
        scene.note("discount");
    }
    Quote { final_price, discount_rate }
}

/// What the shopper sees if these are the offers.
fn shown(rules: &[&Rule], policy: &Policy, listed: &ListPrice, scene: &Scene<'_>) -> Fraction {
    let list_price = listed.amount;
    let price = offered(rules, policy.apply_offer, listed, scene);
    let within = listed.of_shoppers.nearest_to(price);
    if within != price {
        scene.note("offer at a bound");
    }
    if within > price && policy.guardrails.max_discount.is_some() {
        scene.note("offer at a bound, and a max_discount");
    }
    if within == list_price {
        scene.note(if price == list_price { "offer of nothing" } else { "offer taken back by a bound" });
        return list_price;
    }
    // The list price is a bound, too: rounding takes no price past it.
    let (from, to) = if within < list_price { (None, Some(list_price)) } else { (Some(list_price), None) };
    let bounds = listed.of_shoppers.and(&Bounds { lowest: from, highest: to }).unwrap_or(listed.of_shoppers);
    let (amount, kind) = round(within, &policy.rounding, scene.item.minor_unit(), &bounds, false);
    scene.note(&format!("offer on {kind}"));
    amount
}

/// The price by the offers that count.
fn offered(rules: &[&Rule], apply: Apply, listed: &ListPrice, scene: &Scene<'_>) -> Fraction {
    let mut best: Option<Fraction> = None;
    for rule in rules {
        let before = if apply == Apply::BestForShopper { None } else { best }.unwrap_or(listed.amount);
        let Some(after) = offer_price(rule, before, listed, scene) else { continue };
        scene.note(&format!("offer {}", rule.action.name()));
        match apply {
            Apply::FirstMatch => {
                scene.note("offer first_match");
                return after;
            }
            Apply::All => best = Some(after),
            Apply::BestForShopper => {
                scene.note("offer best_for_shopper");
                best = Some(best.map_or(after, |best| best.min(after)));
            }
        }
    }
    best.unwrap_or(listed.amount)
}

/// What one offer makes of the price. Where that would be nothing or less, it is nothing if a lowest price is
/// known, to which it goes in the end; and where none is known, what the largest tier that leaves a price
/// makes of it.
fn offer_price(rule: &Rule, before: Fraction, listed: &ListPrice, scene: &Scene<'_>) -> Option<Fraction> {
    let Ok(price) = rule.price(before, scene) else {
        scene.note("offer passed over");
        return None;
    };
    if price?.is_above_zero() {
        return price;
    }
    scene.note("offer of everything");
    if listed.of_shoppers.lowest.is_some() {
        return Some(Fraction::ZERO);
    }
    let Action::QuantityTiers(tiers) = &rule.action else { return None };
    let quantity = scene.buyer.map_or(0, |(buyer, _)| buyer.quantity);
    let reached = tiers.iter().rev().filter(|(from, _)| *from <= quantity);
    reached.map(|(_, change)| change.of(before)).find(|price| price.is_above_zero())
}
