//! Pricing policies: the document a pricing team writes, and what it becomes once checked.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Deserialize;

use super::diagnostic::{Diagnostic, shorten};
use super::guardrail::Guardrails;
use super::money::parse_amount;
use super::rounding::{Rounding, RoundingMode};
use super::rule::{MAX_POLICY_SCALE, MAX_RULE_NAME_CHARS, Rule, RuleDraft, Scalar, fraction};
use super::variable::Scope;

/// The largest policy document, in bytes.
pub const MAX_POLICY_BYTES: usize = 256 * 1024;
/// Market rules a policy may have, and offer rules.
pub const MAX_RULES: usize = 100;

/// The policy every installation starts with.
pub const DEFAULT_POLICY: &str = include_str!("default_policy.yaml");

/// A policy as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyDraft {
    /// What people call it.
    pub name: String,
    /// Applied in order to the base price when facts change; they make the list price.
    pub market: Vec<RuleDraft>,
    /// Applied in order to the list price, for one shopper.
    pub offer: Vec<RuleDraft>,
    /// What no price may do.
    pub guardrails: GuardrailsDraft,
    /// How prices are rounded.
    pub rounding: RoundingDraft,
}

/// `guardrails` as written; each is a percentage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuardrailsDraft {
    /// See [`Guardrails::min_margin`].
    pub min_margin: Option<Scalar>,
    /// See [`Guardrails::max_step`].
    pub max_step: Option<Scalar>,
    /// See [`Guardrails::max_daily_move`].
    pub max_daily_move: Option<Scalar>,
}

/// `rounding` as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoundingDraft {
    /// See [`Rounding::mode`].
    pub mode: Option<RoundingMode>,
    /// See [`Rounding::increment`].
    pub increment: Option<Scalar>,
    /// See [`Rounding::ending`].
    pub ending: Option<Scalar>,
}

/// A checked policy. It never changes; a new text is a new version.
#[derive(Debug, Clone)]
pub struct PricingPolicy {
    /// Counts the published policies from 1.
    pub version: i64,
    /// See [`PolicyDraft::name`].
    pub name: String,
    /// See [`PolicyDraft::market`].
    pub market: Vec<Rule>,
    /// See [`PolicyDraft::offer`].
    pub offer: Vec<Rule>,
    /// See [`PolicyDraft::guardrails`].
    pub guardrails: Guardrails,
    /// See [`PolicyDraft::rounding`].
    pub rounding: Rounding,
}

impl PolicyDraft {
    /// Reads a YAML document; JSON is YAML too.
    pub fn from_yaml(document: &str) -> Result<Self, Vec<Diagnostic>> {
        if document.len() > MAX_POLICY_BYTES {
            let problem = format!("is {} bytes long", document.len());
            return Err(vec![Diagnostic::new(
                "policy",
                problem,
                format!("at most {MAX_POLICY_BYTES} bytes"),
            )]);
        }
        serde_saphyr::from_str(document).map_err(|error| vec![Diagnostic::bare("policy", error.to_string())])
    }

    /// The policy of this version, or everything that is wrong with the draft.
    pub fn check(&self, version: i64) -> Result<PricingPolicy, Vec<Diagnostic>> {
        let mut problems = Vec::new();
        if self.name.trim().is_empty() || self.name.chars().count() > MAX_RULE_NAME_CHARS {
            let allowed = format!("1 to {MAX_RULE_NAME_CHARS} characters");
            problems.push(Diagnostic::new("name", "is missing or too long", allowed));
        }
        let market = check_rules("market", &self.market, Scope::Market, &mut problems);
        let offer = check_rules("offer", &self.offer, Scope::Offer, &mut problems);
        let guardrails = self.guardrails.check(&mut problems);
        let rounding = self.rounding.check(&mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(PricingPolicy { version, name: self.name.trim().to_owned(), market, offer, guardrails, rounding })
    }
}

impl PricingPolicy {
    /// The policy of this version from its YAML text.
    pub fn from_yaml(document: &str, version: i64) -> Result<Self, Vec<Diagnostic>> {
        PolicyDraft::from_yaml(document)?.check(version)
    }

    /// The next instant after `now` at which a rule starts or stops: no price computed now outlives it.
    pub fn next_change(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.market.iter().chain(&self.offer).filter_map(|rule| rule.window.next_change(now)).min()
    }
}

fn check_rules(list: &str, drafts: &[RuleDraft], scope: Scope, problems: &mut Vec<Diagnostic>) -> Vec<Rule> {
    if drafts.len() > MAX_RULES {
        problems.push(Diagnostic::new(
            list,
            format!("has {} rules", drafts.len()),
            format!("at most {MAX_RULES}"),
        ));
        return Vec::new();
    }
    let mut names = HashSet::new();
    let mut rules = Vec::with_capacity(drafts.len());
    for (index, draft) in drafts.iter().enumerate() {
        let place = format!("{list}[{index}]");
        if !names.insert(draft.name.trim()) {
            let problem = format!("\"{}\" is the name of an earlier rule", shorten(&draft.name));
            problems.push(Diagnostic::new(format!("{place}.name"), problem, "a name of its own"));
        }
        rules.extend(draft.check(&place, scope, problems));
    }
    rules
}

impl GuardrailsDraft {
    fn check(&self, problems: &mut Vec<Diagnostic>) -> Guardrails {
        let mut percentage = |name: &str, written: &Option<Scalar>| {
            written.as_ref().and_then(|written| fraction(&format!("guardrails.{name}"), written, problems))
        };
        Guardrails {
            min_margin: percentage("min_margin", &self.min_margin),
            max_step: percentage("max_step", &self.max_step),
            max_daily_move: percentage("max_daily_move", &self.max_daily_move),
        }
    }
}

impl RoundingDraft {
    fn check(&self, problems: &mut Vec<Diagnostic>) -> Rounding {
        let mut amount = |name: &str, written: &Option<Scalar>, allowed: &str, fits: fn(Decimal) -> bool| {
            let written = &written.as_ref()?.0;
            let parsed = parse_amount(written, MAX_POLICY_SCALE).ok().filter(|amount| fits(*amount));
            if parsed.is_none() {
                let problem = format!("\"{}\" is not allowed", shorten(written));
                problems.push(Diagnostic::new(format!("rounding.{name}"), problem, allowed));
            }
            parsed.map(|amount| amount.normalize())
        };
        Rounding {
            mode: self.mode.unwrap_or_default(),
            increment: amount(
                "increment",
                &self.increment,
                "1, 2 or 5 times a power of ten, such as 0.05",
                |amount| amount > Decimal::ZERO && [1, 2, 5].contains(&leading_digits(amount)),
            ),
            ending: amount("ending", &self.ending, "above 0 and below 10000, such as 0.99", |amount| {
                amount > Decimal::ZERO && amount < Decimal::from(10_000)
            }),
        }
    }
}

/// The digits of an amount without the zeros at either end: 5 for 0.05 and for 500.
fn leading_digits(amount: Decimal) -> i128 {
    let mut digits = amount.normalize().mantissa();
    while digits != 0 && digits % 10 == 0 {
        digits /= 10;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(yaml: &str) -> Vec<String> {
        let result = PolicyDraft::from_yaml(yaml).and_then(|draft| draft.check(1));
        result.err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_default_policy_is_right() {
        assert_eq!(problems(DEFAULT_POLICY), Vec::<String>::new());
    }

    #[test]
    fn every_problem_of_a_draft_is_reported_at_once() {
        let found = problems(
            r#"
name: ""
market:
  - { name: a, when: "stock.levle < 1", adjust: "+6%" }
  - { name: a, adjust: "six", multiply_by: "2" }
  - { name: b }
  - { name: c, target_margin: "120%", until: tomorrow }
  - { name: d, set_to: "map([1..9], #)" }
  - { name: e, adjust: 1%, from: 2026-01-02T00:00:00Z, until: 2026-01-01T00:00:00Z }
offer:
  - { name: a, cost_plus: "5%" }
  - { name: b, multiply_by: "stock.level" }
guardrails: { min_margin: "-1%", max_step: 15 }
rounding: { increment: 0.03, ending: 0 }
"#,
        );
        let fields: Vec<&str> = found.iter().filter_map(|problem| problem.split(": ").next()).collect();
        assert_eq!(
            fields,
            [
                "name",
                "market[0].when",
                "market[1].name",
                "market[1].adjust",
                "market[1]",
                "market[2]",
                "market[3].until",
                "market[3].target_margin",
                "market[4].set_to",
                "market[5].until",
                "offer[0]",
                "offer[1].multiply_by",
                "guardrails.min_margin",
                "guardrails.max_step",
                "rounding.increment",
                "rounding.ending",
            ],
            "{found:#?}"
        );
    }

    #[test]
    fn a_document_that_is_not_a_policy_is_refused_with_its_place() {
        for yaml in ["name: [", "nme: x", "- 1", "market: 5", "name: x\nmarket:\n  - { nam: y }"] {
            let found = problems(yaml);
            assert_eq!(found.len(), 1, "{yaml}: {found:?}");
            assert!(found[0].starts_with("policy: "), "{found:?}");
        }
    }

    #[test]
    fn numbers_keep_the_digits_they_were_written_with() {
        let policy = PricingPolicy::from_yaml(
            "name: x\nmarket:\n  - { name: a, match: { reference: competitor.min, offset: -0.01 } }\n  - { name: b, adjust: +0.10 }\n",
            7,
        )
        .unwrap();
        assert_eq!(policy.market[0].action.to_string(), "match competitor.min -0.01");
        assert_eq!(policy.market[1].action.to_string(), "adjust +0.1");
        assert_eq!(policy.version, 7);
    }

    #[test]
    fn the_next_change_is_the_earliest_of_all_windows() {
        let policy = PricingPolicy::from_yaml(
            "name: x\nmarket:\n  - { name: a, adjust: -5%, from: 2026-01-02T00:00:00Z, until: 2026-01-05T00:00:00Z }\noffer:\n  - { name: b, adjust: -5%, until: 2026-01-03T00:00:00+01:00 }\n",
            1,
        )
        .unwrap();
        let at = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc);
        assert_eq!(policy.next_change(at("2026-01-01T00:00:00Z")), Some(at("2026-01-02T00:00:00Z")));
        assert_eq!(policy.next_change(at("2026-01-02T00:00:00Z")), Some(at("2026-01-02T23:00:00Z")));
        assert_eq!(policy.next_change(at("2026-01-03T00:00:00Z")), Some(at("2026-01-05T00:00:00Z")));
        assert_eq!(policy.next_change(at("2026-01-05T00:00:00Z")), None);
    }
}
