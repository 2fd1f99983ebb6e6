//! Which of the rules that apply make the price.

use schemars::JsonSchema;
use serde::Deserialize;

/// Which of the rules that apply make the price.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Apply {
    /// Each moves the price that the one before it left.
    #[default]
    All,
    /// The first one; the others are not looked at.
    FirstMatch,
    /// The one that gives the lowest price; each starts from the list price.
    BestForShopper,
}
