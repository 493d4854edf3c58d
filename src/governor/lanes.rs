//! How many calls a lane makes at a time, as an operator says while workers run: set, with an end and a name, and taken back.
//! Each change is written with its line of the audit log.

use super::operator::{OperatorError, contended, entry};
use super::sync::TRIES_MAX;
use crate::clock::Timestamp;
use crate::job::LaneName;
use crate::job::control::{CONCURRENCY_MAX, Concurrency, Speaker, Target};
use crate::store::{AuditEntry, ConcurrencyRow, ConcurrencyWrite, Store, StoreResult};

/// Most lanes of which this is said at a time: every worker reads all of them four times a second. It is more than there
/// are lanes.
pub const CONCURRENCIES_MAX: usize = 1_000;

/// Lets a lane make `calls` at a time in each worker, until `until` (`None` = until it is reset), instead of what was said
/// before. Workers follow within a second; of fewer calls those in flight finish. Answers what was said before, while it lasts.
///
/// # Errors
/// The number or the end makes no sense, it is said of too many lanes, or the store did not answer.
pub async fn set_concurrency(
    store: &dyn Store,
    lane: &LaneName,
    calls: u32,
    until: Option<Timestamp>,
    by: &Speaker,
    now: Timestamp,
) -> Result<Option<Concurrency>, OperatorError> {
    if !(1..=CONCURRENCY_MAX).contains(&calls) {
        let why = format!("{calls} calls at a time: 1 to {CONCURRENCY_MAX} are possible; none at all is a pause");
        return Err(OperatorError::Wrong(why));
    }
    if until.is_some_and(|until| until <= now) {
        return Err(OperatorError::Wrong("it has to end later than it begins".to_owned()));
    }
    let said = Concurrency { calls, until, author: by.author.clone(), note: by.note.clone(), set_at: now };
    for _ in 0..TRIES_MAX {
        let rows = store.concurrencies().await?;
        let row = rows.iter().find(|row| row.lane == *lane);
        if row.is_none() && rows.len() >= CONCURRENCIES_MAX {
            return Err(OperatorError::Wrong(format!("this is said of {CONCURRENCIES_MAX} lanes already: reset some")));
        }
        let before = lasting(row, now);
        let entry = told(by, "set_concurrency", lane, before.as_ref(), Some(&said), now);
        if store.put_concurrency(&write(lane, row, Some(said.clone()), now), &entry).await? {
            return Ok(before);
        }
    }
    Err(contended(&Target::Lane(lane.clone()).to_string()).into())
}

/// Lets a lane make as many calls at a time as is configured. Answers what was said before; `None` = nothing was, and nothing
/// is written.
///
/// # Errors
/// The store did not answer.
pub async fn reset_concurrency(
    store: &dyn Store,
    lane: &LaneName,
    by: &Speaker,
    now: Timestamp,
) -> StoreResult<Option<Concurrency>> {
    for _ in 0..TRIES_MAX {
        let rows = store.concurrencies().await?;
        let row = rows.iter().find(|row| row.lane == *lane);
        let Some(before) = lasting(row, now) else { return Ok(None) };
        let entry = told(by, "reset_concurrency", lane, Some(&before), None, now);
        if store.put_concurrency(&write(lane, row, None, now), &entry).await? {
            return Ok(Some(before));
        }
    }
    Err(contended(&Target::Lane(lane.clone()).to_string()))
}

fn lasting(row: Option<&ConcurrencyRow>, now: Timestamp) -> Option<Concurrency> {
    row.map(|row| row.concurrency.clone()).filter(|said| said.lasts(now))
}

fn write(
    lane: &LaneName,
    row: Option<&ConcurrencyRow>,
    concurrency: Option<Concurrency>,
    now: Timestamp,
) -> ConcurrencyWrite {
    let seen = row.map_or(0, |row| row.version);
    ConcurrencyWrite { lane: lane.clone(), seen, version: now.as_micros().max(seen.saturating_add(1)), concurrency }
}

fn told(
    by: &Speaker,
    action: &str,
    lane: &LaneName,
    before: Option<&Concurrency>,
    after: Option<&Concurrency>,
    now: Timestamp,
) -> AuditEntry {
    entry(by, action, &Target::Lane(lane.clone()), text(before), text(after), now)
}

/// `16 calls at a time until 2027-01-15T08:00:00Z`
fn text(said: Option<&Concurrency>) -> String {
    let Some(Concurrency { calls, until, .. }) = said else { return "as configured".to_owned() };
    let end = until.map(|at| format!(" until {at}")).unwrap_or_default();
    format!("{calls} call{} at a time{end}", if *calls == 1 { "" } else { "s" })
}
