//! Checks of a request's head that all routes share: its host, and how its body is encoded.

use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST};
use axum::http::{HeaderValue, Request, Version};
use hyper::body::Body;
use pricing_domain::diagnostic::shorten;

use crate::error::ApiError;

/// Character sets of bodies: UTF-8, and its subset.
const CHARSETS: [&str; 3] = ["utf-8", "utf8", "us-ascii"];

/// Refuses a request of HTTP/1.1 without a host, one with several or with an invalid one (RFC 9112, 3.2), and
/// one whose body is compressed or in another character set than UTF-8.
pub(crate) fn check<B: Body>(request: &Request<B>) -> Result<(), ApiError> {
    let (mut hosts, mut is_host_valid) = (0, true);
    let has_body = !request.body().is_end_stream();
    // One pass: most requests have few headers, and none of the look-ups finds anything to refuse.
    for (name, value) in request.headers() {
        if *name == HOST {
            hosts += 1;
            is_host_valid &= is_host(value.as_bytes());
        } else if has_body && *name == CONTENT_ENCODING {
            check_encoding(value)?;
        } else if has_body && *name == CONTENT_TYPE {
            check_charset(value)?;
        }
    }
    let is_missing = hosts == 0 && request.version() == Version::HTTP_11;
    if is_missing || hosts > 1 || !is_host_valid { Err(ApiError::InvalidHost) } else { Ok(()) }
}

/// Whether this is `uri-host [ ":" port ]` (RFC 3986, 3.2.2), or empty, as for a target without an authority.
fn is_host(written: &[u8]) -> bool {
    let (host, port) = match written.iter().rposition(|byte| *byte == b':' || *byte == b']') {
        Some(at) if written.get(at) == Some(&b':') => written.split_at(at),
        _ => (written, &b""[..]),
    };
    let is_port = port.iter().skip(1).all(u8::is_ascii_digit);
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte);
    let is_of_address = |byte: &u8| is_of_name(byte) || *byte == b':';
    let address = host.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    is_port && address.map_or_else(|| host.iter().all(is_of_name), |inner| inner.iter().all(is_of_address))
}

fn check_encoding(value: &HeaderValue) -> Result<(), ApiError> {
    let written = String::from_utf8_lossy(value.as_bytes());
    let mut encodings = written.split(',').map(str::trim);
    match encodings.find(|encoding| !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity")) {
        Some(encoding) => Err(ApiError::UnsupportedEncoding { encoding: shorten(encoding) }),
        None => Ok(()),
    }
}

fn check_charset(value: &HeaderValue) -> Result<(), ApiError> {
    if !value.as_bytes().contains(&b';') {
        return Ok(());
    }
    let written = String::from_utf8_lossy(value.as_bytes());
    let parameters = written.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let charsets = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    let mut charsets = charsets.map(|(_, charset)| charset.trim().trim_matches('"'));
    let is_known = |charset: &str| CHARSETS.iter().any(|known| known.eq_ignore_ascii_case(charset));
    match charsets.find(|charset| !is_known(charset)) {
        Some(charset) => Err(ApiError::UnsupportedCharset { charset: shorten(charset) }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn checked(version: Version, headers: &[(&str, &str)]) -> Result<(), ApiError> {
        let mut request = Request::builder().version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(Body::from("a body")).unwrap())
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_an_optional_port() {
        for host in ["localhost", "shop.example:8000", "127.0.0.1", "[::1]:80", "[::1]", "shop.example:", ""]
        {
            assert_eq!(checked(Version::HTTP_11, &[("host", host)]), Ok(()), "{host}");
        }
        for host in ["a b", "a/b", "user@host", "host:x", "[::1", "::1]", "a:b:1", "[::1]x", "ho\"st", "a#b"]
        {
            assert_eq!(checked(Version::HTTP_11, &[("host", host)]), Err(ApiError::InvalidHost), "{host}");
        }
        assert_eq!(checked(Version::HTTP_11, &[]), Err(ApiError::InvalidHost));
        assert_eq!(checked(Version::HTTP_10, &[]), Ok(()));
        let twice = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(checked(Version::HTTP_10, &twice), Err(ApiError::InvalidHost));
    }

    #[test]
    fn a_body_is_plain_utf_8() {
        let with = |name, value| checked(Version::HTTP_11, &[("host", "localhost"), (name, value)]);
        for (encoding, refused) in
            [("identity", None), ("", None), ("gzip", Some("gzip")), ("identity, BR", Some("BR"))]
        {
            let expected =
                refused.map(|encoding| ApiError::UnsupportedEncoding { encoding: encoding.into() });
            assert_eq!(with("content-encoding", encoding).err(), expected, "{encoding}");
        }
        for (media_type, refused) in [
            ("application/json", None),
            ("text/csv; charset=UTF-8; header=present", None),
            ("text/csv;charset=\"us-ascii\"", None),
            ("text/csv; Charset=latin1", Some("latin1")),
            ("application/json; charset=\"utf-16\"", Some("utf-16")),
        ] {
            let expected = refused.map(|charset| ApiError::UnsupportedCharset { charset: charset.into() });
            assert_eq!(with("content-type", media_type).err(), expected, "{media_type}");
        }
    }
}
