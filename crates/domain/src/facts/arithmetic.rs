//! Arithmetic optimised for amounts that occur in practice: non-negative, and rarely longer than 19 digits.
//!
//! Here: `multiply`, `compare`, `round` and `part_taken`, in a few machine instructions each. Everything else
//! is delegated to [`Decimal`]. The results equal `Decimal`'s, including the scale: property tests compare
//! the two. Never here: what is rounded and when, which `rounding` decides.

use std::cmp::Ordering;

use rust_decimal::{Decimal, RoundingStrategy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The powers of ten that fit 64 bits.
const POWERS_OF_TEN: [u64; 20] = {
    let mut powers = [1_u64; 20];
    let mut exponent = 1;
    #[expect(clippy::indexing_slicing, reason = "worked out by the compiler, which would not let it pass")]
    while exponent < powers.len() {
        powers[exponent] = powers[exponent - 1] * 10;
        exponent += 1;
    }
    powers
};

/// Returns the digits of an amount as one integer, if the amount is not negative and they fit 64 bits.
#[inline(always)]
fn digits_of(amount: Decimal) -> Option<u64> {
    let parts = amount.unpack();
    (parts.hi == 0 && !parts.negative).then_some(u64::from(parts.mid) << 32 | u64::from(parts.lo))
}

/// Like [`digits_of`], for up to 96 bits.
#[inline]
fn long_digits_of(amount: Decimal) -> Option<u128> {
    u128::try_from(amount.mantissa()).ok()
}

#[inline(always)]
fn power_of_ten(exponent: u32) -> Option<u64> {
    POWERS_OF_TEN.get(exponent as usize).copied()
}

/// Builds an amount from its digits; `None` if the digits or the scale exceed a [`Decimal`].
#[inline(always)]
fn amount_of(digits: u128, scale: u32) -> Option<Decimal> {
    let high = u32::try_from(digits >> 64).ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "the parts are what is wanted")]
    let (low, middle) = (digits as u32, (digits >> 32) as u32);
    (scale <= Decimal::MAX_SCALE).then(|| Decimal::from_parts(low, middle, high, false, scale))
}

/// Multiplies two amounts; `None` if the product exceeds a [`Decimal`].
#[inline]
pub(crate) fn multiply(left: Decimal, right: Decimal) -> Option<Decimal> {
    if let (Some(left_digits), Some(right_digits)) = (digits_of(left), digits_of(right))
        && let product = u128::from(left_digits) * u128::from(right_digits)
        // `Decimal` sets the scale of a zero product differently.
        && product > 0
        && let Some(product) = amount_of(product, left.scale() + right.scale())
    {
        return Some(product);
    }
    multiply_long(left, right)
}

/// Handles prices of more than 64 bits, such as after ten multiplying rules; the factors are still short.
#[inline(never)]
fn multiply_long(left: Decimal, right: Decimal) -> Option<Decimal> {
    if let (Some(left_digits), Ok(right_digits)) = (long_digits_of(left), u32::try_from(right.mantissa()))
        // The product of 96 bits and 32 bits fits 128.
        && let product = left_digits * u128::from(right_digits)
        && product > 0
        && let Some(product) = amount_of(product, left.scale() + right.scale())
    {
        return Some(product);
    }
    left.checked_mul(right)
}

/// Compares two amounts.
#[inline]
pub(crate) fn compare(left: Decimal, right: Decimal) -> Ordering {
    if let (Some(left_digits), Some(right_digits)) = (digits_of(left), digits_of(right)) {
        let (left_scale, right_scale) = (left.scale(), right.scale());
        if left_scale == right_scale {
            return left_digits.cmp(&right_digits);
        }
        let scaled = |digits, power| u128::from(digits) * u128::from(power);
        if left_scale < right_scale {
            if let Some(power) = power_of_ten(right_scale - left_scale) {
                return scaled(left_digits, power).cmp(&right_digits.into());
            }
        } else if let Some(power) = power_of_ten(left_scale - right_scale) {
            return u128::from(left_digits).cmp(&scaled(right_digits, power));
        }
    }
    left.cmp(&right)
}

/// Returns the larger amount; of two equal ones, whose scales may differ, the first.
#[inline]
pub(crate) fn larger(left: Decimal, right: Decimal) -> Decimal {
    if compare(left, right).is_lt() { right } else { left }
}

/// Returns the smaller amount; of two equal ones, whose scales may differ, the first.
#[inline]
pub(crate) fn smaller(left: Decimal, right: Decimal) -> Decimal {
    if compare(left, right).is_gt() { right } else { left }
}

/// Rounds an amount to at most `places` decimal places.
#[inline]
pub(crate) fn round(amount: Decimal, places: u32, mode: RoundingMode) -> Decimal {
    let scale = amount.scale();
    if scale <= places {
        return amount;
    }
    let Some(divisor) = power_of_ten(scale - places) else {
        return amount.round_dp_with_strategy(places, mode.strategy());
    };
    let rounded = match (digits_of(amount), long_digits_of(amount)) {
        // A 64-bit division is much faster and suffices for most amounts.
        (Some(digits), _) if digits > 0 => {
            let (quotient, rest) = (digits / divisor, digits % divisor);
            amount_of(
                u128::from(quotient) + u128::from(goes_up(quotient % 2 == 1, rest, divisor, mode)),
                places,
            )
        }
        (None, Some(digits)) => {
            let (quotient, rest) = (digits / u128::from(divisor), digits % u128::from(divisor));
            #[expect(clippy::cast_possible_truncation, reason = "a rest is less than its divisor")]
            amount_of(quotient + u128::from(goes_up(quotient % 2 == 1, rest as u64, divisor, mode)), places)
        }
        _ => None,
    };
    rounded.unwrap_or_else(|| amount.round_dp_with_strategy(places, mode.strategy()))
}

/// Rounds an amount to exactly `places` decimal places, within two limits of the same scale; never to 0. The
/// lower limit takes precedence over the upper one. `None` if a value exceeds 64 bits, or a limit has another
/// scale.
///
/// Since the limits are multiples of the last place, rounding and clamping commute.
#[inline]
pub(crate) fn round_within(
    amount: Decimal,
    places: u32,
    mode: RoundingMode,
    (lowest, highest): (Option<Decimal>, Option<Decimal>),
) -> Option<Decimal> {
    let (digits, scale) = (digits_of(amount)?, amount.scale());
    let mut rounded = if scale <= places {
        digits.checked_mul(power_of_ten(places - scale)?)?
    } else {
        let divisor = power_of_ten(scale - places)?;
        let (quotient, rest) = (digits / divisor, digits % divisor);
        quotient + u64::from(goes_up(quotient % 2 == 1, rest, divisor, mode))
    };
    let limit = |limit: Decimal| if limit.scale() == places { digits_of(limit) } else { None };
    if let Some(highest) = highest {
        rounded = rounded.min(limit(highest)?);
    }
    if let Some(lowest) = lowest {
        rounded = rounded.max(limit(lowest)?);
    }
    amount_of(rounded.max(1).into(), places)
}

/// Whether a quotient with this remainder is rounded up.
#[inline(always)]
fn goes_up(is_odd: bool, rest: u64, divisor: u64, mode: RoundingMode) -> bool {
    let half = rest.cmp(&(divisor - rest));
    match mode {
        RoundingMode::HalfEven => half.is_gt() || (half.is_eq() && is_odd),
        RoundingMode::HalfUp => half.is_ge(),
        RoundingMode::HalfDown => half.is_gt(),
        RoundingMode::Up => rest > 0,
        RoundingMode::Down => false,
    }
}

/// Returns the fraction of `whole` that was taken off to get `left`: at most four decimal places, rounded
/// half even, without trailing zeros; 0 if nothing was taken off.
#[inline]
pub(crate) fn part_taken(left: Decimal, whole: Decimal) -> Decimal {
    const PLACES: u32 = 4;
    const ONE: u64 = 10_000;
    if let (Some(left_digits), Some(whole_digits)) = (digits_of(left), digits_of(whole))
        && left.scale() == whole.scale()
        && whole_digits > 0
        && let Some(taken) = whole_digits.saturating_sub(left_digits).checked_mul(ONE)
    {
        let (quotient, rest) = (taken / whole_digits, taken % whole_digits);
        let goes_up = goes_up(quotient % 2 == 1, rest, whole_digits, RoundingMode::HalfEven);
        return without_zeros(
            amount_of(u128::from(quotient) + u128::from(goes_up), PLACES).unwrap_or_default(),
        );
    }
    let taken = whole.checked_sub(left).and_then(|taken| taken.checked_div(whole)).unwrap_or_default();
    without_zeros(round(taken.max(Decimal::ZERO), PLACES, RoundingMode::HalfEven))
}

/// Strips trailing zeros.
#[inline]
fn without_zeros(amount: Decimal) -> Decimal {
    let Some(mut digits) = digits_of(amount) else {
        return amount.normalize();
    };
    if digits == 0 {
        return Decimal::ZERO;
    }
    let mut scale = amount.scale();
    while scale > 0 && digits.is_multiple_of(10) {
        digits /= 10;
        scale -= 1;
    }
    amount_of(digits.into(), scale).unwrap_or(amount)
}

/// Which neighbour on the grid an amount between two of them goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RoundingMode {
    /// The nearest; a tie goes to the even neighbour (banker's rounding).
    #[default]
    HalfEven,
    /// The nearest; a tie goes up.
    HalfUp,
    /// The nearest; a tie goes down.
    HalfDown,
    /// The one above.
    Up,
    /// The one below.
    Down,
}

impl RoundingMode {
    pub(crate) fn strategy(self) -> RoundingStrategy {
        match self {
            Self::HalfEven => RoundingStrategy::MidpointNearestEven,
            Self::HalfUp => RoundingStrategy::MidpointAwayFromZero,
            Self::HalfDown => RoundingStrategy::MidpointTowardZero,
            Self::Up => RoundingStrategy::AwayFromZero,
            Self::Down => RoundingStrategy::ToZero,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Short and long amounts of any scale, including both ends of the short range.
    fn amount() -> impl Strategy<Value = Decimal> {
        let edges = vec![
            0_i128,
            1,
            5,
            10,
            25,
            99,
            i128::from(u32::MAX),
            i128::from(u64::MAX),
            (1 << 64),
            (1 << 96) - 1,
        ];
        let digits = prop_oneof![
            4 => 0_i128..1_000_000,
            2 => any::<u64>().prop_map(i128::from),
            2 => (any::<u32>(), 0_u32..12).prop_map(|(digits, zeros)| i128::from(digits) * 10_i128.pow(zeros)),
            1 => 0_i128..(1 << 96),
            1 => proptest::sample::select(edges),
        ];
        let scale = prop_oneof![4 => 0_u32..8, 1 => 0_u32..=28];
        (digits, scale, prop_oneof![8 => Just(1), 1 => Just(-1)])
            .prop_map(|(digits, scale, sign)| Decimal::from_i128_with_scale(digits * sign, scale))
    }

    fn mode() -> impl Strategy<Value = RoundingMode> {
        use RoundingMode::{Down, HalfDown, HalfEven, HalfUp, Up};
        proptest::sample::select(vec![HalfEven, HalfUp, HalfDown, Up, Down])
    }

    /// Compares representations: decimals of different scales can be equal.
    fn parts(amount: Decimal) -> [u8; 16] {
        amount.serialize()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]
        #[test]
        fn results_are_those_of_decimal(left in amount(), right in amount(), places in 0_u32..8, mode in mode()) {
            let mut same = left;
            same.rescale(left.scale() + places);
            for right in [right, same] {
                prop_assert_eq!(multiply(left, right).map(parts), left.checked_mul(right).map(parts));
                prop_assert_eq!(compare(left, right), left.cmp(&right));
                prop_assert_eq!(parts(larger(left, right)), parts(left.max(right)));
                prop_assert_eq!(parts(smaller(left, right)), parts(left.min(right)));
            }
            let rounded = left.round_dp_with_strategy(places, mode.strategy());
            prop_assert_eq!(parts(round(left, places, mode)), parts(rounded));
        }

        #[test]
        fn halves_are_rounded_as_decimal_rounds_them(whole in 0_u32.., scale in 1_u32..8, mode in mode()) {
            let half = Decimal::from_i128_with_scale(i128::from(whole) * 10 + 5, scale);
            let rounded = half.round_dp_with_strategy(scale - 1, mode.strategy());
            prop_assert_eq!(parts(round(half, scale - 1, mode)), parts(rounded));
        }

        #[test]
        fn the_part_taken_is_the_difference_in_parts_of_the_whole(
            left in amount(),
            whole in amount(),
            part in 0_u64..=20_000,
            size in 1_u64..1_000_000,
            scale in 0_u32..=4,
        ) {
            // Multiples of a size, whose quotients are often ties at the last place.
            let of_size = |number: u64| Decimal::from_i128_with_scale((number * size).into(), scale);
            let pairs = [(left, whole), (of_size(part), of_size(20_000)), (left, left)];
            for (left, whole) in pairs.into_iter().filter(|(_, whole)| *whole > Decimal::ZERO) {
                let taken = whole.checked_sub(left).and_then(|taken| taken.checked_div(whole)).unwrap_or_default();
                let taken = taken.max(Decimal::ZERO).round_dp(4).normalize();
                prop_assert_eq!(parts(part_taken(left, whole)), parts(taken), "{} of {}", left, whole);
            }
        }
    }
}
