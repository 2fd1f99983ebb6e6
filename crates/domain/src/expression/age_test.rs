//! Age tests in expressions: `demand.age_hours < 24`.
//!
//! An age changes with time alone, so an expression may only compare it with a number of hours: the instant
//! at which the result changes is then known. `policy::age` computes that instant for given facts.

use chrono::TimeDelta;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::expression::fault::ExpressionError;
use crate::expression::instruction::{Comparison, Instruction};
use crate::expression::variable::Variable;

pub(crate) const MICROSECONDS_PER_HOUR: Decimal = Decimal::from_parts(3_600_000_000, 0, 0, false, 0);

/// An age test of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AgeTest {
    /// The age's variable.
    pub(crate) variable: Variable,
    /// The first age at which the result changes; ages are whole microseconds.
    pub(crate) turns_at: TimeDelta,
}

/// Collects the age tests of a program; refuses every other use of an age.
pub(crate) fn age_tests(instructions: &[Instruction]) -> Result<Box<[AgeTest]>, ExpressionError> {
    let mut tests = Vec::new();
    for instruction in instructions {
        match instruction {
            Instruction::CompareNumber(variable, comparison, hours)
            | Instruction::CompareNumberOr(variable, _, comparison, hours)
                if variable.is_age() =>
            {
                tests.extend(AgeTest::of(*variable, *comparison, *hours));
            }
            Instruction::Load(variable) | Instruction::LoadOr(variable, _) if variable.is_age() => {
                return Err(ExpressionError::AgeNotCompared(*variable));
            }
            _ => {}
        }
    }
    Ok(tests.into())
}

impl AgeTest {
    /// Creates a test; `None` for an age that is never reached.
    fn of(variable: Variable, comparison: Comparison, hours: Decimal) -> Option<Self> {
        let age_us = hours.checked_mul(MICROSECONDS_PER_HOUR)?;
        let turns_at_us = match comparison {
            Comparison::Less | Comparison::MoreOrEqual => age_us.ceil(),
            Comparison::LessOrEqual | Comparison::More => age_us.floor().checked_add(Decimal::ONE)?,
        };
        Some(Self { variable, turns_at: TimeDelta::microseconds(turns_at_us.to_i64()?) })
    }
}
