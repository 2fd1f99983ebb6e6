//! What a policy would do, without doing it: the prices that a recalculation would make, page by page.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::Repricer;
use super::compute::compute;
use crate::catalogue::{Catalogue, CatalogueError};
use crate::domain::circuit_breaker::{CircuitBreaker, Held};
use crate::domain::policy::PricingPolicy;
use crate::domain::product::ProductId;
use crate::domain::recalculation::Scope;
use crate::domain::simulation::{SimulatedPrice, Simulation};
use crate::jobs::RANGE_LENGTH;

/// Goes through the products once. Nothing is written, and nothing is locked: what changes meanwhile is seen as it is
/// when its page is read.
pub struct Simulator {
    catalogue: Catalogue,
    policy: Arc<PricingPolicy>,
    scope: Scope,
    now: DateTime<Utc>,
    after: Option<ProductId>,
    is_over: bool,
}

impl Repricer {
    /// A simulation of this policy, which need not be published, as of an instant.
    pub fn simulator(&self, policy: Arc<PricingPolicy>, scope: Scope, now: DateTime<Utc>) -> Simulator {
        Simulator { catalogue: self.catalogue.clone(), policy, scope, now, after: None, is_over: false }
    }

    /// What speaks against a recalculation by this policy, by each of these circuit breakers; nothing if all are off.
    /// `go_on` is asked before each page.
    pub async fn judge_recalculation(
        &self,
        policy: Arc<PricingPolicy>,
        scope: Scope,
        breakers: &[CircuitBreaker],
        go_on: impl Fn() -> bool,
    ) -> Result<Vec<Held>, CatalogueError> {
        let mut simulation = Simulation::default();
        if breakers.iter().all(CircuitBreaker::is_off) {
            return Ok(Vec::new());
        }
        let mut simulator = self.simulator(policy, scope, Utc::now());
        while go_on() {
            let page = simulator.next_page().await?;
            if page.is_empty() {
                break;
            }
            page.iter().for_each(|price| simulation.add(price));
        }
        // Parts are parts of the catalogue: all products of a small category may move.
        let products = self.catalogue.count_products().await?;
        simulation.add_unmoved(products.saturating_sub(simulation.moves()));
        Ok(breakers.iter().flat_map(|breaker| breaker.judge(&simulation)).collect())
    }
}

impl Simulator {
    /// How many products there are.
    pub async fn count(&self) -> Result<u64, CatalogueError> {
        self.catalogue.count_products_of(&self.scope).await
    }

    /// The next products, ordered by identifier; none if there are no more.
    pub async fn next_page(&mut self) -> Result<Vec<SimulatedPrice>, CatalogueError> {
        while !self.is_over {
            let ids = self.catalogue.product_ids_of(&self.scope, self.after.as_ref(), RANGE_LENGTH).await?;
            self.is_over = ids.is_empty() || matches!(self.scope, Scope::Products(_));
            self.after = ids.last().cloned().or(self.after.take());
            let facts = self.catalogue.facts(&ids).await?;
            let prices = facts.iter().map(|facts| {
                let computed = compute(facts, &self.policy, self.now);
                let list_price = &computed.list_price;
                SimulatedPrice::new(&list_price.explanation.facts, computed.old_list_price, list_price)
            });
            let prices: Vec<SimulatedPrice> = prices.collect();
            // All of a page may have been removed since its identifiers were read.
            if !prices.is_empty() {
                return Ok(prices);
            }
        }
        Ok(Vec::new())
    }
}
