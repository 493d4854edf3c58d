//! What an operator does with single jobs and dead letters: calls them again, also with another body, ends them, deletes them.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{OperatorError, entry};
use crate::clock::Timestamp;
use crate::job::control::Speaker;
use crate::job::{EndpointName, JOB_ID_BYTES_MAX, JobId, NewJob, wire};
use crate::store::{CancelAnswer, JobRow, Letter, Payload, RawLetter, Replayed, State, Store, StoreResult};

/// Bytes of the hash in the id of an edited job.
const HASH_BYTES: usize = 4;

/// Publishes for operators. Answers only once the broker has confirmed.
#[async_trait]
pub trait Outlet: Send + Sync + fmt::Debug {
    /// Publishes a job; answers its handle.
    ///
    /// # Errors
    /// Why it is not, or not known to be, published; publishing the same id again is safe.
    async fn publish(&self, job: NewJob) -> Result<Uuid, String>;

    /// Publishes the message of a letter that never was a job, as it was.
    ///
    /// # Errors
    /// Why it is not, or not known to be, published.
    async fn republish(&self, letter: RawLetter) -> Result<(), String>;
}

/// A job as it is named in the log: `job <handle>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named(pub Uuid);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {}", self.0)
    }
}

/// What became of an edited job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The new job's handle.
    pub handle: Uuid,
    /// Its id.
    pub id: JobId,
    /// The old one is gone. If not, it was being called or had ended meanwhile.
    pub replaced: bool,
}

/// Puts a dead letter back to work.
///
/// # Errors
/// There is no such letter, its message was not published, or the store did not answer.
pub async fn retry(
    store: &dyn Store,
    outlet: &dyn Outlet,
    handle: Uuid,
    by: &Speaker,
    now: Timestamp,
) -> Result<(), OperatorError> {
    match replay(store, handle, by, now).await? {
        Replayed::Waiting(_) => Ok(()),
        Replayed::NotFound => Err(no_letter(handle)),
        Replayed::Raw(found) => {
            let letter = found.letter.clone();
            outlet.republish(*found).await.map_err(OperatorError::Publish)?;
            Ok(republished(store, &letter, by, now).await?)
        }
    }
}

/// The same for who publishes himself: the message of a letter that never was a job is answered, and nothing is changed.
///
/// # Errors
/// The store did not answer.
pub async fn replay(store: &dyn Store, handle: Uuid, by: &Speaker, now: Timestamp) -> StoreResult<Replayed> {
    let Some(found) = store.letter(handle).await? else { return Ok(Replayed::NotFound) };
    let waits = format!("waits (generation {})", found.letter.generation + 1);
    let line = entry(by, "retry", &Named(handle), died_of(&found.letter), waits, now);
    store.replay_audited(handle, now, &line).await
}

/// Its message was published again: only then the letter goes, unless the message died again meanwhile and is this letter. If it
/// does not go, the message is there twice, and nothing is lost.
///
/// # Errors
/// The store did not answer.
pub async fn republished(store: &dyn Store, letter: &Letter, by: &Speaker, now: Timestamp) -> StoreResult<()> {
    let after = "published again".to_owned();
    let line = entry(by, "retry", &Named(letter.instance), died_of(letter), after, now);
    store.discard_audited(letter.instance, Some((letter.died_at, letter.copies)), &line).await.map(drop)
}

/// Ends a job that has not ended; one that is being called is not called again.
///
/// # Errors
/// The store did not answer.
pub async fn cancel(store: &dyn Store, handle: Uuid, by: &Speaker, now: Timestamp) -> StoreResult<CancelAnswer> {
    let Some(row) = store.job(handle).await? else { return Ok(CancelAnswer::NotFound) };
    let after = if row.state == State::Run { "not called again" } else { "cancelled" };
    let line = entry(by, "cancel", &Named(handle), state_of(&row), after.to_owned(), now);
    store.cancel_audited(handle, now, &line).await
}

/// Deletes a dead letter for good.
///
/// # Errors
/// There is no such letter, or the store did not answer.
pub async fn discard(store: &dyn Store, handle: Uuid, by: &Speaker, now: Timestamp) -> Result<(), OperatorError> {
    let Some(found) = store.letter(handle).await? else { return Err(no_letter(handle)) };
    let line = entry(by, "discard", &Named(handle), died_of(&found.letter), "deleted".to_owned(), now);
    if store.discard_audited(handle, None, &line).await? { Ok(()) } else { Err(no_letter(handle)) }
}

/// Publishes a dead or waiting job anew with another body, then takes the old one away: it has an id of its own, made of the
/// old one's and the body, so that asking twice makes one job. `body` makes the new body of the old one.
///
/// # Errors
/// There is no such job or it is neither dead nor waiting, the body is refused or the same, the new job was not published, or
/// the store did not answer.
pub async fn edit(
    store: &dyn Store,
    outlet: &dyn Outlet,
    handle: Uuid,
    body: impl FnOnce(&[u8]) -> Result<Bytes, String>,
    by: &Speaker,
    now: Timestamp,
) -> Result<Edited, OperatorError> {
    let Editable { mut job, before, dead } = editable(store, handle).await?;
    let fresh = body(&job.body).map_err(OperatorError::Wrong)?;
    if fresh == job.body {
        return Err(OperatorError::Wrong("the body is as it was: retry the job instead".to_owned()));
    }
    let id = edited_id(job.id.as_ref(), handle, &fresh).map_err(OperatorError::Wrong)?;
    (job.id, job.body) = (Some(id.clone()), fresh);
    // first the new one: whatever fails after it, the old one is still there
    let new = outlet.publish(job).await.map_err(OperatorError::Publish)?;
    let line = entry(by, "edit", &Named(handle), before, format!("published anew as {}", Named(new)), now);
    let replaced = if dead {
        store.discard_audited(handle, None, &line).await?
    } else {
        store.cancel_audited(handle, now, &line).await? == CancelAnswer::Cancelled
    };
    let made = entry(by, "edit", &Named(new), format!("made of {}", Named(handle)), "published".to_owned(), now);
    store.log(&made).await?;
    Ok(Edited { handle: new, id, replaced })
}

/// A job whose body may be replaced.
struct Editable {
    job: NewJob,
    before: String,
    dead: bool,
}

/// The body of a job that may be edited.
///
/// # Errors
/// There is no such job, it is neither dead nor waiting, or the store did not answer.
pub async fn editable_body(store: &dyn Store, handle: Uuid) -> Result<Bytes, OperatorError> {
    Ok(editable(store, handle).await?.job.body)
}

async fn editable(store: &dyn Store, handle: Uuid) -> Result<Editable, OperatorError> {
    let wrong = |why: &str| OperatorError::Wrong(why.to_owned());
    if let Some(RawLetter { letter, payload }) = store.letter(handle).await? {
        let before = died_of(&letter);
        let names =
            (letter.tenant, letter.id.as_deref().map(JobId::new), letter.endpoint.as_deref().map(EndpointName::new));
        let (false, (Some(tenant), Some(Ok(id)), Some(Ok(endpoint)))) = (letter.raw, names) else {
            return Err(wrong("this message never was a job: publish a right one, then discard it"));
        };
        let (meta, body) = unpacked(payload)?;
        let job = NewJob { lane: letter.lane, endpoint, tenant, id: Some(id), meta, body };
        return Ok(Editable { job, before, dead: true });
    }
    let gone = || OperatorError::NotFound(format!("no {} is known", Named(handle)));
    let row = store.job(handle).await?.ok_or_else(gone)?;
    let before = state_of(&row);
    match row.state {
        State::Waiting | State::Queued => {}
        State::Run => return Err(wrong("it is being called now: wait for the answer")),
        State::Done | State::Dead | State::Cancelled => return Err(wrong("it has ended, and its body is not kept")),
    }
    let (meta, body) = unpacked(store.payload(handle).await?.ok_or_else(gone)?)?;
    let job = NewJob { lane: row.lane, endpoint: row.endpoint, tenant: row.tenant, id: Some(row.id), meta, body };
    Ok(Editable { job, before, dead: false })
}

fn unpacked(payload: Payload) -> Result<(crate::job::JobMeta, Bytes), OperatorError> {
    Ok((wire::unpack_meta(&payload.meta).map_err(OperatorError::Wrong)?, payload.body))
}

/// `contact-42-edit-1f2e3d4c`: the same for the same job and body.
fn edited_id(old: Option<&JobId>, handle: Uuid, body: &[u8]) -> Result<JobId, String> {
    use fmt::Write as _;
    let digest = Sha256::new().chain_update(handle.as_bytes()).chain_update(body).finalize();
    let mut suffix = "-edit-".to_owned();
    for byte in &digest[..HASH_BYTES] {
        let _ = write!(suffix, "{byte:02x}"); // writing to a String cannot fail
    }
    let old = old.map(JobId::as_str).unwrap_or_default();
    let room = JOB_ID_BYTES_MAX - suffix.len();
    let end = (0..=room.min(old.len())).rev().find(|at| old.is_char_boundary(*at)).unwrap_or(0);
    JobId::new(&format!("{}{suffix}", &old[..end])).map_err(|error| error.to_string())
}

fn died_of(letter: &Letter) -> String {
    format!("dead ({})", letter.reason)
}

fn state_of(row: &JobRow) -> String {
    if row.reason.is_empty() {
        row.state.as_str().to_owned()
    } else {
        format!("{} ({})", row.state.as_str(), row.reason)
    }
}

fn no_letter(handle: Uuid) -> OperatorError {
    OperatorError::NotFound(format!(
        "no dead letter has the handle {handle}: it was retried or discarded already, or never died"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_an_edited_job_is_its_own_and_legal() {
        let handle = Uuid::from_u128(7);
        let id =
            |old: &str, body: &[u8]| edited_id(Some(&JobId::new(old).expect("legal")), handle, body).expect("legal");
        assert!(id("contact-42", b"{}").as_str().starts_with("contact-42-edit-"));
        assert_eq!(id("contact-42", b"{}"), id("contact-42", b"{}"), "asking twice makes one job");
        assert_ne!(id("contact-42", b"{}"), id("contact-42", b"[]"));
        let long = id(&"\u{e9}".repeat(127), b"{}");
        assert!(long.as_str().len() <= JOB_ID_BYTES_MAX && long.as_str().starts_with('\u{e9}'));
    }
}
