//! The harness itself: every failure it injects is real, and it leaves nothing behind.

mod network;
mod processes;
mod servers;
mod survival;
mod waiting;
