//! What a store is asked to do, and what it answers: claims, settlements, releases, what an operator wants.

use std::time::Duration;

use uuid::Uuid;

use super::{JobRow, Payload, RawLetter, State, WorkerId};
use crate::clock::Timestamp;
use crate::job::budget::Slot;
use crate::job::verdict::{DeadReason, WaitReason};
use crate::job::{DedupKey, EndpointName, Identity, JobId, LaneName, Tenant};

/// A fresh message that asks to run.
#[derive(Debug, Clone)]
pub struct FreshClaim {
    /// Key of deduplication.
    pub key: DedupKey,
    /// The publish it comes from.
    pub instance: Uuid,
    /// Random, made for this claim; repeating the same claim with the same token is safe.
    pub token: Uuid,
    /// Lane.
    pub lane: LaneName,
    /// Tenant.
    pub tenant: Tenant,
    /// Deduplication id.
    pub id: JobId,
    /// Endpoint.
    pub endpoint: EndpointName,
    /// `least(what the message says, now)`.
    pub published_at: Timestamp,
    /// Two publishes of one id with different hashes are different jobs.
    pub payload_sha256: [u8; 32],
    /// Kept in the row until the job ends.
    pub payload: Payload,
    /// How the instance was found.
    pub identity: Identity,
    /// The broker has delivered this copy before.
    pub redelivered: bool,
    /// Why it can't be called soon: if it may run, it waits for its turn ([`IN_TURN`]) instead; `None` = it runs.
    pub in_turn: Option<WaitReason>,
}

/// A wake-up (a released job's hint) that asks to run.
#[derive(Debug, Clone, Copy)]
pub struct WokenClaim {
    /// Key of deduplication.
    pub key: DedupKey,
    /// The job.
    pub instance: Uuid,
    /// Random, made for this claim.
    pub token: Uuid,
}

/// What all claims of a batch share.
#[derive(Debug, Clone, Copy)]
pub struct ClaimContext {
    /// Who claims.
    pub worker: WorkerId,
    /// The store's time.
    pub now: Timestamp,
    /// The deduplication window.
    pub window: Duration,
}

/// What a claim was answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Claimed {
    /// The caller owns the job until it settles it with its token.
    Run(Granted),
    /// It may run, and waits for its turn, as the claim asked for. Ack.
    InTurn,
    /// Another instance is alive and out of the window: this one became a waiting follower row. Ack.
    Parked,
    /// In the window of another instance. Ack, or bury when the payload differs.
    Duplicate {
        /// The instance that keeps the key.
        original: Uuid,
        /// Its state.
        state: State,
        /// The two payloads differ.
        different_payload: bool,
    },
    /// The job's own row carries it, or it has ended. Ack.
    Stale,
    /// A released replay or follower that found its id done meanwhile; its row is now a dead letter. Ack.
    Superseded {
        /// The instance that succeeded, or may have.
        by: Uuid,
        /// The row that became a dead letter.
        row: JobRow,
    },
}

/// A granted claim.
#[derive(Debug, Clone, PartialEq)]
pub struct Granted {
    /// The instance the row has: differs from the claim's where a derived identity had to be minted anew.
    pub instance: Uuid,
    /// Calls begun in this generation, this one included.
    pub attempt: u32,
    /// 1, and one more for each replay.
    pub generation: u32,
    /// How many workers died with this job.
    pub takeovers: u32,
    /// A call of it may have had an effect that nobody saw.
    pub effect_possible: bool,
    /// When its wake-up was released; `None` for a fresh claim.
    pub released_at: Option<Timestamp>,
    /// Since when budgets or blocks hold it back; `None` = they have not.
    pub held_since: Option<Timestamp>,
    /// What the row holds; `None` for a fresh claim, whose caller has it in hand.
    pub stored: Option<Box<StoredJob>>,
}

/// A job read back from its row.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredJob {
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
    /// Meta and body.
    pub payload: Payload,
}

/// How a claimed job's row leaves state `run`, guarded by the claim's token.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Key of deduplication.
    pub key: DedupKey,
    /// The row's instance.
    pub instance: Uuid,
    /// The claim's token.
    pub token: Uuid,
    /// Where it goes.
    pub next: Next,
    /// The call may have had an effect that nobody saw: sticky.
    pub effect_possible: bool,
    /// What to write into the journal of attempts; `None` when no call was made or there is nothing to tell.
    pub attempt: Option<Box<super::AttemptRecord>>,
}

/// Where a settlement leads.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Succeeded: payload dropped, row kept for deduplication.
    Done,
    /// Waits (or ends cancelled, when an operator asked for that while it ran).
    Waiting {
        /// Why.
        reason: WaitReason,
        /// Until when.
        resume_at: Timestamp,
        /// False when no call was made: the attempt that the claim counted is taken back.
        counted: bool,
    },
    /// Dead letter: the payload moves to the letters.
    Dead {
        /// Why.
        reason: DeadReason,
        /// For a person.
        detail: String,
        /// False when no call was made: the attempt that the claim counted is taken back.
        counted: bool,
    },
}

/// What a settlement was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The row is now in this state (`Cancelled` instead of `Waiting` when that was asked for). Also the answer when the
    /// same settlement, sent before, had been committed and only its answer was lost.
    Applied(State),
    /// Somebody else owns the job (zero rows): decide again about the copy in hand, never ack from memory.
    Lost,
}

/// A job whose wake-up has to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wake {
    /// Its lane.
    pub lane: LaneName,
    /// Its key.
    pub key: DedupKey,
    /// Its instance.
    pub instance: Uuid,
}

/// A `run` row of a dead worker and what became of it.
#[derive(Debug, Clone)]
pub struct TakenOver {
    /// The row after the takeover: `queued` (publish its wake-up), `dead` with reason poison, or `cancelled` when that
    /// had been asked for while it ran.
    pub row: JobRow,
    /// Its key, for the wake-up.
    pub key: DedupKey,
}

/// What became of a replay.
#[derive(Debug, Clone, PartialEq)]
pub enum Replayed {
    /// It waits to be released; the new generation.
    Waiting(u32),
    /// The letter is of a message that never was a job: publish these bytes to its lane again, then discard the letter.
    Raw(Box<RawLetter>),
    /// There is no such letter (already replayed or discarded).
    NotFound,
}

/// What became of a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelAnswer {
    /// It will not be called any more.
    Cancelled,
    /// It is being called now; it will not be called again.
    Running,
    /// It had already ended in this state.
    Ended(State),
    /// There is no such job.
    NotFound,
}

/// What became of a job that was to be hurried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hastened {
    /// It was to wait longer, and is due now.
    Hurried,
    /// It was due already: it is on its way to a worker.
    Due,
    /// It waits for its turn: its budget, a block or a pause decides when it goes, no time of its own.
    InTurn,
    /// It waits until no other job of its key is alive.
    KeyBusy,
    /// It is being called now.
    Running,
    /// It had already ended in this state.
    Ended(State),
    /// There is no such job.
    NotFound,
}

/// How finished rows are forgotten (model/protocol.md section 7).
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Rows published at or before this time may go (the lane's watermark of some minutes ago, minus window and slack).
    pub published_before: Timestamp,
    /// Rows that ended at or before this time go in any case (the cap).
    pub ended_before: Timestamp,
    /// Most rows of one chunk.
    pub limit: usize,
}

/// What one chunk of forgetting removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Rows removed because the watermark has passed them.
    pub by_watermark: u64,
    /// Rows removed only because of the cap.
    pub by_cap: u64,
}

/// The time until which a job waits whose budget alone brings it back: later than any that comes.
pub const IN_TURN: Timestamp = Timestamp::from_secs(253_402_214_400); // 9999-12-31

/// Jobs of one endpoint and tenant that wait for their turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// Their endpoint.
    pub endpoint: EndpointName,
    /// Their tenant.
    pub tenant: Tenant,
    /// How many others of them were released and are not claimed yet.
    pub queued: u64,
}

/// How many jobs of one endpoint and tenant go next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Their endpoint.
    pub endpoint: EndpointName,
    /// Their tenant.
    pub tenant: Tenant,
    /// How many at most.
    pub jobs: u32,
    /// What [`Gate::queued`] was when this was decided.
    pub queued: u64,
}

/// Who shares slots: one lane of one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The worker.
    pub worker: WorkerId,
    /// Its lane.
    pub lane: LaneName,
    /// The longest time that one of its calls may take. So long after its last grant, what it did not use of it goes to
    /// others, should it fall silent.
    pub longest_call: Duration,
}

/// What a holder uses and wants of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotAsk {
    /// The key, and how many slots it has.
    pub slot: Slot,
    /// Calls in flight now, and those that may start before the answer.
    pub in_use: u32,
    /// How many slots it could use from now on, those in use included.
    pub wanted: u32,
}

/// What all holders together have of a key. A sum that does not fit is the largest number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotUse {
    /// The key.
    pub key: String,
    /// Calls in flight, as of each holder's last ask.
    pub in_use: u32,
    /// Slots that nobody else can have; those in use included.
    pub held: u32,
    /// Slots that were asked for, those held included.
    pub wanted: u32,
}
