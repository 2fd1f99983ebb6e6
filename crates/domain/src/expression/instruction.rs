//! The instructions of a compiled expression.

use std::sync::Arc;

use rust_decimal::Decimal;

use crate::expression::variable::Variable;

/// One step of a compiled expression, on a stack of values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Instruction {
    PushNull,
    PushBool(bool),
    PushNumber(Decimal),
    PushText(Arc<str>),
    Load(Variable),
    Pop,
    Negate,
    Not,
    Equal,
    Compare(Comparison),
    Arithmetic(Arithmetic),
    /// Jumps to this instruction, always a later one.
    Jump(JumpWhen, usize),
    /// Jumps to this instruction, or pops the value and continues.
    JumpOrPop(JumpWhen, usize),
    /// The variable, or the number if it has no value.
    LoadOr(Variable, Decimal),
    /// Compares the variable with the number.
    CompareNumber(Variable, Comparison, Decimal),
    /// Compares the variable, or the first number if it has no value, with the second number.
    CompareNumberOr(Variable, Decimal, Comparison, Decimal),
    /// Whether the variable has a value.
    IsKnown(Variable),
    /// Whether the variable has no value.
    IsNull(Variable),
    /// Whether the value is one of this many values above it on the stack.
    InList(usize),
    InInterval(Interval),
    Function(Function),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    More,
    Less,
    MoreOrEqual,
    LessOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JumpWhen {
    Always,
    True,
    False,
    NotNull,
}

/// `[a..b]`; a round bracket excludes its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) left_included: bool,
    pub(crate) right_included: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    /// The extreme of a list of this many values.
    Min(usize),
    /// The extreme of a list of this many values.
    Max(usize),
    Abs,
    Floor,
    Ceil,
    /// Rounds half away from zero; the flag states if the number of places is given.
    Round {
        with_places: bool,
    },
    Trunc {
        with_places: bool,
    },
}

impl Instruction {
    /// Whether, on a stack that is empty or holds one boolean, it leaves exactly one boolean.
    pub(crate) fn is_test_or_link(&self) -> bool {
        matches!(
            self,
            Self::Load(_)
                | Self::CompareNumber(..)
                | Self::CompareNumberOr(..)
                | Self::IsKnown(_)
                | Self::IsNull(_)
                | Self::Not
                | Self::JumpOrPop(JumpWhen::True | JumpWhen::False, _)
        )
    }
}
