//! `lanes publish --wait`: follows a job in the store until it has ended.

use std::time::Duration;

use serde_json::json;

use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};
use crate::cli::out::note;
use crate::cli::text::{clean, duration};
use crate::cli::view;
use crate::clock::{self, Clock as _, Timestamp};
use crate::publish::{NewJob, Published};
use crate::store::{JobFilter, JobRow, LIST_MAX, State, Store, StoreResult};

/// Time between two looks at the store.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A publish time is known to the millisecond, and clocks differ: so near to the end of the window nothing is certain.
const UNCERTAIN: Duration = Duration::from_secs(5);

/// A job that was published.
#[derive(Debug, Clone, Copy)]
pub struct Watched<'a> {
    /// What was asked for.
    pub job: &'a NewJob,
    /// What was confirmed.
    pub published: &'a Published,
}

/// What became of it.
enum Ending {
    /// It has ended.
    Ended(JobRow),
    /// Another publish of its id is, or may be, done: this one is never called.
    DuplicateOf(JobRow),
    /// Not ended in time; its row when it has one.
    Open(Option<JobRow>),
}

/// Waits, tells the end, answers the exit code.
pub async fn run(
    mut ctx: Context,
    watched: Watched<'_>,
    most: Duration,
    fail_on_duplicate: bool,
) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let started = ctx.clock.now();
    if !ctx.out.is_json() {
        note(format_args!("published {}, waiting for its end", watched.published.instance));
    }
    let ending = loop {
        let seen = look(&*store, watched, ctx.specs.dedup_window).await?;
        match seen {
            Ending::Open(_) if ctx.clock.now().since(started) < most => clock::sleep(&ctx.clock, LOOK_EVERY).await,
            ending => break ending,
        }
    };
    tell(&mut ctx, &*store, watched, ending, (most, fail_on_duplicate)).await
}

async fn look(store: &dyn Store, watched: Watched<'_>, window: Duration) -> StoreResult<Ending> {
    if let Some(row) = store.job(watched.published.instance).await? {
        return Ok(if row.state.is_alive() { Ending::Open(Some(row)) } else { Ending::Ended(row) });
    }
    let filter = JobFilter {
        lane: Some(watched.job.lane.clone()),
        tenant: Some(watched.job.tenant.clone()),
        id: Some(watched.published.id.as_str().to_owned()),
        limit: LIST_MAX,
        ..JobFilter::default()
    };
    let others = store.jobs(&filter).await?;
    let blocks = |row: &JobRow| is_original(row, published_at(watched), window);
    Ok(others.into_iter().find(blocks).map_or(Ending::Open(None), Ending::DuplicateOf))
}

/// Whether `row` makes a publish at `at` a duplicate for certain: it has ended, its effect is or may be done, and the
/// two publishes are well within the window.
fn is_original(row: &JobRow, at: Timestamp, window: Duration) -> bool {
    let holds = row.state == State::Done || (!row.state.is_alive() && row.effect_possible);
    row.holds_key && holds && row.published_at.distance(at) + UNCERTAIN < window
}

/// Handles are made of the publish time.
fn published_at(watched: Watched<'_>) -> Timestamp {
    let time = watched.published.instance.get_timestamp().map(|time| time.to_unix());
    time.map_or(Timestamp::EPOCH, |(secs, nanos)| {
        Timestamp::from_secs(i64::try_from(secs).unwrap_or(i64::MAX)).plus(Duration::from_nanos(nanos.into()))
    })
}

async fn tell(
    ctx: &mut Context,
    store: &dyn Store,
    watched: Watched<'_>,
    ending: Ending,
    (most, fail_on_duplicate): (Duration, bool),
) -> Result<Exit, CliError> {
    let handle = watched.published.instance;
    let detail = match &ending {
        Ending::Ended(row) if row.state == State::Dead => store.letter(handle).await?.map(|found| found.letter.detail),
        _ => None,
    };
    let (status, row, exit) = match &ending {
        Ending::Ended(row) if row.state == State::Done => ("done", Some(row), Exit::Ok),
        Ending::Ended(row) => (row.state.as_str(), Some(row), Exit::Failed),
        Ending::DuplicateOf(row) => {
            ("duplicate", Some(row), if fail_on_duplicate { Exit::Duplicate } else { Exit::Ok })
        }
        Ending::Open(row) => ("not_ended", row.as_ref(), Exit::Failed),
    };
    if ctx.out.is_json() {
        ctx.out.document(&json!({
            "schema": 1, "status": status, "handle": handle, "id": watched.published.id, "lane": watched.job.lane,
            "detail": detail, "job": row.map(view::job),
        }))?;
    } else {
        let text = match (&ending, row) {
            (Ending::DuplicateOf(row), _) => {
                format!("is a duplicate of {}, which is {}", row.instance, row.state.as_str())
            }
            (Ending::Open(_), None) => format!("was not taken by a worker within {}", duration(most)),
            (Ending::Open(_), Some(row)) => {
                let reason = if row.reason.is_empty() { String::new() } else { format!(" ({})", row.reason) };
                format!("has not ended within {}: {}{reason}", duration(most), row.state.as_str())
            }
            (Ending::Ended(row), _) if row.state == State::Dead => {
                format!("is a dead letter ({}): {}", row.reason, detail.as_deref().unwrap_or("no detail"))
            }
            (Ending::Ended(row), _) => format!("ended: {}", row.state.as_str()),
        };
        ctx.out.line(format_args!("{handle} {}", clean(&text)))?;
    }
    ctx.out.flush()?;
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::job::{EndpointName, JobId, LaneName, Tenant};

    fn row(state: State, effect_possible: bool, published_at: Timestamp) -> JobRow {
        JobRow {
            instance: Uuid::nil(),
            lane: LaneName::new("bulk").expect("valid"),
            tenant: Tenant::unnamed(),
            id: JobId::new("id").expect("valid"),
            endpoint: EndpointName::new("crm").expect("valid"),
            published_at,
            state,
            reason: String::new(),
            attempt: 1,
            generation: 1,
            takeovers: 0,
            effect_possible,
            cancel_requested: false,
            holds_key: true,
            resume_at: None,
            released_at: None,
            ended_at: None,
            held_since: None,
            worker: None,
        }
    }

    #[test]
    fn only_what_is_certain_is_called_a_duplicate() {
        let (at, window) = (Timestamp::from_secs(1_800_000_000), Duration::from_mins(10));
        let ago = |secs| at.minus(Duration::from_secs(secs));
        let cases = [
            (State::Done, false, 60, true),
            (State::Dead, true, 60, true),
            (State::Dead, false, 60, false),   // it freed its key
            (State::Waiting, true, 60, false), // it may still die and free its key
            (State::Run, false, 60, false),
            (State::Done, false, 598, false), // too near to the end of the window
            (State::Done, false, 700, false),
        ];
        for (state, effect, secs, expected) in cases {
            assert_eq!(is_original(&row(state, effect, ago(secs)), at, window), expected, "{state:?} {effect} {secs}");
        }
        let follower = JobRow { holds_key: false, ..row(State::Done, false, ago(60)) };
        assert!(!is_original(&follower, at, window));
    }
}
