//! The same ten rules as a decision table on zen-engine, beside `price()`: part of `./dev bench price`.
//!
//! Each has its rules compiled and gets the facts of a product as its own kind of value; both give the same
//! amount, which is checked first. `price()` also keeps the guardrails, rounds, and says why, as it always
//! does.

#[path = "../../../../../domain/benches/price/facts.rs"]
#[expect(dead_code, reason = "other benches use the rest")]
mod facts;
#[path = "../../../../../domain/benches/price/measure.rs"]
mod measure;

use std::hint::black_box;

use chrono::DateTime;
use futures::executor::block_on;
use pricing_domain::pricing::price::price;
use rust_decimal::Decimal;
use serde_json::json;
use zen_engine::model::DecisionContent;
use zen_engine::{Decision, DecisionEngine, Variable};

use facts::{Market, policy};
use measure::compare;

/// Of [`TEN_RULES`]: up to which stock each rule applies, and by what it multiplies the price.
const TEN_THRESHOLDS: [(&str, &str); 10] = [
    ("2", "1.10"),
    ("4", "1.09"),
    ("6", "1.08"),
    ("8", "1.07"),
    ("10", "1.06"),
    ("15", "1.05"),
    ("20", "1.04"),
    ("30", "1.03"),
    ("40", "1.02"),
    ("60", "1.01"),
];

/// A ladder of ten, the last of which applies.
const TEN_RULES: &str = "
name: ten rules, the first that applies
apply: { market: first_match }
market:
  - { name: r0, when: stock.level < 2 and demand.index > 1, multiply_by: 1.10 }
  - { name: r1, when: stock.level < 4 and demand.index > 1, multiply_by: 1.09 }
  - { name: r2, when: stock.level < 6 and demand.index > 1, multiply_by: 1.08 }
  - { name: r3, when: stock.level < 8 and demand.index > 1, multiply_by: 1.07 }
  - { name: r4, when: stock.level < 10 and demand.index > 1, multiply_by: 1.06 }
  - { name: r5, when: stock.level < 15 and demand.index > 1, multiply_by: 1.05 }
  - { name: r6, when: stock.level < 20 and demand.index > 1, multiply_by: 1.04 }
  - { name: r7, when: stock.level < 30 and demand.index > 1, multiply_by: 1.03 }
  - { name: r8, when: stock.level < 40 and demand.index > 1, multiply_by: 1.02 }
  - { name: r9, when: stock.level < 60 and demand.index > 1, multiply_by: 1.01 }
";

/// The allocator of the services.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let market = Market::new();
    let policy = policy(TEN_RULES);
    let table = decision_table();
    let ours = || price(&black_box(&market).facts(), &policy, DateTime::UNIX_EPOCH);
    let theirs = || table_price(&table, black_box(&market));
    assert_eq!(theirs().normalize(), ours().amount.normalize(), "both have the same rules");
    compare(&("ten rules on zen-engine", theirs), &("price()", ours), "≥ 5");
}

/// The first row that fits gives the price.
fn decision_table() -> Decision {
    let row = |(row, (stock, factor)): (usize, &(&str, &str))| {
        let price = format!("round(product.base_price * {factor}, 2)");
        json!({"_id": row.to_string(), "stock": format!("< {stock}"), "demand": "> 1", "price": price})
    };
    let table = json!({
        "hitPolicy": "first",
        "inputs": [
            {"id": "stock", "name": "Stock", "field": "stock.level"},
            {"id": "demand", "name": "Demand", "field": "demand.index"},
        ],
        "outputs": [{"id": "price", "name": "Price", "field": "price"}],
        "rules": TEN_THRESHOLDS.iter().enumerate().map(row).collect::<Vec<_>>(),
    });
    let graph = json!({
        "nodes": [
            {"id": "in", "name": "in", "type": "inputNode"},
            {"id": "table", "name": "table", "type": "decisionTableNode", "content": table},
            {"id": "out", "name": "out", "type": "outputNode"},
        ],
        "edges": [
            {"id": "1", "type": "edge", "sourceId": "in", "targetId": "table"},
            {"id": "2", "type": "edge", "sourceId": "table", "targetId": "out"},
        ],
    });
    let content: DecisionContent = serde_json::from_value(graph).expect("it is a decision");
    let mut decision =
        DecisionEngine::default().create_decision(content.into()).expect("it is a graph of decisions");
    decision.compile();
    decision
}

/// The price of a product, out of a context of its own.
fn table_price(table: &Decision, market: &Market) -> Decimal {
    let context = Variable::empty_object();
    let number = |number: Option<Decimal>| number.map_or(Variable::Null, Variable::Number);
    context.dot_insert("product.base_price", Variable::Number(market.product.base_price));
    context.dot_insert("stock.level", number(market.signals.stock_level));
    context.dot_insert("demand.index", number(market.signals.demand_index));
    let answer = block_on(table.evaluate(context)).expect("the table is right");
    match answer.result.dot("price") {
        Some(Variable::Number(price)) => price,
        other => panic!("the table gives no price: {other:?}"),
    }
}
