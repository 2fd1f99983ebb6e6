//! The harness of the end-to-end tests: real servers, real processes, and injected failures.
//!
//! | item | what it gives a test |
//! |---|---|
//! | [`RedisServer`] | a private `redis-server` that can be killed, restarted and frozen |
//! | [`RedisCluster`] | three masters of a Redis Cluster, each with a replica |
//! | [`RedisSentinel`] | a `redis-sentinel` that watches such servers and fails over |
//! | [`PostgresServer`] | a private PostgreSQL cluster, with a database per test |
//! | [`PgBouncer`] | a pooler in front of it |
//! | [`MovingAddress`] | an address that is moved to another server, as in a fail-over |
//! | [`ServiceProcess`] | one of the workspace's own programs, as a process |
//! | [`SetClock`] | a wall clock for processes, which the test sets and moves by days |
//! | [`ChaosProxy`] | a network between two of them that can be cut, stalled, slowed, silenced and redirected |
//! | [`Certificates`], [`TlsProxy`] | an authority that only a test trusts; TLS in front of a server that speaks none |
//! | [`OtlpCollector`] | where the services export their traces to |
//! | [`PrometheusServer`], [`promtool`] | what watches the services in production |
//! | [`Chromium`] | a browser without a window, that opens a page |
//! | [`Packages`] | packages of PyPI and npm, installed in pinned versions |
//! | [`HttpClient`] | JSON requests, and the price request |
//! | [`Fleet`] | the services as processes, of this build or of another |
//! | [`market`], [`steady_load`] | products and events with known prices; a load of them through faults |
//! | [`judge`] | compares what the engine made of them with the events alone |
//! | [`wire_client`] | one HTTP connection, for loads |
//! | [`open_loop`] | requests at a fixed rate, for benches |
//! | [`line_chart`] | a curve in a Markdown page, for benches |
//! | [`eventually()`] | waiting for a condition, so that no test sleeps |
//! | [`free_port`] | a port for a service that is started as a process |
//!
//! Each is in the file of its name. Their foundations: `child` and `tied_command` (a process that dies with
//! the test process), `scratch_directory` (a directory that is removed even then), `ports`, `programs`,
//! `account`, `postgres_cluster`.
//!
//! Three rules apply to all of them. A server that is not installed is an error that names the package: no
//! test is skipped silently. Nothing outlives the test process, no matter how that ends. Nothing touches a
//! server it did not start: each has its own port and directory, and is ended by its process id.

mod account;
mod certificates;
mod chaos_proxy;
mod child;
mod chromium;
mod eventually;
mod fleet;
mod http_client;
pub mod judge;
pub mod market;
mod moving_address;
pub mod open_loop;
mod otlp_collector;
mod packages;
mod plot;
mod pooler;
mod ports;
mod postgres_cluster;
mod postgres_server;
mod process;
mod programs;
mod prometheus_server;
mod redis_acl;
mod redis_cluster;
mod redis_sentinel;
mod redis_server;
mod scratch_directory;
mod set_clock;
pub mod steady_load;
mod tied_command;
mod tls_proxy;
pub mod wire_client;

pub use certificates::Certificates;
pub use chaos_proxy::ChaosProxy;
pub use chromium::Chromium;
pub use eventually::eventually;
pub use fleet::{Fleet, Member, Service};
pub use http_client::{HttpClient, HttpReply};
pub use moving_address::MovingAddress;
pub use otlp_collector::{OtlpCollector, ReceivedSpan};
pub use packages::Packages;
pub use plot::line_chart;
pub use pooler::{PgBouncer, PoolMode};
pub use ports::free_port;
pub use postgres_server::PostgresServer;
pub use process::{ServiceProcess, memory_kb};
pub use prometheus_server::{PrometheusServer, promtool};
pub use redis_acl::user_of_sentinel;
pub use redis_cluster::RedisCluster;
pub use redis_sentinel::RedisSentinel;
pub use redis_server::RedisServer;
pub use set_clock::SetClock;
pub use tls_proxy::TlsProxy;
