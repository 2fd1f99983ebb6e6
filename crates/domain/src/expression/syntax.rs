//! Parses expressions and keeps the position of each part; reports why an expression cannot be parsed.

use std::collections::HashMap;

use bumpalo::Bump;
use rust_decimal::Decimal;
use zen_expression::lexer::{
    ArithmeticOperator, ComparisonOperator, Lexer, LexerError, LogicalOperator, Operator, Token, TokenKind,
};
use zen_expression::parser::{AstNodeError, Node, NodeMetadata, Parser};

use crate::diagnostic::Severity;
use crate::expression::fault::{Fault, excerpt};

/// The functions that rules may use.
pub(crate) const FUNCTIONS: &str = "min, max, abs, floor, ceil, round, trunc";

/// Significant digits that every decimal can hold.
const MAX_DIGITS: usize = 28;

/// A parsed expression.
pub(crate) struct Parsed<'p, 'a> {
    pub(crate) root: &'a Node<'a>,
    source: &'a str,
    spans: &'p HashMap<usize, (u32, u32)>,
}

impl<'a> Parsed<'_, 'a> {
    /// The byte range of a part.
    pub(crate) fn span(&self, node: &Node<'a>) -> (usize, usize) {
        let (from, to) = self.spans.get(&address(node)).copied().unwrap_or_default();
        let from = match node {
            // The parser's span begins at the question mark.
            Node::Conditional { condition, .. } => self.span(condition).0,
            _ => from as usize,
        };
        (from, to as usize)
    }

    /// A part as written.
    pub(crate) fn text(&self, node: &Node<'a>) -> &'a str {
        let (from, to) = self.span(node);
        self.source.get(from..to).unwrap_or_default().trim()
    }
}

/// Runs `work` on a parsed expression, or returns why it cannot be parsed.
pub(crate) fn with_parsed<T>(source: &str, work: impl FnOnce(&Parsed<'_, '_>) -> T) -> Result<T, Vec<Fault>> {
    let bump = Bump::new();
    let source: &str = bump.alloc_str(source);
    let tokens = Lexer::new().tokenize(&bump, source).map_err(|error| vec![unread(&error, source)])?;
    let unusable: Vec<Fault> = tokens.iter().filter_map(unusable).collect();
    if !unusable.is_empty() {
        return Err(unusable);
    }
    let parser = Parser::try_new(&tokens, &bump)
        .map_err(|error| vec![fault(0, format!("cannot be read: {error}"), None)])?;
    let parsed = parser.standard().with_metadata().parse();
    let metadata = parsed.metadata.unwrap_or_default();
    let spans: HashMap<usize, (u32, u32)> =
        metadata.into_iter().map(|(node, NodeMetadata { span })| (node, span)).collect();
    let with_places = Parsed { root: parsed.root, source, spans: &spans };
    match parsed.root.first_error() {
        Some(error) => Err(vec![unparsed(&error, source)]),
        None if !parsed.is_complete => Err(vec![left_over(&tokens, with_places.span(parsed.root).1, source)]),
        None => Ok(work(&with_places)),
    }
}

/// Returns the key of a part: its address.
pub(crate) fn address(node: &Node<'_>) -> usize {
    std::ptr::from_ref(node) as usize
}

/// Returns the fault of a token that no rule may contain.
fn unusable(token: &Token<'_>) -> Option<Fault> {
    let at = token.span.0 as usize;
    match token.kind {
        TokenKind::Operator(Operator::Assign) => {
            Some(fault(at, "`=` is no comparison".to_owned(), Some("`==`".to_owned())))
        }
        TokenKind::Operator(Operator::Semi) => Some(fault(at, "`;` is not expected here".to_owned(), None)),
        TokenKind::Number if count_digits(token.value) > MAX_DIGITS => {
            let problem = format!("`{}` has more than {MAX_DIGITS} digits", excerpt(token.value));
            let is_held =
                Decimal::from_str_exact(token.value).or_else(|_| Decimal::from_scientific(token.value));
            let severity = if is_held.is_ok() { Severity::Refused } else { Severity::Error };
            Some(Fault { severity, ..fault(at, problem, None) })
        }
        _ => None,
    }
}

fn count_digits(number: &str) -> usize {
    let digits = number.split(['e', 'E']).next().unwrap_or_default();
    let digits = digits.trim_start_matches(['0', '.']);
    digits.chars().filter(char::is_ascii_digit).count()
}

/// Converts a lexer error to a fault.
fn unread(error: &LexerError, source: &str) -> Fault {
    let at = match error {
        LexerError::UnexpectedSymbol { span, .. } => span.0 as usize,
        LexerError::UnmatchedSymbol { position, .. } => *position as usize,
        LexerError::UnexpectedEof { .. } => {
            return fault(
                source.len(),
                "ends before a text does".to_owned(),
                Some("a text in `'…'` or `\"…\"`".to_owned()),
            );
        }
    };
    let symbol = source.get(at..).and_then(|rest| rest.chars().next()).unwrap_or(' ');
    let allowed = match symbol {
        '&' => Some("`and`".to_owned()),
        '|' => Some("`or`".to_owned()),
        _ => None,
    };
    fault(at, format!("`{symbol}` is not expected here"), allowed)
}

/// Converts a parser error to a fault.
fn unparsed(error: &AstNodeError<'_>, source: &str) -> Fault {
    let (from, to) = match error {
        AstNodeError::MissingToken { .. } => (source.len(), source.len()),
        AstNodeError::UnknownBuiltIn { span, .. }
        | AstNodeError::UnknownMethod { span, .. }
        | AstNodeError::UnexpectedIdentifier { span, .. }
        | AstNodeError::UnexpectedToken { span, .. }
        | AstNodeError::InvalidNumber { span, .. }
        | AstNodeError::InvalidBoolean { span, .. }
        | AstNodeError::InvalidProperty { span, .. }
        | AstNodeError::ExpectedProperty { span }
        | AstNodeError::ExpectedLiteral { span }
        | AstNodeError::UnexpectedEnd { span }
        | AstNodeError::Custom { span, .. } => (span.0 as usize, span.1 as usize),
    };
    let text = excerpt(source.get(from..to).unwrap_or_default());
    match error {
        AstNodeError::UnknownBuiltIn { .. } => {
            fault(from, format!("unknown function \"{text}\""), Some(FUNCTIONS.to_owned()))
        }
        AstNodeError::UnknownMethod { .. } => {
            fault(from, format!("uses the method {text}, which rules may not"), None)
        }
        _ if text.is_empty() && from >= source.len() => {
            fault(from, "ends where something is missing".to_owned(), None)
        }
        _ if text.is_empty() => fault(from, "is not understood from here on".to_owned(), None),
        _ => fault(from, format!("`{text}` is not expected here"), None),
    }
}

/// Returns the fault of text after the parsed expression.
fn left_over(tokens: &[Token<'_>], end: usize, source: &str) -> Fault {
    let next = tokens.iter().find(|token| token.span.0 as usize >= end);
    match next {
        Some(token) => {
            fault(token.span.0 as usize, format!("`{}` is not expected here", excerpt(token.value)), None)
        }
        None => fault(source.len(), "is not understood".to_owned(), None),
    }
}

fn fault(at: usize, problem: String, allowed: Option<String>) -> Fault {
    Fault { severity: Severity::Error, at, problem, allowed }
}

/// The spelling of an operator, in backquotes.
pub(crate) fn word(operator: Operator) -> &'static str {
    match operator {
        Operator::Arithmetic(ArithmeticOperator::Add) => "`+`",
        Operator::Arithmetic(ArithmeticOperator::Subtract) => "`-`",
        Operator::Arithmetic(ArithmeticOperator::Multiply) => "`*`",
        Operator::Arithmetic(ArithmeticOperator::Divide) => "`/`",
        Operator::Arithmetic(ArithmeticOperator::Modulus) => "`%`",
        Operator::Arithmetic(ArithmeticOperator::Power) => "`^`",
        Operator::Logical(LogicalOperator::And) => "`and`",
        Operator::Logical(LogicalOperator::Or) => "`or`",
        Operator::Logical(LogicalOperator::Not) => "`not`",
        Operator::Logical(LogicalOperator::NullishCoalescing) => "`??`",
        Operator::Comparison(ComparisonOperator::Equal) => "`==`",
        Operator::Comparison(ComparisonOperator::NotEqual) => "`!=`",
        Operator::Comparison(ComparisonOperator::LessThan) => "`<`",
        Operator::Comparison(ComparisonOperator::GreaterThan) => "`>`",
        Operator::Comparison(ComparisonOperator::LessThanOrEqual) => "`<=`",
        Operator::Comparison(ComparisonOperator::GreaterThanOrEqual) => "`>=`",
        Operator::Comparison(ComparisonOperator::In) => "`in`",
        Operator::Comparison(ComparisonOperator::NotIn) => "`not in`",
        _ => "this",
    }
}
