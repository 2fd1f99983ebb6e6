//! Recalculations: their products ([`RecalculationScope`]) and state ([`RunState`]).

use serde::{Deserialize, Serialize};

use crate::facts::product::ProductId;

/// The products that a recalculation covers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecalculationScope {
    /// All products.
    All,
    /// The products of a category.
    Category(String),
    /// These products.
    Products(Vec<ProductId>),
    /// The products of another scope, whose held prices go to their targets.
    Released(Box<RecalculationScope>),
}

impl RecalculationScope {
    /// Returns the scope without [`Released`](Self::Released): which products it covers.
    pub fn products(&self) -> &Self {
        match self {
            Self::Released(scope) => scope.products(),
            scope => scope,
        }
    }

    /// Whether held prices go to their targets.
    pub fn is_released(&self) -> bool {
        matches!(self, Self::Released(_))
    }
}

/// The state of a recalculation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It was requested and has not started.
    Requested,
    /// The circuit breaker holds it until it is approved.
    Held,
    /// Its products are being priced.
    Running,
    /// Every product has been priced.
    Done,
    /// It was skipped because another run does the same work.
    Skipped,
    /// It failed; some of its products may have been priced.
    Failed,
}

impl RunState {
    /// All states.
    pub const ALL: [Self; 6] =
        [Self::Requested, Self::Held, Self::Running, Self::Done, Self::Skipped, Self::Failed];

    /// The state's name, as stored and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Held => "held",
            Self::Running => "running",
            Self::Done => "done",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }

    /// Parses a state's name.
    pub fn parse(written: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == written)
    }

    /// Whether the state is final.
    pub fn is_final(self) -> bool {
        match self {
            Self::Requested | Self::Held | Self::Running => false,
            Self::Done | Self::Skipped | Self::Failed => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_reads_as_it_was_written() {
        let products =
            RecalculationScope::Products(["P-1", "P-2"].map(|id| ProductId::parse(id).unwrap()).to_vec());
        for (scope, written) in [
            (RecalculationScope::All, r#""all""#),
            (RecalculationScope::Released(Box::new(RecalculationScope::All)), r#"{"released":"all"}"#),
            (RecalculationScope::Category("kitchen".to_owned()), r#"{"category":"kitchen"}"#),
            (products, r#"{"products":["P-1","P-2"]}"#),
        ] {
            assert_eq!(serde_json::to_string(&scope).unwrap(), written);
            assert_eq!(serde_json::from_str::<RecalculationScope>(written).unwrap(), scope);
        }
    }

    #[test]
    fn every_state_has_one_name() {
        for state in RunState::ALL {
            assert_eq!(RunState::parse(state.name()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
        assert_eq!(RunState::parse("waiting"), None);
    }
}
