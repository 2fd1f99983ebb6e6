//! Drafts of policies in a SQLite file.

use chrono::{DateTime, Utc};
use sqlx::{query, query_as, query_scalar};

use super::super::drafts::{DraftCondition, NewDraft, StoredDraft};
use super::super::error::StoreError;
use super::super::json_rows::instant;
use super::SqliteStore;

const DRAFTS: &str = "
    SELECT name, revision, '' AS source, author, updated_at FROM policy_drafts ORDER BY revision DESC LIMIT $1";
const DRAFT: &str = "SELECT name, revision, source, author, updated_at FROM policy_drafts WHERE name = $1";
const PUT: &str = "
    INSERT INTO policy_drafts (name, revision, source, author, updated_at)
    SELECT $1, $2, $3, $4, $5
    WHERE $6 IS NULL OR $6 = 0 OR EXISTS (SELECT 1 FROM policy_drafts WHERE name = $1)
    ON CONFLICT (name) DO UPDATE SET
        revision = max(policy_drafts.revision + 1, excluded.revision), source = excluded.source,
        author = excluded.author, updated_at = excluded.updated_at
    WHERE $6 IS NULL OR policy_drafts.revision = $6
    RETURNING revision";
const DELETE: &str = "DELETE FROM policy_drafts WHERE name = $1 AND ($2 IS NULL OR revision = $2)";

impl SqliteStore {
    pub(in super::super) async fn drafts(&self, limit: u32) -> Result<Vec<StoredDraft>, StoreError> {
        let mut session = self.reader().await?;
        session.run(|connection| query_as(DRAFTS).bind(limit).fetch_all(connection)).await
    }

    pub(in super::super) async fn draft(&self, name: &str) -> Result<Option<StoredDraft>, StoreError> {
        let draft = query_as(DRAFT).bind(name);
        let mut session = self.reader().await?;
        session.run(|connection| draft.fetch_optional(connection)).await
    }

    pub(in super::super) async fn put_draft(
        &self,
        draft: &NewDraft,
        only_if: DraftCondition,
        now: DateTime<Utc>,
    ) -> Result<Option<i64>, StoreError> {
        let put = query_scalar(PUT)
            .bind(&draft.name)
            .bind(now.timestamp_micros())
            .bind(&draft.source)
            .bind(&draft.author)
            .bind(instant(now))
            .bind(only_if.revision());
        let mut session = self.writer().await?;
        session.run(|connection| put.fetch_optional(connection)).await
    }

    pub(in super::super) async fn delete_draft(
        &self,
        name: &str,
        only_if: DraftCondition,
    ) -> Result<bool, StoreError> {
        let delete = query(DELETE).bind(name).bind(only_if.revision());
        let mut session = self.writer().await?;
        Ok(session.run(|connection| delete.execute(connection)).await?.rows_affected() > 0)
    }
}
