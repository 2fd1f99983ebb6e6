//! Recognises a server left over from an earlier start by its data directory, and stops it.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::{END_TIMEOUT, POLL_INTERVAL, PORT_FILE};

/// Time limit of one command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

/// Stops a server that was left over in this directory.
pub(super) async fn end_leftover(directory: &Path) -> Result<()> {
    let port_file = directory.join(PORT_FILE);
    let Some(port) = std::fs::read_to_string(&port_file).ok().and_then(|written| written.trim().parse().ok())
    else {
        return Ok(());
    };
    let deadline = Instant::now() + END_TIMEOUT;
    loop {
        match serves(port, directory).await {
            Ok(true) if Instant::now() < deadline => {}
            Err(error) if error.kind() != io::ErrorKind::TimedOut => break,
            Ok(false) => break,
            Ok(true) | Err(_) => bail!(
                "a redis-server of an earlier start still runs on port {port}: end it, or if it is none, remove {}",
                port_file.display()
            ),
        }
        let _ = ask(port, "SHUTDOWN").await;
        sleep(POLL_INTERVAL).await;
    }
    std::fs::remove_file(&port_file).with_context(|| format!("cannot remove {}", port_file.display()))
}

/// Whether a server on this port keeps its data in this directory.
pub(super) async fn serves(port: u16, directory: &Path) -> io::Result<bool> {
    let answer = ask(port, "CONFIG GET dir").await?;
    Ok(answer.lines().any(|line| Path::new(line) == directory))
}

/// Sends one command; returns the beginning of the answer.
pub(super) async fn ask(port: u16, command: &str) -> io::Result<String> {
    let asking = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(format!("{command}\r\n").as_bytes()).await?;
        let mut answer = Vec::with_capacity(8 * 1024);
        stream.read_buf(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    timeout(COMMAND_TIMEOUT, asking).await?
}

#[cfg(test)]
mod tests;
