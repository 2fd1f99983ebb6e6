//! A private PgBouncer in front of a PostgreSQL server.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::account::Account;
use crate::child::SupervisedChild;
use crate::eventually::eventually;
use crate::ports::on_free_port;
use crate::postgres_cluster::run_statement;
use crate::postgres_server::PostgresServer;
use crate::programs::{PostgresPrograms, find_program};
use crate::scratch_directory::ScratchDirectory;
use crate::tied_command::{Signal, tied_command};

const START_PATIENCE: Duration = Duration::from_secs(60);

/// When PgBouncer gives a server connection to another client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// When the client has gone.
    Session,
    /// After each transaction.
    Transaction,
    /// After each statement.
    Statement,
}

/// A `pgbouncer` on a loopback port. Killed on drop.
// Fields are dropped in order: the process before its directory.
#[derive(Debug)]
pub struct PgBouncer {
    _process: SupervisedChild,
    port: u16,
    _directory: ScratchDirectory,
}

impl PgBouncer {
    /// Starts it for all databases of a server, with these settings beside the default ones, one a line.
    pub async fn start(server: &PostgresServer, mode: PoolMode, settings: &str) -> Result<Self> {
        // Debian installs it outside the PATH of a user.
        let program = find_program("pgbouncer", "pgbouncer").or_else(|missing| {
            let debian = std::path::PathBuf::from("/usr/sbin/pgbouncer");
            if debian.is_file() { Ok(debian) } else { Err(missing) }
        })?;
        let directory = ScratchDirectory::new("pgbouncer")?;
        let account = Account::unprivileged_owner_of(directory.path())?;
        let (process, port) = on_free_port(async |port| {
            let configuration = directory.path().join("pgbouncer.ini");
            std::fs::write(&configuration, configuration_of(server.port(), port, mode, settings))?;
            let mut command = tied_command(&program, Signal::Kill, account)?;
            command.arg(&configuration).current_dir(directory.path());
            let log = directory.path().join("output.log");
            let mut process = SupervisedChild::spawn("pgbouncer", command, &log)?;
            let ready = eventually("pgbouncer answers", START_PATIENCE, async || answers(port).await);
            process.until_ready(ready).await?;
            Ok((process, port))
        })
        .await?;
        Ok(Self { _process: process, port, _directory: directory })
    }

    /// The URL of a database through it.
    pub fn url(&self, database: &str) -> String {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        format!("postgres://postgres@{address}/{database}")
    }

    /// Runs one SQL statement through it as superuser; returns the rows, one a line.
    pub async fn execute(&self, database: &str, statement: &str) -> Result<String> {
        run_statement(&PostgresPrograms::find()?, self.port, database, statement).await
    }
}

fn configuration_of(server: u16, port: u16, mode: PoolMode, settings: &str) -> String {
    let mode = match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
        PoolMode::Statement => "statement",
    };
    format!(
        "[databases]\n* = host=127.0.0.1 port={server} user=postgres\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = any\npool_mode = {mode}\n{settings}\n"
    )
}

/// It refuses TLS to who asks for it, by one letter: a request of the protocol before any log-in.
async fn answers(port: u16) -> Result<()> {
    const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    client.write_all(&TLS_REQUEST).await?;
    ensure!(client.read_u8().await? == b'N', "the port is another program's");
    Ok(())
}
