//! A private PostgreSQL cluster.
//!
//! A start takes a second or two, so the tests of one binary share a server, in a `static`
//! `tokio::sync::OnceCell` of the support module, and use a database each. A `static` is never dropped, but
//! the server and its directory end with the process (see `child` and `scratch_directory`).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::certificates::Certificates;
use crate::child::SupervisedChild;
use crate::eventually::eventually;
use crate::ports::on_free_port;
use crate::postgres_cluster::{END, PostgresCluster};

/// Enough for a launch that fails late and one that succeeds.
const RESTART_PATIENCE: Duration = Duration::from_secs(65);
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// A PostgreSQL server on a loopback port with its own cluster. Stopped on drop.
// Fields are dropped in order: the process before its directory.
#[derive(Debug)]
pub struct PostgresServer {
    process: SupervisedChild,
    port: u16,
    cluster: PostgresCluster,
}

impl PostgresServer {
    /// Creates an empty cluster, starts a server on it and waits until it answers a query.
    pub async fn start() -> Result<Self> {
        Self::start_on(PostgresCluster::create().await?).await
    }

    /// Like [`start`](Self::start), with a server that offers TLS with this certificate, and also admits
    /// `postgres` without TLS.
    pub async fn start_with_tls(certificates: &Certificates) -> Result<Self> {
        Self::start_on(PostgresCluster::create().await?.with_tls(certificates)?).await
    }

    /// Like [`start`](Self::start), with settings such as `max_connections=7`.
    pub async fn start_with(settings: &[&str]) -> Result<Self> {
        Self::start_on(PostgresCluster::create().await?.with_settings(settings)).await
    }

    /// Starts a replica of this server, which reads only until it is [promoted](Self::promote).
    pub async fn start_replica(&self) -> Result<Self> {
        Self::start_on(PostgresCluster::replica_of(self.port).await?).await
    }

    /// Makes a replica a server that writes.
    pub async fn promote(&self) -> Result<()> {
        let promoted = self.execute("postgres", "SELECT pg_promote(true, 60)").await?;
        ensure!(promoted.trim() == "t", "the replica is not promoted: {promoted}");
        Ok(())
    }

    async fn start_on(cluster: PostgresCluster) -> Result<Self> {
        let (process, port) = on_free_port(async |port| Ok((cluster.launch(port).await?, port))).await?;
        Ok(Self { process, port, cluster })
    }

    /// `postgres://postgres@127.0.0.1:{port}/{database}`. The database `postgres` exists from the start.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.address())
    }

    /// The listening address, for example as the target of a [`ChaosProxy`](crate::ChaosProxy).
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The port, the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory with the cluster in `data` and the server's `output.log`.
    pub fn directory(&self) -> &Path {
        self.cluster.directory()
    }

    /// The directory of the programs of the server's version, such as `pg_dump`.
    pub fn programs(&self) -> &Path {
        self.cluster.programs()
    }

    /// Creates an empty database and returns its URL. Tests use their own names, so no two share one.
    pub async fn create_database(&self, name: &str) -> Result<String> {
        let plain = name.chars().all(|letter| matches!(letter, 'a'..='z' | '0'..='9' | '_'));
        ensure!(plain && name.len() < 64, "`{name}` is not a plain database name");
        self.execute("postgres", &format!("CREATE DATABASE {name}")).await?;
        Ok(self.url(name))
    }

    /// Runs one SQL statement as superuser; returns the rows, one a line, their fields separated by `|`.
    pub async fn execute(&self, database: &str, statement: &str) -> Result<String> {
        self.cluster.execute(self.port, database, statement).await
    }

    /// Saves a database in a file, as `pg_dump` does.
    pub async fn dump(&self, database: &str, file: &Path) -> Result<()> {
        self.cluster.dump(self.port, database, file).await
    }

    /// Replaces a database by what a file holds, as a managed service does: it is loaded into a database of
    /// its own, which then takes the name. Sessions are ended; their programs connect again.
    pub async fn restore(&self, database: &str, file: &Path) -> Result<()> {
        let restored = format!("{database}_restored");
        self.create_database(&restored).await?;
        self.cluster.load(self.port, &restored, file).await?;
        for statement in [
            format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false"),
            format!(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{database}'"
            ),
            format!("ALTER DATABASE {database} RENAME TO {database}_before"),
            format!("ALTER DATABASE {restored} RENAME TO {database}"),
        ] {
            self.execute("postgres", &statement).await?;
        }
        Ok(())
    }

    /// Sends SIGKILL to the server, which breaks client connections.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Restarts the server, killing it first if it runs, on the same port with the same cluster.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        // It refuses to start while a process of its predecessor is still exiting.
        self.process = eventually("postgres restarts on its port", RESTART_PATIENCE, async || {
            self.cluster.launch(self.port).await
        })
        .await?;
        Ok(())
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if self.process.signal(END).is_ok() {
            self.process.wait_blocking(SHUTDOWN_PATIENCE);
        }
    }
}
