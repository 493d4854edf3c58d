//! Retry now: jobs that wait for a time of their own are made due at once, with a line of the audit log. What waits for its
//! turn stays: no operator's haste makes an API allow more.

use uuid::Uuid;

use super::operator::entry;
use crate::clock::Timestamp;
use crate::job::control::Speaker;
use crate::store::transition::{self, Reason};
use crate::store::{BATCH_MAX, Hastened, JobRow, Store, StoreResult};

/// What the log calls it.
pub const ACTION: &str = "retry_now";

/// What hurrying a job would lead to, as it was when it was read.
pub fn foreseen(job: &JobRow, now: Timestamp) -> Hastened {
    transition::hastened(job.state, Reason::parse(&job.reason), job.resume_at, now)
}

/// Hurries one job; workers see it within a second.
///
/// # Errors
/// The store did not answer.
pub async fn one(store: &dyn Store, job: &JobRow, by: &Speaker, now: Timestamp) -> StoreResult<Hastened> {
    let before = match job.resume_at {
        Some(at) => format!("waits ({}) until {at}", job.reason),
        None => job.state.as_str().to_owned(),
    };
    let line = entry(by, ACTION, &format!("job {}", job.instance), before, AFTER.to_owned(), now);
    let answers = store.hasten(&[job.instance], now, &line).await?;
    Ok(answers.first().copied().unwrap_or(Hastened::NotFound))
}

/// Hurries many jobs, at most [`BATCH_MAX`] with one statement and one line of the log; `what` says which they are: `jobs of
/// lane bulk`. Answers in their order.
///
/// # Errors
/// The store did not answer; what was answered before is done.
pub async fn many(
    store: &dyn Store,
    jobs: &[Uuid],
    what: &str,
    by: &Speaker,
    now: Timestamp,
) -> StoreResult<Vec<Hastened>> {
    let line = entry(by, ACTION, &what, "wait".to_owned(), AFTER.to_owned(), now);
    let mut answers = Vec::with_capacity(jobs.len());
    for batch in jobs.chunks(BATCH_MAX) {
        answers.extend(store.hasten(batch, now, &line).await?);
    }
    Ok(answers)
}

const AFTER: &str = "due at once";
