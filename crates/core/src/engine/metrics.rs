//! Metrics of the computation of prices.

use std::collections::BTreeMap;

use pricing_domain::policy::guardrail::GuardrailName;

use crate::telemetry::inventory::names::{
    CATALOGUES_REPLACED, EVENT_HOLDS, GUARDRAIL_HITS, PRICES_COMPUTED, TRANSACTIONS_SERVED_LATE,
};
use crate::telemetry::registry::{Counter, Registry};

#[derive(Debug)]
pub(super) struct PricingMetrics {
    pub(super) priced: Counter,
    pub(super) frozen: Counter,
    /// Moves that market events cause and the circuit breaker began to hold.
    pub(super) event_holds: Counter,
    /// Databases that were replaced by another, or by an earlier state.
    pub(super) catalogues_replaced: Counter,
    /// Transactions whose prices were served in place of their process.
    pub(super) served_late: Counter,
    guardrail_hits: BTreeMap<GuardrailName, Counter>,
}

impl PricingMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let computed = |outcome| registry.labelled_counter(PRICES_COMPUTED, "outcome", outcome);
        let hits =
            |name: GuardrailName| (name, registry.labelled_counter(GUARDRAIL_HITS, "guardrail", name.name()));
        Self {
            priced: computed("priced"),
            frozen: computed("frozen"),
            event_holds: registry.counter(EVENT_HOLDS),
            catalogues_replaced: registry.counter(CATALOGUES_REPLACED),
            served_late: registry.counter(TRANSACTIONS_SERVED_LATE),
            guardrail_hits: GuardrailName::ALL.map(hits).into_iter().collect(),
        }
    }

    /// Records that a guardrail limited a list price.
    pub(super) fn record_guardrail(&self, name: GuardrailName) {
        if let Some(hits) = self.guardrail_hits.get(&name) {
            hits.increment(1);
        }
    }
}
