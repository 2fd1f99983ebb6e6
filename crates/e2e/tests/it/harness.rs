//! The harness itself: every kind of trouble it makes is real, and nothing of it is left behind.

mod network;
mod processes;
mod servers;
mod survival;
mod waiting;
