//! How rows of either database become the seam's types.

mod counts;
mod controls;
mod operations;
mod slots;

use sqlx::FromRow;
use uuid::Uuid;

use super::fault::{Answer, Fault, unsigned};
use super::transition::{self, Reason, Row};
use super::{
    AccountRow, Gate, HeldCount, JobRow, Payload, Purged, Retention, State, StateCount, StoredJob, Wake, WorkerId,
    WorkerRow,
};
use crate::clock::Timestamp;
use crate::job::budget::Account;
use crate::job::{DedupKey, EndpointName, JobId, LaneName, Tenant};

pub use controls::*;
pub use counts::*;
pub(super) use operations::operation_columns;
pub use operations::*;
pub use slots::*;

fn state(code: i16) -> Answer<State> {
    State::from_code(code).ok_or_else(|| Fault::Unreadable(format!("state {code}")))
}

/// The columns of a job's row, without its payload, as [`JobRecord`] reads them.
macro_rules! job_columns {
    () => {
        "published_at, resume_at, released_at, ended_at, held_since, worker, attempt, generation, takeovers, state, effect_possible, \
         cancel_requested, holds_key, key, instance, token, lane, tenant, id, endpoint, reason, payload_sha256"
    };
}
pub(super) use job_columns;

/// A stored hash.
pub fn sha256(bytes: &[u8]) -> Answer<[u8; 32]> {
    bytes.try_into().map_err(|_| Fault::Unreadable(format!("a SHA-256 of {} bytes", bytes.len())))
}

/// A row of jobs without its payload.
#[derive(Debug, Clone, FromRow)]
pub struct JobRecord {
    pub published_at: i64,
    pub resume_at: Option<i64>,
    pub released_at: Option<i64>,
    pub ended_at: Option<i64>,
    pub held_since: Option<i64>,
    pub worker: Option<i64>,
    pub attempt: i32,
    pub generation: i32,
    pub takeovers: i32,
    pub state: i16,
    pub effect_possible: bool,
    pub cancel_requested: bool,
    pub holds_key: bool,
    pub key: Uuid,
    pub instance: Uuid,
    pub token: Option<Uuid>,
    pub lane: String,
    pub tenant: String,
    pub id: String,
    pub endpoint: String,
    pub reason: String,
    pub payload_sha256: Vec<u8>,
}

impl JobRecord {
    /// As shown to people.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] when the row was not written by this program.
    pub fn job_row(&self) -> Answer<JobRow> {
        Ok(JobRow {
            instance: self.instance,
            lane: LaneName::new(&self.lane)?,
            tenant: Tenant::new(&self.tenant)?,
            id: JobId::new(&self.id)?,
            endpoint: EndpointName::new(&self.endpoint)?,
            published_at: Timestamp::from_micros(self.published_at),
            state: state(self.state)?,
            reason: self.reason.clone(),
            attempt: unsigned(self.attempt)?,
            generation: unsigned(self.generation)?,
            takeovers: unsigned(self.takeovers)?,
            effect_possible: self.effect_possible,
            cancel_requested: self.cancel_requested,
            holds_key: self.holds_key,
            resume_at: self.resume_at.map(Timestamp::from_micros),
            released_at: self.released_at.map(Timestamp::from_micros),
            ended_at: self.ended_at.map(Timestamp::from_micros),
            held_since: self.held_since.map(Timestamp::from_micros),
            worker: self.worker.map(WorkerId),
        })
    }

    /// As shown to people, once `row` is written.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] when the row was not written by this program.
    pub fn shown_as(&self, row: &Row) -> Answer<JobRow> {
        Ok(JobRow {
            state: row.state,
            reason: row.reason.stored().unwrap_or(&self.reason).to_owned(),
            attempt: row.attempt,
            generation: row.generation,
            takeovers: row.takeovers,
            effect_possible: row.effect_possible,
            cancel_requested: row.cancel_requested,
            holds_key: row.holds_key,
            resume_at: row.resume_at,
            released_at: row.released_at,
            ended_at: row.ended_at,
            held_since: row.held_since,
            worker: row.worker,
            ..self.job_row()?
        })
    }

    /// As the protocol reads it.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] when the row was not written by this program.
    pub fn row(&self) -> Answer<Row> {
        let state = state(self.state)?;
        Ok(Row {
            instance: self.instance,
            state,
            reason: Reason::parse(&self.reason),
            attempt: unsigned(self.attempt)?,
            generation: unsigned(self.generation)?,
            takeovers: unsigned(self.takeovers)?,
            effect_possible: self.effect_possible,
            cancel_requested: self.cancel_requested,
            holds_key: self.holds_key,
            has_payload: state.is_alive() || state == State::Dead,
            token: self.token,
            worker: self.worker.map(WorkerId),
            published_at: Timestamp::from_micros(self.published_at),
            payload_sha256: sha256(&self.payload_sha256)?,
            resume_at: self.resume_at.map(Timestamp::from_micros),
            released_at: self.released_at.map(Timestamp::from_micros),
            ended_at: self.ended_at.map(Timestamp::from_micros),
            held_since: self.held_since.map(Timestamp::from_micros),
        })
    }

    /// What a running row becomes when its worker is dead, and how that is shown; `None`, with a word in the log, when the
    /// row was not written by this program.
    pub fn taken_over(&self, poison_after: u32, now: Timestamp) -> Option<(Row, JobRow)> {
        let after = self.row().map(|row| transition::sweep_run(&row, poison_after, now));
        match after.and_then(|after| after.map(|after| Ok((after, self.shown_as(&after)?))).transpose()) {
            Ok(taken) => taken,
            Err(fault) => {
                tracing::error!(instance = %self.instance, ?fault, "a dead worker's job can't be read, so nobody takes it over");
                None
            }
        }
    }

    /// The row's key.
    pub fn dedup_key(&self) -> DedupKey {
        DedupKey(self.key.into_bytes())
    }
}

/// A row of jobs with its payload.
#[derive(Debug, FromRow)]
pub struct StoredRecord {
    #[sqlx(flatten)]
    pub job: JobRecord,
    pub meta: Option<Vec<u8>>,
    pub body: Option<Vec<u8>>,
}

impl StoredRecord {
    /// What a wake-up's claimant gets.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] when the row was not written by this program: no row that is alive is without payload.
    pub fn stored(self) -> Answer<StoredJob> {
        let (Some(meta), Some(body)) = (self.meta, self.body) else {
            return Err(Fault::Unreadable(format!("job {} has no payload", self.job.instance)));
        };
        Ok(StoredJob {
            lane: LaneName::new(&self.job.lane)?,
            tenant: Tenant::new(&self.job.tenant)?,
            id: JobId::new(&self.job.id)?,
            endpoint: EndpointName::new(&self.job.endpoint)?,
            published_at: Timestamp::from_micros(self.job.published_at),
            payload: Payload { meta: meta.into(), body: body.into() },
        })
    }
}

/// A living worker.
#[derive(Debug, FromRow)]
pub struct WorkerRecord {
    pub id: i64,
    pub started_at: i64,
    pub heartbeat_at: i64,
    pub name: String,
    pub lanes: String,
}

impl From<WorkerRecord> for WorkerRow {
    fn from(record: WorkerRecord) -> Self {
        Self {
            id: WorkerId(record.id),
            name: record.name,
            started_at: Timestamp::from_micros(record.started_at),
            heartbeat_at: Timestamp::from_micros(record.heartbeat_at),
            lanes: record.lanes,
        }
    }
}

/// A released job.
#[derive(Debug, FromRow)]
pub struct WakeRecord {
    pub key: Uuid,
    pub instance: Uuid,
    pub due_at: i64,
}

impl WakeRecord {
    /// As the seam tells it.
    pub fn wake(&self, lane: &LaneName) -> Wake {
        Wake { lane: lane.clone(), key: DedupKey(self.key.into_bytes()), instance: self.instance }
    }
}

/// Whose jobs wait for their turn.
#[derive(Debug, FromRow)]
pub struct GateRecord {
    pub endpoint: String,
    pub tenant: String,
    pub queued: i64,
}

impl GateRecord {
    /// As the seam tells it.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] when a row was not written by this program.
    pub fn gate(self) -> Answer<Gate> {
        Ok(Gate {
            endpoint: EndpointName::new(&self.endpoint)?,
            tenant: Tenant::new(&self.tenant)?,
            queued: u64::try_from(self.queued).unwrap_or(0),
        })
    }
}

/// Jobs that wait for a turn.
#[derive(Debug, FromRow)]
pub struct HeldRecord {
    pub lane: String,
    pub endpoint: String,
    pub tenant: String,
    pub jobs: i64,
    pub oldest: i64,
}

impl HeldRecord {
    /// As the seam tells it.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] when the row was not written by this program.
    pub fn count(self) -> Answer<HeldCount> {
        Ok(HeldCount {
            lane: LaneName::new(&self.lane)?,
            endpoint: EndpointName::new(&self.endpoint)?,
            tenant: Tenant::new(&self.tenant)?,
            jobs: u64::try_from(self.jobs).unwrap_or(0),
            oldest_published_at: Timestamp::from_micros(self.oldest),
        })
    }
}

/// What is known of an account.
#[derive(Debug, FromRow)]
pub struct AccountRecord {
    pub version: i64,
    pub changed_at: i64,
    pub endpoint: String,
    pub tenant: String,
    pub knowledge: String,
}

impl AccountRecord {
    /// As the seam tells it.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] when the row was not written by this program.
    pub fn row(self) -> Answer<AccountRow> {
        let tenant = (!self.tenant.is_empty()).then(|| Tenant::new(&self.tenant)).transpose()?;
        Ok(AccountRow {
            account: Account { endpoint: EndpointName::new(&self.endpoint)?, tenant },
            version: self.version,
            changed_at: Timestamp::from_micros(self.changed_at),
            knowledge: self.knowledge,
        })
    }
}

/// The tenant of an account as it is stored: no tenant's name is empty.
pub fn tenant_text(account: &Account) -> &str {
    account.tenant.as_ref().map_or("", Tenant::as_str)
}

/// A count of rows.
#[derive(Debug, FromRow)]
pub struct CountRecord {
    pub lane: String,
    pub state: i16,
    pub reason: String,
    pub jobs: i64,
    pub oldest: Option<i64>,
    pub next: Option<i64>,
}

impl CountRecord {
    /// As the seam tells it.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] when a row was not written by this program.
    pub fn state_count(self) -> Answer<StateCount> {
        Ok(StateCount {
            lane: LaneName::new(&self.lane)?,
            state: state(self.state)?,
            reason: self.reason,
            jobs: u64::try_from(self.jobs).unwrap_or(0),
            oldest_published_at: self.oldest.map(Timestamp::from_micros),
            next_resume_at: self.next.map(Timestamp::from_micros),
        })
    }
}

/// Consuming minutes of a lane whose marks are kept: a day, many times what retention looks back.
pub const MARKS_KEPT: i64 = 1_440;

/// The minute that a moment is in.
pub fn minute_of(now: Timestamp) -> i64 {
    now.as_micros().div_euclid(60_000_000)
}

/// The mark to look at for "`minutes` ago", counted from the newest: a minute's mark is final only at its end, and the
/// newest minute has not ended.
pub fn whole_minutes_back(minutes: u32) -> i64 {
    if minutes == 0 { 0 } else { i64::from(minutes) + 1 }
}

/// Tells rows that were removed because the watermark has passed them from those that only the cap removed.
pub fn purged(published_at: impl Iterator<Item = i64>, retention: &Retention) -> Purged {
    let mut purged = Purged::default();
    for published_at in published_at {
        if published_at <= retention.published_before.as_micros() {
            purged.by_watermark += 1;
        } else {
            purged.by_cap += 1;
        }
    }
    purged
}

/// The meta of a job that may be called from now on, whatever it was published with.
///
/// # Errors
/// [`Fault::Unreadable`] when it was not written by this program.
pub fn without_not_before(meta: &[u8]) -> Answer<Vec<u8>> {
    let mut meta: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(meta)?;
    meta.remove("not_before");
    Ok(serde_json::to_vec(&meta)?)
}
