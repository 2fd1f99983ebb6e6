//! The form of a market event in the OpenAPI document. The form that is read is `EventDraft` of the domain; a
//! test compares the two.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

/// A market event in the format of CloudEvents 1.0.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MarketEvent)]
pub(crate) struct MarketEventSchema {
    /// The version of CloudEvents: `1.0`.
    #[schema(example = "1.0", pattern = r"^1\.0$")]
    specversion: String,
    /// Unique within the source; an event that is published again is applied once.
    #[schema(example = "2026-01-31/4711", min_length = 1, max_length = 128)]
    id: String,
    /// The source of the event.
    #[schema(example = "/scrapers/acme", min_length = 1, max_length = 256)]
    source: String,
    /// When the fact was observed; the time of receipt if absent. Of two events about the same fact, the
    /// later one counts, in any order of arrival.
    time: Option<DateTime<Utc>>,
    /// When the fact expires, for a price, demand, stock, cost or sales; never if absent.
    expires: Option<DateTime<Utc>>,
    #[serde(flatten)]
    fact: MarketFact,
}

/// What an event says: its `type`, and `data` of the form that belongs to it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", content = "data")]
#[expect(dead_code, reason = "only its form is used")]
enum MarketFact {
    #[serde(rename = "pricing.competitor_price.v1")]
    CompetitorPrice(CompetitorPrice),
    #[serde(rename = "pricing.demand_index.v1")]
    DemandIndex(DemandIndex),
    #[serde(rename = "pricing.stock_level.v1")]
    StockLevel(StockLevel),
    #[serde(rename = "pricing.unit_cost.v1")]
    UnitCost(UnitCost),
    #[serde(rename = "pricing.sales.v1")]
    Sales(Sales),
    #[serde(rename = "pricing.location_factor.v1")]
    LocationFactor(LocationFactor),
    #[serde(rename = "pricing.fact_withdrawn.v1")]
    FactWithdrawn(FactWithdrawn),
    #[serde(rename = "pricing.catalogue_changed.v1")]
    CatalogueChanged(CatalogueChanged),
    #[serde(rename = "pricing.policy_published.v1")]
    PolicyPublished(PolicyPublished),
    #[serde(rename = "pricing.recalculation_requested.v1")]
    RecalculationRequested(RecalculationRequested),
}

/// A competitor's price of a product.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CompetitorPrice {
    #[schema(example = "P-100", max_length = 64)]
    product_id: String,
    #[schema(example = "acme", max_length = 100)]
    competitor: String,
    #[schema(example = 41.90, exclusive_minimum = 0, maximum = 999_999_999_999_i64)]
    price: f64,
    /// An ISO 4217 code; that of the product if absent. A price in another currency is ignored.
    #[schema(example = "USD", min_length = 3, max_length = 3)]
    currency: Option<String>,
    /// Whether the competitor has it; not known if absent.
    in_stock: Option<bool>,
}

/// The demand for a product or a category; 1 is the usual one.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DemandIndex {
    /// Either this or `category`.
    product_id: Option<String>,
    /// Either this or `product_id`.
    #[schema(max_length = 100)]
    category: Option<String>,
    #[schema(example = 1.2, minimum = 0, maximum = 1_000)]
    index: f64,
}

/// The units in stock.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StockLevel {
    #[schema(example = "P-100", max_length = 64)]
    product_id: String,
    #[schema(minimum = 0, maximum = 999_999_999_999_i64)]
    level: f64,
}

/// What a unit costs the seller, in the product's currency.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UnitCost {
    #[schema(example = "P-100", max_length = 64)]
    product_id: String,
    #[schema(exclusive_minimum = 0, maximum = 999_999_999_999_i64)]
    cost: f64,
}

/// The units sold in the last 28 days.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Sales {
    #[schema(example = "P-100", max_length = 64)]
    product_id: String,
    #[schema(minimum = 0, maximum = 999_999_999_999_i64)]
    units_sold: f64,
}

/// The factor of a location.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LocationFactor {
    #[schema(example = "NY", max_length = 64)]
    location: String,
    #[schema(exclusive_minimum = 0, maximum = 100)]
    factor: f64,
}

/// Withdraws a fact: it counts no longer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct FactWithdrawn {
    /// This or, for demand, `category`.
    product_id: Option<String>,
    /// The category whose demand is withdrawn.
    #[schema(max_length = 100)]
    category: Option<String>,
    kind: WithdrawnKind,
    /// For a competitor's price.
    #[schema(max_length = 100)]
    competitor: Option<String>,
}

/// The facts that can be withdrawn.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only its form is used")]
enum WithdrawnKind {
    CompetitorPrice,
    DemandIndex,
    StockLevel,
    UnitCost,
    Sales,
}

/// Another program changed these products in the database: their prices are computed again.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CatalogueChanged {
    #[schema(min_items = 1, max_items = 1_000)]
    product_ids: Vec<String>,
}

/// A policy version was published: the whole catalogue is priced by it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PolicyPublished {
    #[schema(minimum = 1)]
    version: i64,
}

/// Requests a recalculation: of a category, of products, or of the whole catalogue if neither is given.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RecalculationRequested {
    #[schema(max_length = 100)]
    category: Option<String>,
    #[schema(min_items = 1, max_items = 1_000)]
    product_ids: Option<Vec<String>>,
    /// Whether prices that a limit on moves holds go to their targets at once.
    release: Option<bool>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chrono::Utc;
    use pricing_domain::facts::market_event::EventDraft;
    use serde_json::{Value, json};

    use crate::router::document;

    /// The fields that the domain allows for this type, by the answer to one that it does not.
    fn allowed(event_type: &str) -> BTreeSet<String> {
        let event = json!({"specversion": "1.0", "id": "1", "source": "/test", "type": event_type,
            "data": {"unknown": 1}});
        let draft: EventDraft = serde_json::from_str(&event.to_string()).unwrap();
        let problems = draft.check(Utc::now()).unwrap_err();
        let problem = problems.iter().find(|problem| problem.field == "data.unknown").unwrap();
        problem.allowed.as_deref().unwrap().split(", ").map(str::to_owned).collect()
    }

    #[test]
    fn the_document_has_the_fields_of_each_type() {
        let document: Value = serde_json::from_str(&document().to_json().unwrap()).unwrap();
        let schemas = &document["components"]["schemas"];
        let kinds = schemas["MarketFact"]["oneOf"].as_array().unwrap();
        assert_eq!(kinds.len(), 10);
        for kind in kinds {
            let event_type = kind["properties"]["type"]["enum"][0].as_str().unwrap();
            let name = kind["properties"]["data"]["$ref"].as_str().unwrap();
            let data = &schemas[name.rsplit('/').next().unwrap()];
            let documented = data["properties"].as_object().unwrap().keys().cloned().collect();
            assert_eq!(allowed(event_type), documented, "{event_type}");
        }
    }
}
