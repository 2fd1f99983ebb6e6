//! The keys of callers: their digests, never the keys.

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::FromRow;

use super::Store;
use super::audit::{self, AuditEntry};
use super::columns::Columns;
use super::error::StoreError;
use super::statement::Statement;
use crate::audit::{Action, Origin};

/// The keys in use at the same time: every process holds all of them.
pub const MAX_ACTIVE_KEYS: u32 = 10_000;

const ACTIVE: Statement = Statement::same(
    "
    SELECT id, name, digest, scopes, created_at, created_by, expires_at, revoked_at FROM access_keys
    WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1) ORDER BY created_at, id LIMIT $2",
);
const EXIST: Statement = Statement::same("SELECT EXISTS (SELECT 1 FROM access_keys)");
const LATEST: Statement = Statement::same(
    "
    SELECT id, name, '' AS digest, scopes, created_at, created_by, expires_at, revoked_at FROM access_keys
    ORDER BY created_at DESC, id LIMIT $1",
);
const KEY: Statement = Statement::same(
    "
    SELECT id, name, '' AS digest, scopes, created_at, created_by, expires_at, revoked_at FROM access_keys
    WHERE id = $1",
);
const CREATE: Statement = Statement::same(
    "
    INSERT INTO access_keys (id, name, digest, scopes, created_at, created_by, expires_at)
    SELECT $1, $2, $3, $4, $5, $6, $7
    WHERE (SELECT count(*) FROM access_keys
           WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $5)) < $8",
);
const REVOKE: Statement =
    Statement::same("UPDATE access_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL");
/// Never later than before.
const EXPIRE: Statement = Statement::same(
    "
    UPDATE access_keys SET expires_at = $2
    WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)",
);
/// Whether the key can be used at an instant.
const IS_ACTIVE: Statement = Statement::same(
    "
    SELECT EXISTS (SELECT 1 FROM access_keys
        WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2))",
);

/// A key as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// Its identifier.
    pub id: String,
    /// Who acts with it.
    pub name: String,
    /// The SHA-256 digest in hexadecimal digits; empty in lists.
    pub digest: String,
    /// Its scopes, separated by blanks.
    pub scopes: String,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// Who created it.
    pub created_by: String,
    /// From when on it opens nothing; `None`: it does not expire.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

impl<'row, R: Columns> FromRow<'row, R> for AccessKey {
    fn from_row(row: &'row R) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.value("id")?,
            name: row.value("name")?,
            digest: row.value("digest")?,
            scopes: row.value("scopes")?,
            created_at: row.value("created_at")?,
            created_by: row.value("created_by")?,
            expires_at: row.value("expires_at")?,
            revoked_at: row.value("revoked_at")?,
        })
    }
}

impl Store {
    /// The keys that can be used at this instant, at most [`MAX_ACTIVE_KEYS`], and whether any key exists.
    pub async fn active_access_keys(&self, now: DateTime<Utc>) -> Result<(Vec<AccessKey>, bool), StoreError> {
        let mut session = self.reader().await?;
        let active: Vec<AccessKey> = session.all(ACTIVE.bind(now).bind(MAX_ACTIVE_KEYS)).await?;
        let (exist,) = session.one(EXIST).await?;
        Ok((active, exist))
    }

    /// The latest keys, newest first, without their digests.
    pub async fn access_keys(&self, limit: u32) -> Result<Vec<AccessKey>, StoreError> {
        self.reader().await?.all(LATEST.bind(limit)).await
    }

    /// The key with this identifier, without its digest.
    pub async fn access_key(&self, id: &str) -> Result<Option<AccessKey>, StoreError> {
        self.reader().await?.optional(KEY.bind(id)).await
    }

    /// Stores a key. Returns false, and stores nothing, if there are [`MAX_ACTIVE_KEYS`].
    pub async fn create_access_key(&self, key: &AccessKey, origin: &Origin) -> Result<bool, StoreError> {
        let mut session = self.begin_session().await?;
        let is_stored = session.changes_any(create(key)).await?;
        if is_stored {
            audit::record(&mut session, origin, &entry(Action::KeyCreate, None, key), key.created_at).await?;
        }
        session.commit().await?;
        Ok(is_stored)
    }

    /// Revokes a key. Returns false if there is no such key, or if it was revoked before.
    pub async fn revoke_access_key(
        &self,
        id: &str,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut session = self.begin_session().await?;
        let is_revoked = session.changes_any(REVOKE.bind(id).bind(now)).await?;
        if is_revoked {
            let known: Option<AccessKey> = session.optional(KEY.bind(id)).await?;
            let before = known.as_ref().map(described);
            let entry = AuditEntry { action: Action::KeyRevoke, subject: id.to_owned(), before, after: None };
            audit::record(&mut session, origin, &entry, now).await?;
        }
        session.commit().await?;
        Ok(is_revoked)
    }

    /// Stores the successor of a key, and lets the key expire at `expires_at`, if it does not expire sooner.
    /// Returns false, and changes nothing, if the key cannot be used, or if there are [`MAX_ACTIVE_KEYS`].
    pub async fn rotate_access_key(
        &self,
        id: &str,
        successor: &AccessKey,
        expires_at: DateTime<Utc>,
        origin: &Origin,
    ) -> Result<bool, StoreError> {
        let now = successor.created_at;
        let mut session = self.begin_session().await?;
        let (is_active,): (bool,) = session.one(IS_ACTIVE.bind(id).bind(now)).await?;
        if !is_active || !session.changes_any(create(successor)).await? {
            session.roll_back().await?;
            return Ok(false);
        }
        session.execute(EXPIRE.bind(id).bind(expires_at)).await?;
        audit::record(&mut session, origin, &entry(Action::KeyRotate, Some(id), successor), now).await?;
        session.commit().await?;
        Ok(true)
    }
}

/// The entry for a new key, which may be the successor of another one.
fn entry(action: Action, predecessor: Option<&str>, key: &AccessKey) -> AuditEntry {
    AuditEntry {
        action,
        subject: key.id.clone(),
        before: predecessor.map(|id| json!({"id": id}).to_string()),
        after: Some(described(key)),
    }
}

/// A key without its digest.
fn described(key: &AccessKey) -> String {
    json!({"name": key.name, "scopes": key.scopes, "expires_at": key.expires_at}).to_string()
}

fn create(key: &AccessKey) -> super::statement::Query<'_> {
    let create = CREATE.bind(&key.id).bind(&key.name).bind(&key.digest).bind(&key.scopes);
    create.bind(key.created_at).bind(&key.created_by).bind(key.expires_at).bind(MAX_ACTIVE_KEYS)
}
