//! The model's list price.

use std::cell::RefCell;
use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::facts::{Item, Market};
use crate::fraction::Fraction;
use crate::guardrails::{Bounds, MoveLimit, has_own_bound, move_limits, outer_bounds};
use crate::policy::{Policy, Rounding};
use crate::rounding::round;
use crate::rules::{Scene, market_price};

#[derive(Debug, Clone)]
pub(crate) struct ListPrice {
    pub(crate) amount: Fraction,
    /// Within the limits, and before rounding.
    pub(crate) unrounded: Fraction,
    pub(crate) is_frozen: bool,
    /// Whether competitors made the price.
    pub(crate) has_followed: bool,
    /// Where a shopper's price may be.
    pub(crate) outer: Bounds,
}

/// What is priced, and the instant of it.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) item: &'a Item,
    pub(crate) market: &'a Market,
    pub(crate) notes: &'a RefCell<BTreeSet<String>>,
}

impl Asked<'_> {
    pub(crate) fn list_price(&self, now: DateTime<Utc>) -> ListPrice {
        let Self { policy, item, notes, .. } = *self;
        let market = &self.market.at(item, now);
        let scene = Scene { item, market: Some(market), buyer: None, now, notes };
        if market.cost.is_none() && self.market.cost.is_some() {
            scene.note("an event's cost that does not count");
        }
        if market.facts().count() < self.market.facts().count() {
            scene.note("facts that do not count");
        }
        let outer = outer_bounds(&policy.guardrails, item, market);
        let is_bound = has_own_bound(&policy.guardrails, item, market);
        match market_price(&policy.market, policy.apply_market, &scene, is_bound) {
            Err(failed) => {
                scene.note(&format!("frozen: {}", failed.0));
                self.frozen(outer, &scene)
            }
            Ok((price, has_followed)) => self.priced(price, has_followed, outer, &scene),
        }
    }

    /// The price in effect, or the bound that is against it.
    fn frozen(&self, outer: Bounds, scene: &Scene<'_>) -> ListPrice {
        let stays = self.market.in_effect.map_or(self.item.base_price, |in_effect| in_effect.price);
        let bound = outer.nearest_to(stays);
        let amount = if bound == stays {
            stays
        } else {
            scene.note("frozen to a bound");
            round(bound, &self.policy.rounding, self.item.minor_unit(), &outer, false).0
        };
        ListPrice { amount, unrounded: amount, is_frozen: true, has_followed: false, outer }
    }

    fn priced(&self, price: Fraction, has_followed: bool, outer: Bounds, scene: &Scene<'_>) -> ListPrice {
        let in_effect = self.market.in_effect.as_ref();
        let limits = in_effect.map_or_else(Vec::new, |in_effect| {
            move_limits(&self.policy.guardrails, in_effect, has_followed, scene.now)
        });
        let moves = limits.iter().try_fold(Bounds::default(), |all, limit| all.and(&limit.bounds));
        let moves = moves.expect("the price in effect is within each limit on moves");
        let unit = self.item.minor_unit();
        // The limits on moves give way where they and the ceilings leave no price.
        let bounds = moves.and(&outer).filter(|bounds| bounds.have_multiple(unit)).unwrap_or(outer);
        note_stops(scene, &limits, &outer, price);
        let rounding = &self.policy.rounding;
        let plain = Rounding { increment: None, ..rounding.clone() };
        let meant = round(outer.nearest_to(price), &plain, unit, &outer, false).0;
        let within = outer.nearest_to(moves.nearest_to(meant));
        let here = in_effect.map(|in_effect| in_effect.price);
        let is_turned = |limit: &&MoveLimit| limit.bounds.allow(meant) && here != Some(within);
        let bounds = if within == meant || limits.iter().any(|limit| is_turned(&limit)) {
            // A price that is where it is meant to be is not chased, nor is one that turns.
            let others = limits
                .iter()
                .filter(|limit| limit.name != "competitor_loop" || within != meant && !is_turned(limit));
            let others =
                others.fold(Bounds::default(), |all, limit| all.and(&limit.bounds).expect("a price"));
            others.and(&outer).filter(|bounds| bounds.have_multiple(unit)).unwrap_or(outer)
        } else {
            bounds
        };
        let limited = outer.nearest_to(if within == meant { price } else { moves.nearest_to(price) });
        let (amount, kind) = round(bounds.nearest_to(limited), rounding, unit, &bounds, true);
        scene.note(&format!("list price on {kind}"));
        ListPrice { amount, unrounded: within, is_frozen: false, has_followed, outer }
    }
}

fn note_stops(scene: &Scene<'_>, limits: &[MoveLimit], outer: &Bounds, price: Fraction) {
    for limit in limits.iter().filter(|limit| !limit.bounds.allow(price)) {
        scene.note(&format!("stopped by {}", limit.name));
    }
    if outer.lowest.is_some_and(|lowest| price < lowest) {
        scene.note("stopped by a floor");
    } else if !outer.allow(price) {
        scene.note("stopped by a ceiling");
    }
}
