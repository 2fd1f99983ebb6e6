//! What a rule may say: conditions and formulas.
//!
//! Here: the check of an expression when its policy is saved (`check`), its way from text to instructions
//! (`compile`, `fuse`), and the machine that runs them ([`evaluate`]). Never here: what a variable's value
//! is, which `policy::view` knows.
//!
//! Where next: [`variable`] for what expressions can ask for, `docs/policies.md` for the language.

pub(crate) mod age_test;
pub(crate) mod check;
mod check_calls;
mod check_operators;
pub(crate) mod compile;
pub mod evaluate;
pub(crate) mod fault;
pub(crate) mod fuse;
pub(crate) mod instruction;
pub(crate) mod kinds;
pub(crate) mod syntax;
pub mod variable;

pub use compile::Expression;
pub use fault::{ExpressionError, MAX_SOURCE_BYTES};
