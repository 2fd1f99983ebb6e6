//! Errors: RFC 9457 problem documents. `error` in `pricing-api` lists their types.

use std::borrow::Cow;
use std::fmt;

use pricing_domain::diagnostic::Diagnostic;
use serde::{Deserialize, Serialize};

/// A problem document (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// The problem type; stable.
    #[serde(rename = "type", default)]
    #[schema(required, example = "/problems/invalid-request")]
    pub kind: Cow<'static, str>,
    /// The problem type, in words.
    pub title: Cow<'static, str>,
    /// The HTTP status code.
    #[serde(default)]
    #[schema(required)]
    pub status: u16,
    /// This occurrence of the problem, in words.
    #[serde(default)]
    #[schema(required)]
    pub detail: String,
    /// The invalid fields; absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// For an import that ended early, the number of rows that are stored; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub rows_stored: Option<u64>,
}

/// An invalid field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FieldError {
    /// The field, such as `market[0].when`.
    pub field: String,
    /// The problem, in words.
    pub problem: String,
    /// The allowed values, in words; absent if not stated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    /// The line in a policy, from 1; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The character in that line, from 1; absent without `line`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

impl FieldError {
    /// Converts diagnostics.
    pub fn each_of(diagnostics: Vec<Diagnostic>) -> Vec<Self> {
        diagnostics.into_iter().map(Self::from).collect()
    }
}

impl From<Diagnostic> for FieldError {
    fn from(diagnostic: Diagnostic) -> Self {
        let Diagnostic { field, problem, allowed, place, .. } = diagnostic;
        let (line, column) = place.map(|place| (place.line, place.column)).unzip();
        Self { field, problem, allowed, line, column }
    }
}

/// Formats it as the domain formats the diagnostic.
impl fmt::Display for FieldError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allowed = self.allowed.clone();
        Diagnostic { allowed, ..Diagnostic::bare(&*self.field, &*self.problem) }.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use pricing_domain::diagnostic::Location;

    use super::*;

    #[test]
    fn a_field_error_reads_as_its_diagnostic() {
        let bare = Diagnostic::bare("name", "is too long");
        let full = Diagnostic::new("market[0].when", "unknown variable \"stock.levle\"", "stock.level");
        let placed = Diagnostic { place: Some(Location { line: 4, column: 5 }), ..full.clone() };
        for (diagnostic, json) in [
            (bare, r#"{"field":"name","problem":"is too long"}"#),
            (
                full,
                r#"{"field":"market[0].when","problem":"unknown variable \"stock.levle\"","allowed":"stock.level"}"#,
            ),
            (
                placed,
                r#"{"field":"market[0].when","problem":"unknown variable \"stock.levle\"","allowed":"stock.level","line":4,"column":5}"#,
            ),
        ] {
            let error = FieldError::from(diagnostic.clone());
            assert_eq!(error.to_string(), diagnostic.to_string());
            assert_eq!(serde_json::to_string(&error).unwrap(), json);
            assert_eq!(serde_json::from_str::<FieldError>(json).unwrap(), error);
        }
    }

    #[test]
    fn a_problem_may_leave_out_all_but_its_title() {
        let problem: Problem = serde_json::from_str(r#"{"title":"Overloaded","retry":1}"#).unwrap();
        assert_eq!((&*problem.kind, &*problem.title, problem.status), ("", "Overloaded", 0));
        assert_eq!((&*problem.detail, problem.errors.len()), ("", 0));
    }
}
