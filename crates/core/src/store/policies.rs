//! Published policies: numbered and immutable.

use chrono::{DateTime, Utc};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Store;
use super::audit::{self, AuditEntry};
use super::error::StoreError;
use super::runs::{insert_request, request_of_policy};
use super::statement::Statement;
use super::stored::{NewPolicy, StoredPolicy};
use crate::audit::{Action, Origin};

const LATEST: Statement = Statement::same(
    "
    SELECT version, name, source, author, note, published_at
    FROM policies ORDER BY version DESC LIMIT $1",
);
const VERSIONS: Statement = Statement::same(
    "
    SELECT version, name, '' AS source, author, note, published_at
    FROM policies ORDER BY version DESC LIMIT $1",
);
const POLICY: Statement = Statement::same(
    "SELECT version, name, source, author, note, published_at FROM policies WHERE version = $1",
);
/// A lock that conflicts with itself but not with reads: of two publishers the second waits and then sees the
/// first's version. Without it both would see the same latest version.
const LOCK: &str = "LOCK TABLE policies IN SHARE ROW EXCLUSIVE MODE";
const PUBLISH: Statement = Statement::same(
    "
    INSERT INTO policies (version, name, source, author, note, published_at)
    SELECT coalesce(max(version), 0) + 1, $1, $2, $3, $4, $5 FROM policies
    HAVING $6 IS NULL OR coalesce(max(version), 0) = $6
    RETURNING version",
);
const PUBLISH_FIRST: Statement = Statement::same(
    "
    INSERT INTO policies (version, name, source, author, note, published_at)
    SELECT 1, $1, $2, $3, $4, $5 WHERE NOT EXISTS (SELECT 1 FROM policies)",
);

impl Store {
    /// The latest policies, newest first.
    pub async fn latest_policies(&self, limit: u32) -> Result<Vec<StoredPolicy>, StoreError> {
        self.reader().await?.all(LATEST.bind(limit)).await
    }

    /// The latest policies, newest first, each with an empty text instead of its document.
    pub async fn policy_versions(&self, limit: u32) -> Result<Vec<StoredPolicy>, StoreError> {
        self.reader().await?.all(VERSIONS.bind(limit)).await
    }

    /// The policy of this version, if there is one.
    pub async fn policy(&self, version: i64) -> Result<Option<StoredPolicy>, StoreError> {
        self.reader().await?.optional(POLICY.bind(version)).await
    }

    /// Publishes the policy as version 1 unless one exists; safe if several processes do so concurrently.
    pub async fn publish_first_policy(
        &self,
        policy: &NewPolicy,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let publish =
            PUBLISH_FIRST.bind(&policy.name).bind(&policy.source).bind(&policy.author).bind(&policy.note);
        let mut session = self.begin_session().await?;
        session.lock(LOCK).await?;
        session.execute(publish.bind(now)).await?;
        session.commit().await
    }

    /// Publishes the policy and returns its version: one more than the latest, never the same twice. If
    /// `only_after` is given and is not the latest version, nothing is published, as another publisher was
    /// faster.
    pub async fn publish_policy(
        &self,
        policy: &NewPolicy,
        only_after: Option<i64>,
        now: DateTime<Utc>,
    ) -> Result<Option<i64>, StoreError> {
        let recorded = (&Origin::engine(), Action::PolicyPublish);
        self.publish(policy, only_after, None, recorded, now).await
    }

    /// Publishes as [`publish_policy`](Self::publish_policy) does, and requests the recalculation that moves
    /// the products to the new version in the same transaction. That request is approved by `approved_by` and
    /// has the name that [`run_of_policy`](super::run_of_policy) returns. The change is recorded as this
    /// action of this origin.
    pub async fn publish_policy_and_request_run(
        &self,
        policy: &NewPolicy,
        only_after: Option<i64>,
        approved_by: &str,
        recorded: (&Origin, Action),
        now: DateTime<Utc>,
    ) -> Result<Option<i64>, StoreError> {
        self.publish(policy, only_after, Some(approved_by), recorded, now).await
    }

    async fn publish(
        &self,
        policy: &NewPolicy,
        only_after: Option<i64>,
        run_approved_by: Option<&str>,
        (origin, action): (&Origin, Action),
        now: DateTime<Utc>,
    ) -> Result<Option<i64>, StoreError> {
        let publish = PUBLISH.bind(&policy.name).bind(&policy.source).bind(&policy.author).bind(&policy.note);
        let mut session = self.begin_session().await?;
        session.lock(LOCK).await?;
        let published: Option<(i64,)> = session.optional(publish.bind(now).bind(only_after)).await?;
        let version = published.map(|(version,)| version);
        if let (Some(version), Some(approved_by)) = (version, run_approved_by) {
            session.execute(insert_request(&request_of_policy(version, approved_by, now))).await?;
        }
        if let Some(version) = version {
            let entry = published_entry(policy, version, run_approved_by, action);
            audit::record(&mut session, origin, &entry, now).await?;
        }
        session.commit().await?;
        Ok(version)
    }
}

/// The entry for a published policy. Its text is in the table of policies; the entry has its digest.
fn published_entry(
    policy: &NewPolicy,
    version: i64,
    approved_by: Option<&str>,
    action: Action,
) -> AuditEntry {
    let digest = hex::encode(Sha256::digest(policy.source.as_bytes()));
    let after = json!({"version": version, "name": policy.name, "author": policy.author, "note": policy.note,
        "approved_by": approved_by, "sha256": digest});
    let before = (version > 1).then(|| json!({"version": version - 1}).to_string());
    AuditEntry { action, subject: version.to_string(), before, after: Some(after.to_string()) }
}
