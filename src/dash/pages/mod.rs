//! The pages: what stands around each of them, and how one says that it cannot show what it should.

pub mod ask;
pub mod audit;
mod buttons;
mod cards;
mod charts;
pub mod dead;
pub mod help;
pub mod job;
pub mod jobs;
pub mod lanes;
pub mod limits;
pub mod operations;
pub mod overview;
pub mod parts;
mod search;
pub mod settings;
pub mod tenant;
mod timeline;
pub mod trends;
pub mod workers;

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::access::{Access, User};
use super::acts::Refused;
use super::forms::Flash;
use super::live::Snapshot;
use super::place::{self, link};
use super::{Dash, Unreadable, assets, mask};

/// Pages of the navigation: name, path, and the key that leads there after `g` (empty = none).
const NAVIGATION: [(&str, &str, &str); 9] = [
    ("Overview", "/", "o"),
    ("Lanes", "/lanes", "l"),
    ("Jobs", "/jobs", "j"),
    ("Limits", "/limits", "r"),
    ("Dead letters", "/dead", "d"),
    ("Operations", "/ops", "p"),
    ("Workers", "/workers", "w"),
    ("Audit", "/audit", "a"),
    ("Settings", "/settings", "s"),
];

/// What stands around a page.
struct Frame<'a> {
    /// Its name.
    title: &'a str,
    /// Where in the navigation it belongs.
    here: &'a str,
    /// Who looks.
    user: &'a User,
    /// What was seen last.
    seen: Option<&'a Snapshot>,
    /// The query of its stream.
    events: String,
}

impl Frame<'_> {
    fn new<'a>(title: &'a str, here: &'a str, user: &'a User, seen: Option<&'a Snapshot>, view: &str) -> Frame<'a> {
        Frame { title, here, user, seen, events: format!("view={view}") }
    }

    /// The page.
    fn page(&self, dash: &Dash, body: &Markup) -> Response {
        let may_leave = matches!(dash.access, Access::Token(_));
        let markup = html! {
            (DOCTYPE)
            html lang="en" {
                (head(self.title))
                body data-events=(link(format!("/events?{}", self.events))) {
                    a.skip href="#main" { "Skip to the content" }
                    header.top {
                        a.brand href=(link("/")) { "lanes" }
                        (environment())
                        nav aria-label="Main" {
                            ul {
                                @for (name, path, key) in NAVIGATION {
                                    li { a href=(link(path)) data-key=[(!key.is_empty()).then_some(key)] aria-current=[(path == self.here).then_some("page")] { (name) } }
                                }
                            }
                        }
                        div.who {
                            button #pause type="button" hidden aria-pressed="false" title="Pause updates (p)" { "Pause updates" }
                            button #theme type="button" hidden title="Theme (t)" { "Theme" }
                            button #keys type="button" hidden title="Keys (?)" aria-label="Keys" { "?" }
                            @if !self.user.name.is_empty() { span { (self.user.name) " " } }
                            span.role { (self.user.role.as_str()) }
                            @if may_leave {
                                form method="post" action=(link("/logout")) { button { "Leave" } }
                            }
                        }
                    }
                    (health(self.seen))
                    main #main tabindex="-1" { (body) }
                    footer {
                        span { "lanes " (env!("CARGO_PKG_VERSION")) " · " a href=(link("/help")) { "Keys and filters" } }
                        noscript { span { " · This page does not update by itself without JavaScript: reload it." } }
                    }
                    (help::dialog())
                }
            }
        };
        Html(markup.into_string()).into_response()
    }
}

/// The line that every page has: whether a person is needed, and how old that is.
pub(super) fn health(seen: Option<&Snapshot>) -> Markup {
    let found = seen.map(|seen| &seen.picture.incidents[..]).unwrap_or_default();
    html! {
        section #health.health aria-label="Health" {
            @match (seen, found.first()) {
                (None, _) => p.stale role="status" { span.mark aria-hidden="true" { "?" } " Nothing was seen yet: store and broker do not answer." },
                (Some(_), None) => p.good role="status" { span.mark aria-hidden="true" { "✓" } " Healthy" },
                (Some(_), Some(first)) => p class=(buttons::look(first.severity).0) role="status" {
                    span.mark aria-hidden="true" { (buttons::look(first.severity).1) }
                    " " strong { (found.len()) @if found.len() == 1 { " incident" } @else { " incidents" } }
                    " " span { (mask::text(&first.message)) }
                },
            }
            @if let Some(seen) = seen {
                // the script counts on from here, by its own clock
                p.age { "as of " (parts::moment(seen.picture.now)) span #age { } }
            }
        }
    }
}

/// What the installation is called, for those who have several.
fn environment() -> Markup {
    let name = place::environment();
    html! { @if !name.is_empty() { span.environment { (name) } } }
}

fn head(title: &str) -> Markup {
    let environment = place::environment();
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) " · lanes" @if !environment.is_empty() { " · " (environment) } }
            link rel="icon" href=(assets::ICON.url()) type="image/svg+xml";
            link rel="stylesheet" href=(assets::STYLE.url());
            script src=(assets::THEME.url()) { }
            script src=(assets::SCRIPT.url()) defer { }
        }
    }
}

/// A page without navigation.
pub(super) fn bare(title: &str, body: &Markup) -> Response {
    let markup = html! {
        (DOCTYPE)
        html lang="en" { (head(title)) body { main #main.bare { p.brand { "lanes" (environment()) } (body) } } }
    };
    Html(markup.into_string()).into_response()
}

/// A page that says what is wrong.
pub(super) fn error(status: StatusCode, text: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    (status, bare(title, &html! { h1 { (title) } p { (text) } p { a href=(link("/")) { "To the overview" } } }))
        .into_response()
}

/// A page that says why something was not done, and what to do.
pub(super) fn refused(refused: &Refused) -> Response {
    let title = refused.status.canonical_reason().unwrap_or("Error");
    let body = html! {
        h1 { (title) }
        p { (refused.why) }
        p { (refused.help) }
        p { a href=(link("/")) { "To the overview" } }
    };
    (refused.status, bare(title, &body)).into_response()
}

/// Says what was done just before.
fn done(flash: &Flash) -> Markup {
    html! { @if let Some(sentence) = flash.sentence() { p.done role="status" { span.mark aria-hidden="true" { "✓" } " " (sentence) } } }
}

impl IntoResponse for Unreadable {
    fn into_response(self) -> Response {
        error(StatusCode::SERVICE_UNAVAILABLE, &self.0)
    }
}

/// What is live on a page: everything in it is replaced when something new is seen.
fn live(body: &Markup) -> Markup {
    html! { div #live { (body) } }
}

/// What of a page is drawn from the history: replaced only when it has changed.
fn charts(body: &Markup) -> Markup {
    html! { div #charts { (body) } }
}

/// Said in place of what is live while nothing was seen.
fn unseen() -> Markup {
    html! { p.empty { "Store and broker did not answer in time. This page fills itself as soon as they do." } }
}
