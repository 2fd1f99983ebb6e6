//! Expressions: the conditions and formulas of rules.
//!
//! Here: the check of an expression when its policy is saved (`check`), its translation from text to
//! instructions (`compile`, `fuse`), and the machine that runs them ([`evaluate`]). Never here: the values of
//! variables, which come from `policy::view`.
//!
//! Where next: [`variable`] for what expressions can read, `docs/policies.md` for the language.

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
