//! The end-to-end tests: one binary, so that it is linked once and its tests share one PostgreSQL.
//!
//! Here goes what needs a live server or more than one process. What does not is tested in its own crate.
//!
//! | module | what goes there |
//! |---|---|
//! | `catalogue` | what both databases promise, run on both |
//! | `harness` | the harness does what the other tests rely on |
//! | `support` | what tests of several modules share; no tests |

mod catalogue;
mod harness;
mod price_read_path;
mod stores_agree;
mod support;
