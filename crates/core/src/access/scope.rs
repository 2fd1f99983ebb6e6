//! Scopes: what a key may be used for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A permission that routes ask for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
pub enum Scope {
    /// Prices for shoppers, and nothing of how they came about.
    #[serde(rename = "prices:read")]
    PricesRead,
    /// Products, explanations, history and changes of prices.
    #[serde(rename = "catalogue:read")]
    CatalogueRead,
    /// Putting, importing and deleting products.
    #[serde(rename = "catalogue:write")]
    CatalogueWrite,
    /// Policies, drafts, checks and simulations.
    #[serde(rename = "policies:read")]
    PoliciesRead,
    /// Drafts, publication and rollback of policies.
    #[serde(rename = "policies:write")]
    PoliciesWrite,
    /// Decisions about what a circuit breaker holds, and what would be held.
    #[serde(rename = "policies:approve")]
    PoliciesApprove,
    /// Publishing market events.
    #[serde(rename = "events:write")]
    EventsWrite,
    /// Recalculations, held moves, failed jobs and comparisons.
    #[serde(rename = "operations:read")]
    OperationsRead,
    /// Requesting recalculations and requeuing jobs.
    #[serde(rename = "operations:write")]
    OperationsWrite,
    /// Creating, rotating and revoking keys with any scope.
    #[serde(rename = "keys:admin")]
    KeysAdmin,
    /// The record of who changed what.
    #[serde(rename = "audit:read")]
    AuditRead,
    /// The metrics of the API.
    #[serde(rename = "metrics:read")]
    MetricsRead,
}

impl Scope {
    /// All of them, in the order of their bits.
    pub const ALL: [Self; 12] = [
        Self::PricesRead,
        Self::CatalogueRead,
        Self::CatalogueWrite,
        Self::PoliciesRead,
        Self::PoliciesWrite,
        Self::PoliciesApprove,
        Self::EventsWrite,
        Self::OperationsRead,
        Self::OperationsWrite,
        Self::KeysAdmin,
        Self::AuditRead,
        Self::MetricsRead,
    ];

    /// The scope in keys, answers and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PricesRead => "prices:read",
            Self::CatalogueRead => "catalogue:read",
            Self::CatalogueWrite => "catalogue:write",
            Self::PoliciesRead => "policies:read",
            Self::PoliciesWrite => "policies:write",
            Self::PoliciesApprove => "policies:approve",
            Self::EventsWrite => "events:write",
            Self::OperationsRead => "operations:read",
            Self::OperationsWrite => "operations:write",
            Self::KeysAdmin => "keys:admin",
            Self::AuditRead => "audit:read",
            Self::MetricsRead => "metrics:read",
        }
    }

    const fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A word that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{word}\" is no scope; scopes are {}", all())]
pub struct UnknownScope {
    /// As written, cut to a readable length.
    pub word: String,
}

fn all() -> String {
    Scope::ALL.map(Scope::as_str).join(", ")
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u32);

impl Scopes {
    /// Every scope: what a caller has where access control is off.
    pub const fn all() -> Self {
        Self((1 << Scope::ALL.len()) - 1)
    }

    /// Whether the set has this scope.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether the set has none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scopes, in a fixed order.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }

    /// Whether every scope of the other set is in this one.
    pub fn includes(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Display for Scopes {
    /// Separated by blanks, as in OAuth 2.0 (RFC 6749, 3.3).
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.iter().map(Scope::as_str).collect();
        formatter.write_str(&words.join(" "))
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(word: &str) -> Result<Self, UnknownScope> {
        let scope = Self::ALL.into_iter().find(|scope| scope.as_str() == word);
        scope.ok_or_else(|| UnknownScope { word: pricing_domain::diagnostic::shorten(word) })
    }
}

impl FromStr for Scopes {
    type Err = UnknownScope;

    /// Reads scopes separated by blanks or commas.
    fn from_str(written: &str) -> Result<Self, UnknownScope> {
        let words = written.split([' ', ',']).filter(|word| !word.is_empty());
        words.map(str::parse::<Scope>).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_they_are_written() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
            let json = serde_json::to_string(&scope).unwrap();
            assert_eq!(json, format!("\"{scope}\""));
        }
        let scopes: Scopes = "prices:read, keys:admin".parse().unwrap();
        assert_eq!(scopes.to_string(), "prices:read keys:admin");
        assert_eq!(scopes.to_string().parse(), Ok(scopes));
        assert!(Scopes::all().includes(scopes) && !scopes.includes(Scopes::all()));
        assert_eq!("".parse(), Ok(Scopes::default()));
        assert_eq!(Scopes::all(), Scope::ALL.into_iter().collect());
    }

    #[test]
    fn an_unknown_word_is_refused_with_the_list() {
        let refused = "prices:write".parse::<Scopes>().unwrap_err().to_string();
        assert!(refused.contains("\"prices:write\"") && refused.contains("catalogue:read"), "{refused}");
    }
}
