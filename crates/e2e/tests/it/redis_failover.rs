//! Connections to Redis heal without a restart, and what cannot be used is refused at the start.

mod connections;
mod fleets;
mod refusals;
