//! Expressions: a table of results, hostile input, and the comparison with zen-expression's own machine.

use rust_decimal::Decimal;
use zen_expression::Variable as ZenValue;

use crate::expression::variable::{RuleKind, Value, Variable};
use crate::expression::{Expression, ExpressionError, MAX_SOURCE_BYTES};

fn facts<'a>(variable: Variable) -> Value<'a> {
    match variable {
        Variable::ProductBasePrice => Value::Number(Decimal::new(5199, 2)),
        Variable::ProductCategory => Value::Text("toys"),
        Variable::CompetitorMin => Value::Number(Decimal::new(4810, 2)),
        Variable::CompetitorCount => Value::Number(Decimal::from(3)),
        Variable::StockLevel => Value::Number(Decimal::from(7)),
        Variable::DemandIndex => Value::Number(Decimal::new(13, 1)),
        _ => Value::Null,
    }
}

fn evaluated(source: &str) -> String {
    let expression = Expression::compile(source, RuleKind::Market).expect(source);
    match expression.evaluate(facts) {
        Ok(value) => value.to_string(),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn conditions_are_decided_as_they_are_evaluated() {
    for (source, decided) in [
        ("stock.level < 10 and demand.index > 1.2", Some(true)),
        ("stock.level > 10 or competitor.min != null", Some(true)),
        ("not (stock.level > 10) and competitor.median == null", Some(true)),
        ("stock.level > 10 and competitor.median > 3", Some(false)),
        ("stock.level < 10 and competitor.median > 3", None),
        ("competitor.median != null and competitor.median > 3", Some(false)),
        ("stock.level", None),
        ("product.category == 'toys'", None),
        ("stock.level + 1 > 2", None),
    ] {
        let expression = Expression::compile(source, RuleKind::Market).expect(source);
        assert_eq!(expression.decide(facts), decided, "{source}");
        if let Some(holds) = decided {
            assert_eq!(expression.evaluate(facts), Ok(Value::Bool(holds)), "{source}");
        }
    }
}

#[test]
fn expressions_give_the_results_of_the_table() {
    for (source, expected) in [
        ("stock.level < 10 and demand.index > 1.2", "true"),
        ("stock.level > 10 or competitor.min == 48.1", "true"),
        ("not (stock.level > 10)", "true"),
        ("product.base_price * 0.95", "49.3905"),
        ("0.1 + 0.2 == 0.3", "true"),
        ("competitor.median ?? product.base_price", "51.99"),
        ("competitor.median ?? 3", "3"),
        ("stock.level ?? 3", "7"),
        ("product.category ?? 3", "\"toys\""),
        ("(competitor.median ?? 3) > 2 and (stock.level ?? 0) <= 7", "true"),
        ("(product.category ?? 3) > 2", "error: comparison is not possible with a text"),
        ("competitor.median == null", "true"),
        ("product.category in ['toys', 'games']", "true"),
        ("product.category not in ['toys', 'games']", "false"),
        ("stock.level in [1..7]", "true"),
        ("stock.level in [1..7)", "false"),
        ("max([product.base_price * 0.9, competitor.min])", "48.10"),
        ("min([1.0, 1])", "1.0"),
        ("max([1.0, 1])", "1"),
        ("min([1, 'a', null])", "error: min and max is not possible with a text"),
        ("min([])", "error: min and max is not possible with an empty list"),
        ("stock.level > 5 ? 1 : 2", "1"),
        ("product.base_price in [stock.level > 5 ? 51.99 : 2, 3]", "true"),
        ("round(2.675, 2)", "2.68"),
        ("trunc(2.679, 2)", "2.67"),
        ("-stock.level", "-7"),
        ("1 / 0", "null"),
        ("5 % 0", "null"),
        ("competitor.median < 10", "error: comparison is not possible with null"),
        ("competitor.median + 1", "error: addition is not possible with null"),
        ("'a' + 'b'", "error: addition is not possible with a text"),
        ("79228162514264337593543950335 + 1", "error: addition gives a number that is too large"),
    ] {
        assert_eq!(evaluated(source), expected, "{source}");
    }
}

#[test]
fn names_that_have_no_value_in_a_rule_are_refused() {
    for (source, scope) in [
        ("stock.levle < 1", RuleKind::Market),
        ("shopper.prime", RuleKind::Market),
        ("stock.level < 1", RuleKind::Offer),
        ("product", RuleKind::Market),
        ("product.base_price.x", RuleKind::Market),
        ("nothing", RuleKind::Offer),
        ("$root", RuleKind::Market),
    ] {
        assert!(Expression::compile(source, scope).is_err(), "{source}");
    }
    assert_eq!(
        Expression::compile("stock.levle < 1", RuleKind::Market).unwrap_err(),
        ExpressionError::UnknownVariable("stock.levle".to_owned())
    );
}

#[test]
fn hostile_expressions_are_refused() {
    let deep_list = "[".repeat(5_000);
    let long_sum = format!("1{}", "+1".repeat(100_000));
    for source in [
        "len(map([1..1000000000], #))",
        "(9223372036854775807..9223372036854775807]",
        "map([1..300], map([1..300], map([1..300], map([1..300], #))))",
        "all([1..10], # > 1)",
        "'aaaaaaaaaaaaaaaaaaaaaaaa' matches '(a+)+$'",
        "2 ^ 1000",
        "rand(100)",
        "d('2020-01-01')",
        "sum([1..9])",
        "product.id[0]",
        "{a: 1}",
        "`x${1}`",
        "[1, 2, 3]",
        "1 in ]1..2[",
        "stock.level in min([1])",
        "",
        "  ",
        "((",
        "&&",
        "a && b",
        deep_list.as_str(),
        long_sum.as_str(),
    ] {
        assert!(
            Expression::compile(source, RuleKind::Market).is_err(),
            "{}",
            &source[..source.len().min(60)]
        );
    }
}

#[test]
fn the_deepest_source_that_is_allowed_does_no_harm() {
    let sources = [
        format!("1{}", "+1".repeat(MAX_SOURCE_BYTES / 2 - 1)),
        format!("{}1{}", "(".repeat(500), ")".repeat(500)),
        format!("{}true", "not ".repeat(250)),
        format!("{}1", "-".repeat(1_000)),
        format!("1{}", " ?? 1".repeat(200)),
        format!("min([{}1])", "1,".repeat(500)),
        "1 ? ".repeat(200),
        "[".repeat(1_000),
        "a.".repeat(500),
    ];
    for source in sources {
        if let Ok(expression) = Expression::compile(&source, RuleKind::Market) {
            let _ = expression.evaluate(facts);
        }
    }
}

/// The facts of [`facts`] as zen-expression's own context.
fn zen_facts() -> ZenValue {
    let context = ZenValue::empty_object();
    for name in Variable::names_in(RuleKind::Market) {
        let value = match Variable::named(name, RuleKind::Market).map_or(Value::Null, facts) {
            Value::Number(number) => ZenValue::Number(number),
            Value::Text(text) => ZenValue::String(text.into()),
            Value::Bool(value) => ZenValue::Bool(value),
            Value::Null => continue,
        };
        context.dot_insert(name, value);
    }
    context
}

/// Evaluates with zen-expression. `None` stands for an error: the two machines word errors differently.
fn by_zen(source: &str) -> Option<String> {
    let compiled = zen_expression::compile_expression(source).ok()?;
    match compiled.evaluate(zen_facts()).ok()? {
        ZenValue::Null => Some("null".to_owned()),
        ZenValue::Bool(value) => Some(value.to_string()),
        ZenValue::Number(number) => Some(number.to_string()),
        ZenValue::String(text) => Some(format!("\"{text}\"")),
        _ => None,
    }
}

fn source() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let names: Vec<&'static str> = Variable::names_in(RuleKind::Market).collect();
    let leaf = prop_oneof![
        (0_u32..100).prop_map(|number| number.to_string()),
        (0_u32..1_000).prop_map(|number| format!("{}.{:02}", number / 100, number % 100)),
        proptest::sample::select(names).prop_map(str::to_owned),
        proptest::sample::select(vec!["true", "false", "null", "'toys'", "'x'"]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let binary = proptest::sample::select(vec![
            "+", "-", "*", "/", "%", "<", "<=", ">", ">=", "==", "!=", "and", "or", "??",
        ]);
        prop_oneof![
            (inner.clone(), binary, inner.clone())
                .prop_map(|(a, operator, b)| format!("({a} {operator} {b})")),
            inner.clone().prop_map(|a| format!("(not {a})")),
            inner.clone().prop_map(|a| format!("(-{a})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a} in [{b}, {c}])")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} in (1..{b}])")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("max([{a}, {b}])")),
            (inner.clone(), 0_u32..6).prop_map(|(a, places)| format!("round({a}, {places})")),
            inner.prop_map(|a| format!("floor(abs({a}))")),
        ]
    })
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(2_000))]
    #[test]
    fn results_are_those_of_zen_expression(source in source()) {
        let expression = match Expression::compile(&source, RuleKind::Market) {
            Ok(expression) => expression,
            Err(_) => return Ok(()),
        };
        let ours = expression.evaluate(facts).ok().map(|value| value.to_string());
        let theirs = by_zen(&source);
        // The only intended difference: `+` does not concatenate texts here.
        let joins_texts = ours.is_none() && theirs.is_some() && source.contains('+') && source.contains('\'');
        if let Some(holds) = expression.decide(facts) {
            proptest::prop_assert_eq!(expression.evaluate(facts), Ok(Value::Bool(holds)), "{}", source);
        }
        proptest::prop_assert!(joins_texts || ours == theirs, "{}: {:?} instead of {:?}", source, ours, theirs);
    }

    #[test]
    fn any_text_is_compiled_or_refused(source in "[a-z0-9.()\\[\\]+*/<>=' ,?:!-]{0,80}") {
        if let Ok(expression) = Expression::compile(&source, RuleKind::Market) {
            let _ = expression.evaluate(facts);
            // Each instruction runs at most once, so this bounds the time by the length of the source.
            proptest::prop_assert!(expression.instructions.len() <= source.len());
        }
    }
}
