//! Rules: when they apply and how they move a price.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, SubsecRound, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer};

use super::diagnostic::{Diagnostic, shorten};
use super::evaluate::EvaluationError;
use super::expression::{Expression, ExpressionError};
use super::money::parse_amount;
use super::variable::{Scope, Value, Variable};

/// The longest name of a rule or a policy, in characters.
pub const MAX_RULE_NAME_CHARS: usize = 64;
/// Decimal places of percentages, offsets and the other numbers of a policy.
pub const MAX_POLICY_SCALE: u32 = 6;

/// A rule as written. Exactly one action is to be set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleDraft {
    /// Names the rule in explanations; unique among the rules of its kind.
    pub name: String,
    /// Applies only if this expression is true.
    pub when: Option<String>,
    /// Applies from this instant on (RFC 3339).
    pub from: Option<String>,
    /// Applies until just before this instant (RFC 3339).
    pub until: Option<String>,
    /// Changes the price by a percentage (`-5%`) or an amount (`+0.50`).
    pub adjust: Option<Scalar>,
    /// Multiplies the price by the expression.
    pub multiply_by: Option<Scalar>,
    /// Sets the price to the expression.
    pub set_to: Option<Scalar>,
    /// Sets the price to a reference, plus an offset.
    #[serde(rename = "match")]
    pub match_reference: Option<MatchDraft>,
    /// Sets the price below a reference.
    pub beat: Option<BeatDraft>,
    /// Sets the price to the unit cost plus a percentage or an amount.
    pub cost_plus: Option<Scalar>,
    /// Sets the price so that this percentage of it is margin.
    pub target_margin: Option<Scalar>,
}

/// `match` as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchDraft {
    /// The expression to match.
    pub reference: Scalar,
    /// Added to it; 0 if absent.
    pub offset: Option<Scalar>,
}

/// `beat` as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeatDraft {
    /// The expression to stay below.
    pub reference: Scalar,
    /// By how much: a percentage or an amount.
    pub by: Scalar,
}

/// A text or a number of a policy document, with its digits as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar(pub String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Asking for a text makes the YAML parser hand over `-0.01` as it stands.
        String::deserialize(deserializer).map(Self)
    }
}

/// A checked rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// See [`RuleDraft::name`].
    pub name: Arc<str>,
    /// See [`RuleDraft::when`].
    pub when: Option<Expression>,
    /// When in time it applies.
    pub window: Window,
    /// How it moves the price.
    pub action: Action,
}

/// A stretch of time, from included and until excluded; an absent end is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// The first instant inside.
    pub from: Option<DateTime<Utc>>,
    /// The first instant after.
    pub until: Option<DateTime<Utc>>,
}

impl Window {
    /// Whether the instant lies inside.
    pub fn contains(&self, now: DateTime<Utc>) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
    }

    /// The next instant after `now` at which [`contains`](Self::contains) changes.
    pub fn next_change(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        [self.from, self.until].into_iter().flatten().filter(|instant| *instant > now).min()
    }
}

/// How a rule moves a price.
#[derive(Debug, Clone)]
pub enum Action {
    /// See [`RuleDraft::adjust`].
    Adjust(Change),
    /// See [`RuleDraft::multiply_by`].
    MultiplyBy(Expression),
    /// See [`RuleDraft::set_to`].
    SetTo(Expression),
    /// See [`RuleDraft::match_reference`].
    Match {
        /// What to match.
        reference: Expression,
        /// Added to it.
        offset: Decimal,
    },
    /// See [`RuleDraft::beat`].
    Beat {
        /// What to stay below.
        reference: Expression,
        /// By how much, as a negative change.
        by: Change,
    },
    /// See [`RuleDraft::cost_plus`].
    CostPlus(Change),
    /// See [`RuleDraft::target_margin`]; a fraction from 0 to below 1.
    TargetMargin(Decimal),
}

/// A relative or absolute change of a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// By this fraction of the price: 0.05 is five percent more.
    Fraction(Decimal),
    /// By this amount.
    Amount(Decimal),
}

impl Change {
    /// Reads `-5%` or `+0.50`.
    fn parse(written: &str) -> Option<Self> {
        let trimmed = written.trim();
        let unsigned = trimmed.strip_prefix('+').unwrap_or(trimmed);
        match unsigned.strip_suffix('%') {
            Some(percent) => Some(Self::Fraction(parse_percent_digits(percent)?)),
            None => parse_amount(unsigned, MAX_POLICY_SCALE).ok().map(Self::Amount),
        }
    }

    /// The price after the change; `None` on overflow.
    pub fn apply(self, price: Decimal) -> Option<Decimal> {
        match self {
            Self::Fraction(fraction) => price.checked_mul(Decimal::ONE.checked_add(fraction)?),
            Self::Amount(amount) => price.checked_add(amount),
        }
    }

    fn value(self) -> Decimal {
        match self {
            Self::Fraction(value) | Self::Amount(value) => value,
        }
    }

    fn negated(self) -> Self {
        match self {
            Self::Fraction(fraction) => Self::Fraction(-fraction),
            Self::Amount(amount) => Self::Amount(-amount),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fraction(fraction) => {
                write!(formatter, "{:+}%", (fraction * Decimal::ONE_HUNDRED).normalize())
            }
            Self::Amount(amount) => write!(formatter, "{:+}", amount.normalize()),
        }
    }
}

/// `10%` as the fraction 0.1.
pub(super) fn parse_percent(written: &str) -> Option<Decimal> {
    parse_percent_digits(written.trim().strip_suffix('%')?)
}

fn parse_percent_digits(digits: &str) -> Option<Decimal> {
    const MAX_PERCENT: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);
    let percent = parse_amount(digits.trim(), MAX_POLICY_SCALE - 2).ok()?;
    (percent.abs() <= MAX_PERCENT).then(|| percent / Decimal::ONE_HUNDRED)
}

/// Why a rule gave no price. The product is then not repriced: a failed rule is never a price of nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The condition had no value.
    #[error("the condition fails: {0}")]
    Condition(EvaluationError),
    /// The condition gave something other than true or false.
    #[error("the condition gives {0}, not true or false")]
    ConditionKind(&'static str),
    /// The formula had no value.
    #[error("the formula fails: {0}")]
    Formula(EvaluationError),
    /// The formula gave something other than a number, null above all.
    #[error("the formula gives {0}, not a number")]
    FormulaKind(&'static str),
    /// The rule needs the unit cost, which is not known.
    #[error("the unit cost is not known")]
    NoUnitCost,
    /// The price would be zero or less.
    #[error("the price would be {0}, which is not above 0")]
    NotAboveZero(Decimal),
    /// The price would be beyond what an amount may be.
    #[error("the price would be too large")]
    TooLarge,
}

impl Rule {
    /// The price after this rule, or `None` if it does not apply now.
    pub fn apply<'a>(
        &'a self,
        price: Decimal,
        now: DateTime<Utc>,
        value_of: &dyn Fn(Variable) -> Value<'a>,
    ) -> Result<Option<Decimal>, RuleError> {
        if !self.window.contains(now) || !self.condition_holds(value_of)? {
            return Ok(None);
        }
        let moved = self.action.apply(price, value_of)?;
        if moved <= Decimal::ZERO {
            return Err(RuleError::NotAboveZero(moved));
        }
        if moved >= super::money::AMOUNT_LIMIT {
            return Err(RuleError::TooLarge);
        }
        Ok(Some(moved))
    }

    fn condition_holds<'a>(&'a self, value_of: &dyn Fn(Variable) -> Value<'a>) -> Result<bool, RuleError> {
        let Some(when) = &self.when else { return Ok(true) };
        match when.evaluate(value_of).map_err(RuleError::Condition)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(RuleError::ConditionKind(other.kind())),
        }
    }

    /// The variables that the rule reads, the condition's first.
    pub fn variables(&self) -> impl Iterator<Item = Variable> {
        let expressions = [self.when.as_ref(), self.action.formula()];
        expressions.into_iter().flatten().flat_map(Expression::variables).copied()
    }
}

impl Action {
    fn apply<'a>(
        &'a self,
        price: Decimal,
        value_of: &dyn Fn(Variable) -> Value<'a>,
    ) -> Result<Decimal, RuleError> {
        let number = |formula: &'a Expression| match formula.evaluate(value_of).map_err(RuleError::Formula)? {
            Value::Number(number) => Ok(number),
            other => Err(RuleError::FormulaKind(other.kind())),
        };
        let unit_cost = || match value_of(Variable::ProductUnitCost) {
            Value::Number(cost) => Ok(cost),
            _ => Err(RuleError::NoUnitCost),
        };
        let moved = match self {
            Self::Adjust(change) => change.apply(price),
            Self::MultiplyBy(factor) => price.checked_mul(number(factor)?),
            Self::SetTo(formula) => Some(number(formula)?),
            Self::Match { reference, offset } => number(reference)?.checked_add(*offset),
            Self::Beat { reference, by } => by.apply(number(reference)?),
            Self::CostPlus(change) => change.apply(unit_cost()?),
            Self::TargetMargin(margin) => unit_cost()?.checked_div(Decimal::ONE - margin),
        };
        moved.ok_or(RuleError::TooLarge)
    }

    fn formula(&self) -> Option<&Expression> {
        match self {
            Self::MultiplyBy(formula) | Self::SetTo(formula) => Some(formula),
            Self::Match { reference, .. } | Self::Beat { reference, .. } => Some(reference),
            Self::Adjust(_) | Self::CostPlus(_) | Self::TargetMargin(_) => None,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adjust(change) => write!(formatter, "adjust {change}"),
            Self::MultiplyBy(factor) => write!(formatter, "multiply by {}", factor.source()),
            Self::SetTo(formula) => write!(formatter, "set to {}", formula.source()),
            Self::Match { reference, offset } if offset.is_zero() => {
                write!(formatter, "match {}", reference.source())
            }
            Self::Match { reference, offset } => {
                write!(formatter, "match {} {offset:+}", reference.source())
            }
            Self::Beat { reference, by } => {
                write!(formatter, "beat {} by {}", reference.source(), by.negated())
            }
            Self::CostPlus(change) => write!(formatter, "cost plus {change}"),
            Self::TargetMargin(margin) => {
                write!(formatter, "target margin {}%", (margin * Decimal::ONE_HUNDRED).normalize())
            }
        }
    }
}

impl RuleDraft {
    /// The rule, or `None` with the reasons added to `problems`. `place` is where it stands: `market[0]`.
    pub(super) fn check(&self, place: &str, scope: Scope, problems: &mut Vec<Diagnostic>) -> Option<Rule> {
        let before = problems.len();
        let field = |name: &str| format!("{place}.{name}");
        let name = self.name.trim();
        if name.is_empty() || name.chars().count() > MAX_RULE_NAME_CHARS {
            let allowed = format!("1 to {MAX_RULE_NAME_CHARS} characters");
            problems.push(Diagnostic::new(field("name"), "is missing or too long", allowed));
        }
        let when = self.when.as_deref().and_then(|when| compile(&field("when"), when, scope, problems));
        let window = self.check_window(place, problems);
        let action = self.check_action(place, scope, problems);
        let action = action.filter(|_| problems.len() == before)?;
        Some(Rule { name: name.into(), when, window, action })
    }

    fn check_window(&self, place: &str, problems: &mut Vec<Diagnostic>) -> Window {
        let mut instant = |name: &str, written: &Option<String>| {
            let parsed = DateTime::parse_from_rfc3339(written.as_deref()?.trim());
            if parsed.is_err() {
                let problem =
                    format!("\"{}\" is not an instant", shorten(written.as_deref().unwrap_or_default()));
                problems.push(Diagnostic::new(
                    format!("{place}.{name}"),
                    problem,
                    "RFC 3339: 2026-11-27T08:00:00Z",
                ));
            }
            // As precise as the catalogue keeps instants.
            parsed.ok().map(|instant| instant.with_timezone(&Utc).trunc_subsecs(6))
        };
        let window = Window { from: instant("from", &self.from), until: instant("until", &self.until) };
        if matches!((window.from, window.until), (Some(from), Some(until)) if from >= until) {
            problems.push(Diagnostic::new(
                format!("{place}.until"),
                "is not after from",
                "an instant after from",
            ));
        }
        window
    }

    fn check_action(&self, place: &str, scope: Scope, problems: &mut Vec<Diagnostic>) -> Option<Action> {
        let market_only = scope == Scope::Market;
        let mut actions = Vec::new();
        let mut formula =
            |name: &str, written: &Scalar| compile(&format!("{place}.{name}"), &written.0, scope, problems);
        if let Some(written) = &self.multiply_by {
            actions.push(formula("multiply_by", written).map(Action::MultiplyBy));
        }
        if let Some(written) = &self.set_to {
            actions.push(formula("set_to", written).map(Action::SetTo));
        }
        if let Some(draft) = &self.match_reference {
            let reference = formula("match.reference", &draft.reference);
            let offset = draft.offset.as_ref().map_or(Some(Decimal::ZERO), |offset| {
                change(&format!("{place}.match.offset"), offset, problems).map(Change::value)
            });
            actions
                .push(reference.zip(offset).map(|(reference, offset)| Action::Match { reference, offset }));
        }
        if let Some(draft) = &self.beat {
            let reference = compile(&format!("{place}.beat.reference"), &draft.reference.0, scope, problems);
            let by = change(&format!("{place}.beat.by"), &draft.by, problems);
            actions
                .push(reference.zip(by).map(|(reference, by)| Action::Beat { reference, by: by.negated() }));
        }
        if let Some(written) = &self.adjust {
            actions.push(change(&format!("{place}.adjust"), written, problems).map(Action::Adjust));
        }
        if let Some(written) = self.cost_plus.as_ref().filter(|_| market_only) {
            actions.push(change(&format!("{place}.cost_plus"), written, problems).map(Action::CostPlus));
        }
        if let Some(written) = self.target_margin.as_ref().filter(|_| market_only) {
            let margin = fraction(&format!("{place}.target_margin"), written, problems);
            actions.push(margin.map(Action::TargetMargin));
        }
        let [action] = <[Option<Action>; 1]>::try_from(actions).ok().or_else(|| {
            let allowed = match scope {
                Scope::Market => "adjust, multiply_by, set_to, match, beat, cost_plus or target_margin",
                Scope::Offer => "adjust, multiply_by, set_to, match or beat",
            };
            problems.push(Diagnostic::new(place, "does not have exactly one action", allowed));
            None
        })?;
        action
    }
}

fn compile(field: &str, written: &str, scope: Scope, problems: &mut Vec<Diagnostic>) -> Option<Expression> {
    let compiled = Expression::compile(written, scope);
    if let Err(error) = &compiled {
        problems.push(match error {
            ExpressionError::UnknownVariable(_) => {
                let known: Vec<&str> = Variable::names_in(scope).collect();
                Diagnostic::new(field, error.to_string(), known.join(", "))
            }
            _ => Diagnostic::bare(field, error.to_string()),
        });
    }
    compiled.ok()
}

fn change(field: &str, written: &Scalar, problems: &mut Vec<Diagnostic>) -> Option<Change> {
    let parsed = Change::parse(&written.0);
    if parsed.is_none() {
        let problem = format!("\"{}\" is not a change", shorten(&written.0));
        problems.push(Diagnostic::new(field, problem, "a percentage such as -5% or an amount such as +0.50"));
    }
    parsed
}

/// A percentage from 0% to below 100%, as a fraction.
pub(super) fn fraction(field: &str, written: &Scalar, problems: &mut Vec<Diagnostic>) -> Option<Decimal> {
    let parsed =
        parse_percent(&written.0).filter(|fraction| *fraction >= Decimal::ZERO && *fraction < Decimal::ONE);
    if parsed.is_none() {
        let problem = format!("\"{}\" is not such a percentage", shorten(&written.0));
        problems.push(Diagnostic::new(field, problem, "0% to below 100%"));
    }
    parsed
}
