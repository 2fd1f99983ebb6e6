//! Tests of which servers are stopped, and which are left alone.

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

/// Answers every connection's first command with this text until dropped.
async fn stub(answer: String) -> Result<(u16, JoinHandle<()>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut command = Vec::new();
            let _ = stream.read_buf(&mut command).await;
            if command.starts_with(b"SHUTDOWN") {
                return;
            }
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    Ok((port, serving))
}

#[tokio::test]
async fn a_leftover_on_the_directory_is_ended() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let directory = scratch.path().canonicalize()?;
    let (port, serving) = stub(format!("*2\r\n$3\r\ndir\r\n$1\r\n{}\r\n", directory.display())).await?;
    std::fs::write(directory.join(PORT_FILE), port.to_string())?;
    end_leftover(&directory).await?;
    assert!(!directory.join(PORT_FILE).exists());
    timeout(COMMAND_TIMEOUT, serving).await??;
    Ok(())
}

#[tokio::test]
async fn a_foreign_server_on_the_port_is_left_alone() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let directory = scratch.path().canonicalize()?;
    let (port, serving) = stub("*2\r\n$3\r\ndir\r\n$1\r\n/elsewhere\r\n".to_owned()).await?;
    std::fs::write(directory.join(PORT_FILE), port.to_string())?;
    end_leftover(&directory).await?;
    assert!(!directory.join(PORT_FILE).exists());
    assert!(!serving.is_finished());
    Ok(())
}

#[tokio::test]
async fn a_stale_or_broken_port_file_does_not_matter() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    for written in ["1", "", "not a port"] {
        std::fs::write(scratch.path().join(PORT_FILE), written)?;
        end_leftover(scratch.path()).await?;
    }
    Ok(())
}
