//! Access keys: creating, listing, rotating and revoking them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A key to create.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKeyRequest {
    /// Who will act with it: a person or a program. Several keys may have one name.
    #[schema(min_length = 1, max_length = 100, example = "shop")]
    pub name: String,
    /// What it may be used for: at least one scope. The scopes are listed in docs/access.md.
    #[schema(min_items = 1, example = json!(["prices:read"]))]
    pub scopes: Vec<String>,
    /// From when on it opens nothing; it does not expire if this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
}

/// How a key is rotated.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateKeyRequest {
    /// When the old key ceases to work; at once if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_expires_at: Option<DateTime<Utc>>,
    /// From when on the new key opens nothing; it does not expire if this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
}

/// A key without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeyAnswer {
    /// The identifier: the 12 digits after `pricing_` in the key.
    #[schema(example = "1f0c9a7be452")]
    pub id: String,
    /// Who acts with it.
    pub name: String,
    /// What it may be used for.
    pub scopes: Vec<String>,
    /// `active`, `expired` or `revoked`.
    pub state: String,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// Who created it.
    pub created_by: String,
    /// From when on it opens nothing; null if it does not expire.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked; null if it was not.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A list of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeysAnswer {
    /// The keys, newest first.
    pub keys: Vec<KeyAnswer>,
}

/// A new key. Its secret is in this answer and nowhere else.
#[derive(Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NewKeyAnswer {
    /// The whole key, to be sent as `Authorization: Bearer KEY`. It cannot be shown again.
    pub secret: String,
    /// All else of it.
    #[serde(flatten)]
    pub key: KeyAnswer,
}
