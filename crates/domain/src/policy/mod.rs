//! Policies: rules, guardrails, rounding and a circuit breaker, as one document of a pricing team.
//!
//! Here: the document as written ([`PolicyDraft`], `rule_draft`), its check, which reports all problems at
//! once, and the checked policy ([`PricingPolicy`]) with the effect of each part on a price. Never here: the
//! order in which the parts are applied, which [`pricing`](crate::pricing) defines.
//!
//! Where next: [`rule`] and [`action`] for how a rule changes a price, [`guardrail`] for its limits,
//! [`rounding`] for the only place where it is rounded.

pub mod action;
mod action_check;
pub(crate) mod age;
pub mod apply;
pub mod change;
pub(crate) mod check;
pub mod circuit_breaker;
pub(crate) mod document;
pub(crate) mod examine;
pub mod guardrail;
pub mod ladder;
pub mod move_limit;
pub(crate) mod places;
pub(crate) mod pricing_policy;
pub mod reference;
pub mod rounding;
pub mod rule;
mod rule_check;
pub mod rule_draft;
pub mod scalar;
pub mod selector;
pub mod surge;
pub mod view;
pub(crate) mod warning;
pub mod window;

pub use check::{DEFAULT_POLICY, MAX_RULES};
pub use document::{
    ApplyDraft, CompetitorLoopDraft, GuardrailsDraft, MAX_POLICY_BYTES, PolicyDraft, RoundingDraft,
};
pub use pricing_policy::{MAX_INSTANTS, PricingPolicy};
