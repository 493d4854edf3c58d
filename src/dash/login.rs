//! A token typed into a form becomes a cookie; leaving takes it back.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;

use super::access::{Access, SESSION, session_of};
use super::place::link;
use super::{Shared, pages};

/// The cookie lasts a working day.
const SESSION_SECONDS: u32 = 12 * 60 * 60;

/// The form, where a token is what is asked for; else what to do.
pub(super) fn form(access: &Access, status: StatusCode, problem: Option<&str>) -> Response {
    let body = match access {
        Access::Token(_) => html! {
            h1 { "Who are you?" }
            @if let Some(problem) = problem { p.problem role="alert" { (problem) } }
            form.login method="post" action=(link("/login")) {
                label for="token" { "Token" }
                input #token name="token" type="password" autocomplete="current-password" required;
                button { "Go on" }
            }
            p.quiet { "Tokens are named in the configuration, in " code { "[http.auth.users]" } "." }
        },
        Access::Basic(_) => html! { h1 { "Who are you?" } p { "This needs a name and a password." } },
        Access::Proxy(_) => html! { h1 { "Who are you?" } p { "The proxy in front of this server did not say." } },
        Access::Open => html! { h1 { "Welcome" } p { a href=(link("/")) { "Nobody is asked who they are here." } } },
    };
    (status, pages::bare("Who are you?", &body)).into_response()
}

/// `GET /login`
pub(super) async fn ask(State(dash): State<Shared>) -> Response {
    form(&dash.access, StatusCode::OK, None)
}

/// `POST /login`
pub(super) async fn enter(State(dash): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let Access::Token(tokens) = &dash.access else { return Redirect::to(&link("/")).into_response() };
    let token = url::form_urlencoded::parse(&body).find(|(key, _)| key == "token").map(|(_, value)| value);
    let token = token.unwrap_or_default();
    if tokens.owner(token.trim()).is_none() {
        return form(&dash.access, StatusCode::UNAUTHORIZED, Some("Nobody has that token."));
    }
    let cookie = cookie(&session_of(token.trim()), SESSION_SECONDS, &headers);
    ([(header::SET_COOKIE, cookie)], Redirect::to(&link("/"))).into_response()
}

/// `POST /logout`
pub(super) async fn leave(headers: HeaderMap) -> Response {
    ([(header::SET_COOKIE, cookie("", 0, &headers))], Redirect::to(&link("/login"))).into_response()
}

fn cookie(value: &str, seconds: u32, headers: &HeaderMap) -> String {
    // behind a proxy with TLS the browser must not send it without
    let secure = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    let path = link("/");
    let secure = if secure { "; Secure" } else { "" };
    format!("{SESSION}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
}
