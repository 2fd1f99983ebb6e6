//! Recalculations: which products, and how far they are.

use serde::{Deserialize, Serialize};

use super::product::ProductId;

/// Which products a recalculation is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The whole catalogue.
    All,
    /// The products of a category.
    Category(String),
    /// These products.
    Products(Vec<ProductId>),
}

/// How far a recalculation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It waits for its turn.
    Requested,
    /// Its products are being priced.
    Running,
    /// All its products are priced.
    Done,
    /// Another one does its work.
    Skipped,
    /// It was given up.
    Failed,
}

impl RunState {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Requested, Self::Running, Self::Done, Self::Skipped, Self::Failed];

    /// The state's name, as the catalogue and the API have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Running => "running",
            Self::Done => "done",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }

    /// The state of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}
