//! One verb, one file: its arguments, what it does, and how it is shown.

pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod import;
pub(crate) mod jobs;
pub(crate) mod quote;
pub(crate) mod recalculate;
pub(crate) mod up;
pub(crate) mod watch;
