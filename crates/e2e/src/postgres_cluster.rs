//! The directory of a PostgreSQL cluster, and its programs.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::account::Account;
use crate::certificates::Certificates;
use crate::child::SupervisedChild;
use crate::eventually::eventually;
use crate::programs::PostgresPrograms;
use crate::scratch_directory::ScratchDirectory;
use crate::tied_command::{Signal, tied_command};

const INITDB_PATIENCE: Duration = Duration::from_secs(180);
const START_PATIENCE: Duration = Duration::from_secs(180);
const STATEMENT_PATIENCE: Duration = Duration::from_secs(180);

/// The signal that ends the server. SIGQUIT is PostgreSQL's immediate shutdown, without a checkpoint, as no
/// data is kept. SIGKILL would leave a System V shared memory segment behind each time, of which a system has
/// a few thousand.
pub(crate) const END: Signal = Signal::Quit;

/// The data and programs that a server is started and restarted with.
#[derive(Debug)]
pub(crate) struct PostgresCluster {
    programs: PostgresPrograms,
    account: Option<Account>,
    directory: ScratchDirectory,
    has_tls: bool,
    settings: Vec<String>,
}

impl PostgresCluster {
    pub(crate) async fn create() -> Result<Self> {
        let cluster = Self::in_empty_directory()?;
        cluster.initialise().await?;
        Ok(cluster)
    }

    /// Copies the cluster that a server on this port serves; a server on the copy is its replica.
    pub(crate) async fn replica_of(port: u16) -> Result<Self> {
        let cluster = Self::in_empty_directory()?;
        let mut command = tied_command(&cluster.programs.pg_basebackup, Signal::Kill, cluster.account)?;
        command.args(["--host=127.0.0.1", "--username=postgres", "--no-password", "--no-sync"]);
        command.args(["--checkpoint=fast", "--write-recovery-conf", "--port", &port.to_string()]);
        command.arg("--pgdata").arg(cluster.data());
        let mut copying = cluster.spawn("pg_basebackup", command)?;
        let status = copying.wait(INITDB_PATIENCE).await?;
        ensure!(status.success(), "pg_basebackup failed ({status}):\n{}", copying.output()?);
        Ok(cluster)
    }

    fn in_empty_directory() -> Result<Self> {
        let programs = PostgresPrograms::find()?;
        let directory = ScratchDirectory::new("postgres")?;
        let account = Account::unprivileged_owner_of(directory.path())?;
        Ok(Self { programs, account, directory, has_tls: false, settings: Vec::new() })
    }

    /// Adds settings of the server, such as `max_connections=7`, which win over those of a launch.
    pub(crate) fn with_settings(self, settings: &[&str]) -> Self {
        let settings = settings.iter().map(|setting| format!("--{setting}")).collect();
        Self { settings, ..self }
    }

    /// Offers TLS with this certificate. The server accepts only files that belong to it, and a key that no
    /// other user may read.
    pub(crate) fn with_tls(self, certificates: &Certificates) -> Result<Self> {
        for (file, from) in
            [(self.certificate(), certificates.certificate()), (self.key(), certificates.key())]
        {
            fs::copy(from, &file)?;
            fs::set_permissions(&file, Permissions::from_mode(0o600))?;
            if let Some(account) = self.account {
                chown(&file, Some(account.user_id), Some(account.group_id))?;
            }
        }
        Ok(Self { has_tls: true, ..self })
    }

    async fn initialise(&self) -> Result<()> {
        let mut command = tied_command(&self.programs.initdb, Signal::Kill, self.account)?;
        command.args(["--username=postgres", "--auth=trust", "--no-sync"]);
        command.args(["--encoding=UTF8", "--locale=C"]);
        command.arg("--pgdata").arg(self.data());
        let mut initdb = self.spawn("initdb", command)?;
        let status = initdb.wait(INITDB_PATIENCE).await?;
        ensure!(status.success(), "initdb failed ({status}):\n{}", initdb.output()?);
        Ok(())
    }

    pub(crate) async fn launch(&self, port: u16) -> Result<SupervisedChild> {
        let mut command = tied_command(&self.programs.postgres, END, self.account)?;
        command.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        command.arg("-k").arg(self.directory());
        command.arg("-D").arg(self.data());
        command.args(["--fsync=off", "--full_page_writes=off", "--max_connections=200"]);
        // Shared memory is in files of the cluster, so that a killed server leaves nothing in /dev/shm.
        command.arg("--dynamic_shared_memory_type=mmap");
        command.args(&self.settings);
        if self.has_tls {
            command.arg("--ssl=on");
            command.arg(format!("--ssl_cert_file={}", self.certificate().display()));
            command.arg(format!("--ssl_key_file={}", self.key().display()));
        }
        let mut process = self.spawn("postgres", command)?;
        let ready = eventually("postgres answers", START_PATIENCE, async || self.answers(port).await);
        process.until_ready(ready).await?;
        Ok(process)
    }

    /// Checks that the server on `port` answers queries and serves this cluster, not another's.
    async fn answers(&self, port: u16) -> Result<()> {
        let served = self.execute(port, "postgres", "SHOW data_directory").await?;
        ensure!(Path::new(served.trim()) == self.data(), "port {port} serves {served}");
        Ok(())
    }

    pub(crate) async fn execute(&self, port: u16, database: &str, statement: &str) -> Result<String> {
        run_statement(&self.programs, port, database, statement).await
    }

    /// Saves a database as SQL.
    pub(crate) async fn dump(&self, port: u16, database: &str, file: &Path) -> Result<()> {
        let file = file.to_string_lossy();
        run_client(&self.programs.pg_dump, port, database, &["--file", &file]).await.map(drop)
    }

    /// Runs the statements of a file.
    pub(crate) async fn load(&self, port: u16, database: &str, file: &Path) -> Result<()> {
        let file = file.to_string_lossy();
        let options = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file", &file];
        run_client(&self.programs.psql, port, database, &options).await.map(drop)
    }

    fn spawn(&self, name: &str, mut command: Command) -> Result<SupervisedChild> {
        without_postgres_settings(&mut command);
        // The current directory may be inaccessible to the account that the program runs under.
        command.current_dir(self.directory());
        SupervisedChild::spawn(name, command, &self.directory().join("output.log"))
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn programs(&self) -> &Path {
        self.programs.psql.parent().unwrap_or(Path::new("/"))
    }

    fn certificate(&self) -> PathBuf {
        self.directory().join("certificate.pem")
    }

    fn key(&self) -> PathBuf {
        self.directory().join("key.pem")
    }

    fn data(&self) -> PathBuf {
        self.directory().join("data")
    }
}

/// Removes `PGDATA`, `PGSSLMODE` and similar variables, which a developer may have set for another server.
fn without_postgres_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
}

/// Runs one SQL statement as superuser at a port; returns the rows, one a line.
pub(crate) async fn run_statement(
    programs: &PostgresPrograms,
    port: u16,
    database: &str,
    statement: &str,
) -> Result<String> {
    let options = ["--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "--command", statement];
    run_client(&programs.psql, port, database, &options).await
}

/// Runs a client program on a database as superuser, and returns its output.
async fn run_client(program: &Path, port: u16, database: &str, options: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    without_postgres_settings(&mut command);
    command.args(["--no-password", "--host=127.0.0.1", "--username=postgres"]);
    command.args(["--port", &port.to_string(), "--dbname", database]).args(options);
    command.stdin(Stdio::null());
    let mut command = tokio::process::Command::from(command);
    let running = command.kill_on_drop(true).output();
    let finished = tokio::time::timeout(STATEMENT_PATIENCE, running).await;
    let finished = finished.with_context(|| format!("no answer to {options:?}"))??;
    if !finished.status.success() {
        bail!("{options:?} failed: {}", String::from_utf8_lossy(&finished.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&finished.stdout).into_owned())
}
