//! The only place where a price is rounded.
//!
//! A price lies on a `Grid`: all multiples of the currency's minor unit, of a cash increment (CHF 0.05), or
//! all amounts with a price ending (.99). Rounding moves an amount to a grid amount within the limits, by a
//! [`RoundingMode`]. If a grid has none there, a finer grid is used, and finally the minor unit.

use rust_decimal::Decimal;

use crate::facts::arithmetic::{RoundingMode, compare, larger, round, round_within};
use crate::facts::limits::Limits;
use crate::facts::money::{Currency, in_minor_units};

/// The rounding of a policy's prices. `increment` and `ending` are in the main unit of the currency.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rounding {
    /// The rounding mode.
    pub mode: RoundingMode,
    /// The price increment, if coarser than the minor unit: 0.05 for CHF in cash. One, two or five times a
    /// power of ten. A price without a multiple within its limits, or nearer to 0 than to the first multiple,
    /// is rounded to the minor unit.
    pub increment: Option<Decimal>,
    /// The price endings of list prices: 0.99 gives 0.99, 1.99 …; 9.95 gives 9.95, 19.95 …. A shopper's own
    /// price uses only the increment: a discount on 19.99 is not pulled back to .99.
    ///
    /// Of several endings, the nearest one is used.
    pub endings: Vec<Decimal>,
    /// The only amounts that list prices may have, ascending, if the guardrails leave room for one of them;
    /// any amount if empty. They take precedence over endings.
    pub price_points: Vec<Decimal>,
}

/// A rounded price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounded {
    /// The price, in whole minor units.
    pub amount: Decimal,
    /// The increment that was not applied because no multiple of it fits.
    pub increment_passed_over: Option<Decimal>,
}

/// The amounts a price may take: `offset + n × step` for every whole n ≥ 0, zero excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Grid {
    step: Decimal,
    offset: Decimal,
}

impl Rounding {
    /// Rounds a list price: to a price point or an ending if there are any and the limits leave room for one,
    /// else to the increment, else to the minor unit; never below `limits.lowest`, and above `limits.highest`
    /// only if no whole minor unit lies between the two.
    pub fn list_price(&self, amount: Decimal, currency: Currency, limits: Limits) -> Option<Rounded> {
        if self.price_points.is_empty() && self.endings.is_empty() {
            return self.shopper_price(amount, currency, limits);
        }
        let amount = limits.clamp(amount);
        let grids = || self.endings.iter().filter_map(|ending| Grid::ending(*ending, currency));
        let chosen = self.price_point(amount, currency, limits).or_else(|| match &*self.endings {
            [ending] => Grid::ending(*ending, currency)?.nearest_within(amount, self.mode, limits),
            _ => {
                let neighbours =
                    grids().flat_map(|grid| [grid.at_or_below(amount), grid.at_or_above(amount)]);
                self.nearest(neighbours.flatten(), amount, limits)
            }
        });
        match chosen {
            Some(amount) => {
                Some(Rounded { amount: in_minor_units(amount, currency), increment_passed_over: None })
            }
            None => self.round_allowed(amount, currency, limits),
        }
    }

    fn price_point(&self, amount: Decimal, currency: Currency, limits: Limits) -> Option<Decimal> {
        let points = self.price_points.iter().filter(|point| point.scale() <= currency.exponent());
        self.nearest(points.copied(), amount, limits)
    }

    /// Returns the amount that the mode prefers among those within the limits; of two equally near ones the
    /// lower, unless the mode rounds up.
    fn nearest(
        &self,
        amounts: impl Iterator<Item = Decimal>,
        wanted: Decimal,
        limits: Limits,
    ) -> Option<Decimal> {
        let allowed = amounts.filter(|amount| {
            limits.lowest.is_none_or(|lowest| *amount >= lowest)
                && limits.highest.is_none_or(|highest| *amount <= highest)
        });
        allowed.min_by_key(|amount| {
            let is_wrong_side = match self.mode {
                RoundingMode::Up => *amount < wanted,
                RoundingMode::Down => *amount > wanted,
                RoundingMode::HalfEven | RoundingMode::HalfUp | RoundingMode::HalfDown => false,
            };
            let is_second =
                if self.mode == RoundingMode::HalfUp { *amount < wanted } else { *amount > wanted };
            (is_wrong_side, (*amount - wanted).abs(), is_second)
        })
    }

    /// Rounds a shopper's price to the increment or the minor unit, with the same guarantee about the limits
    /// as [`list_price`](Self::list_price). `None` only if the amount exceeds a [`Decimal`].
    pub fn shopper_price(&self, amount: Decimal, currency: Currency, limits: Limits) -> Option<Rounded> {
        // The common case: no increment, and limits in whole minor units.
        if self.increment.is_none()
            && let Some(amount) =
                round_within(amount, currency.exponent(), self.mode, (limits.lowest, limits.highest))
        {
            return Some(Rounded { amount, increment_passed_over: None });
        }
        self.round_allowed(limits.clamp(amount), currency, limits)
    }

    /// Whether prices are rounded to the minor unit and no further.
    pub(crate) fn is_plain(&self) -> bool {
        self.increment.is_none() && self.endings.is_empty() && self.price_points.is_empty()
    }

    /// Rounds to the minor unit within the limits, whatever the increment: a target, before endings.
    pub(crate) fn target(&self, amount: Decimal, currency: Currency, limits: Limits) -> Decimal {
        let minor_unit = Self { mode: self.mode, ..Self::default() };
        // Only amounts that the rules refuse as too large cannot be rounded.
        minor_unit.shopper_price(amount, currency, limits).map_or(amount, |rounded| rounded.amount)
    }

    /// Like [`shopper_price`](Self::shopper_price), for an amount that the limits allow.
    pub(crate) fn round_allowed(
        &self,
        amount: Decimal,
        currency: Currency,
        limits: Limits,
    ) -> Option<Rounded> {
        let minor_unit = Grid::minor_unit(currency);
        let increment = self.increment.filter(|increment| *increment > minor_unit.step);
        let multiple =
            increment.and_then(|increment| Grid::increment(increment).multiple(amount, self.mode, limits));
        let increment_passed_over = if multiple.is_some() { None } else { increment };
        let amount = multiple
            .or_else(|| minor_unit.nearest_within(amount, self.mode, limits))
            .or_else(|| minor_unit.at_or_above(amount))?;
        Some(Rounded { amount: in_minor_units(amount, currency), increment_passed_over })
    }
}

impl Grid {
    fn minor_unit(currency: Currency) -> Self {
        Self::increment(Decimal::new(1, currency.exponent()))
    }

    fn increment(step: Decimal) -> Self {
        Self { step, offset: Decimal::ZERO }
    }

    /// Creates the grid of an ending; `None` if the currency cannot express it: .99 in JPY.
    fn ending(ending: Decimal, currency: Currency) -> Option<Self> {
        if ending.normalize().scale() > currency.exponent() {
            return None;
        }
        let mut step = Decimal::ONE;
        while step <= ending {
            step = step.checked_mul(Decimal::TEN)?;
        }
        Some(Self { step, offset: ending })
    }

    /// Returns the multiple for this amount; `None` if none is within the limits, or 0 is the nearest: a
    /// small price is not multiplied by rounding.
    fn multiple(&self, amount: Decimal, mode: RoundingMode, limits: Limits) -> Option<Decimal> {
        let mode_of_small = if mode == RoundingMode::Up { RoundingMode::HalfUp } else { mode };
        if compare(round(self.count(amount)?, 0, mode_of_small), Decimal::ONE).is_lt() {
            return None;
        }
        self.nearest_within(amount, mode, limits)
    }

    /// Rounds an amount that the limits allow to the grid, by the mode; if that breaks a limit, returns the
    /// nearest grid amount that does not.
    fn nearest_within(&self, amount: Decimal, mode: RoundingMode, limits: Limits) -> Option<Decimal> {
        let rounded = self.round(amount, mode)?;
        // Rounding never crosses a grid amount, and most limits are grid amounts.
        let is_off = |limit: Decimal| !self.is_power_of_ten() || limit.scale() > self.step.scale();
        if limits.highest.is_some_and(|highest| is_off(highest) && compare(rounded, highest).is_gt()) {
            let below = self.at_or_below(limits.highest?)?;
            return limits.lowest.is_none_or(|lowest| below >= lowest).then_some(below);
        }
        if limits.lowest.is_some_and(|lowest| is_off(lowest) && compare(rounded, lowest).is_lt()) {
            let above = self.at_or_above(limits.lowest?)?;
            return limits.highest.is_none_or(|highest| above <= highest).then_some(above);
        }
        Some(rounded)
    }

    fn round(&self, amount: Decimal, mode: RoundingMode) -> Option<Decimal> {
        if self.is_power_of_ten() {
            // The common case: no division.
            return Some(self.at_least_first(round(amount, self.step.scale(), mode)));
        }
        self.at_count(round(self.count(amount)?, 0, mode))
    }

    fn is_power_of_ten(&self) -> bool {
        self.offset.is_zero() && self.step.mantissa() == 1
    }

    fn at_or_above(&self, amount: Decimal) -> Option<Decimal> {
        self.at_count(self.count(amount)?.ceil())
    }

    /// Returns the largest grid amount that is not above `amount`; `None` below the first one.
    fn at_or_below(&self, amount: Decimal) -> Option<Decimal> {
        (amount >= self.first()).then(|| self.at_count(self.count(amount)?.floor())).flatten()
    }

    /// Returns the distance of the amount from the offset, in steps. Steps are 1, 2 or 5 times a power of
    /// ten, so the quotient is exact.
    fn count(&self, amount: Decimal) -> Option<Decimal> {
        amount.checked_sub(self.offset)?.checked_div(self.step)
    }

    fn at_count(&self, count: Decimal) -> Option<Decimal> {
        Some(self.at_least_first(count.checked_mul(self.step)?.checked_add(self.offset)?))
    }

    /// The lowest price on the grid: rounding never yields 0.
    fn first(&self) -> Decimal {
        if self.offset.is_zero() { self.step } else { self.offset }
    }

    fn at_least_first(&self, amount: Decimal) -> Decimal {
        larger(amount, self.first())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::from_str_exact(text).unwrap()
    }

    fn optional(text: &str) -> Option<Decimal> {
        (!text.is_empty()).then(|| decimal(text))
    }

    /// amount, mode, increment, ending, currency, lowest, highest → rounded
    type Case = (
        &'static str,
        RoundingMode,
        &'static str,
        &'static str,
        &'static str,
        &'static str,
        &'static str,
        &'static str,
    );

    const CASES: &[Case] = &[
        ("49.3905", RoundingMode::HalfEven, "", "", "USD", "", "", "49.39"),
        ("46.9", RoundingMode::HalfEven, "", "", "USD", "", "", "46.90"),
        ("0.125", RoundingMode::HalfEven, "", "", "USD", "", "", "0.12"),
        ("0.125", RoundingMode::HalfUp, "", "", "USD", "", "", "0.13"),
        ("0.125", RoundingMode::HalfDown, "", "", "USD", "", "", "0.12"),
        ("0.121", RoundingMode::Up, "", "", "USD", "", "", "0.13"),
        ("0.129", RoundingMode::Down, "", "", "USD", "", "", "0.12"),
        ("1234.5", RoundingMode::HalfEven, "", "", "JPY", "", "", "1234"),
        ("1235.5", RoundingMode::HalfEven, "", "", "JPY", "", "", "1236"),
        ("1.23456", RoundingMode::HalfEven, "", "", "BHD", "", "", "1.235"),
        ("12.37", RoundingMode::HalfEven, "0.05", "", "CHF", "", "", "12.35"),
        ("12.375", RoundingMode::HalfUp, "0.05", "", "CHF", "", "", "12.40"),
        ("12.38", RoundingMode::Down, "0.05", "", "CHF", "", "", "12.35"),
        ("19.20", RoundingMode::HalfEven, "", "0.99", "USD", "", "", "18.99"),
        ("19.60", RoundingMode::HalfEven, "", "0.99", "USD", "", "", "19.99"),
        ("0.10", RoundingMode::Down, "", "0.99", "USD", "", "", "0.99"),
        ("23.00", RoundingMode::HalfEven, "", "9.95", "USD", "", "", "19.95"),
        ("1429", RoundingMode::HalfEven, "", "80", "JPY", "", "", "1380"),
        // An ending that the currency cannot express is ignored.
        ("1432.4", RoundingMode::HalfEven, "", "0.99", "JPY", "", "", "1432"),
        // The floor of 19.20 is between two endings: up to the next one; with a ceiling below it, no ending.
        ("19.20", RoundingMode::HalfEven, "", "0.99", "USD", "19.20", "", "19.99"),
        ("19.20", RoundingMode::HalfEven, "", "0.99", "USD", "19.20", "19.50", "19.20"),
        ("18.00", RoundingMode::HalfEven, "", "", "USD", "19.201", "", "19.21"),
        ("25.00", RoundingMode::HalfEven, "", "", "USD", "", "19.209", "19.20"),
        // No amount between the limits, or contradictory limits: the lowest takes precedence.
        ("10", RoundingMode::HalfEven, "", "", "USD", "10.001", "10.004", "10.01"),
        ("10", RoundingMode::HalfEven, "", "", "USD", "12", "11", "12.00"),
        // Never 0.
        ("0.001", RoundingMode::HalfEven, "", "", "USD", "", "", "0.01"),
        ("-3", RoundingMode::HalfEven, "0.05", "", "CHF", "", "", "0.01"),
        ("5", RoundingMode::HalfEven, "", "", "USD", "", "0.004", "0.01"),
        // No multiple of the increment between the limits: the minor unit is used in any mode.
        ("9.98", RoundingMode::HalfEven, "0.05", "", "USD", "9.97", "9.99", "9.98"),
        ("9.98", RoundingMode::Down, "0.05", "", "USD", "9.97", "9.99", "9.98"),
        ("9.99", RoundingMode::HalfEven, "0.05", "", "USD", "9.96", "9.99", "9.99"),
        ("7.014", RoundingMode::HalfEven, "5", "", "USD", "6", "9", "7.01"),
        ("0.99", RoundingMode::HalfEven, "5", "", "USD", "", "1.50", "0.99"),
        ("0.450", RoundingMode::Up, "1", "", "BHD", "", "0.495", "0.450"),
        ("10", RoundingMode::HalfEven, "5", "", "USD", "12", "11", "12.00"),
        // A multiple lies there, though not the nearest.
        ("9.98", RoundingMode::HalfEven, "0.05", "", "USD", "", "9.99", "9.95"),
        ("9.98", RoundingMode::Down, "0.05", "", "USD", "9.97", "", "10.00"),
        // Nearer to 0 than to the first multiple: the price is not multiplied.
        ("0.9363", RoundingMode::HalfEven, "5", "", "CLF", "", "", "0.9363"),
        ("0.9363", RoundingMode::Up, "5", "", "CLF", "", "", "0.9363"),
        ("2.50", RoundingMode::HalfEven, "5", "", "USD", "", "", "2.50"),
        ("2.50", RoundingMode::HalfDown, "5", "", "USD", "", "", "2.50"),
        ("2.50", RoundingMode::HalfUp, "5", "", "USD", "", "", "5.00"),
        ("2.50", RoundingMode::Up, "5", "", "USD", "", "", "5.00"),
        ("2.51", RoundingMode::HalfEven, "5", "", "USD", "", "", "5.00"),
        ("4.99", RoundingMode::Down, "5", "", "USD", "", "", "4.99"),
        ("4.50", RoundingMode::Down, "5", "", "USD", "4.20", "", "4.50"),
        // An increment finer than the minor unit has no effect.
        ("12.4", RoundingMode::HalfEven, "0.05", "", "JPY", "", "", "12"),
    ];

    #[test]
    fn prices_are_rounded_by_the_table() {
        for case @ (amount, mode, increment, ending, currency, lowest, highest, expected) in CASES {
            let rounding = Rounding {
                mode: *mode,
                increment: optional(increment),
                endings: optional(ending).into_iter().collect(),
                price_points: Vec::new(),
            };
            let limits = Limits { lowest: optional(lowest), highest: optional(highest) };
            let rounded =
                rounding.list_price(decimal(amount), Currency::from_code(currency).unwrap(), limits);
            let rounded = rounded.map(|rounded| rounded.amount.to_string());
            assert_eq!(rounded.as_deref(), Some(*expected), "{case:?}");
        }
    }

    #[test]
    fn a_shopper_price_keeps_no_ending() {
        let rounding = Rounding { endings: vec![decimal("0.99")], ..Rounding::default() };
        let price = rounding.shopper_price(
            decimal("18.9905"),
            Currency::from_code("USD").unwrap(),
            Limits::default(),
        );
        assert_eq!(price.map(|price| price.amount), Some(decimal("18.99")));
        let price =
            rounding.shopper_price(decimal("18.04"), Currency::from_code("USD").unwrap(), Limits::default());
        assert_eq!(price.map(|price| price.amount), Some(decimal("18.04")));
    }

    proptest::proptest! {
        #[test]
        fn limits_hold_after_rounding(
            amount in -1_000_000_i64..100_000_000,
            lowest in proptest::option::of(0_i64..100_000_000),
            width in proptest::option::of(0_i64..10_000),
            mode in proptest::sample::select(vec![RoundingMode::HalfEven, RoundingMode::HalfUp, RoundingMode::HalfDown, RoundingMode::Up, RoundingMode::Down]),
            increment in proptest::option::of(proptest::sample::select(vec!["0.05", "0.1", "0.5", "1"])),
            ending in proptest::option::of(proptest::sample::select(vec!["0.99", "0.95", "9.99", "0.5"])),
        ) {
            let rounding = Rounding { mode, increment: increment.map(decimal), endings: ending.map(decimal).into_iter().collect(), price_points: Vec::new() };
            let lowest = lowest.map(|lowest| Decimal::new(lowest, 4));
            let highest = width.map(|width| lowest.unwrap_or_default() + Decimal::new(width, 4));
            let limits = Limits { lowest, highest };
            let currency = Currency::from_code("USD").unwrap();
            let rounded = rounding.list_price(Decimal::new(amount, 4), currency, limits).unwrap();
            assert!(lowest.is_none_or(|lowest| rounded.amount >= lowest));
            assert!(rounded.amount > Decimal::ZERO && rounded.amount.scale() == 2);
            if let Some(highest) = highest.filter(|highest| rounded.amount > *highest) {
                // Above the ceiling only when no whole minor unit lies between the limits.
                let below = Grid::minor_unit(currency).at_or_below(highest);
                assert!(below.is_none_or(|below| lowest.is_some_and(|lowest| below < lowest)));
            }
            if let Some(increment) = rounded.increment_passed_over {
                let grid = Grid::increment(increment);
                let is_out = |amount: Decimal| limits.clamp(amount) != amount;
                let multiples = [grid.at_or_below(rounded.amount), grid.at_or_above(rounded.amount)];
                assert!(rounded.amount < increment || multiples.into_iter().flatten().all(is_out));
            }
        }

        #[test]
        fn limits_of_the_minor_unit_make_no_difference_to_the_way_of_rounding(
            (digits, scale) in (-100_i64..1_000_000, 0_u32..7),
            lowest in proptest::option::of(0_i64..100_000),
            width in proptest::option::of(-10_000_i64..10_000),
            limits_scale in 1_u32..4,
            mode in proptest::sample::select(vec![RoundingMode::HalfEven, RoundingMode::HalfUp, RoundingMode::HalfDown, RoundingMode::Up, RoundingMode::Down]),
            currency in proptest::sample::select(vec!["USD", "JPY", "BHD"]),
        ) {
            let rounding = Rounding { mode, ..Rounding::default() };
            let limit = |units| Decimal::new(units, limits_scale);
            let highest = width.map(|width| limit(lowest.unwrap_or(50_000) + width));
            let limits = Limits { lowest: lowest.map(limit), highest };
            let (amount, currency) = (Decimal::new(digits, scale), Currency::from_code(currency).unwrap());
            let general = rounding.round_allowed(limits.clamp(amount), currency, limits);
            let parts = |rounded: Option<Rounded>| rounded.map(|rounded| rounded.amount.serialize());
            let rounded = rounding.shopper_price(amount, currency, limits);
            proptest::prop_assert_eq!(parts(rounded), parts(general), "{} {:?}", amount, limits);
        }

        #[test]
        fn more_before_rounding_is_never_less_after(
            amounts in proptest::array::uniform2(1_i64..400_000),
            lowest in proptest::option::of(0_i64..400_000),
            width in proptest::option::of(0_i64..100_000),
            mode in proptest::sample::select(vec![RoundingMode::HalfEven, RoundingMode::HalfUp, RoundingMode::HalfDown, RoundingMode::Up, RoundingMode::Down]),
            increment in proptest::option::of(proptest::sample::select(vec!["0.05", "0.5", "1", "5"])),
        ) {
            let rounding = Rounding { mode, increment: increment.map(decimal), ..Rounding::default() };
            let lowest = lowest.map(|lowest| Decimal::new(lowest, 4));
            let highest = width.map(|width| lowest.unwrap_or_default() + Decimal::new(width, 4));
            let limits = Limits { lowest, highest };
            let currency = Currency::from_code("USD").unwrap();
            let rounded = |amount| rounding.shopper_price(Decimal::new(amount, 4), currency, limits).unwrap().amount;
            let [less, more] = [amounts[0].min(amounts[1]), amounts[0].max(amounts[1])];
            assert!(rounded(less) <= rounded(more));
        }
    }
}
