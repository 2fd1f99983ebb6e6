//! Tests of the facts read from an explanation.

use super::*;

/// An explanation in the forms of earlier versions and of this one.
const RECORDED: &str = r#"{"policy_version":1,"priced_at":"2026-11-23T12:00:00Z","outcome":"priced","facts":{
    "product":{"product_id":"P-1","name":"Kettle","category":null,"brand":null,"currency":"USD","base_price":100.00,
               "unit_cost":40,"floor_price":null,"ceiling_price":null,"attributes":{}},
    "signals":{"competitor_prices":[{"competitor":"acme","price":41.9,"observed_at":"2026-11-23T11:00:00Z","source":"/feed"},
                                    {"competitor":"best","price":50,"observed_at":"2026-11-23T11:00:00Z"}],
               "demand_index":1.5,"stock_level":7,"unit_cost":UNIT_COST,"demand_observed_at":"2026-11-23T10:00:00Z",
               "origins":{"stock_level":{"source":"/wms","observed_at":"2026-11-23T09:00:00Z","expires_at":"2026-11-24T09:00:00Z"},
                          "unit_cost":{"source":"/erp","observed_at":"2026-11-22T09:00:00Z"}},
               "cost_stated_at":"2026-11-20T08:00:00Z"},
    "previous":null},
    "steps":[{"step":"start","after":100.00},{"step":"rule","rule":"r","competitors":["acme"],"applied":true}]}"#;

/// Each fact: what it is, its value, its source, since when it is known, and until when.
fn used(unit_cost: &str) -> Vec<String> {
    let recorded: RecordedExplanation =
        serde_json::from_str(&RECORDED.replace("UNIT_COST", unit_cost)).unwrap();
    let instant =
        |instant: Option<DateTime<Utc>>| instant.map_or("-".to_owned(), crate::facts::instant::written);
    let in_words = |used: &UsedFact<'_>| {
        let UsedFact { fact, competitor, value, source, since, expires_at } = *used;
        let (competitor, source) = (competitor.unwrap_or("-"), source.unwrap_or("-"));
        format!("{fact} {competitor} {value} {source} {} {}", instant(since), instant(expires_at))
    };
    recorded.used_facts().iter().map(in_words).collect()
}

#[test]
fn each_fact_has_its_source_and_time() {
    assert_eq!(
        used("null"),
        [
            "unit_cost - 40 product 2026-11-20T08:00:00Z -",
            "competitor_price acme 41.9 /feed 2026-11-23T11:00:00Z -",
            "stock_level - 7 /wms 2026-11-23T09:00:00Z 2026-11-24T09:00:00Z",
            "demand_index - 1.5 - - -",
        ]
    );
    assert_eq!(used("45")[0], "unit_cost - 45 /erp 2026-11-22T09:00:00Z -");
}
