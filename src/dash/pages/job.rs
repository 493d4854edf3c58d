//! One job: where it is and why, what befell it, and what it sends, as far as that may be shown.

use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, Query, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use uuid::Uuid;

use super::parts::{both, empty, endpoint, lane, moment, query, state, table, tenant, took};
use super::{Frame, ask, audit, done, error, timeline};
use crate::clock::Timestamp;
use crate::dash::access::{Role, User, hex, sha256};
use crate::dash::forms::Flash;
use crate::dash::place::link;
use crate::dash::{Dash, Shared, Unreadable, mask};
use crate::governor::operator::jobs::Named;
use crate::governor::view::{Hold, hold_of};
use crate::governor::{Governor, sync};
use crate::observe::words;
use crate::store::{AttemptRecord, AuditFilter, AuditRow, JobRow, Letter, Payload, State};

/// Most lines of the log that are shown of a job.
const LINES_MAX: usize = 20;
/// Said of a job of which nothing is left.
const GONE: &str =
    "No job has this handle: no worker has taken it yet, it was a duplicate, or it ended and was forgotten.";

/// What is known of a job.
pub(in crate::dash) struct Known {
    pub row: Option<JobRow>,
    pub letter: Option<Letter>,
    payload: Option<Payload>,
    pub attempts: Vec<AttemptRecord>,
    pub lines: Vec<AuditRow>,
    pub hold: Option<Hold>,
    now: Timestamp,
}

/// Looks a job up.
pub(in crate::dash) async fn look_up(dash: &Dash, handle: Uuid) -> Result<Known, Unreadable> {
    let budgets = &dash.source.scope().budgets;
    dash.read(async |store| {
        let (row, now) = (store.job(handle).await?, store.time().await?);
        let raw = store.letter(handle).await?;
        let (letter, of_letter) = raw.map(|raw| (raw.letter, raw.payload)).unzip();
        let payload = if of_letter.is_some() { of_letter } else { store.payload(handle).await? };
        let attempts = store.attempts(handle).await?;
        let of_it = AuditFilter { target: Some(Named(handle).to_string()), ..AuditFilter::default() };
        let lines = store.audit(&of_it, LINES_MAX).await?;
        let hold = match &row {
            Some(row) if row.state == State::Waiting => {
                let governor = Governor::observer(budgets.clone());
                sync::round(&governor, &*store, now, Timestamp::EPOCH).await?;
                hold_of(&governor, &*store, row, now).await?
            }
            _ => None,
        };
        Ok(Known { row, letter, payload, attempts, lines, hold, now })
    })
    .await
}

/// `GET /jobs/{job}`; an id instead of a handle leads to the list.
pub(in crate::dash) async fn show(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(job): Path<String>,
    Query(flash): Query<Flash>,
) -> Response {
    let Ok(handle) = Uuid::parse_str(&job) else {
        return Redirect::to(&link(format!("/jobs?{}", query(&[("id", &job)])))).into_response();
    };
    let seen = dash.live.fresh().await;
    let known = match look_up(&dash, handle).await {
        Ok(known) => known,
        Err(unreadable) => return unreadable.into_response(),
    };
    let (title, head) = match (&known.row, &known.letter) {
        (Some(row), _) => (format!("Job {}", row.id), of_row(row, &known)),
        (None, Some(letter)) => (format!("Dead letter {handle}"), of_letter(letter, known.now)),
        // what was done to it is known for longer than itself
        (None, None) if !known.lines.is_empty() => (format!("Job {handle}"), empty(GONE)),
        (None, None) => {
            return error(StatusCode::NOT_FOUND, GONE);
        }
    };
    let body = html! {
        h1 { (title) }
        (done(&flash))
        (offer(&known, &user, handle))
        (head)
        @if !known.lines.is_empty() {
            section aria-labelledby="done" { h2 #done { "What people did to it" } (audit::lines(&known.lines, known.now)) }
        }
        section aria-labelledby="calls" { h2 #calls { "Calls" } (calls(&known.attempts)) }
        section aria-labelledby="payload" { h2 #payload { "Payload" } (payload(&known, &user, handle)) }
    };
    Frame::new(&title, "/jobs", &user, seen.as_deref(), "health").page(&dash, &body)
}

/// `GET /jobs/{job}/body`: the bytes as they are.
pub(in crate::dash) async fn body(Extract(dash): Extract<Shared>, Path(job): Path<String>) -> Response {
    let Ok(handle) = Uuid::parse_str(&job) else { return error(StatusCode::NOT_FOUND, "That is no handle.") };
    match look_up(&dash, handle).await {
        Err(unreadable) => unreadable.into_response(),
        Ok(Known { payload: None, .. }) => error(StatusCode::NOT_FOUND, "There is no body (any more)."),
        Ok(Known { payload: Some(payload), .. }) => {
            let name = format!("attachment; filename=\"{handle}.bin\"");
            let headers = [(header::CONTENT_TYPE, "application/octet-stream"), (header::CONTENT_DISPOSITION, &name)];
            (headers, payload.body).into_response()
        }
    }
}

/// What can be done about it.
fn offer(known: &Known, user: &User, handle: Uuid) -> Markup {
    let state = known.row.as_ref().map(|row| row.state);
    let (alive, waits) = (state.is_some_and(State::is_alive), matches!(state, Some(State::Waiting | State::Queued)));
    ask::of_job(handle, known.letter.is_some(), alive, waits, user)
}

fn of_row(row: &JobRow, known: &Known) -> Markup {
    let now = known.now;
    html! {
        p.lead { (state(row.state)) " " (mask::text(&words::state_of(row, known.hold.as_ref(), now))) }
        dl.facts {
            dt { "Lane" } dd { (lane(&row.lane)) }
            dt { "Endpoint" } dd { (endpoint(&row.endpoint)) }
            dt { "Tenant" } dd { (tenant(&row.tenant)) }
            dt { "Calls" } dd { (words::attempts_of(row)) }
            dt { "Published" } dd { (both(row.published_at, now)) }
            dt { "Handle" } dd { code { (row.instance) } }
            @if !row.holds_key && row.state.is_alive() { dt { "Follows" } dd { "another job of its id" } }
            @if let Some(letter) = &known.letter { dt { "Died of" } dd { (mask::text(&letter.detail)) } }
        }
        section aria-labelledby="timeline" {
            h2 #timeline { "What befell it" }
            (timeline::show(&timeline::steps(row, &known.attempts, known.hold.as_ref(), now)))
        }
    }
}

fn of_letter(letter: &Letter, now: Timestamp) -> Markup {
    html! {
        p.lead { (state(State::Dead)) " " (letter.reason.as_str().replace('_', " ")) ": " (mask::text(&letter.detail)) }
        dl.facts {
            dt { "Lane" } dd { (lane(&letter.lane)) }
            dt { "Endpoint" } dd { (letter.endpoint.as_deref().unwrap_or("not readable")) }
            dt { "Tenant" } dd { @match &letter.tenant { Some(of) => (tenant(of)), None => "not readable" } }
            dt { "Id" } dd { (letter.id.as_deref().unwrap_or("not readable")) }
            dt { "Died" } dd { (both(letter.died_at, now)) }
            dt { "Copies" } dd { (letter.copies) }
        }
    }
}

fn calls(attempts: &[AttemptRecord]) -> Markup {
    let row = |record: &AttemptRecord| {
        let ended = record.started_at.plus(Duration::from_micros(record.duration_us));
        let headers: Vec<String> = record.rate_headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        html! {
            td.number { @if record.generation > 1 { (record.generation) "." } (record.attempt) }
            td { (moment(record.started_at)) }
            td.number { (took(Duration::from_micros(record.duration_us))) }
            td { @match record.status { Some(status) => { (status) " " }, None => "" } (record.class.replace('_', " ")) }
            td.why { @if headers.is_empty() { span.quiet { "–" } } @else { (mask::text(&headers.join(", "))) } }
            td.why {
                @match record.resume_at {
                    Some(at) => (timeline::delay(record, at.since(ended))),
                    None => { (record.next) @if !record.reason.is_empty() { " (" (record.reason.replace('_', " ")) ")" } },
                }
            }
            td.why { (mask::text(&record.detail)) }
        }
    };
    let rows: Vec<Markup> = attempts.iter().map(row).collect();
    if rows.is_empty() {
        return empty("No call failed. The journal keeps failed calls, and a success that follows them.");
    }
    let heads = [">Call", "Started", ">Took", "Result", "Rate headers", "Then", "Detail"];
    table("Calls", &heads, &rows)
}

fn payload(known: &Known, user: &User, handle: Uuid) -> Markup {
    let Some(payload) = &known.payload else {
        return empty("It is not kept: a job's payload goes when it has succeeded or was cancelled.");
    };
    let meta = mask::json(&payload.meta).unwrap_or_else(|| "not readable".to_owned());
    let may_see_all = user.role >= Role::Operator;
    html! {
        h3 { "Beside the body" }
        (code("What travels with it", &meta))
        h3 { "Body" }
        @match mask::json(&payload.body) {
            Some(shown) => (code("Body", &shown)),
            None => {
                p { "It is not JSON, or too large to be shown: " (words::counted(payload.body.len() as u64, "byte"))
                    ", SHA-256 " code { (hex(&sha256(&payload.body))) } "." }
                @if may_see_all && payload.body.len() <= mask::SHOWN_BYTES_MAX {
                    @if let Ok(text) = std::str::from_utf8(&payload.body) { (code("Body", &mask::text(text))) }
                }
            }
        }
        p.quiet { "Values of fields whose names tell of secrets are shown as " (mask::MASK) "." }
        @if may_see_all { p { a href=(link(format!("/jobs/{handle}/body"))) { "The body as it is (" (words::counted(payload.body.len() as u64, "byte")) ")" } } }
    }
}

fn code(label: &str, text: &str) -> Markup {
    html! { pre.scroll role="region" tabindex="0" aria-label={ (label) ", text" } { code { (text) } } }
}
