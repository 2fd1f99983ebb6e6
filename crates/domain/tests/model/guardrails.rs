//! Where a price may be.

use chrono::{DateTime, Utc};

use crate::facts::{InEffect, Item, Market};
use crate::fraction::Fraction;
use crate::list_price::ListPrice;
use crate::policy::Guardrails;

/// From where to where; a floor above the ceiling wins over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Bounds {
    pub(crate) lowest: Option<Fraction>,
    pub(crate) highest: Option<Fraction>,
}

/// One limit on moves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MoveLimit {
    pub(crate) name: &'static str,
    pub(crate) bounds: Bounds,
    /// When it ends by itself.
    pub(crate) ends_at: Option<DateTime<Utc>>,
}

impl Bounds {
    pub(crate) fn new(lowest: Option<Fraction>, highest: Option<Fraction>) -> Self {
        let highest = match (lowest, highest) {
            (Some(lowest), Some(highest)) => Some(lowest.max(highest)),
            (_, highest) => highest,
        };
        Self { lowest, highest }
    }

    pub(crate) fn allow(&self, price: Fraction) -> bool {
        self.lowest.is_none_or(|lowest| lowest <= price)
            && self.highest.is_none_or(|highest| price <= highest)
    }

    pub(crate) fn nearest_to(&self, price: Fraction) -> Fraction {
        let below = self.highest.map_or(price, |highest| price.min(highest));
        self.lowest.map_or(below, |lowest| below.max(lowest))
    }

    /// Whether they allow a multiple of the unit.
    pub(crate) fn have_multiple(&self, unit: Fraction) -> bool {
        let least = self.lowest.map_or(1, |lowest| (lowest / unit).ceil());
        self.allow(Fraction::whole(least) * unit)
    }

    /// What both allow, if there is such a price.
    pub(crate) fn and(&self, other: &Self) -> Option<Self> {
        let lowest = self.lowest.into_iter().chain(other.lowest).max();
        let highest = self.highest.into_iter().chain(other.highest).min();
        let is_empty = lowest.is_some_and(|lowest| highest.is_some_and(|highest| highest < lowest));
        (!is_empty).then_some(Self { lowest, highest })
    }
}

/// The floors and ceilings of the product and the policy.
pub(crate) fn outer_bounds(guardrails: &Guardrails, item: &Item, market: &Market) -> Bounds {
    let cost = market.unit_cost(item);
    let by_margin = guardrails.min_margin.and_then(|part| Some(cost? / (Fraction::ONE - part)));
    let by_cost = if guardrails.min_margin.is_none() && item.floor_price.is_none() { cost } else { None };
    let of_base = guardrails.floor_of_base.map(|part| item.base_price * part);
    let floors = [item.floor_price, item.minimum_advertised_price, by_margin, by_cost, of_base];
    let ceiling_of_base = guardrails.ceiling_of_base.map(|part| item.base_price * part);
    let lowest = floors.into_iter().flatten().max();
    let highest = [item.ceiling_price, ceiling_of_base].into_iter().flatten().min();
    Bounds::new(lowest, highest)
}

/// Whether something of the seller's own keeps the price up.
pub(crate) fn has_own_bound(guardrails: &Guardrails, item: &Item, market: &Market) -> bool {
    item.floor_price.is_some()
        || item.minimum_advertised_price.is_some()
        || market.unit_cost(item).is_some()
        || guardrails.floor_of_base.is_some()
}

impl InEffect {
    /// How the price stands at a later instant, after it was priced at `now`.
    pub(crate) fn after(
        &self,
        guardrails: &Guardrails,
        listed: &ListPrice,
        now: DateTime<Utc>,
        later: DateTime<Utc>,
    ) -> Self {
        let price = listed.amount;
        let first_of_day = if later.date_naive() > now.date_naive() { price } else { self.first_of_day };
        if price == self.price || listed.is_frozen {
            return Self { price, first_of_day, ..*self };
        }
        let direction = if listed.unrounded > self.price { 1 } else { -1 };
        let is_going_on = |(moves, since): &(i32, DateTime<Utc>)| {
            moves.signum() == direction && now < *since + loop_of(guardrails).1
        };
        let moves = match self.moves.filter(is_going_on) {
            _ if !listed.has_followed || listed.unrounded == self.price => self.moves,
            Some((moves, since)) => Some((moves + direction, since)),
            None => Some((direction, now)),
        };
        let interval = Some((now, self.price));
        Self { price, first_of_day, changed_at: Some(now), interval, moves, ..*self }
    }
}

/// The limits on moves that hold now; `has_followed` says whether competitors made the price.
pub(crate) fn move_limits(
    guardrails: &Guardrails,
    in_effect: &InEffect,
    has_followed: bool,
    now: DateTime<Utc>,
) -> Vec<MoveLimit> {
    let price = in_effect.price;
    let around = |middle: Fraction, part: Fraction| Bounds {
        lowest: Some(middle * (Fraction::ONE - part)),
        highest: Some(middle * (Fraction::ONE + part)),
    };
    let mut limits = Vec::new();
    let or_here = |bounds: Bounds| Bounds {
        lowest: bounds.lowest.map(|lowest| lowest.min(price)),
        highest: bounds.highest.map(|highest| highest.max(price)),
    };
    if let Some(part) = guardrails.max_step {
        let length = guardrails.step_length();
        let open = in_effect.interval.filter(|(began_at, _)| now < *began_at + length);
        let (began_at, reference) = open.unwrap_or((now, price));
        let bounds = or_here(around(reference, part));
        limits.push(MoveLimit { name: "max_step", bounds, ends_at: Some(began_at + length) });
    }
    if let Some(part) = guardrails.max_daily_move {
        let bounds = or_here(around(in_effect.first_of_day, part));
        let midnight = now.date_naive().succ_opt().map(|day| day.and_time(chrono::NaiveTime::MIN).and_utc());
        limits.push(MoveLimit { name: "max_daily_move", bounds, ends_at: midnight });
    }
    if let (Some(pause), Some(changed_at)) = (guardrails.min_time_between_changes, in_effect.changed_at) {
        let bounds = Bounds { lowest: Some(price), highest: Some(price) };
        let ends_at = Some(changed_at + pause);
        limits.push(MoveLimit { name: "min_time_between_changes", bounds, ends_at });
    }
    let (moves, within) = loop_of(guardrails);
    if let Some((moved, since)) = in_effect.moves.filter(|(moved, _)| has_followed && moved.abs() >= moves) {
        let bounds = if moved > 0 {
            Bounds { lowest: None, highest: Some(price) }
        } else {
            Bounds { lowest: Some(price), highest: None }
        };
        limits.push(MoveLimit { name: "competitor_loop", bounds, ends_at: Some(since + within) });
    }
    limits.retain(|limit| limit.ends_at.is_none_or(|ends_at| now < ends_at));
    limits
}

impl Guardrails {
    pub(crate) fn step_length(&self) -> chrono::TimeDelta {
        let written = self.min_time_between_changes.or(self.step_interval);
        written.unwrap_or(chrono::TimeDelta::hours(1))
    }
}

/// So many moves within so much time are a loop.
fn loop_of(guardrails: &Guardrails) -> (i32, chrono::TimeDelta) {
    guardrails.competitor_loop.unwrap_or((8, chrono::TimeDelta::hours(24)))
}
