//! Policies that are not published yet: kept for their authors, whether or not they are valid.

use chrono::{DateTime, Utc};

use super::Store;
use super::error::StoreError;
use super::statement::Statement;

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
const DELETE: Statement =
    Statement::same("DELETE FROM policy_drafts WHERE name = $1 AND ($2 IS NULL OR revision = $2)");

/// A policy as its author left it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct StoredDraft {
    /// Under which it is kept; not the policy's own name.
    pub name: String,
    /// Grows with every change; an earlier draft of the same name never had it.
    pub revision: i64,
    /// The document (YAML).
    pub source: String,
    /// Who changed it last.
    pub author: String,
    /// When.
    pub updated_at: DateTime<Utc>,
}

/// A draft to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDraft {
    /// See [`StoredDraft::name`].
    pub name: String,
    /// See [`StoredDraft::source`].
    pub source: String,
    /// See [`StoredDraft::author`].
    pub author: String,
}

/// What must be there for a draft to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DraftCondition {
    /// Anything, or nothing.
    None,
    /// Nothing yet.
    IsNew,
    /// This revision.
    Is(i64),
}

impl DraftCondition {
    /// As the statements compare it: a revision, 0 for a draft that is not there, nothing for no condition.
    fn revision(self) -> Option<i64> {
        match self {
            Self::None => None,
            Self::IsNew => Some(0),
            // No draft has such a revision, and 0 would stand for none.
            Self::Is(revision) => Some(if revision > 0 { revision } else { -1 }),
        }
    }
}

impl Store {
    /// The drafts, those changed last first, each with an empty text in place of its document.
    pub async fn drafts(&self, limit: u32) -> Result<Vec<StoredDraft>, StoreError> {
        self.reader().await?.all(DRAFTS.bind(limit)).await
    }

    /// A draft.
    pub async fn draft(&self, name: &str) -> Result<Option<StoredDraft>, StoreError> {
        self.reader().await?.optional(DRAFT.bind(name)).await
    }

    /// Keeps a draft and returns its new revision; `None`, and nothing changes, if the condition does not
    /// hold.
    pub async fn put_draft(
        &self,
        draft: &NewDraft,
        only_if: DraftCondition,
        now: DateTime<Utc>,
    ) -> Result<Option<i64>, StoreError> {
        let put = PUT
            .bind(&draft.name)
            .bind(now.timestamp_micros())
            .bind(&draft.source)
            .bind(&draft.author)
            .bind(now)
            .bind(only_if.revision());
        let row: Option<(i64,)> = self.writer().await?.optional(put).await?;
        Ok(row.map(|(revision,)| revision))
    }

    /// Removes a draft. Returns whether there was one that the condition holds for.
    pub async fn delete_draft(&self, name: &str, only_if: DraftCondition) -> Result<bool, StoreError> {
        self.writer().await?.changes_any(DELETE.bind(name).bind(only_if.revision())).await
    }
}
