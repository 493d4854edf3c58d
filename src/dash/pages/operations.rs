//! Operations on many: what is planned, what runs, how far it is, and what became of it.

use axum::Extension;
use axum::extract::{Path, Query, RawQuery, State as Extract};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use uuid::Uuid;

use super::parts::{badge, bar, both, empty, number, query, since, table};
use super::{Frame, done, live, refused};
use crate::clock::Timestamp;
use crate::dash::access::{Role, User};
use crate::dash::acts::Refused;
use crate::dash::bulk::{Wish, least};
use crate::dash::forms::{Fields, Flash};
use crate::dash::live::Snapshot;
use crate::dash::place::link;
use crate::dash::{Shared, acts, mask};
use crate::governor::operations::Plan;
use crate::job::control::NOTE_CHARS_MAX;
use crate::job::operation::{Action, Operation, Phase};
use crate::observe::words::{count, counted, until};
use crate::store::StoreResult;

/// Operations of the list.
const ROWS_MAX: usize = 50;

/// `GET /ops`
pub(in crate::dash) async fn list(Extract(dash): Extract<Shared>, Extension(user): Extension<User>) -> Response {
    let seen = dash.live.fresh().await;
    let asked = dash.read(async |store| Ok((store.operations(ROWS_MAX).await?, store.time().await?))).await;
    let (operations, now) = match asked {
        Ok(found) => found,
        Err(unreadable) => return unreadable.into_response(),
    };
    let body = html! {
        h1 { "Operations" }
        p.quiet {
            "What is done to everything that matches a filter. One begins at "
            a href=(link("/dead")) { "dead letters" } " or at " a href=(link("/jobs?state=waiting")) { "waiting jobs" } "."
        }
        (rows(&operations, now))
    };
    Frame::new("Operations", "/ops", &user, seen.as_deref(), "health").page(&dash, &body)
}

/// Operations as a table.
pub(super) fn rows(operations: &[Operation], now: Timestamp) -> Markup {
    let row = |operation: &Operation| {
        let begun = &operation.begun;
        html! {
            td { a href=(link(format!("/ops/{}", begun.id))) { (begun.action.as_str()) " " (begun.action.thing()) "s" } }
            td.why { (begun.selection.text()) }
            td { (phase(operation, now)) }
            td { (progress(operation)) }
            td.number { (number(Some(operation.tally.failed))) }
            td { (begun.actor) }
            td { (since(begun.started_at, now)) }
        }
    };
    let rows: Vec<Markup> = operations.iter().map(row).collect();
    if rows.is_empty() {
        return empty("Nobody has begun one yet.");
    }
    table("Operations", &["What", "Of", "State", "Progress", ">Failed", "By", "Begun"], &rows)
}

fn phase(operation: &Operation, now: Timestamp) -> Markup {
    match operation.phase {
        Phase::Running if operation.claimed_until.is_none_or(|claimed| claimed <= now) && operation.next_at <= now => {
            badge("wait", "◷", "waits for a worker")
        }
        Phase::Running if operation.claimed_until.is_none() => {
            badge("wait", "◷", &format!("goes on {}", until(operation.next_at, now)))
        }
        Phase::Running => badge("busy", "▶", "running"),
        Phase::Done => badge("good", "✓", "done"),
        Phase::Cancelled => badge("off", "–", "cancelled"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a bar for people")]
fn progress(operation: &Operation) -> Markup {
    let (seen, planned) = (operation.tally.looked_at(), operation.begun.planned);
    // retried jobs may wait again: more may be found than were planned
    bar("Progress", seen as f64, planned.max(seen).max(1) as f64)
}

/// `GET /ops/{operation}`
pub(in crate::dash) async fn show(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(operation): Path<String>,
    Query(flash): Query<Flash>,
) -> Response {
    let id = match acts::handle(&operation) {
        Ok(id) => id,
        Err(wrong) => return refused(&wrong),
    };
    let seen = dash.live.fresh().await;
    let asked: Result<_, _> =
        dash.read(async |store| -> StoreResult<_> { Ok((store.operation(id).await?, store.time().await?)) }).await;
    let (operation, now) = match asked {
        Ok((Some(operation), now)) => (operation, now),
        Ok((None, _)) => {
            let help = "The list shows those that there are; old ones are forgotten.";
            return refused(&Refused::unknown(format!("no operation has the handle {id}"), help));
        }
        Err(unreadable) => return unreadable.into_response(),
    };
    let title = format!("{} {}s", operation.begun.action.as_str(), operation.begun.action.thing());
    let body = html! { h1 { (title) } (done(&flash)) (live(&one(&operation, now, user.role))) };
    let view = format!("operation&operation={id}");
    Frame::new(&title, "/ops", &user, seen.as_deref(), &view).page(&dash, &body)
}

/// What of an operation is live; as it was seen in the look that all share, while it is among the latest.
/// An older one stays as the page showed it.
pub(in crate::dash) fn fragment(seen: &Snapshot, id: Uuid, role: Role) -> Option<Markup> {
    let found = seen.picture.operations.iter().find(|operation| operation.begun.id == id);
    found.map(|operation| one(operation, seen.picture.now, role))
}

fn one(operation: &Operation, now: Timestamp, role: Role) -> Markup {
    let (begun, tally) = (&operation.begun, operation.tally);
    html! {
        dl.facts {
            div { dt { "Of" } dd { (begun.selection.text()) } }
            div { dt { "State" } dd { (phase(operation, now)) } }
            div { dt { "Progress" } dd { (progress(operation)) } }
            div { dt { (begun.action.done_word()) } dd { (count(tally.done)) } }
            div { dt { "passed over" } dd { (count(tally.skipped)) span.quiet { " had gone on meanwhile" } } }
            div { dt { "failed" } dd { (count(tally.failed)) @if !operation.problem.is_empty() { ": " (mask::text(&operation.problem)) } } }
            div { dt { "Pace" } dd { (pace(operation)) } }
            div { dt { "Begun" } dd { (both(begun.started_at, now)) " by " (begun.actor) " (" (begun.source.as_str()) ")" } }
            @if !begun.note.is_empty() { div { dt { "Why" } dd { (begun.note) } } }
            @if let Some(ended) = operation.ended_at { div { dt { "Ended" } dd { (both(ended, now)) } } }
        }
        @if operation.phase == Phase::Running && role >= least(begun.action) {
            form.inline method="post" action=(link(format!("/ops/{}/cancel", begun.id))) {
                button { "End it now" }
                span.quiet { " What was done stays done." }
            }
        }
    }
}

fn pace(operation: &Operation) -> Markup {
    let interval = operation.begun.interval;
    html! {
        @if interval.is_zero() { "as fast as it goes" } @else { (format!("{:.1} a second at most", 1.0 / interval.as_secs_f64())) }
        span.quiet { "; calls keep to their budgets in any case" }
    }
}

/// `GET /ops/plan`
pub(in crate::dash) async fn plan(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    RawQuery(query): RawQuery,
) -> Response {
    let wish = match Wish::read(&Fields::read(query.unwrap_or_default().as_bytes())) {
        Ok(wish) => wish,
        Err(wrong) => return refused(&wrong),
    };
    let planned = match dash.plan(&wish).await {
        Ok(planned) => planned,
        Err(why) => return refused(&why),
    };
    let seen = dash.live.fresh().await;
    let title = format!("{} everything that matches?", first_upper(wish.action.as_str()));
    let body = html! { h1 { (title) } (asks(&wish, &planned, user.role)) };
    Frame::new(&title, "/ops", &user, seen.as_deref(), "health").page(&dash, &body)
}

fn first_upper(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn asks(wish: &Wish, plan: &Plan, role: Role) -> Markup {
    let action = wish.action;
    html! {
        p { strong { (counted(plan.matched, action.thing())) } " of " (plan.selection.text()) ", of which " strong { (count(plan.eligible)) } " are acted on." }
        @if !plan.left.is_empty() || !plan.warnings.is_empty() {
            ul {
                @for (items, why) in &plan.left { li { "left alone: " (count(*items)) ", " (why) } }
                @for warning in &plan.warnings { li { (warning) } }
            }
        }
        @if plan.eligible == 0 {
            (empty("There is nothing to do."))
        } @else if role < least(action) {
            p.quiet { "This takes the role " (least(action).as_str()) "." }
        } @else {
            form.ask method="post" action=(link("/ops")) {
                @for (name, value) in wish.pairs() { input type="hidden" name=(name) value=(value); }
                // what was planned is what is begun, and pressing twice begins it once
                input type="hidden" name="until" value=(plan.selection.until.as_micros());
                input type="hidden" name="id" value=(Uuid::new_v4());
                label { span { "At most so many in a time (50/1s); empty = as fast as it goes" } input name="pace" autocomplete="off"; }
                label { span { "Why, as others will see it" } input name="note" maxlength=(NOTE_CHARS_MAX) autocomplete="off"; }
                button { (first_upper(action.as_str())) " " (counted(plan.eligible, action.thing())) }
                a href=(link(if action.is_of_letters() { "/dead" } else { "/jobs" })) { "Do nothing" }
            }
            p.quiet { "It is carried out by the workers, and can be ended at any time. What comes later than now is not part of it." }
        }
    }
}

/// Links that begin a plan, of what a filter shows.
pub(super) fn begin(actions: &[Action], pairs: &[(&str, &str)], role: Role) -> Markup {
    let may = |action: &&Action| role >= least(**action);
    html! {
        @for action in actions.iter().filter(may) {
            " " a.button href=(link(format!("/ops/plan?action={}&{}", action.as_str(), query(pairs)))) { (first_upper(action.as_str())) " all…" }
        }
    }
}
