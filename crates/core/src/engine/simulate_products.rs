//! Simulates changed products: computes the list prices that storing them would make, without writes or
//! locks.
//!
//! The same code as in [`products`](super::products) decides which products differ and which are priced
//! again, so that a batch of products that is stored moves as it did when it was simulated.

use std::sync::Arc;

use chrono::{DateTime, SubsecRound, Utc};

use super::compute::{Before, Computed, compute};
use super::pieces::spawn_compute;
use super::products::{Comparison, PutSummary, compare, in_order, keep_cost_statements, needs_price};
use super::simulate::final_prices_in_effect;
use super::{Engine, EngineError};
use crate::store::{StoreError, StoredFacts};
use pricing_domain::facts::product::{Product, ProductId};
use pricing_domain::policy::PricingPolicy;
use pricing_domain::policy::circuit_breaker::CircuitBreaker;
use pricing_domain::policy::panel::PanelShopper;
use pricing_domain::pricing::price::MoveLimiting;
use pricing_domain::pricing::simulation::{SimulatedPrice, Simulation};

/// The effect that storing a batch of products would have.
pub struct SimulatedProducts {
    /// The effect.
    pub summary: PutSummary,
    /// The policy by which it was computed.
    pub policy: Arc<PricingPolicy>,
}

impl Engine {
    /// Returns the effect that [`store_products`](Self::store_products) would have, by the policy in use.
    /// The moves have the final prices of this panel's shoppers, too.
    pub async fn simulate_products(
        &self,
        products: Vec<Product>,
        stated_at: DateTime<Utc>,
        panel: Arc<[PanelShopper]>,
    ) -> Result<SimulatedProducts, EngineError> {
        let mut products = in_order(products, stated_at);
        let ids: Vec<ProductId> = products.iter().map(|product| product.product_id.clone()).collect();
        let stored = self.store.products(&ids).await?;
        keep_cost_statements(&stored.known, &mut products);
        let Comparison { mut summary, differences, .. } = compare(&stored, &products);
        let now = self.clock.now().trunc_subsecs(6);
        let facts = self.store.facts_of(products, now).await?.known;
        let policy = self.policy_for(&facts).await?;
        let (engine, by) = (self.clone(), Arc::clone(&policy));
        let computing = async move {
            let is_priced_again = |facts: &&StoredFacts| {
                let price = facts.price.as_ref();
                price.is_some_and(|price| !engine.is_servable(price) || needs_price(&differences, facts, &by))
            };
            let priced = facts.iter().filter(is_priced_again);
            let policies = engine.policies.snapshot();
            let move_of = |facts| {
                let before = Before::of(facts, |version| policies.policy(version).cloned(), now);
                let computed = compute(facts, &before, &by, now, MoveLimiting::Limited);
                let moved = move_of(facts, &computed, &by)?;
                let in_effect = final_prices_in_effect(facts, &before, &panel, &policies, now);
                Some(moved.with_final_prices(&in_effect, &computed.entry.final_prices(&panel, &by, now)))
            };
            priced.filter_map(move_of).collect()
        };
        summary.moves = spawn_compute(ids.len(), computing).await.map_err(|_| EngineError::Interrupted)?;
        Ok(SimulatedProducts { summary, policy })
    }

    /// Returns the panel of the circuit breaker in use, with the factors of its shoppers' locations.
    pub fn panel_in_use(&self) -> Arc<[PanelShopper]> {
        let policies = self.policies.snapshot();
        policies.current().circuit_breaker.panel.shoppers(policies.location_factors()).into()
    }

    /// Returns the reasons to hold these moves of some products by this circuit breaker, in words. All other
    /// products of the catalogue count as unmoved.
    pub async fn reasons_to_hold(
        &self,
        moves: &Simulation,
        breaker: &CircuitBreaker,
        panel: &[PanelShopper],
    ) -> Result<Vec<String>, StoreError> {
        if breaker.is_off() {
            return Ok(Vec::new());
        }
        let products = self.store.count_products().await?;
        let mut moves = moves.clone();
        moves.add_unmoved(products.saturating_sub(moves.list_prices().products()));
        Ok(breaker.reasons_to_hold(&moves, panel).iter().map(ToString::to_string).collect())
    }
}

/// The move of a product that had a price, if its list price moves or is frozen, or its entry changes.
pub(super) fn move_of(
    facts: &StoredFacts,
    computed: &Computed<'_>,
    policy: &PricingPolicy,
) -> Option<SimulatedPrice> {
    let list_price = &computed.list_price;
    let stays =
        computed.old_list_price == Some(list_price.amount) && !computed.is_frozen() && !computed.changed;
    if facts.price.is_none() || stays {
        return None;
    }
    Some(SimulatedPrice::new(&list_price.explanation.facts, computed.old_list_price, list_price, policy))
}
