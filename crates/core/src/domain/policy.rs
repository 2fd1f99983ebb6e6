//! Pricing policies: the document a pricing team writes, and what it becomes once checked.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_saphyr::UserMessageFormatter;

use super::apply::Apply;
use super::circuit_breaker::{CircuitBreaker, CircuitBreakerDraft};
use super::diagnostic::{Diagnostic, Place, shorten};
use super::guardrail::{CompetitorLoop, Guardrails};
use super::money::parse_amount;
use super::policy_places::Places;
use super::rounding::{Rounding, RoundingMode};
use super::rule::{
    MAX_POLICY_SCALE, MAX_RULE_NAME_CHARS, Rule, RuleDraft, Scalar, duration, fraction, percentage,
};
use super::variable::{Scope, Variable};
use super::view::View;

/// The largest policy document, in bytes.
pub const MAX_POLICY_BYTES: usize = 256 * 1024;
/// Endings, and price points, of a policy.
const MAX_PRICE_POINTS: usize = 500;
/// Instants that a policy is judged at, besides now.
pub const MAX_INSTANTS: usize = 30;
/// Market rules a policy may have, and offer rules.
pub const MAX_RULES: usize = 100;

/// The policy every installation starts with.
pub const DEFAULT_POLICY: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/policies/default.yaml"));

/// A policy as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["name"]))]
pub struct PolicyDraft {
    /// What people call it.
    pub name: String,
    /// Which of the rules that apply make the price.
    pub apply: ApplyDraft,
    /// Applied in order to the base price when facts change; they make the list price.
    pub market: Vec<RuleDraft>,
    /// Applied in order to the list price, for one shopper.
    pub offer: Vec<RuleDraft>,
    /// What no price may do.
    pub guardrails: GuardrailsDraft,
    /// How prices are rounded.
    pub rounding: RoundingDraft,
    /// When a recalculation is held until somebody approves of it.
    pub circuit_breaker: Option<CircuitBreakerDraft>,
}

/// `apply` as written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ApplyDraft {
    /// Of the market rules.
    pub market: Apply,
    /// Of the offer rules.
    pub offer: Apply,
}

/// `guardrails` as written; each is a percentage unless something else is said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GuardrailsDraft {
    /// The least part of a price that is margin over the unit cost: `10%`.
    pub min_margin: Option<Scalar>,
    /// The largest change from the price in effect: `15%`.
    pub max_step: Option<Scalar>,
    /// The least part of the base price that a price is: `80%`.
    pub floor_of_base: Option<Scalar>,
    /// The largest part of the base price that a price is: `120%`.
    pub ceiling_of_base: Option<Scalar>,
    /// The largest change from the first price of the day (UTC): `30%`.
    pub max_daily_move: Option<Scalar>,
    /// How long a price stays before the market may change it again: `6h`.
    pub min_time_between_changes: Option<Scalar>,
    /// When following competitors counts as chasing one's own tail.
    pub competitor_loop: Option<CompetitorLoopDraft>,
}

/// `competitor_loop` as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompetitorLoopDraft {
    /// How many changes in one direction, all because of competitors.
    pub moves: Scalar,
    /// Within what time from the first one on: `24h`.
    pub within: Scalar,
}

/// `rounding` as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RoundingDraft {
    /// Where halves go; `half_even` if absent.
    pub mode: Option<RoundingMode>,
    /// The smallest step between prices: `0.05`.
    pub increment: Option<Scalar>,
    /// What the price ends in: `0.99`.
    pub ending: Option<Scalar>,
    /// What the price ends in: one of these.
    pub endings: Vec<Scalar>,
    /// The only prices there are.
    pub price_points: Vec<Scalar>,
}

/// A checked policy. It never changes; a new text is a new version.
#[derive(Debug, Clone)]
pub struct PricingPolicy {
    /// Counts the published policies from 1.
    pub version: i64,
    /// See [`PolicyDraft::name`].
    pub name: String,
    /// Which of the market rules that apply make the list price.
    pub market_apply: Apply,
    /// Which of the offer rules that apply make a shopper's price.
    pub offer_apply: Apply,
    /// See [`PolicyDraft::market`]; those with the largest priority first.
    pub market: Vec<Rule>,
    /// See [`PolicyDraft::offer`].
    pub offer: Vec<Rule>,
    /// See [`PolicyDraft::guardrails`].
    pub guardrails: Guardrails,
    /// See [`PolicyDraft::rounding`].
    pub rounding: Rounding,
    /// See [`PolicyDraft::circuit_breaker`]; off if absent.
    pub circuit_breaker: CircuitBreaker,
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
        serde_saphyr::from_str(document).map_err(|error| {
            let said = error.without_snippet().render_with_formatter(&UserMessageFormatter);
            let mut problem = Diagnostic::bare("policy", said.lines().next().unwrap_or_default());
            problem.place = error
                .location()
                .map(|place| Place { line: saturated(place.line()), column: saturated(place.column()) });
            vec![problem]
        })
    }

    /// What a document may contain, as a JSON Schema (2020-12) for editors. It knows names and kinds; what is wrong
    /// beyond those, [`check`](Self::check) says.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }

    /// The policy of this version, or everything that is wrong with the draft.
    pub fn check(&self, version: i64) -> Result<PricingPolicy, Vec<Diagnostic>> {
        let mut problems = Vec::new();
        let is_printable = !self.name.contains(char::is_control);
        if self.name.trim().is_empty() || self.name.chars().count() > MAX_RULE_NAME_CHARS || !is_printable {
            let allowed = format!("1 to {MAX_RULE_NAME_CHARS} characters");
            problems.push(Diagnostic::new("name", "is missing, too long or has control characters", allowed));
        }
        if self.apply.market == Apply::BestForShopper {
            let problem = "a list price is the same for all shoppers";
            problems.push(Diagnostic::new("apply.market", problem, "all or first_match"));
        }
        let market = check_rules("market", &self.market, Scope::Market, &mut problems);
        let offer = check_rules("offer", &self.offer, Scope::Offer, &mut problems);
        let guardrails = self.guardrails.check(&mut problems);
        let rounding = self.rounding.check(&mut problems);
        let circuit_breaker =
            self.circuit_breaker.as_ref().map(|draft| draft.check(&mut problems)).unwrap_or_default();
        if !problems.is_empty() {
            return Err(problems);
        }
        let ApplyDraft { market: market_apply, offer: offer_apply } = self.apply;
        let name = self.name.trim().to_owned();
        Ok(PricingPolicy {
            version,
            name,
            market_apply,
            offer_apply,
            market,
            offer,
            guardrails,
            rounding,
            circuit_breaker,
        })
    }
}

impl PricingPolicy {
    /// The policy of this version from its YAML text.
    pub fn from_yaml(document: &str, version: i64) -> Result<Self, Vec<Diagnostic>> {
        PolicyDraft::from_yaml(document)?.check(version).map_err(|mut problems| {
            let places = Places::of(document);
            problems.iter_mut().for_each(|problem| places.locate(problem));
            problems
        })
    }

    /// The instants at which windows and schedules of market rules begin or end: of windows all, of schedules those of
    /// the coming week. At most [`MAX_INSTANTS`], the earliest.
    pub fn instants_after(&self, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let mut instants: Vec<DateTime<Utc>> = Vec::new();
        for rule in &self.market {
            instants.extend([rule.window.from, rule.window.until].into_iter().flatten());
            let mut last = now;
            while let Some(next) = rule.schedule.and_then(|schedule| schedule.next_change(last))
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

    /// Whether a market rule reads this.
    pub fn reads(&self, variable: Variable) -> bool {
        self.market.iter().any(|rule| rule.variables().contains(&variable))
    }

    /// The next instant at which time alone changes what a rule does: no price computed now outlives it.
    pub fn next_change(&self, view: &View<'_>) -> Option<DateTime<Utc>> {
        self.market.iter().chain(&self.offer).filter_map(|rule| rule.next_change(view)).min()
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
    // Stable: what has the same priority stays as it is written.
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.priority.unwrap_or_default()));
    rules
}

impl GuardrailsDraft {
    fn check(&self, problems: &mut Vec<Diagnostic>) -> Guardrails {
        let defaults = Guardrails::default();
        let pause = self.min_time_between_changes.as_ref();
        let min_time_between_changes =
            pause.and_then(|written| duration("guardrails.min_time_between_changes", written, problems));
        let competitor_loop = self.competitor_loop.as_ref().and_then(|draft| draft.check(problems));
        let ceiling_of_base = self.ceiling_of_base.as_ref().and_then(|written| {
            let is_allowed = |part| part >= Decimal::ONE;
            percentage("guardrails.ceiling_of_base", written, "100% or more", is_allowed, problems)
        });
        let mut part = |name: &str, written: &Option<Scalar>| {
            written.as_ref().and_then(|written| fraction(&format!("guardrails.{name}"), written, problems))
        };
        Guardrails {
            min_margin: part("min_margin", &self.min_margin),
            floor_of_base: part("floor_of_base", &self.floor_of_base),
            ceiling_of_base,
            max_step: part("max_step", &self.max_step),
            max_daily_move: part("max_daily_move", &self.max_daily_move),
            min_time_between_changes,
            competitor_loop: competitor_loop.unwrap_or(defaults.competitor_loop),
        }
    }
}

impl CompetitorLoopDraft {
    fn check(&self, problems: &mut Vec<Diagnostic>) -> Option<CompetitorLoop> {
        let moves = self.moves.0.trim().parse().ok().filter(|moves| (2..=1_000).contains(moves));
        if moves.is_none() {
            let problem = format!("\"{}\" is not allowed", shorten(&self.moves.0));
            let field = "guardrails.competitor_loop.moves";
            problems.push(Diagnostic::new(field, problem, "a whole number from 2 to 1000"));
        }
        let within = duration("guardrails.competitor_loop.within", &self.within, problems);
        Some(CompetitorLoop { moves: moves?, within: within? })
    }
}

impl RoundingDraft {
    fn check(&self, problems: &mut Vec<Diagnostic>) -> Rounding {
        let mut amount = |field: &str, Scalar(written): &Scalar, allowed: &str, fits: fn(Decimal) -> bool| {
            let parsed = parse_amount(written, MAX_POLICY_SCALE).ok().filter(|amount| fits(*amount));
            if parsed.is_none() {
                let problem = format!("\"{}\" is not allowed", shorten(written));
                problems.push(Diagnostic::new(format!("rounding.{field}"), problem, allowed));
            }
            parsed.map(|amount| amount.normalize())
        };
        let increment = self.increment.as_ref().and_then(|written| {
            amount("increment", written, "1, 2 or 5 times a power of ten, such as 0.05", |amount| {
                amount > Decimal::ZERO && [1, 2, 5].contains(&leading_digits(amount))
            })
        });
        let mut endings: Vec<Decimal> = Vec::new();
        let fields = (0..self.endings.len()).map(|index| format!("endings[{index}]"));
        let written = self.ending.iter().map(|ending| ("ending".to_owned(), ending));
        for (field, written) in written.chain(fields.zip(&self.endings)) {
            let allowed = "above 0 and below 10000, such as 0.99";
            endings.extend(amount(&field, written, allowed, |amount| {
                amount > Decimal::ZERO && amount < Decimal::from(10_000)
            }));
        }
        let mut price_points: Vec<Decimal> = Vec::new();
        for (index, written) in self.price_points.iter().enumerate() {
            let field = format!("price_points[{index}]");
            price_points
                .extend(amount(&field, written, "an amount above 0", |amount| amount > Decimal::ZERO));
        }
        price_points.sort_unstable();
        price_points.dedup();
        for (field, length) in [("endings", endings.len()), ("price_points", price_points.len())] {
            if length > MAX_PRICE_POINTS {
                let problem = format!("has {length} amounts");
                let allowed = format!("at most {MAX_PRICE_POINTS}");
                problems.push(Diagnostic::new(format!("rounding.{field}"), problem, allowed));
            }
        }
        Rounding { mode: self.mode.unwrap_or_default(), increment, endings, price_points }
    }
}

fn saturated(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
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
    use super::super::price::Facts;
    use super::super::product::ProductDraft;
    use super::super::signal::Signals;
    use super::super::view::About;
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
        let draft = r#"{"product_id": "P-1", "currency": "USD", "base_price": 1}"#;
        let product = serde_json::from_str::<ProductDraft>(draft).unwrap().check().unwrap();
        let signals = Signals::default();
        let next_change = |now| {
            let about = About::Market(Facts { product: &product, signals: &signals, previous: None });
            policy.next_change(&View { price: Decimal::ONE, now, about, has_floor: true })
        };
        assert_eq!(next_change(at("2026-01-01T00:00:00Z")), Some(at("2026-01-02T00:00:00Z")));
        assert_eq!(next_change(at("2026-01-02T00:00:00Z")), Some(at("2026-01-02T23:00:00Z")));
        assert_eq!(next_change(at("2026-01-03T00:00:00Z")), Some(at("2026-01-05T00:00:00Z")));
        assert_eq!(next_change(at("2026-01-05T00:00:00Z")), None);
    }
}
