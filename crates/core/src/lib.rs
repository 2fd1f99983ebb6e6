//! What two processes of the pricing engine must agree on.
//!
//! Here: the pricing domain, the catalogue of facts, the caches, and what every service needs to start,
//! report and stop. Never here: HTTP routes (they are in `pricing-api`) and command-line handling
//! (`pricing-cli`).
//!
//! Things flow one way. A write goes facts → [`domain::price`] → catalogue → caches; a read goes caches →
//! (on a miss) catalogue → [`domain::quote`]. Where next: [`domain`] for what a price is.

pub mod cache;
pub mod catalogue;
pub mod config;
pub mod domain;
pub mod events;
pub mod health;
pub mod jobs;
pub mod keys;
pub mod lease;
pub mod notices;
pub mod policy_snapshot;
pub mod redis;
pub mod reprice;
pub mod service;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod tz_database;
pub mod tz_versions;
