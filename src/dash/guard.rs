//! What every request passes: from a page of our own, by somebody who may; and what every answer says to browsers.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::access::{Role, User};
use super::acts::Refused;
use super::{Dash, api, pages};

/// Nothing but what this server sends, no script and no style in a page, in nobody's frame.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                          form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// One route's guard: the least role that it takes; `None` = anybody.
pub(super) async fn admit(
    State((dash, least)): State<(Arc<Dash>, Option<Role>)>,
    mut request: Request,
    next: Next,
) -> Response {
    let asks = Asks::of(&request);
    if !is_safe(request.method()) && !is_from_here(request.headers()) {
        let why = "This request comes from another site's page.";
        return asks.refuse(StatusCode::FORBIDDEN, why, "Send it from a page of this server, or from no browser.");
    }
    let Some(least) = least else { return next.run(request).await };
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    let Some(user) = dash.access.user(request.headers(), peer).await else { return stranger(&dash, asks) };
    let role = if dash.read_only { Role::Viewer } else { user.role };
    if role < least {
        let why = format!("This takes the role {}; you are {}.", least.as_str(), role.as_str());
        let help = if dash.read_only {
            "This dashboard only shows: act at that of a worker, or with the command line."
        } else {
            "Roles are given in the configuration, in [http.auth]."
        };
        return asks.refuse(StatusCode::FORBIDDEN, &why, help);
    }
    request.extensions_mut().insert(User { role, ..user });
    next.run(request).await
}

/// Who asks: somebody at a page, or a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    Person,
    Program,
}

impl Asks {
    fn of(request: &Request) -> Self {
        if request.uri().path().starts_with(api::PREFIX) { Self::Program } else { Self::Person }
    }

    fn refuse(self, status: StatusCode, why: &str, help: &str) -> Response {
        let refused = Refused::new(status, why, help);
        match self {
            Self::Person => pages::refused(&refused),
            Self::Program => api::problem(&refused),
        }
    }
}

/// Asks who it is.
fn stranger(dash: &Dash, asks: Asks) -> Response {
    let mut response = match asks {
        Asks::Person => super::login::form(&dash.access, StatusCode::UNAUTHORIZED, None),
        Asks::Program => {
            let help = "Send who you are, as [http.auth] asks for it: a bearer token, or a name and a password.";
            asks.refuse(StatusCode::UNAUTHORIZED, "Nobody is known by what was sent.", help)
        }
    };
    if let Some(challenge) = dash.access.challenge() {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether the browser says that a page of ours sent it. What is no browser says nothing, and brings no cookies.
fn is_from_here(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(site) = text("sec-fetch-site") {
        return matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text("origin") else { return true };
    let origin = origin.split_once("://").and_then(|(_, rest)| rest.parse::<Authority>().ok());
    let host = text("host").and_then(|host| host.parse::<Authority>().ok());
    origin.is_some() && origin == host
}

/// Headers that every answer of the dashboard has.
pub(super) async fn add_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// There is no such page.
pub(super) async fn not_found(request: Request) -> Response {
    Asks::of(&request).refuse(StatusCode::NOT_FOUND, "There is no such page.", "The README lists what there is.")
}

/// It is asked for in another way.
pub(super) async fn not_allowed(request: Request) -> Response {
    let help = "What shows something is a GET, what changes something a POST.";
    Asks::of(&request).refuse(StatusCode::METHOD_NOT_ALLOWED, "That is not how this is asked for.", help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_our_own_may_ask_for_a_change() {
        let asked = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (axum::http::HeaderName::from_static(name), HeaderValue::from_static(value)));
            is_from_here(&pairs.collect())
        };
        assert!(asked(&[("host", "localhost:9464")]), "curl");
        assert!(asked(&[("sec-fetch-site", "same-origin")]));
        assert!(asked(&[("sec-fetch-site", "none")]));
        assert!(!asked(&[("sec-fetch-site", "cross-site"), ("origin", "http://h"), ("host", "h")]));
        assert!(!asked(&[("sec-fetch-site", "same-site")]));
        assert!(asked(&[("host", "localhost:9464"), ("origin", "http://localhost:9464")]));
        assert!(!asked(&[("host", "localhost:9464"), ("origin", "http://localhost:9465")]));
        assert!(!asked(&[("host", "localhost:9464"), ("origin", "http://evil.example")]));
        assert!(!asked(&[("host", "localhost:9464"), ("origin", "null")]));
    }
}
