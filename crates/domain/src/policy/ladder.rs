//! Ladders: step functions from a number (days of stock left, fraction of stock sold, units bought) to a
//! change of the price.

use std::fmt;

use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::{Diagnostic, shorten};
use crate::facts::money::parse_amount;
use crate::policy::change::{Change, change};
use crate::policy::scalar::{MAX_PERCENT_SCALE, MAX_POLICY_SCALE, Scalar, parse_percent};

/// The most steps of a ladder.
const MAX_STEPS: usize = 50;

/// The largest quantity at which a tier may begin.
const MAX_QUANTITY: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);

/// A step of `stock_cover` or `sell_through` as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepDraft {
    /// For numbers below this; for all others in the last step, if absent.
    pub below: Option<Scalar>,
    /// The change of the price: a percentage or an amount.
    pub adjust: Scalar,
}

/// A step of `quantity_tiers` as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TierDraft {
    /// From so many units on.
    pub from: Scalar,
    /// The change of the price of each unit: a percentage or an amount.
    pub adjust: Scalar,
}

/// A step function from numbers to changes of a price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    /// The steps, each with its lower bound, ascending.
    steps: Box<[(Decimal, Option<Change>)]>,
}

impl Ladder {
    /// Returns the change for this number, if there is one.
    pub fn change(&self, number: Decimal) -> Option<Change> {
        let above = self.steps.partition_point(|(from, _)| *from <= number);
        self.steps.get(above.checked_sub(1)?)?.1
    }

    /// Returns the change for this number and those of the lower steps, the nearest first.
    pub fn changes(&self, number: Decimal) -> impl Iterator<Item = Change> {
        let above = self.steps.partition_point(|(from, _)| *from <= number);
        self.steps.get(..above).unwrap_or_default().iter().rev().filter_map(|(_, change)| *change)
    }

    /// The change of the last step.
    pub fn last(&self) -> Option<Change> {
        self.steps.last()?.1
    }

    /// Checks a ladder whose steps state where they end.
    pub(crate) fn below(
        place: &str,
        drafts: &[StepDraft],
        in_percent: bool,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Self> {
        let before = problems.len();
        check_length(place, drafts.len(), problems);
        let mut steps = Vec::with_capacity(drafts.len() + 1);
        let mut from = Decimal::ZERO;
        for (index, draft) in drafts.iter().enumerate() {
            let adjust = change(&format!("{place}[{index}].adjust"), &draft.adjust, problems);
            steps.push((from, adjust));
            let field = format!("{place}[{index}].below");
            match &draft.below {
                None if index + 1 == drafts.len() => return finish(steps, before, problems),
                None => {
                    problems.push(Diagnostic::new(field, "is missing", "only the last step may have no end"))
                }
                Some(written) => {
                    let (numbers, places) = match in_percent {
                        true => ("percentages", MAX_PERCENT_SCALE),
                        false => ("numbers", MAX_POLICY_SCALE),
                    };
                    let allowed = format!("{numbers} that rise, with at most {places} decimal places");
                    let number = if in_percent { parse_percent(&written.0) } else { number(&written.0) };
                    match number.filter(|number| *number > from) {
                        Some(number) => from = number,
                        None => problems.push(Diagnostic::new(field, not_allowed(&written.0), allowed)),
                    }
                }
            }
        }
        steps.push((from, None));
        finish(steps, before, problems)
    }

    /// Checks a ladder whose steps state where they begin; a unit must not cost more in a larger quantity.
    pub(crate) fn tiers(place: &str, drafts: &[TierDraft], problems: &mut Vec<Diagnostic>) -> Option<Self> {
        let before = problems.len();
        check_length(place, drafts.len(), problems);
        let mut steps: Vec<(Decimal, Option<Change>)> = Vec::with_capacity(drafts.len());
        for (index, draft) in drafts.iter().enumerate() {
            let from = number(&draft.from.0).filter(|from| {
                let last = steps.last().map_or(Decimal::ZERO, |(last, _)| *last);
                *from > last && from.is_integer() && *from <= MAX_QUANTITY
            });
            if from.is_none() {
                let field = format!("{place}[{index}].from");
                problems.push(Diagnostic::new(
                    field,
                    not_allowed(&draft.from.0),
                    "whole numbers from 1 that rise",
                ));
            }
            let field = format!("{place}[{index}].adjust");
            let adjust = change(&field, &draft.adjust, problems);
            let last = steps.last().and_then(|(_, change)| *change);
            if adjust.is_some_and(|adjust| !is_no_dearer(adjust, last)) {
                let problem = "makes a unit dearer than a smaller quantity does";
                let allowed = "0% or less, falling, and all of them percentages or all of them amounts";
                problems.push(Diagnostic::new(field, problem, allowed));
            }
            steps.push((from.unwrap_or_default(), adjust));
        }
        finish(steps, before, problems)
    }
}

fn finish(steps: Vec<(Decimal, Option<Change>)>, before: usize, problems: &[Diagnostic]) -> Option<Ladder> {
    (problems.len() == before).then(|| Ladder { steps: steps.into() })
}

fn is_no_dearer(adjust: Change, last: Option<Change>) -> bool {
    match (adjust, last) {
        (Change::Factor(adjust), Some(Change::Factor(last)))
        | (Change::Amount(adjust), Some(Change::Amount(last))) => adjust <= last,
        (Change::Factor(adjust), None) => adjust <= Decimal::ONE,
        (Change::Amount(adjust), None) => adjust <= Decimal::ZERO,
        _ => false,
    }
}

fn check_length(place: &str, length: usize, problems: &mut Vec<Diagnostic>) {
    if !(1..=MAX_STEPS).contains(&length) {
        problems.push(Diagnostic::new(place, format!("has {length} steps"), format!("1 to {MAX_STEPS}")));
    }
}

fn number(written: &str) -> Option<Decimal> {
    parse_amount(written.trim(), MAX_POLICY_SCALE).ok()
}

fn not_allowed(written: &str) -> String {
    format!("\"{}\" is not allowed", shorten(written))
}

impl fmt::Display for Ladder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (from, change)) in self.steps.iter().enumerate() {
            let between = if index == 0 { "" } else { ", " };
            match change {
                Some(change) => write!(formatter, "{between}from {} {change}", from.normalize())?,
                None => write!(formatter, "{between}from {} unchanged", from.normalize())?,
            }
        }
        Ok(())
    }
}
