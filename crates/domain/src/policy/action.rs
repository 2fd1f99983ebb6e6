//! Actions: how a rule changes a price.

use std::fmt;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use crate::expression::compile::Expression;
use crate::expression::evaluate::EvaluationError;
use crate::expression::variable::{Value, Variable};
use crate::facts::arithmetic::multiply;
use crate::policy::change::Change;
use crate::policy::ladder::Ladder;
use crate::policy::reference::Reference;
use crate::policy::surge::Surge;
use crate::policy::view::{About, View};

/// How a rule changes a price.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Action {
    /// See [`RuleDraft::adjust`](crate::policy::rule_draft::RuleDraft::adjust).
    Adjust(Change),
    /// See [`RuleDraft::multiply_by`](crate::policy::rule_draft::RuleDraft::multiply_by).
    MultiplyBy(Expression),
    /// See [`RuleDraft::set_to`](crate::policy::rule_draft::RuleDraft::set_to).
    SetTo(Expression),
    /// See [`RuleDraft::match_reference`](crate::policy::rule_draft::RuleDraft::match_reference).
    Match {
        /// The price to match.
        reference: Reference,
        /// The change of the reference.
        offset: Change,
    },
    /// See [`RuleDraft::beat`](crate::policy::rule_draft::RuleDraft::beat).
    Beat {
        /// The price to stay below.
        reference: Reference,
        /// The distance, as a negative change.
        by: Change,
    },
    /// See [`RuleDraft::index`](crate::policy::rule_draft::RuleDraft::index).
    Index {
        /// The price that is 100%.
        reference: Reference,
        /// The fraction of the reference; 0.98 is two percent below.
        at: Decimal,
    },
    /// See [`RuleDraft::cost_plus`](crate::policy::rule_draft::RuleDraft::cost_plus).
    CostPlus(Change),
    /// See [`RuleDraft::target_margin`](crate::policy::rule_draft::RuleDraft::target_margin); a fraction from
    /// 0 to below 1.
    TargetMargin(Decimal),
    /// See [`RuleDraft::stock_cover`](crate::policy::rule_draft::RuleDraft::stock_cover).
    StockCover(Ladder),
    /// See [`RuleDraft::sell_through`](crate::policy::rule_draft::RuleDraft::sell_through).
    SellThrough(Ladder),
    /// See [`RuleDraft::surge`](crate::policy::rule_draft::RuleDraft::surge).
    Surge(Surge),
    /// See [`RuleDraft::quantity_tiers`](crate::policy::rule_draft::RuleDraft::quantity_tiers).
    QuantityTiers(Ladder),
}

/// The reason that an action yielded no price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ActionError {
    /// The formula could not be evaluated.
    #[error("the formula fails: {0}")]
    Formula(EvaluationError),
    /// The formula returned something other than a number, usually null.
    #[error("the formula gives {0}, not a number")]
    FormulaKind(&'static str),
    /// The rule needs the unit cost, which is unknown.
    #[error("the unit cost is not known")]
    NoUnitCost,
    /// The price would exceed the largest amount.
    #[error("the price would be too large")]
    TooLarge,
}

impl Action {
    /// Returns the price after the action; `None` if the action has no input: no competitor's price counts,
    /// stock, sales or demand are unknown, or no step applies.
    #[inline]
    pub(crate) fn apply<'a>(&'a self, view: &View<'a>) -> Result<Option<Decimal>, ActionError> {
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
                let Some(rise) = surge.rise(facts.signals, view.known_at) else { return Ok(None) };
                Change::of_fraction(rise).and_then(|change| change.apply(price))
            }
        };
        moved.map(Some).ok_or(ActionError::TooLarge)
    }

    /// Returns the next instant at which time alone changes the effect of the action.
    pub(crate) fn next_change(&self, view: &View<'_>) -> Option<DateTime<Utc>> {
        let About::Market(facts) = view.about else { return None };
        match (self, self.reference()) {
            (Self::Surge(surge), _) => surge.next_change(facts.signals, view.now),
            (_, Some(Reference::Competitor(reference))) => reference.next_change(facts.signals, view.now),
            _ => None,
        }
    }

    /// Whether time alone can change the effect of the action.
    pub(crate) fn may_change_with_time(&self) -> bool {
        matches!(self, Self::Surge(_)) || matches!(self.reference(), Some(Reference::Competitor(_)))
    }

    /// Whether competitors' prices set the price, so that their errors are copied.
    pub(crate) fn follows_competitors(&self) -> bool {
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

    /// Its formula, if it has one.
    pub(crate) fn formula(&self) -> Option<&Expression> {
        match self {
            Self::MultiplyBy(formula) | Self::SetTo(formula) => Some(formula),
            _ => match self.reference() {
                Some(Reference::Formula(formula)) => Some(formula),
                _ => None,
            },
        }
    }

    /// The variables that it reads.
    pub(crate) fn variables(&self) -> &[Variable] {
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

    /// Its reference to a competitor, if it has one.
    pub(crate) fn reference(&self) -> Option<&Reference> {
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
            Ok(reference.price(facts.signals, view.known_at))
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

/// Returns the price of the quantity's tier. If that is 0 or less and no lowest price is known, the next
/// lower tier with a positive price applies: a unit never costs more in a larger quantity.
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
