//! What every request and answer passes: the Host check against DNS rebinding, and safe headers.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Refuses requests whose Host, or absolute target, is not a loopback name. Browsers always send one.
pub(super) async fn require_local_host(request: Request, next: Next) -> Response {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let all_local = hosts.all(|host| host.to_str().is_ok_and(is_local))
        && request.uri().authority().is_none_or(|authority| is_local_name(authority.host()));
    if all_local {
        return next.run(request).await;
    }
    let text = "This server listens on a loopback address and answers only to localhost, 127.0.0.1 and [::1].\n\
                Behind a proxy, let it send one of these as Host, or set http.listen to another address.\n";
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

fn is_local(host: &str) -> bool {
    host.parse::<Authority>().is_ok_and(|authority| is_local_name(authority.host()))
}

fn is_local_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let literal = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    match literal.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => host.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost")),
    }
}

/// Headers that keep browsers from guessing and caching.
pub(super) async fn add_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_local() {
        for host in
            ["localhost", "LOCALHOST:9464", "127.0.0.1", "127.1.2.3:80", "[::1]:9464", "app.localhost", "localhost."]
        {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:9464",
            "notlocalhost",
            "10.0.0.1",
            "[::2]",
            "0.0.0.0",
            "",
            "a b",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
