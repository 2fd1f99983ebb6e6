//! Finds faults that make an expression fail for any facts, before it is compiled: each with its position and
//! the correct way to write it.
//!
//! The kinds of all variables are known, so one pass over the parsed expression infers the kinds of all its
//! parts. A checked expression fails at run time only for an unknown fact, a division by zero or a number
//! that is too large. An operator whose precedence differs from most languages needs brackets where that
//! matters.

use std::collections::HashMap;

use rust_decimal::Decimal;
use zen_expression::lexer::{ArithmeticOperator, LogicalOperator, Operator};
use zen_expression::parser::Node;

use crate::diagnostic::{Severity, nearest};
use crate::expression::fault::{Fault, MAX_ALLOWED_BYTES, excerpt, in_a_line};
use crate::expression::kinds::Kinds;
use crate::expression::syntax::{Parsed, address, with_parsed};
use crate::expression::variable::{RuleKind, Variable};
use crate::facts::money::is_below_limit;

/// The maximum nesting depth of an expression.
const MAX_DEPTH: usize = 200;

/// The purpose of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The condition of a rule.
    Condition,
    /// A price that a rule follows; the action may change it.
    Reference,
    /// A price.
    Price,
    /// A factor of a price.
    Factor,
}

/// The inferred kinds of a part of an expression.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Typed {
    pub(crate) kinds: Kinds,
    /// Its value, if it is a constant.
    pub(crate) constant: Option<Decimal>,
}

/// Returns all faults of an expression, in the order of the text.
pub(crate) fn check(source: &str, scope: RuleKind, wanted: Wanted) -> Vec<Fault> {
    let mut faults = with_parsed(source, |parsed| {
        let mut checker = Checker { parsed, scope, depth: 0, found: HashMap::new(), faults: Vec::new() };
        checker.check_whole(wanted);
        checker.faults
    })
    .unwrap_or_else(|faults| faults);
    faults.sort_by_key(|fault| fault.at);
    faults
}

pub(crate) struct Checker<'p, 'a> {
    parsed: &'p Parsed<'p, 'a>,
    scope: RuleKind,
    depth: usize,
    /// The kinds of the checked parts.
    pub(crate) found: HashMap<usize, Kinds>,
    faults: Vec<Fault>,
}

impl<'a> Checker<'_, 'a> {
    fn check_whole(&mut self, wanted: Wanted) {
        let root = self.parsed.root;
        let found = self.kinds_of(root);
        let (kind, by) = match wanted {
            Wanted::Condition => (Kinds::BOOL, "a condition"),
            Wanted::Reference => (Kinds::NUMBER, "a reference"),
            Wanted::Price => (Kinds::NUMBER, "a price"),
            Wanted::Factor => (Kinds::NUMBER, "a factor"),
        };
        self.require(root, found, kind, by);
        if matches!(wanted, Wanted::Price | Wanted::Factor)
            && let Some(number) = found.constant
            && (number <= Decimal::ZERO || !is_below_limit(number))
        {
            let problem = format!("is always {}, which makes no price", number.normalize());
            self.refuse(root, problem, Some("a number above 0, and below the limit of amounts".to_owned()));
        }
    }

    /// Checks a part with all its operands and returns its kinds.
    pub(crate) fn kinds_of(&mut self, node: &Node<'a>) -> Typed {
        if self.depth == MAX_DEPTH {
            let problem = format!("is nested more than {MAX_DEPTH} deep");
            self.refuse(node, problem, None);
            return Typed::NONE;
        }
        self.depth += 1;
        let typed = self.kinds_within(node);
        self.depth -= 1;
        self.found.insert(address(node), typed.kinds);
        typed
    }

    fn kinds_within(&mut self, node: &Node<'a>) -> Typed {
        match node {
            Node::Null => Kinds::NULL.into(),
            Node::Bool(_) => Kinds::BOOL.into(),
            Node::Number(number) => Typed { kinds: Kinds::NUMBER, constant: Some(*number) },
            Node::String(_) => Kinds::TEXT.into(),
            Node::Parenthesized(inner) => self.kinds_of(inner),
            Node::Identifier(_) | Node::Member { .. } => self.variable(node),
            Node::Unary { node: operand, operator } => self.unary(operand, *operator),
            Node::Binary { left, operator, right } => self.binary(node, left, *operator, right),
            Node::Conditional { condition, on_true, on_false } => {
                let decides = self.kinds_of(condition);
                self.require(condition, decides, Kinds::BOOL, "`?`");
                let (yes, no) = (self.kinds_of(on_true).kinds, self.kinds_of(on_false).kinds);
                if yes.is_none() || no.is_none() { Typed::NONE } else { yes.or(no).into() }
            }
            Node::FunctionCall { kind, arguments } => self.call(node, kind, arguments),
            Node::Array(_) => self.forbid(node, "a list outside `in`, min and max"),
            Node::Interval { .. } => self.forbid(node, "an interval outside `in`"),
            Node::MethodCall { .. } => self.forbid(node, "a method"),
            Node::TemplateString(_) => self.forbid(node, "a text with expressions in it"),
            Node::Slice { .. } => self.forbid(node, "an index"),
            _ => self.forbid(node, "an operation"),
        }
    }

    fn variable(&mut self, node: &Node<'a>) -> Typed {
        let Some(name) = dotted_name(node) else { return self.forbid(node, "an index") };
        if let Some(variable) = Variable::named(&name, self.scope) {
            return variable.kinds().into();
        }
        let known: Vec<&str> = Variable::names_in(self.scope).collect();
        let (other_scope, who) = match self.scope {
            RuleKind::Market => (RuleKind::Offer, "offer"),
            RuleKind::Offer => (RuleKind::Market, "market"),
        };
        let problem = format!("unknown variable \"{}\"", excerpt(&name));
        let (problem, allowed) = match (Variable::named(&name, other_scope), nearest(&name, &known)) {
            (Some(_), _) => (format!("{problem}: only {who} rules know it"), known.join(", ")),
            (None, Some(nearest)) => (problem, nearest.to_owned()),
            (None, None) => (problem, known.join(", ")),
        };
        self.fault(Severity::Error, node, problem, Some(allowed));
        Typed::NONE
    }

    fn unary(&mut self, operand: &Node<'a>, operator: Operator) -> Typed {
        let found = self.kinds_of(operand);
        if operator != Operator::Logical(LogicalOperator::Not) {
            let constant = found.constant.map(|number| match operator {
                Operator::Arithmetic(ArithmeticOperator::Subtract) => -number,
                _ => number,
            });
            self.require(operand, found, Kinds::NUMBER, "a sign");
            return Typed { kinds: Kinds::NUMBER, constant };
        }
        if found.is_only(Kinds::BOOL) {
            return Kinds::BOOL.into();
        }
        let problem = format!(
            "`{}` is {}, and `not` needs true or false",
            excerpt(self.text(operand)),
            found.kinds.known()
        );
        self.refuse(
            operand,
            problem,
            Some("a comparison in brackets, such as `not (stock.level > 5)`".to_owned()),
        );
        Typed::NONE
    }

    /// Refuses a part that cannot have the required kind, or may have another.
    pub(crate) fn require(&mut self, node: &Node<'a>, found: Typed, kind: Kinds, by: &str) {
        if found.kinds.is_none() || found.is_only(kind) {
            return;
        }
        let text = excerpt(self.text(node));
        let known = found.kinds.known();
        let problem = match known {
            _ if known.is_none() => format!("`{text}` is never known, and {by} needs {kind}"),
            _ if known.overlaps(kind) => format!("`{text}` may be {known}, and {by} needs {kind}"),
            _ => format!("`{text}` is {known}, and {by} needs {kind}"),
        };
        self.refuse(node, problem, None);
    }

    pub(crate) fn forbid(&mut self, node: &Node<'a>, what: &str) -> Typed {
        self.fault(Severity::Error, node, format!("uses {what}, which rules may not"), None);
        Typed::NONE
    }

    pub(crate) fn refuse(&mut self, node: &Node<'a>, problem: String, allowed: Option<String>) {
        self.fault(Severity::Refused, node, problem, allowed);
    }

    pub(crate) fn fault(
        &mut self,
        severity: Severity,
        node: &Node<'a>,
        problem: String,
        allowed: Option<String>,
    ) {
        let at = self.parsed.span(node).0;
        // A longer excerpt is of no help.
        let is_long = |allowed: &String| allowed.len() > MAX_ALLOWED_BYTES;
        let allowed = allowed.map(|allowed| if is_long(&allowed) { "brackets".to_owned() } else { allowed });
        self.faults.push(Fault {
            severity,
            at,
            problem: in_a_line(problem),
            allowed: allowed.map(in_a_line),
        });
    }

    pub(crate) fn text(&self, node: &Node<'a>) -> &'a str {
        self.parsed.text(node)
    }
}

impl Typed {
    pub(crate) const NONE: Self = Self { kinds: Kinds::NONE, constant: None };

    /// Whether every non-null value of it has this kind, and it is not always null.
    pub(crate) fn is_only(self, kind: Kinds) -> bool {
        self.kinds.known() == kind
    }
}

impl From<Kinds> for Typed {
    fn from(kinds: Kinds) -> Self {
        Self { kinds, constant: None }
    }
}

/// Strips the brackets around a part.
pub(crate) fn without_brackets<'n, 'a>(node: &'n Node<'a>) -> &'n Node<'a> {
    match node {
        Node::Parenthesized(inner) => without_brackets(inner),
        other => other,
    }
}

/// Returns the dotted name of a part, such as `product.category`; `None` if the part is not a name.
fn dotted_name(node: &Node<'_>) -> Option<String> {
    match node {
        Node::Identifier(name) => Some((*name).to_owned()),
        Node::Member { node, property: Node::String(name) } => Some(format!("{}.{name}", dotted_name(node)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
