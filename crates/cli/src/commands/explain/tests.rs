//! Tests of the tables.

use super::*;

/// Every kind of step, the last one from a newer engine.
const EVERY_STEP: &str = r#"{
    "product_id": "P-1", "name": "Harbour Lane Canvas Weekender Bag", "currency": "USD", "list_price": 55.20,
    "policy_version": 3, "policy_name": "default", "revision": 12, "valid_until": "2027-01-16T00:00:00Z",
    "facts_used": [
        {"fact": "unit_cost", "value": 30, "source": "product", "since": "2027-01-14T10:00:00.123456Z"},
        {"fact": "competitor_price", "competitor": "acme", "value": 53.53, "source": "/feed",
         "since": "2027-01-15T07:00:00Z", "expires_at": "2027-01-16T07:00:00Z"},
        {"fact": "stock_level", "value": 7, "source": null, "since": null}
    ],
    "explanation": {
        "policy_version": 3, "priced_at": "2027-01-15T08:00:00Z", "outcome": "frozen", "facts": {},
        "steps": [
            {"step": "start", "after": 50.00},
            {"step": "rule", "rule": "scarcity", "when": "stock.level < 10 and demand.index > 1.2",
             "action": "adjust +6%", "inputs": {"stock.level": 7, "demand.index": 1.50},
             "applied": true, "before": 50.00, "after": 53.00},
            {"step": "rule", "rule": "match-cheapest-competitor", "action": "match competitor.min -0.01",
             "inputs": {"competitor.min": null}, "applied": false, "before": 53.00, "after": 53.00},
            {"step": "rule", "rule": "undercut", "action": "beat the lowest competitor in stock by +1%", "inputs": {},
             "reference": 53.53, "competitors": ["acme"], "applied": true, "before": 53.00, "after": 53.00},
            {"step": "tie", "chosen": "undercut", "others": ["follow", "match-the-marketplace"], "after": 53.00},
            {"step": "rule_failed", "rule": "clearance", "action": "set to product.unit_cost / stock.level",
             "inputs": {"product.unit_cost": 30, "stock.level": 0}, "problem": "division by zero", "after": 53.00},
            {"step": "guardrail", "guardrail": "min_margin", "before": 53.00, "after": 55.196},
            {"step": "guardrails_contradict", "lowest": 55.196, "highest": 54, "after": 55.196},
            {"step": "rounding", "mode": "half_even", "before": 55.196, "after": 55.20},
            {"step": "increment_passed_over", "increment": 0.50, "after": 55.20},
            {"step": "price_memory", "after": 55.20}
        ]
    },
    "quote": {
        "final_price": 49.82, "discount_rate": 0.05,
        "steps": [
            {"step": "start", "after": 55.20},
            {"step": "rule", "rule": "location", "action": "multiply by location.factor",
             "inputs": {"location.factor": 0.95}, "applied": true, "before": 55.20, "after": 52.44},
            {"step": "rule", "rule": "prime", "when": "shopper.prime", "action": "adjust -5%",
             "inputs": {"shopper.prime": true}, "applied": true, "before": 52.44, "after": 49.818},
            {"step": "rounding", "mode": "half_even", "before": 49.818, "after": 49.82}
        ]
    }
}"#;

#[test]
fn every_step_fits_eighty_columns() -> Result<()> {
    let explained = serde_json::from_str(EVERY_STEP)?;
    let text = render(&explained, Some("NY"), Some(DEFAULT_WIDTH));
    let widest = text.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(usize::from(DEFAULT_WIDTH)), "{text}");
    insta::assert_snapshot!(text);
    Ok(())
}

#[test]
fn without_a_shopper_only_the_list_price_is_explained() -> Result<()> {
    let explained = serde_json::from_str(
        r#"{"product_id": "P-2", "name": "Lamp", "currency": "JPY", "list_price": 1200, "policy_version": 1,
            "policy_name": "default", "revision": 1, "valid_until": null, "quote": null,
            "explanation": {"priced_at": "2027-01-15T08:00:00Z", "outcome": "priced",
                            "steps": [{"step": "start", "after": 1200}]}}"#,
    )?;
    insta::assert_snapshot!(render(&explained, None, Some(DEFAULT_WIDTH)));
    Ok(())
}

#[test]
fn a_price_that_is_held_back_says_until_when() -> Result<()> {
    for (held, expected) in [
        ("null", ""),
        (
            r#"{"by": "max_step", "target": 50.00, "continues_at": "2026-11-23T13:05:00Z",
                "reaches_target_at": "2026-11-23T16:05:00Z"}"#,
            "\nIts target is 50.00 USD; a limit, the largest move per step, holds it back.\
             \nIt continues at 2026-11-23T13:05:00Z.\nIt reaches its target at 2026-11-23T16:05:00Z.",
        ),
        (
            r#"{"by": "competitor_loop", "target": 145.00, "continues_at": null, "reaches_target_at": null}"#,
            "\nIts target is 145.00 USD; a limit, the loop with competitors, holds it back.\
             \nIt stays short of its target until a fact, the product or the policy changes.",
        ),
    ] {
        let explained = format!(
            r#"{{"product_id": "P-3", "name": "Kettle", "currency": "USD", "list_price": 85.00,
                "policy_version": 1, "policy_name": "default", "revision": 1, "valid_until": null, "quote": null,
                "held": {held}, "explanation": {{"priced_at": "2026-11-23T12:05:00Z", "outcome": "priced",
                "facts": {{"previous": {{"movement": {{"current_price": 100}}}}}}, "steps": []}}}}"#
        );
        let text = render(&serde_json::from_str(&explained)?, None, Some(DEFAULT_WIDTH));
        let end = format!("The list price of Kettle is 85.00 USD.{expected}");
        assert!(text.ends_with(&end), "{text}");
        assert!(!text.contains("movement") && text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
    Ok(())
}
