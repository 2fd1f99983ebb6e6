//! The end-to-end tests: one binary, so that it is linked once and its tests share one PostgreSQL.
//!
//! Here goes what needs a live server or more than one process. What does not is tested in its own crate.
//!
//! | module | what goes there |
//! |---|---|
//! | `cache_puts` | the caches on a real Redis: what is newer stays |
//! | `catalogue_changes` | products put, imported, removed, explained; what bad input gets |
//! | `price_read_path` | where a price is found, whose it is, and what happens when something is away |
//! | `stores_agree` | SQLite and PostgreSQL give the same prices; stored prices can be computed again |
//! | `harness` | the harness does what the other tests rely on |
//! | `support` | what tests of several modules share; no tests |

mod cache_puts;
mod catalogue_changes;
mod harness;
mod price_read_path;
mod stores_agree;
mod support;
