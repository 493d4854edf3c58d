//! Limits: of every endpoint and tenant what is configured, learnt and left, the pace, and how many jobs it holds back.

use axum::Extension;
use axum::extract::{Query, State as Extract};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::overview::left;
use super::parts::{absolute, badge, empty, endpoint, next, number, query, table, tenant};
use super::{Frame, buttons, charts, done, live, trends, unseen};
use crate::dash::Shared;
use crate::dash::access::{Role, User};
use crate::dash::forms::Flash;
use crate::dash::live::Snapshot;
use crate::dash::place::link;
use crate::governor::view::{AccountState, LimitState, pace_text};
use crate::job::EndpointName;
use crate::job::control::Target;
use crate::observe::Picture;
use crate::observe::words::duration;

/// Most rows.
const ROWS_MAX: usize = 200;

const HEADS: [&str; 10] =
    ["Endpoint", "Tenant", "State", "Limits", "Learnt", ">Pace", "Left", "Resets", ">Held jobs", "Pause and limits"];

/// Which to show.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(in crate::dash) struct Wish {
    endpoint: String,
    tenant: String,
}

impl Wish {
    pub fn new(endpoint: &str, tenant: &str) -> Self {
        Self { endpoint: endpoint.trim().to_owned(), tenant: tenant.trim().to_owned() }
    }

    /// The endpoint that is asked for.
    pub fn endpoint(&self) -> Option<&str> {
        Some(self.endpoint.as_str()).filter(|name| !name.is_empty())
    }

    fn wants(&self, account: &AccountState) -> bool {
        (self.endpoint.is_empty() || account.endpoint.as_str() == self.endpoint)
            && (self.tenant.is_empty() || account.tenant.as_ref().is_some_and(|of| of.as_str() == self.tenant))
    }
}

/// `GET /limits`
pub(in crate::dash) async fn show(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Query(wish): Query<Wish>,
    Query(flash): Query<Flash>,
) -> Response {
    let wish = Wish::new(&wish.endpoint, &wish.tenant);
    let seen = dash.live.fresh().await;
    let mut endpoints: Vec<&str> = dash.source.scope().budgets.endpoints.keys().map(EndpointName::as_str).collect();
    endpoints.sort_unstable();
    let body = html! {
        h1 { "Limits" }
        (done(&flash))
        form.filter action=(link("/limits")) role="search" aria-label="Filter limits" {
            (super::parts::select("endpoint", "Endpoint", &wish.endpoint, endpoints.into_iter()))
            (super::parts::field("tenant", "Tenant", &wish.tenant))
            button { "Filter" }
            a href=(link("/limits")) { "Clear" }
        }
        (live(&seen.as_deref().map_or_else(unseen, |seen| fragment(seen, &wish, user.role))))
        @if let Some(seen) = seen.as_deref() { (charts(&trends::of_limits(seen, &wish))) }
    };
    let mut frame = Frame::new("Limits", "/limits", &user, seen.as_deref(), "limits");
    frame.events = query(&[("view", "limits"), ("endpoint", &wish.endpoint), ("tenant", &wish.tenant)]);
    frame.page(&dash, &body)
}

/// What of it is live.
pub(in crate::dash) fn fragment(seen: &Snapshot, wish: &Wish, role: Role) -> Markup {
    let picture = &seen.picture;
    let all: Vec<&AccountState> = picture.accounts.iter().collect();
    let mut wanted: Vec<&AccountState> = all.iter().copied().filter(|account| wish.wants(account)).collect();
    if wanted.is_empty() {
        let none = "No endpoint is configured, and nothing is known of any.";
        return empty(if all.is_empty() {
            none
        } else {
            "Nothing of that endpoint and tenant is known; clear the filter."
        });
    }
    // who holds jobs back comes first, then who has least left
    wanted.sort_by(|a, b| b.held.cmp(&a.held).then(a.share_left().total_cmp(&b.share_left())));
    let rows: Vec<Markup> = wanted.iter().take(ROWS_MAX).map(|account| row(account, picture, role)).collect();
    html! {
        (table("Limits", &HEADS, &rows))
        @if wanted.len() > ROWS_MAX { p.quiet { (wanted.len() - ROWS_MAX) " more: filter by endpoint or tenant." } }
    }
}

/// The table of one tenant's accounts.
pub(super) fn of<'a>(accounts: impl Iterator<Item = &'a AccountState>, picture: &Picture, role: Role) -> Markup {
    let rows: Vec<Markup> = accounts.map(|account| row(account, picture, role)).collect();
    if rows.is_empty() {
        return empty("It has no limits of its own, nothing was learnt of it, and none of its jobs is held back.");
    }
    table("Limits", &HEADS, &rows)
}

fn row(account: &AccountState, picture: &Picture, role: Role) -> Markup {
    let now = picture.now;
    let (kind, mark) = match account.state {
        "open" => ("good", "✓"),
        "slowed" | "probing" => ("wait", "◷"),
        _ => ("bad", "!"),
    };
    html! {
        td { (endpoint(&account.endpoint)) }
        td { @match &account.tenant { Some(of) => (tenant(of)), None => span.quiet { "all" } } }
        td.why {
            (badge(kind, mark, &account.state.replace('_', " ")))
            @if account.until.is_some() { " until " (next(account.until, now)) }
            @if !account.detail.is_empty() { br; span.quiet { (crate::dash::mask::text(&account.detail)) } }
        }
        td { (limits(account)) }
        td.why { @if account.learnt.is_empty() { span.quiet { "–" } } @else { (account.learnt.join("; ")) } }
        td.number { @match account.pace { Some(pace) => (pace_text(pace)), None => span.quiet { "free" } } }
        td { (left(account)) }
        td { (next(account.left.and_then(|(_, reset)| reset), now)) }
        td.number { (number(Some(account.held))) }
        td { (acts(account, picture, role)) }
    }
}

/// What somebody can do about an account.
fn acts(account: &AccountState, picture: &Picture, role: Role) -> Markup {
    let target = Target::of_parts(None, Some(account.endpoint.clone()), account.tenant.clone());
    html! {
        @if let Some(target) = target {
            @let (about, whose) = (target.to_string(), query(&buttons::fields(&target)));
            (buttons::pausing(picture, &target, role))
            @if role >= Role::Admin {
                " " (buttons::link(&format!("/limits/set?{whose}"), "Set", &format!("the limits of {about}")))
                " " (buttons::link(&format!("/limits/reset?{whose}"), "Reset", &format!("the limits of {about}")))
            }
        }
    }
}

fn limits(account: &AccountState) -> Markup {
    let text = |limit: &LimitState| {
        let scope = if limit.scope == "endpoint" { ", all tenants together" } else { "" };
        format!("{}/{}{scope}", limit.requests, duration(limit.per))
    };
    let shown: Vec<String> = account.limits.iter().map(text).collect();
    html! {
        @if shown.is_empty() { span.quiet { "none" } } @else { (shown.join("; ")) }
        @if let Some((author, at, until)) = &account.set_by {
            br;
            span.quiet {
                "set by " (author) " at " (absolute(*at))
                @match until { Some(until) => { ", until " (absolute(*until)) }, None => ", until it is taken back" }
            }
        }
    }
}
