//! Programs are started with a clean environment, watched, stopped gently or not, and quoted in errors.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use pricing_e2e::{HttpClient, ServiceProcess, eventually};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_program_that_is_not_built_is_an_error_that_says_what_to_run() {
    let message = ServiceProcess::start("pricing-nothing", &[], &[]).unwrap_err().to_string();
    assert!(message.contains("pricing-nothing"), "{message}");
    assert!(message.ends_with("run `cargo build --workspace --bins` first"), "{message}");
}

#[tokio::test]
async fn terminate_returns_the_status_that_the_program_chose() -> Result<()> {
    let mut process = shell("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done", &[])?;
    wait_for_output(&process, "up\n").await?;
    assert_eq!(process.terminate(PATIENCE).await?.code(), Some(7));
    assert_eq!(process.output()?, "up\nbye\n");
    Ok(())
}

#[tokio::test]
async fn terminate_is_an_error_when_the_program_does_not_end() -> Result<()> {
    let mut process = shell("trap '' TERM; echo up; while :; do sleep 0.05; done", &[])?;
    wait_for_output(&process, "up\n").await?;
    let message = format!("{:#}", process.terminate(Duration::from_millis(200)).await.unwrap_err());
    assert!(message.contains("did not end within 200ms"), "{message}");
    process.kill()
}

#[tokio::test]
async fn a_program_sees_its_own_configuration_only() -> Result<()> {
    let mut process = shell("env | grep -v -e '^PWD=' -e '^SHLVL=' -e '^_='", &[("PRICING_PORT", "1")])?;
    process.wait(PATIENCE).await?;
    let output = process.output()?;
    assert!(output.contains("PRICING_PORT=1\n"), "{output}");
    assert!(output.contains("PATH="), "{output}");
    assert!(!output.contains("CARGO"), "{output}");
    Ok(())
}

#[tokio::test]
async fn waiting_for_a_program_that_ends_fails_at_once_with_its_output() -> Result<()> {
    let mut process = shell("echo PRICING_PORT is not a port; exit 64", &[])?;
    let failure = process.wait_until_ready("http://127.0.0.1:1").await.unwrap_err();
    let message = format!("{failure:#}");
    assert!(message.contains("PRICING_PORT is not a port"), "{message}");
    assert!(message.contains("exit status: 64"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_program_is_ready_when_it_says_so() -> Result<()> {
    let url = canned_server(&["503 Service Unavailable", "200 OK"]).await?;
    let mut process = shell("exec sleep 60", &[])?;
    process.wait_until_ready(&url).await
}

#[tokio::test]
async fn a_reply_holds_status_headers_text_and_json() -> Result<()> {
    let url = canned_server(&["404 Not TieredPrice"]).await?;
    let reply = HttpClient::new(url)?.price("P-1", "NY", true).await?;
    assert_eq!(reply.status.as_u16(), 404);
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    assert_eq!(reply.text, r#"{"price": 49.390}"#);
    assert_eq!(reply.body, json!({ "price": 49.39 }));
    Ok(())
}

fn shell(script: &str, environment: &[(&str, &str)]) -> Result<ServiceProcess> {
    ServiceProcess::start_program(Path::new("/bin/sh"), environment, &["-c", script])
}

async fn wait_for_output(process: &ServiceProcess, expected: &str) -> Result<()> {
    eventually("the output is there", PATIENCE, async || {
        let output = process.output()?;
        ensure!(output == expected, "it is {output:?}");
        Ok(())
    })
    .await
}

/// Answers one request with each status, in this order, always with the same body.
async fn canned_server(statuses: &'static [&'static str]) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        for status in statuses {
            let (mut connection, _) = listener.accept().await?;
            let _request = connection.read(&mut [0; 4096]).await?;
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\nconnection: close\r\n\
                 content-length: 17\r\n\r\n{{\"price\": 49.390}}"
            );
            connection.write_all(answer.as_bytes()).await?;
        }
        anyhow::Ok(())
    });
    Ok(url)
}
