//! Simulations: the effect of a policy on all products, whose prices are added up one by one.
//!
//! The memory is bounded, whatever the number of products: moves are counted by hundredths of a percent,
//! rules by their position in the policy, guardrails by name, and of the products only those that move the
//! most are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::{Decimal, RoundingStrategy};
use serde::Serialize;
use smallvec::SmallVec;

use crate::facts::Facts;
use crate::facts::money::{as_json_number, as_optional_json_number};
use crate::facts::product::ProductId;
use crate::policy::guardrail::GuardrailName;
use crate::policy::pricing_policy::PricingPolicy;
use crate::pricing::catalogue_warning::{CatalogueWarning, CatalogueWarnings, OfferEnds, offer_ends};
use crate::pricing::explanation::{Outcome, Step};
use crate::pricing::price::ListPrice;

/// The number of products with the largest moves that are kept.
const BIGGEST_MOVES: usize = 20;

/// The largest move that is counted exactly: tenfold. Larger ones count as this one.
const LARGEST_COUNTED_MOVE: i32 = 100_000;

/// Decimal places of a move as a fraction: hundredths of a percent.
const MOVE_SCALE: u32 = 4;

/// The number of products without a price that are named.
const MAX_NAMED: usize = 20;

/// Where the distribution of moves is divided, in percent.
const DIVISIONS: [i64; 12] = [-50, -30, -20, -10, -5, -1, 1, 5, 10, 20, 30, 50];

/// One product's price now and in the simulation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SimulatedPrice {
    /// The product.
    pub product_id: ProductId,
    /// The currency of the amounts.
    pub currency: &'static str,
    /// The list price in effect; absent if there is none in this currency.
    #[serde(serialize_with = "as_optional_json_number")]
    pub list_price: Option<Decimal>,
    /// The list price that it would have.
    #[serde(serialize_with = "as_json_number")]
    pub simulated_list_price: Decimal,
    /// By how much it would move, in percent; absent if there is no price to move.
    #[serde(serialize_with = "as_optional_json_number")]
    pub change_percent: Option<Decimal>,
    /// Whether the rules make the price.
    pub outcome: Outcome,
    /// The guardrails that would stop it.
    pub guardrails: Vec<GuardrailName>,
    /// The rule that would fail and so keep the price where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_rule: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What the move would do to the margin; absent if the cost or the sales are not known.
    #[serde(skip)]
    pub margin: Option<Margin>,
    /// The market rules that would contribute to it.
    #[serde(skip)]
    pub rules: RulePlaces,
    /// Whether the list price would keep to the minor unit, as no multiple of the increment fits.
    #[serde(skip)]
    passes_over_increment: bool,
    /// The offer rules for which its price would be too low.
    #[serde(skip)]
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

/// The sums of simulated prices.
#[derive(Debug, Clone, Default)]
pub struct Simulation {
    counts: Counts,
    /// Products by their move, in hundredths of a percent.
    moves: BTreeMap<i32, u64>,
    guardrails: BTreeMap<GuardrailName, u64>,
    /// The policy's market rules in their order; empty if they are not counted.
    rules: Vec<RuleEffect>,
    margins: BTreeMap<&'static str, (u64, Margin)>,
    warnings: CatalogueWarnings,
    /// The products that move the most, the largest move first.
    biggest: Vec<SimulatedPrice>,
    left_out: LeftOutProducts,
}

/// Products that are not simulated, as this program does not know their currency.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LeftOutProducts {
    /// How many.
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

/// What a policy would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SimulationReport {
    /// Products that were priced.
    pub products: u64,
    /// How many would cost more.
    pub up: u64,
    /// How many would cost less.
    pub down: u64,
    /// How many would cost the same, those without a price so far included.
    pub unchanged: u64,
    /// How many would keep their price because a rule fails.
    pub frozen: u64,
    /// The median of all moves, in percent; of an even number the mean of the two in the middle.
    #[serde(serialize_with = "as_json_number")]
    pub median_change_percent: Decimal,
    /// How the moves are distributed.
    pub distribution: Vec<MoveRange>,
    /// How often each guardrail would stop a price.
    pub guardrails: BTreeMap<GuardrailName, u64>,
    /// What each market rule would do, in their order; one that does nothing is here as well.
    pub rules: Vec<RuleEffect>,
    /// How often each rule that fails would.
    pub failed_rules: BTreeMap<Arc<str>, u64>,
    /// What would become of revenue and margin if as many units were sold as in the last 28 days, by
    /// currency. Only products whose cost and sales are known.
    pub margins: BTreeMap<&'static str, MarginEffect>,
    /// The products that would move the most.
    pub biggest_moves: Vec<SimulatedPrice>,
    /// What products meet that the author of the policy may not mean.
    pub catalogue_warnings: Vec<CatalogueWarning>,
    /// The products that are not simulated, as this program does not know their currency.
    pub left_out: LeftOutProducts,
}

/// What a market rule would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleEffect {
    /// Its name.
    pub name: Arc<str>,
    /// To how many products it would apply, those included that a later rule freezes.
    pub applied: u64,
    /// How many it would freeze because it fails.
    pub failed: u64,
}

/// A part of the distribution of moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MoveRange {
    /// Moves of more than this, in percent, or of as much if above 0.
    pub from_percent: Option<i64>,
    /// Moves of less than this, in percent, or of as much if below 0.
    pub to_percent: Option<i64>,
    /// How many products.
    pub products: u64,
}

/// What would become of revenue and margin in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MarginEffect {
    /// Products whose cost and sales are known.
    pub products: u64,
    /// What their units brought in at the prices in effect.
    #[serde(serialize_with = "as_json_number")]
    pub revenue: Decimal,
    /// What they would bring in.
    #[serde(serialize_with = "as_json_number")]
    pub simulated_revenue: Decimal,
    /// Revenue less cost at the prices in effect.
    #[serde(serialize_with = "as_json_number")]
    pub margin: Decimal,
    /// What it would be.
    #[serde(serialize_with = "as_json_number")]
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
        // Each rule has a step of its own, in their order.
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

    /// By how much it would move, as a fraction; 0 if there is no price to move.
    fn change(&self) -> Decimal {
        self.list_price.map_or(Decimal::ZERO, |list_price| fraction(list_price, self.simulated_list_price))
    }
}

impl Simulation {
    /// A simulation of this policy that counts the effect of each of its market rules;
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

    /// How many moves were added, including those by 0.
    pub fn moves(&self) -> u64 {
        self.moves.values().sum()
    }

    /// How many products move by more than this fraction, up or down.
    pub fn moved_by_more_than(&self, limit: Decimal) -> u64 {
        let limit = hundredths_of_a_percent(limit);
        self.moves.iter().filter(|(change, _)| change.abs() > limit).map(|(_, products)| products).sum()
    }

    /// The median of all moves, as a fraction; of an even number the mean of the two in the middle.
    pub fn median_move(&self) -> Decimal {
        let total = self.moves();
        if total == 0 {
            return Decimal::ZERO;
        }
        let (lower, upper) = (self.move_at((total - 1) / 2), self.move_at(total / 2));
        // Half of the sum, in one place more.
        Decimal::new((i64::from(lower) + i64::from(upper)) * 5, MOVE_SCALE + 1).normalize()
    }

    /// The report on what was added so far.
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
        // What does not move at all stands between -1 % and 1 %, by itself.
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
                    // Towards 0 a range is open.
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

/// The move from one price to another, as a fraction of the first.
fn fraction(before: Decimal, after: Decimal) -> Decimal {
    let change = after.checked_sub(before).and_then(|change| change.checked_div(before));
    change.unwrap_or_default()
}

fn in_percent(fraction: Decimal) -> Decimal {
    (fraction.saturating_mul(Decimal::ONE_HUNDRED)).round_dp(2).normalize()
}

/// Rounded away from 0, so that the smallest move is one.
fn hundredths_of_a_percent(fraction: Decimal) -> i32 {
    let hundredths = fraction
        .saturating_mul(Decimal::from(10_000))
        .round_dp_with_strategy(0, RoundingStrategy::AwayFromZero);
    i32::try_from(hundredths).map_or(LARGEST_COUNTED_MOVE, |counted| counted.min(LARGEST_COUNTED_MOVE))
}

#[cfg(test)]
mod tests;
