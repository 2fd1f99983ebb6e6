//! Policies: versions, checks and publishing.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::problem::FieldError;

/// Who publishes, and why.
#[derive(Debug, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PublishQuery {
    /// Who publishes it.
    #[param(example = "zoe", required = true)]
    pub author: Option<String>,
    /// Why.
    pub note: Option<String>,
    /// Who has seen that a circuit breaker would hold it, and wants it all the same.
    pub approved_by: Option<String>,
}

/// A version without its document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PolicyVersion {
    /// 1, 2, 3 and so on.
    pub version: i64,
    /// The policy's own name.
    pub name: String,
    /// Who published it.
    pub author: String,
    /// Why.
    pub note: String,
    /// When.
    pub published_at: DateTime<Utc>,
}

/// The latest versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PoliciesAnswer {
    /// The version that new prices are made with by the process that answers.
    pub current_version: i64,
    /// The latest first.
    pub policies: Vec<PolicyVersion>,
}

/// A version with its document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PolicyAnswer {
    #[expect(missing_docs, reason = "the OpenAPI document would say it of the reference")]
    #[serde(flatten)]
    pub version: PolicyVersion,
    /// The document as its author wrote it.
    pub source: String,
}

/// What is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CheckAnswer {
    /// Whether it may be published.
    #[serde(default)]
    #[schema(required)]
    pub is_valid: bool,
    /// Everything that is wrong, with its place in the document.
    pub problems: Vec<FieldError>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<FieldError>,
}

/// A version that was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PublishPolicyAnswer {
    /// The new version.
    pub version: i64,
    /// The recalculation that moves the products over.
    pub task_id: String,
    /// What in it is allowed and probably not meant, with its place; and, where the catalogue was looked at,
    /// how many products meet it.
    pub warnings: Vec<FieldError>,
}
