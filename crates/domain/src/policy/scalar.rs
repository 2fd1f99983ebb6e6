//! Numbers, percentages, durations and expressions of a policy, and their parsers.

use std::borrow::Cow;

use chrono::TimeDelta;
use rust_decimal::Decimal;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use crate::diagnostic::{Diagnostic, count_errors, shorten};
use crate::expression::check as expression_check;
use crate::expression::check::Wanted;
use crate::expression::compile::Expression;
use crate::expression::variable::RuleKind;
use crate::facts::money::parse_amount;

/// The longest name of a rule or a policy, in characters.
pub const MAX_RULE_NAME_CHARS: usize = 64;

/// The most decimal places of a policy's numbers, and of percentages as fractions.
pub const MAX_POLICY_SCALE: u32 = 6;

/// The most decimal places of percentages as written.
pub(crate) const MAX_PERCENT_SCALE: u32 = MAX_POLICY_SCALE - 2;

/// The longest duration in a policy.
const MAX_DURATION: TimeDelta = TimeDelta::days(366);

/// A text or a number of a policy document, with its digits as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scalar(pub String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Deserialising as a string makes the YAML parser return `-0.01` verbatim.
        String::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for Scalar {
    fn schema_name() -> Cow<'static, str> {
        "Scalar".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number"] })
    }
}

/// Compiles an expression, or returns `None` with the reasons added to `problems`.
pub(crate) fn compile(
    field: &str,
    written: &str,
    wanted: Wanted,
    scope: RuleKind,
    problems: &mut Vec<Diagnostic>,
) -> Option<Expression> {
    if let Err(error) = Expression::check_length(written) {
        problems.push(Diagnostic::bare(field, error.to_string()));
        return None;
    }
    let before = count_errors(problems);
    problems.extend(expression_check::check(written, scope, wanted).into_iter().map(|fault| Diagnostic {
        allowed: fault.allowed,
        severity: fault.severity,
        offset: Some(fault.at),
        ..Diagnostic::bare(field, fault.problem)
    }));
    if count_errors(problems) > before {
        return None;
    }
    let compiled = Expression::compile(written, scope);
    if let Err(error) = &compiled {
        problems.push(Diagnostic::bare(field, error.to_string()));
    }
    compiled.ok()
}

/// Parses a percentage from 0% to below 100%, as a fraction.
pub(crate) fn fraction(field: &str, written: &Scalar, problems: &mut Vec<Diagnostic>) -> Option<Decimal> {
    let is_allowed = |fraction: Decimal| fraction >= Decimal::ZERO && fraction < Decimal::ONE;
    percentage(field, written, "0% to below 100%", is_allowed, problems)
}

/// Parses an allowed percentage, as a fraction.
pub(crate) fn percentage(
    field: &str,
    written: &Scalar,
    allowed: &str,
    is_allowed: impl Fn(Decimal) -> bool,
    problems: &mut Vec<Diagnostic>,
) -> Option<Decimal> {
    let parsed = parse_percent(&written.0).filter(|fraction| is_allowed(*fraction));
    if parsed.is_none() {
        let problem = format!("\"{}\" is not such a percentage", shorten(&written.0));
        let allowed = format!("{allowed}, with at most {MAX_PERCENT_SCALE} decimal places");
        problems.push(Diagnostic::new(field, problem, allowed));
    }
    parsed
}

/// Parses `90s`, `30m`, `48h` or `7d`.
pub(crate) fn duration(field: &str, written: &Scalar, problems: &mut Vec<Diagnostic>) -> Option<TimeDelta> {
    let parsed =
        humantime::parse_duration(&written.0).ok().and_then(|parsed| TimeDelta::from_std(parsed).ok());
    let parsed = parsed.filter(|duration| (TimeDelta::seconds(1)..=MAX_DURATION).contains(duration));
    if parsed.is_none() {
        let problem = format!("\"{}\" is not such a duration", shorten(&written.0));
        problems.push(Diagnostic::new(field, problem, "1s to 366 days, such as 30m, 48h or 7d"));
    }
    parsed
}

/// Formats a duration as a policy writes it, in the largest whole unit: `24h`, `90s`; days from two on.
pub(crate) fn written_duration(duration: TimeDelta) -> String {
    let units =
        [(TimeDelta::days(1), 'd', 2), (TimeDelta::hours(1), 'h', 1), (TimeDelta::minutes(1), 'm', 1)];
    let seconds = duration.num_seconds();
    let whole = units.into_iter().find_map(|(unit, letter, least)| {
        let (count, rest) = (seconds / unit.num_seconds(), seconds % unit.num_seconds());
        (rest == 0 && count >= least).then(|| format!("{count}{letter}"))
    });
    whole.unwrap_or_else(|| format!("{seconds}s"))
}

/// Parses `10%` as the fraction 0.1.
pub(crate) fn parse_percent(written: &str) -> Option<Decimal> {
    let trimmed = written.trim();
    parse_percent_digits(trimmed.strip_prefix('+').unwrap_or(trimmed).strip_suffix('%')?)
}

pub(crate) fn parse_percent_digits(digits: &str) -> Option<Decimal> {
    const MAX_PERCENT: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);
    let percent = parse_amount(digits.trim(), MAX_PERCENT_SCALE).ok()?;
    (percent.abs() <= MAX_PERCENT).then(|| percent / Decimal::ONE_HUNDRED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_written_as_policies_write_it() {
        for written in ["1s", "90s", "1m", "90m", "24h", "36h", "2d", "366d"] {
            let read = duration("x", &Scalar(written.to_owned()), &mut Vec::new()).unwrap();
            assert_eq!(written_duration(read), written);
        }
        for (read, written) in
            [("60s", "1m"), ("1440m", "24h"), ("1d", "24h"), ("48h", "2d"), ("1h 30m", "90m")]
        {
            let read = duration("x", &Scalar(read.to_owned()), &mut Vec::new()).unwrap();
            assert_eq!(written_duration(read), written);
        }
    }
}
