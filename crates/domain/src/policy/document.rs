//! A policy as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::facts::arithmetic::RoundingMode;
use crate::policy::apply::Apply;
use crate::policy::circuit_breaker::CircuitBreakerDraft;
use crate::policy::rule_draft::RuleDraft;
use crate::policy::scalar::Scalar;

/// The largest policy document, in bytes.
pub const MAX_POLICY_BYTES: usize = 256 * 1024;

/// A policy as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["name"]))]
pub struct PolicyDraft {
    /// What people call it.
    pub name: String,
    /// Which of the rules that apply make the price.
    pub apply: ApplyDraft,
    /// Applied in order to the base price when facts change; they make the list price.
    pub market: Vec<RuleDraft>,
    /// Applied in order to the list price, for one shopper.
    pub offer: Vec<RuleDraft>,
    /// What no price may do.
    pub guardrails: GuardrailsDraft,
    /// How prices are rounded.
    pub rounding: RoundingDraft,
    /// When a recalculation is held until it is approved.
    pub circuit_breaker: Option<CircuitBreakerDraft>,
}

/// `apply` as written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ApplyDraft {
    /// Of the market rules.
    pub market: Apply,
    /// Of the offer rules.
    pub offer: Apply,
}

/// `guardrails` as written; each is a percentage unless something else is said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GuardrailsDraft {
    /// The least part of a price that is margin over the unit cost: `10%`.
    pub min_margin: Option<Scalar>,
    /// The most that the market moves a price in one step interval: `15%`.
    pub max_step: Option<Scalar>,
    /// The length of a step interval, at least a minute: `1h`, which is the default. Where
    /// `min_time_between_changes` is given, that is its length.
    pub step_interval: Option<Scalar>,
    /// The least part of the base price that a price is: `80%`.
    pub floor_of_base: Option<Scalar>,
    /// The largest part of the base price that a price is: `120%`.
    pub ceiling_of_base: Option<Scalar>,
    /// The largest change from the first price of the day (UTC): `30%`.
    pub max_daily_move: Option<Scalar>,
    /// How long a price stays before the market may change it again: `6h`.
    pub min_time_between_changes: Option<Scalar>,
    /// When following competitors counts as chasing one's own tail.
    pub competitor_loop: Option<CompetitorLoopDraft>,
}

/// `competitor_loop` as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompetitorLoopDraft {
    /// How many changes in one direction, all because of competitors.
    pub moves: Scalar,
    /// Within what time from the first one on: `24h`.
    pub within: Scalar,
}

/// `rounding` as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RoundingDraft {
    /// Where halves go; `half_even` if absent.
    pub mode: Option<RoundingMode>,
    /// The smallest step between prices: `0.05`.
    pub increment: Option<Scalar>,
    /// What the price ends in: `0.99`.
    pub ending: Option<Scalar>,
    /// What the price ends in: one of these.
    pub endings: Vec<Scalar>,
    /// The only prices there are.
    pub price_points: Vec<Scalar>,
}
