//! Rules: when they apply, to what, and how they change a price.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use crate::expression::age_test::AgeTest;
use crate::expression::compile::Expression;
use crate::expression::evaluate::EvaluationError;
use crate::expression::variable::{Value, Variable};
use crate::facts::money::is_below_limit;
use crate::policy::action::{Action, ActionError};
use crate::policy::selector::Selector;
use crate::policy::view::{About, View};
use crate::policy::window::{Schedule, Window};

/// A checked rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// See [`RuleDraft::name`](crate::policy::rule_draft::RuleDraft::name).
    pub name: Arc<str>,
    /// Its index in the document.
    pub(crate) index: usize,
    /// See [`RuleDraft::priority`](crate::policy::rule_draft::RuleDraft::priority); absent if not written.
    pub priority: Option<i32>,
    /// See [`RuleDraft::when`](crate::policy::rule_draft::RuleDraft::when).
    pub when: Option<Expression>,
    /// See [`RuleDraft::only`](crate::policy::rule_draft::RuleDraft::only).
    pub only: Selector,
    /// The period in which it applies.
    pub window: Window,
    /// See [`RuleDraft::schedule`](crate::policy::rule_draft::RuleDraft::schedule).
    pub schedule: Option<Schedule>,
    /// How it changes the price.
    pub action: Action,
    /// [`Action`] and [`RuleDraft::only`](crate::policy::rule_draft::RuleDraft::only) in words.
    pub in_words: Box<str>,
    /// Whether its effect counts as a discount of the shopper.
    pub(crate) is_discount: bool,
    /// Whether competitors' prices set its price, so that their errors are copied.
    pub(crate) follows_competitors: bool,
    /// Whether it reads a competitor's price, in its action or its condition.
    pub(crate) reads_competitors: bool,
    /// Whether it reads something personal of the shopper.
    pub(crate) is_personal: bool,
    /// Whether its effect depends on a local time.
    pub(crate) reads_clocks: bool,
    /// Whether time alone never changes its effect.
    pub(crate) is_timeless: bool,
    /// Whether it applies to every product and shopper at any time.
    pub(crate) is_always_meant: bool,
    /// The variables that it reads, the condition's first, each once.
    pub(crate) variables: Box<[Variable]>,
    /// Its age tests.
    pub(crate) age_tests: Box<[AgeTest]>,
}

/// The reason that a rule yielded no price. A failed rule freezes the list price or is skipped in a quote; it
/// never makes a price of 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// The condition could not be evaluated.
    #[error("the condition fails: {0}")]
    Condition(EvaluationError),
    /// The condition returned something other than true or false.
    #[error("the condition gives {0}, not true or false")]
    ConditionKind(&'static str),
    /// The action yielded no price.
    #[error(transparent)]
    Action(#[from] ActionError),
    /// The rule follows competitors, but neither a floor nor a cost of the seller limits the price.
    #[error("it follows competitors, and the product has neither a floor nor a cost")]
    NoFloor,
    /// The price would be zero or less.
    #[error("the price would be {0}, which is not above 0")]
    NotAboveZero(Decimal),
}

impl Rule {
    /// Returns the price after this rule, or `None` if it does not apply now.
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

    /// Returns the next instant at which time alone changes the rule's effect on this product.
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

    /// Whether something personal of the shopper decides what this rule does, which gave this result: it
    /// reads such a thing, and applies or might apply if that were another. A condition that reads something
    /// personal counts as one that might hold.
    #[inline]
    pub(crate) fn personalises(&self, result: &Result<Option<Decimal>, RuleError>, view: &View<'_>) -> bool {
        self.is_personal && (matches!(result, Ok(Some(_))) || self.may_apply_to_some_person(view))
    }

    fn may_apply_to_some_person(&self, view: &View<'_>) -> bool {
        let reads_personal =
            |when: &Expression| when.variables().iter().any(|variable| variable.is_personal());
        self.window.contains(view.now)
            && self.only.may_select_some_person(view)
            && self.schedule.as_ref().is_none_or(|schedule| schedule.contains(view.now))
            && (self.when.as_ref().is_some_and(reads_personal) || self.condition_holds(view) == Ok(true))
    }

    fn is_meant(&self, view: &View<'_>) -> bool {
        self.window.contains(view.now)
            && self.only.selects(view)
            && self.schedule.as_ref().is_none_or(|schedule| schedule.contains(view.now))
    }

    pub(crate) fn condition_holds<'a>(&'a self, view: &View<'a>) -> Result<bool, RuleError> {
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

/// Handles a price of 0 or less. In an offer rule it becomes 0, which the guardrails then raise to the lowest
/// allowed price. If no lowest price is known, and in market rules, the rule fails.
#[cold]
fn at_nothing(moved: Decimal, view: &View<'_>) -> Result<Option<Decimal>, RuleError> {
    if view.has_lowest_price() { Ok(Some(Decimal::ZERO)) } else { Err(RuleError::NotAboveZero(moved)) }
}
