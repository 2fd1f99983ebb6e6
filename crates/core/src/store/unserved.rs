//! What was committed and is not in Redis yet.
//!
//! A transaction that writes or removes prices records their products in a row of its own. A process
//! remembers which of its rows Redis has accepted, and deletes them together a moment later. A row that is
//! still there after two seconds, by the database's clock, belongs to a process that died, or that waits for
//! Redis: any process may [claim](Store::claim_unserved) it and serve its prices. Serving them twice is
//! harmless.
//!
//! A row is deleted only while the database has the identity under which its prices were served. So what a
//! process serves under an identity that was just replaced is served again under the new one.

use std::sync::{Arc, Mutex, PoisonError};

use super::Store;
use super::error::StoreError;
use super::prepared_rows::PreparedPrices;
use super::read_rows::product_ids_of_json;
use super::session::Session;
use super::statement::{Statement, Value};
use crate::catalogue::{Catalogue, KnownPrice};
use pricing_domain::facts::product::ProductId;

/// The served rows that a process remembers until it deletes them: those of more are served once more.
const MAX_REMEMBERED: usize = 10_000;

const RECORD: Statement = Statement {
    sqlite: "
    INSERT INTO unserved_prices (id, first_revision, last_revision, product_ids, since, due_at)
    VALUES ($1, $2, $3, $4, strftime('%Y-%m-%dT%H:%M:%f000Z', 'now'),
            strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+2 seconds'))
    RETURNING (SELECT max(version) FROM policies)",
    postgres: "
    INSERT INTO unserved_prices (id, first_revision, last_revision, product_ids, due_at)
    VALUES ($1, $2, $3, $4, clock_timestamp() + interval '2 seconds')
    RETURNING (SELECT max(version) FROM policies)",
};
const IS_ANY_DUE: Statement = Statement {
    sqlite: "
    SELECT EXISTS (SELECT 1 FROM unserved_prices WHERE due_at <= strftime('%Y-%m-%dT%H:%M:%f000Z', 'now'))",
    postgres: "SELECT EXISTS (SELECT 1 FROM unserved_prices WHERE due_at <= now())",
};
/// A claimed row is due again two seconds later, should its claimant die.
const CLAIM: Statement = Statement {
    sqlite: "
    UPDATE unserved_prices SET due_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+2 seconds')
    WHERE id IN (SELECT id FROM unserved_prices WHERE due_at <= strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')
                 ORDER BY last_revision LIMIT $1)
    RETURNING id, 0, first_revision, last_revision, product_ids",
    postgres: "
    WITH due AS (
        SELECT id FROM unserved_prices WHERE due_at <= now()
        ORDER BY transaction_id, last_revision LIMIT $1 FOR UPDATE SKIP LOCKED)
    UPDATE unserved_prices AS claimed SET due_at = now() + interval '2 seconds'
    FROM due WHERE claimed.id = due.id
    RETURNING claimed.id, transaction_id, first_revision, last_revision, to_json(product_ids)::text",
};
/// PostgreSQL skips rows that another process is claiming or deleting, or two processes could deadlock.
const FORGET: Statement = Statement {
    sqlite: "
    DELETE FROM unserved_prices
    WHERE id IN (SELECT value FROM json_each($1)) AND (SELECT identity FROM catalogue_identity) = $2",
    postgres: "
    DELETE FROM unserved_prices
    WHERE id IN (SELECT id FROM unserved_prices WHERE id = ANY($1) FOR UPDATE SKIP LOCKED)
          AND (SELECT identity FROM catalogue_identity) = $2",
};

/// The prices that a transaction has committed, which Redis may not have yet.
#[derive(Debug, Clone)]
pub struct Unserved {
    catalogue: Arc<Catalogue>,
    /// Its row; absent if the transaction has written no price.
    id: Option<String>,
}

/// A row of prices that no process has served in time.
#[derive(Debug, Clone)]
pub struct UnservedPrices {
    /// To be marked as served.
    pub unserved: Unserved,
    /// The first revision of the transaction.
    pub first_revision: i64,
    /// Its last revision.
    pub last_revision: i64,
    /// The products whose prices it wrote or removed.
    pub product_ids: Vec<ProductId>,
}

/// The rows whose prices Redis has accepted, until they are deleted; the clones of a store share them.
#[derive(Debug, Clone, Default)]
pub(super) struct ServedRows(Arc<Mutex<Vec<Unserved>>>);

/// The prices that a transaction has written so far.
#[derive(Debug, Default)]
pub(super) struct Written {
    first_revision: Option<i64>,
    policy_version: i64,
    newest: Option<KnownPrice>,
    product_ids: Vec<ProductId>,
}

impl Unserved {
    /// The catalogue in use when the transaction began: its prices belong to no other.
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }
}

impl Written {
    /// Notes revisions that the transaction draws.
    pub(super) fn drew(&mut self, revisions: &[i64]) {
        let first = revisions.iter().copied().min();
        self.first_revision = self.first_revision.into_iter().chain(first).min();
    }

    /// Notes prices; one with an earlier revision only changes its explanation, which is not served.
    pub(super) fn add_prices(&mut self, prices: &PreparedPrices) {
        self.policy_version = self.policy_version.max(prices.policy_version);
        for (product_id, revision) in &prices.revisions {
            if self.first_revision.is_some_and(|first| first <= *revision) {
                self.add(product_id, *revision);
            }
        }
    }

    /// Notes a price or a removal.
    pub(super) fn add(&mut self, product_id: &ProductId, revision: i64) {
        if self.newest.as_ref().is_none_or(|newest| newest.revision < revision) {
            self.newest = Some(KnownPrice { product_id: product_id.clone(), revision });
        }
        self.product_ids.push(product_id.clone());
    }

    /// Writes the row, at the end of the transaction. Returns its identifier, if there is one. Fails if the
    /// prices were made by a policy that the database does not have.
    pub(super) async fn record(
        &self,
        session: &mut Session,
        catalogue: &Catalogue,
    ) -> Result<Option<String>, StoreError> {
        let Some(newest) = &self.newest else { return Ok(None) };
        // Never given twice, not even by a database that was restored from a backup.
        let id = uuid::Uuid::now_v7().simple().to_string();
        let ids = Value::Texts(self.product_ids.iter().map(ProductId::as_str).collect());
        let first = self.first_revision.unwrap_or(newest.revision).min(newest.revision);
        let record = RECORD.bind(&id).bind(first).bind(newest.revision).bind(ids);
        let (published,): (Option<i64>,) = session.one(record).await?;
        // The engine publishes a first policy before it writes prices.
        if let Some(published) = published.filter(|published| *published < self.policy_version) {
            let what = format!("it has policies up to version {published}, not {}", self.policy_version);
            catalogue.suspect();
            return Err(StoreError::Behind { what });
        }
        Ok(Some(id))
    }

    /// What the transaction has committed.
    pub(super) fn committed(self, catalogue: Arc<Catalogue>, id: Option<String>) -> Unserved {
        if let Some(KnownPrice { product_id, revision }) = &self.newest {
            catalogue.note(product_id, *revision);
        }
        Unserved { catalogue, id }
    }
}

impl Store {
    /// Remembers that Redis has accepted the prices of a transaction.
    pub fn mark_served(&self, unserved: Unserved) {
        let mut served = self.served.0.lock().unwrap_or_else(PoisonError::into_inner);
        if unserved.id.is_some() && served.len() < MAX_REMEMBERED {
            served.push(unserved);
        }
    }

    /// Deletes the rows of the transactions whose prices are served. Those that were served under another
    /// identity than the database's stay: they are claimed when they are due.
    pub async fn forget_served(&self) -> Result<(), StoreError> {
        let served = std::mem::take(&mut *self.served.0.lock().unwrap_or_else(PoisonError::into_inner));
        let catalogue = self.catalogue.get();
        let served: Vec<Unserved> = served
            .into_iter()
            .filter(|unserved| unserved.catalogue.generation() == catalogue.generation())
            .collect();
        if served.is_empty() {
            return Ok(());
        }
        let ids = Value::Texts(served.iter().filter_map(|unserved| unserved.id.as_deref()).collect());
        let forget = FORGET.bind(ids).bind(catalogue.identity());
        let forgotten = async { self.writer().await?.execute(forget).await }.await;
        if let Err(error) = forgotten {
            served.into_iter().for_each(|unserved| self.mark_served(unserved));
            return Err(error);
        }
        Ok(())
    }

    /// Claims at most `limit` transactions whose prices were not served in time, oldest first. If they are
    /// not marked as served within two seconds, they can be claimed again.
    pub async fn claim_unserved(&self, limit: u32) -> Result<Vec<UnservedPrices>, StoreError> {
        // Read first: a claim that finds nothing would still wait for the one writer of a SQLite file.
        let (is_any_due,): (bool,) = self.reader().await?.one(IS_ANY_DUE).await?;
        if !is_any_due {
            return Ok(Vec::new());
        }
        let catalogue = self.catalogue.get();
        let mut rows: Vec<(String, i64, i64, i64, String)> =
            self.writer().await?.all(CLAIM.bind(limit)).await?;
        rows.sort_unstable_by_key(|(_, transaction_id, _, last_revision, _)| {
            (*transaction_id, *last_revision)
        });
        let claimed = rows.into_iter().map(|(id, _, first_revision, last_revision, product_ids)| {
            let unserved = Unserved { catalogue: Arc::clone(&catalogue), id: Some(id) };
            let product_ids = product_ids_of_json(&product_ids)?;
            Ok(UnservedPrices { unserved, first_revision, last_revision, product_ids })
        });
        claimed.collect()
    }
}
