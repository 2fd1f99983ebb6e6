//! A rule as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::policy::ladder::{StepDraft, TierDraft};
use crate::policy::reference::CompetitorDraft;
use crate::policy::scalar::Scalar;
use crate::policy::selector::SelectorDraft;
use crate::policy::surge::SurgeDraft;
use crate::policy::window::ScheduleDraft;

/// A rule as written. Exactly one action is to be set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["name"]))]
pub struct RuleDraft {
    /// Names the rule in explanations; unique among the rules of its kind.
    pub name: String,
    /// Rules with a larger one come first; 0 if absent. Rules with the same one come as they are written.
    pub priority: Option<Scalar>,
    /// Applies only if this expression is true.
    pub when: Option<String>,
    /// Applies only to these products or shoppers.
    pub only: Option<SelectorDraft>,
    /// Applies from this instant on (RFC 3339), or, with a `zone`, from when its clock shows this:
    /// `2026-11-27 08:00`.
    pub from: Option<String>,
    /// Applies until just before this instant, or until the zone's clock shows this.
    pub until: Option<String>,
    /// Whose wall clock `from` and `until` are by where they have no offset: a name of the IANA time zone
    /// database, such as `Europe/Berlin`.
    pub zone: Option<Scalar>,
    /// Applies at these hours of the week.
    pub schedule: Option<ScheduleDraft>,
    /// Changes the price by a percentage (`-5%`) or an amount (`+0.50`).
    pub adjust: Option<Scalar>,
    /// Multiplies the price by the expression.
    pub multiply_by: Option<Scalar>,
    /// Sets the price to the expression.
    pub set_to: Option<Scalar>,
    /// Sets the price to a reference, plus an offset.
    #[serde(rename = "match")]
    pub match_reference: Option<MatchDraft>,
    /// Sets the price below a reference.
    pub beat: Option<BeatDraft>,
    /// Sets the price to a part of a reference.
    pub index: Option<IndexDraft>,
    /// Sets the price to the unit cost plus a percentage or an amount.
    pub cost_plus: Option<Scalar>,
    /// Sets the price so that this percentage of it is margin.
    pub target_margin: Option<Scalar>,
    /// Changes the price by how many days the stock lasts.
    pub stock_cover: Option<Vec<StepDraft>>,
    /// Changes the price by what part of the stock was sold.
    pub sell_through: Option<Vec<StepDraft>>,
    /// Raises the price with demand.
    pub surge: Option<SurgeDraft>,
    /// Changes the price of a unit by how many are bought.
    pub quantity_tiers: Option<Vec<TierDraft>>,
    /// Whether what an offer rule takes off counts in the shopper's `discount_rate`; true if absent.
    pub discount: Option<bool>,
}

/// `match` as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatchDraft {
    /// The expression to match.
    pub reference: Option<Scalar>,
    /// The competitor to match.
    pub competitor: Option<CompetitorDraft>,
    /// Added to it: an amount or a percentage of it; nothing if absent.
    pub offset: Option<Scalar>,
}

/// `beat` as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BeatDraft {
    /// The expression to stay below.
    pub reference: Option<Scalar>,
    /// The competitor to stay below.
    pub competitor: Option<CompetitorDraft>,
    /// By how much: a percentage or an amount, above 0.
    pub by: Scalar,
}

/// `index` as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IndexDraft {
    /// The expression the price is a part of.
    pub reference: Option<Scalar>,
    /// The competitor the price is a part of the price of.
    pub competitor: Option<CompetitorDraft>,
    /// Which part: 98% is two percent below.
    pub at: Scalar,
}
