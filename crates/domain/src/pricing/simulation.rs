//! Simulations: the effect of a policy on all products, aggregated product by product.
//!
//! The memory does not depend on the number of products: moves are counted by size, rules by their position
//! in the policy, guardrails by name, and only the products with the largest moves are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::Decimal;
use smallvec::SmallVec;

use crate::facts::Facts;
use crate::facts::product::ProductId;
use crate::policy::guardrail::GuardrailName;
use crate::policy::panel::PanelShopper;
use crate::policy::pricing_policy::PricingPolicy;
use crate::pricing::catalogue_warning::{CatalogueWarning, CatalogueWarnings, OfferEnds, offer_ends};
use crate::pricing::explanation::{HeldPrice, Outcome, Step};
use crate::pricing::final_prices::{FinalPrice, FinalPrices, ShopperEffect, ShopperSimulation};
use crate::pricing::held_prices::{HeldByLimit, HeldPrices};
use crate::pricing::moves::{MoveRange, Moves, fraction, in_percent};
use crate::pricing::price::ListPrice;

/// The number of products with the largest moves that are kept.
const BIGGEST_MOVES: usize = 20;

/// The number of products without a price that are named.
const MAX_NAMED: usize = 20;

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
    /// What a limit on moves would hold back, if one does.
    pub held: Option<HeldPrice>,
    /// Whether it would move at once by more than the policy's `max_step`: because of what the seller
    /// changes, or to stay within a floor or a ceiling.
    pub is_beyond_max_step: bool,
    /// Whether the list price would be rounded to the minor unit because no multiple of the increment fits.
    passes_over_increment: bool,
    /// The offer rules for which the price would be too low.
    offer_ends: OfferEnds,
    /// The final price of each shopper of the panel; empty without a panel.
    final_prices: SmallVec<[FinalPrice; 4]>,
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
    /// The moves of the list prices.
    pub(crate) list_prices: Moves,
    /// The final prices of the panel's shoppers, in the panel's order.
    panel: Vec<ShopperSimulation>,
    /// Products that were priced.
    products: u64,
    frozen: u64,
    guardrails: BTreeMap<GuardrailName, u64>,
    /// The prices that limits hold back; absent if they are not counted.
    held: Option<HeldPrices>,
    moves_beyond_max_step: u64,
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
    /// The prices that limits on moves would hold back, by limit.
    pub held_prices: Vec<HeldByLimit>,
    /// The number of products that would move at once by more than the policy's `max_step`; 0 if it has none.
    /// The largest of them are the first of the largest moves.
    pub moves_beyond_max_step: u64,
    /// The effect of each market rule, in order, including rules without an effect.
    pub rules: Vec<RuleEffect>,
    /// The number of failures of each rule that would fail.
    pub failed_rules: BTreeMap<Arc<str>, u64>,
    /// Revenue and margin by currency, if as many units were sold as in the last 28 days. Only products with
    /// known cost and sales are included.
    pub margins: BTreeMap<&'static str, MarginEffect>,
    /// The products with the largest moves.
    pub biggest_moves: Vec<SimulatedPrice>,
    /// The effect on the final prices of each shopper of the panel.
    pub panel: Vec<ShopperEffect>,
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
        let change = list_price.map(|list_price| fraction(list_price, computed.amount));
        let max_step = policy.guardrails.max_step;
        Self {
            product_id: facts.product.product_id.clone(),
            currency: facts.product.currency.code(),
            list_price,
            simulated_list_price: computed.amount,
            change_percent: change.map(in_percent),
            outcome: computed.explanation.outcome,
            guardrails: computed.explanation.guardrails().collect(),
            failed_rule,
            problem,
            margin,
            rules,
            held: computed.explanation.held,
            is_beyond_max_step: change.zip(max_step).is_some_and(|(change, most)| change.abs() > most),
            passes_over_increment,
            offer_ends: offer_ends(policy, facts, computed),
            final_prices: SmallVec::new(),
        }
    }

    /// Adds the final prices of the panel's shoppers, in the panel's order: those in effect, which are empty
    /// if there are none in this currency, and the simulated ones.
    pub fn with_final_prices(mut self, in_effect: &FinalPrices, simulated: &FinalPrices) -> Self {
        let final_price = |(place, simulated): (usize, &Decimal)| FinalPrice {
            in_effect: in_effect.get(place).copied(),
            simulated: *simulated,
        };
        self.final_prices = simulated.iter().enumerate().map(final_price).collect();
        self
    }

    /// Returns the move as a fraction; 0 without a current price.
    fn change(&self) -> Decimal {
        self.list_price.map_or(Decimal::ZERO, |list_price| fraction(list_price, self.simulated_list_price))
    }
}

impl Simulation {
    /// Creates a simulation that counts the effect of each market rule of the policy and the prices that its
    /// limits hold back; [`default`](Self::default) does not.
    pub fn of(policy: &PricingPolicy) -> Self {
        let effect = |name: &Arc<str>| RuleEffect { name: Arc::clone(name), applied: 0, failed: 0 };
        let rules = policy.market.iter().map(|rule| effect(&rule.name)).collect();
        let (warnings, held) = (CatalogueWarnings::of(policy), Some(HeldPrices::default()));
        Self { rules, warnings, held, ..Self::default() }
    }

    /// Adds a panel, whose shoppers' final prices each added product must have.
    pub fn with_panel(mut self, panel: &[PanelShopper]) -> Self {
        self.panel = panel.iter().cloned().map(ShopperSimulation::of).collect();
        self
    }

    /// Adds a product.
    pub fn add(&mut self, price: &SimulatedPrice) {
        let change = price.change();
        self.list_prices.add(change);
        self.products += 1;
        self.frozen += u64::from(price.outcome == Outcome::Frozen);
        for (shopper, final_price) in self.panel.iter_mut().zip(&price.final_prices) {
            shopper.add(&price.product_id, price.currency, *final_price);
        }
        for guardrail in &price.guardrails {
            *self.guardrails.entry(*guardrail).or_default() += 1;
        }
        self.moves_beyond_max_step += u64::from(price.is_beyond_max_step);
        if let Some((sums, held)) = self.held.as_mut().zip(price.held) {
            sums.add(price.simulated_list_price, &held);
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
        self.list_prices.add_unmoved(products);
        self.panel.iter_mut().for_each(|shopper| shopper.moves.add_unmoved(products));
    }

    /// Returns the moves of the list prices.
    pub fn list_prices(&self) -> &Moves {
        &self.list_prices
    }

    /// Returns the shoppers of the panel with the moves of their final prices.
    pub fn final_prices(&self) -> impl Iterator<Item = (&PanelShopper, &Moves)> {
        self.panel.iter().map(|simulation| (&simulation.shopper, &simulation.moves))
    }

    /// Returns the number of products whose price would be frozen.
    pub fn frozen(&self) -> u64 {
        self.frozen
    }

    /// Returns the report on the products added so far.
    pub fn report(&self) -> SimulationReport {
        let (products, moves) = (self.products, &self.list_prices);
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
            up: moves.up(),
            down: moves.down(),
            unchanged: products - moves.up() - moves.down(),
            frozen: self.frozen,
            median_change_percent: in_percent(moves.median()),
            distribution: moves.distribution(),
            guardrails: self.guardrails.clone(),
            held_prices: self.held.as_ref().map(HeldPrices::by_limit).unwrap_or_default(),
            moves_beyond_max_step: self.moves_beyond_max_step,
            rules: self.rules.clone(),
            failed_rules: failed.map(|rule| (Arc::clone(&rule.name), rule.failed)).collect(),
            margins: margins.collect(),
            biggest_moves: self.biggest.clone(),
            panel: self.panel.iter().map(|shopper| shopper.effect(products)).collect(),
            catalogue_warnings: self.warnings.met(),
            left_out: self.left_out.clone(),
        }
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

#[cfg(test)]
mod tests;
