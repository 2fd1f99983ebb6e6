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

impl StoreError {
    /// Whether a retry of the call, or of the whole transaction, may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. }
            | Self::TimedOut { .. }
            | Self::TransactionFailed
            | Self::Behind { .. } => true,
            Self::InvalidUrl { .. }
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
            Self::Unavailable { cause: sqlx::Error::Database(refusal) }
            | Self::Refused { cause: sqlx::Error::Database(refusal) } => {
                refusal.code().is_some_and(|code| is_code_of_outage(&code))
            }
            Self::Behind { .. } => true,
            Self::Unavailable { .. }
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
            Error::Database(refusal) => match Refusal::of_code(refusal.code().as_deref()) {
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
                passing @ Self::Unavailable { .. } => passing,
                Self::Refused { cause } => {
                    Self::Migration { cause: MigrateError::ExecuteMigration(cause, version) }
                }
                other => other,
            },
            cause => Self::Migration { cause },
        }
    }
}

/// The meaning of a database's error code to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Passing,
    Damaged,
    Lasting,
}

impl Refusal {
    /// Classifies an error code. PostgreSQL's codes have five characters, SQLite's are numbers below 10,000.
    fn of_code(code: Option<&str>) -> Self {
        match code {
            Some(code) if code.len() == 5 => Self::of_sql_state(code),
            Some(code) => Self::of_sqlite_code(code),
            None => Self::Lasting,
        }
    }

    fn of_sql_state(code: &str) -> Self {
        match code {
            // Serialization failure, deadlock; lock not available; query cancelled by its time limit; the
            // server is shutting down, crashed or starting; a session ended for idling in a transaction; a
            // server that accepts no writes, as it is no longer the primary.
            "40001" | "40P01" | "55P03" | "57014" | "57P01" | "57P02" | "57P03" | "57P05" | "25P03"
            | "25P04" | "25006" => Self::Passing,
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
            // BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, FULL, PROTOCOL.
            Ok(5 | 6 | 7 | 8 | 9 | 10 | 13 | 15) => Self::Passing,
            // CORRUPT, NOTADB.
            Ok(11 | 26) => Self::Damaged,
            _ => Self::Lasting,
        }
    }
}

/// Whether an error code means that the whole database is out of service.
fn is_code_of_outage(code: &str) -> bool {
    if code.len() != 5 {
        // READONLY, FULL.
        return matches!(code.parse::<u32>().map(|code| code & 0xff), Ok(8 | 13));
    }
    // No writes; full disk; too many connections; starting; no such database, as during a restore; and the
    // class of refused logins.
    ["25006", "53100", "53300", "57P03", "3D000"].contains(&code) || code.starts_with("28")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_tell_an_outage_of_the_whole_database() {
        for (code, expected) in [
            ("25006", true),
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
            ("520", true),
            ("778", false),
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
            (Some("25006"), Refusal::Passing),
            (Some("23505"), Refusal::Lasting),
            (Some("3D000"), Refusal::Lasting),
            (Some("XX001"), Refusal::Damaged),
            (Some("5"), Refusal::Passing),
            (Some("517"), Refusal::Passing),
            (Some("13"), Refusal::Passing),
            (Some("8"), Refusal::Passing),
            (Some("11"), Refusal::Damaged),
            (Some("1555"), Refusal::Lasting),
            (None, Refusal::Lasting),
        ] {
            assert_eq!(Refusal::of_code(code), expected, "{code:?}");
        }
    }
}
