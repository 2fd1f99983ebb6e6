//! Imports of products: counts, warnings and refused rows.

use serde::{Deserialize, Serialize};

use crate::problem::FieldError;

/// How to import.
#[derive(Debug, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportQuery {
    /// Check and compare only; nothing is written.
    #[serde(default)]
    pub dry_run: bool,
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImportAnswer {
    /// Rows read.
    pub rows: u64,
    /// Products that were new.
    pub created: u64,
    /// Products that changed.
    pub updated: u64,
    /// Products that were already like this.
    pub unchanged: u64,
    /// Rows that say of their product what an earlier row said.
    #[serde(default)]
    #[schema(required)]
    pub repeated: u64,
    /// Rows that were refused.
    pub failed: u64,
    /// Rows that were not compared with all earlier ones, as more than 5,000,000 are not remembered: of two
    /// for one product the later may have counted.
    #[serde(default)]
    #[schema(required)]
    pub not_compared: u64,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// The columns of a CSV file that became attributes.
    #[serde(default)]
    #[schema(required)]
    pub attributes: Vec<String>,
    /// What may not be meant, though it was taken.
    #[serde(default)]
    #[schema(required)]
    pub warnings: Vec<ImportWarning>,
    /// Products that had a cost or a bound and have it no more.
    #[serde(default)]
    #[schema(required)]
    pub lost: LostBoundsAnswer,
    /// The first thousand refused rows.
    pub errors: Vec<RowErrors>,
    /// Refused rows that are not listed.
    pub errors_left_out: u64,
}

/// Something that may not be meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImportWarning {
    /// What, and why.
    pub warning: String,
    /// The first row that it is about.
    pub line: u64,
    /// How many rows it is about.
    pub rows: u64,
}

/// Products that had a cost or a bound and have it no more, as a row without it takes it away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LostBoundsAnswer {
    /// Products without the unit cost they had.
    pub unit_cost: u64,
    /// Products without the floor price they had.
    pub floor_price: u64,
    /// Products without the ceiling price they had.
    pub ceiling_price: u64,
    /// Products without the minimum advertised price they had.
    pub minimum_advertised_price: u64,
    /// The first hundred of all these.
    pub product_ids: Vec<String>,
    /// How many more there are.
    pub product_ids_left_out: u64,
}

/// A refused row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RowErrors {
    /// The line it starts on, from 1.
    pub line: u64,
    /// The product it names, if that can be read.
    pub product_id: Option<String>,
    /// What is wrong with it.
    pub errors: Vec<FieldError>,
}
