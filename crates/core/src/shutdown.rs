//! Graceful shutdown: a token that is cancelled by Ctrl-C or SIGTERM.

use tokio_util::sync::CancellationToken;

/// Returns a token that the first Ctrl-C or SIGTERM cancels. Its holders accept no more work, finish their
/// current work and return.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        cancelled.cancel();
    });
    Ok(token)
}
