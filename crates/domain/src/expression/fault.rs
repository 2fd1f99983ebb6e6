//! Faults of expressions, with their positions.

use crate::diagnostic::Severity;
use crate::expression::variable::Variable;

/// The longest suggestion of how to write something, in bytes.
pub(crate) const MAX_ALLOWED_BYTES: usize = 600;

/// The longest expression, in bytes. It bounds the parser's recursion and the evaluation time.
pub const MAX_SOURCE_BYTES: usize = 1_024;

/// The reason that a text is not an expression that a rule may use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpressionError {
    /// Nothing but white space.
    #[error("is empty")]
    Empty,
    /// Longer than [`MAX_SOURCE_BYTES`].
    #[error("is {0} bytes long, more than {MAX_SOURCE_BYTES}")]
    TooLong(usize),
    /// The parser refused it.
    #[error("cannot be read: {0}")]
    Syntax(String),
    /// It parses but uses something that rules may not.
    #[error("uses {0}, which rules may not")]
    NotAllowed(String),
    /// An age is used other than in a comparison with a number.
    #[error(
        "uses {name} otherwise than compared with a number; write \"{name} < 24\", with <, <=, > or >=, or \
         \"({name} ?? 999) < 24\" where it may be unknown",
        name = .0.name()
    )]
    AgeNotCompared(Variable),
    /// No such variable in this kind of rule.
    #[error("unknown variable \"{0}\"")]
    UnknownVariable(String),
}

/// A fault of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) severity: Severity,
    /// The byte offset at which it begins.
    pub(crate) at: usize,
    pub(crate) problem: String,
    /// How to write it.
    pub(crate) allowed: Option<String>,
}

/// Shortens a part of an expression for a message.
pub(crate) fn excerpt(text: &str) -> String {
    const MAX_CHARS: usize = 80;
    let shown: String = text.chars().take(MAX_CHARS).collect();
    if text.chars().nth(MAX_CHARS).is_some() { shown + "…" } else { shown }
}

/// Replaces white space by spaces and removes other control characters.
pub(crate) fn in_a_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let blank = |character: char| if character.is_whitespace() { ' ' } else { character };
    text.chars().map(blank).filter(|character| !character.is_control()).collect()
}
