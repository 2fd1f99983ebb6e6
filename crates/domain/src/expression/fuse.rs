//! Fuses instruction sequences that are common in conditions: fewer steps for the same result.
//!
//! `stock.level < 10 and demand.index > 1.2` compiles to nine instructions and fuses to three. The comparison
//! with zen-expression's machine (in `evaluate`'s tests) runs on fused code.

use crate::expression::instruction::{Instruction, JumpWhen};

/// Returns an equivalent program with fewer instructions.
pub(crate) fn fuse(mut instructions: Vec<Instruction>) -> Vec<Instruction> {
    loop {
        let fused = fuse_once(&instructions);
        // A fused instruction may itself be fused with its neighbours.
        if fused.len() == instructions.len() {
            return fused;
        }
        instructions = fused;
    }
}

fn fuse_once(instructions: &[Instruction]) -> Vec<Instruction> {
    let is_target = targets(instructions);
    let mut fused = Vec::with_capacity(instructions.len());
    let mut new_position = Vec::with_capacity(instructions.len() + 1);
    let mut rest = instructions;
    while let Some(first) = rest.first() {
        let position = instructions.len() - rest.len();
        let (instruction, length) = group(rest, position)
            // A group is not fused if an instruction jumps into the middle of it.
            .filter(|(_, length)| !is_target.iter().skip(position + 1).take(length - 1).any(|target| *target))
            .unwrap_or_else(|| (first.clone(), 1));
        new_position.extend(std::iter::repeat_n(fused.len(), length));
        fused.push(instruction);
        rest = rest.get(length..).unwrap_or_default();
    }
    new_position.push(fused.len());
    for instruction in &mut fused {
        if let Instruction::Jump(_, target) | Instruction::JumpOrPop(_, target) = instruction {
            *target = new_position.get(*target).copied().unwrap_or(usize::MAX);
        }
    }
    fused
}

/// Returns the instruction that replaces the group at this position, and the length of the group.
fn group(instructions: &[Instruction], position: usize) -> Option<(Instruction, usize)> {
    use Instruction::{
        Compare, CompareNumber, CompareNumberOr, Equal, IsKnown, IsNull, Jump, JumpOrPop, Load, LoadOr, Not,
        Pop, PushNull, PushNumber,
    };

    match instructions {
        [Load(variable), PushNumber(number), Compare(comparison), ..] => {
            Some((CompareNumber(*variable, *comparison, *number), 3))
        }
        [PushNumber(number), Load(variable), Compare(comparison), ..] => {
            Some((CompareNumber(*variable, comparison.swapped(), *number), 3))
        }
        [PushNumber(number), LoadOr(variable, default), Compare(comparison), ..] => {
            Some((CompareNumberOr(*variable, *default, comparison.swapped(), *number), 3))
        }
        // `??`: skips the number if there is a value, and replaces the value otherwise.
        [Load(variable), Jump(JumpWhen::NotNull, target), Pop, PushNumber(default), ..]
            if *target == position + 4 =>
        {
            Some((LoadOr(*variable, *default), 4))
        }
        [LoadOr(variable, default), PushNumber(number), Compare(comparison), ..] => {
            Some((CompareNumberOr(*variable, *default, *comparison, *number), 3))
        }
        [Load(variable), PushNull, Equal, Not, ..] => Some((IsKnown(*variable), 4)),
        [Load(variable), PushNull, Equal, ..] => Some((IsNull(*variable), 3)),
        [Jump(when @ (JumpWhen::True | JumpWhen::False | JumpWhen::NotNull), target), Pop, ..] => {
            Some((JumpOrPop(*when, *target), 2))
        }
        _ => None,
    }
}

/// Marks each position, including the end, that an instruction jumps to.
fn targets(instructions: &[Instruction]) -> Vec<bool> {
    let mut is_target = vec![false; instructions.len() + 1];
    for instruction in instructions {
        if let Instruction::Jump(_, target) | Instruction::JumpOrPop(_, target) = instruction
            && let Some(is_target) = is_target.get_mut(*target)
        {
            *is_target = true;
        }
    }
    is_target
}

#[cfg(test)]
mod tests {
    use crate::expression::compile::Expression;
    use crate::expression::variable::RuleKind;

    #[test]
    fn usual_conditions_become_short() {
        for (source, length) in [
            ("stock.level > 5", 1),
            ("5 < stock.level", 1),
            ("stock.level < 10 and demand.index > 1.2", 3),
            ("competitor.min != null", 1),
            ("competitor.min == null or stock.level >= 1", 3),
            ("competitor.median ?? product.base_price", 3),
            ("demand.index ?? 1", 1),
            ("(stock.level ?? 100) < 10 and (demand.index ?? 1) > 1.2", 3),
            ("(stock.level ?? 0) + (demand.index ?? 1)", 3),
            // The other branch begins at a jump target, which prevents fusion.
            ("stock.level > 5 ? 1 : 2", 6),
        ] {
            let expression = Expression::compile(source, RuleKind::Market).unwrap();
            assert_eq!(expression.instructions.len(), length, "{source}: {:?}", expression.instructions);
        }
    }
}
