//! The first page: what on-call has to see within five seconds.

use std::time::Duration;

use axum::Extension;
use axum::extract::{Query, State as Extract};
use axum::response::Response;
use maud::{Markup, html};

use super::parts::{badge, bar, empty, endpoint, lane, next, number, since, table, tenant, took};
use super::{Frame, buttons, charts, done, live, trends, unseen};
use crate::clock::Timestamp;
use crate::dash::access::{Role, User};
use crate::dash::forms::Flash;
use crate::dash::live::Snapshot;
use crate::dash::place::link;
use crate::dash::{Shared, mask};
use crate::governor::view::{AccountState, Held};
use crate::job::LaneName;
use crate::job::control::Target;
use crate::job::verdict::WaitReason;
use crate::observe::words::{count, counted, duration};
use crate::observe::{Lane, Picture};
use crate::store::State;

/// Most rows of a table here; the pages behind them show all.
const ROWS_MAX: usize = 10;

/// `GET /`
pub(in crate::dash) async fn show(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Query(flash): Query<Flash>,
) -> Response {
    let seen = dash.live.fresh().await;
    let shown = seen.as_deref().map_or_else(unseen, |seen| fragment(seen, user.role));
    let body = html! {
        h1.quiet-title { "Overview" }
        (done(&flash))
        (live(&shown))
        @if let Some(seen) = seen.as_deref() { (charts(&trends::overview(seen))) }
    };
    Frame::new("Overview", "/", &user, seen.as_deref(), "overview").page(&dash, &body)
}

/// What of it is live.
pub(in crate::dash) fn fragment(seen: &Snapshot, role: Role) -> Markup {
    let picture = &seen.picture;
    html! {
        (super::cards::show(picture))
        section aria-labelledby="incidents" {
            h2 #incidents { "Incidents" }
            (buttons::incidents(&picture.incidents, role))
        }
        section aria-labelledby="lanes" {
            h2 #lanes { "Lanes" }
            (lanes(picture, role))
        }
        section aria-labelledby="held" {
            h2 #held { "Waiting for a turn: why, and until when" }
            (held(picture.held.iter().take(ROWS_MAX), picture.now))
            @if picture.held.len() > ROWS_MAX { p { a href=(link("/limits")) { "All that hold jobs back" } } }
        }
        div.columns {
            section aria-labelledby="budgets" {
                h2 #budgets { "Budgets, least left first" }
                (budgets(picture))
            }
            section aria-labelledby="workers" {
                h2 #workers { "Workers" }
                (workers(picture))
            }
        }
    }
}

/// Whether a word says that jobs wait for their turn.
fn is_held(reason: &str) -> bool {
    let held = [WaitReason::Budget, WaitReason::Cooldown, WaitReason::Circuit, WaitReason::Concurrency];
    held.iter().any(|held| held.as_str() == reason)
}

fn waiting_for(lane: &Lane, reason: impl Fn(&str) -> bool) -> u64 {
    let waiting = lane.counts.iter().filter(|count| count.state == State::Waiting && reason(&count.reason));
    waiting.map(|count| count.jobs).sum()
}

/// One row for each lane.
pub(super) fn lanes(picture: &Picture, role: Role) -> Markup {
    let heads = [
        "Lane",
        "State",
        ">Ready",
        ">In hand",
        ">Held",
        ">Retrying",
        ">Due",
        ">Dead",
        "Oldest",
        ">Wait p95",
        "Ended in 5 min",
        ">Workers",
        "Pause",
    ];
    let row = |(name, found): &(LaneName, Lane)| {
        let stored = |value: u64| number(picture.store.is_ok().then_some(value));
        let ready = picture.broker.is_ok().then_some(found.ready);
        html! {
            td { (lane(name)) }
            td { (lane_state(found, picture)) }
            td.number { (number(ready)) }
            td.number { @if picture.broker.is_ok() && found.unacked.is_none() { span.quiet { "–" } } @else { (number(found.unacked)) } }
            td.number { (stored(waiting_for(found, is_held))) }
            td.number { (stored(waiting_for(found, |reason| !is_held(reason)))) }
            td.number { (stored(found.jobs(State::Queued))) }
            td.number { (stored(found.dead)) }
            td { @match found.oldest() { Some(at) => (since(at, picture.now)), None => span.quiet { "–" } } }
            td.number { @match picture.past.wait(name, 0.95) { Some(wait) => (took(wait)), None => span.quiet { "–" } } }
            td { (trends::five_minutes(picture, name)) }
            td.number { (stored(found.workers)) }
            td { (buttons::pausing(picture, &Target::Lane(name.clone()), role)) }
        }
    };
    let rows: Vec<Markup> = picture.lanes.iter().map(row).collect();
    if rows.is_empty() { empty("No lane is configured.") } else { table("Lanes", &heads, &rows) }
}

/// A lane's state in a word.
pub(super) fn lane_state(lane: &Lane, picture: &Picture) -> Markup {
    match lane {
        _ if picture.store.is_err() => badge("off", "?", "not known"),
        Lane { configured: false, .. } => badge("bad", "!", "not configured"),
        Lane { workers: 0, .. } if lane.work() > 0 => badge("bad", "!", "no worker"),
        Lane { workers: 0, .. } => badge("off", "–", "no worker, no work"),
        _ if lane.work() > 0 || lane.unacked.is_some_and(|held| held > 0) => badge("busy", "▶", "working"),
        _ => badge("good", "✓", "idle"),
    }
}

/// Who waits for a turn, why and until when.
pub(super) fn held<'a>(held: impl Iterator<Item = &'a Held>, now: Timestamp) -> Markup {
    let heads = ["Lane", "Endpoint", "Tenant", ">Jobs", "Reason", "Why", "Next", "Last"];
    let row = |held: &Held| {
        let next_hold = held.next.as_ref();
        html! {
            td { (lane(&held.of.lane)) }
            td { (endpoint(&held.of.endpoint)) }
            td { (tenant(&held.of.tenant)) }
            td.number { (count(held.of.jobs)) }
            td { @match next_hold { Some(found) => (badge("wait", "◷", found.reason.as_str())), None => (badge("busy", "↑", "due")) } }
            td.why { @if let Some(found) = next_hold { (mask::text(&found.why)) } @else { "about to go" } }
            td { (next(next_hold.and_then(|found| found.until), now)) }
            td { (next(held.last_at, now)) }
        }
    };
    let rows: Vec<Markup> = held.map(row).collect();
    if rows.is_empty() {
        return empty("No job is held back: every budget has room, and no endpoint is blocked.");
    }
    table("Jobs that wait for a turn", &heads, &rows)
}

fn budgets(picture: &Picture) -> Markup {
    let mut known: Vec<&AccountState> = picture.accounts.iter().filter(|account| account.left.is_some()).collect();
    known.sort_by(|a, b| a.share_left().total_cmp(&b.share_left()));
    let row = |account: &&AccountState| {
        html! {
            td { (endpoint(&account.endpoint)) }
            td { @match &account.tenant { Some(of) => (tenant(of)), None => span.quiet { "all" } } }
            td { (left(account)) }
            td { (next(account.left.and_then(|(_, reset)| reset), picture.now)) }
        }
    };
    let rows: Vec<Markup> = known.iter().take(ROWS_MAX).map(row).collect();
    if rows.is_empty() {
        return empty("No answer has told yet what is left. Rate headers of the APIs fill this.");
    }
    table("Budgets", &["Endpoint", "Tenant", "Left", "More"], &rows)
}

/// What is left, as the last answer told.
pub(super) fn left(account: &AccountState) -> Markup {
    let label = format!("Calls left of {}", account.endpoint);
    match (account.left, account.most()) {
        (Some((left, _)), Some(most)) => bar(&label, left, most.max(left).max(1.0)),
        (Some((left, _)), None) => html! { (format!("{left:.0}")) },
        (None, _) => html! { span.quiet { "–" } },
    }
}

fn workers(picture: &Picture) -> Markup {
    if picture.workers.is_empty() {
        return empty("No worker is registered: start one with `lanes worker`.");
    }
    let silent = |at: Timestamp| Duration::from_secs(picture.now.since(at).as_secs());
    html! {
        ul.workers {
            @for (worker, alive) in picture.workers.iter().take(ROWS_MAX * 4) {
                li {
                    @if *alive { (badge("good", "✓", &worker.name)) }
                    @else { (badge("bad", "!", &format!("{} silent for {}", worker.name, duration(silent(worker.heartbeat_at))))) }
                }
            }
        }
        p { a href=(link("/workers")) { (counted(picture.workers.len() as u64, "worker")) } }
    }
}
