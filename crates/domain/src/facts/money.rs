//! Currencies and exact amounts.
//!
//! An amount is a [`Decimal`] with a [`Currency`]; binary floating point is never used. On the wire an amount
//! is a JSON number with exactly its decimal digits, `49.90`, written by [`as_json_number`].

use std::fmt;

use rust_decimal::Decimal;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The exclusive upper bound of amounts: at most twelve digits before the decimal point, in the currency's
/// main unit.
pub const AMOUNT_LIMIT: Decimal = Decimal::from_parts(0xD4A5_1000, 0xE8, 0, false, 0);

/// The most decimal places of a unit cost: suppliers quote fractions of a cent.
pub const MAX_COST_SCALE: u32 = 6;

/// An ISO 4217 currency that prices can be in, including withdrawn ones. Metals, test codes and other codes
/// without a minor unit are refused, as nothing can be sold in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency {
    code: Code,
    exponent: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Code {
    Listed(iso_currency::Currency),
    /// A currency that the library has removed.
    Dropped(Dropped),
}

/// Codes that the library removed when they were withdrawn; their exponent was 2. A code that was once
/// accepted stays accepted: rows and price histories contain it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Dropped {
    Ang,
}

/// Currencies no longer in use, with their successors. The library's "superseded" flag is not used: it
/// includes VES, which ISO 4217 still lists beside VED.
const WITHDRAWN: [(&str, &str); 6] =
    [("ANG", "XCG"), ("BGN", "EUR"), ("CUC", "CUP"), ("HRK", "EUR"), ("SLL", "SLE"), ("ZWL", "ZWG")];

/// The text is not the code of a currency that prices can be in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown currency \"{0}\"")]
pub struct UnknownCurrency(pub String);

impl Currency {
    /// Looks up a currency by its three-letter code, in capitals.
    pub fn from_code(code: &str) -> Result<Self, UnknownCurrency> {
        let unknown = || UnknownCurrency(crate::diagnostic::shorten(code));
        if code == "ANG" {
            return Ok(Self { code: Code::Dropped(Dropped::Ang), exponent: 2 });
        }
        let iso = iso_currency::Currency::from_code(code).ok_or_else(unknown)?;
        let exponent = iso.exponent().and_then(|exponent| u8::try_from(exponent).ok()).ok_or_else(unknown)?;
        Ok(Self { code: Code::Listed(iso), exponent })
    }

    /// The three-letter code.
    pub fn code(self) -> &'static str {
        match self.code {
            Code::Listed(iso) => iso.code(),
            Code::Dropped(Dropped::Ang) => "ANG",
        }
    }

    /// Returns the reason not to use this currency for new prices, if there is one.
    pub fn warning(self) -> Option<String> {
        let code = self.code();
        if code == "XAD" {
            return Some("XAD is a unit of account between banks; nothing is sold in it".to_owned());
        }
        let withdrawn = WITHDRAWN.into_iter().find(|(withdrawn, _)| *withdrawn == code);
        withdrawn.map(|(_, successor)| format!("{code} is withdrawn; {successor} has taken its place"))
    }

    /// The number of decimal places of the minor unit: 0 for JPY, 2 for USD, 3 for BHD.
    pub fn exponent(self) -> u32 {
        u32::from(self.exponent)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::from_code(&code).map_err(serde::de::Error::custom)
    }
}

/// The reason that a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AmountError {
    /// Not a plain decimal number: empty, NaN, an exponent, letters.
    #[error("\"{0}\" is not a plain decimal number")]
    NotANumber(String),
    /// More decimal places than the amount may have.
    #[error("\"{written}\" has more than {max_scale} decimal places")]
    TooPrecise {
        /// The written text.
        written: String,
        /// The allowed number of decimal places.
        max_scale: u32,
    },
    /// Not below [`AMOUNT_LIMIT`].
    #[error("\"{0}\" is too large")]
    TooLarge(String),
}

/// [`AMOUNT_LIMIT`] in units of each decimal place, starting at scale 0. An amount has less than 10^29 units.
const LIMITS: [i128; 17] = {
    const fn units(scale: u32) -> i128 {
        10_i128.pow(12 + scale)
    }
    [
        units(0),
        units(1),
        units(2),
        units(3),
        units(4),
        units(5),
        units(6),
        units(7),
        units(8),
        units(9),
        units(10),
        units(11),
        units(12),
        units(13),
        units(14),
        units(15),
        units(16),
    ]
};

/// Whether an amount is not negative and below [`AMOUNT_LIMIT`]; faster than comparing the two, whose scales
/// usually differ.
#[inline]
pub fn is_below_limit(amount: Decimal) -> bool {
    // With more decimal places, no mantissa reaches the limit.
    let limit = LIMITS.get(amount.scale() as usize).copied().unwrap_or(i128::MAX);
    (0..limit).contains(&amount.mantissa())
}

/// Parses a plain decimal number (`-12.50`; no exponent, no separators) with at most `max_scale` decimal
/// places.
///
/// Trailing zeros do not count as precision: `1.500` fits two places.
pub fn parse_amount(written: &str, max_scale: u32) -> Result<Decimal, AmountError> {
    let shown = || crate::diagnostic::shorten(written);
    let digits = written.strip_prefix('-').unwrap_or(written);
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (digits, None),
    };
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(whole) || !fraction.is_none_or(plain) {
        return Err(AmountError::NotANumber(shown()));
    }
    let fraction = fraction.unwrap_or_default();
    if fraction.trim_end_matches('0').len() > max_scale as usize {
        return Err(AmountError::TooPrecise { written: shown(), max_scale });
    }
    let whole = whole.trim_start_matches('0');
    if whole.len() > 12 {
        return Err(AmountError::TooLarge(shown()));
    }
    // A valid amount has at most 12 digits and `max_scale` places; zeros beyond those are cut.
    let kept_fraction = fraction.get(..max_scale as usize).unwrap_or(fraction);
    let unscaled: i64 =
        format!("0{whole}{kept_fraction}").parse().map_err(|_| AmountError::NotANumber(shown()))?;
    let scale = u32::try_from(kept_fraction.len()).map_err(|_| AmountError::NotANumber(shown()))?;
    let mut amount = Decimal::new(unscaled, scale);
    amount.set_sign_negative(digits.len() < written.len());
    Ok(amount)
}

/// The largest exponent that is expanded: more than any amount has digits.
const MAX_EXPONENT: usize = 40;

/// Rewrites a JSON number with an exponent, such as `1E+2`, as a plain decimal number of the same value;
/// `None` if it has no exponent, or one that no amount needs.
pub fn without_exponent(written: &str) -> Option<String> {
    let (digits, exponent) = written.split_once(['e', 'E'])?;
    let exponent: isize =
        exponent.parse().ok().filter(|places: &isize| places.unsigned_abs() <= MAX_EXPONENT)?;
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let digits = format!("{whole}{fraction}");
    if whole.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(match whole.len().checked_add_signed(exponent) {
        None | Some(0) => {
            let zeros = exponent.unsigned_abs() - whole.len();
            format!("{sign}0.{}{digits}", "0".repeat(zeros))
        }
        Some(point) => match digits.split_at_checked(point) {
            Some((whole, fraction)) if !fraction.is_empty() => format!("{sign}{whole}.{fraction}"),
            _ => format!("{sign}{digits:0<point$}"),
        },
    })
}

/// Rescales an amount to the currency's number of decimal places: 46.9 USD is 46.90. Excess places would be
/// rounded, so the amount must not have any.
pub fn in_minor_units(mut amount: Decimal, currency: Currency) -> Decimal {
    // Most amounts have this scale already.
    if amount.scale() != currency.exponent() {
        amount.rescale(currency.exponent());
    }
    amount
}

/// The length of a sign, 29 digits and a decimal point.
const LONGEST_AMOUNT: usize = 31;

/// The struct and field name by which serde_json recognises text that is already JSON.
const RAW_VALUE: &str = "$serde_json::private::RawValue";

/// Serialises an amount as a JSON number with exactly its digits: `49.90`, never `49.900000000000006`.
pub fn as_json_number<S: Serializer>(amount: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
    // Writes what `RawValue` would; constructing one would parse the text again.
    let mut raw = serializer.serialize_struct(RAW_VALUE, 1)?;
    let mut digits = Vec::with_capacity(LONGEST_AMOUNT);
    append_json_number(&mut digits, *amount);
    raw.serialize_field(RAW_VALUE, std::str::from_utf8(&digits).map_err(serde::ser::Error::custom)?)?;
    raw.end()
}

/// Appends what [`as_json_number`] writes, for hand-written JSON: the same as `Display`, in a fraction of the
/// time.
pub fn append_json_number(json: &mut Vec<u8>, amount: Decimal) {
    let parts = amount.unpack();
    let short = u64::from(parts.mid) << 32 | u64::from(parts.lo);
    let mut buffer = itoa::Buffer::new();
    let digits = match parts.hi {
        // Most amounts fit 64 bits, which format much faster.
        0 => buffer.format(short),
        high => buffer.format(u128::from(high) << 64 | u128::from(short)),
    };
    if parts.negative {
        json.push(b'-');
    }
    let decimal_places = parts.scale as usize;
    // At least one digit precedes the decimal point.
    if digits.len() <= decimal_places {
        json.resize(json.len() + decimal_places + 1 - digits.len(), b'0');
    }
    json.extend_from_slice(digits.as_bytes());
    if decimal_places > 0 {
        json.insert(json.len() - decimal_places, b'.');
    }
}

/// [`as_json_number`] for an optional amount (`null` if absent).
pub fn as_optional_json_number<S: Serializer>(
    amount: &Option<Decimal>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match amount {
        Some(amount) => as_json_number(amount, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_same_at_every_scale() {
        for scale in 0..=28 {
            let digit = Decimal::new(1, scale);
            for amount in [Decimal::ZERO, digit, -digit, Decimal::MAX, AMOUNT_LIMIT, AMOUNT_LIMIT - digit] {
                let mut amount = amount;
                amount.rescale(scale.min(15));
                let expected = (Decimal::ZERO..AMOUNT_LIMIT).contains(&amount) && !amount.is_sign_negative();
                assert_eq!(is_below_limit(amount), expected || amount.is_zero(), "{amount}");
            }
        }
    }

    #[test]
    fn amounts_have_twelve_digits() {
        assert_eq!(AMOUNT_LIMIT.to_string(), "1000000000000");
    }

    #[test]
    fn currencies_have_their_own_exponent() {
        for (code, exponent) in [("JPY", 0), ("USD", 2), ("BHD", 3), ("CLF", 4), ("EUR", 2), ("KRW", 0)] {
            assert_eq!(Currency::from_code(code).map(Currency::exponent), Ok(exponent), "{code}");
        }
        for code in ["", "usd", "XXX", "XAU", "ABC", "US", "USDD", "💶"] {
            assert!(Currency::from_code(code).is_err(), "{code}");
        }
    }

    #[test]
    fn withdrawn_currencies_are_read_and_warned_of() {
        for (code, successor) in WITHDRAWN {
            let currency = Currency::from_code(code).unwrap();
            assert_eq!((currency.code(), currency.exponent()), (code, 2));
            assert!(currency.warning().is_some_and(|warning| warning.contains(successor)), "{code}");
            let successor = Currency::from_code(successor).unwrap();
            assert_eq!(successor.warning(), None);
        }
        assert!(Currency::from_code("XAD").is_ok_and(|unit| unit.warning().is_some()));
        for current in ["USD", "JPY", "VES", "VED", "XCG", "CLF"] {
            assert_eq!(Currency::from_code(current).unwrap().warning(), None, "{current}");
        }
    }

    #[test]
    fn an_exponent_moves_the_point_and_changes_no_digit() {
        for (written, plain) in [
            ("1E+2", Some("100")),
            ("1e2", Some("100")),
            ("1.5E+1", Some("15")),
            ("1.25e1", Some("12.5")),
            ("-1.25E-1", Some("-0.125")),
            ("4.99E0", Some("4.99")),
            ("0e5", Some("000000")),
            ("1E+24", Some("1000000000000000000000000")),
            ("1E+41", None),
            ("1e-9999999999", None),
            ("1.2.3e1", None),
            ("e1", None),
            ("12.5", None),
        ] {
            assert_eq!(without_exponent(written).as_deref(), plain, "{written}");
        }
    }

    #[test]
    fn amounts_are_read_exactly_or_refused() {
        let read = |written: &str| parse_amount(written, 2).map(|amount| amount.to_string());
        for (written, expected) in [
            ("49.99", "49.99"),
            ("0", "0"),
            ("-0.5", "-0.5"),
            ("007", "7"),
            ("1.50000", "1.50"),
            ("0.01", "0.01"),
        ] {
            assert_eq!(read(written), Ok(expected.to_owned()), "{written}");
        }
        for written in
            ["", "-", ".", "1.", ".5", "NaN", "inf", "1e3", "+1", "1_000", "1,5", " 1", "0x10", "١"]
        {
            assert!(matches!(read(written), Err(AmountError::NotANumber(_))), "{written}");
        }
        assert!(matches!(read("1.999"), Err(AmountError::TooPrecise { max_scale: 2, .. })));
        assert!(matches!(read("1000000000000"), Err(AmountError::TooLarge(_))));
        assert_eq!(read("999999999999.99"), Ok("999999999999.99".to_owned()));
        assert!(read(&"9".repeat(1_000_000)).is_err());
        assert_eq!(read(&format!("1.5{}", "0".repeat(100_000))), Ok("1.50".to_owned()));
    }

    #[test]
    fn amounts_are_written_with_their_digits() {
        #[derive(Serialize)]
        struct Wire {
            #[serde(serialize_with = "as_json_number")]
            amount: Decimal,
        }
        for (amount, expected) in [
            (Decimal::new(4990, 2), r#"{"amount":49.90}"#),
            (Decimal::MAX, r#"{"amount":79228162514264337593543950335}"#),
            (Decimal::new(-1, 28), r#"{"amount":-0.0000000000000000000000000001}"#),
        ] {
            assert_eq!(serde_json::to_string(&Wire { amount }).unwrap(), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn amounts_are_written_as_they_are_displayed(mantissa: i128, short: i32, scale in 0_u32..=28) {
            let longest = Decimal::MAX.mantissa();
            for mantissa in [mantissa % (longest + 1), short.into(), 0, 1, longest, -longest] {
                let amount = Decimal::from_i128_with_scale(mantissa, scale);
                for amount in [amount, -amount] {
                    let mut json = b"[".to_vec();
                    append_json_number(&mut json, amount);
                    proptest::prop_assert_eq!(String::from_utf8_lossy(&json), format!("[{amount}"));
                }
            }
        }
    }
}
