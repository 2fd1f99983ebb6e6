//! A private Redis with the durability that the engine requires: append-only file, fsync always.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, TlsCertificates};

use crate::certificates::Certificates;
use crate::child::SupervisedChild;
use crate::eventually::eventually;
use crate::ports::{free_port, on_free_port};
use crate::programs::find_redis_server;
use crate::redis_acl;
use crate::scratch_directory::ScratchDirectory;
use crate::tied_command::{Signal, tied_command};

const START_PATIENCE: Duration = Duration::from_secs(180);
/// Enough for a launch that fails late and one that succeeds.
const RESTART_PATIENCE: Duration = Duration::from_secs(180);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A node that is silent for this long has failed.
const CLUSTER_NODE_TIMEOUT_MS: &str = "3000";

/// The users of a server that has any, in its directory.
const ACL_FILE: &str = "users.acl";

/// A `redis-server` on a loopback port with a private directory. Killed on drop.
// Fields are dropped in order: the process before its directory.
#[derive(Debug)]
pub struct RedisServer {
    process: SupervisedChild,
    program: PathBuf,
    port: u16,
    /// For other nodes of a cluster.
    cluster_port: u16,
    directory: ScratchDirectory,
    mode: Mode,
    /// Whether the engine uses it as the user of docs/operations.md.
    is_restricted: bool,
    /// Further arguments, such as `--maxclients 10`.
    settings: Vec<String>,
}

/// The mode of the server.
#[derive(Debug, Clone, Default)]
struct Mode {
    /// Whether it is a node of a cluster; at first without other nodes.
    is_node: bool,
    /// With them, it takes TLS only.
    certificates: Option<Arc<Certificates>>,
}

impl RedisServer {
    /// Starts an empty server and waits until it answers.
    pub async fn start() -> Result<Self> {
        Self::start_as(Mode::default(), &[]).await
    }

    /// Like [`start`](Self::start), with settings such as `--min-replicas-to-write 1`, also after a restart.
    pub async fn start_with(settings: &[&str]) -> Result<Self> {
        Self::start_as(Mode::default(), settings).await
    }

    /// Starts an empty server that the engine uses as the user of docs/operations.md, who may do nothing
    /// else, and waits until it answers.
    pub async fn start_restricted() -> Result<Self> {
        Self::launch_as(Mode::default(), &[], true).await
    }

    /// What users were refused, as `ACL LOG` has it.
    pub async fn refusals(&self) -> Result<Vec<String>> {
        let mut log = redis::cmd("ACL");
        let refused: Vec<redis::Value> = log.arg("LOG").query_async(&mut self.connection().await?).await?;
        Ok(refused.iter().map(|refused| format!("{refused:?}")).collect())
    }

    /// Starts a node of a cluster and waits until it answers.
    pub async fn start_cluster() -> Result<Self> {
        Self::start_as(Mode { is_node: true, certificates: None }, &[]).await
    }

    /// The same, with TLS only, towards clients and other nodes.
    pub async fn start_cluster_with_tls(certificates: &Arc<Certificates>) -> Result<Self> {
        Self::start_as(Mode { is_node: true, certificates: Some(Arc::clone(certificates)) }, &[]).await
    }

    /// Makes this server a replica of another and waits until it has its data.
    pub async fn follow(&self, master: &Self) -> Result<()> {
        let mut connection = self.connection().await?;
        let mut follow = redis::cmd("REPLICAOF");
        follow.arg("127.0.0.1").arg(master.port).query_async::<()>(&mut connection).await?;
        eventually("the replica has its master's data", START_PATIENCE, async || {
            let mut connection = self.connection().await?;
            let info: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await?;
            ensure!(info.contains("role:slave") && info.contains("master_link_status:up"), "{info}");
            Ok(())
        })
        .await
    }

    /// Whether this server is a master.
    pub async fn is_master(&self) -> Result<bool> {
        let mut connection = self.connection().await?;
        let info: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await?;
        Ok(info.contains("role:master"))
    }

    /// Whether this server is a master that takes writes: one that wants for replicas refuses them.
    pub async fn takes_writes(&self) -> Result<bool> {
        let mut connection = self.connection().await?;
        let mut write = redis::cmd("SET");
        let written = write.arg("taken").arg("").arg("PX").arg(1).query_async::<()>(&mut connection).await;
        Ok(written.is_ok() && self.is_master().await?)
    }

    /// Makes this server a master.
    pub async fn promote(&self) -> Result<()> {
        let mut promote = redis::cmd("REPLICAOF");
        promote.arg("NO").arg("ONE").query_async::<()>(&mut self.connection().await?).await?;
        Ok(())
    }

    /// Starts an empty server that accepts only TLS, with this certificate, and waits until it answers.
    pub async fn start_with_tls(certificates: &Arc<Certificates>) -> Result<Self> {
        Self::start_as(Mode { is_node: false, certificates: Some(Arc::clone(certificates)) }, &[]).await
    }

    async fn start_as(mode: Mode, settings: &[&str]) -> Result<Self> {
        Self::launch_as(mode, settings, redis_acl::is_wanted_everywhere()).await
    }

    async fn launch_as(mode: Mode, settings: &[&str], is_restricted: bool) -> Result<Self> {
        let settings: Vec<String> =
            settings.iter().flat_map(|one| one.split(' ')).map(str::to_owned).collect();
        let program = find_redis_server()?;
        let directory = ScratchDirectory::new("redis")?;
        if is_restricted {
            fs::write(directory.path().join(ACL_FILE), redis_acl::users_of_server()?)?;
        }
        let launched = on_free_port(async |port| {
            let ports = (port, free_port()?);
            Ok((launch(&program, directory.path(), ports, &mode, &settings).await?, ports))
        });
        let (process, (port, cluster_port)) = launched.await?;
        Ok(Self { process, program, port, cluster_port, directory, mode, is_restricted, settings })
    }

    /// `redis://127.0.0.1:{port}`, or `rediss://`, with the login of the engine if it has one.
    pub fn url(&self) -> String {
        let url = url(self.port, &self.mode);
        if self.is_restricted { url.replace("://", &format!("://{}@", redis_acl::LOGIN)) } else { url }
    }

    /// The listening address, for example as the target of a [`ChaosProxy`](crate::ChaosProxy).
    pub fn address(&self) -> SocketAddr {
        address(self.port)
    }

    /// The port, the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port for other nodes of a cluster, the same after a restart.
    pub fn cluster_port(&self) -> u16 {
        self.cluster_port
    }

    /// The directory with its append-only file and its `output.log`.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Opens a direct connection, not through a proxy.
    pub async fn connection(&self) -> Result<MultiplexedConnection> {
        connect(self.port, &self.mode).await
    }

    /// Sends SIGKILL: data not on disk is lost, and client connections break.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Restarts the server, killing it first if it runs, on the same port with the same directory.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        let directory = self.directory.path();
        self.process = eventually("redis-server restarts on its port", RESTART_PATIENCE, async || {
            launch(&self.program, directory, (self.port, self.cluster_port), &self.mode, &self.settings).await
        })
        .await?;
        Ok(())
    }

    /// Sends SIGSTOP: connections stay open and the kernel accepts new ones, but nothing is answered.
    pub fn pause(&mut self) -> Result<()> {
        self.process.signal(Signal::Stop)
    }

    /// Sends SIGCONT, which ends a [`pause`](Self::pause).
    pub fn resume(&mut self) -> Result<()> {
        self.process.signal(Signal::Continue)
    }
}

async fn launch(
    program: &Path,
    directory: &Path,
    (port, cluster_port): (u16, u16),
    mode: &Mode,
    settings: &[String],
) -> Result<SupervisedChild> {
    let mut command = tied_command(program, Signal::Kill, None)?;
    command.args(["--bind", "127.0.0.1"]);
    command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
    command.args(["--auto-aof-rewrite-min-size", "512mb"]);
    command.arg("--dir").arg(directory).args(settings);
    let acl_file = directory.join(ACL_FILE);
    if acl_file.exists() {
        command.arg("--aclfile").arg(acl_file);
    }
    let port_argument = port.to_string();
    match &mode.certificates {
        None => {
            command.args(["--port", &port_argument]);
        }
        Some(certificates) => {
            command.args(["--port", "0", "--tls-port", &port_argument, "--tls-auth-clients", "no"]);
            command.arg("--tls-cert-file").arg(certificates.certificate());
            command.arg("--tls-key-file").arg(certificates.key());
            command.arg("--tls-ca-cert-file").arg(certificates.authority());
        }
    }
    if mode.is_node {
        command.args(["--cluster-enabled", "yes", "--cluster-port", &cluster_port.to_string()]);
        command.args(["--cluster-node-timeout", CLUSTER_NODE_TIMEOUT_MS]);
        command.args(["--cluster-replica-validity-factor", "0"]);
        if mode.certificates.is_some() {
            command.args(["--tls-cluster", "yes", "--tls-replication", "yes"]);
        }
    }
    let mut process = SupervisedChild::spawn("redis-server", command, &directory.join("output.log"))?;
    let process_id = process.id();
    let ready =
        eventually("redis-server answers", START_PATIENCE, async || answers_as(process_id, port, mode).await);
    process.until_ready(ready).await?;
    Ok(process)
}

/// Checks that the server on `port` has loaded its data and is the started process.
async fn answers_as(process_id: u32, port: u16, mode: &Mode) -> Result<()> {
    let mut connection = connect(port, mode).await?;
    let _: String = redis::cmd("PING").query_async(&mut connection).await?;
    let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
    let expected = format!("process_id:{process_id}");
    ensure!(info.lines().any(|line| line == expected), "port {port} belongs to another redis-server");
    Ok(())
}

async fn connect(port: u16, mode: &Mode) -> Result<MultiplexedConnection> {
    let url = url(port, mode);
    let client = match &mode.certificates {
        None => Client::open(url)?,
        Some(certificates) => {
            let root_cert = Some(fs::read(certificates.authority())?);
            Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert })?
        }
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(RESPONSE_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    let connection = client.get_multiplexed_async_connection_with_config(&config).await;
    connection.with_context(|| format!("no connection to redis on port {port}"))
}

fn url(port: u16, mode: &Mode) -> String {
    let scheme = if mode.certificates.is_some() { "rediss" } else { "redis" };
    format!("{scheme}://{}", address(port))
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
