//! The backend that the services of the pricing engine share.
//!
//! Here: the store, the caches, messaging, jobs, and the start-up, reporting and shutdown of services. Never
//! here: how a price is computed (`pricing-domain`), HTTP routes (`pricing-api`) and command-line handling
//! (`pricing-cli`).
//!
//! Data flows one way. A write goes facts → [`pricing_domain::price`] → store → caches; a read goes caches →
//! (on a miss) store → [`pricing_domain::quote`]. Where next: [`engine`] for writes, [`cache`] for reads.

pub mod access;
pub mod audit;
pub mod backoff;
pub mod cache;
pub mod catalogue;
pub mod clock;
pub mod config;
pub mod engine;
pub mod events;
pub mod health;
pub mod jobs;
pub mod keys;
pub mod lease;
pub mod notifications;
pub mod policy_snapshot;
pub mod processes;
pub mod quote_lock;
pub mod redis;
pub mod redis_address;
pub mod service;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod tz_database;
pub mod tz_versions;
