//! Runs compiled expressions: a stack machine without loops.
//!
//! The results are those of zen-expression's own machine (a property test compares the two); the differences
//! are that a stack of up to eight values allocates nothing, and that an error names the operation and the
//! kind of the offending value.

use rust_decimal::prelude::ToPrimitive;
use rust_decimal::{Decimal, RoundingStrategy};
use smallvec::SmallVec;

use crate::expression::compile::Expression;
use crate::expression::instruction::{Arithmetic, Comparison, Function, Instruction, Interval, JumpWhen};
use crate::expression::variable::{Value, Variable};
use crate::facts::arithmetic;

/// The reason that an expression has no result for these facts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluationError {
    /// An operation is not defined for a value, most often null: an unknown fact.
    #[error("{operation} is not possible with {found}")]
    WrongKind {
        /// The operation, in words.
        operation: &'static str,
        /// The kind of the offending value.
        found: &'static str,
    },
    /// The number exceeds the range of a decimal.
    #[error("{0} gives a number that is too large")]
    Overflow(&'static str),
    /// The stack lacks an operand of an instruction: a bug in the compiler, not in the rule.
    #[error("the expression is malformed")]
    Malformed,
}

type Result<T> = std::result::Result<T, EvaluationError>;

type Stack<'a> = SmallVec<[Value<'a>; 8]>;

impl Expression {
    /// Evaluates the expression; `value_of` returns the value of a variable.
    #[inline]
    pub fn evaluate<'a>(&'a self, value_of: impl Fn(Variable) -> Value<'a>) -> Result<Value<'a>> {
        // Most expressions are a single instruction and need no stack.
        if let [only] = &*self.instructions
            && let Some(value) = look_up(only, &value_of)
        {
            return value;
        }
        let mut stack = Stack::new();
        let mut position = 0;
        while let Some(instruction) = self.instructions.get(position) {
            position += 1;
            match instruction {
                // Jumps only go forward, so each instruction runs at most once.
                Instruction::Jump(when, target) => {
                    if jumps(*when, *stack.last().ok_or(EvaluationError::Malformed)?)? {
                        position = *target;
                    }
                }
                Instruction::JumpOrPop(when, target) => {
                    if jumps(*when, *stack.last().ok_or(EvaluationError::Malformed)?)? {
                        position = *target;
                    } else {
                        stack.pop();
                    }
                }
                _ => match look_up(instruction, &value_of) {
                    Some(value) => stack.push(value?),
                    None => step(instruction, &mut stack)?,
                },
            }
        }
        pop(&mut stack)
    }
}

impl Expression {
    /// Evaluates a condition without a stack. `None` if that is not possible or a test fails:
    /// [`evaluate`](Self::evaluate) then returns the error.
    #[inline]
    pub(crate) fn decide<'a>(&'a self, value_of: impl Fn(Variable) -> Value<'a>) -> Option<bool> {
        if !self.is_chain_of_tests {
            return None;
        }
        let mut holds = None;
        let mut position = 0;
        while let Some(instruction) = self.instructions.get(position) {
            position += 1;
            match instruction {
                Instruction::CompareNumber(variable, comparison, right) => match value_of(*variable) {
                    Value::Number(left) => holds = Some(compare(*comparison, left, *right)),
                    _ => return None,
                },
                Instruction::CompareNumberOr(variable, default, comparison, right) => {
                    match or_number(value_of(*variable), *default) {
                        Value::Number(left) => holds = Some(compare(*comparison, left, *right)),
                        _ => return None,
                    }
                }
                Instruction::Load(variable) => match value_of(*variable) {
                    Value::Bool(value) => holds = Some(value),
                    _ => return None,
                },
                Instruction::IsKnown(variable) => holds = Some(value_of(*variable) != Value::Null),
                Instruction::IsNull(variable) => holds = Some(value_of(*variable) == Value::Null),
                Instruction::Not => holds = Some(!holds?),
                Instruction::JumpOrPop(when, target) if holds? == (*when == JumpWhen::True) => {
                    position = *target;
                }
                _ => {}
            }
        }
        holds
    }
}

/// Returns the value of an instruction that pops nothing off the stack.
#[inline]
fn look_up<'a>(
    instruction: &'a Instruction,
    value_of: &impl Fn(Variable) -> Value<'a>,
) -> Option<Result<Value<'a>>> {
    let value = match instruction {
        Instruction::Load(variable) => value_of(*variable),
        Instruction::LoadOr(variable, default) => or_number(value_of(*variable), *default),
        Instruction::CompareNumber(variable, comparison, right) => {
            return Some(compare_value(*comparison, value_of(*variable), *right));
        }
        Instruction::CompareNumberOr(variable, default, comparison, right) => {
            return Some(compare_value(*comparison, or_number(value_of(*variable), *default), *right));
        }
        Instruction::IsKnown(variable) => Value::Bool(value_of(*variable) != Value::Null),
        Instruction::IsNull(variable) => Value::Bool(value_of(*variable) == Value::Null),
        Instruction::PushNull => Value::Null,
        Instruction::PushBool(value) => Value::Bool(*value),
        Instruction::PushNumber(value) => Value::Number(*value),
        Instruction::PushText(value) => Value::Text(value),
        _ => return None,
    };
    Some(Ok(value))
}

#[inline]
fn or_number(value: Value<'_>, default: Decimal) -> Value<'_> {
    if value == Value::Null { Value::Number(default) } else { value }
}

fn compare_value<'a>(comparison: Comparison, left: Value<'a>, right: Decimal) -> Result<Value<'a>> {
    match left {
        Value::Number(left) => Ok(Value::Bool(compare(comparison, left, right))),
        other => Err(wrong_kind("comparison", other)),
    }
}

/// Runs an instruction that uses the stack.
fn step(instruction: &Instruction, stack: &mut Stack<'_>) -> Result<()> {
    let value = match instruction {
        Instruction::Pop => return pop(stack).map(drop),
        Instruction::Negate => Value::Number(-pop_number(stack, "negation")?),
        Instruction::Not => match pop(stack)? {
            Value::Bool(value) => Value::Bool(!value),
            other => return Err(wrong_kind("not", other)),
        },
        Instruction::Equal => {
            let right = pop(stack)?;
            Value::Bool(pop(stack)? == right)
        }
        Instruction::Compare(comparison) => {
            let right = pop_number(stack, "comparison")?;
            Value::Bool(compare(*comparison, pop_number(stack, "comparison")?, right))
        }
        Instruction::Arithmetic(operator) => {
            let right = pop_number(stack, operator.word())?;
            calculate(*operator, pop_number(stack, operator.word())?, right)?
        }
        Instruction::InList(length) => {
            let list = stack.len().checked_sub(*length).ok_or(EvaluationError::Malformed)?;
            let members: Stack<'_> = stack.drain(list..).collect();
            let wanted = pop(stack)?;
            Value::Bool(members.contains(&wanted))
        }
        Instruction::InInterval(interval) => {
            let right = pop_number(stack, "an interval")?;
            let left = pop_number(stack, "an interval")?;
            Value::Bool(interval.includes(left, right, pop_number(stack, "in")?))
        }
        Instruction::Function(function) => Value::Number(call(*function, stack)?),
        // The others use no stack or are jumps.
        _ => return Err(EvaluationError::Malformed),
    };
    stack.push(value);
    Ok(())
}

fn jumps(when: JumpWhen, top: Value<'_>) -> Result<bool> {
    match (when, top) {
        (JumpWhen::Always, _) => Ok(true),
        (JumpWhen::NotNull, top) => Ok(top != Value::Null),
        (JumpWhen::True, Value::Bool(value)) => Ok(value),
        (JumpWhen::False, Value::Bool(value)) => Ok(!value),
        (JumpWhen::True | JumpWhen::False, other) => Err(wrong_kind("a condition", other)),
    }
}

#[inline]
fn compare(comparison: Comparison, left: Decimal, right: Decimal) -> bool {
    let order = arithmetic::compare(left, right);
    match comparison {
        Comparison::More => order.is_gt(),
        Comparison::Less => order.is_lt(),
        Comparison::MoreOrEqual => order.is_ge(),
        Comparison::LessOrEqual => order.is_le(),
    }
}

/// Applies an operator. Division by zero yields null, which a rule can handle with `??`; otherwise it fails.
fn calculate<'a>(operator: Arithmetic, left: Decimal, right: Decimal) -> Result<Value<'a>> {
    let result = match operator {
        Arithmetic::Add => left.checked_add(right),
        Arithmetic::Subtract => left.checked_sub(right),
        Arithmetic::Multiply => arithmetic::multiply(left, right),
        Arithmetic::Divide => return Ok(Value::number(left.checked_div(right))),
        Arithmetic::Modulo => return Ok(Value::number(left.checked_rem(right))),
    };
    result.map(Value::Number).ok_or(EvaluationError::Overflow(operator.word()))
}

fn call(function: Function, stack: &mut Stack<'_>) -> Result<Decimal> {
    match function {
        Function::Min(length) => extreme(stack, length, Ord::min),
        Function::Max(length) => extreme(stack, length, Ord::max),
        Function::Abs => Ok(pop_number(stack, "abs")?.abs()),
        Function::Floor => Ok(pop_number(stack, "floor")?.floor()),
        Function::Ceil => Ok(pop_number(stack, "ceil")?.ceil()),
        Function::Round { with_places } => {
            let places = pop_places(stack, with_places)?;
            let number = pop_number(stack, "round")?;
            Ok(number.round_dp_with_strategy(places, RoundingStrategy::MidpointAwayFromZero))
        }
        Function::Trunc { with_places } => {
            let places = pop_places(stack, with_places)?;
            Ok(pop_number(stack, "trunc")?.trunc_with_scale(places))
        }
    }
}

/// Returns the extreme of a list. Of equal numbers with different scales, `min` returns the first and `max`
/// the last.
fn extreme(stack: &mut Stack<'_>, length: usize, choose: fn(Decimal, Decimal) -> Decimal) -> Result<Decimal> {
    let list = stack.len().checked_sub(length).ok_or(EvaluationError::Malformed)?;
    let mut chosen = None;
    for value in stack.drain(list..) {
        let Value::Number(number) = value else { return Err(wrong_kind("min and max", value)) };
        chosen = Some(chosen.map_or(number, |chosen| choose(chosen, number)));
    }
    chosen.ok_or(EvaluationError::WrongKind { operation: "min and max", found: "an empty list" })
}

fn pop_places(stack: &mut Stack<'_>, with_places: bool) -> Result<u32> {
    if !with_places {
        return Ok(0);
    }
    let places = pop_number(stack, "a number of places")?;
    places.to_u32().ok_or(EvaluationError::Overflow("a number of places"))
}

fn pop<'a>(stack: &mut Stack<'a>) -> Result<Value<'a>> {
    stack.pop().ok_or(EvaluationError::Malformed)
}

fn pop_number(stack: &mut Stack<'_>, operation: &'static str) -> Result<Decimal> {
    match pop(stack)? {
        Value::Number(number) => Ok(number),
        other => Err(wrong_kind(operation, other)),
    }
}

fn wrong_kind(operation: &'static str, found: Value<'_>) -> EvaluationError {
    EvaluationError::WrongKind { operation, found: found.kind() }
}

impl Comparison {
    /// Returns the equivalent comparison with its sides swapped.
    pub(crate) fn swapped(self) -> Self {
        match self {
            Self::More => Self::Less,
            Self::Less => Self::More,
            Self::MoreOrEqual => Self::LessOrEqual,
            Self::LessOrEqual => Self::MoreOrEqual,
        }
    }
}

impl Arithmetic {
    fn word(self) -> &'static str {
        match self {
            Self::Add => "addition",
            Self::Subtract => "subtraction",
            Self::Multiply => "multiplication",
            Self::Divide => "division",
            Self::Modulo => "modulo",
        }
    }
}

impl Interval {
    fn includes(self, left: Decimal, right: Decimal, number: Decimal) -> bool {
        let above = if self.left_included { left <= number } else { left < number };
        let below = if self.right_included { number <= right } else { number < right };
        above && below
    }
}

#[cfg(test)]
mod tests;
