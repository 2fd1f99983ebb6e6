//! Policies: versions, checks and publishing.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::held_price::HeldPrices;
use crate::problem::FieldError;

/// The author, note and approver of a new version.
#[derive(Debug, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PublishQuery {
    /// The author of the version. Required without access control, and refused with it: the key says who
    /// calls.
    #[param(example = "zoe", min_length = 1, max_length = 100)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The reason for the version.
    pub note: Option<String>,
    /// Whether the policy is published even if a circuit breaker would hold it. With access control this
    /// needs the scope `policies:approve`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approve: bool,
    /// Without access control, the name of who approves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
}

/// A policy version without its document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PolicyVersion {
    /// The version number, from 1.
    pub version: i64,
    /// The policy's own name.
    pub name: String,
    /// The author of the version.
    pub author: String,
    /// The reason for the version; empty if none was stated.
    pub note: String,
    /// When it was published.
    pub published_at: DateTime<Utc>,
}

/// The latest policy versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PoliciesAnswer {
    /// The version by which the answering process computes new prices.
    pub current_version: i64,
    /// The latest 100 versions, newest first.
    pub policies: Vec<PolicyVersion>,
}

/// A policy version with its document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PolicyAnswer {
    #[expect(missing_docs, reason = "the OpenAPI document would say it of the reference")]
    #[serde(flatten)]
    pub version: PolicyVersion,
    /// The document, as its author wrote it.
    pub source: String,
}

/// The outcome of checking a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CheckAnswer {
    /// Whether it can be published.
    #[serde(default)]
    #[schema(required)]
    pub is_valid: bool,
    /// All errors, with their positions in the document.
    pub problems: Vec<FieldError>,
    /// What is allowed but probably not intended.
    pub warnings: Vec<FieldError>,
}

/// A newly published version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PublishPolicyAnswer {
    /// The new version.
    pub version: i64,
    /// The recalculation that re-prices the products.
    pub task_id: String,
    /// What is allowed but probably not intended, with its position; and, if the catalogue was examined, the
    /// number of affected products.
    pub warnings: Vec<FieldError>,
    /// The prices that limits on moves hold back, by limit: under the new version, if publishing simulated
    /// the catalogue; else those that are held now, by number only.
    #[serde(default)]
    #[schema(required)]
    pub held_prices: Vec<HeldPrices>,
    /// Whether publishing simulated the catalogue. It does so if a circuit breaker or a warning needs it, and
    /// not with `approved_by`.
    #[serde(default)]
    #[schema(required)]
    pub is_simulated: bool,
}
