//! Tests of which servers are stopped, and which are left alone.

use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

use super::*;

/// Answers a connection's first command with this text. Returns whether it was the one that ends a server.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &str) -> bool {
    let mut command = Vec::new();
    let _ = stream.read_buf(&mut command).await;
    let ends = command.starts_with(b"SHUTDOWN");
    if !ends {
        let _ = stream.write_all(text.as_bytes()).await;
    }
    ends
}

fn serves(directory: &Path) -> String {
    format!("*2\r\n$3\r\ndir\r\n$1\r\n{}\r\n", directory.display())
}

/// A server of an earlier version, with this answer to every command.
async fn stub_on_port(text: String) -> Result<(u16, JoinHandle<()>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if answer(stream, &text).await {
                return;
            }
        }
    });
    Ok((port, serving))
}

#[tokio::test]
async fn a_leftover_of_an_earlier_version_is_ended() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let directory = scratch.path().canonicalize()?;
    let (port, serving) = stub_on_port(serves(&directory)).await?;
    fs::write(directory.join(PORT_FILE), port.to_string())?;
    end_leftover(&directory).await?;
    assert!(!directory.join(PORT_FILE).exists());
    timeout(COMMAND_TIMEOUT, serving).await??;
    Ok(())
}

#[tokio::test]
async fn a_leftover_on_a_socket_is_ended_and_its_temporary_directory_removed() -> Result<()> {
    let (scratch, temporary) = (tempfile::tempdir()?, tempfile::tempdir()?.keep());
    let directory = scratch.path().canonicalize()?;
    let socket = temporary.join("redis.sock");
    let (listener, text) = (UnixListener::bind(&socket)?, serves(&directory));
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if answer(stream, &text).await {
                return;
            }
        }
    });
    fs::write(directory.join(SOCKET_FILE), socket.to_string_lossy().as_bytes())?;
    end_leftover(&directory).await?;
    assert!(!directory.join(SOCKET_FILE).exists() && !temporary.exists());
    timeout(COMMAND_TIMEOUT, serving).await??;
    Ok(())
}

#[tokio::test]
async fn a_foreign_server_on_the_port_is_left_alone() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let directory = scratch.path().canonicalize()?;
    let (port, serving) = stub_on_port(serves(Path::new("/elsewhere"))).await?;
    fs::write(directory.join(PORT_FILE), port.to_string())?;
    end_leftover(&directory).await?;
    assert!(!directory.join(PORT_FILE).exists());
    assert!(!serving.is_finished());
    Ok(())
}

#[tokio::test]
async fn a_stale_or_broken_record_does_not_matter() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    for (record, written) in [
        (PORT_FILE, "1"),
        (PORT_FILE, ""),
        (PORT_FILE, "not a port"),
        (SOCKET_FILE, ""),
        (SOCKET_FILE, "/gone"),
    ] {
        fs::write(scratch.path().join(record), written)?;
        end_leftover(scratch.path()).await?;
        assert!(!scratch.path().join(record).exists(), "{record}: {written}");
    }
    Ok(())
}
