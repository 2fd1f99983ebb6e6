//! Simulations: the effect of a policy on the whole catalogue, as one JSON document per line.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use pricing_domain::diagnostic::Diagnostic;
use pricing_domain::facts::product::ProductId;
use pricing_domain::policy::panel::PanelShopper;
use pricing_domain::pricing::{catalogue_warning, final_prices, moves, simulation};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::amount;
use crate::held_price::{HeldPrice, HeldPrices};
use crate::problem::{FieldError, Problem};

/// The products to list besides the report.
#[derive(Debug, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SimulateQuery {
    /// `none` (the default), `all`, or `moved`: those whose price would change or be frozen.
    #[serde(default)]
    #[param(inline, value_type = Option<Listed>)]
    pub products: Listed,
}

/// Which products are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Listed {
    /// No product.
    #[default]
    None,
    /// Products whose price would change, or would be frozen.
    Moved,
    /// All products.
    All,
}

/// A line of the answer; exactly one field is present.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Line {
    /// The progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// A listed product.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<SimulatedPrice>,
    /// The JSON of a [`SimulationReport`]; the last line has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Box<RawValue>>,
    /// The problem that ended the simulation early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// The progress of a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The number of products priced so far.
    pub products: u64,
    /// The number of products when the simulation began.
    pub total: u64,
}

/// A product's current and simulated price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SimulatedPrice {
    /// The product.
    pub product_id: String,
    /// The currency of the amounts.
    pub currency: Cow<'static, str>,
    /// The list price in effect; null if there is none in this currency.
    #[serde(default, with = "amount::optional")]
    #[schema(required, value_type = Option<f64>)]
    pub list_price: Option<Decimal>,
    /// The simulated list price.
    #[serde(with = "amount")]
    #[schema(value_type = f64)]
    pub simulated_list_price: Decimal,
    /// The move in percent; null without a current price.
    #[serde(default, with = "amount::optional")]
    #[schema(required, value_type = Option<f64>)]
    pub change_percent: Option<Decimal>,
    /// `priced`, or `frozen` if a rule fails.
    pub outcome: Cow<'static, str>,
    /// The guardrails that would limit it.
    pub guardrails: Vec<Cow<'static, str>>,
    /// The rule that would fail and freeze the price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_rule: Option<String>,
    /// The reason for the failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What a limit on moves would hold back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldPrice>,
    /// Whether it would move at once by more than the policy's `max_step`; absent if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_beyond_max_step: bool,
}

/// The effects of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimulationReport {
    /// The number of products priced.
    pub products: u64,
    /// The number of products whose price would rise.
    pub up: u64,
    /// The number of products whose price would fall.
    pub down: u64,
    /// The number of products whose price would not change, including those without a current price.
    pub unchanged: u64,
    /// The number of products whose price would be frozen.
    pub frozen: u64,
    /// The median of all moves, in percent; for an even number, the mean of the middle two.
    #[serde(with = "amount")]
    pub median_change_percent: Decimal,
    /// The distribution of the moves.
    pub distribution: Vec<MoveRange>,
    /// The number of prices that each guardrail would limit, in the domain's order of guardrails.
    pub guardrails: IndexMap<String, u64>,
    /// The prices that limits on moves would hold back, by limit.
    #[serde(default)]
    pub held_prices: Vec<HeldPrices>,
    /// The number of products that would move at once by more than the policy's `max_step`, because of what
    /// the seller changes or to stay within a floor or a ceiling. The largest are the first of the largest
    /// moves.
    #[serde(default)]
    pub moves_beyond_max_step: u64,
    /// The effect of each market rule, in order, including rules without an effect.
    pub rules: Vec<RuleEffect>,
    /// The number of failures of each rule that would fail.
    #[serde(default)]
    pub failed_rules: BTreeMap<String, u64>,
    /// Revenue and margin by currency, if as many units were sold as in the last 28 days. Only products with
    /// known cost and sales are included.
    pub margins: BTreeMap<String, MarginEffect>,
    /// The products with the largest moves.
    pub biggest_moves: Vec<SimulatedPrice>,
    /// The effect on the final prices of each shopper of the panel: that of the simulated policy, and other
    /// shoppers of the panel of the policy in use, if it has a circuit breaker. At most 32.
    #[serde(default)]
    pub panel: Vec<ShopperEffect>,
    /// Effects on products that the author of the policy may not intend.
    #[serde(default)]
    pub catalogue_warnings: Vec<CatalogueWarning>,
    /// The products that are not simulated because their currency is unknown to the API.
    #[serde(default)]
    pub left_out: LeftOutProducts,
    /// The reasons why publishing would need approval, by the circuit breakers of this policy and of the
    /// published one.
    pub held: Vec<String>,
    /// Parts of the policy that are allowed but probably not intended.
    #[serde(default)]
    pub warnings: Vec<FieldError>,
}

/// The effect on the final prices of one shopper of a panel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShopperEffect {
    /// The shopper's name.
    pub name: String,
    /// The location, if the shopper is at one with a name.
    pub location: Option<String>,
    /// The factor that is set for the location, if one is.
    #[serde(default, with = "amount::optional")]
    pub location_factor: Option<Decimal>,
    /// The segment, if any.
    pub segment: Option<String>,
    /// The sales channel, if any.
    pub channel: Option<String>,
    /// Whether the shopper is a prime member.
    pub prime: bool,
    /// The number of units.
    pub quantity: u32,
    /// The number of products whose final price would rise.
    pub up: u64,
    /// The number of products whose final price would fall.
    pub down: u64,
    /// The number of products whose final price would not change, including those without a current price.
    pub unchanged: u64,
    /// The median of all moves, in percent; for an even number, the mean of the middle two.
    #[serde(with = "amount")]
    pub median_change_percent: Decimal,
    /// The distribution of the moves.
    pub distribution: Vec<MoveRange>,
    /// The products with the largest moves, the largest first; at most five.
    pub biggest_moves: Vec<FinalPriceMove>,
}

/// A product whose final price would move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalPriceMove {
    /// The product.
    pub product_id: String,
    /// The currency of the amounts.
    pub currency: Cow<'static, str>,
    /// The final price in effect.
    #[serde(with = "amount")]
    pub final_price: Decimal,
    /// The simulated final price.
    #[serde(with = "amount")]
    pub simulated_final_price: Decimal,
    /// The move in percent.
    #[serde(with = "amount")]
    pub change_percent: Decimal,
}

/// A range of the distribution of moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MoveRange {
    /// The lower bound of the moves, in percent; inclusive if above 0.
    #[schema(required)]
    pub from_percent: Option<i64>,
    /// The upper bound of the moves, in percent; inclusive if below 0.
    #[schema(required)]
    pub to_percent: Option<i64>,
    /// The number of products.
    pub products: u64,
}

/// The effect of a market rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleEffect {
    /// The rule's name.
    pub name: String,
    /// The number of products to which it would apply, including those that a later rule freezes.
    pub applied: u64,
    /// The number of products that it would freeze by failing.
    pub failed: u64,
}

/// The effect on revenue and margin in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarginEffect {
    /// The number of products whose cost and sales are known.
    pub products: u64,
    /// The revenue at the prices in effect.
    #[serde(with = "amount")]
    pub revenue: Decimal,
    /// The simulated revenue.
    #[serde(with = "amount")]
    pub simulated_revenue: Decimal,
    /// Revenue minus cost at the prices in effect.
    #[serde(with = "amount")]
    pub margin: Decimal,
    /// The simulated margin.
    #[serde(with = "amount")]
    pub simulated_margin: Decimal,
}

/// An effect on some products.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueWarning {
    /// The cause in the policy: `rounding.increment`, or the name of an offer rule.
    pub about: String,
    /// The effect.
    pub problem: String,
    /// The number of affected products.
    pub products: u64,
    /// The first affected products.
    pub examples: Vec<String>,
}

/// Products that are not simulated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOutProducts {
    /// The number of products.
    pub products: u64,
    /// The first 20 of these products.
    pub product_ids: Vec<String>,
}

impl SimulationReport {
    /// The report of a simulation, with the reasons to hold the policy and the warnings about it.
    pub fn new(report: simulation::SimulationReport, held: Vec<String>, warnings: Vec<Diagnostic>) -> Self {
        let guardrails = report.guardrails.into_iter();
        let failed_rules = report.failed_rules.into_iter();
        let margins = report.margins.into_iter();
        let left_out = report.left_out;
        Self {
            products: report.products,
            up: report.up,
            down: report.down,
            unchanged: report.unchanged,
            frozen: report.frozen,
            median_change_percent: report.median_change_percent,
            distribution: report.distribution.into_iter().map(Into::into).collect(),
            guardrails: guardrails.map(|(name, count)| (name.name().to_owned(), count)).collect(),
            held_prices: report.held_prices.into_iter().map(Into::into).collect(),
            moves_beyond_max_step: report.moves_beyond_max_step,
            rules: report.rules.into_iter().map(Into::into).collect(),
            failed_rules: failed_rules.map(|(name, count)| (name.as_ref().to_owned(), count)).collect(),
            margins: margins.map(|(currency, effect)| (currency.to_owned(), effect.into())).collect(),
            biggest_moves: report.biggest_moves.iter().map(Into::into).collect(),
            panel: report.panel.into_iter().map(Into::into).collect(),
            catalogue_warnings: report.catalogue_warnings.into_iter().map(Into::into).collect(),
            left_out: LeftOutProducts {
                products: left_out.products,
                product_ids: texts(&left_out.product_ids),
            },
            held,
            warnings: FieldError::each_of(warnings),
        }
    }
}

impl From<&simulation::SimulatedPrice> for SimulatedPrice {
    fn from(price: &simulation::SimulatedPrice) -> Self {
        Self {
            product_id: price.product_id.to_string(),
            currency: price.currency.into(),
            list_price: price.list_price,
            simulated_list_price: price.simulated_list_price,
            change_percent: price.change_percent,
            outcome: price.outcome.name().into(),
            guardrails: price.guardrails.iter().map(|guardrail| guardrail.name().into()).collect(),
            failed_rule: price.failed_rule.clone(),
            problem: price.problem.clone(),
            held: price.held.map(Into::into),
            is_beyond_max_step: price.is_beyond_max_step,
        }
    }
}

impl From<final_prices::ShopperEffect> for ShopperEffect {
    fn from(effect: final_prices::ShopperEffect) -> Self {
        let PanelShopper { shopper, location_factor } = effect.shopper;
        let text = |text: Option<Arc<str>>| text.map(|text| text.as_ref().to_owned());
        Self {
            name: shopper.name.as_ref().to_owned(),
            location: text(shopper.location),
            location_factor,
            segment: text(shopper.segment),
            channel: text(shopper.channel),
            prime: shopper.prime,
            quantity: shopper.quantity,
            up: effect.up,
            down: effect.down,
            unchanged: effect.unchanged,
            median_change_percent: effect.median_change_percent,
            distribution: effect.distribution.into_iter().map(Into::into).collect(),
            biggest_moves: effect.biggest_moves.iter().map(Into::into).collect(),
        }
    }
}

impl From<&final_prices::FinalPriceMove> for FinalPriceMove {
    fn from(moved: &final_prices::FinalPriceMove) -> Self {
        Self {
            product_id: moved.product_id.to_string(),
            currency: moved.currency.into(),
            final_price: moved.final_price,
            simulated_final_price: moved.simulated_final_price,
            change_percent: moved.change_percent,
        }
    }
}

impl From<moves::MoveRange> for MoveRange {
    fn from(range: moves::MoveRange) -> Self {
        let moves::MoveRange { from_percent, to_percent, products } = range;
        Self { from_percent, to_percent, products }
    }
}

impl From<simulation::RuleEffect> for RuleEffect {
    fn from(effect: simulation::RuleEffect) -> Self {
        let simulation::RuleEffect { name, applied, failed } = effect;
        Self { name: name.as_ref().to_owned(), applied, failed }
    }
}

impl From<simulation::MarginEffect> for MarginEffect {
    fn from(effect: simulation::MarginEffect) -> Self {
        let simulation::MarginEffect { products, revenue, simulated_revenue, margin, simulated_margin } =
            effect;
        Self { products, revenue, simulated_revenue, margin, simulated_margin }
    }
}

impl From<catalogue_warning::CatalogueWarning> for CatalogueWarning {
    fn from(warning: catalogue_warning::CatalogueWarning) -> Self {
        let catalogue_warning::CatalogueWarning { about, problem, products, examples } = warning;
        Self {
            about: about.as_ref().to_owned(),
            problem: problem.to_owned(),
            products,
            examples: texts(&examples),
        }
    }
}

fn texts(product_ids: &[ProductId]) -> Vec<String> {
    product_ids.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use pricing_domain::facts::previous::Previous;
    use pricing_domain::pricing::price::price;
    use pricing_domain::{Facts, PricingPolicy, ProductDraft, Signals, TimeZones};

    use super::*;

    #[test]
    fn a_price_says_of_itself_what_stopped_it() {
        let policy =
            "name: x\nmarket: [{ name: fair, set_to: product.base_price }]\nguardrails: { max_step: 50% }\n";
        let policy = PricingPolicy::from_yaml(policy, 1, &TimeZones::bundled()).unwrap();
        let draft = r#"{"product_id":"P-0","currency":"USD","base_price":100}"#;
        let product = serde_json::from_str::<ProductDraft>(draft).unwrap().check().unwrap();
        let (list_price, signals) = (Decimal::from(400), Signals::default());
        let previous = Previous::of(list_price);
        let facts = Facts { product: &product, signals: &signals, previous: Some(previous) };
        let computed = price(&facts, &policy, chrono::DateTime::UNIX_EPOCH);
        let simulated = simulation::SimulatedPrice::new(&facts, Some(list_price), &computed, &policy);
        assert_eq!(
            serde_json::to_string(&SimulatedPrice::from(&simulated)).unwrap(),
            r#"{"product_id":"P-0","currency":"USD","list_price":400,"simulated_list_price":200.00,"change_percent":-50,"outcome":"priced","guardrails":["max_step"],"held":{"by":"max_step","target":100.00,"continues_at":"1970-01-01T01:00:00Z","reaches_target_at":"1970-01-01T01:00:00Z"}}"#
        );
        let mut sums = simulation::Simulation::of(&policy);
        sums.add(&simulated);
        let report = SimulationReport::new(sums.report(), vec!["too far".to_owned()], Vec::new());
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.starts_with(r#"{"products":1,"up":0,"down":1,"unchanged":0,"frozen":0,"#), "{json}");
        assert!(
            json.contains(r#""guardrails":{"max_step":1},"held_prices":[{"limit":"max_step","products":1,"largest_distance_percent":50,"median_distance_percent":50,"continues_at":"1970-01-01T01:00:00Z","reaches_target_at":"1970-01-01T01:00:00Z","products_that_stay":0}],"moves_beyond_max_step":0,"rules":[{"name":"fair","applied":1,"failed":0}]"#)
        );
        assert!(
            json.ends_with(r#""left_out":{"products":0,"product_ids":[]},"held":["too far"],"warnings":[]}"#)
        );
    }

    #[test]
    fn a_line_reads_as_it_was_written() {
        for json in [
            r#"{"progress":{"products":1000,"total":20000}}"#,
            r#"{"product":{"product_id":"P-7","currency":"USD","list_price":10.00,"simulated_list_price":15.00,"change_percent":50,"outcome":"priced","guardrails":["max_step"],"is_beyond_max_step":true}}"#,
            r#"{"product":{"product_id":"P-8","currency":"JPY","list_price":null,"simulated_list_price":1200,"change_percent":null,"outcome":"frozen","guardrails":[],"failed_rule":"clearance","problem":"division by zero"}}"#,
            r#"{"report":{"products":1, "up":0}}"#,
            r#"{"error":{"type":"/problems/internal","title":"Internal error","status":500,"detail":"the engine has a fault; its log says more"}}"#,
        ] {
            let line: Line = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&line).unwrap(), json);
        }
    }

    #[test]
    fn a_line_of_a_newer_engine_is_read() {
        let line: Line = serde_json::from_str(r#"{"forecast":{"products":1}}"#).unwrap();
        assert!(line.progress.is_none() && line.product.is_none() && line.report.is_none());
    }

    #[test]
    fn a_report_reads_as_it_was_written() {
        let json = r#"{"products":20000,"up":1200,"down":300,"unchanged":18500,"frozen":7,"median_change_percent":0,"distribution":[{"from_percent":null,"to_percent":-50,"products":0},{"from_percent":0,"to_percent":0,"products":18500}],"guardrails":{"unit_cost":3,"max_step":41},"held_prices":[{"limit":"max_step","products":41,"largest_distance_percent":60.5,"median_distance_percent":12,"continues_at":"2026-11-23T13:05:00Z","reaches_target_at":null,"products_that_stay":41}],"moves_beyond_max_step":7,"rules":[{"name":"follow","applied":1500,"failed":7}],"failed_rules":{"follow":7},"margins":{"USD":{"products":900,"revenue":1000.50,"simulated_revenue":1100.00,"margin":200.10,"simulated_margin":-299.60}},"biggest_moves":[],"panel":[{"name":"prime","location":"NY","location_factor":0.95,"segment":null,"channel":null,"prime":true,"quantity":1,"up":0,"down":1,"unchanged":19999,"median_change_percent":0,"distribution":[],"biggest_moves":[{"product_id":"P-7","currency":"USD","final_price":10.00,"simulated_final_price":0.50,"change_percent":-95}]}],"catalogue_warnings":[{"about":"tenner","problem":"would leave nothing","products":12,"examples":["P-3"]}],"left_out":{"products":1,"product_ids":["P-9"]},"held":["too far"],"warnings":[{"field":"rounding","problem":"is no multiple","line":7,"column":12}]}"#;
        let report: SimulationReport = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&report).unwrap(), json);
    }
}
