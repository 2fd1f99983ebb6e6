//! Tests of the check: expressions that can never work, with the reported faults and positions; and a checked
//! expression never fails because of a kind.

use proptest::prelude::*;
use rust_decimal::Decimal;

use super::*;
use crate::expression::compile::Expression;
use crate::expression::evaluate::EvaluationError;
use crate::expression::variable::Value;
use crate::facts::time_zone::TimeZones;
use crate::policy::pricing_policy::PricingPolicy;

/// Formats all faults of an expression: position, severity, problem, and how to write it.
fn said(source: &str, scope: RuleKind, wanted: Wanted) -> Vec<String> {
    let faults = check(source, scope, wanted);
    let said = faults.iter().map(|fault| {
        let mark = match fault.severity {
            Severity::Error => "error",
            Severity::Refused => "refused",
            Severity::Warning => "warning",
        };
        let allowed = fault.allowed.as_ref().map(|allowed| format!(" => {allowed}")).unwrap_or_default();
        format!("{} {mark}: {}{allowed}", fault.at, fault.problem)
    });
    said.collect()
}

#[test]
fn conditions_that_can_never_work_are_refused_with_the_way_to_write_them() {
    let conditions = [
        "not product.category == 'toys'",
        "not shopper.location == \"NY\"",
        "not stock.level > 5",
        "not product.category in ['toys']",
        "not stock.level",
        "not null",
        "1 < 2 < 3",
        "10 < stock.level < 20",
        "shopper.quantity == 1 == true",
        "stock.level > \"5\"",
        "product.category > \"a\"",
        "shopper.quantity == \"5\"",
        "shopper.prime == 1",
        "shopper.prime == 'yes'",
        "product.category != 5",
        "product.id == product.base_price",
        "shopper.quantity in ['5', 6]",
        "product.category in ('a'..'z')",
        "shopper.quantity in []",
        "shopper.quantity in (5..1)",
        "shopper.quantity in (1..1]",
        "shopper.quantity in shopper.quantity",
        "shopper.quantity in ]1..3[",
        "1",
        "null",
        "shopper.quantity",
        "product.category",
        "shopper.prime and stock.level",
        "shopper.quantity or shopper.prime",
        "true and null",
        "shopper.quantity > 5 ? 1 : 2",
        "shopper.quantity ? true : false",
        "stock.level < 10 ?? true",
        "demand.index < 1 ?? true",
        "product.category = 'toys'",
        "shopper.quantity > 1 && shopper.prime",
        "shopper.quantity > 1 || shopper.prime",
        "shopper.quantity > 1 and",
        "(shopper.quantity > 1",
        "shopper.quantity > 1)",
        "product.category == 'toys",
        "stock.levle < 1",
        "product.catgory == 'toys' and shopper.quantty > 1",
        "unit_cost > 5",
        "nothing == 1",
        "product.category[0] == 't'",
        "len(product.id) > 3",
        "product.id.startsWith('A')",
        "startsWith(product.id, 'A')",
        "product.base_price ?? 1 > 3",
        "shopper.prime == null",
        "null == product.base_price",
        "`a${1}` == 'a1'",
        "{a: 1}",
        "$root == 1",
    ];
    let offer = |source: &&str| {
        !source.contains("stock.") && !source.contains("demand.") && *source != "unit_cost > 5"
    };
    let listed = conditions.iter().map(|source| {
        let scope = if offer(source) { RuleKind::Offer } else { RuleKind::Market };
        format!("{source}\n  {}", said(source, scope, Wanted::Condition).join("\n  "))
    });
    insta::assert_snapshot!(listed.collect::<Vec<_>>().join("\n"));
}

#[test]
fn formulas_that_can_never_work_are_refused_with_the_way_to_write_them() {
    let formulas = [
        "competitor.median ?? product.base_price * 0.9",
        "stock.level / sales.units ?? 1",
        "10 * demand.index ?? 2",
        "demand.index ?? 1 + competitor.median ?? 2",
        "product.unit_cost ?? product.base_price * 0.6",
        "-competitor.min ?? 5",
        "2 ^ 10",
        "product.base_price / 0",
        "product.base_price % (1 - 1)",
        "(1/0) ?? 9",
        "'a' + 'b'",
        "product.base_price + true",
        "product.base_price * product.category",
        "-product.id",
        "product.base_price > 5",
        "stock.level > 5 ? 1 : 'a'",
        "competitor.min ?? 'none'",
        "true and null",
        "null",
        "1 / null",
        "max(price.now, 5)",
        "min(5)",
        "min([])",
        "max([1, 'a'])",
        "max()",
        "round(price.now, -1)",
        "round(price.now, 1.5)",
        "round(price.now, stock.level)",
        "round(price.now, 1, 2)",
        "abs('a')",
        "floor(1, 2)",
        "0",
        "-1",
        "2 - 3",
        "99999999999999999999",
        "1234567890123456789012345678901",
        "0.12345678901234567890123456789012",
        "[1, 2]",
        "[1..2]",
        "sum([1, 2])",
        ".5",
        "5 5",
    ];
    let listed = formulas
        .iter()
        .map(|source| format!("{source}\n  {}", said(source, RuleKind::Market, Wanted::Price).join("\n  ")));
    insta::assert_snapshot!(listed.collect::<Vec<_>>().join("\n"));
}

#[test]
fn what_can_work_is_allowed() {
    for source in [
        "stock.level < 10 and demand.index > 1.2",
        "not (product.category == 'toys')",
        "product.category not in ['toys', 'games']",
        "not (stock.level > 5) and product.brand != null",
        "(demand.index ?? 1) * 2 > 3",
        "demand.index ?? 1 > 1.2",
        "stock.level ?? -1 < 0",
        "(competitor.min ?? product.base_price) / 2 >= 1",
        "product.currency == 'USD'",
        "product.currency in ['EUR', 'CHF']",
        "stock.level in [1..7)",
        "max([product.base_price, competitor.min ?? 0]) > round(price.now, 2)",
        "stock.level > 5 ? competitor.count > 1 : true",
        "product.category == product.brand",
        "(product.category ?? 'none') == 'none'",
        "true",
        "not true == false",
    ] {
        assert_eq!(said(source, RuleKind::Market, Wanted::Condition), Vec::<String>::new(), "{source}");
    }
    assert_eq!(said("not shopper.prime", RuleKind::Offer, Wanted::Condition), Vec::<String>::new());
    // The action may turn a reference into a price.
    assert_eq!(said("0", RuleKind::Market, Wanted::Reference), Vec::<String>::new());
}

#[test]
fn faults_stand_at_their_line_and_column_in_the_document() {
    let document = "name: x\nmarket:\n  - name: a\n    when: stock.level > 1 and not product.category == 'toys'\n    set_to: |\n      max(product.base_price,\n        5) + 'a'\noffer:\n  - { name: b, when: 'shopper.quantty > 1 and shopper.channel == ''a'' == true', adjust: -5% }\n";
    let found = PricingPolicy::from_yaml(document, 1, &TimeZones::bundled()).unwrap_err();
    let places: Vec<String> = found
        .iter()
        .map(|problem| {
            let place = problem.place.unwrap();
            format!("{}:{} {}", place.line, place.column, problem.field)
        })
        .collect();
    assert_eq!(
        places,
        [
            "4:31 market[0].when",
            "6:7 market[0].set_to",
            "7:14 market[0].set_to",
            "9:23 offer[0].when",
            "9:47 offer[0].when"
        ]
    );
}

#[test]
fn a_policy_that_was_published_keeps_its_meaning_with_a_warning() {
    let document = "name: x\nmarket: [{ name: a, set_to: competitor.median ?? product.base_price * 0.9 }]\n";
    let refused = PricingPolicy::from_yaml(document, 1, &TimeZones::bundled()).unwrap_err();
    assert_eq!(refused.len(), 1);
    let stored = PricingPolicy::from_stored_yaml(document, 1, &TimeZones::bundled()).unwrap();
    assert_eq!(stored.warnings, refused);
    assert_eq!(stored.refusals().count(), 1);
    assert_eq!(stored.market[0].action.to_string(), "set to competitor.median ?? product.base_price * 0.9");
    assert!(
        PricingPolicy::from_stored_yaml(
            "name: x\nmarket: [{ name: a, set_to: nothing }]\n",
            1,
            &TimeZones::bundled()
        )
        .is_err()
    );
}

#[test]
fn the_deepest_source_is_checked_in_time() {
    for source in [
        format!("{}1{}", "(".repeat(500), ")".repeat(500)),
        format!("{}true", "not ".repeat(250)),
        format!("{}true", "not true == ".repeat(80)),
        format!("1{}", "+1".repeat(510)),
        format!("1{}", " ?? 1".repeat(200)),
        format!("{}1{}", "(1 ?? ".repeat(120), ")".repeat(120)),
        "1 ? ".repeat(200),
    ] {
        check(&source, RuleKind::Market, Wanted::Condition);
    }
}

/// Expressions of everything that rules may use, most of which are valid.
fn any_source(scope: RuleKind) -> impl Strategy<Value = String> {
    // Ages are excluded: they may only be compared, which the compiler checks.
    let names: Vec<&'static str> =
        Variable::names_in(scope).filter(|name| !name.ends_with(".age_hours")).collect();
    let leaf = prop_oneof![
        (0_u32..30).prop_map(|number| number.to_string()),
        proptest::sample::select(names).prop_map(str::to_owned),
        proptest::sample::select(vec!["true", "false", "null", "'toys'", "'EUR'", "0.5"])
            .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 20, 3, |inner| {
        let operators =
            vec!["+", "-", "*", "/", "%", "<", "<=", ">", ">=", "==", "!=", "and", "or", "??", "in"];
        let some = (inner.clone(), inner.clone(), inner.clone());
        prop_oneof![
            (inner.clone(), proptest::sample::select(operators.clone()), inner.clone())
                .prop_map(|(a, operator, b)| format!("({a} {operator} {b})")),
            (inner.clone(), proptest::sample::select(operators), inner.clone())
                .prop_map(|(a, operator, b)| format!("{a} {operator} {b}")),
            inner.clone().prop_map(|a| format!("not {a}")),
            inner.clone().prop_map(|a| format!("-{a}")),
            some.clone().prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            some.clone().prop_map(|(a, b, c)| format!("({a} in [{b}, {c}])")),
            some.clone().prop_map(|(a, b, c)| format!("({a} in ({b}..{c}])")),
            some.prop_map(|(a, b, c)| format!("max([{a}, {b}, {c}])")),
            (inner.clone(), inner.clone()).prop_map(|(a, places)| format!("round({a}, {places})")),
            inner.prop_map(|a| format!("floor(abs({a}))")),
        ]
    })
}

/// A value of one of the variable's kinds.
fn value_of(variable: Variable, number: i64, is_known: bool) -> Value<'static> {
    let kinds = variable.kinds();
    match kinds {
        _ if kinds.may_be_null() && !is_known => Value::Null,
        _ if kinds.overlaps(Kinds::TEXT) => Value::Text("toys"),
        _ if kinds.overlaps(Kinds::BOOL) => Value::Bool(number % 2 == 0),
        _ => Value::Number(Decimal::from(number)),
    }
}

/// Whether the evaluation failed because of a value's kind, other than an unknown value.
fn failed_by_kind(result: &Result<Value<'_>, EvaluationError>, wanted: Wanted) -> bool {
    match result {
        Err(EvaluationError::WrongKind { found, .. }) => *found != "null",
        Err(EvaluationError::Overflow(what)) => *what == "a number of places",
        Err(EvaluationError::Malformed) => true,
        Ok(Value::Null) => false,
        Ok(Value::Bool(_)) => wanted != Wanted::Condition,
        Ok(Value::Number(_)) => wanted == Wanted::Condition,
        Ok(Value::Text(_)) => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]
    #[test]
    fn what_passes_never_fails_by_kind(
        (market, offer) in (any_source(RuleKind::Market), any_source(RuleKind::Offer)),
        numbers in proptest::collection::vec((-3_i64..40, any::<bool>()), 1..8),
        wanted in proptest::sample::select(vec![Wanted::Condition, Wanted::Price, Wanted::Reference]),
    ) {
        for (source, scope) in [(market, RuleKind::Market), (offer, RuleKind::Offer)] {
            if check(&source, scope, wanted).iter().any(|fault| fault.severity != Severity::Warning) {
                continue;
            }
            let expression = Expression::compile(&source, scope);
            prop_assert!(expression.is_ok(), "{} passes and is not compiled: {:?}", source, expression);
            let expression = expression.unwrap();
            for (number, is_known) in &numbers {
                let result = expression.evaluate(|variable| value_of(variable, *number, *is_known));
                prop_assert!(!failed_by_kind(&result, wanted), "{}: {:?}", source, result);
            }
        }
    }

    #[test]
    fn what_is_refused_as_an_error_is_what_cannot_be_compiled(source in any_source(RuleKind::Market)) {
        let is_error = check(&source, RuleKind::Market, Wanted::Price).iter().any(|fault| fault.severity == Severity::Error);
        prop_assert_eq!(is_error, Expression::compile(&source, RuleKind::Market).is_err(), "{}", source);
    }

    #[test]
    fn any_text_is_checked(source in "[a-zé0-9.()\\[\\]+*/<>=' ,?:!`$&|;{}_-]{0,60}") {
        check(&source, RuleKind::Market, Wanted::Condition);
    }
}
