//! Simulations: the effect of a policy on all products, aggregated product by product.
//!
//! The memory does not depend on the number of products: moves are counted by hundredths of a percent, rules
//! by their position in the policy, guardrails by name, and only the products with the largest moves are
//! kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::{Decimal, RoundingStrategy};
use smallvec::SmallVec;

use crate::facts::Facts;
use crate::facts::product::ProductId;
use crate::policy::guardrail::GuardrailName;
use crate::policy::pricing_policy::PricingPolicy;
use crate::pricing::catalogue_warning::{CatalogueWarning, CatalogueWarnings, OfferEnds, offer_ends};
use crate::pricing::explanation::{Outcome, Step};
use crate::pricing::price::ListPrice;

/// The number of products with the largest moves that are kept.
const BIGGEST_MOVES: usize = 20;

/// The largest move that is counted exactly, tenfold; larger ones count as this one.
const LARGEST_COUNTED_MOVE: i32 = 100_000;

/// Decimal places of a move as a fraction: hundredths of a percent.
const MOVE_SCALE: u32 = 4;

/// The number of products without a price that are named.
const MAX_NAMED: usize = 20;

/// The boundaries of the distribution of moves, in percent.
const DIVISIONS: [i64; 12] = [-50, -30, -20, -10, -5, -1, 1, 5, 10, 20, 30, 50];

/// A product's current and simulated price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedPrice {
    /// The product.
    pub product_id: ProductId,
    /// The currency of the amounts.
    pub currency: &'static str,
    /// The list price in effect; absent if there is none in this currency.
    pub list_price: Option<Decimal>,
    /// The simulated list price.
    pub simulated_list_price: Decimal,
    /// The move in percent; absent without a current price.
    pub change_percent: Option<Decimal>,
    /// Whether the rules determine the price.
    pub outcome: Outcome,
    /// The guardrails that would limit it.
    pub guardrails: Vec<GuardrailName>,
    /// The rule that would fail and freeze the price.
    pub failed_rule: Option<String>,
    /// The reason for the failure.
    pub problem: Option<String>,
    /// The effect on the margin; absent if the cost or the sales are unknown.
    pub margin: Option<Margin>,
    /// The market rules that would contribute to it.
    pub rules: RulePlaces,
    /// Whether the list price would be rounded to the minor unit because no multiple of the increment fits.
    passes_over_increment: bool,
    /// The offer rules for which the price would be too low.
    offer_ends: OfferEnds,
}

/// The rules that would apply and the one that would fail, by their position in the policy's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RulePlaces {
    applied: SmallVec<[usize; 4]>,
    failed: Option<usize>,
}

/// Revenue and margin of the last 28 days' units at the prices before and after.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Margin {
    revenue: Decimal,
    simulated_revenue: Decimal,
    cost: Decimal,
}

/// The aggregated simulated prices.
#[derive(Debug, Clone, Default)]
pub struct Simulation {
    counts: Counts,
    /// The number of products by move, in hundredths of a percent.
    moves: BTreeMap<i32, u64>,
    guardrails: BTreeMap<GuardrailName, u64>,
    /// The policy's market rules in their order; empty if they are not counted.
    rules: Vec<RuleEffect>,
    margins: BTreeMap<&'static str, (u64, Margin)>,
    warnings: CatalogueWarnings,
    /// The products with the largest moves, the largest first.
    biggest: Vec<SimulatedPrice>,
    left_out: LeftOutProducts,
}

/// Products that are not simulated because their currency is unknown to this version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOutProducts {
    /// The number of products.
    pub products: u64,
    /// The first twenty.
    pub product_ids: Vec<ProductId>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    products: u64,
    up: u64,
    down: u64,
    frozen: u64,
}

/// The effects of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulationReport {
    /// Products that were priced.
    pub products: u64,
    /// The number of products whose price would rise.
    pub up: u64,
    /// The number of products whose price would fall.
    pub down: u64,
    /// The number of products whose price would not change, including those without a current price.
    pub unchanged: u64,
    /// The number of products whose price would be frozen.
    pub frozen: u64,
    /// The median of all moves, in percent; for an even number, the mean of the middle two.
    pub median_change_percent: Decimal,
    /// The distribution of the moves.
    pub distribution: Vec<MoveRange>,
    /// The number of prices that each guardrail would limit.
    pub guardrails: BTreeMap<GuardrailName, u64>,
    /// The effect of each market rule, in order, including rules without an effect.
    pub rules: Vec<RuleEffect>,
    /// The number of failures of each rule that would fail.
    pub failed_rules: BTreeMap<Arc<str>, u64>,
    /// Revenue and margin by currency, if as many units were sold as in the last 28 days. Only products with
    /// known cost and sales are included.
    pub margins: BTreeMap<&'static str, MarginEffect>,
    /// The products with the largest moves.
    pub biggest_moves: Vec<SimulatedPrice>,
    /// Effects on products that the author of the policy may not intend.
    pub catalogue_warnings: Vec<CatalogueWarning>,
    /// The products that are not simulated because their currency is unknown to this version.
    pub left_out: LeftOutProducts,
}

/// The effect of a market rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleEffect {
    /// Its name.
    pub name: Arc<str>,
    /// The number of products to which it would apply, including those that a later rule freezes.
    pub applied: u64,
    /// The number of products that it would freeze by failing.
    pub failed: u64,
}

/// A range of the distribution of moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveRange {
    /// The lower bound of the moves, in percent; inclusive if above 0.
    pub from_percent: Option<i64>,
    /// The upper bound of the moves, in percent; inclusive if below 0.
    pub to_percent: Option<i64>,
    /// The number of products.
    pub products: u64,
}

/// The effect on revenue and margin in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarginEffect {
    /// The number of products whose cost and sales are known.
    pub products: u64,
    /// The revenue at the prices in effect.
    pub revenue: Decimal,
    /// The simulated revenue.
    pub simulated_revenue: Decimal,
    /// Revenue minus cost at the prices in effect.
    pub margin: Decimal,
    /// The simulated margin.
    pub simulated_margin: Decimal,
}

impl SimulatedPrice {
    /// Compares a product's computed price with its current one, if that is in the product's currency.
    pub fn new(
        facts: &Facts<'_>,
        list_price: Option<Decimal>,
        computed: &ListPrice<'_>,
        policy: &PricingPolicy,
    ) -> Self {
        let mut passes_over_increment = false;
        let mut rules = RulePlaces::default();
        let mut failure = None;
        // Each rule has one step, in order.
        let mut place = 0;
        for step in &computed.explanation.steps {
            match step {
                Step::Rule { applied: true, .. } => rules.applied.push(place),
                Step::RuleFailed { rule, problem, .. } => {
                    rules.failed = Some(place);
                    failure = Some((rule.name.to_owned(), problem.clone()));
                }
                Step::Rule { applied: false, .. } => {}
                Step::IncrementPassedOver { .. } => {
                    passes_over_increment = true;
                    continue;
                }
                _ => continue,
            }
            place += 1;
        }
        let (failed_rule, problem) = failure.unzip();
        let margin = match (facts.unit_cost(), facts.signals.units_sold) {
            (Some(cost), Some(units)) => Some(Margin {
                revenue: list_price.unwrap_or(computed.amount).saturating_mul(units),
                simulated_revenue: computed.amount.saturating_mul(units),
                cost: cost.saturating_mul(units),
            }),
            _ => None,
        };
        Self {
            product_id: facts.product.product_id.clone(),
            currency: facts.product.currency.code(),
            list_price,
            simulated_list_price: computed.amount,
            change_percent: list_price.map(|list_price| in_percent(fraction(list_price, computed.amount))),
            outcome: computed.explanation.outcome,
            guardrails: computed.explanation.guardrails().collect(),
            failed_rule,
            problem,
            margin,
            rules,
            passes_over_increment,
            offer_ends: offer_ends(policy, facts, computed),
        }
    }

    /// Returns the move as a fraction; 0 without a current price.
    fn change(&self) -> Decimal {
        self.list_price.map_or(Decimal::ZERO, |list_price| fraction(list_price, self.simulated_list_price))
    }
}

impl Simulation {
    /// Creates a simulation that counts the effect of each market rule of the policy;
    /// [`default`](Self::default) does not.
    pub fn of(policy: &PricingPolicy) -> Self {
        let effect = |name: &Arc<str>| RuleEffect { name: Arc::clone(name), applied: 0, failed: 0 };
        let rules = policy.market.iter().map(|rule| effect(&rule.name)).collect();
        Self { rules, warnings: CatalogueWarnings::of(policy), ..Self::default() }
    }

    /// Adds a product.
    pub fn add(&mut self, price: &SimulatedPrice) {
        let change = price.change();
        self.add_move(change);
        let counts = &mut self.counts;
        counts.products += 1;
        counts.up += u64::from(change > Decimal::ZERO);
        counts.down += u64::from(change < Decimal::ZERO);
        counts.frozen += u64::from(price.outcome == Outcome::Frozen);
        for guardrail in &price.guardrails {
            *self.guardrails.entry(*guardrail).or_default() += 1;
        }
        for place in &price.rules.applied {
            if let Some(rule) = self.rules.get_mut(*place) {
                rule.applied += 1;
            }
        }
        if let Some(rule) = price.rules.failed.and_then(|place| self.rules.get_mut(place)) {
            rule.failed += 1;
        }
        if let Some(margin) = price.margin {
            let (products, sum) = self.margins.entry(price.currency).or_default();
            *products += 1;
            sum.revenue = sum.revenue.saturating_add(margin.revenue);
            sum.simulated_revenue = sum.simulated_revenue.saturating_add(margin.simulated_revenue);
            sum.cost = sum.cost.saturating_add(margin.cost);
        }
        self.warnings.add(&price.product_id, price.passes_over_increment, &price.offer_ends);
        self.keep_if_big(price, change);
    }

    /// Adds a product that cannot be simulated.
    pub fn leave_out(&mut self, product_id: ProductId) {
        self.left_out.products += 1;
        if self.left_out.product_ids.len() < MAX_NAMED {
            self.left_out.product_ids.push(product_id);
        }
    }

    /// Adds products that do not move.
    pub fn add_unmoved(&mut self, products: u64) {
        *self.moves.entry(0).or_default() += products;
    }

    /// Returns the number of added moves, including those by 0.
    pub fn moves(&self) -> u64 {
        self.moves.values().sum()
    }

    /// Returns the number of products whose price would be frozen.
    pub fn frozen(&self) -> u64 {
        self.counts.frozen
    }

    /// Returns the number of products that move by more than this fraction, up or down.
    pub fn moved_by_more_than(&self, limit: Decimal) -> u64 {
        let limit = hundredths_of_a_percent(limit);
        self.moves.iter().filter(|(change, _)| change.abs() > limit).map(|(_, products)| products).sum()
    }

    /// Returns the median of all moves, as a fraction; for an even number, the mean of the middle two.
    pub fn median_move(&self) -> Decimal {
        let total = self.moves();
        if total == 0 {
            return Decimal::ZERO;
        }
        let (lower, upper) = (self.move_at((total - 1) / 2), self.move_at(total / 2));
        // Half of the sum, with one more decimal place.
        Decimal::new((i64::from(lower) + i64::from(upper)) * 5, MOVE_SCALE + 1).normalize()
    }

    /// Returns the report on the products added so far.
    pub fn report(&self) -> SimulationReport {
        let Counts { products, up, down, frozen } = self.counts;
        let failed = self.rules.iter().filter(|rule| rule.failed > 0);
        let margins = self.margins.iter().map(|(currency, (products, sum))| {
            let effect = MarginEffect {
                products: *products,
                revenue: sum.revenue,
                simulated_revenue: sum.simulated_revenue,
                margin: sum.revenue.saturating_sub(sum.cost),
                simulated_margin: sum.simulated_revenue.saturating_sub(sum.cost),
            };
            (*currency, effect)
        });
        SimulationReport {
            products,
            up,
            down,
            unchanged: products - up - down,
            frozen,
            median_change_percent: in_percent(self.median_move()),
            distribution: self.distribution(),
            guardrails: self.guardrails.clone(),
            rules: self.rules.clone(),
            failed_rules: failed.map(|rule| (Arc::clone(&rule.name), rule.failed)).collect(),
            margins: margins.collect(),
            biggest_moves: self.biggest.clone(),
            catalogue_warnings: self.warnings.met(),
            left_out: self.left_out.clone(),
        }
    }

    /// Adds a move, as a fraction.
    pub(crate) fn add_move(&mut self, change: Decimal) {
        *self.moves.entry(hundredths_of_a_percent(change)).or_default() += 1;
    }

    fn move_at(&self, place: u64) -> i32 {
        let mut before = 0;
        for (change, products) in &self.moves {
            before += products;
            if before > place {
                return *change;
            }
        }
        0
    }

    fn distribution(&self) -> Vec<MoveRange> {
        // Unmoved products have a range of their own between -1 % and 1 %.
        let mut ranges: Vec<(Option<i64>, Option<i64>)> = Vec::new();
        let mut from = None;
        for division in DIVISIONS {
            if division == 1 {
                ranges.extend([(from, Some(0)), (Some(0), Some(0))]);
                from = Some(0);
            }
            ranges.push((from, Some(division)));
            from = Some(division);
        }
        ranges.push((from, None));
        let within = |from_percent: Option<i64>, to_percent: Option<i64>| {
            let products = self.moves.iter().filter(|(change, _)| {
                let change = i64::from(**change);
                let (from, to) = (from_percent.map(|from| from * 100), to_percent.map(|to| to * 100));
                match (from, to) {
                    (Some(0), Some(0)) => change == 0,
                    // A range excludes the bound that is nearer to 0.
                    _ => {
                        from.is_none_or(|from| change > from || (from > 0 && change == from))
                            && to.is_none_or(|to| change < to || (to < 0 && change == to))
                    }
                }
            });
            MoveRange { from_percent, to_percent, products: products.map(|(_, products)| products).sum() }
        };
        ranges.into_iter().map(|(from, to)| within(from, to)).collect()
    }

    fn keep_if_big(&mut self, price: &SimulatedPrice, change: Decimal) {
        let is_full = self.biggest.len() == BIGGEST_MOVES;
        let smallest = self.biggest.last().map_or(Decimal::ZERO, |last| last.change().abs());
        if change.is_zero() || (is_full && change.abs() <= smallest) {
            return;
        }
        let place = self.biggest.partition_point(|kept| kept.change().abs() >= change.abs());
        self.biggest.insert(place, price.clone());
        self.biggest.truncate(BIGGEST_MOVES);
    }
}

/// Returns the move from one price to another, as a fraction of the first.
fn fraction(before: Decimal, after: Decimal) -> Decimal {
    let change = after.checked_sub(before).and_then(|change| change.checked_div(before));
    change.unwrap_or_default()
}

fn in_percent(fraction: Decimal) -> Decimal {
    (fraction.saturating_mul(Decimal::ONE_HUNDRED)).round_dp(2).normalize()
}

/// Rounds away from 0, so that the smallest move still counts as one.
fn hundredths_of_a_percent(fraction: Decimal) -> i32 {
    let hundredths = fraction
        .saturating_mul(Decimal::from(10_000))
        .round_dp_with_strategy(0, RoundingStrategy::AwayFromZero);
    i32::try_from(hundredths).map_or(LARGEST_COUNTED_MOVE, |counted| counted.min(LARGEST_COUNTED_MOVE))
}

#[cfg(test)]
mod tests;
