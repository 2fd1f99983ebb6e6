//! What is wrong with a piece of input, said so that its author can mend it.

use std::fmt;

use serde::Serialize;

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
    pub place: Option<Place>,
}

/// A place in a document; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The character in the line.
    pub column: u32,
}

impl Diagnostic {
    /// A diagnostic that says what is wrong and what is allowed.
    pub fn new(field: impl Into<String>, problem: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into(), allowed: Some(allowed.into()), place: None }
    }

    /// A diagnostic whose problem already says what would be right.
    pub fn bare(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into(), allowed: None, place: None }
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

/// A value as an error message may repeat it: at most 40 characters, control characters made visible.
pub fn shorten(written: &str) -> String {
    const MAX_CHARS: usize = 40;
    let mut shown: String = written.chars().take(MAX_CHARS).flat_map(char::escape_debug).collect();
    if written.chars().nth(MAX_CHARS).is_some() {
        shown.push('…');
    }
    shown
}
