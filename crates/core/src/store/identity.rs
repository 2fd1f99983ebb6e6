//! The identity of the database, and how far it has come.

use super::Store;
use super::error::StoreError;
use super::statement::Statement;
use crate::catalogue::KnownPrice;

/// SQLite and PostgreSQL draw the identity as their first migration does.
const REPLACE: Statement = Statement {
    sqlite: "UPDATE catalogue_identity SET identity = lower(hex(randomblob(8))) WHERE identity = $1",
    postgres: "
    UPDATE catalogue_identity SET identity = substr(md5(random()::text || clock_timestamp()::text), 1, 16)
    WHERE identity = $1",
};
const IDENTITY: Statement = Statement::same("SELECT identity FROM catalogue_identity");
const PROGRESS: Statement = Statement {
    sqlite: "
    SELECT identity, (SELECT last_revision FROM price_revisions),
           coalesce((SELECT revision FROM prices WHERE product_id = $1), 0),
           coalesce((SELECT max(revision) FROM price_changes WHERE product_id = $1), 0)
    FROM catalogue_identity",
    postgres: "
    SELECT identity, (SELECT last_value FROM price_revisions),
           coalesce((SELECT revision FROM prices WHERE product_id = $1), 0),
           coalesce((SELECT max(revision) FROM price_changes WHERE product_id = $1), 0)
    FROM catalogue_identity",
};

/// How far the database has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Its identity.
    pub identity: String,
    /// The last revision that was drawn. After PostgreSQL has recovered from its log this is up to 32 ahead
    /// of what was committed.
    pub last_revision: i64,
    /// The newest revision of the product that was asked about; 0 if it never had a price.
    pub product_revision: i64,
}

impl Progress {
    /// Whether the database cannot have had this price of the product that was asked about.
    pub fn is_before(&self, known: &KnownPrice) -> bool {
        self.last_revision < known.revision || self.product_revision < known.revision
    }
}

impl Store {
    /// The identity of this database, unique among all databases.
    pub async fn identity(&self) -> Result<String, StoreError> {
        let (identity,) = self.reader().await?.one(IDENTITY).await?;
        Ok(identity)
    }

    /// How far the database has come, as one statement sees it; with the newest revision of a product.
    pub async fn progress(&self, known: Option<&KnownPrice>) -> Result<Progress, StoreError> {
        let product_id = known.map_or("", |known| known.product_id.as_str());
        let (identity, last_revision, price, change): (String, i64, i64, i64) =
            self.reader().await?.one(PROGRESS.bind(product_id)).await?;
        Ok(Progress { identity, last_revision, product_revision: price.max(change) })
    }

    /// Gives the database a new identity if it still has this one, and returns the one that it has then: of
    /// two processes that replace the same one, both get the same.
    pub async fn replace_identity(&self, identity: &str) -> Result<String, StoreError> {
        let mut session = self.begin_session().await?;
        session.execute(REPLACE.bind(identity)).await?;
        let (identity,) = session.one(IDENTITY).await?;
        session.commit().await?;
        Ok(identity)
    }
}
