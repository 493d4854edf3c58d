//! The configuration that is in effect, where each value comes from, and what this program is. Secrets are masked.

use axum::Extension;
use axum::extract::State as Extract;
use axum::response::Response;
use maud::{Markup, html};

use super::Frame;
use super::parts::{empty, table};
use crate::dash::access::{Access, User};
use crate::dash::place::link;
use crate::dash::{Setting, Shared};

/// `GET /settings`
pub(in crate::dash) async fn show(Extract(dash): Extract<Shared>, Extension(user): Extension<User>) -> Response {
    let seen = dash.live.fresh().await;
    let settings = &dash.settings;
    let body = html! {
        h1 { "Settings" }
        p { "From " code { (settings.source) } ". They are read when a process starts; what people change since is in the "
            a href=(link("/audit")) { "log" } "." }
        @for warning in &settings.warnings { p.problem { (warning) } }
        section aria-labelledby="effective" {
            h2 #effective { "In effect" }
            (effective(&settings.rows))
        }
        section aria-labelledby="about" {
            h2 #about { "This program" }
            dl.facts {
                dt { "Version" } dd { "lanes " (env!("CARGO_PKG_VERSION")) }
                dt { "Build" } dd { (if cfg!(debug_assertions) { "debug" } else { "release" }) }
                dt { "Who is asked" } dd { (asked(&dash.access)) }
                dt { "You may" } dd { (user.role.as_str()) @if dash.read_only { ": this dashboard only shows" } }
                dt { "For programs" } dd { code { "/api/v1/status" } ", and as the README tells" }
            }
        }
        section aria-labelledby="keys" {
            h2 #keys { "Keyboard" }
            p { "Tab goes from link to link, Enter follows or presses; the first Tab of a page skips to its content. Tables scroll with the arrow keys once they have the focus." }
        }
    };
    Frame::new("Settings", "/settings", &user, seen.as_deref(), "health").page(&dash, &body)
}

fn effective(rows: &[Setting]) -> Markup {
    let row = |setting: &Setting| {
        html! { td { code { (setting.key) } } td.why { code { (setting.value) } } td.why { (setting.origin) } }
    };
    let rows: Vec<Markup> = rows.iter().map(row).collect();
    if rows.is_empty() {
        return empty("This program was given its settings by another one, not by a file.");
    }
    table("Settings", &["Setting", "Value", "From"], &rows)
}

fn asked(access: &Access) -> &'static str {
    match access {
        Access::Open => "nobody: whoever reaches this address may do everything",
        Access::Token(_) => "everybody, for a token",
        Access::Basic(_) => "everybody, for a name and a password",
        Access::Proxy(_) => "everybody, by the proxy in front",
    }
}
