//! Which of the prices that there are a price becomes.

use crate::fraction::Fraction;
use crate::guardrails::Bounds;
use crate::policy::{Mode, Rounding};

/// A price on the currency's grid within the bounds: on a price point or an ending if it is shaped, else on
/// the increment, else on the minor unit.
pub(crate) fn round(
    price: Fraction,
    rounding: &Rounding,
    minor_unit: Fraction,
    bounds: &Bounds,
    is_shaped: bool,
) -> (Fraction, &'static str) {
    let mode = rounding.mode.unwrap_or(Mode::HalfEven);
    let within = |candidates: Vec<Candidate>| pick(price, mode, candidates, bounds);
    if is_shaped {
        let points = expressible(&rounding.price_points, minor_unit);
        if let Some(point) = within(points.iter().map(|point| Candidate::plain(*point)).collect()) {
            return (point, "price point");
        }
        let endings = expressible(&rounding.endings, minor_unit);
        if let Some(ending) = within(around_endings(price, &endings, rounding.endings.len() == 1)) {
            return (ending, "ending");
        }
    }
    let increment = rounding.increment.filter(|increment| *increment > minor_unit);
    let bearable = increment.filter(|increment| !becomes_nothing(price, *increment, mode));
    let multiple = bearable.and_then(|increment| within(around(price, Fraction::ZERO, increment)));
    if let Some(multiple) = multiple {
        return (multiple, "increment");
    }
    let kind = if increment.is_some() { "minor unit, as no multiple fits" } else { "minor unit" };
    let least = bounds.lowest.unwrap_or(minor_unit) / minor_unit;
    let of_least = Fraction::whole(least.ceil().max(1)) * minor_unit;
    (within(around(price, Fraction::ZERO, minor_unit)).unwrap_or(of_least), kind)
}

/// Whether 0 is nearer to the price than the first multiple, or the mode makes 0 of it.
fn becomes_nothing(price: Fraction, increment: Fraction, mode: Mode) -> bool {
    match mode {
        Mode::Down => price < increment,
        Mode::Up | Mode::HalfUp => price + price < increment,
        Mode::HalfDown | Mode::HalfEven => price + price <= increment,
    }
}

/// A price that there is; `index` counts those of its kind, for halves to the even one.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    price: Fraction,
    index: Option<i128>,
}

impl Candidate {
    fn plain(price: Fraction) -> Self {
        Self { price, index: None }
    }
}

fn expressible(prices: &[Fraction], minor_unit: Fraction) -> Vec<Fraction> {
    prices.iter().copied().filter(|price| (*price / minor_unit).is_whole()).collect()
}

/// The multiples of `unit` after `first` on both sides of the price.
fn around(price: Fraction, first: Fraction, unit: Fraction) -> Vec<Candidate> {
    let index = ((price - first) / unit).floor();
    [index, index + 1]
        .map(|index| Candidate { price: first + unit * Fraction::whole(index), index: Some(index) })
        .to_vec()
}

/// The prices with these endings on both sides of the price. An ending stands for the digits from its first
/// one on: 0.99 comes once in 1, 9.95 once in 10.
fn around_endings(price: Fraction, endings: &[Fraction], is_only_one: bool) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = endings
        .iter()
        .flat_map(|ending| {
            let mut unit = Fraction::ONE;
            while unit <= *ending {
                unit = unit * Fraction::whole(10);
            }
            around(price, *ending, unit)
        })
        .collect();
    if !is_only_one {
        candidates.iter_mut().for_each(|candidate| candidate.index = None);
    }
    candidates
}

/// The candidate that the mode prefers among those that are prices and that the bounds allow.
fn pick(price: Fraction, mode: Mode, candidates: Vec<Candidate>, bounds: &Bounds) -> Option<Fraction> {
    let allowed: Vec<Candidate> = candidates
        .into_iter()
        .filter(|candidate| candidate.price.is_above_zero() && bounds.allow(candidate.price))
        .collect();
    let below = allowed.iter().filter(|candidate| candidate.price <= price).max_by_key(|each| each.price);
    let above = allowed.iter().filter(|candidate| candidate.price >= price).min_by_key(|each| each.price);
    let (below, above) = match (below, above) {
        (Some(below), Some(above)) => (below, above),
        (one, other) => return one.or(other).map(|candidate| candidate.price),
    };
    let middle = (below.price + above.price) / Fraction::whole(2);
    let takes_above = match mode {
        Mode::Up => below.price < price,
        Mode::Down => above.price == price,
        _ if price != middle => price > middle,
        Mode::HalfUp => true,
        Mode::HalfDown => false,
        Mode::HalfEven => above.index.is_some_and(|index| index % 2 == 0),
    };
    Some(if takes_above { above.price } else { below.price })
}
