//! Letters and the journal of calls: how rows of either database become the seam's types.

use std::collections::HashMap;

use bytes::Bytes;
use sqlx::FromRow;
use uuid::Uuid;

use super::fault::{Answer, Fault, free_text, signed, unsigned};
use super::record::{PlaceRecord, sha256};
use super::transition::{Reason, Row};
use super::{AttemptRecord, Letter, LetterGroup, Payload, RawLetter, State, StoredJob};
use crate::clock::Timestamp;
use crate::job::verdict::DeadReason;
use crate::job::{EndpointName, JobId, LaneName, Tenant};

/// The columns of a letter that are shown, as [`LetterRecord`] reads them.
macro_rules! letter_columns {
    () => {
        "published_at, died_at, body_bytes, attempts, generation, copies, raw, instance, lane, tenant, id, endpoint, \
         reason, detail"
    };
}
pub(super) use letter_columns;

/// The columns of a whole letter, as [`FullLetterRecord`] reads them.
macro_rules! full_letter_columns {
    () => {
        concat!($crate::store::letter::letter_columns!(), ", takeovers, effect_possible, payload_sha256, meta, body")
    };
}
pub(super) use full_letter_columns;

/// The columns of the journal, as [`AttemptRow`] reads them.
macro_rules! attempt_columns {
    () => {
        "started_at, duration_us, retry_after_ms, resume_at, generation, attempt, status, class, detail, rate_headers, \
         next, reason"
    };
}
pub(super) use attempt_columns;

/// What a letter shows.
#[derive(Debug, FromRow)]
pub struct LetterRecord {
    pub published_at: Option<i64>,
    pub died_at: i64,
    pub body_bytes: i64,
    pub attempts: i32,
    pub generation: i32,
    pub copies: i32,
    pub raw: bool,
    pub instance: Uuid,
    pub lane: String,
    pub tenant: Option<String>,
    pub id: Option<String>,
    pub endpoint: Option<String>,
    pub reason: String,
    pub detail: String,
}

impl LetterRecord {
    /// As the seam tells it.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] when the row was not written by this program.
    pub fn letter(self) -> Answer<Letter> {
        Ok(Letter {
            instance: self.instance,
            lane: LaneName::new(&self.lane)?,
            tenant: self.tenant.as_deref().map(Tenant::new).transpose()?,
            id: self.id,
            endpoint: self.endpoint,
            reason: DeadReason::parse(&self.reason)
                .ok_or_else(|| Fault::Unreadable(format!("dead reason {:?}", self.reason)))?,
            detail: self.detail,
            published_at: self.published_at.map(Timestamp::from_micros),
            died_at: Timestamp::from_micros(self.died_at),
            attempts: unsigned(self.attempts)?,
            generation: unsigned(self.generation)?,
            copies: unsigned(self.copies)?,
            raw: self.raw,
            body_bytes: u64::try_from(self.body_bytes).unwrap_or(0),
        })
    }
}

/// Letters that died of the same.
#[derive(Debug, FromRow)]
pub struct GroupRecord {
    pub endpoint: Option<String>,
    pub reason: String,
    pub tenant: Option<String>,
    pub letters: i64,
    pub first_at: i64,
    pub last_at: i64,
}

impl GroupRecord {
    /// As the seam tells it.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] when the rows were not written by this program.
    pub fn group(self) -> Answer<LetterGroup> {
        Ok(LetterGroup {
            endpoint: self.endpoint,
            reason: DeadReason::parse(&self.reason)
                .ok_or_else(|| Fault::Unreadable(format!("dead reason {:?}", self.reason)))?,
            tenant: self.tenant.as_deref().map(Tenant::new).transpose()?,
            letters: u64::try_from(self.letters).unwrap_or(0),
            first_at: Timestamp::from_micros(self.first_at),
            last_at: Timestamp::from_micros(self.last_at),
        })
    }
}

/// The letters that can be read; one of a newer version is named in the log, and must not hide the others.
pub fn readable(records: Vec<LetterRecord>) -> Vec<Letter> {
    let read = |record: LetterRecord| {
        let instance = record.instance;
        record
            .letter()
            .inspect_err(|fault| tracing::error!(%instance, ?fault, "a letter can't be read, so it isn't listed"))
    };
    records.into_iter().filter_map(|record| read(record).ok()).collect()
}

/// A letter with what a replay needs of it.
#[derive(Debug, FromRow)]
pub struct FullLetterRecord {
    #[sqlx(flatten)]
    pub shown: LetterRecord,
    pub takeovers: i32,
    pub effect_possible: bool,
    pub payload_sha256: Option<Vec<u8>>,
    pub meta: Vec<u8>,
    pub body: Vec<u8>,
}

impl FullLetterRecord {
    /// As the seam tells it.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] when the row was not written by this program.
    pub fn raw_letter(self) -> Answer<RawLetter> {
        let payload = Payload { meta: self.meta.into(), body: Bytes::from(self.body) };
        Ok(RawLetter { letter: self.shown.letter()?, payload })
    }

    /// The job that the letter is of and its dead row, as it was before it was forgotten.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] when the letter is not of a job.
    pub fn job(self) -> Answer<(Row, StoredJob)> {
        let (takeovers, effect_possible) = (unsigned(self.takeovers)?, self.effect_possible);
        let sha = self.payload_sha256.as_deref().map(sha256).transpose()?;
        let RawLetter { letter, payload } = self.raw_letter()?;
        let (Some(tenant), Some(id), Some(endpoint), Some(published_at), Some(payload_sha256)) =
            (letter.tenant, letter.id, letter.endpoint, letter.published_at, sha)
        else {
            return Err(Fault::Unreadable(format!("letter {} lacks what its job had", letter.instance)));
        };
        let row = Row {
            instance: letter.instance,
            state: State::Dead,
            reason: Reason::Dead(letter.reason),
            attempt: letter.attempts,
            generation: letter.generation,
            takeovers,
            effect_possible,
            cancel_requested: false,
            holds_key: false,
            has_payload: true,
            token: None,
            worker: None,
            published_at,
            payload_sha256,
            resume_at: None,
            released_at: None,
            held_since: None,
            ended_at: Some(letter.died_at),
        };
        let (id, endpoint) = (JobId::new(&id)?, EndpointName::new(&endpoint)?);
        Ok((row, StoredJob { lane: letter.lane, tenant, id, endpoint, published_at, payload }))
    }
}

/// Whole letters in the order of their places; one that can't be read is named in the log.
pub fn in_order(places: &[PlaceRecord], records: Vec<FullLetterRecord>) -> Vec<RawLetter> {
    let read = |record: FullLetterRecord| {
        let instance = record.shown.instance;
        let letter = record.raw_letter();
        letter
            .inspect_err(|fault| tracing::error!(%instance, ?fault, "a letter can't be read, so it is left alone"))
            .ok()
    };
    let mut letters: HashMap<Uuid, RawLetter> =
        records.into_iter().filter_map(read).map(|found| (found.letter.instance, found)).collect();
    places.iter().filter_map(|place| letters.remove(&place.instance)).collect()
}

/// An entry of the journal.
#[derive(Debug, FromRow)]
pub struct AttemptRow {
    pub started_at: i64,
    pub duration_us: i64,
    pub retry_after_ms: Option<i64>,
    pub resume_at: Option<i64>,
    pub generation: i32,
    pub attempt: i32,
    pub status: Option<i32>,
    pub class: String,
    pub detail: String,
    pub rate_headers: String,
    pub next: String,
    pub reason: String,
}

impl AttemptRow {
    /// As it is stored.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] never in practice: header names and values are plain text.
    pub fn of(record: &AttemptRecord) -> Answer<Self> {
        Ok(Self {
            started_at: record.started_at.as_micros(),
            duration_us: i64::try_from(record.duration_us).unwrap_or(i64::MAX),
            retry_after_ms: record.retry_after_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
            resume_at: record.resume_at.map(Timestamp::as_micros),
            generation: signed(record.generation),
            attempt: signed(record.attempt),
            status: record.status.map(i32::from),
            class: free_text(&record.class),
            detail: free_text(&record.detail),
            rate_headers: serde_json::to_string(&record.rate_headers)?,
            next: free_text(&record.next),
            reason: free_text(&record.reason),
        })
    }

    /// As the seam tells it.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] when the row was not written by this program.
    pub fn record(self) -> Answer<AttemptRecord> {
        Ok(AttemptRecord {
            generation: unsigned(self.generation)?,
            attempt: unsigned(self.attempt)?,
            started_at: Timestamp::from_micros(self.started_at),
            duration_us: u64::try_from(self.duration_us).unwrap_or(0),
            class: self.class,
            status: self.status.and_then(|status| u16::try_from(status).ok()),
            detail: self.detail,
            retry_after_ms: self.retry_after_ms.and_then(|ms| u64::try_from(ms).ok()),
            rate_headers: serde_json::from_str(&self.rate_headers)?,
            next: self.next,
            reason: self.reason,
            resume_at: self.resume_at.map(Timestamp::from_micros),
        })
    }
}
