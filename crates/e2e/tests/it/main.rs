//! The end-to-end tests: one binary, so that it is linked once and its tests share one PostgreSQL.
//!
//! Here goes what needs a live server or more than one process. What does not is tested in its own crate.
//!
//! | module | what goes there |
//! |---|---|
//! | `browsers` | what a page in a browser can do to the API, and what it cannot |
//! | `cache_puts` | the caches on a real Redis: what is newer stays |
//! | `store` | what both databases promise, run on both |
//! | `catalogue_changes` | products put, imported, removed, explained; what bad input gets |
//! | `configuration` | the variables: their page, `--help`, and what the programs read |
//! | `command_line` | `pricing up`, and what people do with the command line |
//! | `chaos` | everything dies while the market moves, and nothing is lost |
//! | `documents` | links between the documents |
//! | `fleet` | the services as processes; no tests |
//! | `harness` | the harness does what the other tests rely on |
//! | `imports` | what an import does with rows that repeat, contradict or take away |
//! | `jobs` | the queue: done, tried again, given up |
//! | `leases` | locks that end by themselves, and subscriptions, while Redis dies and is cut off |
//! | `market_events` | events from whoever publishes them to the queue: taken in, handed over, taken over |
//! | `notifications` | what processes tell each other and those who follow price changes |
//! | `load_shedding` | more is asked than can be answered |
//! | `price_read_path` | where a price is found, whose it is, and what happens when something is away |
//! | `product_conditions` | products changed on a condition, by two at a time |
//! | `real_catalogue` | 20,000 products imported and asked for |
//! | `slow_clients` | bodies that do not arrive |
//! | `stale_caches` | no cache wins over the catalogue, whatever happened to either |
//! | `stores_agree` | SQLite and PostgreSQL give the same prices; stored prices can be computed again |
//! | `support` | what tests of several modules share; no tests |
//! | `tidy` | the house rules; needs no server |
//! | `time_zones` | which time zone database the processes use, and that they say so |
//! | `tls` | stores, a collector and a gateway over TLS; what nobody trusts is refused |
//! | `unknown_currency` | a product that this version cannot read keeps no other back |
//! | `write_path` | the market moves and prices follow; recalculations |

#![expect(clippy::indexing_slicing, reason = "where one of these panics, the test has failed")]

mod browsers;
mod cache_puts;
mod catalogue_changes;
mod chaos;
mod command_line;
mod configuration;
mod dashboards;
mod documents;
mod fleet;
mod harness;
mod health_checks;
mod imports;
mod jobs;
mod leases;
mod load_shedding;
mod market_events;
mod metrics;
mod notifications;
mod policies;
mod policy_drafts;
mod price_history;
mod price_read_path;
mod product_conditions;
mod real_catalogue;
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
mod write_path;
