//! The handlers, one resource per file: each reads its input, calls the core once and maps the result.

pub(crate) mod explanation;
pub(crate) mod failed_jobs;
pub(crate) mod health;
pub(crate) mod held_move;
pub(crate) mod history;
pub(crate) mod import;
mod import_batches;
mod import_header;
mod import_judgement;
mod import_memory;
pub(crate) mod import_rows;
pub(crate) mod import_spool;
pub(crate) mod key;
pub(crate) mod market_event;
pub(crate) mod personalisation;
pub(crate) mod policy;
pub(crate) mod policy_draft;
pub(crate) mod price;
pub(crate) mod price_changes;
pub(crate) mod price_differences;
pub(crate) mod prices;
pub(crate) mod product;
pub(crate) mod quote_lock;
pub(crate) mod recalculation;
pub(crate) mod reduction;
pub(crate) mod simulation;
