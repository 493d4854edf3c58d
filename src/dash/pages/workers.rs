//! Workers: who is alive, since when, and what he consumes.

use axum::Extension;
use axum::extract::State as Extract;
use axum::response::Response;
use maud::{Markup, html};

use super::parts::{badge, both, empty, since, table};
use super::{Frame, live, unseen};
use crate::clock::Timestamp;
use crate::dash::Shared;
use crate::dash::access::User;
use crate::dash::live::Snapshot;
use crate::store::WorkerRow;

/// `GET /workers`
pub(in crate::dash) async fn show(Extract(dash): Extract<Shared>, Extension(user): Extension<User>) -> Response {
    let seen = dash.live.fresh().await;
    let body = html! {
        h1 { "Workers" }
        p.quiet { "A worker that is silent for longer than its lease is taken for dead: others take its jobs over." }
        (live(&seen.as_deref().map_or_else(unseen, all)))
    };
    Frame::new("Workers", "/workers", &user, seen.as_deref(), "workers").page(&dash, &body)
}

/// What of it is live.
pub(in crate::dash) fn all(seen: &Snapshot) -> Markup {
    if seen.picture.store.is_err() {
        return empty("The store does not answer: nobody knows who is alive.");
    }
    if seen.picture.workers.is_empty() {
        return empty("No worker is registered: start one with `lanes worker`.");
    }
    list(seen.picture.workers.iter(), seen.picture.now)
}

/// One row for each.
pub(super) fn list<'a>(workers: impl Iterator<Item = &'a (WorkerRow, bool)>, now: Timestamp) -> Markup {
    let row = |(worker, alive): &(WorkerRow, bool)| {
        html! {
            td { (worker.name) }
            td { @if *alive { (badge("good", "✓", "alive")) } @else { (badge("bad", "!", "silent")) } }
            td { (since(worker.heartbeat_at, now)) }
            td { (both(worker.started_at, now)) }
            td { (worker.lanes.replace(',', ", ")) }
            td.number { (worker.id.0) }
        }
    };
    let rows: Vec<Markup> = workers.map(row).collect();
    table("Workers", &["Worker", "State", "Heartbeat", "Started", "Lanes", ">Number"], &rows)
}
