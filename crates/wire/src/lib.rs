//! Requests and answers of the HTTP API: the API reads the requests and writes the answers, the command line
//! writes the requests and reads the answers.
//!
//! Here: the types, one noun per file, with their names in the OpenAPI document, and conversions from the
//! domain's types. Never here: logic, I/O, axum or clap. The API checks requests, and the command line
//! formats answers.
//!
//! A command line may read the answers of a newer or an older API. So kinds, states and reasons in answers
//! are strings, not enums; unknown fields are ignored; and fields that an older API may omit have a default.
//! Amounts are JSON numbers with exactly their decimal digits.
//!
//! Not here: prices (`routes::price` in `pricing-api` borrows the request and writes its JSON by hand),
//! readiness (`pricing-core`'s `health`, as every service reports it), and types of routes that no command
//! calls.
//!
//! Where next: [`problem`] for errors, [`simulation`] for the longest answer; `crates/api/src/routes` and
//! `crates/cli/src/commands` use these types.

mod amount;
pub mod audit;
pub mod explanation;
pub mod failed_job;
pub mod held_move;
pub mod held_price;
pub mod history;
pub mod import;
pub mod key;
pub mod policy;
pub mod price_change;
pub mod price_difference;
pub mod problem;
pub mod recalculation;
pub mod reduction;
pub mod simulation;
