//! Policies that nobody has published yet: kept for their authors, whether or not they are right.

use chrono::{DateTime, Utc};

use super::error::StoreError;
use super::{Store, on_store};

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
    pub(super) fn revision(self) -> Option<i64> {
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
        on_store!(self, store => store.drafts(limit).await)
    }

    /// A draft.
    pub async fn draft(&self, name: &str) -> Result<Option<StoredDraft>, StoreError> {
        on_store!(self, store => store.draft(name).await)
    }

    /// Keeps a draft and returns its new revision; `None`, and nothing changes, if the condition does not
    /// hold.
    pub async fn put_draft(
        &self,
        draft: &NewDraft,
        only_if: DraftCondition,
        now: DateTime<Utc>,
    ) -> Result<Option<i64>, StoreError> {
        on_store!(self, store => store.put_draft(draft, only_if, now).await)
    }

    /// Removes a draft; whether there was one that the condition holds for.
    pub async fn delete_draft(&self, name: &str, only_if: DraftCondition) -> Result<bool, StoreError> {
        on_store!(self, store => store.delete_draft(name, only_if).await)
    }
}
