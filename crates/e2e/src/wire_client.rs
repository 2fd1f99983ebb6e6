//! A minimal HTTP client with little overhead, as a load generator shares its cores with the server under
//! test.

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest response.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// One connection.
#[derive(Debug)]
pub struct WireClient {
    stream: TcpStream,
    answer: Vec<u8>,
}

/// A raw response.
#[derive(Debug, Clone, Copy)]
pub struct WireAnswer<'a> {
    /// The status code.
    pub status: u16,
    /// The status line and the headers.
    pub head: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// Encodes a POST request with a body.
pub fn post(path: &str, content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: {length}"
    );
    format!("{head}\r\n\r\n{body}").into_bytes()
}

impl WireClient {
    /// Connects to an address such as `127.0.0.1:8000`.
    pub async fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, answer: Vec::new() })
    }

    /// Sends a complete request and waits for its response, which must state its length.
    pub async fn ask(&mut self, request: &[u8]) -> Result<WireAnswer<'_>> {
        self.stream.write_all(request).await?;
        self.answer.clear();
        let (head, body) = loop {
            let read = self.stream.read_buf(&mut self.answer).await?;
            ensure!(
                read > 0 && self.answer.len() <= MAX_ANSWER_BYTES,
                "the answer ended early or is too long"
            );
            if let Some((head, body)) = lengths(&self.answer)?
                && self.answer.len() >= head + body
            {
                break (head, body);
            }
        };
        let (head, rest) = self.answer.split_at_checked(head).context("the head is cut")?;
        let head = std::str::from_utf8(head)?;
        let status = head.split(' ').nth(1).context("an answer without a status")?.parse()?;
        Ok(WireAnswer { status, head, body: rest.get(..body).context("the body is cut")? })
    }
}

impl<'a> WireAnswer<'a> {
    /// Returns the body of a response with status 200; an error otherwise.
    pub fn ok(self) -> Result<&'a [u8]> {
        ensure!(self.status == 200, "{}{}", self.head, String::from_utf8_lossy(self.body));
        Ok(self.body)
    }
}

/// Returns the lengths of head and body, once the head is complete.
fn lengths(answer: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(answer.get(..end).unwrap_or_default())?;
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    let length = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let (_, length) = length.context("an answer without a length")?;
    Ok(Some((end + 4, length.trim().parse()?)))
}
