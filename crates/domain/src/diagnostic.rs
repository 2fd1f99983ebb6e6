//! Diagnostics: problems in an input, described so that its author can correct them.

use std::fmt;

use serde::Serialize;

/// How severe a diagnostic is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Severity {
    /// The input is invalid.
    #[default]
    Error,
    /// The input is valid but cannot be intended. It is refused, except in a policy published before the
    /// check existed: that policy keeps its meaning and gets a warning.
    Refused,
    /// The input is allowed but probably not intended.
    Warning,
}

/// A problem in a draft: its field, its description, and what is allowed instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The field, as the author wrote it: `base_price`, `market[2].when`.
    pub field: String,
    /// The problem, with the offending value if that is short.
    pub problem: String,
    /// What is allowed instead, if one sentence can state it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    /// The field's position, if the input is a document.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub place: Option<Location>,
    /// The severity; on the wire, it follows from the list that holds the diagnostic.
    #[serde(skip)]
    pub severity: Severity,
    /// The byte offset in the field's text; a document converts it to `place`.
    #[serde(skip)]
    pub offset: Option<usize>,
}

/// A position in a document; line and column count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The line.
    pub line: u32,
    /// The character in the line.
    pub column: u32,
}

impl Diagnostic {
    /// Creates a diagnostic that states the problem and what is allowed.
    pub fn new(field: impl Into<String>, problem: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { allowed: Some(allowed.into()), ..Self::bare(field, problem) }
    }

    /// Creates a diagnostic whose problem already states the correction.
    pub fn bare(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
            allowed: None,
            place: None,
            severity: Severity::Error,
            offset: None,
        }
    }

    /// The same diagnostic with another severity.
    pub fn with_severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    /// Whether the diagnostic prevents publishing.
    pub fn is_refusal(&self) -> bool {
        self.severity != Severity::Warning
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.problem)?;
        match &self.allowed {
            Some(allowed) => write!(formatter, " (allowed: {allowed})"),
            None => Ok(()),
        }
    }
}

/// The number of diagnostics that are errors.
pub(crate) fn count_errors(problems: &[Diagnostic]) -> usize {
    problems.iter().filter(|problem| problem.severity == Severity::Error).count()
}

/// Returns the known name most similar to `written`, if one is similar enough: `product.unit_cost` for
/// `unit_cost`, and names within a few typing errors.
pub fn nearest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    const CHARS_AN_ERROR: usize = 4;
    let written = written.to_lowercase();
    let is_last_part = |name: &&&str| name.rsplit_once('.').is_some_and(|(_, last)| last == written);
    if let Some(name) = known.iter().find(is_last_part) {
        return Some(name);
    }
    let errors = |name: &str| strsim::osa_distance(&written, &name.to_lowercase());
    let best = known.iter().copied().min_by_key(|name| errors(name))?;
    (errors(best) <= written.chars().count().div_ceil(CHARS_AN_ERROR)).then_some(best)
}

/// Shortens a value for an error message: at most 40 characters, control characters escaped.
pub fn shorten(written: &str) -> String {
    const MAX_CHARS: usize = 40;
    let mut shown: String = written.chars().take(MAX_CHARS).flat_map(char::escape_debug).collect();
    if written.chars().nth(MAX_CHARS).is_some() {
        shown.push('…');
    }
    shown
}
