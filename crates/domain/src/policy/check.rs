//! Checks a policy: converts its written form to the one that prices are computed by, or returns all
//! problems.

use std::collections::HashSet;

use chrono::TimeDelta;
use rust_decimal::Decimal;
use serde_saphyr::UserMessageFormatter;

use crate::diagnostic::{Diagnostic, Location, count_errors, shorten};
use crate::expression::variable::RuleKind;
use crate::facts::money::parse_amount;
use crate::facts::time_zone::TimeZones;
use crate::policy::apply::Apply;
use crate::policy::document::{
    ApplyDraft, CompetitorLoopDraft, GuardrailsDraft, MAX_POLICY_BYTES, PolicyDraft, RoundingDraft,
};
use crate::policy::examine::examine;
use crate::policy::guardrail::{CompetitorLoop, Guardrails};
use crate::policy::places::Places;
use crate::policy::pricing_policy::PricingPolicy;
use crate::policy::rounding::Rounding;
use crate::policy::rule::Rule;
use crate::policy::rule_draft::RuleDraft;
use crate::policy::scalar::{MAX_POLICY_SCALE, MAX_RULE_NAME_CHARS, Scalar, duration, fraction, percentage};
use crate::policy::warning::warnings;

/// The most endings, and the most price points, of a policy.
const MAX_PRICE_POINTS: usize = 500;

/// The shortest step interval.
const SHORTEST_STEP_INTERVAL: TimeDelta = TimeDelta::minutes(1);

/// The most market rules, and the most offer rules, of a policy.
pub const MAX_RULES: usize = 100;

/// The policy that every installation starts with.
pub const DEFAULT_POLICY: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/policies/default.yaml"));

/// The origin of a document, which determines what is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A draft to be published: a meaning that cannot be intended is refused.
    Draft,
    /// A published document: any valid meaning is kept.
    Stored,
}

impl PolicyDraft {
    /// Parses a YAML document; JSON is valid YAML.
    pub fn from_yaml(document: &str, zones: &TimeZones) -> Result<Self, Vec<Diagnostic>> {
        if document.len() > MAX_POLICY_BYTES {
            let problem = format!("is {} bytes long", document.len());
            return Err(vec![Diagnostic::new(
                "policy",
                problem,
                format!("at most {MAX_POLICY_BYTES} bytes"),
            )]);
        }
        serde_saphyr::from_str(document).map_err(|error| all_that_is_wrong(document, &error, zones))
    }

    /// Returns the JSON Schema (2020-12) of documents, for editors. It covers names and kinds;
    /// [`check`](Self::check) finds all other problems.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }

    /// Returns the policy of this version with these time zones, or all problems of the draft, including
    /// warnings.
    pub fn check(&self, version: i64, zones: &TimeZones) -> Result<PricingPolicy, Vec<Diagnostic>> {
        self.check_as(Origin::Draft, version, zones, |_| ())
    }

    fn check_as(
        &self,
        origin: Origin,
        version: i64,
        zones: &TimeZones,
        locate: impl Fn(&mut Diagnostic),
    ) -> Result<PricingPolicy, Vec<Diagnostic>> {
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
        let market = check_rules("market", &self.market, RuleKind::Market, zones, &mut problems);
        let offer = check_rules("offer", &self.offer, RuleKind::Offer, zones, &mut problems);
        let guardrails = self.guardrails.check(&mut problems);
        let rounding = self.rounding.check(&mut problems);
        let circuit_breaker =
            self.circuit_breaker.as_ref().map(|draft| draft.check(&mut problems)).unwrap_or_default();
        problems.iter_mut().for_each(&locate);
        if origin.refuses(&problems) {
            return Err(problems);
        }
        let ApplyDraft { market: market_apply, offer: offer_apply } = self.apply;
        let name = self.name.trim().to_owned();
        let reads_clocks = market.iter().chain(&offer).any(|rule| rule.reads_clocks);
        let mut policy = PricingPolicy {
            tz_version: reads_clocks.then(|| zones.version().clone()),
            version,
            name,
            market_apply,
            offer_apply,
            market,
            offer,
            guardrails,
            rounding,
            circuit_breaker,
            warnings: problems,
        };
        let mut found = warnings(self, &policy);
        found.iter_mut().for_each(locate);
        policy.warnings.extend(found);
        Ok(policy)
    }
}

/// Returns all problems of a document that cannot be parsed as a policy: every unknown field and wrong kind,
/// and what the check finds in the rest.
fn all_that_is_wrong(document: &str, error: &serde_saphyr::Error, zones: &TimeZones) -> Vec<Diagnostic> {
    let Some((mut problems, draft)) = examine(document).filter(|found| !found.0.is_empty()) else {
        let said = error.without_snippet().render_with_formatter(&UserMessageFormatter);
        let said = said.lines().next().unwrap_or_default();
        // The position is part of the diagnostic already.
        let said = said.split_once(" at line ").map_or(said, |(said, _)| said);
        let place = error.location();
        let place = place.map(|at| Location { line: saturated(at.line()), column: saturated(at.column()) });
        return vec![Diagnostic { place, ..Diagnostic::bare("policy", said) }];
    };
    let places = Places::of(document);
    let checked =
        draft.map(|draft| draft.check_as(Origin::Draft, 0, zones, |problem| places.locate(problem)));
    let mut others =
        checked.map_or_else(Vec::new, |checked| checked.map_or_else(|found| found, |policy| policy.warnings));
    // A missing field inside an excluded field is not reported again.
    let is_within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    others.retain(|other| !problems.iter().any(|problem| is_within(&problem.field, &other.field)));
    problems.extend(others);
    problems.sort_by_key(|problem| problem.place.map(|place| (place.line, place.column)));
    problems
}

impl PricingPolicy {
    /// Reads the policy of this version from YAML, or returns all its problems, including warnings.
    pub fn from_yaml(document: &str, version: i64, zones: &TimeZones) -> Result<Self, Vec<Diagnostic>> {
        Self::read(document, version, zones, Origin::Draft)
    }

    /// Reads the policy of this version from a published text: it keeps its meaning, and its warnings include
    /// what would be refused today.
    pub fn from_stored_yaml(
        document: &str,
        version: i64,
        zones: &TimeZones,
    ) -> Result<Self, Vec<Diagnostic>> {
        Self::read(document, version, zones, Origin::Stored)
    }

    fn read(
        document: &str,
        version: i64,
        zones: &TimeZones,
        origin: Origin,
    ) -> Result<Self, Vec<Diagnostic>> {
        let places = Places::of(document);
        PolicyDraft::from_yaml(document, zones)?
            .check_as(origin, version, zones, |problem| places.locate(problem))
    }
}

impl Origin {
    fn refuses(self, problems: &[Diagnostic]) -> bool {
        match self {
            Self::Draft => problems.iter().any(Diagnostic::is_refusal),
            Self::Stored => count_errors(problems) > 0,
        }
    }
}

fn check_rules(
    list: &str,
    drafts: &[RuleDraft],
    scope: RuleKind,
    zones: &TimeZones,
    problems: &mut Vec<Diagnostic>,
) -> Vec<Rule> {
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
        if let Some(mut rule) = draft.check(&place, scope, zones, problems) {
            rule.index = index;
            rules.push(rule);
        }
    }
    // A stable sort keeps the written order of rules with the same priority.
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.priority.unwrap_or_default()));
    rules
}

impl GuardrailsDraft {
    fn check(&self, problems: &mut Vec<Diagnostic>) -> Guardrails {
        let defaults = Guardrails::default();
        let pause = self.min_time_between_changes.as_ref();
        let min_time_between_changes =
            pause.and_then(|written| duration("guardrails.min_time_between_changes", written, problems));
        let step_interval = self.step_interval.as_ref().and_then(|written| {
            let field = "guardrails.step_interval";
            let length = duration(field, written, problems)?;
            if length < SHORTEST_STEP_INTERVAL {
                let problem = format!("\"{}\" is not allowed", shorten(&written.0));
                problems.push(Diagnostic::new(field, problem, "a minute or more, such as 1h"));
            }
            Some(length)
        });
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
            step_interval: step_interval.unwrap_or(defaults.step_interval),
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

/// Returns the digits of an amount without leading and trailing zeros: 5 for 0.05 and for 500.
fn leading_digits(amount: Decimal) -> i128 {
    let mut digits = amount.normalize().mantissa();
    while digits != 0 && digits % 10 == 0 {
        digits /= 10;
    }
    digits
}

#[cfg(test)]
mod tests;
