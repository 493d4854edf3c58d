//! Seam 2: atomic shared state, one narrow trait per role. Returns facts; computes no delay and reads no clock.
//!
//! The protocol (states, decision table, guarded updates) is the project's heart; it is explained in ARCHITECTURE.md,
//! decided by the pure [`decide`] and explored exhaustively by `tests/it/model.rs`.

mod controls;
pub mod decide;
mod fault;
pub mod gcra;
mod letter;
mod notices;
mod operations;
pub mod postgres;
mod record;
mod rows;
pub mod slots;
pub mod sqlite;
mod step;
pub mod transition;
mod verbs;

use std::fmt;

use async_trait::async_trait;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::job::LaneName;
use crate::job::budget::{Account, Take, Taken};
use crate::job::history::{Count, Measure, Pieces, Series, Step};

pub use controls::*;
pub use notices::*;
pub use operations::*;
pub use rows::*;
pub use slots::GRANT_GOOD_FOR;
pub use verbs::*;

/// Most entries of one claim or settle batch.
pub const BATCH_MAX: usize = 500;

/// Most bytes of payload (meta and body) that one batch of claims or letters carries; a batch of one entry may be larger.
/// Callers keep to it, so that a batch crosses the network and is written well within the bound on every call.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Most series of one write of counts.
pub const HISTORY_MAX: usize = 5_000;
/// Most counts of one reading of pieces of time.
pub const HISTORY_PIECES_MAX: usize = 20_000;

/// Most rows that one list answers.
pub const LIST_MAX: usize = 1_000;

/// What can go wrong at a store. Every text names the address without its password.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or did not answer in time. The outcome of a write is then unknown: send it again.
    #[error("store {address}: {why}")]
    Unavailable {
        /// Where, without credentials.
        address: String,
        /// Why.
        why: String,
    },
    /// One entry of the batch can never be stored (a value out of range, a broken constraint): send the others without it.
    #[error("store {address} rejects an entry: {why}")]
    Rejected {
        /// Where, without credentials.
        address: String,
        /// Why.
        why: String,
    },
    /// It answered with an error that sending again will not cure by itself (schema missing, permission, bug): an
    /// operator may. Wait for that; the jobs are healthy.
    #[error("store {address} failed: {why}")]
    Failed {
        /// Where, without credentials.
        address: String,
        /// Why, and what to do.
        why: String,
    },
}

/// Short form of a store's answer.
pub type StoreResult<T> = Result<T, StoreError>;

/// Claiming, settling, releasing: what the engine lives on.
///
/// Every call is bounded in time by the backend. A call whose answer was lost may be sent again unchanged.
#[async_trait]
pub trait JobStore: Send + Sync + fmt::Debug {
    /// Decides about fresh messages, in one transaction; answers in the order of `claims`, which may hold equal keys.
    /// At most [`BATCH_MAX`]. A batch never mixes lanes.
    async fn claim_fresh(&self, ctx: ClaimContext, claims: &[FreshClaim]) -> StoreResult<Vec<Claimed>>;

    /// Decides about wake-ups; answers in the order of `claims`.
    async fn claim_woken(&self, ctx: ClaimContext, claims: &[WokenClaim]) -> StoreResult<Vec<Claimed>>;

    /// Settles claims, journal and letters included, in one transaction; answers in order.
    async fn settle(&self, now: Timestamp, settlements: &[Settlement]) -> StoreResult<Vec<Settled>>;

    /// Marks waiting rows of `lane` that are due as `queued`, oldest due first, at most `limit`, and only while fewer
    /// than `queued_max` rows of the lane are queued. Followers and replays only when nobody alive holds their key, one
    /// per key. Committed when this returns: publish the wake-ups then.
    async fn release(&self, lane: &LaneName, now: Timestamp, limit: usize, queued_max: usize)
    -> StoreResult<Vec<Wake>>;

    /// The earliest time at which a waiting row of `lane` that could be released will be due.
    async fn next_due(&self, lane: &LaneName) -> StoreResult<Option<Timestamp>>;

    /// Marks `queued` rows of `lane` released before `released_before` as released `now`: publish their wake-ups again.
    async fn sweep_queued(
        &self,
        lane: &LaneName,
        now: Timestamp,
        released_before: Timestamp,
        limit: usize,
    ) -> StoreResult<Vec<Wake>>;

    /// Gives back `run` rows whose worker is not registered (any more): `queued`, `effect_possible`, takeovers + 1; a row
    /// that reaches `poison_after` takeovers becomes a dead letter instead. Reads the whole table, chunk by chunk, each
    /// bounded by itself: call it when a worker was buried, and now and then for claims that a zombie committed afterwards.
    async fn sweep_run(&self, now: Timestamp, poison_after: u32, limit: usize) -> StoreResult<Vec<TakenOver>>;

    /// Puts a dead letter back to work: `waiting` (replay), generation + 1, attempt 0, not holding its key.
    async fn replay(&self, instance: Uuid, now: Timestamp) -> StoreResult<Replayed>;

    /// Makes waiting jobs due `now` that wait for a time of their own; answers in order, at most [`BATCH_MAX`]. What waits for
    /// a turn in a budget or for its key stays, and why. One that was not to be called before a time may be called from now
    /// on. Where any was hurried, `line` is written in the same transaction, with their number ([`AuditEntry::of_jobs`]).
    async fn hasten(&self, instances: &[Uuid], now: Timestamp, line: &AuditEntry) -> StoreResult<Vec<Hastened>>;

    /// Cancels a job that is not running; asks a running one not to be called again.
    async fn cancel(&self, instance: Uuid, now: Timestamp) -> StoreResult<CancelAnswer>;

    /// Raises the mark of `lane` for the minute of `now`: the highest publish time claimed so far.
    async fn raise_mark(&self, lane: &LaneName, now: Timestamp, published_at: Timestamp) -> StoreResult<()>;

    /// The mark of `lane` as it was `minutes` consuming minutes ago; `None` while there is no such history.
    async fn mark(&self, lane: &LaneName, minutes: u32) -> StoreResult<Option<Timestamp>>;

    /// Removes one chunk of ended rows of `lane`; a row whose key has followers or replays alive stays.
    async fn purge(&self, lane: &LaneName, retention: Retention) -> StoreResult<Purged>;
}

/// What all workers know of accounts at APIs, beyond the configuration. Opaque here; a write names the version it was made
/// from, so that nothing that another worker wrote is lost.
#[async_trait]
pub trait AccountStore: Send + Sync + fmt::Debug {
    /// Those written at `since` or later, the latest first, at most `limit`.
    async fn accounts(&self, since: Timestamp, limit: usize) -> StoreResult<Vec<AccountRow>>;

    /// One; `None` when nothing is known of it.
    async fn account(&self, account: &Account) -> StoreResult<Option<AccountRow>>;

    /// Writes what is known, over the version [`AccountWrite::seen`]; false = somebody else has written meanwhile, or
    /// the row is gone. When the answer was lost, read again: of two equal writes one answers false.
    async fn put_account(&self, write: &AccountWrite, now: Timestamp) -> StoreResult<bool>;

    /// Forgets those that are kept until a time before `before`; answers how many.
    async fn purge_accounts(&self, before: Timestamp) -> StoreResult<u64>;
}

/// What operators say to all workers, and the log of it: each change is written in one transaction with its line, so that
/// none is without the other. Versions are those of [`AccountStore`].
#[async_trait]
pub trait ControlStore: Send + Sync + fmt::Debug {
    /// Every pause there is, also those that have ended and are not forgotten yet, by lane, endpoint and tenant. Whoever
    /// writes them bounds their number.
    async fn controls(&self) -> StoreResult<Vec<ControlRow>>;

    /// Pauses or resumes, over the version [`ControlWrite::seen`]; false = somebody else has written meanwhile, or the row
    /// is gone, and nothing was written. When the answer was lost, read again: of two equal writes one answers false.
    async fn put_control(&self, write: &ControlWrite, line: &AuditEntry) -> StoreResult<bool>;

    /// How many calls lanes make at a time where operators have said so, also what has ended and is not forgotten yet, by lane.
    async fn concurrencies(&self) -> StoreResult<Vec<ConcurrencyRow>>;

    /// Says how many calls a lane makes at a time, or takes that back; guarded and answered as [`ControlStore::put_control`].
    async fn put_concurrency(&self, write: &ConcurrencyWrite, line: &AuditEntry) -> StoreResult<bool>;

    /// The same as [`AccountStore::put_account`], said by an operator.
    async fn put_account_audited(&self, write: &AccountWrite, now: Timestamp, line: &AuditEntry) -> StoreResult<bool>;

    /// The same as [`JobStore::cancel`], said by an operator; the line is written when that changed anything.
    async fn cancel_audited(&self, instance: Uuid, now: Timestamp, line: &AuditEntry) -> StoreResult<CancelAnswer>;

    /// The same as [`JobStore::replay`], said by an operator; the line is written when the job waits again.
    async fn replay_audited(&self, instance: Uuid, now: Timestamp, line: &AuditEntry) -> StoreResult<Replayed>;

    /// The same as [`LetterStore::discard`], said by an operator; the line is written when there was such a letter. `seen`: only
    /// as it was read, with its time of death and its copies; one that died again since stays.
    async fn discard_audited(
        &self,
        instance: Uuid,
        seen: Option<(Timestamp, u32)>,
        line: &AuditEntry,
    ) -> StoreResult<bool>;

    /// Writes a line alone: of something that many other calls do, before the first of them.
    async fn log(&self, line: &AuditEntry) -> StoreResult<()>;

    /// Forgets what has ended by itself before `before`, pauses and numbers of calls; answers how many.
    async fn purge_controls(&self, before: Timestamp) -> StoreResult<u64>;

    /// Lines of the audit log, the newest first, at most `limit`, at most [`LIST_MAX`].
    async fn audit(&self, filter: &AuditFilter, limit: usize) -> StoreResult<Vec<AuditRow>>;

    /// Deletes lines that were written before `before`, at most `limit`; answers how many.
    async fn purge_audit(&self, before: Timestamp, limit: usize) -> StoreResult<u64>;
}

/// Budgets that all workers share, and the turns of the jobs that wait for them. [`gcra`] is what it computes.
#[async_trait]
pub trait BudgetStore: Send + Sync + fmt::Debug {
    /// Takes tokens, each in every window of the wish, or none. Tokens whose grant was not heard are lost: a repeat takes
    /// others, so that there are never too many.
    async fn take(&self, wish: &Take) -> StoreResult<Taken>;

    /// The theoretical arrival times of those windows that have one.
    async fn peek(&self, keys: &[String]) -> StoreResult<Vec<(String, Timestamp)>>;

    /// Forgets windows that have rested since `before`; answers how many.
    async fn purge_budgets(&self, before: Timestamp) -> StoreResult<u64>;

    /// Whose jobs wait in `lane` for their turn ([`IN_TURN`]), by endpoint and tenant, those after `after`, at most `limit`.
    async fn gates(&self, lane: &LaneName, after: Option<&Gate>, limit: usize) -> StoreResult<Vec<Gate>>;

    /// Marks rows that wait for their turn as `queued`, of each endpoint and tenant so many, those published first
    /// first, and fewer by those that were queued since the gates were read. Committed when this returns: publish the wake-ups then. Nothing while another worker does the same.
    async fn release_turns(&self, lane: &LaneName, now: Timestamp, turns: &[Turn]) -> StoreResult<Vec<Wake>>;
}

/// Slots for calls in flight that all workers share. [`slots`] is how they are shared out.
///
/// There are never more calls in flight than slots, because every holder keeps to this:
///
/// - A grant is good for [`GRANT_GOOD_FOR`] after the `now` of its ask, by the holder's clock. A call starts only within that
///   time, and only while fewer are in flight than were granted.
/// - A grant may be lower than what is in use. Those calls go on to their end; none takes the place of one that has ended.
/// - Asking gives the grant before it back: from the moment at which `in_use` is counted until the answer no call starts,
///   or it is counted in advance. When the answer was lost, none starts before another one comes.
/// - A call ends within [`Holder::longest_call`]. Whoever wants no slot of a key any more says so, once.
///
/// A worker that is buried or leaves holds nothing. A holder that falls silent while its worker lives wants nothing more
/// after [`slots::STALE`], and keeps what it was granted until the last call of that grant must have ended.
#[async_trait]
pub trait SlotStore: Send + Sync + fmt::Debug {
    /// Says what a holder uses and wants of some keys, none of them twice, at most [`BATCH_MAX`], one call at a time.
    /// Answers, in order, how many slots of each it may use from now on: a call may start while fewer are in flight. A
    /// holder whose worker is not registered may use none, and nothing is noted. May be sent again.
    async fn renew_slots(&self, holder: &Holder, now: Timestamp, asks: &[SlotAsk]) -> StoreResult<Vec<u32>>;

    /// What is used, held and wanted of these keys, over all holders whose workers are registered; answers in order. For
    /// people, and for whoever releases jobs.
    async fn slots(&self, keys: &[String]) -> StoreResult<Vec<SlotUse>>;
}

/// Who is alive.
#[async_trait]
pub trait WorkerStore: Send + Sync + fmt::Debug {
    /// Registers a worker.
    async fn register(&self, name: &str, lanes: &str, now: Timestamp) -> StoreResult<WorkerId>;

    /// Renews its sign of life; false = it was declared dead meanwhile: register again, its claims are lost.
    async fn heartbeat(&self, worker: WorkerId, now: Timestamp) -> StoreResult<bool>;

    /// Leaves in order.
    async fn deregister(&self, worker: WorkerId) -> StoreResult<()>;

    /// Declares dead who has not been heard of since `before`; answers how many were. `except` is the caller, which
    /// knows of itself that it is alive.
    async fn bury_workers(&self, before: Timestamp, except: WorkerId) -> StoreResult<u64>;

    /// All workers that are registered.
    async fn workers(&self) -> StoreResult<Vec<WorkerRow>>;
}

/// Dead letters.
#[async_trait]
pub trait LetterStore: Send + Sync + fmt::Debug {
    /// Takes messages that never were jobs; the same one twice is one letter with more copies.
    async fn bury(&self, letters: &[RawLetter]) -> StoreResult<()>;

    /// Newest death first; of those that died at the same time, the highest handle first.
    async fn letters(&self, filter: &LetterFilter) -> StoreResult<Vec<Letter>>;

    /// One letter with its bytes; `None` when there is none.
    async fn letter(&self, instance: Uuid) -> StoreResult<Option<RawLetter>>;

    /// Deletes one letter; false = there was none.
    async fn discard(&self, instance: Uuid) -> StoreResult<bool>;

    /// Letters by lane.
    async fn letter_counts(&self) -> StoreResult<Vec<(LaneName, u64)>>;

    /// Letters by endpoint, reason and tenant, most letters first, at most `limit`.
    async fn letter_groups(&self, limit: usize) -> StoreResult<Vec<LetterGroup>>;

    /// Deletes letters that died before `before`, at most `limit`; answers how many.
    async fn purge_letters(&self, before: Timestamp, limit: usize) -> StoreResult<u64>;
}

/// What people and metrics look at.
#[async_trait]
pub trait ReadingStore: Send + Sync + fmt::Debug {
    /// The store's own clock.
    async fn time(&self) -> StoreResult<Timestamp>;

    /// Settings of the server that weaken a promise, as sentences for the log. Empty = none.
    async fn warnings(&self) -> StoreResult<Vec<String>>;

    /// Rows that wait or are queued, by lane, state and reason. Running ones are not counted: no index may name what a
    /// settlement changes, so counting them would mean reading every row; workers know what they run.
    async fn state_counts(&self) -> StoreResult<Vec<StateCount>>;

    /// Rows, newest publish first.
    async fn jobs(&self, filter: &JobFilter) -> StoreResult<Vec<JobRow>>;

    /// One row by its handle; `None` when there is none.
    async fn job(&self, instance: Uuid) -> StoreResult<Option<JobRow>>;

    /// What a job that has not ended will send; `None` when there is none. A dead job's payload is in its letter.
    async fn payload(&self, instance: Uuid) -> StoreResult<Option<Payload>>;

    /// Jobs that wait for their turn ([`IN_TURN`]), by lane, endpoint and tenant, most jobs first, at most `limit`.
    async fn held(&self, limit: usize) -> StoreResult<Vec<HeldCount>>;

    /// How many jobs wait for the same turn as `job` and go before it, counted up to `most`.
    async fn ahead(&self, job: &JobRow, most: usize) -> StoreResult<u64>;

    /// The journal of a job, oldest first.
    async fn attempts(&self, instance: Uuid) -> StoreResult<Vec<AttemptRecord>>;
}

/// What was counted in a piece of time: its beginning, of what, and how much.
pub type Piece = (Timestamp, Series, Count);

/// Counts by time, of all workers together: what incidents and charts go by where there is no Prometheus.
#[async_trait]
pub trait HistoryStore: Send + Sync + fmt::Debug {
    /// Adds counts to the steps of both lengths that hold `at`, each series once, at most [`HISTORY_MAX`]. A repeat after a
    /// lost answer counts twice: these are statistics, nothing is decided by them about a job.
    async fn add_history(&self, at: Timestamp, counts: &[(Series, Count)]) -> StoreResult<()>;

    /// Sums of these measures by series, from the step that holds `since` to before `until`.
    async fn history(
        &self,
        step: Step,
        since: Timestamp,
        until: Timestamp,
        measures: &[Measure],
    ) -> StoreResult<Vec<(Series, Count)>>;

    /// The same apart for each piece of time, parts together: at most `limit` counts, the latest pieces first. `at` is where
    /// a piece begins.
    async fn history_pieces(&self, pieces: Pieces, measures: &[Measure], limit: usize) -> StoreResult<Vec<Piece>>;

    /// Forgets what is older than its step is kept ([`Step::kept`]), at most `limit` of each; answers how many.
    async fn purge_history(&self, now: Timestamp, limit: usize) -> StoreResult<u64>;
}

/// A whole store.
pub trait Store:
    JobStore
    + AccountStore
    + ControlStore
    + BudgetStore
    + SlotStore
    + WorkerStore
    + LetterStore
    + ReadingStore
    + HistoryStore
    + OperationStore
    + NoticeStore
{
}

impl<T> Store for T where
    T: JobStore
        + AccountStore
        + ControlStore
        + BudgetStore
        + SlotStore
        + WorkerStore
        + LetterStore
        + ReadingStore
        + HistoryStore
        + OperationStore
        + NoticeStore
{
}
