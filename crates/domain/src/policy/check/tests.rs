use chrono::{DateTime, Utc};

use super::*;
use crate::facts::Facts;
use crate::facts::product::ProductDraft;
use crate::facts::signal::Signals;
use crate::policy::view::View;

fn problems(yaml: &str) -> Vec<String> {
    let result = PolicyDraft::from_yaml(yaml, &TimeZones::bundled())
        .and_then(|draft| draft.check(1, &TimeZones::bundled()));
    result.err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn the_default_policy_is_right() {
    assert_eq!(problems(DEFAULT_POLICY), Vec::<String>::new());
}

#[test]
fn every_problem_of_a_draft_is_reported_at_once() {
    let found = problems(
        r#"
name: ""
market:
  - { name: a, when: "stock.levle < 1", adjust: "+6%" }
  - { name: a, adjust: "six", multiply_by: "2" }
  - { name: b }
  - { name: c, target_margin: "120%", until: tomorrow }
  - { name: d, set_to: "map([1..9], #)" }
  - { name: e, adjust: 1%, from: 2026-01-02T00:00:00Z, until: 2026-01-01T00:00:00Z }
offer:
  - { name: a, cost_plus: "5%" }
  - { name: b, multiply_by: "stock.level" }
guardrails: { min_margin: "-1%", max_step: 15 }
rounding: { increment: 0.03, ending: 0 }
"#,
    );
    let fields: Vec<&str> = found.iter().filter_map(|problem| problem.split(": ").next()).collect();
    assert_eq!(
        fields,
        [
            "name",
            "market[0].when",
            "market[1].name",
            "market[1].adjust",
            "market[1]",
            "market[2]",
            "market[3].until",
            "market[3].target_margin",
            "market[4].set_to",
            "market[5].until",
            "offer[0]",
            "offer[1].multiply_by",
            "guardrails.min_margin",
            "guardrails.max_step",
            "rounding.increment",
            "rounding.ending",
        ],
        "{found:#?}"
    );
}

#[test]
fn a_document_that_cannot_be_read_is_refused_with_its_place() {
    for yaml in ["name: [", "name: x\nname: [", "name: &a x\nmarket: [{ nam: *a }]"] {
        let found = PricingPolicy::from_yaml(yaml, 1, &TimeZones::bundled()).unwrap_err();
        assert_eq!(found.len(), 1, "{yaml}: {found:?}");
        assert_eq!(found[0].field, "policy");
        assert!(found[0].place.is_some() && !found[0].problem.contains(" at line "), "{found:?}");
    }
}

/// Formats each problem as the command line does.
fn located(found: &[Diagnostic]) -> Vec<String> {
    let located = found.iter().map(|problem| {
        let place = problem.place.map(|place| format!("{}:{}", place.line, place.column));
        format!("{} {problem}", place.unwrap_or_default())
    });
    located.collect()
}

#[test]
fn unknown_fields_wrong_kinds_and_all_else_are_reported_at_once() {
    let document = r#"
name: x
aply: { market: all }
apply: { market: best, offer: first }
market:
  - { name: a, whne: "stock.level < 1", adjust: 5 % }
  - { name: b, adjst: -5% }
  - { name: c, beat: { competitor: { statistic: mean, instock: true } } }
  - { name: d, when: [1], set_to: product.base_price / 0 }
  - { name: e, only: { category: [toys], attributes: { colour: red } }, adjust: ~, multiply_by: stock.levle }
  - { name: e, adjust: -5%, adjust: -6% }
offer: none
guardrails: [min_margin]
rounding: { mode: half, in: { stock: yes } }
"#;
    insta::assert_snapshot!(
        located(&PricingPolicy::from_yaml(document, 1, &TimeZones::bundled()).unwrap_err()).join("\n")
    );
    let alone = ["nme: x", "- 1", "name: x\nmarket: 5", "name: x\nmarket:\n  - { nam: y }", "text"];
    let found = alone.map(|yaml| {
        located(&PricingPolicy::from_yaml(yaml, 1, &TimeZones::bundled()).unwrap_err()).join("\n")
    });
    insta::assert_snapshot!(found.join("\n"));
}

#[test]
fn a_window_that_is_over_is_warned_of_where_it_stands() {
    let document = "name: x\nmarket:\n  - { name: a, adjust: -5% }\n  - { name: b, adjust: -5%, priority: 9, until: 2020-01-01T00:00:00Z }\n";
    let mut policy = PricingPolicy::from_yaml(document, 1, &TimeZones::bundled()).unwrap();
    assert!(policy.warnings.is_empty());
    policy.warn_of_windows_that_are_over(document, DateTime::UNIX_EPOCH);
    assert!(policy.warnings.is_empty());
    policy.warn_of_windows_that_are_over(document, DateTime::from_timestamp(1_800_000_000, 0).unwrap());
    assert_eq!(located(&policy.warnings), ["4:42 market[1].until: is over: the rule never applies again"]);
    assert_eq!(policy.refusals().count(), 0);
}

#[test]
fn numbers_keep_the_digits_they_were_written_with() {
    let policy = PricingPolicy::from_yaml(
        "name: x\nmarket:\n  - { name: a, match: { reference: competitor.min, offset: -0.01 } }\n  - { name: b, adjust: +0.10 }\n",
        7, &TimeZones::bundled())
    .unwrap();
    assert_eq!(policy.market[0].action.to_string(), "match competitor.min -0.01");
    assert_eq!(policy.market[1].action.to_string(), "adjust +0.1");
    assert_eq!(policy.version, 7);
}

#[test]
fn the_next_change_is_the_earliest_of_all_windows() {
    let policy = PricingPolicy::from_yaml(
        "name: x\nmarket:\n  - { name: a, adjust: -5%, from: 2026-01-02T00:00:00Z, until: 2026-01-05T00:00:00Z }\noffer:\n  - { name: b, adjust: -5%, until: 2026-01-03T00:00:00+01:00 }\n",
        1, &TimeZones::bundled())
    .unwrap();
    let at = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc);
    let draft = r#"{"product_id": "P-1", "currency": "USD", "base_price": 1}"#;
    let product = serde_json::from_str::<ProductDraft>(draft).unwrap().check().unwrap();
    let signals = Signals::default();
    let next_change = |now| {
        let facts = Facts { product: &product, signals: &signals, previous: None };
        policy.next_change(&View::of_product(facts, now))
    };
    assert_eq!(next_change(at("2026-01-01T00:00:00Z")), Some(at("2026-01-02T00:00:00Z")));
    assert_eq!(next_change(at("2026-01-02T00:00:00Z")), Some(at("2026-01-02T23:00:00Z")));
    assert_eq!(next_change(at("2026-01-03T00:00:00Z")), Some(at("2026-01-05T00:00:00Z")));
    assert_eq!(next_change(at("2026-01-05T00:00:00Z")), None);
}
