//! Diagnostics: what is wrong with a piece of input, in a form that lets its author correct it.

use std::fmt;

use serde::Serialize;

/// How severe a diagnostic is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Severity {
    /// The input has no meaning.
    #[default]
    Error,
    /// The input has a meaning that cannot be intended. It is refused, except in a policy that was published
    /// before the engine had the check: that one keeps its meaning and gets a warning.
    Refused,
    /// The input is allowed, and probably not intended.
    Warning,
}

/// One thing wrong with a draft: where, what, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The field, as the author wrote it: `base_price`, `market[2].when`.
    pub field: String,
    /// What was wrong, with the offending value where it is short.
    pub problem: String,
    /// What is allowed instead, where one sentence can say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    /// Where the field stands, if what was written is a document.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub place: Option<Location>,
    /// How severe it is; on the wire, the list that a diagnostic is in says so.
    #[serde(skip)]
    pub severity: Severity,
    /// Where in the field's text it is, in bytes; documents turn it into a place.
    #[serde(skip)]
    pub offset: Option<usize>,
}

/// A place in a document; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The line.
    pub line: u32,
    /// The character in the line.
    pub column: u32,
}

impl Diagnostic {
    /// A diagnostic that says what is wrong and what is allowed.
    pub fn new(field: impl Into<String>, problem: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { allowed: Some(allowed.into()), ..Self::bare(field, problem) }
    }

    /// A diagnostic whose problem already says what would be right.
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

    /// Whether it prevents publishing.
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

/// The known name that is most similar to what was written, if one is similar enough: `product.unit_cost` for
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

/// A value as an error message may repeat it: at most 40 characters, control characters made visible.
pub fn shorten(written: &str) -> String {
    const MAX_CHARS: usize = 40;
    let mut shown: String = written.chars().take(MAX_CHARS).flat_map(char::escape_debug).collect();
    if written.chars().nth(MAX_CHARS).is_some() {
        shown.push('…');
    }
    shown
}
