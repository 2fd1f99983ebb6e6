//! The record of changes: appended in the transaction of each change, and never changed.

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use super::columns::Columns;
use super::error::StoreError;
use super::session::Session;
use super::statement::{Statement, Value};
use super::{Store, StoreTransaction};
use crate::audit::{Action, Origin};

const RECORD: Statement = Statement {
    sqlite: "
    INSERT INTO audit (recorded_at, actor, is_as_stated, key_id, place, request_id, trace_id, action, subject,
                       value_before, value_after)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    postgres: "
    INSERT INTO audit (recorded_at, actor, is_as_stated, key_id, place, request_id, trace_id, action, subject,
                       value_before, value_after)
    VALUES ($1, $2, $3 = 1, $4, $5, $6, $7, $8, $9, $10, $11)",
};
/// Read from the newest entry back. A product is found in an import by its name as a key of the JSON object,
/// `"P-1":{`, which no value can be; the text of an import is read last, as it may be long.
const PAGE: Statement = Statement {
    sqlite: "
    SELECT id, recorded_at, actor, is_as_stated, key_id, place, request_id, trace_id, action, subject,
           value_before, value_after
    FROM audit
    WHERE id < $1 AND recorded_at >= $2 AND recorded_at < $3
      AND ($4 IS NULL OR actor = $4) AND ($5 IS NULL OR action = $5)
      AND ($6 IS NULL OR subject = $6 OR (action = 'products.import' AND instr(value_after, $7) > 0))
    ORDER BY id DESC LIMIT $8",
    postgres: "
    SELECT id, recorded_at, actor, is_as_stated, key_id, place, request_id, trace_id, action, subject,
           value_before, value_after
    FROM audit
    WHERE id < $1 AND recorded_at >= $2 AND recorded_at < $3
      AND ($4::text IS NULL OR actor = $4) AND ($5::text IS NULL OR action = $5)
      AND ($6::text IS NULL OR subject = $6 OR (action = 'products.import' AND strpos(value_after, $7) > 0))
    ORDER BY id DESC LIMIT $8",
};

/// A change to record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// What was done.
    pub action: Action,
    /// To what: a product, a version, a draft, a task, a job or a key; for a batch of an import, the import.
    pub subject: String,
    /// What it was before, as JSON; `None` if it did not exist, or the action is all there is to say.
    pub before: Option<String>,
    /// What it is now, as JSON; `None` if it does not exist any more.
    pub after: Option<String>,
}

/// A change as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedChange {
    /// Grows with each entry; entries that were recorded at the same time may be committed in another order.
    pub id: i64,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
    /// Who did it; `None` if the caller had no name.
    pub actor: Option<String>,
    /// Whether the name is only what the caller stated.
    pub is_as_stated: bool,
    /// The key that proves the name.
    pub key_id: Option<String>,
    /// From where: an address, or where in the engine.
    pub place: String,
    /// The `X-Request-Id` of the request.
    pub request_id: Option<String>,
    /// The trace of the request.
    pub trace_id: Option<String>,
    /// The name of the [`Action`].
    pub action: String,
    /// See [`AuditEntry::subject`].
    pub subject: String,
    /// See [`AuditEntry::before`].
    pub before: Option<String>,
    /// See [`AuditEntry::after`].
    pub after: Option<String>,
}

impl<'row, R: Columns> FromRow<'row, R> for RecordedChange {
    fn from_row(row: &'row R) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.value("id")?,
            recorded_at: row.value("recorded_at")?,
            actor: row.value("actor")?,
            is_as_stated: row.value("is_as_stated")?,
            key_id: row.value("key_id")?,
            place: row.value("place")?,
            request_id: row.value("request_id")?,
            trace_id: row.value("trace_id")?,
            action: row.value("action")?,
            subject: row.value("subject")?,
            before: row.value("value_before")?,
            after: row.value("value_after")?,
        })
    }
}

/// Which changes are listed. All that are given have to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Who did it.
    pub actor: Option<String>,
    /// What was done.
    pub action: Option<Action>,
    /// To what; a product also finds the batches of imports that changed it.
    pub subject: Option<String>,
    /// The first instant.
    pub since: Option<DateTime<Utc>>,
    /// The instant after the last one.
    pub until: Option<DateTime<Utc>>,
}

impl Store {
    /// The latest changes before this entry, newest first.
    pub async fn recorded_changes(
        &self,
        filter: &AuditFilter,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<RecordedChange>, StoreError> {
        let as_key = filter.subject.as_deref().and_then(as_key);
        let page = PAGE
            .bind(before.unwrap_or(i64::MAX))
            .bind(filter.since.unwrap_or(DateTime::UNIX_EPOCH).clamp(DateTime::UNIX_EPOCH, END_OF_TIME))
            .bind(filter.until.unwrap_or(END_OF_TIME).clamp(DateTime::UNIX_EPOCH, END_OF_TIME))
            .bind(filter.actor.as_deref())
            .bind(filter.action.map(Action::as_str))
            .bind(filter.subject.as_deref())
            .bind(as_key.as_deref().unwrap_or_default())
            .bind(limit);
        self.reader().await?.all(page).await
    }

    /// Records a change of what is not in this database, such as a job in Redis.
    pub async fn record_change(
        &self,
        origin: &Origin,
        entry: &AuditEntry,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        record(&mut self.writer().await?, origin, entry, now).await
    }
}

impl StoreTransaction {
    /// Records a change that this transaction makes.
    pub async fn record_change(
        &mut self,
        origin: &Origin,
        entry: &AuditEntry,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        record(&mut self.session, origin, entry, now).await
    }
}

/// The last instant that both databases store and order alike.
const END_OF_TIME: DateTime<Utc> = match DateTime::from_timestamp(253_402_300_799, 0) {
    Some(instant) => instant,
    None => DateTime::UNIX_EPOCH,
};

/// A text as a key of a JSON object in an import's entry.
fn as_key(subject: &str) -> Option<String> {
    Some(format!("{}:{{", serde_json::to_string(subject).ok()?))
}

/// Records a change in this session's transaction.
pub(super) async fn record(
    session: &mut Session,
    origin: &Origin,
    entry: &AuditEntry,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let place = origin.place().to_string();
    let record = RECORD
        .bind(now)
        .bind(origin.actor())
        .bind(Value::Integer(Some(origin.is_as_stated().into())))
        .bind(origin.key_id())
        .bind(&place)
        .bind(origin.request_id())
        .bind(origin.trace_id())
        .bind(entry.action.as_str())
        .bind(&entry.subject)
        .bind(entry.before.as_deref())
        .bind(entry.after.as_deref());
    session.execute(record).await?;
    Ok(())
}
