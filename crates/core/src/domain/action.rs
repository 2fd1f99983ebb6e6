//! Actions: how a rule moves a price.

use std::fmt;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::Deserialize;

use super::arithmetic::multiply;
use super::diagnostic::{Diagnostic, shorten};
use super::evaluate::EvaluationError;
use super::expression::Expression;
use super::expression_check::Wanted;
use super::ladder::Ladder;
use super::money::parse_amount;
use super::reference::{CompetitorDraft, Reference, check_reference};
use super::rule::{
    MAX_PERCENT_SCALE, MAX_POLICY_SCALE, RuleDraft, Scalar, compile, fraction, parse_percent_digits,
    percentage,
};
use super::surge::Surge;
use super::variable::{Scope, Value, Variable};
use super::view::{About, View};

/// `match` as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatchDraft {
    /// The expression to match.
    pub reference: Option<Scalar>,
    /// The competitor to match.
    pub competitor: Option<CompetitorDraft>,
    /// Added to it: an amount or a percentage of it; nothing if absent.
    pub offset: Option<Scalar>,
}

/// `beat` as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BeatDraft {
    /// The expression to stay below.
    pub reference: Option<Scalar>,
    /// The competitor to stay below.
    pub competitor: Option<CompetitorDraft>,
    /// By how much: a percentage or an amount, above 0.
    pub by: Scalar,
}

/// `index` as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IndexDraft {
    /// The expression the price is a part of.
    pub reference: Option<Scalar>,
    /// The competitor the price is a part of the price of.
    pub competitor: Option<CompetitorDraft>,
    /// Which part: 98% is two percent below.
    pub at: Scalar,
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
        reference: Reference,
        /// How it is changed.
        offset: Change,
    },
    /// See [`RuleDraft::beat`].
    Beat {
        /// What to stay below.
        reference: Reference,
        /// By how much, as a negative change.
        by: Change,
    },
    /// See [`RuleDraft::index`].
    Index {
        /// What the price is a part of.
        reference: Reference,
        /// Which part; 0.98 is two percent below.
        at: Decimal,
    },
    /// See [`RuleDraft::cost_plus`].
    CostPlus(Change),
    /// See [`RuleDraft::target_margin`]; a fraction from 0 to below 1.
    TargetMargin(Decimal),
    /// See [`RuleDraft::stock_cover`].
    StockCover(Ladder),
    /// See [`RuleDraft::sell_through`].
    SellThrough(Ladder),
    /// See [`RuleDraft::surge`].
    Surge(Surge),
    /// See [`RuleDraft::quantity_tiers`].
    QuantityTiers(Ladder),
}

/// A relative or absolute change of a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// By this factor: 1.05 is five percent more.
    Factor(Decimal),
    /// By this amount.
    Amount(Decimal),
}

impl Change {
    /// Reads `-5%` or `+0.50`.
    fn parse(written: &str) -> Option<Self> {
        let trimmed = written.trim();
        let unsigned = trimmed.strip_prefix('+').unwrap_or(trimmed);
        match unsigned.strip_suffix('%') {
            Some(percent) => Some(Self::of_fraction(parse_percent_digits(percent)?)?),
            None => parse_amount(unsigned, MAX_POLICY_SCALE).ok().map(Self::Amount),
        }
    }

    /// A change within what is allowed: which percentages are, and which amounts.
    fn check(
        field: &str,
        written: &Scalar,
        [percentages, amounts]: [&str; 2],
        is_allowed: impl Fn(Self) -> bool,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Self> {
        let parsed = Self::parse(&written.0).filter(|change| is_allowed(*change));
        if parsed.is_none() {
            let problem = format!("\"{}\" is not such a change", shorten(&written.0));
            let allowed = format!(
                "a percentage {percentages}, with at most {MAX_PERCENT_SCALE} decimal places, or an amount \
                 {amounts}, with at most {MAX_POLICY_SCALE}"
            );
            problems.push(Diagnostic::new(field, problem, allowed));
        }
        parsed
    }

    /// By a fraction of the price: 0.05 is five percent more.
    fn of_fraction(fraction: Decimal) -> Option<Self> {
        Decimal::ONE.checked_add(fraction).map(Self::Factor)
    }

    /// The price after the change; `None` on overflow.
    #[inline]
    pub fn apply(self, price: Decimal) -> Option<Decimal> {
        match self {
            Self::Factor(factor) => multiply(price, factor),
            Self::Amount(amount) => price.checked_add(amount),
        }
    }

    fn is_nothing(self) -> bool {
        match self {
            Self::Factor(factor) => factor == Decimal::ONE,
            Self::Amount(amount) => amount.is_zero(),
        }
    }

    pub(super) fn lowers(self) -> bool {
        match self {
            Self::Factor(factor) => factor < Decimal::ONE,
            Self::Amount(amount) => amount < Decimal::ZERO,
        }
    }

    fn is_above_nothing(self) -> bool {
        match self {
            Self::Factor(factor) => factor > Decimal::ONE,
            Self::Amount(amount) => amount > Decimal::ZERO,
        }
    }

    /// Whether there is a price at all after it: without a percentage of -100% or less, by which a rule
    /// always fails.
    fn leaves_something(self) -> bool {
        !matches!(self, Self::Factor(factor) if factor <= Decimal::ZERO)
    }

    fn negated(self) -> Self {
        match self {
            Self::Factor(factor) => Self::Factor(Decimal::TWO - factor),
            Self::Amount(amount) => Self::Amount(-amount),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Factor(factor) => {
                let percent = (factor - Decimal::ONE) * Decimal::ONE_HUNDRED;
                write!(formatter, "{:+}%", percent.normalize())
            }
            Self::Amount(amount) => write!(formatter, "{:+}", amount.normalize()),
        }
    }
}

/// Why an action gave no price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// The formula had no value.
    #[error("the formula fails: {0}")]
    Formula(EvaluationError),
    /// The formula gave something other than a number, null above all.
    #[error("the formula gives {0}, not a number")]
    FormulaKind(&'static str),
    /// The rule needs the unit cost, which is not known.
    #[error("the unit cost is not known")]
    NoUnitCost,
    /// The price would be beyond what an amount may be.
    #[error("the price would be too large")]
    TooLarge,
}

impl Action {
    /// The price after the action; `None` if it has nothing to go by: no competitor's price counts, stock,
    /// sales or demand are not known, or no step is meant.
    #[inline]
    pub(super) fn apply<'a>(&'a self, view: &View<'a>) -> Result<Option<Decimal>, ActionError> {
        let price = view.price;
        let moved = match self {
            Self::Adjust(change) => change.apply(price),
            Self::MultiplyBy(factor) => multiply(price, number(factor, view)?),
            Self::SetTo(formula) => Some(number(formula, view)?),
            Self::Match { reference, .. } | Self::Beat { reference, .. } | Self::Index { reference, .. } => {
                let Some(reference) = value_of(reference, view)? else { return Ok(None) };
                match self {
                    Self::Index { at, .. } => multiply(reference, *at),
                    Self::Match { offset: change, .. } | Self::Beat { by: change, .. } => {
                        change.apply(reference)
                    }
                    _ => Some(reference),
                }
            }
            Self::CostPlus(change) => change.apply(unit_cost(view)?),
            Self::TargetMargin(margin) => unit_cost(view)?.checked_div(Decimal::ONE - margin),
            Self::StockCover(ladder) => return climb(ladder, Variable::StockCoverDays, view),
            Self::SellThrough(ladder) => return climb(ladder, Variable::StockSellThrough, view),
            Self::QuantityTiers(ladder) => return take_tier(ladder, view),
            Self::Surge(surge) => {
                let About::Market(facts) = view.about else { return Ok(None) };
                let Some(rise) = surge.rise(facts.signals, view.now) else { return Ok(None) };
                Change::of_fraction(rise).and_then(|change| change.apply(price))
            }
        };
        moved.map(Some).ok_or(ActionError::TooLarge)
    }

    /// The next instant at which time alone changes what the action does.
    pub(super) fn next_change(&self, view: &View<'_>) -> Option<DateTime<Utc>> {
        let About::Market(facts) = view.about else { return None };
        match (self, self.reference()) {
            (Self::Surge(surge), _) => surge.next_change(facts.signals, view.now),
            (_, Some(Reference::Competitor(reference))) => reference.next_change(facts.signals, view.now),
            _ => None,
        }
    }

    /// Whether time alone can change what the action does.
    pub(super) fn may_change_with_time(&self) -> bool {
        matches!(self, Self::Surge(_)) || matches!(self.reference(), Some(Reference::Competitor(_)))
    }

    /// Whether the price is set by what others ask, so that their mistakes become its own.
    pub(super) fn follows_competitors(&self) -> bool {
        let reads =
            |formula: &Expression| formula.variables().iter().any(|variable| variable.is_competitors_price());
        match self {
            Self::MultiplyBy(formula) | Self::SetTo(formula) => reads(formula),
            _ => match self.reference() {
                Some(Reference::Formula(formula)) => reads(formula),
                Some(Reference::Competitor(_)) => true,
                None => false,
            },
        }
    }

    /// The formula that it works out, if it does.
    pub(super) fn formula(&self) -> Option<&Expression> {
        match self {
            Self::MultiplyBy(formula) | Self::SetTo(formula) => Some(formula),
            _ => match self.reference() {
                Some(Reference::Formula(formula)) => Some(formula),
                _ => None,
            },
        }
    }

    /// The variables that it reads.
    pub(super) fn variables(&self) -> &[Variable] {
        match self {
            Self::MultiplyBy(formula) | Self::SetTo(formula) => formula.variables(),
            Self::CostPlus(_) | Self::TargetMargin(_) => &[Variable::ProductUnitCost],
            Self::StockCover(_) => &[Variable::StockCoverDays],
            Self::SellThrough(_) => &[Variable::StockSellThrough],
            Self::Surge(_) => &[Variable::DemandIndex],
            Self::QuantityTiers(_) => &[Variable::ShopperQuantity],
            Self::Adjust(_) => &[],
            Self::Match { .. } | Self::Beat { .. } | Self::Index { .. } => match self.reference() {
                Some(Reference::Formula(formula)) => formula.variables(),
                _ => &[],
            },
        }
    }

    /// What it looks at among competitors, if it does.
    pub(super) fn reference(&self) -> Option<&Reference> {
        match self {
            Self::Match { reference, .. } | Self::Beat { reference, .. } | Self::Index { reference, .. } => {
                Some(reference)
            }
            _ => None,
        }
    }
}

fn number<'a>(formula: &'a Expression, view: &View<'a>) -> Result<Decimal, ActionError> {
    match formula.evaluate(|variable| view.value_of(variable)).map_err(ActionError::Formula)? {
        Value::Number(number) => Ok(number),
        other => Err(ActionError::FormulaKind(other.kind())),
    }
}

fn value_of<'a>(reference: &'a Reference, view: &View<'a>) -> Result<Option<Decimal>, ActionError> {
    match (reference, view.about) {
        (Reference::Formula(formula), _) => number(formula, view).map(Some),
        (Reference::Competitor(reference), About::Market(facts)) => {
            Ok(reference.price(facts.signals, view.now))
        }
        (Reference::Competitor(_), About::Offer(..)) => Ok(None),
    }
}

fn unit_cost(view: &View<'_>) -> Result<Decimal, ActionError> {
    match view.value_of(Variable::ProductUnitCost) {
        Value::Number(cost) => Ok(cost),
        _ => Err(ActionError::NoUnitCost),
    }
}

fn climb(ladder: &Ladder, variable: Variable, view: &View<'_>) -> Result<Option<Decimal>, ActionError> {
    let Value::Number(number) = view.value_of(variable) else { return Ok(None) };
    let Some(change) = ladder.change(number) else { return Ok(None) };
    change.apply(view.price).map(Some).ok_or(ActionError::TooLarge)
}

/// The tier of the quantity. Where it takes everything off and no lowest price is known, the largest one
/// below it that leaves a price: a unit never costs more if more are bought.
fn take_tier(tiers: &Ladder, view: &View<'_>) -> Result<Option<Decimal>, ActionError> {
    let Value::Number(quantity) = view.value_of(Variable::ShopperQuantity) else { return Ok(None) };
    let mut prices = tiers.changes(quantity).map(|change| change.apply(view.price));
    let Some(meant) = prices.next() else { return Ok(None) };
    let meant = meant.ok_or(ActionError::TooLarge)?;
    if meant > Decimal::ZERO || view.has_lowest_price() {
        return Ok(Some(meant));
    }
    Ok(prices.flatten().find(|price| *price > Decimal::ZERO).or(Some(meant)))
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |part: Decimal| (part * Decimal::ONE_HUNDRED).normalize();
        match self {
            Self::Adjust(change) => write!(formatter, "adjust {change}"),
            Self::MultiplyBy(factor) => write!(formatter, "multiply by {}", factor.source()),
            Self::SetTo(formula) => write!(formatter, "set to {}", formula.source()),
            Self::Match { reference, offset } if offset.is_nothing() => {
                write!(formatter, "match {reference}")
            }
            Self::Match { reference, offset } => write!(formatter, "match {reference} {offset}"),
            Self::Beat { reference, by } => write!(formatter, "beat {reference} by {}", by.negated()),
            Self::Index { reference, at } => write!(formatter, "index {reference} at {}%", percent(*at)),
            Self::CostPlus(change) => write!(formatter, "cost plus {change}"),
            Self::TargetMargin(margin) => write!(formatter, "target margin {}%", percent(*margin)),
            Self::StockCover(ladder) => write!(formatter, "by days of stock: {ladder}"),
            Self::SellThrough(ladder) => write!(formatter, "by part sold: {ladder}"),
            Self::QuantityTiers(ladder) => write!(formatter, "by quantity: {ladder}"),
            Self::Surge(surge) => write!(formatter, "{surge}"),
        }
    }
}

impl RuleDraft {
    /// The one action of the rule.
    pub(super) fn check_action(
        &self,
        place: &str,
        scope: Scope,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Action> {
        let field = |name: &str| format!("{place}.{name}");
        let mut actions = Vec::new();
        if let Some(written) = &self.multiply_by {
            let factor = compile(&field("multiply_by"), &written.0, Wanted::Factor, scope, problems);
            actions.push(factor.map(Action::MultiplyBy));
        }
        if let Some(written) = &self.set_to {
            let price = compile(&field("set_to"), &written.0, Wanted::Price, scope, problems);
            actions.push(price.map(Action::SetTo));
        }
        if let Some(draft) = &self.match_reference {
            actions.push(draft.check(&field("match"), scope, problems));
        }
        if let Some(draft) = &self.beat {
            actions.push(draft.check(&field("beat"), scope, problems));
        }
        if let Some(draft) = &self.index {
            actions.push(draft.check(&field("index"), scope, problems));
        }
        if let Some(written) = &self.adjust {
            actions.push(change(&field("adjust"), written, problems).map(Action::Adjust));
        }
        match scope {
            Scope::Market => self.check_market_action(&field, &mut actions, problems),
            Scope::Offer => {
                if let Some(drafts) = &self.quantity_tiers {
                    let tiers = Ladder::tiers(&field("quantity_tiers"), drafts, problems);
                    actions.push(tiers.map(Action::QuantityTiers));
                }
            }
        }
        let [action] = <[Option<Action>; 1]>::try_from(actions).ok().or_else(|| {
            let allowed = match scope {
                Scope::Market => {
                    "adjust, multiply_by, set_to, match, beat, index, cost_plus, target_margin, stock_cover, \
                     sell_through or surge"
                }
                Scope::Offer => "adjust, multiply_by, set_to, match, beat, index or quantity_tiers",
            };
            problems.push(Diagnostic::new(place, "does not have exactly one action", allowed));
            None
        })?;
        action
    }

    /// Actions that need facts about the market.
    fn check_market_action(
        &self,
        field: &dyn Fn(&str) -> String,
        actions: &mut Vec<Option<Action>>,
        problems: &mut Vec<Diagnostic>,
    ) {
        if let Some(written) = &self.cost_plus {
            actions.push(change(&field("cost_plus"), written, problems).map(Action::CostPlus));
        }
        if let Some(written) = &self.target_margin {
            actions.push(fraction(&field("target_margin"), written, problems).map(Action::TargetMargin));
        }
        if let Some(drafts) = &self.stock_cover {
            let ladder = Ladder::below(&field("stock_cover"), drafts, false, problems);
            actions.push(ladder.map(Action::StockCover));
        }
        if let Some(drafts) = &self.sell_through {
            let ladder = Ladder::below(&field("sell_through"), drafts, true, problems);
            actions.push(ladder.map(Action::SellThrough));
        }
        if let Some(draft) = &self.surge {
            actions.push(draft.check(&field("surge"), problems).map(Action::Surge));
        }
    }
}

impl MatchDraft {
    fn check(&self, place: &str, scope: Scope, problems: &mut Vec<Diagnostic>) -> Option<Action> {
        let reference =
            check_reference(place, self.reference.as_ref(), self.competitor.as_ref(), scope, problems);
        let offset = self.offset.as_ref().map_or(Some(Change::Amount(Decimal::ZERO)), |offset| {
            change(&format!("{place}.offset"), offset, problems)
        });
        Some(Action::Match { reference: reference?, offset: offset? })
    }
}

impl BeatDraft {
    fn check(&self, place: &str, scope: Scope, problems: &mut Vec<Diagnostic>) -> Option<Action> {
        let reference =
            check_reference(place, self.reference.as_ref(), self.competitor.as_ref(), scope, problems);
        let is_allowed = |by: Change| by.is_above_nothing() && by.negated().leaves_something();
        let by = Change::check(
            &format!("{place}.by"),
            &self.by,
            ["above 0% and below 100% such as 1%", "above 0 such as 0.50"],
            is_allowed,
            problems,
        );
        Some(Action::Beat { reference: reference?, by: by?.negated() })
    }
}

impl IndexDraft {
    fn check(&self, place: &str, scope: Scope, problems: &mut Vec<Diagnostic>) -> Option<Action> {
        let reference =
            check_reference(place, self.reference.as_ref(), self.competitor.as_ref(), scope, problems);
        let is_allowed = |at: Decimal| at > Decimal::ZERO && at <= Decimal::TEN;
        let at =
            percentage(&format!("{place}.at"), &self.at, "above 0%, at most 1000%", is_allowed, problems);
        Some(Action::Index { reference: reference?, at: at? })
    }
}

/// A change that leaves something of a price.
pub(super) fn change(field: &str, written: &Scalar, problems: &mut Vec<Diagnostic>) -> Option<Change> {
    let allowed = ["above -100% such as -5%", "such as +0.50"];
    Change::check(field, written, allowed, Change::leaves_something, problems)
}
