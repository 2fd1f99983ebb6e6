//! Free ports on the loopback interface.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result, anyhow};

const LAUNCH_ATTEMPTS: usize = 3;

/// A port on 127.0.0.1 that nothing listened on a moment ago.
///
/// The kernel picks it and we release it before the server binds it, so another process may be faster. That
/// is rare and cannot be excluded for a server that binds the port itself. Hence two habits of the harness: a
/// launch is repeated on another port when it fails, and a server counts as started only when the process
/// that answers on the port proves to be the one that was started.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

/// Calls `launch` with a free port, and again with another when that fails.
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
