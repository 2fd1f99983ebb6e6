//! The errors of the store, classified by what the caller can do about them.

use std::time::Duration;

use sqlx::migrate::MigrateError;

use super::stored::LeftOut;

/// The reason that a call to the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL does not name a database. The message omits the URL, as it may contain a password.
    #[error(
        "the database URL is not usable: {reason} \
         (allowed: sqlite:///absolute/path.db, sqlite://relative/path.db, postgres://user:password@host:port/name)"
    )]
    InvalidUrl {
        /// The problem.
        reason: String,
    },
    /// The database cannot serve the call at the moment: it is unreachable, busy, full, shutting down, or
    /// broke a deadlock by ending this transaction. The same call may succeed later.
    #[error("the database is not available: {cause}")]
    Unavailable {
        /// What the driver reported.
        cause: sqlx::Error,
    },
    /// The database reads but does not write: it is a replica, or was set read-only. The same call may
    /// succeed once the address leads to a server that writes.
    #[error("the database is read-only: {cause}")]
    ReadOnly {
        /// What the driver reported.
        cause: sqlx::Error,
    },
    /// There is no connection for the call. The same call may succeed later.
    #[error("there is no connection to the database: {shortage}")]
    NoConnection {
        /// The reason.
        shortage: ConnectionShortage,
    },
    /// A pooler gives sessions of the server to several clients in turn.
    #[error(
        "a connection pooler in transaction or statement mode is between this program and the database; this \
         program needs a session of its own for each connection, for its prepared statements, time limits and \
         locks: set pool_mode = session for this database in PgBouncer, or connect to PostgreSQL itself"
    )]
    SharedSession,
    /// The database does not keep the time limits that were set for a session.
    #[error("the database does not keep the time limits of a session: {limit} ms was set, {set} ms holds")]
    LimitsNotKept {
        /// The limit in milliseconds.
        limit: String,
        /// What was read back.
        set: String,
    },
    /// Another session holds the lock of the migrations. The same call may succeed later.
    #[error(
        "the tables cannot be migrated: another session has held the lock for {} s ({holder}){}",
        .waited.as_secs(), of_idle_holder(*.idle_seconds)
    )]
    MigrationLocked {
        /// Who holds it.
        holder: String,
        /// How long this process waited.
        waited: Duration,
        /// For how long that session has run no statement, if it is idle.
        idle_seconds: Option<i64>,
    },
    /// No answer within the time limit; whether the statement took effect is unknown. The same call may
    /// succeed later.
    #[error("the database did not answer within {limit:?}")]
    TimedOut {
        /// The time limit.
        limit: Duration,
    },
    /// An earlier statement of the transaction failed or was abandoned, so there is nothing to commit. The
    /// whole transaction may succeed if it is begun again.
    #[error("the transaction cannot be committed because one of its statements did not finish")]
    TransactionFailed,
    /// The database is behind what this process knows of it: it was restored from a backup. It is used again
    /// when it has another identity, moments later.
    #[error("the database is behind what is known of it, as if restored from a backup: {what}")]
    Behind {
        /// What is known, and what the database says.
        what: String,
    },
    /// The database holds data that this program cannot read.
    #[error("the database holds {what}")]
    Corrupt {
        /// The data and where it is.
        what: String,
    },
    /// This program does not know a product's currency.
    #[error("the product \"{}\" is in the currency \"{}\", which this program does not know", .left_out.product_id, .left_out.currency)]
    UnknownCurrency {
        /// The product and its currency.
        left_out: LeftOut,
    },
    /// The tables could not be migrated to the schema of this program.
    #[error("the tables cannot be migrated: {cause}")]
    Migration {
        /// What the migration reported.
        cause: MigrateError,
    },
    /// The rows to be written were prepared for the other kind of database: a bug in the caller.
    #[error("the rows were prepared for another database")]
    PreparedForAnother,
    /// The database refused, and would again: no such database, no permission, a constraint.
    #[error("the database refused: {cause}")]
    Refused {
        /// What the driver reported.
        cause: sqlx::Error,
    },
}

/// The reason that there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionShortage {
    /// The server, or a pooler before it, allows no more.
    #[error(
        "it allows no more ({words}); raise its limit (max_connections, or a pooler's max_client_conn and \
         default_pool_size), or lower PRICING_DATABASE_CONNECTIONS or the number of processes"
    )]
    Refused {
        /// What the server said.
        words: String,
    },
    /// This process uses all that it may have.
    #[error(
        "all {allowed} of this process are in use; raise PRICING_DATABASE_CONNECTIONS, if the server allows more"
    )]
    AllInUse {
        /// How many it may have.
        allowed: u32,
    },
    /// A connection was opened or was being opened, and did not answer.
    #[error(
        "it did not answer for {waited:?}; a pooler may have no free session for it: raise default_pool_size, or \
         lower PRICING_DATABASE_CONNECTIONS or the number of processes"
    )]
    NoAnswer {
        /// The time.
        waited: Duration,
    },
}

/// What to do about the holder of the lock of the migrations, if it runs no statement.
fn of_idle_holder(idle_seconds: Option<i64>) -> String {
    idle_seconds.map_or_else(String::new, |seconds| {
        format!(
            " and has run no statement for {seconds} s; if no process migrates, end that session with \
             pg_terminate_backend"
        )
    })
}

impl StoreError {
    /// Whether a retry of the call, or of the whole transaction, may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. }
            | Self::ReadOnly { .. }
            | Self::NoConnection { .. }
            | Self::MigrationLocked { .. }
            | Self::TimedOut { .. }
            | Self::TransactionFailed
            | Self::Behind { .. } => true,
            Self::InvalidUrl { .. }
            | Self::SharedSession
            | Self::LimitsNotKept { .. }
            | Self::Corrupt { .. }
            | Self::UnknownCurrency { .. }
            | Self::Migration { .. }
            | Self::PreparedForAnother
            | Self::Refused { .. } => false,
        }
    }

    /// Whether the whole database is out of service though it may answer: it accepts no writes, has no space
    /// left, or refuses logins. The error is then unrelated to this call. (Other errors may also mean an
    /// outage, which the next call shows.)
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::ReadOnly { .. } | Self::NoConnection { shortage: ConnectionShortage::Refused { .. } } => {
                true
            }
            Self::Unavailable { cause: sqlx::Error::Database(refusal) }
            | Self::Refused { cause: sqlx::Error::Database(refusal) } => {
                refusal.code().is_some_and(|code| is_code_of_outage(&code))
            }
            Self::Behind { .. } => true,
            Self::Unavailable { .. }
            | Self::NoConnection { .. }
            | Self::SharedSession
            | Self::LimitsNotKept { .. }
            | Self::MigrationLocked { .. }
            | Self::Refused { .. }
            | Self::InvalidUrl { .. }
            | Self::TimedOut { .. }
            | Self::TransactionFailed
            | Self::Corrupt { .. }
            | Self::UnknownCurrency { .. }
            | Self::Migration { .. }
            | Self::PreparedForAnother => false,
        }
    }

    /// Creates the error for data that this program cannot read.
    pub(super) fn corrupt(column: &str, problem: impl std::fmt::Display) -> Self {
        Self::Corrupt { what: format!("an unreadable {column}: {problem}") }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(cause: sqlx::Error) -> Self {
        use sqlx::Error;
        match &cause {
            // A proxy that hangs up while its database is unavailable causes protocol and TLS errors, too.
            Error::Io(_)
            | Error::Protocol(_)
            | Error::Tls(_)
            | Error::PoolTimedOut
            | Error::PoolClosed
            | Error::WorkerCrashed
            | Error::BeginFailed => Self::Unavailable { cause },
            Error::Database(refusal) => match Refusal::of(refusal.code().as_deref(), refusal.message()) {
                Refusal::ReadOnly => Self::ReadOnly { cause },
                Refusal::TooManyConnections => {
                    let words = refusal.message().to_owned();
                    Self::NoConnection { shortage: ConnectionShortage::Refused { words } }
                }
                Refusal::Passing => Self::Unavailable { cause },
                Refusal::Damaged => Self::Corrupt { what: format!("damaged data: {cause}") },
                Refusal::Lasting => Self::Refused { cause },
            },
            Error::ColumnDecode { .. } | Error::Decode(_) => {
                Self::Corrupt { what: format!("an unreadable value: {cause}") }
            }
            _ => Self::Refused { cause },
        }
    }
}

impl From<MigrateError> for StoreError {
    fn from(cause: MigrateError) -> Self {
        match cause {
            MigrateError::Execute(cause) => cause.into(),
            MigrateError::ExecuteMigration(cause, version) => match cause.into() {
                Self::Refused { cause } => {
                    Self::Migration { cause: MigrateError::ExecuteMigration(cause, version) }
                }
                passing => passing,
            },
            cause => Self::Migration { cause },
        }
    }
}

/// What PgBouncer says when it has no place for a client.
const POOLER_LIMITS: [&str; 3] =
    ["no more connections allowed", "query_wait_timeout", "client_login_timeout"];

/// The meaning of a database's error code to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Passing,
    ReadOnly,
    TooManyConnections,
    Damaged,
    Lasting,
}

impl Refusal {
    /// Classifies an error by its code. PostgreSQL's codes have five characters, SQLite's are numbers below
    /// 10,000. PgBouncer reports everything of its own by the code of a protocol violation.
    fn of(code: Option<&str>, message: &str) -> Self {
        match code {
            Some("08P01") if POOLER_LIMITS.iter().any(|limit| message.contains(limit)) => {
                Self::TooManyConnections
            }
            Some(code) if code.len() == 5 => Self::of_sql_state(code),
            Some(code) => Self::of_sqlite_code(code),
            None => Self::Lasting,
        }
    }

    fn of_sql_state(code: &str) -> Self {
        match code {
            // Serialization failure, deadlock; lock not available; query cancelled by its time limit; the
            // server is shutting down, crashed or starting; a session ended for idling in a transaction.
            "40001" | "40P01" | "55P03" | "57014" | "57P01" | "57P02" | "57P03" | "57P05" | "25P03"
            | "25P04" => Self::Passing,
            "25006" => Self::ReadOnly,
            "53300" => Self::TooManyConnections,
            // A damaged table or index.
            "XX001" | "XX002" => Self::Damaged,
            // Connection exceptions; insufficient resources, a full disk among them; system errors.
            _ if ["08", "53", "58"].iter().any(|class| code.starts_with(class)) => Self::Passing,
            _ => Self::Lasting,
        }
    }

    fn of_sqlite_code(code: &str) -> Self {
        // The low byte is the primary code, the rest extends it.
        match code.parse::<u32>().map(|code| code & 0xff) {
            // BUSY, LOCKED, NOMEM, INTERRUPT, IOERR, FULL, PROTOCOL.
            Ok(5 | 6 | 7 | 9 | 10 | 13 | 15) => Self::Passing,
            // READONLY.
            Ok(8) => Self::ReadOnly,
            // CORRUPT, NOTADB.
            Ok(11 | 26) => Self::Damaged,
            _ => Self::Lasting,
        }
    }
}

/// Whether an error code means that the whole database is out of service.
fn is_code_of_outage(code: &str) -> bool {
    if code.len() != 5 {
        // FULL.
        return matches!(code.parse::<u32>().map(|code| code & 0xff), Ok(13));
    }
    // Full disk; starting; no such database, as during a restore; and the class of refused logins.
    ["53100", "57P03", "3D000"].contains(&code) || code.starts_with("28")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_tell_an_outage_of_the_whole_database() {
        for (code, expected) in [
            ("28P01", true),
            ("53100", true),
            ("3D000", true),
            ("57P03", true),
            ("57P02", false),
            ("58030", false),
            ("40P01", false),
            ("57014", false),
            ("23505", false),
            ("13", true),
            ("5", false),
            ("1555", false),
        ] {
            assert_eq!(is_code_of_outage(code), expected, "{code}");
        }
    }

    #[test]
    fn codes_tell_transient_from_lasting_errors() {
        for (code, expected) in [
            (Some("40P01"), Refusal::Passing),
            (Some("57014"), Refusal::Passing),
            (Some("53100"), Refusal::Passing),
            (Some("25006"), Refusal::ReadOnly),
            (Some("53300"), Refusal::TooManyConnections),
            (Some("23505"), Refusal::Lasting),
            (Some("3D000"), Refusal::Lasting),
            (Some("XX001"), Refusal::Damaged),
            (Some("5"), Refusal::Passing),
            (Some("517"), Refusal::Passing),
            (Some("13"), Refusal::Passing),
            (Some("8"), Refusal::ReadOnly),
            (Some("11"), Refusal::Damaged),
            (Some("1555"), Refusal::Lasting),
            (None, Refusal::Lasting),
        ] {
            assert_eq!(Refusal::of(code, "words"), expected, "{code:?}");
        }
    }
}
