//! One verb, one file: its arguments, what it does, and how it is shown.

pub(crate) mod quote;
