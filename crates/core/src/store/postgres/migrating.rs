//! Bringing the tables up to date, one process at a time.
//!
//! The lock is the one that sqlx's migrator takes (an advisory lock of a session), so that processes of older
//! versions wait for it too; but it is tried for, with a log line, and never waited for in silence or without
//! a bound. An up-to-date database needs no lock.
//!
//! Processes of the older version work meanwhile. A migration locks whole tables, so it may deadlock with a
//! transaction of theirs, or wait for one while every other statement waits behind it. It then gives way,
//! and is tried again: each migration is one transaction, and those that were applied stay.

use std::time::Duration;

use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{query, query_as};
use tokio::time::{Instant, sleep, timeout};

use super::super::error::StoreError;
use super::super::migrations;
use crate::backoff::Backoff;

/// The time limit of a migration's statement: tables may be large.
const STATEMENT_TIMEOUT: &str = "SET statement_timeout = '30min'";
/// The longest time of all migrations, should the server fall silent.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(2 * 60 * 60);
/// The longest time until the lock is taken or refused.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest wait for another process that migrates.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// A session that holds the lock and has run no statement for this long does not migrate: it is of a frozen
/// process, or was left in a pool.
const IDLE_HOLDER_LIMIT_SECONDS: i64 = 10;
const LOCK_INTERVAL: Duration = Duration::from_millis(200);
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// A migration waits no longer for a table, as what comes after it waits too. Longer than PostgreSQL needs to
/// find a deadlock.
const TABLE_TIMEOUT: &str = "SET lock_timeout = '3s'";
/// How long migrations give way to other transactions.
const YIELD_TIMEOUT: Duration = Duration::from_secs(10 * 60);
const SHORTEST_YIELD: Duration = Duration::from_millis(50);
const LONGEST_YIELD: Duration = Duration::from_secs(2);
/// Deadlock detected; lock not available within its time limit.
const YIELDED: [&str; 2] = ["40P01", "55P03"];
/// sqlx's table of the migrations that were applied.
const TABLE: &str = "_sqlx_migrations";

const HOLDER: &str = "
    SELECT locks.pid, coalesce(application_name, ''), coalesce(host(client_addr), 'its own host'),
        CASE WHEN state = 'idle' THEN extract(epoch FROM clock_timestamp() - state_change)::bigint END
    FROM pg_locks AS locks LEFT JOIN pg_stat_activity AS sessions ON sessions.pid = locks.pid
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
        AND (classid::bigint << 32) | objid::bigint = $1
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    LIMIT 1";

/// Applies the migrations that are missing. The connection must have a session of its own, and must be
/// closed afterwards.
pub(super) async fn migrate(connection: &mut PgConnection) -> Result<(), StoreError> {
    let migrator = migrations::of_postgres();
    if within(ANSWER_TIMEOUT, is_up_to_date(connection, &migrator)).await? {
        return Ok(());
    }
    let lock = within(ANSWER_TIMEOUT, lock_id(connection)).await?;
    take_lock(connection, lock).await?;
    within(MIGRATION_TIMEOUT, migrate_under_lock(connection, migrator, lock)).await
}

async fn migrate_under_lock(
    connection: &mut PgConnection,
    mut migrator: Migrator,
    lock: i64,
) -> Result<(), StoreError> {
    query(STATEMENT_TIMEOUT).execute(&mut *connection).await?;
    query(TABLE_TIMEOUT).execute(&mut *connection).await?;
    migrator.set_locking(false);
    let (started, mut backoff) = (Instant::now(), Backoff::new(SHORTEST_YIELD, LONGEST_YIELD));
    // `run_direct` is used because the compiler cannot prove that a future that awaits `run` is `Send`.
    while let Err(error) = migrator.run_direct(None, &mut *connection, false).await {
        if !has_yielded(&error) || started.elapsed() > YIELD_TIMEOUT {
            return Err(error.into());
        }
        tracing::warn!(%error, "a migration gives way to other transactions and is tried again");
        sleep(backoff.pause()).await;
    }
    // After an error, the end of the session releases it.
    query("SELECT pg_advisory_unlock($1)").bind(lock).execute(connection).await?;
    Ok(())
}

/// Whether a migration changed nothing because of what other transactions had locked.
fn has_yielded(error: &MigrateError) -> bool {
    let (MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _)) = error else {
        return false;
    };
    let code = cause.as_database_error().and_then(|refusal| refusal.code());
    code.is_some_and(|code| YIELDED.contains(&code.as_ref()))
}

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    timeout(limit, answer).await.unwrap_or(Err(StoreError::TimedOut { limit }))
}

/// Whether exactly these migrations were applied. A database of another version is for the migrator.
async fn is_up_to_date(connection: &mut PgConnection, migrator: &Migrator) -> Result<bool, StoreError> {
    let exists = query_as("SELECT to_regclass($1) IS NOT NULL").bind(TABLE);
    let (exists,): (bool,) = exists.fetch_one(&mut *connection).await?;
    if !exists || connection.dirty_version(TABLE).await?.is_some() {
        return Ok(false);
    }
    let applied = connection.list_applied_migrations(TABLE).await?;
    let applied = applied.iter().map(|migration| (migration.version, &migration.checksum));
    Ok(applied.eq(migrator.iter().map(|migration| (migration.version, &migration.checksum))))
}

/// Who holds the lock: process, application, host, and for how many seconds it has been idle, if it is.
type Holder = (i32, String, String, Option<i64>);

/// Tries to take the lock. Returns its holder if there is another; that is `None` if it has just ended.
async fn try_lock(connection: &mut PgConnection, lock: i64) -> Result<Option<Option<Holder>>, StoreError> {
    let locked = query_as("SELECT pg_try_advisory_lock($1)").bind(lock);
    if let (true,) = locked.fetch_one(&mut *connection).await? {
        return Ok(None);
    }
    Ok(Some(query_as(HOLDER).bind(lock).fetch_optional(&mut *connection).await?))
}

async fn take_lock(connection: &mut PgConnection, lock: i64) -> Result<(), StoreError> {
    let (started, mut logged): (_, Option<Instant>) = (Instant::now(), None);
    loop {
        let Some(holder) = within(ANSWER_TIMEOUT, try_lock(connection, lock)).await? else {
            return Ok(());
        };
        let idle_seconds = holder.as_ref().and_then(|(.., idle_seconds)| *idle_seconds);
        let holder = holder.map_or_else(
            || "it has ended meanwhile".to_owned(),
            |(process, application, host, _)| {
                format!("process {process} of the server, {application} on {host}")
            },
        );
        let waited = started.elapsed();
        if waited > LOCK_TIMEOUT || idle_seconds.is_some_and(|idle| idle > IDLE_HOLDER_LIMIT_SECONDS) {
            return Err(StoreError::MigrationLocked { holder, waited, idle_seconds });
        }
        if logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            logged = Some(Instant::now());
            let waited_seconds = waited.as_secs();
            tracing::warn!(holder, waited_seconds, "waiting for another process that migrates the tables");
        }
        sleep(LOCK_INTERVAL).await;
    }
}

/// The key of the lock that sqlx's migrator takes: a constant, times the CRC-32 of the database's name.
async fn lock_id(connection: &mut PgConnection) -> Result<i64, StoreError> {
    let (name,): (String,) = query_as("SELECT current_database()::text").fetch_one(connection).await?;
    Ok(0x3d32_ad9e * i64::from(crc_32(name.as_bytes())))
}

/// CRC-32 of ISO-HDLC, as in zip files.
fn crc_32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_zip_files() {
        assert_eq!(crc_32(b"123456789"), 0xcbf4_3926);
    }
}
