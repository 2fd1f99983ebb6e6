//! The end-to-end tests: one binary, so that it is linked once and its tests share one PostgreSQL.
//!
//! Here goes what needs a live server or more than one process. What does not is tested in its own crate.
//!
//! | module | what goes there |
//! |---|---|
//! | `access` | access keys, what is refused beyond loopback, and the listener for administration |
//! | `backups` | backup and restore on both databases: what is served afterwards |
//! | `browsers` | what a page in a browser can do to the API, and what it cannot |
//! | `cache_puts` | the caches on a real Redis: an older revision never replaces a newer one |
//! | `store` | what both databases promise, run on both |
//! | `catalogue_changes` | products put, imported, removed, explained; what bad input gets |
//! | `clocks` | processes whose clock is wrong |
//! | `configuration` | the variables: their page, `--help`, and what the programs read |
//! | `command_line` | `pricing up`, and what people do with the command line |
//! | `data_directories` | the data directory of `pricing up`: its private Redis, and what a start refuses |
//! | `chaos` | every process is killed while the market moves, and nothing is lost |
//! | `documents` | links between the documents |
//! | `event_clients` | clients of npm and PyPI that follow price changes |
//! | `doctor` | what operators see: `pricing doctor`, served prices beside stored ones, dead messages |
//! | `fleet` | the services as processes; no tests |
//! | `harness` | the harness does what the other tests rely on |
//! | `held_moves` | moves of prices by market events beyond the circuit breaker's limit |
//! | `held_prices` | a price that a limit holds back, and what is said of it |
//! | `imports` | what an import does with rows that repeat, contradict or take away |
//! | `jobs` | the queue: done, retried, dead-lettered |
//! | `leases` | leases and subscriptions while Redis dies and is cut off |
//! | `market_events` | events from their publisher to the queue: accepted, enqueued, reclaimed |
//! | `notifications` | notifications between processes and to clients that follow price changes |
//! | `open_telemetry` | OpenTelemetry's own variables |
//! | `panels` | offers that go too far for some shoppers, held by circuit breakers and limited |
//! | `personal_data` | prices say that they are personalised, and nothing of a shopper is kept |
//! | `load_shedding` | an API gets more requests than it can answer |
//! | `price_read_path` | cache tiers, prices per shopper, and reads during outages |
//! | `product_conditions` | conditional changes of products, by two clients at a time |
//! | `quote_lock` | signed prices: others verify them, and keys change |
//! | `redis_acl` | the engine as the least user of Redis that the documents name, and what a refusal says |
//! | `redis_failover` | connections to Redis heal: silence, replicas, fail-over, Sentinel; clusters are refused |
//! | `restored_database` | a database is restored from a backup under running services, or before they start |
//! | `real_catalogue` | 20,000 products imported and read |
//! | `slow_clients` | connections, heads and bodies that do not arrive, or are not as the protocol says |
//! | `stale_caches` | no cache wins over the database, whatever happened to either |
//! | `stores_agree` | SQLite and PostgreSQL give the same prices; stored prices can be computed again |
//! | `support` | what tests of several modules share; no tests |
//! | `tidy` | the house rules; needs no server |
//! | `time_zones` | which time zone database the processes use and report |
//! | `tls` | stores, a collector and a gateway over TLS; untrusted certificates are refused |
//! | `unserved_prices` | a process dies between the database and Redis, and others serve what it stored |
//! | `unknown_currency` | a product that this version cannot read does not affect others |
//! | `write_path` | the market moves and prices follow; recalculations |

#![expect(clippy::indexing_slicing, reason = "where one of these panics, the test has failed")]

mod access;
mod audit;
mod backups;
mod browsers;
mod cache_puts;
mod catalogue_changes;
mod chaos;
mod clocks;
mod command_line;
mod configuration;
mod dashboards;
mod data_directories;
mod doctor;
mod documents;
mod event_clients;
mod fleet;
mod harness;
mod health_checks;
mod held_moves;
mod held_prices;
mod imports;
mod jobs;
mod leases;
mod load_shedding;
mod market_events;
mod metrics;
mod notifications;
mod open_telemetry;
mod panels;
mod personal_data;
mod policies;
mod policy_drafts;
mod price_history;
mod price_read_path;
mod product_conditions;
mod quote_lock;
mod real_catalogue;
mod redis_acl;
mod redis_failover;
mod restored_database;
mod simulations;
mod slow_clients;
mod stale_caches;
mod store;
mod stores_agree;
mod support;
mod tidy;
mod time_zones;
mod tls;
mod traces;
mod unknown_currency;
mod unserved_prices;
mod write_path;
