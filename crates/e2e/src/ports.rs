//! Free ports on the loopback interface.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result, anyhow};

const LAUNCH_ATTEMPTS: usize = 3;

/// Returns a port on 127.0.0.1 that was just free.
///
/// The kernel picks the port, and it is released before the server binds it, so another process may take it.
/// That is rare and unavoidable for a server that binds the port itself. So a failed launch is repeated on
/// another port, and a server counts as started only if the process that answers on the port is the one that
/// was started.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

/// Calls `launch` with a free port, and again with another if that fails.
pub(crate) async fn on_free_port<T>(mut launch: impl AsyncFnMut(u16) -> Result<T>) -> Result<T> {
    let mut last_failure = anyhow!("never launched");
    for _ in 0..LAUNCH_ATTEMPTS {
        match launch(free_port()?).await {
            Ok(launched) => return Ok(launched),
            Err(failure) => last_failure = failure,
        }
    }
    Err(last_failure.context(format!("failed on {LAUNCH_ATTEMPTS} different ports")))
}
