//! Rules: when they apply, for what, and how they move a price.

use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::action::{Action, ActionError, BeatDraft, IndexDraft, MatchDraft};
use super::age::AgeTest;
use super::diagnostic::{Diagnostic, count_errors, shorten};
use super::evaluate::EvaluationError;
use super::expression::Expression;
use super::expression_check::{self, Wanted};
use super::ladder::{StepDraft, TierDraft};
use super::money::{is_below_limit, parse_amount};
use super::reference::Reference;
use super::selector::{Selector, SelectorDraft};
use super::surge::SurgeDraft;
use super::time_zone::TimeZones;
use super::variable::{Scope, Value, Variable};
use super::view::{About, View};
use super::window::{Schedule, ScheduleDraft, Window, WindowDraft};

/// The longest name of a rule or a policy, in characters.
pub const MAX_RULE_NAME_CHARS: usize = 64;
/// Decimal places of offsets and the other numbers of a policy, and of percentages as fractions.
pub const MAX_POLICY_SCALE: u32 = 6;
/// Decimal places of percentages as they are written.
pub(super) const MAX_PERCENT_SCALE: u32 = MAX_POLICY_SCALE - 2;
/// The largest priority; the smallest is as far below zero.
const MAX_PRIORITY: i32 = 1_000;
/// The longest duration in a policy.
const MAX_DURATION: TimeDelta = TimeDelta::days(366);

/// A rule as written. Exactly one action is to be set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["name"]))]
pub struct RuleDraft {
    /// Names the rule in explanations; unique among the rules of its kind.
    pub name: String,
    /// Rules with a larger one come first; 0 if absent. Rules with the same one come as they are written.
    pub priority: Option<Scalar>,
    /// Applies only if this expression is true.
    pub when: Option<String>,
    /// Applies only to these products or shoppers.
    pub only: Option<SelectorDraft>,
    /// Applies from this instant on (RFC 3339), or, with a `zone`, from when its clock shows this:
    /// `2026-11-27 08:00`.
    pub from: Option<String>,
    /// Applies until just before this instant, or until the zone's clock shows this.
    pub until: Option<String>,
    /// Whose wall clock `from` and `until` are by where they have no offset: a name of the IANA time zone
    /// database, such as `Europe/Berlin`.
    pub zone: Option<Scalar>,
    /// Applies at these hours of the week.
    pub schedule: Option<ScheduleDraft>,
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
    /// Sets the price to a part of a reference.
    pub index: Option<IndexDraft>,
    /// Sets the price to the unit cost plus a percentage or an amount.
    pub cost_plus: Option<Scalar>,
    /// Sets the price so that this percentage of it is margin.
    pub target_margin: Option<Scalar>,
    /// Changes the price by how many days the stock lasts.
    pub stock_cover: Option<Vec<StepDraft>>,
    /// Changes the price by what part of the stock was sold.
    pub sell_through: Option<Vec<StepDraft>>,
    /// Raises the price with demand.
    pub surge: Option<SurgeDraft>,
    /// Changes the price of a unit by how many are bought.
    pub quantity_tiers: Option<Vec<TierDraft>>,
    /// Whether what an offer rule takes off counts in the shopper's `discount_rate`; true if absent.
    pub discount: Option<bool>,
}

/// A text or a number of a policy document, with its digits as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scalar(pub String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Asking for a text makes the YAML parser hand over `-0.01` as it stands.
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

/// A checked rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// See [`RuleDraft::name`].
    pub name: Arc<str>,
    /// How many rules stand before it in the document.
    pub(super) index: usize,
    /// See [`RuleDraft::priority`]; absent if none was written.
    pub priority: Option<i32>,
    /// See [`RuleDraft::when`].
    pub when: Option<Expression>,
    /// See [`RuleDraft::only`].
    pub only: Selector,
    /// Between which instants it applies.
    pub window: Window,
    /// See [`RuleDraft::schedule`].
    pub schedule: Option<Schedule>,
    /// How it moves the price.
    pub action: Action,
    /// [`Action`] and [`RuleDraft::only`] in words.
    pub in_words: Box<str>,
    /// Whether a shopper's discount is the difference between the price with it and the one without it.
    pub(super) is_discount: bool,
    /// Whether its price is set by what others ask, so that their mistakes become its own.
    pub(super) follows_competitors: bool,
    /// Whether it reads a competitor's price, as what it goes by or in a condition.
    pub(super) reads_competitors: bool,
    /// Whether what it does depends on what a place's clock shows.
    pub(super) reads_clocks: bool,
    /// Whether time alone changes nothing that it does.
    is_timeless: bool,
    /// Whether it is meant for every product and shopper at any time.
    is_always_meant: bool,
    /// What it reads, the condition's first, each once.
    variables: Box<[Variable]>,
    /// What it asks about the ages of facts.
    age_tests: Box<[AgeTest]>,
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
    /// The action gave no price.
    #[error(transparent)]
    Action(#[from] ActionError),
    /// The rule goes by what competitors ask, and nothing of the seller's own keeps the price up.
    #[error("it follows competitors, and the product has neither a floor nor a cost")]
    NoFloor,
    /// The price would be zero or less.
    #[error("the price would be {0}, which is not above 0")]
    NotAboveZero(Decimal),
}

impl Rule {
    /// The price after this rule, or `None` if it does not apply now.
    #[inline]
    pub fn apply<'a>(&'a self, view: &View<'a>) -> Result<Option<Decimal>, RuleError> {
        if !(self.is_always_meant || self.is_meant(view)) || !self.condition_holds(view)? {
            return Ok(None);
        }
        let Some(moved) = self.action.apply(view)? else { return Ok(None) };
        if moved.is_sign_negative() || moved.is_zero() {
            return at_nothing(moved, view);
        }
        if !is_below_limit(moved) {
            return Err(ActionError::TooLarge.into());
        }
        Ok(Some(moved))
    }

    /// The next instant at which time alone changes what the rule does to this product.
    pub fn next_change(&self, view: &View<'_>) -> Option<DateTime<Utc>> {
        if self.is_timeless || !self.only.may_select(view) {
            return None;
        }
        let scheduled = self.schedule.as_ref().and_then(|schedule| schedule.next_change(view.now));
        let window = self.window.next_change(view.now);
        let aged = self.age_tests.iter().filter_map(|test| match view.about {
            About::Market(facts) => test.next_change(&facts, view.now),
            About::Offer(..) => None,
        });
        [window, scheduled, self.action.next_change(view), aged.min()].into_iter().flatten().min()
    }

    /// The variables that the rule reads, each once, the condition's first.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    fn is_meant(&self, view: &View<'_>) -> bool {
        self.window.contains(view.now)
            && self.only.selects(view)
            && self.schedule.as_ref().is_none_or(|schedule| schedule.contains(view.now))
    }

    pub(super) fn condition_holds<'a>(&'a self, view: &View<'a>) -> Result<bool, RuleError> {
        let Some(when) = &self.when else { return Ok(true) };
        if let Some(holds) = when.decide(|variable| view.value_of(variable)) {
            return Ok(holds);
        }
        match when.evaluate(|variable| view.value_of(variable)).map_err(RuleError::Condition)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(RuleError::ConditionKind(other.kind())),
        }
    }
}

/// What becomes of a price of nothing or less: an offer may take everything off, as its price then goes to
/// the lowest one that is allowed, whatever rules follow; where none is known, and in market rules, the rule
/// fails.
#[cold]
fn at_nothing(moved: Decimal, view: &View<'_>) -> Result<Option<Decimal>, RuleError> {
    if view.has_lowest_price() { Ok(Some(Decimal::ZERO)) } else { Err(RuleError::NotAboveZero(moved)) }
}

impl RuleDraft {
    /// The rule, or `None` with the reasons added to `problems`. `place` is where it stands: `market[0]`.
    pub(super) fn check(
        &self,
        place: &str,
        scope: Scope,
        zones: &TimeZones,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Rule> {
        let before = count_errors(problems);
        let field = |name: &str| format!("{place}.{name}");
        let name = self.check_name(place, problems);
        let priority = self.check_priority(place, problems);
        let when = self
            .when
            .as_deref()
            .and_then(|when| compile(&field("when"), when, Wanted::Condition, scope, problems));
        let only = self.only.as_ref().map(|only| only.check(place, scope, problems)).unwrap_or_default();
        let (from, until) = (self.from.as_deref(), self.until.as_deref());
        let window = WindowDraft { from, until, zone: self.zone.as_ref() }.check(place, zones, problems);
        let schedule = self.schedule.as_ref().and_then(|schedule| schedule.check(place, zones, problems));
        if scope == Scope::Market && self.discount.is_some() {
            let problem = "is about one shopper, and a list price is the same for all of them";
            problems.push(Diagnostic::new(field("discount"), problem, "in offer rules"));
        }
        let action = self.check_action(place, scope, problems);
        let action = action.filter(|_| count_errors(problems) == before)?;
        let mut variables: Vec<Variable> = Vec::new();
        for variable in when.iter().flat_map(|when| when.variables()).chain(action.variables()) {
            if !variables.contains(variable) {
                variables.push(*variable);
            }
        }
        let reads_competitors = matches!(action.reference(), Some(Reference::Competitor(_)))
            || variables.iter().any(|variable| variable.is_competitors_price());
        let in_words =
            if only.is_everything() { action.to_string() } else { format!("{action} (only {only})") };
        let expressions = when.iter().chain(action.formula());
        let age_tests: Vec<AgeTest> =
            expressions.flat_map(|expression| expression.age_tests().iter().copied()).collect();
        let (name, in_words, variables) = (name.into(), in_words.into(), variables.into());
        let is_at_any_time = window == Window::default() && schedule.is_none();
        Some(Rule {
            name,
            index: 0,
            priority,
            when,
            is_always_meant: is_at_any_time && only.is_everything(),
            only,
            window,
            schedule,
            is_discount: scope == Scope::Offer && self.discount.unwrap_or(true),
            reads_clocks: self.schedule.is_some() || self.zone.is_some(),
            follows_competitors: action.follows_competitors(),
            reads_competitors,
            is_timeless: is_at_any_time && age_tests.is_empty() && !action.may_change_with_time(),
            age_tests: age_tests.into(),
            action,
            in_words,
            variables,
        })
    }

    fn check_name(&self, place: &str, problems: &mut Vec<Diagnostic>) -> &str {
        let name = self.name.trim();
        let is_printable = !name.contains(char::is_control);
        if name.is_empty() || name.chars().count() > MAX_RULE_NAME_CHARS || !is_printable {
            let allowed = format!("1 to {MAX_RULE_NAME_CHARS} characters");
            let problem = "is missing, too long or has control characters";
            problems.push(Diagnostic::new(format!("{place}.name"), problem, allowed));
        }
        name
    }

    fn check_priority(&self, place: &str, problems: &mut Vec<Diagnostic>) -> Option<i32> {
        let written = self.priority.as_ref()?;
        let parsed: Option<i32> = written.0.trim().parse().ok();
        let parsed = parsed.filter(|priority| priority.abs() <= MAX_PRIORITY);
        if parsed.is_none() {
            let problem = format!("\"{}\" is not allowed", shorten(&written.0));
            let allowed = "a whole number from -1000 to 1000";
            problems.push(Diagnostic::new(format!("{place}.priority"), problem, allowed));
        }
        parsed
    }
}

/// The expression, or `None` with the reasons added to `problems`.
pub(super) fn compile(
    field: &str,
    written: &str,
    wanted: Wanted,
    scope: Scope,
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

/// A percentage from 0% to below 100%, as a fraction.
pub(super) fn fraction(field: &str, written: &Scalar, problems: &mut Vec<Diagnostic>) -> Option<Decimal> {
    let is_allowed = |fraction: Decimal| fraction >= Decimal::ZERO && fraction < Decimal::ONE;
    percentage(field, written, "0% to below 100%", is_allowed, problems)
}

/// A percentage within what is allowed, as a fraction.
pub(super) fn percentage(
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

/// `90s`, `30m`, `48h` or `7d`.
pub(super) fn duration(field: &str, written: &Scalar, problems: &mut Vec<Diagnostic>) -> Option<TimeDelta> {
    let parsed =
        humantime::parse_duration(&written.0).ok().and_then(|parsed| TimeDelta::from_std(parsed).ok());
    let parsed = parsed.filter(|duration| (TimeDelta::seconds(1)..=MAX_DURATION).contains(duration));
    if parsed.is_none() {
        let problem = format!("\"{}\" is not such a duration", shorten(&written.0));
        problems.push(Diagnostic::new(field, problem, "1s to 366 days, such as 30m, 48h or 7d"));
    }
    parsed
}

/// `10%` as the fraction 0.1.
pub(super) fn parse_percent(written: &str) -> Option<Decimal> {
    let trimmed = written.trim();
    parse_percent_digits(trimmed.strip_prefix('+').unwrap_or(trimmed).strip_suffix('%')?)
}

pub(super) fn parse_percent_digits(digits: &str) -> Option<Decimal> {
    const MAX_PERCENT: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);
    let percent = parse_amount(digits.trim(), MAX_PERCENT_SCALE).ok()?;
    (percent.abs() <= MAX_PERCENT).then(|| percent / Decimal::ONE_HUNDRED)
}
