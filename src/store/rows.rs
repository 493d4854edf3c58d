//! What a store shows: rows of jobs, letters, workers and journal, and how they are filtered.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::job::budget::Account;
use crate::job::verdict::DeadReason;
use crate::job::{EndpointName, JobId, LaneName, Tenant};

/// A registered worker process; rows in state `run` point to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub i64);

/// State of a job's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A worker has claimed it.
    Run,
    /// It waits in the store for a reason, until a time.
    Waiting,
    /// It was released; its wake-up is, or will be, in the due queue.
    Queued,
    /// Succeeded.
    Done,
    /// Dead letter.
    Dead,
    /// Cancelled by an operator.
    Cancelled,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] = [Self::Run, Self::Waiting, Self::Queued, Self::Done, Self::Dead, Self::Cancelled];

    /// The state as stored (a small integer) .
    pub const fn code(self) -> i16 {
        match self {
            Self::Run => 1,
            Self::Waiting => 2,
            Self::Queued => 3,
            Self::Done => 4,
            Self::Dead => 5,
            Self::Cancelled => 6,
        }
    }

    /// The state behind a stored code.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.code() == code)
    }

    /// The state as a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    /// Not ended.
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Run | Self::Waiting | Self::Queued)
    }
}

/// The bytes that bring a job back: its meta (JSON of `JobMeta`) and its body, opaque to the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload {
    /// Serialized meta.
    pub meta: Bytes,
    /// The body.
    pub body: Bytes,
}

/// A row as shown to people; everything but key, token and payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRow {
    /// The handle.
    pub instance: Uuid,
    /// Lane.
    pub lane: LaneName,
    /// Tenant.
    pub tenant: Tenant,
    /// Deduplication id.
    pub id: JobId,
    /// Endpoint.
    pub endpoint: EndpointName,
    /// Publish time.
    pub published_at: Timestamp,
    /// State.
    pub state: State,
    /// Why it waits or died; empty otherwise.
    pub reason: String,
    /// Calls begun in this generation.
    pub attempt: u32,
    /// 1, and one more for each replay.
    pub generation: u32,
    /// How many workers died with it.
    pub takeovers: u32,
    /// A call of it may have had an effect that nobody saw.
    pub effect_possible: bool,
    /// An operator asked to cancel it while it ran.
    pub cancel_requested: bool,
    /// It holds its key (false for followers and replays).
    pub holds_key: bool,
    /// When it will resume, while it waits.
    pub resume_at: Option<Timestamp>,
    /// When its wake-up was released, while it is queued.
    pub released_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Since when budgets or blocks hold it back, before its next call.
    pub held_since: Option<Timestamp>,
    /// Who runs it.
    pub worker: Option<WorkerId>,
}

/// One entry of the journal of attempts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Generation of the job.
    pub generation: u32,
    /// 1 for the first call.
    pub attempt: u32,
    /// When the call began.
    pub started_at: Timestamp,
    /// Microseconds it took.
    pub duration_us: u64,
    /// Class word (`ok`, `rate_limited`, ...).
    pub class: String,
    /// HTTP status.
    pub status: Option<u16>,
    /// The failure, or the start of the answer's body.
    pub detail: String,
    /// Milliseconds that the server asked for.
    pub retry_after_ms: Option<u64>,
    /// Rate headers as sent.
    pub rate_headers: Vec<(String, String)>,
    /// What followed: `done`, `retry`, `dead`.
    pub next: String,
    /// Why (wait or dead reason word).
    pub reason: String,
    /// When the next call was due.
    pub resume_at: Option<Timestamp>,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    /// The job's handle; for a message that never was a job, derived from its bytes.
    pub instance: Uuid,
    /// Lane.
    pub lane: LaneName,
    /// Tenant; `None` when it could not be read.
    pub tenant: Option<Tenant>,
    /// Deduplication id; `None` when it could not be read.
    pub id: Option<String>,
    /// Endpoint; `None` when it could not be read.
    pub endpoint: Option<String>,
    /// Why.
    pub reason: DeadReason,
    /// For a person.
    pub detail: String,
    /// Publish time, where known.
    pub published_at: Option<Timestamp>,
    /// When it became a letter.
    pub died_at: Timestamp,
    /// Calls made.
    pub attempts: u32,
    /// Generation.
    pub generation: u32,
    /// How many equal messages came to this letter (raw letters only; 1 otherwise).
    pub copies: u32,
    /// True for a message that never was a job: `payload.meta` is then the JSON of its properties and headers.
    pub raw: bool,
    /// Bytes of the body.
    pub body_bytes: u64,
}

/// A message that never became a job, on its way to the letters.
#[derive(Debug, Clone, PartialEq)]
pub struct RawLetter {
    /// What is known of it.
    pub letter: Letter,
    /// Properties and headers (JSON) and body as they came.
    pub payload: Payload,
}

/// Which rows to list; all conditions must hold.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only this lane.
    pub lane: Option<LaneName>,
    /// Only this tenant.
    pub tenant: Option<Tenant>,
    /// Only this endpoint.
    pub endpoint: Option<EndpointName>,
    /// Only this state.
    pub state: Option<State>,
    /// Only this reason word.
    pub reason: Option<String>,
    /// Only this deduplication id.
    pub id: Option<String>,
    /// Only those after this one in the order of the list: the last of the page before.
    pub after: Option<(Timestamp, Uuid)>,
    /// Most rows, at most [`LIST_MAX`].
    pub limit: usize,
}

/// Which letters to list or act on; all conditions must hold.
#[derive(Debug, Clone, Default)]
pub struct LetterFilter {
    /// Only this lane.
    pub lane: Option<LaneName>,
    /// Only this tenant.
    pub tenant: Option<Tenant>,
    /// Only this endpoint.
    pub endpoint: Option<EndpointName>,
    /// Only this reason.
    pub reason: Option<DeadReason>,
    /// Only those after this one in the order of the list: the last of the page before.
    pub after: Option<(Timestamp, Uuid)>,
    /// Most letters, at most [`LIST_MAX`].
    pub limit: usize,
}

/// Letters that died of the same: of one endpoint, for one reason, of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterGroup {
    /// Endpoint; `None` when it could not be read.
    pub endpoint: Option<String>,
    /// Why.
    pub reason: DeadReason,
    /// Tenant; `None` when it could not be read.
    pub tenant: Option<Tenant>,
    /// How many.
    pub letters: u64,
    /// When the first of them died.
    pub first_at: Timestamp,
    /// When the last of them died.
    pub last_at: Timestamp,
}

/// Rows of a lane in one state and for one reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateCount {
    /// Lane.
    pub lane: LaneName,
    /// `run`, `waiting` or `queued`.
    pub state: State,
    /// Why they wait; empty otherwise.
    pub reason: String,
    /// How many.
    pub jobs: u64,
    /// The oldest publish time among them.
    pub oldest_published_at: Option<Timestamp>,
    /// The next resume time among them.
    pub next_resume_at: Option<Timestamp>,
}

/// Jobs of one lane, endpoint and tenant that wait for their turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldCount {
    /// Their lane.
    pub lane: LaneName,
    /// Their endpoint.
    pub endpoint: EndpointName,
    /// Their tenant.
    pub tenant: Tenant,
    /// How many.
    pub jobs: u64,
    /// Publish time of the oldest.
    pub oldest_published_at: Timestamp,
}

/// What is known of an account, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRow {
    /// Whose.
    pub account: Account,
    /// Higher with each write.
    pub version: i64,
    /// When it was written.
    pub changed_at: Timestamp,
    /// The JSON.
    pub knowledge: String,
}

/// What is to be known of an account from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountWrite {
    /// Whose.
    pub account: Account,
    /// The version it was made from; 0 = there was none.
    pub seen: i64,
    /// The version it makes: higher than any before, also of a row that was forgotten.
    pub version: i64,
    /// It may be forgotten after that.
    pub kept_until: Timestamp,
    /// The JSON.
    pub knowledge: String,
}

/// A worker process as shown to people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its id.
    pub id: WorkerId,
    /// `host:pid`.
    pub name: String,
    /// Since when.
    pub started_at: Timestamp,
    /// Last sign of life.
    pub heartbeat_at: Timestamp,
    /// Lanes, comma separated.
    pub lanes: String,
}
