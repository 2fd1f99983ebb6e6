//! Warnings: parts of a policy that are allowed but probably not intended.

use rust_decimal::Decimal;

use crate::diagnostic::{Diagnostic, Severity};
use crate::policy::action::Action;
use crate::policy::change::Change;
use crate::policy::document::PolicyDraft;
use crate::policy::pricing_policy::PricingPolicy;
use crate::policy::rounding::Rounding;

fn warning(field: impl Into<String>, problem: impl Into<String>) -> Diagnostic {
    Diagnostic::bare(field, problem).with_severity(Severity::Warning)
}

/// Returns the warnings of the document, with their fields.
pub(crate) fn warnings(draft: &PolicyDraft, policy: &PricingPolicy) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    for (index, written) in draft.offer.iter().enumerate() {
        let rule = policy.offer.iter().find(|rule| *rule.name == *written.name.trim());
        if let Some((amount, action)) = rule.and_then(|rule| Some((rule.action.amount_off()?, &rule.action)))
        {
            let passed_over = if matches!(action, Action::QuantityTiers(_)) {
                "a smaller tier counts"
            } else {
                "it is passed over"
            };
            let problem = format!(
                "takes {} off whatever a product costs: what would go below the lowest price that guardrails allow goes \
                 to it; where none is known and nothing would be left, {passed_over}",
                amount.normalize()
            );
            warnings.push(warning(format!("offer[{index}]"), problem));
        }
    }
    warnings.extend(about_increment(draft, &policy.rounding));
    warnings
}

fn about_increment(draft: &PolicyDraft, rounding: &Rounding) -> Vec<Diagnostic> {
    let Some(increment) = rounding.increment else { return Vec::new() };
    let mut warnings = Vec::new();
    if increment >= Decimal::ONE {
        let problem = format!(
            "a price that is nearer to 0 than to {increment}, or has no multiple of it within its bounds, keeps to the \
             minor unit of its currency; a simulation says how many do"
        );
        warnings.push(warning("rounding.increment", problem));
    }
    let endings = if draft.rounding.endings.is_empty() { "rounding.ending" } else { "rounding.endings" };
    for (field, amounts) in [(endings, &rounding.endings), ("rounding.price_points", &rounding.price_points)]
    {
        let mut others = amounts.iter().filter(|amount| !(**amount % increment).is_zero());
        if let Some(first) = others.next() {
            let more = match others.count() {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            let problem = format!(
                "{first}{more} is no multiple of the increment {increment}, which holds for what offers make of a list \
                 price"
            );
            warnings.push(warning(field, problem));
        }
    }
    warnings
}

impl Action {
    /// Returns the largest reduction, if it does not depend on a formula.
    pub(crate) fn takes_off(&self) -> Option<Change> {
        let change = match self {
            Self::Adjust(change) => Some(*change),
            Self::QuantityTiers(tiers) => tiers.last(),
            _ => None,
        };
        change.filter(|change| change.lowers())
    }

    /// Returns the amount that it takes off, if that does not depend on the price.
    pub(crate) fn amount_off(&self) -> Option<Decimal> {
        let change = match self {
            Self::Match { offset: change, .. } | Self::Beat { by: change, .. } => Some(*change),
            _ => self.takes_off(),
        };
        match change {
            Some(Change::Amount(amount)) if amount < Decimal::ZERO => Some(-amount),
            _ => None,
        }
    }
}
