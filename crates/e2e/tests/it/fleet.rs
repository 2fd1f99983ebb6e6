//! The services as separate processes: what the tests of the write path start.

pub(crate) use pricing_e2e::{Fleet, Member, Service};
