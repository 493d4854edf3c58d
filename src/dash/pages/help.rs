//! Keys and filters: as a page, and as the dialog that `?` opens on every page.

use axum::Extension;
use axum::extract::State as Extract;
use axum::response::Response;
use maud::{Markup, html};

use super::{Frame, NAVIGATION};
use crate::dash::Shared;
use crate::dash::access::User;

/// Keys beside those that lead to pages.
const KEYS: [(&[&str], &str); 7] = [
    (&["/"], "Filter jobs, or what this page shows"),
    (&["j"], "Next row"),
    (&["k"], "Row before"),
    (&["Enter"], "Open the row"),
    (&["p"], "Pause updates of this page, or go on"),
    (&["t"], "Theme: as the system, dark, light"),
    (&["?"], "This help"),
];

/// `GET /help`
pub(in crate::dash) async fn show(Extract(dash): Extract<Shared>, Extension(user): Extension<User>) -> Response {
    let seen = dash.live.fresh().await;
    let body = html! { h1 { "Help" } (text()) };
    Frame::new("Help", "/help", &user, seen.as_deref(), "health").page(&dash, &body)
}

/// What there is to know.
pub(super) fn text() -> Markup {
    let pages = NAVIGATION.iter().filter(|(_, _, key)| !key.is_empty());
    html! {
        h2 { "Keys" }
        dl.facts.keys {
            @for (name, _, key) in pages { dt { kbd { "g" } " " kbd { (key) } } dd { (name) } }
            @for (keys, what) in KEYS { dt { @for key in keys { kbd { (key) } } } dd { (what) } }
        }
        p.quiet { "No key changes anything but this page." }
        h2 { "Filters" }
        p { code { "state:waiting tenant:acme endpoint:crm reason:rate_limited" } " shows what fits all of it. A word alone is an id. "
            "Values with spaces stand in quotes: " code { "tenant:\"acme corp\"" } ". The address of the page is the filter: keep it, send it." }
        h2 { "Charts" }
        p { "Times are UTC. Rest the pointer on a chart for its numbers, or open “Numbers” below it." }
    }
}

/// The same as a dialog, which a script opens.
pub(super) fn dialog() -> Markup {
    html! {
        dialog #help aria-label="Help" {
            (text())
            form method="dialog" { button { "Close" } }
        }
    }
}
