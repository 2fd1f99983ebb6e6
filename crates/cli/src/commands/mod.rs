//! The commands, one per file: arguments, work and output.

pub(crate) mod approve;
pub(crate) mod audit;
pub(crate) mod backup;
mod database;
pub(crate) mod doctor;
pub(crate) mod explain;
mod held_price;
pub(crate) mod history;
pub(crate) mod import;
pub(crate) mod jobs;
pub(crate) mod keys;
pub(crate) mod policy;
mod postgres_programs;
pub(crate) mod quote;
mod quote_lock;
pub(crate) mod recalculate;
pub(crate) mod restore;
pub(crate) mod simulate;
pub(crate) mod up;
pub(crate) mod watch;
