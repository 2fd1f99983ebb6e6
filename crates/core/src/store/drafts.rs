//! Policy drafts: unpublished policies, stored whether or not they are valid.

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::FromRow;

use super::Store;
use super::audit::{self, AuditEntry};
use super::columns::Columns;
use super::error::StoreError;
use super::statement::Statement;
use crate::audit::{Action, Origin};

const DRAFTS: Statement = Statement::same(
    "
    SELECT name, revision, '' AS source, author, updated_at FROM policy_drafts
    ORDER BY revision DESC LIMIT $1",
);
const DRAFT: Statement =
    Statement::same("SELECT name, revision, source, author, updated_at FROM policy_drafts WHERE name = $1");
const PUT: Statement = Statement::same(
    "
    INSERT INTO policy_drafts (name, revision, source, author, updated_at)
    SELECT $1, $2, $3, $4, $5
    WHERE $6 IS NULL OR $6 = 0 OR EXISTS (SELECT 1 FROM policy_drafts WHERE name = $1)
    ON CONFLICT (name) DO UPDATE SET
        revision = CASE WHEN policy_drafts.revision < excluded.revision THEN excluded.revision
                        ELSE policy_drafts.revision + 1 END,
        source = excluded.source, author = excluded.author, updated_at = excluded.updated_at
    WHERE $6 IS NULL OR policy_drafts.revision = $6
    RETURNING revision",
);
const DELETE: Statement = Statement::same(
    "
    DELETE FROM policy_drafts WHERE name = $1 AND ($2 IS NULL OR revision = $2) RETURNING revision, author",
);

/// A stored draft of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDraft {
    /// Identifies the draft; not the policy's own name.
    pub name: String,
    /// Grows with every change, and is never reused by a draft of the same name.
    pub revision: i64,
    /// The document (YAML).
    pub source: String,
    /// The author of the last change.
    pub author: String,
    /// When it was changed last.
    pub updated_at: DateTime<Utc>,
}

impl<'row, R: Columns> FromRow<'row, R> for StoredDraft {
    fn from_row(row: &'row R) -> Result<Self, sqlx::Error> {
        Ok(Self {
            name: row.value("name")?,
            revision: row.value("revision")?,
            source: row.value("source")?,
            author: row.value("author")?,
            updated_at: row.value("updated_at")?,
        })
    }
}

/// A draft to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDraft {
    /// See [`StoredDraft::name`].
    pub name: String,
    /// See [`StoredDraft::source`].
    pub source: String,
    /// See [`StoredDraft::author`].
    pub author: String,
}

/// The precondition of a change to a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DraftCondition {
    /// No condition.
    None,
    /// The draft does not exist.
    IsNew,
    /// The draft has this revision.
    Is(i64),
}

impl DraftCondition {
    /// Returns the value that the statements compare: a revision, 0 for a draft that must not exist, `None`
    /// for no condition.
    fn revision(self) -> Option<i64> {
        match self {
            Self::None => None,
            Self::IsNew => Some(0),
            // No draft has such a revision; 0 would mean "must not exist".
            Self::Is(revision) => Some(if revision > 0 { revision } else { -1 }),
        }
    }
}

impl Store {
    /// Lists the drafts, last changed first, each with an empty text instead of its document.
    pub async fn drafts(&self, limit: u32) -> Result<Vec<StoredDraft>, StoreError> {
        self.reader().await?.all(DRAFTS.bind(limit)).await
    }

    /// The draft of this name, if there is one.
    pub async fn draft(&self, name: &str) -> Result<Option<StoredDraft>, StoreError> {
        self.reader().await?.optional(DRAFT.bind(name)).await
    }

    /// Stores a draft and returns its new revision. Returns `None` and changes nothing if the condition does
    /// not hold.
    pub async fn put_draft(
        &self,
        draft: &NewDraft,
        only_if: DraftCondition,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<Option<i64>, StoreError> {
        let put = PUT
            .bind(&draft.name)
            .bind(now.timestamp_micros())
            .bind(&draft.source)
            .bind(&draft.author)
            .bind(now)
            .bind(only_if.revision());
        let mut session = self.begin_session().await?;
        let row: Option<(i64,)> = session.optional(put).await?;
        if let Some((revision,)) = row {
            let entry = AuditEntry {
                action: Action::DraftPut,
                subject: draft.name.clone(),
                before: None,
                after: Some(json!({"revision": revision, "author": draft.author}).to_string()),
            };
            audit::record(&mut session, origin, &entry, now).await?;
        }
        session.commit().await?;
        Ok(row.map(|(revision,)| revision))
    }

    /// Deletes a draft. Returns whether one existed for which the condition holds.
    pub async fn delete_draft(
        &self,
        name: &str,
        only_if: DraftCondition,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut session = self.begin_session().await?;
        let deleted: Option<(i64, String)> =
            session.optional(DELETE.bind(name).bind(only_if.revision())).await?;
        if let Some((revision, author)) = &deleted {
            let before = json!({"revision": revision, "author": author}).to_string();
            let (subject, before) = (name.to_owned(), Some(before));
            let entry = AuditEntry { action: Action::DraftDelete, subject, before, after: None };
            audit::record(&mut session, origin, &entry, now).await?;
        }
        session.commit().await?;
        Ok(deleted.is_some())
    }
}
