//! Simulates a policy: computes the prices of a recalculation page by page, without writing them.

use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::Engine;
use super::compute::{Before, compute};
use crate::jobs::RANGE_LENGTH;
use crate::policy_snapshot::Policies;
use crate::store::{Readable, Store, StoreError, StoredFacts};
use pricing_domain::facts::product::ProductId;
use pricing_domain::facts::recalculation::RecalculationScope;
use pricing_domain::policy::PricingPolicy;
use pricing_domain::policy::circuit_breaker::CircuitBreaker;
use pricing_domain::pricing::price::MoveLimiting;
use pricing_domain::pricing::simulation::{SimulatedPrice, Simulation};

/// Iterates over the products once, without writes or locks: each page is read as of its own time.
pub struct Simulator {
    store: Store,
    policies: Policies,
    policy: Arc<PricingPolicy>,
    scope: RecalculationScope,
    now: DateTime<Utc>,
    after: Option<ProductId>,
    is_over: bool,
    simulation: Simulation,
    /// The simulations as of later instants, at which the policy changes with time.
    later: Vec<(DateTime<Utc>, Simulation)>,
}

impl Engine {
    /// Creates a simulation of this policy, which need not be published, as of an instant.
    pub fn simulator(
        &self,
        policy: Arc<PricingPolicy>,
        scope: RecalculationScope,
        now: DateTime<Utc>,
    ) -> Simulator {
        Simulator {
            store: self.store.clone(),
            policies: self.policies.clone(),
            simulation: Simulation::of(&policy),
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
    /// Also simulates the foreseeable instants at which a window or a schedule of the policy begins or ends,
    /// so that a policy is judged by its later effects, too.
    pub fn with_later_instants(mut self) -> Self {
        let instants = self.policy.instants_after(self.now);
        self.later = instants.into_iter().map(|instant| (instant, Simulation::default())).collect();
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
            self.is_over = ids.is_empty() || matches!(self.scope, RecalculationScope::Products(_));
            self.after = ids.last().cloned().or(self.after.take());
            let Readable { known: facts, left_out } = self.store.facts(&ids, self.now).await?;
            left_out.into_iter().for_each(|product| self.simulation.leave_out(product.product_id));
            let policies = self.policies.snapshot();
            let policy_of = |version| policies.policy(version).cloned();
            let before: Vec<Before<'_>> =
                facts.iter().map(|facts| Before::of(facts, policy_of, self.now)).collect();
            let priced = facts.iter().zip(&before);
            let prices: Vec<SimulatedPrice> = priced
                .clone()
                .map(|(facts, before)| simulated(facts, before, &self.policy, self.now))
                .collect();
            prices.iter().for_each(|price| self.simulation.add(price));
            for (instant, simulation) in &mut self.later {
                for (facts, before) in priced.clone() {
                    let facts = at(facts, self.now, *instant);
                    simulation.add(&simulated(&facts, before, &self.policy, *instant));
                }
            }
            // All products of a page may have been removed since its identifiers were read.
            if !prices.is_empty() {
                return Ok(prices);
            }
        }
        Ok(Vec::new())
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

    /// Returns the reasons to hold by these circuit breakers, in words.
    pub async fn reasons_to_hold(&self, breakers: &[CircuitBreaker]) -> Result<Vec<String>, StoreError> {
        if breakers.iter().all(CircuitBreaker::is_off) {
            return Ok(Vec::new());
        }
        // Fractions refer to the whole catalogue: all products of a small category may move.
        let products = self.store.count_products().await?;
        let mut reasons: Vec<String> = Vec::new();
        let first = std::iter::once((None, &self.simulation));
        let later = self.later.iter().map(|(instant, simulation)| (Some(*instant), simulation));
        for (instant, simulation) in first.chain(later) {
            let mut simulation = simulation.clone();
            simulation.add_unmoved(products.saturating_sub(simulation.moves()));
            for held in breakers.iter().flat_map(|breaker| breaker.reasons_to_hold(&simulation)) {
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

fn simulated(
    facts: &StoredFacts,
    before: &Before<'_>,
    policy: &PricingPolicy,
    now: DateTime<Utc>,
) -> SimulatedPrice {
    let computed = compute(facts, before, policy, now, MoveLimiting::Limited);
    let list_price = &computed.list_price;
    SimulatedPrice::new(&list_price.explanation.facts, computed.old_list_price, list_price, policy)
}
