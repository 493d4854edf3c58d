//! All lanes, and one of them.

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::{Path, Query, State as Extract};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::charts::Unit;
use super::overview;
use super::parts::{empty, next, number, query, since, table, tenant};
use super::{Frame, buttons, charts, done, error, live, trends, unseen};
use crate::clock::Timestamp;
use crate::dash::Shared;
use crate::dash::access::{Role, User};
use crate::dash::forms::Flash;
use crate::dash::live::Snapshot;
use crate::dash::place::link;
use crate::job::control::Target;
use crate::job::{LaneName, Tenant};
use crate::observe::{Lane, Picture};
use crate::policy::health::share;
use crate::store::StateCount;

/// Most tenants of a lane's backlog.
const BACKLOG_MAX: usize = 10;

/// `GET /lanes`
pub(in crate::dash) async fn list(Extract(dash): Extract<Shared>, Extension(user): Extension<User>) -> Response {
    let seen = dash.live.fresh().await;
    let shown = seen.as_deref().map_or_else(unseen, |seen| all(seen, user.role));
    let body = html! { h1 { "Lanes" } (live(&shown)) };
    Frame::new("Lanes", "/lanes", &user, seen.as_deref(), "lanes").page(&dash, &body)
}

/// What of the list is live.
pub(in crate::dash) fn all(seen: &Snapshot, role: Role) -> Markup {
    overview::lanes(&seen.picture, role)
}

/// `GET /lanes/{lane}`
pub(in crate::dash) async fn show(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(name): Path<String>,
    Query(flash): Query<Flash>,
) -> Response {
    let seen = dash.live.fresh().await;
    let known = |name: &LaneName| {
        let found = seen.as_deref().is_some_and(|seen| seen.picture.lanes.iter().any(|(lane, _)| lane == name));
        found || dash.source.scope().lanes.contains(name)
    };
    let Some(name) = LaneName::new(&name).ok().filter(known) else {
        return error(StatusCode::NOT_FOUND, "No lane of that name is configured, and no job is in one.");
    };
    let title = format!("Lane {name}");
    let shown = seen.as_deref().map_or_else(unseen, |seen| one(seen, &name, user.role));
    let body = html! {
        h1 { "Lane " (name) }
        (done(&flash))
        p { a href=(link(format!("/jobs?{}", query(&[("lane", name.as_str())])))) { "Its jobs" } " · "
            a href=(link(format!("/dead?{}", query(&[("lane", name.as_str())])))) { "Its dead letters" } }
        (live(&shown))
        @if let Some(seen) = seen.as_deref() { (charts(&trends::of_lane(seen, &name))) }
    };
    let mut frame = Frame::new(&title, "/lanes", &user, seen.as_deref(), "lane");
    frame.events = query(&[("view", "lane"), ("lane", name.as_str())]);
    frame.page(&dash, &body)
}

/// What of one lane is live.
pub(in crate::dash) fn one(seen: &Snapshot, name: &LaneName, role: Role) -> Markup {
    let picture = &seen.picture;
    let Some((_, lane)) = picture.lanes.iter().find(|(lane, _)| lane == name) else {
        return empty("Nothing is known of this lane.");
    };
    let workers: Vec<_> = picture
        .workers
        .iter()
        .filter(|(worker, _)| worker.lanes.split(',').any(|lane| lane.trim() == name.as_str()))
        .collect();
    html! {
        p { (overview::lane_state(lane, picture)) " " (buttons::pausing(picture, &Target::Lane(name.clone()), role)) }
        dl.facts {
            dt { "Calls at a time" } dd { (concurrency(lane, name, picture.now, role)) }
            dt { "Ready in its queue" } dd { (number(picture.broker.is_ok().then_some(lane.ready))) }
            dt { "Released, on their way" } dd { (number(picture.broker.is_ok().then_some(lane.due))) }
            dt { "In workers' hands" } dd { @match lane.unacked { Some(held) => (number(Some(held))), None => "not told by this broker" } }
            dt { "Dead letters" } dd { (number(picture.store.is_ok().then_some(lane.dead))) }
            dt { "Oldest that waits" } dd { @match lane.oldest() { Some(at) => (since(at, picture.now)), None => "nothing waits" } }
        }
        section aria-labelledby="reasons" {
            h2 #reasons { "Why its jobs wait" }
            (reasons(lane, picture.now, name))
        }
        @if let Some(backlog) = backlog(picture, name) {
            section aria-labelledby="backlog" {
                h2 #backlog { "Tenants that wait most" }
                (backlog)
            }
        }
        section aria-labelledby="held" {
            h2 #held { "Whose turn it is" }
            (overview::held(picture.held.iter().filter(|held| held.of.lane == *name), picture.now))
        }
        section aria-labelledby="workers" {
            h2 #workers { "Its workers" }
            @if workers.is_empty() { (empty("No registered worker consumes this lane.")) }
            @else { (super::workers::list(workers.into_iter(), picture.now)) }
        }
    }
}

/// How many calls it makes at a time in each worker, and who has said so.
fn concurrency(lane: &Lane, name: &LaneName, now: Timestamp, role: Role) -> Markup {
    let at = format!("/lanes/{name}/concurrency");
    html! {
        @match lane.concurrency_now() { Some(calls) => (calls), None => "?" } " in each worker"
        @if let Some(said) = &lane.said {
            span.quiet {
                @if let Some(configured) = lane.concurrency { ", configured " (configured) }
                @match said.until { Some(until) => { ", ends " (next(Some(until), now)) }, None => ", until it is reset" }
                ", by " (said.author) @if !said.note.is_empty() { ": " (said.note) }
            }
        }
        @if role >= Role::Admin {
            " " (buttons::link(&at, "Change", ""))
            @if lane.said.is_some() { " " (buttons::button(&format!("{at}/reset"), "Reset", "", &[])) }
        }
    }
}

/// Tenants whose jobs wait for a turn, most jobs first.
fn backlog(picture: &Picture, name: &LaneName) -> Option<Markup> {
    let mut jobs: BTreeMap<&Tenant, u64> = BTreeMap::new();
    for held in picture.held.iter().filter(|held| held.of.lane == *name) {
        *jobs.entry(&held.of.tenant).or_default() += held.of.jobs;
    }
    let all: u64 = jobs.values().sum();
    let mut most: Vec<_> = jobs.into_iter().collect();
    most.sort_by_key(|(_, jobs)| std::cmp::Reverse(*jobs));
    let row = |(of, jobs): &(&Tenant, u64)| {
        let part = share(*jobs, all);
        html! {
            td { (tenant(of)) }
            td.number { (number(Some(*jobs))) }
            td { meter aria-label={ "Share of the waiting jobs of " (of) } min="0" max="1" value=(format!("{part:.3}")) { } " " (Unit::Share.shown(part)) }
        }
    };
    let rows: Vec<Markup> = most.iter().take(BACKLOG_MAX).map(row).collect();
    (!rows.is_empty()).then(|| table("Tenants by jobs that wait for a turn", &["Tenant", ">Jobs", "Share"], &rows))
}

fn reasons(lane: &Lane, now: Timestamp, name: &LaneName) -> Markup {
    let row = |found: &StateCount| {
        let jobs = query(&[("lane", name.as_str()), ("state", found.state.as_str()), ("reason", &found.reason)]);
        html! {
            td { (super::parts::state(found.state)) }
            td { @if found.reason.is_empty() { span.quiet { "–" } } @else { (found.reason) } }
            td.number { a href=(link(format!("/jobs?{jobs}"))) { (number(Some(found.jobs))) } }
            td { (next(found.next_resume_at, now)) }
            td { @match found.oldest_published_at { Some(at) => (since(at, now)), None => "–" } }
        }
    };
    let rows: Vec<Markup> = lane.counts.iter().map(row).collect();
    if rows.is_empty() {
        return empty("No job of this lane waits: those in its queue are taken as workers have room.");
    }
    table("Waiting jobs by reason", &["State", "Reason", ">Jobs", "Next", "Oldest"], &rows)
}
