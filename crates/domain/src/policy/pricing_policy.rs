//! A checked policy.

use chrono::{DateTime, TimeDelta, Utc};

use crate::diagnostic::{Diagnostic, Severity};
use crate::expression::variable::Variable;
use crate::facts::time_zone::TzVersion;
use crate::policy::apply::Apply;
use crate::policy::circuit_breaker::CircuitBreaker;
use crate::policy::guardrail::Guardrails;
use crate::policy::places::Places;
use crate::policy::rounding::Rounding;
use crate::policy::rule::Rule;
use crate::policy::view::View;

/// The most future instants at which a policy is simulated.
pub const MAX_INSTANTS: usize = 30;

/// A checked policy. It is immutable; a new text is a new version.
#[derive(Debug, Clone)]
pub struct PricingPolicy {
    /// The version; published policies count from 1.
    pub version: i64,
    /// See [`PolicyDraft::name`](crate::policy::PolicyDraft::name).
    pub name: String,
    /// How the market rules that apply combine to the list price.
    pub market_apply: Apply,
    /// How the offer rules that apply combine to a shopper's price.
    pub offer_apply: Apply,
    /// See [`PolicyDraft::market`](crate::policy::PolicyDraft::market); sorted by descending priority.
    pub market: Vec<Rule>,
    /// See [`PolicyDraft::offer`](crate::policy::PolicyDraft::offer).
    pub offer: Vec<Rule>,
    /// See [`PolicyDraft::guardrails`](crate::policy::PolicyDraft::guardrails).
    pub guardrails: Guardrails,
    /// See [`PolicyDraft::rounding`](crate::policy::PolicyDraft::rounding).
    pub rounding: Rounding,
    /// See [`PolicyDraft::circuit_breaker`](crate::policy::PolicyDraft::circuit_breaker); off if absent.
    pub circuit_breaker: CircuitBreaker,
    /// Parts of the document that are allowed but probably not intended; in a stored policy also those that
    /// would be refused today.
    pub warnings: Vec<Diagnostic>,
    /// The version of the time zone database, if a rule uses local time.
    pub tz_version: Option<TzVersion>,
}

impl PricingPolicy {
    /// Adds a warning for each rule whose window is over. `document` is the policy's text.
    pub fn warn_of_windows_that_are_over(&mut self, document: &str, now: DateTime<Utc>) {
        let places = Places::of(document);
        for (list, rules) in [("market", &self.market), ("offer", &self.offer)] {
            for rule in rules.iter().filter(|rule| rule.window.until.is_some_and(|until| until <= now)) {
                let field = format!("{list}[{}].until", rule.index);
                let problem = "is over: the rule never applies again";
                let mut warning = Diagnostic::bare(field, problem).with_severity(Severity::Warning);
                places.locate(&mut warning);
                self.warnings.push(warning);
            }
        }
    }

    /// Returns the parts that would be refused if the policy were published today.
    pub fn refusals(&self) -> impl Iterator<Item = &Diagnostic> {
        self.warnings.iter().filter(|warning| warning.is_refusal())
    }

    /// Returns the future instants at which rules begin or end: all of their windows, and those of their
    /// schedules in the coming week. At most the [`MAX_INSTANTS`] earliest.
    pub fn instants_after(&self, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let mut instants: Vec<DateTime<Utc>> = Vec::new();
        for rule in self.market.iter().chain(&self.offer) {
            instants.extend([rule.window.from, rule.window.until].into_iter().flatten());
            let mut last = now;
            while let Some(next) = rule.schedule.as_ref().and_then(|schedule| schedule.next_change(last))
                && next < now + TimeDelta::days(7)
            {
                instants.push(next);
                last = next;
            }
        }
        instants.retain(|instant| *instant > now);
        instants.sort_unstable();
        instants.dedup();
        instants.truncate(MAX_INSTANTS);
        instants
    }

    /// Whether a market rule reads this variable.
    pub fn reads(&self, variable: Variable) -> bool {
        self.market.iter().any(|rule| rule.variables().contains(&variable))
    }

    /// Returns the next instant at which time alone changes the effect of a rule: no price computed now is
    /// valid beyond it.
    pub fn next_change(&self, view: &View<'_>) -> Option<DateTime<Utc>> {
        self.market.iter().chain(&self.offer).filter_map(|rule| rule.next_change(view)).min()
    }
}
