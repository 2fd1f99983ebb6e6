//! Checks a rule and converts its written form to the applied one.

use crate::diagnostic::{Diagnostic, count_errors, shorten};
use crate::expression::age_test::AgeTest;
use crate::expression::check::Wanted;
use crate::expression::variable::{RuleKind, Variable};
use crate::facts::time_zone::TimeZones;
use crate::policy::reference::Reference;
use crate::policy::rule::Rule;
use crate::policy::rule_draft::RuleDraft;
use crate::policy::scalar::{MAX_RULE_NAME_CHARS, compile};
use crate::policy::window::{Window, WindowDraft};

/// The largest priority; the smallest is its negative.
const MAX_PRIORITY: i32 = 1_000;

impl RuleDraft {
    /// Returns the rule, or `None` with the reasons added to `problems`. `place` is its path: `market[0]`.
    pub(crate) fn check(
        &self,
        place: &str,
        scope: RuleKind,
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
        if scope == RuleKind::Market && self.discount.is_some() {
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
        let is_personal = only.is_personal() || variables.iter().any(|variable| variable.is_personal());
        let (name, in_words, variables) = (name.into(), in_words.into(), variables.into());
        let is_at_any_time = window == Window::default() && schedule.is_none();
        Some(Rule {
            name,
            index: 0,
            priority,
            when,
            is_personal,
            is_always_meant: is_at_any_time && only.is_everything(),
            only,
            window,
            schedule,
            is_discount: scope == RuleKind::Offer && self.discount.unwrap_or(true),
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
