//! Simulates a policy: computes the prices of a recalculation page by page, without writing them.

use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::Engine;
use super::compute::{Before, compute};
use crate::jobs::RANGE_LENGTH;
use crate::policy_snapshot::{Policies, PolicySnapshot};
use crate::store::{Readable, Store, StoreError, StoredFacts};
use pricing_domain::facts::product::ProductId;
use pricing_domain::facts::recalculation::RecalculationScope;
use pricing_domain::policy::PricingPolicy;
use pricing_domain::policy::circuit_breaker::CircuitBreaker;
use pricing_domain::policy::panel::PanelShopper;
use pricing_domain::pricing::final_prices::FinalPrices;
use pricing_domain::pricing::price::MoveLimiting;
use pricing_domain::pricing::simulation::{SimulatedPrice, Simulation};

/// Iterates over the products once, without writes or locks: each page is read as of its own time.
pub struct Simulator {
    store: Store,
    policies: Policies,
    policy: Arc<PricingPolicy>,
    /// The circuit breakers of this policy and of the one in use, each with its panel.
    breakers: Vec<(CircuitBreaker, Vec<PanelShopper>)>,
    /// The shoppers of all these panels, each once: at most twice as many as a panel may have.
    panel: Vec<PanelShopper>,
    scope: RecalculationScope,
    now: DateTime<Utc>,
    after: Option<ProductId>,
    is_over: bool,
    simulation: Simulation,
    /// The simulations as of later instants, at which the policy changes with time. With the most instants
    /// and the largest panels, about a thousand [`Moves`](pricing_domain::pricing::moves::Moves) are counted.
    later: Vec<(DateTime<Utc>, Simulation)>,
}

impl Engine {
    /// Creates a simulation of this policy, which need not be published, as of an instant. It is judged by
    /// the policy's own circuit breaker and by that of the policy in use.
    pub fn simulator(
        &self,
        policy: Arc<PricingPolicy>,
        scope: RecalculationScope,
        now: DateTime<Utc>,
    ) -> Simulator {
        let policies = self.policies.snapshot();
        let mut breakers: Vec<(CircuitBreaker, Vec<PanelShopper>)> = Vec::with_capacity(2);
        let mut panel: Vec<PanelShopper> = Vec::new();
        for breaker in [&policy.circuit_breaker, &policies.current().circuit_breaker] {
            // The report has the policy's own panel, even if its circuit breaker has no limit.
            if breakers.is_empty() || !breaker.is_off() {
                let shoppers = breaker.panel.shoppers(policies.location_factors());
                for shopper in &shoppers {
                    if !panel.contains(shopper) {
                        panel.push(shopper.clone());
                    }
                }
                breakers.push((breaker.clone(), shoppers));
            }
        }
        Simulator {
            store: self.store.clone(),
            policies: self.policies.clone(),
            simulation: Simulation::of(&policy).with_panel(&panel),
            breakers,
            panel,
            policy,
            scope,
            now,
            after: None,
            is_over: false,
            later: Vec::new(),
        }
    }
}

impl Simulator {
    /// Whether a circuit breaker has a limit.
    pub fn is_judged(&self) -> bool {
        !self.breakers.iter().all(|(breaker, _)| breaker.is_off())
    }

    /// Also simulates the foreseeable instants at which a window or a schedule of the policy begins or ends,
    /// so that a policy is judged by its later effects, too.
    pub fn with_later_instants(mut self) -> Self {
        let instants = self.policy.instants_after(self.now);
        let later = |instant| (instant, Simulation::default().with_panel(&self.panel));
        self.later = instants.into_iter().map(later).collect();
        self
    }

    /// Returns the number of products in scope.
    pub async fn count(&self) -> Result<u64, StoreError> {
        self.store.count_products_of(&self.scope).await
    }

    /// Simulates the next page and returns its prices as of the first instant, ordered by identifier; empty
    /// at the end.
    pub async fn next_page(&mut self) -> Result<Vec<SimulatedPrice>, StoreError> {
        while !self.is_over {
            let ids = self.store.product_ids_of(&self.scope, self.after.as_ref(), RANGE_LENGTH).await?;
            self.is_over = ids.is_empty() || matches!(self.scope.products(), RecalculationScope::Products(_));
            self.after = ids.last().cloned().or(self.after.take());
            let Readable { known: facts, left_out } = self.store.facts(&ids, self.now).await?;
            left_out.into_iter().for_each(|product| self.simulation.leave_out(product.product_id));
            let prices = self.simulate(&facts).await;
            // All products of a page may have been removed since its identifiers were read.
            if !prices.is_empty() {
                return Ok(prices);
            }
        }
        Ok(Vec::new())
    }

    /// Adds the prices of these products, and returns those as of the first instant. Between two instants,
    /// other tasks get a turn.
    async fn simulate(&mut self, page: &[StoredFacts]) -> Vec<SimulatedPrice> {
        let Self { policies, policy, panel, now, simulation, later, scope, .. } = self;
        let limiting = if scope.is_released() { MoveLimiting::Released } else { MoveLimiting::Limited };
        let before: Vec<(Before<'_>, FinalPrices)> = {
            let policies = policies.snapshot();
            let policy_of = |version| policies.policy(version).cloned();
            let before = page.iter().map(|facts| {
                let before = Before::of(facts, policy_of, *now);
                let in_effect = final_prices_in_effect(facts, &before, panel, &policies, *now);
                (before, in_effect)
            });
            before.collect()
        };
        let page = || page.iter().zip(&before);
        let simulated = |facts: &StoredFacts,
                         (before, in_effect): &(Before<'_>, FinalPrices),
                         instant: DateTime<Utc>| {
            let computed = compute(facts, before, policy, instant, limiting);
            let list_price = &computed.list_price;
            SimulatedPrice::new(&list_price.explanation.facts, computed.old_list_price, list_price, policy)
                .with_final_prices(in_effect, &computed.entry.final_prices(panel, policy, instant))
        };
        let prices: Vec<SimulatedPrice> =
            page().map(|(facts, before)| simulated(facts, before, *now)).collect();
        prices.iter().for_each(|price| simulation.add(price));
        for (instant, simulation) in later {
            tokio::task::yield_now().await;
            for (facts, before) in page() {
                simulation.add(&simulated(&at(facts, *now, *instant), before, *instant));
            }
        }
        prices
    }

    /// Simulates all remaining pages while `go_on` returns true.
    pub async fn run(&mut self, go_on: impl Fn() -> bool) -> Result<(), StoreError> {
        while go_on() && !self.next_page().await?.is_empty() {}
        Ok(())
    }

    /// Returns the simulation so far, as of the first instant.
    pub fn simulation(&self) -> &Simulation {
        &self.simulation
    }

    /// Returns the reasons to hold by the circuit breakers, in words.
    pub async fn reasons_to_hold(&self) -> Result<Vec<String>, StoreError> {
        if !self.is_judged() {
            return Ok(Vec::new());
        }
        // Fractions refer to the whole catalogue: all products of a small category may move.
        let products = self.store.count_products().await?;
        let mut reasons: Vec<String> = Vec::new();
        let first = std::iter::once((None, &self.simulation));
        let later = self.later.iter().map(|(instant, simulation)| (Some(*instant), simulation));
        for (instant, simulation) in first.chain(later) {
            let mut simulation = simulation.clone();
            simulation.add_unmoved(products.saturating_sub(simulation.list_prices().products()));
            let holds = |(breaker, panel): &(CircuitBreaker, Vec<PanelShopper>)| {
                breaker.reasons_to_hold(&simulation, panel)
            };
            for held in self.breakers.iter().flat_map(holds) {
                let reason = match instant {
                    None => held.to_string(),
                    Some(instant) => format!("at {}, {held}", instant.format("%FT%TZ")),
                };
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
            }
        }
        reasons.truncate(MAX_REASONS);
        Ok(reasons)
    }
}

/// Returns the facts as of a later instant, if nothing else changes.
fn at(facts: &StoredFacts, now: DateTime<Utc>, later: DateTime<Utc>) -> Cow<'_, StoredFacts> {
    match facts.signals.next_expiry(now) {
        Some(end) if end <= later => {
            Cow::Owned(StoredFacts { signals: facts.signals.clone().as_of(later), ..facts.clone() })
        }
        _ => Cow::Borrowed(facts),
    }
}

/// The most reasons that are returned.
const MAX_REASONS: usize = 10;

/// Returns what the panel's shoppers pay now, by the policy that the stored price is quoted by; empty if
/// there is no price in the product's currency.
pub(super) fn final_prices_in_effect(
    facts: &StoredFacts,
    before: &Before<'_>,
    panel: &[PanelShopper],
    policies: &PolicySnapshot,
    now: DateTime<Utc>,
) -> FinalPrices {
    let currency = facts.product.currency;
    let Some(price) = facts.price.as_ref().filter(|price| price.entry.currency == currency) else {
        return FinalPrices::new();
    };
    match policies.policy(price.entry.policy_version) {
        Some(policy) => price.entry.final_prices(panel, policy, now),
        // The policy is no longer kept, so the next request prices the product by the current one.
        None => {
            let current = policies.current();
            compute(facts, before, current, now, MoveLimiting::Limited)
                .entry
                .final_prices(panel, current, now)
        }
    }
}
