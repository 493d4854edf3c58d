//! The closed list of what may be told about a job; telemetry turns each into metric, log line and span.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::budget::Account;
use super::trace::Context;
use super::verdict::{Class, DeadReason, WaitReason};
use super::{EndpointName, Job, LaneName, Tenant};
use crate::clock::Timestamp;

/// Something that happened, already settled in the store where it concerns a job.
#[derive(Debug, Clone)]
pub enum Event {
    /// A publish was confirmed by the broker.
    Published {
        /// The lane.
        lane: LaneName,
        /// Who published it: one of `telemetry::PUBLISH_SOURCES`.
        source: &'static str,
    },
    /// A copy was dropped: its job is in the window of another one that is alive or done.
    Duplicate {
        /// The lane.
        lane: LaneName,
        /// The copy's instance.
        instance: Uuid,
        /// The instance that keeps the key.
        original: Uuid,
    },
    /// A copy of a job whose row already says everything; acked.
    Stale {
        /// The lane.
        lane: LaneName,
    },
    /// A job was parked before any call.
    Waiting {
        /// The job's lane.
        lane: LaneName,
        /// Why.
        reason: WaitReason,
    },
    /// A granted job is about to be called for the first time in this attempt.
    Started {
        /// The job.
        job: Arc<Job>,
        /// Time from publish (or from when it became due) to this call.
        waited: Duration,
        /// How long budgets, blocks and slots held it back; `None` where there are none for it.
        held_back: Option<Duration>,
    },
    /// A call has ended and its result is settled.
    Attempt(Box<AttemptEvent>),
    /// A call has ended, but its row had been taken over meanwhile: its result no longer counts for the job.
    LateResult {
        /// The job.
        job: Arc<Job>,
        /// 1 for the first call.
        attempt: u32,
        /// What the facts meant.
        class: Class,
        /// The HTTP status, when there was one.
        status: Option<u16>,
    },
    /// A message became a dead letter before it was a job.
    Refused {
        /// The lane.
        lane: LaneName,
        /// Why.
        reason: DeadReason,
        /// For a person.
        detail: String,
    },
    /// A job ended dead without a call of its own just now (expired, poison, superseded, exhausted by crashes).
    Died {
        /// Its lane.
        lane: LaneName,
        /// Its endpoint.
        endpoint: EndpointName,
        /// Its tenant.
        tenant: Tenant,
        /// Its instance.
        instance: Uuid,
        /// Why.
        reason: DeadReason,
        /// For a person.
        detail: String,
    },
    /// A job was cancelled by an operator.
    Cancelled {
        /// Its lane.
        lane: LaneName,
    },
    /// A dead worker's job was given back to its lane.
    TakenOver {
        /// Its lane.
        lane: LaneName,
        /// The job's instance.
        instance: Uuid,
        /// How often that has happened to it.
        takeovers: u32,
    },
    /// An account is blocked, probed, or open again.
    Circuit {
        /// Whose.
        account: Account,
        /// The new state as a word.
        state: &'static str,
        /// Until when nothing is called.
        until: Option<Timestamp>,
        /// The failure, for a person.
        detail: String,
    },
    /// A message lacked something that lanes had to make up.
    Weak {
        /// The lane.
        lane: LaneName,
        /// What was missing.
        what: Weakness,
    },
}

/// What a message lacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Weakness {
    /// No message id: the job cannot be deduplicated.
    NoId,
    /// No instance: it was derived from the content.
    DerivedIdentity,
    /// Delivery mode 1: the broker may lose it.
    NonDurable,
}

/// One call and what it led to.
#[derive(Debug, Clone)]
pub struct AttemptEvent {
    /// The job.
    pub job: Arc<Job>,
    /// 1 for the first call.
    pub attempt: u32,
    /// The call's place in its trace, where traces are exported.
    pub trace: Option<Context>,
    /// When the call began.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// The HTTP status, when there was one.
    pub status: Option<u16>,
    /// What the facts meant.
    pub class: Class,
    /// For a person: the failure, or the start of the answer's body. Empty when it worked.
    pub detail: String,
    /// What the server asked us to wait.
    pub retry_after: Option<Duration>,
    /// Rate headers as sent, allow-listed.
    pub rate_headers: Vec<(String, String)>,
    /// The budgets of requests that those headers describe.
    pub rate_readings: Vec<RateSeen>,
    /// What was learnt from the answer, where that changes how the account is called.
    pub learnt: Option<String>,
    /// How long budgets, blocks and slots held the call back.
    pub held_back: Duration,
    /// What happens now.
    pub next: AttemptNext,
}

/// One budget of requests as an answer described it; a hint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateSeen {
    /// Calls allowed per window.
    pub limit: Option<f64>,
    /// Calls left.
    pub remaining: Option<f64>,
}

/// What follows a call.
#[derive(Debug, Clone, PartialEq)]
pub enum AttemptNext {
    /// The job succeeded.
    Done {
        /// From publish to now.
        job_duration: Duration,
    },
    /// It is called again.
    Retry {
        /// The wait that was chosen.
        delay: Duration,
        /// Not before this time.
        at: Timestamp,
        /// Why.
        reason: WaitReason,
        /// The server asked for more than the configured most; it was cut.
        capped: bool,
    },
    /// It is dead.
    Dead {
        /// Why.
        reason: DeadReason,
        /// From publish to now.
        job_duration: Duration,
    },
    /// An operator had cancelled it while it ran.
    Cancelled,
}
