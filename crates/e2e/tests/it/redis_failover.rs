//! Connections to Redis heal without a restart, and what cannot be used is refused at the start.

mod cluster_connections;
mod cluster_fleets;
mod connections;
mod fleets;
mod refusals;
mod working_fleet;
