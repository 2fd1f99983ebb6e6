//! The browser guard: which requests of web pages are admitted.
//!
//! A browser sends a request wherever a page directs it, and it reaches loopback and networks that the page's
//! author cannot. So requests that write, and reads for operators, are refused unless they come from a page
//! of the service itself, from an address that was typed, or from a program that is not a browser: such
//! programs send neither `Sec-Fetch-Site` nor `Origin`. [`admit`] checks requests, and [`add_headers`]
//! restricts what pages may do with answers. [`crate::router`] declares whom a route serves.
//!
//! [`admit`]: BrowserGuard::admit
//! [`add_headers`]: BrowserGuard::add_headers

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Body;
use pricing_domain::diagnostic::shorten;

use crate::error::ApiError;
use crate::pipeline::{Audience, Route};

/// The relation of the requesting page to this service, as the browser states it: `same-origin`, `same-site`,
/// `cross-site` or `none`.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// How long a browser caches the answer to a preflight request, in seconds.
const PREFLIGHT_MAX_AGE: HeaderValue = HeaderValue::from_static("600");
/// Security headers of pages and of administrative answers.
const PROTECTION: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];
/// Content Security Policy of pages: scripts and images of the service itself. Swagger UI includes styles and
/// images in its scripts.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Content Security Policy of answers that are data, not pages.
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// Host names of this service besides loopback's: from `PRICING_HOSTS`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<Authority>);

impl FromStr for AllowedHosts {
    type Err = ();

    fn from_str(written: &str) -> Result<Self, ()> {
        if written.is_empty() {
            return Ok(Self::default());
        }
        let hosts = written.split(',').map(str::trim).map(|host| {
            let host = parse_host(host).ok_or(())?;
            // A pattern would be treated as a name.
            if host.host().contains('*') { Err(()) } else { Ok(host) }
        });
        hosts.collect::<Result<_, _>>().map(Self)
    }
}

/// Origins whose pages may request prices: from `PRICING_CORS_ORIGINS`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CorsOrigins(Vec<HeaderValue>);

impl FromStr for CorsOrigins {
    type Err = ();

    fn from_str(written: &str) -> Result<Self, ()> {
        if written.is_empty() {
            return Ok(Self::default());
        }
        let origins = written.split(',').map(str::trim).map(|origin| {
            let (scheme, host) = origin.split_once("://").ok_or(())?;
            let is_origin = matches!(scheme, "http" | "https")
                && parse_host(host).is_some_and(|host| !host.host().contains('*'))
                && !host.contains(char::is_uppercase);
            if is_origin { HeaderValue::from_str(origin).map_err(drop) } else { Err(()) }
        });
        origins.collect::<Result<_, _>>().map(Self)
    }
}

/// Decides which requests of web pages are admitted.
#[derive(Debug, Clone, Default)]
pub(crate) struct BrowserGuard {
    pub(crate) hosts: AllowedHosts,
    pub(crate) cors_origins: CorsOrigins,
}

impl BrowserGuard {
    /// Admits a request to its handler, or answers it. This does not wait for the body, as some requests that
    /// write have none.
    #[expect(clippy::result_large_err, reason = "nearly all requests are let through")]
    pub(crate) fn admit<B: Body>(&self, route: &Route, request: &Request<B>) -> Result<(), Response> {
        let admitted = match route.audience {
            Audience::Price if *request.method() == Method::OPTIONS => {
                return self.preflight(request.headers()).map_or(Ok(()), Err);
            }
            Audience::Price | Audience::Probe => return Ok(()),
            Audience::Page => self.host(request).map(drop),
            Audience::Administrative => self.host(request).and_then(|host| {
                check_site(request.headers(), &host)?;
                check_media_type(route, request)
            }),
        };
        admitted.map_err(IntoResponse::into_response)
    }

    /// The host of the request, if it is a name of this service. This check prevents DNS rebinding: if a
    /// foreign name resolves to this service, the browser considers the pages of that name same-origin.
    fn host<B>(&self, request: &Request<B>) -> Result<Authority, ApiError> {
        let mut named = request.headers().get_all(header::HOST).iter();
        let written = match (request.uri().authority(), named.next(), named.next()) {
            // The authority of the request target: `:authority` in HTTP/2, or the absolute form that proxies
            // receive.
            (Some(authority), _, None) => authority.as_str(),
            (None, Some(host), None) => host.to_str().unwrap_or_default(),
            _ => "",
        };
        let host = parse_host(written).filter(|host| is_loopback(host.host()) || self.is_listed(host));
        host.ok_or_else(|| ApiError::MisdirectedRequest { host: shorten(written) })
    }

    fn is_listed(&self, host: &Authority) -> bool {
        self.hosts.0.iter().any(|listed| {
            let is_any_port = listed.port().is_none() || listed.port_u16() == host.port_u16();
            is_any_port && listed.host().eq_ignore_ascii_case(host.host())
        })
    }

    /// The origin of the page that requests a price, if it is listed.
    pub(crate) fn origin_of(&self, route: &Route, headers: &HeaderMap) -> Option<HeaderValue> {
        if route.audience != Audience::Price || self.cors_origins.0.is_empty() {
            return None;
        }
        headers.get(header::ORIGIN).filter(|origin| self.cors_origins.0.contains(origin)).cloned()
    }

    /// The answer to a preflight request for a price, if the page's origin is listed.
    fn preflight(&self, headers: &HeaderMap) -> Option<Response> {
        let asks = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let is_allowed =
            headers.get(header::ORIGIN).is_some_and(|origin| self.cors_origins.0.contains(origin));
        let allowed = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST")),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type")),
            (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE),
        ];
        (asks && is_allowed).then(|| (StatusCode::NO_CONTENT, allowed).into_response())
    }

    /// Adds the headers that restrict what pages may do with an answer; `origin` is
    /// [`origin_of`](Self::origin_of) the request.
    pub(crate) fn add_headers(&self, route: &Route, origin: Option<HeaderValue>, headers: &mut HeaderMap) {
        let policy = match route.audience {
            Audience::Price => {
                if !self.cors_origins.0.is_empty() {
                    headers.append(header::VARY, HeaderValue::from_static("Origin"));
                }
                if let Some(origin) = origin {
                    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                }
                return;
            }
            Audience::Probe => return,
            Audience::Page => PAGE_POLICY,
            Audience::Administrative => DATA_POLICY,
        };
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
        for (name, value) in PROTECTION {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}

/// Parses a name or an address with an optional port, and nothing else.
fn parse_host(written: &str) -> Option<Authority> {
    let host: Authority = written.parse().ok()?;
    let has_port = host.port().is_some() == written.rsplit(']').next().unwrap_or_default().contains(':');
    (!host.host().is_empty() && !written.contains('@') && has_port).then_some(host)
}

fn is_loopback(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let v6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || v6.and_then(|v6| v6.parse::<Ipv6Addr>().ok()).is_some_and(|address| address.is_loopback())
}

/// Refuses requests from pages of another origin, such as another port of the same host.
fn check_site(headers: &HeaderMap, host: &Authority) -> Result<(), ApiError> {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    let is_of_host = |origin: &HeaderValue| {
        let origin = origin.to_str().unwrap_or_default();
        origin.split_once("://").is_some_and(|(_, own)| own.eq_ignore_ascii_case(host.as_str()))
    };
    let is_own = match (sites.next(), sites.next()) {
        (Some(site), None) => site == "same-origin" || site == "none",
        (Some(_), Some(_)) => false,
        // Older browsers send no Sec-Fetch-Site, nor does any without TLS to an address that is not loopback.
        (None, _) => headers.get_all(header::ORIGIN).iter().all(is_of_host),
    };
    if is_own { Ok(()) } else { Err(ApiError::CrossSiteRequest) }
}

/// Refuses a body of a media type that the handler does not read: a page may send some without a preflight
/// request.
fn check_media_type<B: Body>(route: &Route, request: &Request<B>) -> Result<(), ApiError> {
    let Some(taken) = route.media_types_of(request.method()) else { return Ok(()) };
    if request.body().is_end_stream() {
        return Ok(());
    }
    let written = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = written.and_then(|written| written.split(';').next()).unwrap_or_default().trim();
    if taken.iter().any(|media_type| media_type.eq_ignore_ascii_case(essence)) {
        return Ok(());
    }
    Err(ApiError::UnsupportedMediaType { allowed: taken.join(" or ") })
}

#[cfg(test)]
mod tests;
