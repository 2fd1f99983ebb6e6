//! References: the competitor's price, or the formula, that a rule matches, beats or indexes.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::{Diagnostic, shorten};
use crate::expression::check::Wanted;
use crate::expression::compile::Expression;
use crate::expression::variable::RuleKind;
use crate::facts::arithmetic::compare;
use crate::facts::product::MAX_LABEL_CHARS;
use crate::facts::signal::{CompetitorPrice, Signals, median};
use crate::policy::scalar::{Scalar, compile, duration, written_duration};

/// The largest rank that `nth` may have.
const MAX_NTH: usize = 100;

/// `competitor` as written. Exactly one of `statistic`, `nth` and `name` is to be set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CompetitorDraft {
    /// `min`, `median` or `max` of those that count.
    pub statistic: Option<Statistic>,
    /// The lowest (1), the second lowest (2), and so on.
    pub nth: Option<Scalar>,
    /// This competitor.
    pub name: Option<String>,
    /// Whether only those count that are not known to be out of stock.
    pub in_stock: bool,
    /// Only prices count that were seen so recently: `48h`.
    pub not_older_than: Option<Scalar>,
}

/// A number that says something about several prices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// The lowest.
    Min,
    /// The middle one; of an even number, the mean of the middle two.
    Median,
    /// The highest.
    Max,
}

/// The reference price of a rule.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Reference {
    /// The value of a formula.
    Formula(Expression),
    /// One of the competitors' prices.
    Competitor(CompetitorReference),
}

/// Selects one of the competitors' prices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompetitorReference {
    which: Which,
    in_stock: bool,
    max_age: Option<TimeDelta>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Which {
    Statistic(Statistic),
    /// The rank, from the lowest; counts from 1.
    Nth(usize),
    Named(Box<str>),
}

impl CompetitorReference {
    /// Returns the price; `None` if no competitor's price counts.
    pub fn price(&self, signals: &Signals, now: DateTime<Utc>) -> Option<Decimal> {
        let counted = signals.competitor_prices.iter().filter(|known| self.counts(known, now));
        match &self.which {
            Which::Statistic(Statistic::Min) => {
                counted.map(|known| known.price).min_by(|left, right| compare(*left, *right))
            }
            Which::Statistic(Statistic::Max) => {
                counted.map(|known| known.price).max_by(|left, right| compare(*left, *right))
            }
            Which::Statistic(Statistic::Median) => median(counted.map(|known| known.price).collect()),
            Which::Nth(nth) => {
                let mut prices: Vec<Decimal> = counted.map(|known| known.price).collect();
                prices.sort_unstable();
                prices.get(nth - 1).copied()
            }
            Which::Named(name) => {
                let mut named = counted.filter(|known| *known.competitor == **name);
                named.next().map(|known| known.price)
            }
        }
    }

    /// Returns the competitors whose price it is; both if it is the mean of the middle two.
    pub(crate) fn names<'a>(&self, signals: &'a Signals, now: DateTime<Utc>) -> Vec<&'a str> {
        let counted = signals.competitor_prices.iter().filter(|known| self.counts(known, now)).collect();
        match &self.which {
            Which::Statistic(statistic) => statistic.names_of(counted),
            Which::Nth(nth) => cheapest_first(counted).into_iter().skip(nth - 1).take(1).collect(),
            Which::Named(name) => counted
                .into_iter()
                .map(|known| &*known.competitor)
                .filter(|known| *known == &**name)
                .collect(),
        }
    }

    /// Returns the next instant at which a price becomes too old to count.
    pub fn next_change(&self, signals: &Signals, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let max_age = self.max_age?;
        let ends = signals
            .competitor_prices
            .iter()
            .filter_map(|known| known.observed_at?.checked_add_signed(max_age));
        ends.filter(|end| *end > now).min()
    }

    fn counts(&self, known: &CompetitorPrice, now: DateTime<Utc>) -> bool {
        let is_fresh = self.max_age.is_none_or(|max_age| {
            let end = known.observed_at.and_then(|observed_at| observed_at.checked_add_signed(max_age));
            end.is_some_and(|end| now < end)
        });
        is_fresh && !(self.in_stock && known.in_stock == Some(false))
    }
}

impl Statistic {
    /// Returns the competitors whose prices determine it, among all known prices.
    pub(crate) fn names(self, signals: &Signals) -> Vec<&str> {
        self.names_of(signals.competitor_prices.iter().collect())
    }

    fn names_of(self, counted: Vec<&CompetitorPrice>) -> Vec<&str> {
        let names = cheapest_first(counted);
        let middle = names.len().saturating_sub(1) / 2;
        let (first, last) = match self {
            Self::Min => (0, 0),
            Self::Median => (middle, names.len() / 2),
            Self::Max => (names.len().saturating_sub(1), names.len()),
        };
        names.into_iter().take(last + 1).skip(first).collect()
    }
}

fn cheapest_first(mut prices: Vec<&CompetitorPrice>) -> Vec<&str> {
    prices.sort_by(|one, other| compare(one.price, other.price));
    prices.into_iter().map(|known| &*known.competitor).collect()
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Formula(formula) => formatter.write_str(formula.source()),
            Self::Competitor(reference) => write!(formatter, "{reference}"),
        }
    }
}

impl fmt::Display for CompetitorReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.which {
            Which::Statistic(Statistic::Min) => formatter.write_str("the lowest competitor")?,
            Which::Statistic(Statistic::Median) => formatter.write_str("the median competitor")?,
            Which::Statistic(Statistic::Max) => formatter.write_str("the highest competitor")?,
            Which::Nth(nth) => write!(formatter, "competitor {nth} from the lowest")?,
            Which::Named(name) => formatter.write_str(name)?,
        }
        if self.in_stock {
            formatter.write_str(" in stock")?;
        }
        match self.max_age {
            Some(max_age) => write!(formatter, " seen in the last {}", written_duration(max_age)),
            None => Ok(()),
        }
    }
}

/// Checks the reference of an action at `place`, in either of its two forms.
pub(crate) fn check_reference(
    place: &str,
    formula: Option<&Scalar>,
    competitor: Option<&CompetitorDraft>,
    scope: RuleKind,
    problems: &mut Vec<Diagnostic>,
) -> Option<Reference> {
    match (formula, competitor) {
        (Some(formula), None) => {
            let field = format!("{place}.reference");
            compile(&field, &formula.0, Wanted::Reference, scope, problems).map(Reference::Formula)
        }
        (None, Some(_)) if scope == RuleKind::Offer => {
            let problem = "what competitors ask is not known when a shopper asks";
            problems.push(Diagnostic::bare(format!("{place}.competitor"), problem));
            None
        }
        (None, Some(draft)) => {
            draft.check(&format!("{place}.competitor"), problems).map(Reference::Competitor)
        }
        _ => {
            problems.push(Diagnostic::new(
                place,
                "does not have exactly one reference",
                "reference or competitor",
            ));
            None
        }
    }
}

impl CompetitorDraft {
    fn check(&self, place: &str, problems: &mut Vec<Diagnostic>) -> Option<CompetitorReference> {
        let before = problems.len();
        let mut refuse = |field: &str, written: &str, allowed: &str| {
            let problem = format!("\"{}\" is not allowed", shorten(written));
            problems.push(Diagnostic::new(format!("{place}.{field}"), problem, allowed));
        };
        let which = match (self.statistic, &self.nth, &self.name) {
            (Some(statistic), None, None) => Some(Which::Statistic(statistic)),
            (None, Some(Scalar(written)), None) => {
                let nth = written.parse().ok().filter(|nth| (1..=MAX_NTH).contains(nth));
                if nth.is_none() {
                    refuse("nth", written, "a whole number from 1 to 100");
                }
                nth.map(Which::Nth)
            }
            (None, None, Some(name)) => {
                let is_label = (1..=MAX_LABEL_CHARS).contains(&name.chars().count());
                if !is_label {
                    refuse("name", name, "a competitor's name");
                }
                is_label.then(|| Which::Named(name.as_str().into()))
            }
            _ => {
                let allowed = "statistic, nth or name";
                problems.push(Diagnostic::new(
                    place,
                    "does not say exactly one way which competitor",
                    allowed,
                ));
                None
            }
        };
        let max_age = self.not_older_than.as_ref();
        let max_age =
            max_age.and_then(|written| duration(&format!("{place}.not_older_than"), written, problems));
        let which = which.filter(|_| problems.len() == before)?;
        Some(CompetitorReference { which, in_stock: self.in_stock, max_age })
    }
}
