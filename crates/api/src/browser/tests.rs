//! Tests of the browser guard.

use axum::body::Body;

use super::*;
use crate::pipeline::REQUEST_TIMEOUT;

fn route(audience: Audience) -> Route {
    Route {
        name: "/api/v1/test",
        audience,
        needs: crate::access::Needs::Nothing,
        time_limit: Some(REQUEST_TIMEOUT),
        answered: None,
        media_types: vec![
            (Method::POST, vec!["application/json".to_owned(), "text/csv".to_owned()]),
            (Method::DELETE, Vec::new()),
        ],
    }
}

fn guard() -> BrowserGuard {
    BrowserGuard {
        hosts: "pricing.example, 10.0.0.5:8000,[fd00::1]".parse().unwrap(),
        cors_origins: "https://shop.example".parse().unwrap(),
    }
}

/// The status with which the guard answers a request; `None` if it admits the request.
fn answer(audience: Audience, method: &Method, headers: &[(&str, &str)], body: &'static str) -> Option<u16> {
    let mut request = Request::builder().method(method).uri("/api/v1/test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body)).unwrap();
    guard().admit(&route(audience), &request).err().map(|response| response.status().as_u16())
}

#[test]
fn only_hosts_of_the_service_are_admitted() {
    for (host, expected) in [
        ("localhost", None),
        ("LocalHost:8000", None),
        ("shop.localhost:8000", None),
        ("127.0.0.1:8000", None),
        ("127.9.9.9", None),
        ("[::1]:8000", None),
        ("pricing.example", None),
        ("PRICING.example:8443", None),
        ("10.0.0.5:8000", None),
        ("[fd00::1]:8000", None),
        ("10.0.0.5", Some(421)),
        ("10.0.0.5:8001", Some(421)),
        ("evil.example", Some(421)),
        ("evil.pricing.example", Some(421)),
        ("localhost.evil.example", Some(421)),
        ("evillocalhost", Some(421)),
        ("127.0.0.1.evil.example:8000", Some(421)),
        ("128.0.0.1", Some(421)),
        ("0.0.0.0:8000", Some(421)),
        ("127.1", Some(421)),
        ("[::2]", Some(421)),
        ("::1", Some(421)),
        ("evil.example@127.0.0.1", Some(421)),
        ("127.0.0.1@evil.example", Some(421)),
        ("127.0.0.1, evil.example", Some(421)),
        ("127.0.0.1:x", Some(421)),
        ("", Some(421)),
    ] {
        for access in [Audience::Administrative, Audience::Page] {
            assert_eq!(answer(access, &Method::GET, &[("host", host)], ""), expected, "{host} {access:?}");
        }
        for access in [Audience::Price, Audience::Probe] {
            assert_eq!(answer(access, &Method::GET, &[("host", host)], ""), None, "{host} {access:?}");
        }
    }
    assert_eq!(answer(Audience::Administrative, &Method::GET, &[], ""), Some(421));
    let two = [("host", "127.0.0.1"), ("host", "127.0.0.1")];
    assert_eq!(answer(Audience::Administrative, &Method::GET, &two, ""), Some(421));
}

#[test]
fn the_authority_of_the_target_precedes_the_host_header() {
    for (address, expected) in
        [("http://evil.example/api/v1/test", Some(421)), ("http://127.0.0.1:8000/api/v1/test", None)]
    {
        let request =
            Request::builder().uri(address).header("host", "localhost").body(Body::empty()).unwrap();
        let admitted = guard().admit(&route(Audience::Administrative), &request);
        assert_eq!(admitted.err().map(|response| response.status().as_u16()), expected, "{address}");
    }
}

#[test]
fn administrative_routes_refuse_pages_of_other_origins() {
    let host = ("host", "127.0.0.1:8000");
    for (headers, expected) in [
        (&[][..], None),
        (&[("sec-fetch-site", "same-origin")], None),
        (&[("sec-fetch-site", "none")], None),
        // A same-origin form under the referrer policy `no-referrer`.
        (&[("sec-fetch-site", "same-origin"), ("origin", "null")], None),
        (&[("sec-fetch-site", "same-site")], Some(403)),
        (&[("sec-fetch-site", "cross-site")], Some(403)),
        (&[("sec-fetch-site", "Same-Origin")], Some(403)),
        (&[("sec-fetch-site", "")], Some(403)),
        (&[("sec-fetch-site", "none"), ("sec-fetch-site", "none")], Some(403)),
        (&[("sec-fetch-site", "cross-site"), ("origin", "http://127.0.0.1:8000")], Some(403)),
        (&[("origin", "http://127.0.0.1:8000")], None),
        (&[("origin", "HTTP://127.0.0.1:8000")], None),
        (&[("origin", "http://127.0.0.1:9000")], Some(403)),
        (&[("origin", "http://127.0.0.1")], Some(403)),
        (&[("origin", "http://localhost:8000")], Some(403)),
        (&[("origin", "https://evil.example")], Some(403)),
        (&[("origin", "null")], Some(403)),
        (&[("origin", "")], Some(403)),
        (&[("origin", "http://127.0.0.1:8000"), ("origin", "https://evil.example")], Some(403)),
    ] {
        let headers: Vec<_> = headers.iter().copied().chain([host]).collect();
        for method in [Method::GET, Method::POST, Method::DELETE, Method::OPTIONS, Method::PATCH] {
            let answered = answer(Audience::Administrative, &method, &headers, "");
            assert_eq!(answered, expected, "{method} {headers:?}");
            for access in [Audience::Price, Audience::Probe, Audience::Page] {
                assert_eq!(answer(access, &method, &headers, ""), None, "{method} {headers:?} {access:?}");
            }
        }
    }
}

#[test]
fn a_body_of_another_media_type_is_refused() {
    for (method, content_type, body, expected) in [
        (Method::POST, Some("application/json"), "{}", None),
        (Method::POST, Some("Application/JSON; charset=utf-8"), "{}", None),
        (Method::POST, Some("text/csv"), "a", None),
        (Method::POST, Some("text/plain"), "{}", Some(415)),
        (Method::POST, Some("application/x-www-form-urlencoded"), "a=b", Some(415)),
        (Method::POST, Some("multipart/form-data; boundary=x"), "a", Some(415)),
        (Method::POST, Some("text/plain; application/json"), "{}", Some(415)),
        (Method::POST, Some("application/jsonx"), "{}", Some(415)),
        (Method::POST, None, "{}", Some(415)),
        (Method::POST, None, "", None),
        (Method::POST, Some("text/plain"), "", None),
        (Method::DELETE, Some("application/json"), "{}", Some(415)),
        (Method::DELETE, None, "", None),
        // Admitted: the router answers that the route has no such method.
        (Method::PATCH, Some("text/plain"), "{}", None),
    ] {
        let mut headers = vec![("host", "localhost")];
        headers.extend(content_type.map(|content_type| ("content-type", content_type)));
        let answered = answer(Audience::Administrative, &method, &headers, body);
        assert_eq!(answered, expected, "{method} {content_type:?} {body}");
        assert_eq!(answer(Audience::Price, &method, &headers, body), None, "{method} {content_type:?}");
    }
}

#[test]
fn pages_of_listed_origins_may_request_prices() {
    let preflight = |origin| {
        vec![("origin", origin), ("access-control-request-method", "POST"), ("host", "anything.example")]
    };
    let listed = preflight("https://shop.example");
    assert_eq!(answer(Audience::Price, &Method::OPTIONS, &listed, ""), Some(204));
    assert_eq!(answer(Audience::Price, &Method::OPTIONS, &preflight("https://shop.example:8443"), ""), None);
    assert_eq!(answer(Audience::Price, &Method::OPTIONS, &preflight("null"), ""), None);
    assert_eq!(answer(Audience::Administrative, &Method::OPTIONS, &listed, ""), Some(421));
    for (audience, origin, expected) in [
        (Audience::Price, "https://shop.example", Some("https://shop.example")),
        (Audience::Price, "http://shop.example", None),
        (Audience::Administrative, "https://shop.example", None),
        (Audience::Page, "https://shop.example", None),
    ] {
        let (guard, route, mut headers) = (guard(), route(audience), HeaderMap::new());
        headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        let mut answered = HeaderMap::new();
        guard.add_headers(&route, guard.origin_of(&route, &headers), &mut answered);
        let allowed = answered.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.to_str().unwrap());
        assert_eq!(allowed, expected, "{audience:?} {origin}");
        assert_eq!(answered.contains_key(header::VARY), audience == Audience::Price);
    }
}

#[test]
fn without_listed_origins_there_are_no_cors_headers() {
    let guard = BrowserGuard::default();
    let mut headers = HeaderMap::new();
    guard.add_headers(&route(Audience::Price), None, &mut headers);
    assert!(headers.is_empty(), "{headers:?}");
}

#[test]
fn a_list_with_an_invalid_item_is_refused() {
    assert_eq!("".parse(), Ok(AllowedHosts::default()));
    assert_eq!("".parse(), Ok(CorsOrigins::default()));
    for hosts in [",", "*", "*.example", "a@b", "a/b", "a b", "http://a", "::1", "a:x", "a,"] {
        assert!(hosts.parse::<AllowedHosts>().is_err(), "{hosts}");
    }
    for origins in
        ["*", "null", "shop.example", "https://", "https://a/", "ftp://a", "https://A", "https://*.a"]
    {
        assert!(origins.parse::<CorsOrigins>().is_err(), "{origins}");
    }
    assert!("https://a, http://b:8080".parse::<CorsOrigins>().is_ok());
}
