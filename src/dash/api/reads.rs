//! What programs look at: the documents that the command line writes, without payloads, with secrets masked.

use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Document, Failed, Fields, Filter};
use crate::dash::acts::{Refused, handle};
use crate::dash::live::Snapshot;
use crate::dash::pages::job::look_up;
use crate::dash::pages::{dead, jobs};
use crate::dash::{Shared, mask};
use crate::observe::documents;
use crate::store::{AuditFilter, LIST_MAX};

/// Entries of a list where nobody says how many.
const ROWS: usize = 100;

/// How many entries; at most [`LIST_MAX`].
fn rows(limit: Option<usize>) -> Result<usize, Failed> {
    match limit {
        None => Ok(ROWS),
        Some(limit) if (1..=LIST_MAX).contains(&limit) => Ok(limit),
        Some(limit) => Err(Refused::wrong(format!("limit {limit} is not between 1 and {LIST_MAX}")).into()),
    }
}

async fn seen(dash: &Shared) -> Result<std::sync::Arc<Snapshot>, Failed> {
    let late = || {
        Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "store and broker did not answer in time",
            "Ask again in a moment.",
        )
    };
    Ok(dash.live.fresh().await.ok_or_else(late)?)
}

/// Texts from outside may carry what nobody should see.
fn masked(mut document: Value) -> Value {
    for name in ["detail", "message", "why"] {
        if let Some(Value::String(text)) = document.get_mut(name) {
            *text = mask::text(text);
        }
    }
    if let Some(Value::Object(headers)) = document.get_mut("rate_headers") {
        for (name, value) in headers.iter_mut() {
            if let Value::String(text) = value {
                *text = if mask::is_secret(name) { mask::MASK.to_owned() } else { mask::text(text) };
            }
        }
    }
    document
}

/// No field at all.
#[derive(Debug, Deserialize)]
pub(in crate::dash) struct Nothing {}

impl Fields for Nothing {
    const NAMES: &'static [&'static str] = &[];
}

impl Fields for jobs::Wish {
    const NAMES: &'static [&'static str] = &["state", "lane", "endpoint", "tenant", "reason", "id", "after", "limit"];
}

impl Fields for dead::Wish {
    const NAMES: &'static [&'static str] = &["lane", "endpoint", "tenant", "reason", "limit"];
}

/// `GET /api/v1/status`
pub(in crate::dash) async fn status(Extract(dash): Extract<Shared>, Filter(Nothing {}): Filter<Nothing>) -> Answer {
    let mut status = documents::status(&seen(&dash).await?.picture);
    for problem in status["problems"].as_array_mut().into_iter().flatten() {
        *problem = masked(problem.take());
    }
    for held in status["held"].as_array_mut().into_iter().flatten() {
        *held = masked(held.take());
    }
    Ok(Document(status))
}

/// `GET /api/v1/lanes`
pub(in crate::dash) async fn lanes(Extract(dash): Extract<Shared>, Filter(Nothing {}): Filter<Nothing>) -> Answer {
    let seen = seen(&dash).await?;
    let lanes = documents::status(&seen.picture)["lanes"].take();
    Ok(Document(json!({ "schema": 1, "lanes": lanes })))
}

/// `GET /api/v1/jobs`
pub(in crate::dash) async fn jobs(Extract(dash): Extract<Shared>, Filter(wish): Filter<jobs::Wish>) -> Answer {
    // one more than wanted is asked for
    let filter = wish.filter(rows(wish.limit)?.min(LIST_MAX - 1)).map_err(Refused::wrong)?;
    let mut found = dash.read(async |store| store.jobs(&filter).await).await?;
    let next = (found.len() == filter.limit).then(|| found.pop()).and(found.last().map(jobs::key_of));
    let jobs: Vec<Value> = found.iter().map(documents::job).collect();
    Ok(Document(json!({ "schema": 1, "jobs": jobs, "next": next })))
}

/// `GET /api/v1/jobs/{job}`
pub(in crate::dash) async fn job(Extract(dash): Extract<Shared>, Path(job): Path<String>) -> Answer {
    let handle = handle(&job)?;
    let known = look_up(&dash, handle).await?;
    let letter = known.letter.as_ref().map(|letter| masked(documents::letter(letter)));
    let mut document = match &known.row {
        Some(row) => documents::job(row),
        None if letter.is_some() => json!({ "handle": handle, "state": "dead" }),
        None => {
            let help = "No worker has taken it yet, it was a duplicate, or it ended and was forgotten.";
            return Err(Refused::unknown(format!("no job has the handle {handle}"), help).into());
        }
    };
    document["schema"] = 1.into();
    document["hold"] = masked(documents::hold(known.hold.as_ref()));
    document["attempts"] = known.attempts.iter().map(|record| masked(documents::attempt(record))).collect();
    document["letter"] = letter.into();
    document["audit"] = known.lines.iter().map(documents::line).collect();
    Ok(Document(document))
}

/// `GET /api/v1/dead`
pub(in crate::dash) async fn dead(Extract(dash): Extract<Shared>, Filter(wish): Filter<dead::Wish>) -> Answer {
    let filter = wish.filter(rows(wish.limit)?).map_err(Refused::wrong)?;
    let letters = dash.read(async |store| store.letters(&filter).await).await?;
    let letters: Vec<Value> = letters.iter().map(|letter| masked(documents::letter(letter))).collect();
    Ok(Document(json!({ "schema": 1, "letters": letters })))
}

/// `GET /api/v1/dead/groups`
pub(in crate::dash) async fn groups(Extract(dash): Extract<Shared>, Filter(Nothing {}): Filter<Nothing>) -> Answer {
    let groups = dash.read(async |store| store.letter_groups(LIST_MAX).await).await?;
    let groups: Vec<Value> = groups.iter().map(documents::group).collect();
    Ok(Document(json!({ "schema": 1, "groups": groups })))
}

/// `GET /api/v1/limits`
pub(in crate::dash) async fn limits(Extract(dash): Extract<Shared>, Filter(Nothing {}): Filter<Nothing>) -> Answer {
    let seen = seen(&dash).await?;
    let accounts: Vec<Value> = seen.picture.accounts.iter().map(|one| masked(documents::account(one))).collect();
    Ok(Document(json!({ "schema": 1, "limits": accounts })))
}

/// Which lines of the log.
#[derive(Debug, Deserialize)]
pub(in crate::dash) struct Lines {
    actor: Option<String>,
    action: Option<String>,
    target: Option<String>,
    before: Option<i64>,
    limit: Option<usize>,
}

impl Fields for Lines {
    const NAMES: &'static [&'static str] = &["actor", "action", "target", "before", "limit"];
}

/// `GET /api/v1/audit`
pub(in crate::dash) async fn audit(Extract(dash): Extract<Shared>, Filter(wish): Filter<Lines>) -> Answer {
    let limit = rows(wish.limit)?;
    let Lines { actor, action, target, before, .. } = wish;
    let filter = AuditFilter { actor, action, target, before };
    let lines = dash.read(async |store| store.audit(&filter, limit).await).await?;
    let next = lines.last().filter(|_| lines.len() == limit).map(|last| last.id);
    let lines: Vec<Value> = lines.iter().map(documents::line).collect();
    Ok(Document(json!({ "schema": 1, "lines": lines, "next": next })))
}
