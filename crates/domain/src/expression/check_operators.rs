//! The checks of operators: the kinds of their operands, and where they need brackets.

use rust_decimal::Decimal;
use zen_expression::lexer::{ArithmeticOperator, Bracket, ComparisonOperator, LogicalOperator, Operator};
use zen_expression::parser::Node;

use crate::diagnostic::Severity;
use crate::expression::check::{Checker, Typed, without_brackets};
use crate::expression::fault::excerpt;
use crate::expression::kinds::Kinds;
use crate::expression::syntax::{address, word};

/// A comparison: its two sides, and the kinds of the left one.
struct Comparison<'n, 'a> {
    node: &'n Node<'a>,
    left: &'n Node<'a>,
    first: Typed,
    right: &'n Node<'a>,
    word: &'static str,
}

impl<'a> Checker<'_, 'a> {
    pub(crate) fn binary(
        &mut self,
        node: &Node<'a>,
        left: &Node<'a>,
        operator: Operator,
        right: &Node<'a>,
    ) -> Typed {
        match operator {
            Operator::Logical(LogicalOperator::NullishCoalescing) => self.or_else(node, left, right),
            Operator::Logical(_) => {
                let (first, second) = (self.kinds_of(left), self.kinds_of(right));
                self.require(left, first, Kinds::BOOL, word(operator));
                self.require(right, second, Kinds::BOOL, word(operator));
                // If the right side is evaluated, its value is the result.
                if second.kinds.may_be_null() { Kinds::BOOL.or_null() } else { Kinds::BOOL }.into()
            }
            Operator::Arithmetic(ArithmeticOperator::Power) => self.forbid(node, "the operator ^"),
            Operator::Arithmetic(arithmetic) => self.arithmetic(node, left, arithmetic, right),
            Operator::Comparison(comparison) => {
                self.comparison(node, left, comparison, right);
                Kinds::BOOL.into()
            }
            _ => self.forbid(node, "an operation"),
        }
    }

    /// Checks `a ?? b`.
    fn or_else(&mut self, node: &Node<'a>, left: &Node<'a>, right: &Node<'a>) -> Typed {
        let (first, second) = (self.kinds_of(left), self.kinds_of(right));
        if let Node::Unary { operator: Operator::Arithmetic(_), node: operand } = left
            && first.constant.is_none()
        {
            let (left, operand, right) = (self.text(left), self.text(operand), self.text(right));
            let problem = format!(
                "`-` binds tighter than `??`: this is `{}`",
                excerpt(&format!("({left}) ?? {right}"))
            );
            self.refuse(node, problem, Some(format!("`-({operand} ?? {right})` or `({left}) ?? {right}`")));
            return Typed::NONE;
        }
        if first.kinds.is_none() || second.kinds.is_none() {
            return Typed::NONE;
        }
        if first.kinds.may_be_null() {
            return first.kinds.known().or(second.kinds).into();
        }
        let problem = format!("`{}` is always known, so what follows `??` is never taken", self.text(left));
        self.fault(Severity::Warning, left, problem, None);
        first
    }

    fn arithmetic(
        &mut self,
        node: &Node<'a>,
        left: &Node<'a>,
        operator: ArithmeticOperator,
        right: &Node<'a>,
    ) -> Typed {
        self.want_brackets(node, left, operator, right);
        let (first, second) = (self.kinds_of(left), self.kinds_of(right));
        let word = word(Operator::Arithmetic(operator));
        self.require(left, first, Kinds::NUMBER, word);
        self.require(right, second, Kinds::NUMBER, word);
        let is_division = matches!(operator, ArithmeticOperator::Divide | ArithmeticOperator::Modulus);
        if is_division && second.constant.is_some_and(|divisor| divisor.is_zero()) {
            self.refuse(right, "divides by 0, which has no value".to_owned(), None);
        }
        let kinds = if is_division { Kinds::NUMBER.or_null() } else { Kinds::NUMBER };
        let constant = first.constant.zip(second.constant).and_then(|(first, second)| match operator {
            ArithmeticOperator::Add => first.checked_add(second),
            ArithmeticOperator::Subtract => first.checked_sub(second),
            ArithmeticOperator::Multiply => first.checked_mul(second),
            ArithmeticOperator::Divide => first.checked_div(second),
            _ => first.checked_rem(second),
        });
        Typed { kinds: if constant.is_some() { Kinds::NUMBER } else { kinds }, constant }
    }

    /// Requires brackets: `a ?? b * c` means `(a ?? b) * c` here, but `a ?? (b * c)` in most languages.
    fn want_brackets(
        &mut self,
        node: &Node<'a>,
        left: &Node<'a>,
        operator: ArithmeticOperator,
        right: &Node<'a>,
    ) {
        let (on_left, on_right) = (or_else_sides(left), or_else_sides(right));
        if on_left.is_none() && on_right.is_none() {
            return;
        }
        let bracket = |side: &Node<'a>, is_or_else: bool| {
            if is_or_else { format!("({})", self.text(side)) } else { self.text(side).to_owned() }
        };
        let word = word(Operator::Arithmetic(operator)).trim_matches('`');
        let meaning =
            format!("{} {word} {}", bracket(left, on_left.is_some()), bracket(right, on_right.is_some()));
        let other = match (on_left, on_right) {
            (Some((known, other)), None) => {
                Some(format!("{} ?? ({} {word} {})", self.text(known), self.text(other), self.text(right)))
            }
            (None, Some((known, other))) => {
                Some(format!("({} {word} {}) ?? {}", self.text(left), self.text(known), self.text(other)))
            }
            _ => None,
        };
        let mut allowed = vec![meaning.clone()];
        allowed.extend(other);
        let allowed: Vec<String> = allowed.iter().map(|written| format!("`{written}`")).collect();
        let problem = format!("`??` binds tighter than `{word}`: this is `{}`", excerpt(&meaning));
        self.refuse(node, problem, Some(allowed.join(" or ")));
    }

    fn comparison(
        &mut self,
        node: &Node<'a>,
        left: &Node<'a>,
        operator: ComparisonOperator,
        right: &Node<'a>,
    ) {
        let word = word(Operator::Comparison(operator));
        let first = match left {
            // The check of `not` reports its operand.
            Node::Unary { node: operand, operator: Operator::Logical(_) } => {
                let found = self.kinds_of(operand);
                if !found.kinds.is_none() && !found.is_only(Kinds::BOOL) {
                    self.not_a_comparison(node, operand, word, right);
                }
                if found.is_only(Kinds::BOOL) { Kinds::BOOL.into() } else { Typed::NONE }
            }
            _ => self.kinds_of(left),
        };
        let mut comparison = Comparison { node, left, first, right, word };
        if let Node::Binary { left: start, operator: Operator::Comparison(before), right: middle } = left {
            self.chained(&comparison, start, *before, middle);
            comparison.first = Typed::NONE;
        }
        match operator {
            ComparisonOperator::In | ComparisonOperator::NotIn => self.membership(&comparison),
            ComparisonOperator::Equal | ComparisonOperator::NotEqual => self.equality(&comparison),
            _ => self.order(&comparison),
        }
    }

    /// Refuses `not a == b`.
    fn not_a_comparison(&mut self, node: &Node<'a>, operand: &Node<'a>, word: &str, right: &Node<'a>) {
        let (operand, right, written) = (self.text(operand), self.text(right), word.trim_matches('`'));
        let meaning = format!("(not {operand}) {written} {right}");
        let problem = format!("`not` binds tighter than {word}: this is `{}`", excerpt(&meaning));
        self.refuse(node, problem, Some(format!("`not ({operand} {written} {right})`")));
    }

    /// Refuses `1 < 2 < 3`.
    fn chained(
        &mut self,
        comparison: &Comparison<'_, 'a>,
        start: &Node<'a>,
        before: ComparisonOperator,
        middle: &Node<'a>,
    ) {
        let (start, middle, end) = (self.text(start), self.text(middle), self.text(comparison.right));
        let before = word(Operator::Comparison(before)).trim_matches('`');
        let after = comparison.word.trim_matches('`');
        let allowed = format!("`{start} {before} {middle} and {middle} {after} {end}`, or brackets");
        self.refuse(comparison.node, "compares the outcome of a comparison".to_owned(), Some(allowed));
    }

    /// Checks `<`, `<=`, `>` and `>=`.
    fn order(&mut self, comparison: &Comparison<'_, 'a>) {
        let second = self.kinds_of(comparison.right);
        for (side, found) in [(comparison.left, comparison.first), (comparison.right, second)] {
            let Some((known, other)) = or_else_sides(side).filter(|(known, _)| self.is_always_known(known))
            else {
                self.require(side, found, Kinds::NUMBER, comparison.word);
                continue;
            };
            let (known, other) = (self.text(known), self.text(other));
            let problem =
                format!("`??` binds tighter than {}: this is `{known} ?? {other}`", comparison.word);
            self.refuse(side, problem, Some("brackets around the comparison".to_owned()));
        }
    }

    fn is_always_known(&self, node: &Node<'a>) -> bool {
        self.found.get(&address(node)).is_some_and(|kinds| !kinds.is_none() && !kinds.may_be_null())
    }

    fn equality(&mut self, comparison: &Comparison<'_, 'a>) {
        let Comparison { node, left, first, right, word } = *comparison;
        let second = self.kinds_of(right);
        if first.kinds.is_none() || second.kinds.is_none() {
            return;
        }
        let outcome = if word == "`==`" { "never" } else { "always" };
        let (known, other) = (first.kinds.known(), second.kinds.known());
        if known.is_none() || other.is_none() {
            // A comparison with null.
            if !first.kinds.overlaps(second.kinds) {
                let side = if known.is_none() { right } else { left };
                let problem = format!("is {outcome} true: `{}` is always known", excerpt(self.text(side)));
                self.fault(Severity::Warning, node, problem, None);
            }
        } else if !known.overlaps(other) {
            let (first, second) = (excerpt(self.text(left)), excerpt(self.text(right)));
            let problem = format!("is {outcome} true: `{first}` is {known}, `{second}` is {other}");
            let allowed = self.comparable(left, known, right).or_else(|| self.comparable(right, other, left));
            self.refuse(node, problem, allowed);
        }
    }

    /// Suggests how to write a value so that it is comparable with a number or a truth value.
    fn comparable(&self, value: &Node<'a>, kinds: Kinds, other: &Node<'a>) -> Option<String> {
        match other {
            Node::String(text) if kinds == Kinds::NUMBER && text.parse::<Decimal>().is_ok() => {
                Some(format!("a number without quotation marks: `{text}`"))
            }
            _ if kinds == Kinds::BOOL => {
                let value = excerpt(self.text(value));
                Some(format!("`{value}` or `not {value}`"))
            }
            _ => None,
        }
    }

    /// Checks `in` and `not in`.
    fn membership(&mut self, comparison: &Comparison<'_, 'a>) {
        let Comparison { left, first: wanted, right, .. } = *comparison;
        match without_brackets(right) {
            Node::Array([]) => self.refuse(right, "is an empty list, which nothing is in".to_owned(), None),
            Node::Array(members) => {
                for member in *members {
                    let found = self.kinds_of(member);
                    let (known, sought) = (found.kinds.known(), wanted.kinds.known());
                    if !known.is_none() && !sought.is_none() && !known.overlaps(sought) {
                        let (member_text, text) = (excerpt(self.text(member)), excerpt(self.text(left)));
                        let problem = format!(
                            "`{text}` is never in it: that is {sought}, and `{member_text}` is {known}"
                        );
                        self.refuse(member, problem, None);
                    }
                }
            }
            Node::Interval { left: from, right: to, left_bracket, right_bracket } => {
                self.require(left, wanted, Kinds::NUMBER, "an interval");
                let ends = [from, to].map(|end| {
                    let found = self.kinds_of(end);
                    self.require(end, found, Kinds::NUMBER, "an interval");
                    found.constant
                });
                self.brackets(right, *left_bracket, *right_bracket);
                let is_closed = *left_bracket == Bracket::LeftSquareBracket
                    && *right_bracket == Bracket::RightSquareBracket;
                if let [Some(from), Some(to)] = ends
                    && (from > to || from == to && !is_closed)
                {
                    self.refuse(right, "is an interval that no number is in".to_owned(), None);
                }
            }
            _ => {
                let allowed = "a list such as `['toys', 'games']`, or an interval such as `[1..10]`";
                self.fault(
                    Severity::Error,
                    right,
                    "is neither a list nor an interval".to_owned(),
                    Some(allowed.to_owned()),
                );
            }
        }
    }

    fn brackets(&mut self, node: &Node<'a>, left: Bracket, right: Bracket) {
        let is_left = matches!(left, Bracket::LeftSquareBracket | Bracket::LeftParenthesis);
        let is_right = matches!(right, Bracket::RightSquareBracket | Bracket::RightParenthesis);
        if !is_left || !is_right {
            self.forbid(node, "an interval that is open to the outside");
        }
    }
}

/// Returns the two sides of a `??` without brackets.
fn or_else_sides<'n, 'a>(node: &'n Node<'a>) -> Option<(&'n Node<'a>, &'n Node<'a>)> {
    match node {
        Node::Binary { left, operator: Operator::Logical(LogicalOperator::NullishCoalescing), right } => {
            Some((left, right))
        }
        _ => None,
    }
}
