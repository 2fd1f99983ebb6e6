//! The instructions that an expression becomes.

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
    /// Goes to this instruction, always one further on.
    Jump(JumpWhen, usize),
    /// Goes to this instruction, or takes the value off the stack and goes on.
    JumpOrPop(JumpWhen, usize),
    /// The variable, or the number where it has no value.
    LoadOr(Variable, Decimal),
    /// Whether the variable compares so with the number.
    CompareNumber(Variable, Comparison, Decimal),
    /// Whether the variable, or the first number where it has no value, compares so with the second one.
    CompareNumberOr(Variable, Decimal, Comparison, Decimal),
    /// Whether the variable has a value.
    IsKnown(Variable),
    /// Whether the variable has none.
    IsNull(Variable),
    /// Whether the value below is one of this many values above it.
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

/// `[a..b]`, and with round brackets the ends excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) left_included: bool,
    pub(crate) right_included: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    /// Of a list of this many values.
    Min(usize),
    /// Of a list of this many values.
    Max(usize),
    Abs,
    Floor,
    Ceil,
    /// Half away from zero; whether the number of places is given.
    Round {
        with_places: bool,
    },
    Trunc {
        with_places: bool,
    },
}

impl Instruction {
    /// Whether it leaves true or false as the only value on a stack that had nothing or true or false before.
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
