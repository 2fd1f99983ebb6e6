//! Applies the rules of one kind in their order: all of them, the first that applies, or the best for the
//! shopper.

use rust_decimal::Decimal;
use smallvec::SmallVec;

use crate::expression::variable::Variable;
use crate::policy::apply::Apply;
use crate::policy::reference::{Reference, Statistic};
use crate::policy::rule::{Rule, RuleError};
use crate::policy::view::{About, View};
use crate::pricing::explanation::{CompetitorsSeen, Inputs, RuleSeen, Step};

/// The handling of a failed rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// No price results.
    Stop,
    /// The rule is skipped.
    PassOver,
}

/// The result of applying rules to a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedRules {
    /// The price; absent if a rule failed and [`OnFailure::Stop`] was given.
    pub price: Option<Decimal>,
    /// The price without discount rules.
    pub undiscounted: Decimal,
    /// The number of failed rules.
    pub failed_rules: u32,
    /// Whether a rule that follows competitors contributed to the price.
    pub follows_competitors: bool,
    /// Whether a rule looked at something personal of the shopper, and could have changed the price by it.
    pub is_personalised: bool,
}

/// Applies rules to the price of a view; explains them in `steps` if given.
pub(crate) fn apply_rules<'a>(
    rules: &'a [Rule],
    apply: Apply,
    on_failure: OnFailure,
    mut view: View<'a>,
    steps: &mut Option<&mut Vec<Step<'a>>>,
) -> AppliedRules {
    if apply == Apply::BestForShopper {
        return apply_best(rules, view, steps);
    }
    let mut applied = AppliedRules::nothing(view.price);
    let mut is_discounted = false;
    for (index, rule) in rules.iter().enumerate() {
        let mut result = rule.apply(&view);
        applied.is_personalised = applied.is_personalised || rule.personalises(&result, &view);
        // A price that follows competitors needs a limit set by the seller: competitors make errors, too.
        if !view.has_floor && rule.follows_competitors && matches!(result, Ok(Some(_))) {
            result = Err(RuleError::NoFloor);
        }
        if let Some(steps) = steps {
            steps.push(step_of(rule, &result, &view, on_failure));
        }
        if is_discounted && !rule.is_discount {
            // Without the preceding discounts, the rule would start from a different price.
            let undiscounted = View { price: applied.undiscounted, ..view };
            applied.undiscounted = price_after(rule, &undiscounted);
        }
        match result {
            Ok(None) => {}
            Ok(Some(after)) => {
                applied.price = Some(after);
                applied.follows_competitors |= rule.follows_competitors;
                if apply == Apply::FirstMatch {
                    let later = rules.get(index + 1..).unwrap_or_default();
                    applied.undiscounted = if rule.is_discount { first_match(later, &view) } else { after };
                    report_tie(rule, later, &view, after, steps);
                    return applied;
                }
                is_discounted |= rule.is_discount;
                if !is_discounted {
                    applied.undiscounted = after;
                }
                view.price = after;
            }
            Err(_) => {
                applied.failed_rules += 1;
                if on_failure == OnFailure::Stop {
                    return AppliedRules { price: None, ..applied };
                }
            }
        }
    }
    applied
}

/// Returns the price after a rule, or the price before it if the rule does not apply or fails.
fn price_after(rule: &Rule, view: &View<'_>) -> Decimal {
    rule.apply(view).ok().flatten().unwrap_or(view.price)
}

/// Returns the price by the first rule that is not a discount and applies.
fn first_match(rules: &[Rule], view: &View<'_>) -> Decimal {
    let mut others = rules.iter().filter(|rule| !rule.is_discount);
    others.find_map(|rule| rule.apply(view).ok().flatten()).unwrap_or(view.price)
}

/// Applies the rule with the lowest price; each starts from the same price.
fn apply_best<'a>(rules: &'a [Rule], view: View<'a>, steps: &mut Option<&mut Vec<Step<'a>>>) -> AppliedRules {
    let mut applied = AppliedRules::nothing(view.price);
    let mut best: Option<(&Rule, Decimal)> = None;
    let mut best_other: Option<Decimal> = None;
    for rule in rules {
        let result = rule.apply(&view);
        applied.is_personalised = applied.is_personalised || rule.personalises(&result, &view);
        match result {
            Ok(Some(after)) => {
                if best.is_none_or(|(_, lowest)| after < lowest) {
                    best = Some((rule, after));
                }
                if !rule.is_discount {
                    best_other = Some(best_other.map_or(after, |lowest| lowest.min(after)));
                }
            }
            Ok(None) => {}
            Err(_) => applied.failed_rules += 1,
        }
    }
    applied.price = Some(best.map_or(view.price, |(_, after)| after));
    applied.undiscounted = best_other.unwrap_or(view.price);
    if let Some(steps) = steps {
        explain_best(rules, &view, best, steps);
    }
    applied
}

/// Adds a step for each rule and for a tie.
fn explain_best<'a>(
    rules: &'a [Rule],
    view: &View<'a>,
    best: Option<(&'a Rule, Decimal)>,
    steps: &mut Vec<Step<'a>>,
) {
    let mut others = Vec::new();
    for rule in rules {
        let is_best = best.is_some_and(|(best, _)| std::ptr::eq(best, rule));
        let result = rule.apply(view);
        if let (Ok(Some(after)), Some((_, lowest)), false) = (&result, best, is_best)
            && *after == lowest
        {
            others.push(&*rule.name);
        }
        let result = if is_best { result } else { result.map(|_| None) };
        steps.push(step_of(rule, &result, view, OnFailure::PassOver));
    }
    if let (Some((rule, after)), false) = (best, others.is_empty()) {
        steps.push(Step::Tie { chosen: &rule.name, others, after });
    }
}

impl AppliedRules {
    fn nothing(price: Decimal) -> Self {
        Self {
            price: Some(price),
            undiscounted: price,
            failed_rules: 0,
            follows_competitors: false,
            is_personalised: false,
        }
    }
}

/// Adds a step for the tied rules that were not chosen.
fn report_tie<'a>(
    chosen: &'a Rule,
    later: &'a [Rule],
    view: &View<'a>,
    after: Decimal,
    steps: &mut Option<&mut Vec<Step<'a>>>,
) {
    let Some(steps) = steps else { return };
    if chosen.priority.is_none() {
        return;
    }
    let same = later.iter().take_while(|rule| rule.priority == chosen.priority);
    let others: Vec<&str> =
        same.filter(|rule| matches!(rule.apply(view), Ok(Some(_)))).map(|rule| &*rule.name).collect();
    if !others.is_empty() {
        steps.push(Step::Tie { chosen: &chosen.name, others, after });
    }
}

/// Creates the step that explains a rule.
fn step_of<'a>(
    rule: &'a Rule,
    result: &Result<Option<Decimal>, RuleError>,
    view: &View<'a>,
    on_failure: OnFailure,
) -> Step<'a> {
    let seen = see(rule, view);
    match result {
        Ok(moved) => {
            let (before, after) = (view.price, moved.unwrap_or(view.price));
            Step::Rule { rule: seen, applied: moved.is_some(), before, after }
        }
        Err(error) => {
            let after = match (on_failure, view.about) {
                (OnFailure::Stop, About::Market(facts)) => facts.price_in_effect(),
                _ => view.price,
            };
            Step::RuleFailed { rule: seen, problem: error.to_string(), after }
        }
    }
}

/// Records the rule with its inputs.
fn see<'a>(rule: &'a Rule, view: &View<'a>) -> RuleSeen<'a> {
    let mut inputs = SmallVec::new();
    // Ages are left out: they change with every pricing. The facts include their times.
    for variable in rule.variables().iter().filter(|variable| !variable.is_age()) {
        inputs.push((*variable, view.value_of(*variable)));
    }
    RuleSeen {
        name: &rule.name,
        when: rule.when.as_ref().map(|when| &**when.source()),
        action: &rule.in_words,
        inputs: Inputs(inputs),
        competitors: if rule.reads_competitors { see_competitors(rule, view) } else { None },
    }
}

/// Records the competitors' prices that the rule read; `None` if it found none.
fn see_competitors<'a>(rule: &Rule, view: &View<'a>) -> Option<Box<CompetitorsSeen<'a>>> {
    let About::Market(facts) = view.about else { return None };
    let (mut reference, mut names) = (None, Vec::new());
    if let Some(Reference::Competitor(competitor)) = rule.action.reference() {
        reference = competitor.price(facts.signals, view.now);
        names = competitor.names(facts.signals, view.now);
    }
    for statistic in rule.variables().iter().filter_map(|variable| statistic_of(*variable)) {
        names.extend(statistic.names(facts.signals));
    }
    (!names.is_empty()).then(|| Box::new(CompetitorsSeen { reference, names }))
}

/// Returns the statistic of competitors' prices that a variable denotes.
fn statistic_of(variable: Variable) -> Option<Statistic> {
    match variable {
        Variable::CompetitorMin => Some(Statistic::Min),
        Variable::CompetitorMedian => Some(Statistic::Median),
        Variable::CompetitorMax => Some(Statistic::Max),
        _ => None,
    }
}
