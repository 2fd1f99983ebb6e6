//! One verb, one file: its arguments, what it does, and how it is shown.

pub(crate) mod approve;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod history;
pub(crate) mod import;
pub(crate) mod jobs;
pub(crate) mod policy;
pub(crate) mod quote;
pub(crate) mod recalculate;
pub(crate) mod simulate;
pub(crate) mod up;
pub(crate) mod watch;
