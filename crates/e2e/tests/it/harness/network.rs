//! The chaos proxy cuts, stalls, slows and restores the connection to a server.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pricing_e2e::{ChaosProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
/// Far longer than loopback needs.
const SILENCE: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_cut_breaks_connections_and_refuses_new_ones_until_it_is_restored() -> Result<()> {
    let mut proxy = proxy_before_an_echo().await?;
    let address = proxy.address();
    let mut connection = TcpStream::connect(address).await?;
    assert_eq!(echo(&mut connection, b"a").await?, b'a');

    proxy.cut().await;
    ensure_closed(&mut connection).await?;
    assert!(TcpStream::connect(address).await.is_err(), "a new connection is refused");

    proxy.restore().await?;
    assert_eq!(proxy.address(), address);
    let mut connection = TcpStream::connect(address).await?;
    assert_eq!(echo(&mut connection, b"b").await?, b'b');
    Ok(())
}

#[tokio::test]
async fn a_stall_holds_everything_back_and_loses_nothing() -> Result<()> {
    let mut proxy = proxy_before_an_echo().await?;
    let mut connection = TcpStream::connect(proxy.address()).await?;
    assert_eq!(echo(&mut connection, b"a").await?, b'a');

    proxy.stall();
    connection.write_all(b"b").await?;
    assert!(timeout(SILENCE, connection.read_u8()).await.is_err(), "nothing comes back");
    let mut newcomer = TcpStream::connect(proxy.address()).await?;
    assert!(timeout(SILENCE, echo(&mut newcomer, b"c")).await.is_err(), "nor on a new connection");

    proxy.restore().await?;
    assert_eq!(timeout(PATIENCE, connection.read_u8()).await??, b'b');
    assert_eq!(timeout(PATIENCE, newcomer.read_u8()).await??, b'c');
    Ok(())
}

#[tokio::test]
async fn a_slow_network_delays_each_way() -> Result<()> {
    let proxy = proxy_before_an_echo().await?;
    let mut connection = TcpStream::connect(proxy.address()).await?;
    proxy.slow(Duration::from_millis(50));

    let started = Instant::now();
    assert_eq!(echo(&mut connection, b"a").await?, b'a');
    assert!(started.elapsed() >= Duration::from_millis(100), "{:?}", started.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_client_is_closed_when_the_target_is_away() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let proxy = ChaosProxy::start(listener.local_addr()?).await?;
    drop(listener);
    ensure_closed(&mut TcpStream::connect(proxy.address()).await?).await
}

#[tokio::test]
async fn a_dropped_proxy_listens_no_more() -> Result<()> {
    let proxy = proxy_before_an_echo().await?;
    let address = proxy.address();
    drop(proxy);
    eventually("connections are refused", PATIENCE, async || {
        ensure!(TcpStream::connect(address).await.is_err(), "a connection was accepted");
        Ok(())
    })
    .await
}

async fn proxy_before_an_echo() -> Result<ChaosProxy> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let target = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = connection.split();
                tokio::io::copy(&mut reader, &mut writer).await
            });
        }
    });
    ChaosProxy::start(target).await
}

async fn echo(connection: &mut TcpStream, byte: &[u8; 1]) -> Result<u8> {
    connection.write_all(byte).await?;
    Ok(timeout(PATIENCE, connection.read_u8()).await??)
}

async fn ensure_closed(connection: &mut TcpStream) -> Result<()> {
    let outcome = timeout(PATIENCE, connection.read(&mut [0; 1])).await?;
    ensure!(matches!(outcome, Ok(0) | Err(_)), "the connection is open");
    Ok(())
}
