//! The checks of function calls.

use rust_decimal::prelude::ToPrimitive;
use zen_expression::functions::{FunctionKind, InternalFunction};
use zen_expression::parser::Node;

use crate::diagnostic::Severity;
use crate::expression::check::{Checker, Typed, without_brackets};
use crate::expression::fault::excerpt;
use crate::expression::kinds::Kinds;
use crate::expression::syntax::FUNCTIONS;

/// The most decimal places of a decimal.
const MAX_PLACES: u32 = 28;

impl<'a> Checker<'_, 'a> {
    pub(crate) fn call(&mut self, node: &Node<'a>, kind: &FunctionKind, arguments: &[&Node<'a>]) -> Typed {
        match kind {
            FunctionKind::Internal(function @ (InternalFunction::Min | InternalFunction::Max)) => {
                self.extreme(node, &function.to_string(), arguments);
            }
            FunctionKind::Internal(
                function @ (InternalFunction::Abs | InternalFunction::Floor | InternalFunction::Ceil),
            ) => self.number_and_places(node, &function.to_string(), arguments, false),
            FunctionKind::Internal(function @ (InternalFunction::Round | InternalFunction::Trunc)) => {
                self.number_and_places(node, &function.to_string(), arguments, true);
            }
            other => {
                let problem = format!("uses the function {other}, which rules may not");
                self.fault(Severity::Error, node, problem, Some(FUNCTIONS.to_owned()));
                return Typed::NONE;
            }
        }
        Kinds::NUMBER.into()
    }

    /// Checks `min([a, b])`.
    fn extreme(&mut self, node: &Node<'a>, name: &str, arguments: &[&Node<'a>]) {
        let [argument] = arguments else {
            let texts: Vec<&str> = arguments.iter().map(|argument| self.text(argument)).collect();
            let list = if texts.is_empty() { "a, b".to_owned() } else { texts.join(", ") };
            let problem = format!("{name} takes one list");
            self.fault(Severity::Error, node, problem, Some(format!("`{name}([{list}])`")));
            return;
        };
        match without_brackets(argument) {
            Node::Array([]) => self.refuse(argument, format!("{name} of an empty list has no value"), None),
            Node::Array(members) => {
                for member in *members {
                    let found = self.kinds_of(member);
                    self.require(member, found, Kinds::NUMBER, name);
                }
            }
            _ => {
                let allowed = format!("`{name}([{}, …])`", self.text(argument));
                self.fault(Severity::Error, argument, format!("{name} takes one list"), Some(allowed));
            }
        }
    }

    /// Checks `round(number)` and `round(number, places)`.
    fn number_and_places(
        &mut self,
        node: &Node<'a>,
        name: &str,
        arguments: &[&Node<'a>],
        may_have_places: bool,
    ) {
        let (number, places) = match arguments {
            [number] => (number, None),
            [number, places] if may_have_places => (number, Some(places)),
            _ => {
                let allowed = if may_have_places { "a number, and perhaps places" } else { "one number" };
                let problem = format!("{name} takes {allowed}");
                self.fault(Severity::Error, node, problem, None);
                return;
            }
        };
        let found = self.kinds_of(number);
        self.require(number, found, Kinds::NUMBER, "this function");
        if let Some(places) = places {
            let found = self.kinds_of(places);
            let is_allowed = found.constant.is_some_and(|places| {
                places.is_integer() && places.to_u32().is_some_and(|places| places <= MAX_PLACES)
            });
            if !is_allowed && !found.kinds.is_none() {
                let problem = format!("`{}` is no number of decimal places", excerpt(self.text(places)));
                self.refuse(places, problem, Some(format!("a whole number from 0 to {MAX_PLACES}")));
            }
        }
    }
}
