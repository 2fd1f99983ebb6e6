//! Recognises a server left over from an earlier start by its data directory, and stops it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use super::{END_TIMEOUT, POLL_INTERVAL};

/// The name of every socket.
pub(super) const SOCKET: &str = "redis.sock";
/// Holds the path of the socket while a server runs.
pub(super) const SOCKET_FILE: &str = "socket";
/// Held the port while a server ran, in versions that used one.
const PORT_FILE: &str = "port";
/// Time limit of one command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a server listens.
#[derive(Debug)]
pub(super) enum Address {
    Socket(PathBuf),
    /// On 127.0.0.1.
    Port(u16),
}

impl Address {
    /// Sends one command; returns the beginning of the answer.
    pub(super) async fn ask(&self, command: &str) -> io::Result<String> {
        let asking = async {
            match self {
                Self::Socket(path) => exchange(UnixStream::connect(path).await?, command).await,
                Self::Port(port) => exchange(TcpStream::connect(("127.0.0.1", *port)).await?, command).await,
            }
        };
        timeout(COMMAND_TIMEOUT, asking).await?
    }

    /// Whether a server at this address keeps its data in this directory.
    async fn serves(&self, directory: &Path) -> io::Result<bool> {
        let answer = self.ask("CONFIG GET dir").await?;
        Ok(answer.lines().any(|line| Path::new(line) == directory))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(formatter, "socket {}", path.display()),
            Self::Port(port) => write!(formatter, "port {port}"),
        }
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, command: &str) -> io::Result<String> {
    stream.write_all(format!("{command}\r\n").as_bytes()).await?;
    let mut answer = Vec::with_capacity(8 * 1024);
    stream.read_buf(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Stops a server that was left over in this directory, by this version or by one before it.
pub(super) async fn end_leftover(directory: &Path) -> Result<()> {
    let port_file = directory.join(PORT_FILE);
    if let Some(port) = fs::read_to_string(&port_file).ok().and_then(|written| written.trim().parse().ok()) {
        end_server(&Address::Port(port), directory, &port_file).await?;
    }
    remove(&port_file)?;
    let socket_file = directory.join(SOCKET_FILE);
    let Some(socket) =
        fs::read_to_string(&socket_file).ok().map(PathBuf::from).filter(|path| path.is_absolute())
    else {
        return remove(&socket_file);
    };
    end_server(&Address::Socket(socket.clone()), directory, &socket_file).await?;
    if socket.file_name().is_some_and(|name| name == SOCKET) {
        let _ = fs::remove_file(&socket);
        if let Some(temporary) = socket.parent().filter(|parent| *parent != directory) {
            // Succeeds only if it is empty.
            let _ = fs::remove_dir(temporary);
        }
    }
    remove(&socket_file)
}

async fn end_server(address: &Address, directory: &Path, record: &Path) -> Result<()> {
    let deadline = Instant::now() + END_TIMEOUT;
    loop {
        match address.serves(directory).await {
            Ok(true) if Instant::now() < deadline => {}
            Err(error) if error.kind() != io::ErrorKind::TimedOut => return Ok(()),
            Ok(false) => return Ok(()),
            Ok(true) | Err(_) => bail!(
                "a redis-server of an earlier start still runs on {address}: end it, or if it is none, remove {}",
                record.display()
            ),
        }
        let _ = address.ask("SHUTDOWN").await;
        sleep(POLL_INTERVAL).await;
    }
}

fn remove(record: &Path) -> Result<()> {
    match fs::remove_file(record) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", record.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
