//! Differences between the prices that are served and those that are stored.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::amount;

/// The page to compare.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PriceDifferencesQuery {
    /// The product after which the page begins: the `next_after` of the last one.
    pub after: Option<String>,
    /// The maximum number of products, from 1 to 1,000; 1,000 if absent.
    #[param(minimum = 1, maximum = 1_000)]
    pub limit: Option<u32>,
}

/// A page of the comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PriceDifferencesAnswer {
    /// The number of stored prices that were compared.
    pub compared: u64,
    /// The prices that are served and are not the stored ones, by product.
    pub differences: Vec<PriceDifferenceAnswer>,
    /// The product after which the next page begins; null after the last page.
    pub next_after: Option<String>,
}

/// A price that is served and is not the stored one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PriceDifferenceAnswer {
    /// The product.
    pub product_id: String,
    /// `memory`: held by the process that answers; `redis`: held by Redis, from where every process may serve
    /// it.
    #[serde(rename = "where")]
    pub place: String,
    /// The revision of the price that is served.
    pub served_revision: i64,
    /// The revision of the stored price.
    pub stored_revision: i64,
    /// The list price that is served; null if the product is served as one that does not exist.
    #[serde(default, with = "amount::optional")]
    #[schema(value_type = Option<f64>)]
    pub served_list_price: Option<Decimal>,
    /// The stored list price. If it is the same as the one that is served, other fields of the price differ.
    #[serde(with = "amount")]
    #[schema(value_type = f64)]
    pub stored_list_price: Decimal,
}
