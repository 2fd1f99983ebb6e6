//! The end-to-end tests: one binary, so that it is linked once and its tests share one PostgreSQL.
//!
//! Here goes what needs a live server or more than one process. What does not is tested in its own crate.
//!
//! | module | what goes there |
//! |---|---|
//! | `cache_puts` | the caches on a real Redis: what is newer stays |
//! | `catalogue` | what both databases promise, run on both |
//! | `catalogue_changes` | products put, imported, removed, explained; what bad input gets |
//! | `command_line` | `pricing up`, and what people do with the command line |
//! | `harness` | the harness does what the other tests rely on |
//! | `price_read_path` | where a price is found, whose it is, and what happens when something is away |
//! | `real_catalogue` | 20,000 products imported and asked for |
//! | `stale_caches` | no cache wins over the catalogue, whatever happened to either |
//! | `stores_agree` | SQLite and PostgreSQL give the same prices; stored prices can be computed again |
//! | `support` | what tests of several modules share; no tests |
//! | `tidy` | the house rules; needs no server |

#![expect(clippy::indexing_slicing, reason = "where one of these panics, the test has failed")]

mod cache_puts;
mod catalogue;
mod catalogue_changes;
mod command_line;
mod harness;
mod price_read_path;
mod real_catalogue;
mod stale_caches;
mod stores_agree;
mod support;
mod tidy;
