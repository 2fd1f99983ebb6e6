//! Compiles the conditions and formulas of rules, and checks them when the policy is saved.
//!
//! The language is zen-expression's (`stock.level < 10 and demand.index > 1.2`), with exact decimals. Its
//! parser and compiler are used unchanged; their bytecode passes a gate that admits loads of known variables,
//! comparison, arithmetic, forward jumps, `in`, and a few numeric functions, and nothing else: no loops, no
//! clock, no random numbers, no regular expressions. So every expression terminates, takes time linear in its
//! length, and gives the same result for the same facts. Admitted code is translated to the engine's own
//! small instruction set, with variables resolved, which `evaluate` runs.

use std::sync::Arc;

use rust_decimal::prelude::ToPrimitive;
use zen_expression::compiler::{Compare, FetchFastTarget, Jump, Opcode};
use zen_expression::functions::{FunctionKind, InternalFunction};
use zen_expression::lexer::Bracket;

use crate::expression::age_test::{AgeTest, age_tests};
use crate::expression::fault::{ExpressionError, MAX_SOURCE_BYTES};
use crate::expression::fuse::fuse;
use crate::expression::instruction::{Arithmetic, Comparison, Function, Instruction, Interval, JumpWhen};
use crate::expression::variable::{RuleKind, Variable};

/// A checked, compiled expression.
#[derive(Debug, Clone)]
pub struct Expression {
    source: Arc<str>,
    variables: Vec<Variable>,
    pub(crate) instructions: Box<[Instruction]>,
    /// Whether it consists of boolean tests joined by `and`, `or` and `not`.
    pub(crate) is_chain_of_tests: bool,
    /// Its age tests.
    age_tests: Box<[AgeTest]>,
}

impl Expression {
    /// Compiles and checks an expression for rules of this scope.
    pub fn compile(source: &str, scope: RuleKind) -> Result<Self, ExpressionError> {
        let source = Self::check_length(source)?;
        let compiled = zen_expression::compile_expression(source)
            .map_err(|error| ExpressionError::Syntax(error.to_string()))?;
        let instructions = admit(compiled.bytecode(), scope)?;
        let mut variables = Vec::new();
        for instruction in &instructions {
            if let Instruction::Load(variable) = instruction
                && !variables.contains(variable)
            {
                variables.push(*variable);
            }
        }
        let instructions = fuse(instructions);
        let age_tests = age_tests(&instructions)?;
        let is_chain_of_tests = instructions.iter().all(Instruction::is_test_or_link);
        let (source, instructions) = (source.into(), instructions.into());
        Ok(Self { source, variables, instructions, is_chain_of_tests, age_tests })
    }

    /// Trims the text; refuses one that is empty or too long.
    pub(crate) fn check_length(source: &str) -> Result<&str, ExpressionError> {
        match source.trim() {
            "" => Err(ExpressionError::Empty),
            trimmed if trimmed.len() > MAX_SOURCE_BYTES => Err(ExpressionError::TooLong(trimmed.len())),
            trimmed => Ok(trimmed),
        }
    }

    /// The expression as written.
    pub fn source(&self) -> &Arc<str> {
        &self.source
    }

    /// Its age tests.
    pub(crate) fn age_tests(&self) -> &[AgeTest] {
        &self.age_tests
    }

    /// The variables it reads, in order of appearance.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }
}

/// Translates admitted bytecode to instructions and refuses the rest.
fn admit(bytecode: &[Opcode], scope: RuleKind) -> Result<Vec<Instruction>, ExpressionError> {
    let mut instructions = Vec::with_capacity(bytecode.len());
    // Several opcodes may become one instruction, so jump targets are remapped.
    let mut new_position = Vec::with_capacity(bytecode.len() + 1);
    let mut rest = bytecode;
    while let Some(opcode) = rest.first() {
        let (instruction, opcodes_used) = match translate_group(rest)? {
            Some(group) => group,
            None => (translate(opcode, bytecode.len() - rest.len(), scope)?, 1),
        };
        new_position.extend(std::iter::repeat_n(instructions.len(), opcodes_used));
        instructions.push(instruction);
        rest = rest.get(opcodes_used..).unwrap_or_default();
    }
    new_position.push(instructions.len());
    for (position, instruction) in instructions.iter_mut().enumerate() {
        if let Instruction::Jump(_, target) = instruction {
            *target = new_position
                .get(*target)
                .copied()
                .filter(|target| *target > position)
                .ok_or_else(|| ExpressionError::NotAllowed("a jump out of the expression".to_owned()))?;
        }
    }
    Ok(instructions)
}

/// Translates a list or an interval together with its consumer: neither is a value of its own here.
fn translate_group(opcodes: &[Opcode]) -> Result<Option<(Instruction, usize)>, ExpressionError> {
    let group = match opcodes {
        [Opcode::PushNumber(length), Opcode::Array, user, ..] => {
            let length = length.to_usize().unwrap_or(usize::MAX);
            let instruction = match user {
                Opcode::In => Instruction::InList(length),
                Opcode::CallFunction { kind: FunctionKind::Internal(InternalFunction::Min), .. } => {
                    Instruction::Function(Function::Min(length))
                }
                Opcode::CallFunction { kind: FunctionKind::Internal(InternalFunction::Max), .. } => {
                    Instruction::Function(Function::Max(length))
                }
                _ => {
                    return Err(ExpressionError::NotAllowed("a list outside `in`, min and max".to_owned()));
                }
            };
            Some((instruction, 3))
        }
        [Opcode::Interval { left_bracket, right_bracket }, Opcode::In, ..] => {
            let interval = Interval {
                left_included: closed(*left_bracket, Bracket::LeftSquareBracket, Bracket::LeftParenthesis)?,
                right_included: closed(
                    *right_bracket,
                    Bracket::RightSquareBracket,
                    Bracket::RightParenthesis,
                )?,
            };
            Some((Instruction::InInterval(interval), 2))
        }
        _ => None,
    };
    Ok(group)
}

fn closed(bracket: Bracket, included: Bracket, excluded: Bracket) -> Result<bool, ExpressionError> {
    match bracket {
        bracket if bracket == included => Ok(true),
        bracket if bracket == excluded => Ok(false),
        _ => Err(ExpressionError::NotAllowed("an interval that is open to the outside".to_owned())),
    }
}

fn translate(opcode: &Opcode, position: usize, scope: RuleKind) -> Result<Instruction, ExpressionError> {
    let instruction = match opcode {
        Opcode::PushNull => Instruction::PushNull,
        Opcode::PushBool(value) => Instruction::PushBool(*value),
        Opcode::PushNumber(value) => Instruction::PushNumber(*value),
        Opcode::PushString(value) => Instruction::PushText(value.clone()),
        Opcode::Pop => Instruction::Pop,
        Opcode::Negate => Instruction::Negate,
        Opcode::Not => Instruction::Not,
        Opcode::Equal => Instruction::Equal,
        Opcode::Compare(Compare::More) => Instruction::Compare(Comparison::More),
        Opcode::Compare(Compare::Less) => Instruction::Compare(Comparison::Less),
        Opcode::Compare(Compare::MoreOrEqual) => Instruction::Compare(Comparison::MoreOrEqual),
        Opcode::Compare(Compare::LessOrEqual) => Instruction::Compare(Comparison::LessOrEqual),
        Opcode::Add => Instruction::Arithmetic(Arithmetic::Add),
        Opcode::Subtract => Instruction::Arithmetic(Arithmetic::Subtract),
        Opcode::Multiply => Instruction::Arithmetic(Arithmetic::Multiply),
        Opcode::Divide => Instruction::Arithmetic(Arithmetic::Divide),
        Opcode::Modulo => Instruction::Arithmetic(Arithmetic::Modulo),
        Opcode::Jump(jump, distance) => {
            let target = position + 1 + *distance as usize;
            Instruction::Jump(jump_condition(*jump)?, target)
        }
        Opcode::FetchEnv(name) => load(name, scope)?,
        Opcode::FetchFast(path) => load(&dotted_name(path)?, scope)?,
        Opcode::CallFunction { kind: FunctionKind::Internal(function), arg_count } => {
            Instruction::Function(numeric_function(function, *arg_count)?)
        }
        other => return Err(ExpressionError::NotAllowed(describe(other))),
    };
    Ok(instruction)
}

fn jump_condition(jump: Jump) -> Result<JumpWhen, ExpressionError> {
    match jump {
        Jump::Forward => Ok(JumpWhen::Always),
        Jump::IfTrue => Ok(JumpWhen::True),
        Jump::IfFalse => Ok(JumpWhen::False),
        Jump::IfNotNull => Ok(JumpWhen::NotNull),
        Jump::Backward | Jump::IfEnd => Err(ExpressionError::NotAllowed("a loop".to_owned())),
    }
}

fn numeric_function(function: &InternalFunction, arguments: u32) -> Result<Function, ExpressionError> {
    match function {
        InternalFunction::Abs => Ok(Function::Abs),
        InternalFunction::Floor => Ok(Function::Floor),
        InternalFunction::Ceil => Ok(Function::Ceil),
        InternalFunction::Round => Ok(Function::Round { with_places: arguments > 1 }),
        InternalFunction::Trunc => Ok(Function::Trunc { with_places: arguments > 1 }),
        InternalFunction::Min | InternalFunction::Max => {
            Err(ExpressionError::NotAllowed(format!("{function} of something other than a list [a, b]")))
        }
        other => Err(ExpressionError::NotAllowed(format!("the function {other}"))),
    }
}

fn load(name: &str, scope: RuleKind) -> Result<Instruction, ExpressionError> {
    let unknown = || ExpressionError::UnknownVariable(crate::diagnostic::shorten(name));
    Variable::named(name, scope).map(Instruction::Load).ok_or_else(unknown)
}

fn dotted_name(path: &[FetchFastTarget]) -> Result<String, ExpressionError> {
    let mut parts = Vec::with_capacity(path.len());
    for (index, part) in path.iter().enumerate() {
        match part {
            FetchFastTarget::Begin if index == 0 => {}
            FetchFastTarget::String(name) => parts.push(name.as_ref()),
            _ => return Err(ExpressionError::NotAllowed("an index".to_owned())),
        }
    }
    Ok(parts.join("."))
}

fn describe(opcode: &Opcode) -> String {
    match opcode {
        Opcode::CallFunction { kind, .. } => format!("the function {kind}"),
        Opcode::CallMethod { .. } => "a method".to_owned(),
        Opcode::Exponent => "the operator ^".to_owned(),
        Opcode::Interval { .. } => "an interval outside `in`".to_owned(),
        Opcode::Array => "a list outside `in`, min and max".to_owned(),
        Opcode::Fetch | Opcode::Slice => "an index".to_owned(),
        other => format!("the operation {other}"),
    }
}
