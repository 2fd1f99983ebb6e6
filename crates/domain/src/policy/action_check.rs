//! Checks the action of a rule and converts its written form to the applied one.

use rust_decimal::Decimal;

use crate::diagnostic::Diagnostic;
use crate::expression::check::Wanted;
use crate::expression::variable::RuleKind;
use crate::policy::action::Action;
use crate::policy::change::{Change, change};
use crate::policy::ladder::Ladder;
use crate::policy::reference::check_reference;
use crate::policy::rule_draft::{BeatDraft, IndexDraft, MatchDraft, RuleDraft};
use crate::policy::scalar::{compile, fraction, percentage};

impl RuleDraft {
    /// Checks the rule's single action.
    pub(crate) fn check_action(
        &self,
        place: &str,
        scope: RuleKind,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Action> {
        let field = |name: &str| format!("{place}.{name}");
        let mut actions = Vec::new();
        if let Some(written) = &self.multiply_by {
            let factor = compile(&field("multiply_by"), &written.0, Wanted::Factor, scope, problems);
            actions.push(factor.map(Action::MultiplyBy));
        }
        if let Some(written) = &self.set_to {
            let price = compile(&field("set_to"), &written.0, Wanted::Price, scope, problems);
            actions.push(price.map(Action::SetTo));
        }
        if let Some(draft) = &self.match_reference {
            actions.push(draft.check(&field("match"), scope, problems));
        }
        if let Some(draft) = &self.beat {
            actions.push(draft.check(&field("beat"), scope, problems));
        }
        if let Some(draft) = &self.index {
            actions.push(draft.check(&field("index"), scope, problems));
        }
        if let Some(written) = &self.adjust {
            actions.push(change(&field("adjust"), written, problems).map(Action::Adjust));
        }
        match scope {
            RuleKind::Market => self.check_market_action(&field, &mut actions, problems),
            RuleKind::Offer => {
                if let Some(drafts) = &self.quantity_tiers {
                    let tiers = Ladder::tiers(&field("quantity_tiers"), drafts, problems);
                    actions.push(tiers.map(Action::QuantityTiers));
                }
            }
        }
        let [action] = <[Option<Action>; 1]>::try_from(actions).ok().or_else(|| {
            let allowed = match scope {
                RuleKind::Market => {
                    "adjust, multiply_by, set_to, match, beat, index, cost_plus, target_margin, stock_cover, \
                     sell_through or surge"
                }
                RuleKind::Offer => "adjust, multiply_by, set_to, match, beat, index or quantity_tiers",
            };
            problems.push(Diagnostic::new(place, "does not have exactly one action", allowed));
            None
        })?;
        action
    }

    /// Checks actions that need facts about the market.
    fn check_market_action(
        &self,
        field: &dyn Fn(&str) -> String,
        actions: &mut Vec<Option<Action>>,
        problems: &mut Vec<Diagnostic>,
    ) {
        if let Some(written) = &self.cost_plus {
            actions.push(change(&field("cost_plus"), written, problems).map(Action::CostPlus));
        }
        if let Some(written) = &self.target_margin {
            actions.push(fraction(&field("target_margin"), written, problems).map(Action::TargetMargin));
        }
        if let Some(drafts) = &self.stock_cover {
            let ladder = Ladder::below(&field("stock_cover"), drafts, false, problems);
            actions.push(ladder.map(Action::StockCover));
        }
        if let Some(drafts) = &self.sell_through {
            let ladder = Ladder::below(&field("sell_through"), drafts, true, problems);
            actions.push(ladder.map(Action::SellThrough));
        }
        if let Some(draft) = &self.surge {
            actions.push(draft.check(&field("surge"), problems).map(Action::Surge));
        }
    }
}

impl MatchDraft {
    fn check(&self, place: &str, scope: RuleKind, problems: &mut Vec<Diagnostic>) -> Option<Action> {
        let reference =
            check_reference(place, self.reference.as_ref(), self.competitor.as_ref(), scope, problems);
        let offset = self.offset.as_ref().map_or(Some(Change::Amount(Decimal::ZERO)), |offset| {
            change(&format!("{place}.offset"), offset, problems)
        });
        Some(Action::Match { reference: reference?, offset: offset? })
    }
}

impl BeatDraft {
    fn check(&self, place: &str, scope: RuleKind, problems: &mut Vec<Diagnostic>) -> Option<Action> {
        let reference =
            check_reference(place, self.reference.as_ref(), self.competitor.as_ref(), scope, problems);
        let is_allowed = |by: Change| by.is_above_nothing() && by.negated().leaves_something();
        let by = Change::check(
            &format!("{place}.by"),
            &self.by,
            ["above 0% and below 100% such as 1%", "above 0 such as 0.50"],
            is_allowed,
            problems,
        );
        Some(Action::Beat { reference: reference?, by: by?.negated() })
    }
}

impl IndexDraft {
    fn check(&self, place: &str, scope: RuleKind, problems: &mut Vec<Diagnostic>) -> Option<Action> {
        let reference =
            check_reference(place, self.reference.as_ref(), self.competitor.as_ref(), scope, problems);
        let is_allowed = |at: Decimal| at > Decimal::ZERO && at <= Decimal::TEN;
        let at =
            percentage(&format!("{place}.at"), &self.at, "above 0%, at most 1000%", is_allowed, problems);
        Some(Action::Index { reference: reference?, at: at? })
    }
}
