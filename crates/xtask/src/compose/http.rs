//! HTTP requests to the containers, from outside.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::pause::pause;

/// The ports of the APIs.
const API_PORTS: RangeInclusive<u16> = 8000..=8009;
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;
/// The number of rounds over all APIs before a request fails.
const ROUNDS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// A response, parsed as JSON if it is.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// Sends a request to a local port, in HTTP/1.0, so that the response ends with the connection.
pub(crate) fn request(port: u16, method: &str, path: &str, body: Option<&str>) -> Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let body = body.unwrap_or_default();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n\
        content-length: {length}\r\n\r\n{body}"
    )?;
    let mut written = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut written)?;
    read(&String::from_utf8_lossy(&written))
}

fn read(written: &str) -> Result<Answer> {
    let (head, body) = written.split_once("\r\n\r\n").context("an answer without an end of its head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("an answer without a status: {head}"))?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok()).flatten()
    });
    ensure!(length.is_none_or(|length: usize| length == body.len()), "the answer is cut off");
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
    Ok(Answer { status, body })
}

/// Returns the first port on which an API answers.
pub(super) fn first_api() -> Result<u16> {
    let answers =
        |port: &u16| request(*port, "GET", "/healthz", None).is_ok_and(|answer| answer.status == 200);
    API_PORTS.into_iter().find(answers).context("no API answers")
}

/// Returns the first successful response of any API, like a load balancer with retries.
pub(super) fn ask_any(method: &str, path: &str, body: Option<&str>) -> Result<Answer> {
    let mut problem = String::new();
    for _ in 0..ROUNDS {
        for port in API_PORTS {
            match request(port, method, path, body) {
                Ok(answer) if answer.status < 500 => return Ok(answer),
                Ok(answer) => problem = format!("{} {}", answer.status, answer.body),
                Err(error) => problem = format!("{error:#}"),
            }
        }
        pause(PAUSE);
    }
    bail!("no API answers {method} {path}: {problem}")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_read_as_json_where_they_are() -> Result<()> {
        let answer = read("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}")?;
        assert_eq!(answer, Answer { status: 200, body: json!({"a": 1}) });
        assert_eq!(read("HTTP/1.0 503 Away\r\n\r\naway")?, Answer { status: 503, body: json!("away") });
        Ok(())
    }

    #[test]
    fn an_answer_that_is_cut_off_is_none() {
        for written in
            ["HTTP/1.0 200 OK\r\ncontent-length: 8\r\n\r\n{\"a\":1}", "HTTP/1.0 200 OK\r\n", "", "x\r\n\r\n"]
        {
            assert!(read(written).is_err(), "{written}");
        }
    }

    #[test]
    fn a_body_is_sent() -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let serving = std::thread::spawn(move || -> Result<String> {
            let (mut stream, _) = listener.accept()?;
            let mut asked = vec![0; 4096];
            let mut length = 0;
            while !asked[..length].ends_with(b"{}") {
                length += stream.read(&mut asked[length..])?;
            }
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n[]")?;
            Ok(String::from_utf8_lossy(&asked[..length]).into_owned())
        });
        assert_eq!(request(port, "POST", "/x", Some("{}"))?, Answer { status: 200, body: json!([]) });
        let asked = serving.join().unwrap()?;
        assert!(
            asked.starts_with("POST /x HTTP/1.0\r\n") && asked.contains("content-length: 2\r\n"),
            "{asked}"
        );
        Ok(())
    }
}
