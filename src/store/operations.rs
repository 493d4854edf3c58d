//! What a store keeps of operations on many: what was asked for, how far it is, and the one step that moves it on.

use std::fmt;

use async_trait::async_trait;
use uuid::Uuid;

use super::{AuditEntry, RawLetter, StoreResult};
use crate::clock::Timestamp;
use crate::job::LaneName;
use crate::job::operation::{Action, Group, NewOperation, Operation, Selection};

/// Most operations that run at the same time.
pub const OPERATIONS_RUNNING_MAX: usize = 20;
/// Most letters that never were jobs in one step: each is published while the operation is claimed.
pub const RAW_MAX: usize = 50;

/// Who works on an operation: nobody else does until `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Random, made for this claim.
    pub token: Uuid,
    /// Until when.
    pub until: Timestamp,
}

/// One step of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepWish {
    /// Whoever makes it; renews the claim.
    pub claim: Claim,
    /// The store's time.
    pub now: Timestamp,
    /// How many at most.
    pub most: usize,
    /// The step after it is not made before.
    pub next_at: Timestamp,
    /// Until when it is claimed if letters have to be published: that takes longer.
    pub raw_until: Timestamp,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq)]
pub struct Stepped {
    /// The operation after it.
    pub operation: Operation,
    /// Letters that never were jobs and come next, which only a broker can put back to work: publish them, then tell with
    /// [`OperationStore::tell_raw`] what became of them.
    pub raw: Vec<RawLetter>,
    /// How many jobs of each lane were cancelled.
    pub cancelled: Vec<(LaneName, u64)>,
}

/// What became of a letter that never was a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawAnswer {
    /// Which.
    pub instance: Uuid,
    /// Its place, as it was read.
    pub died_at: Timestamp,
    /// How many equal messages had come to it, as it was read: what was buried again meanwhile stays.
    pub copies: u32,
    /// Published again (its letter goes), or why not (it stays).
    pub outcome: Result<(), String>,
}

/// Operations on many. A step acts and counts in one transaction: whoever dies in between has done all of it or nothing.
#[async_trait]
pub trait OperationStore: Send + Sync + fmt::Debug {
    /// What `action` would find, by lane, endpoint and reason, most items first. Running jobs are not found by a cancel.
    async fn plan(&self, action: Action, selection: &Selection) -> StoreResult<Vec<Group>>;

    /// Starts an operation, with its line of the audit log; claimed from the start where `claim` is given. True also when it
    /// was started before; false = [`OPERATIONS_RUNNING_MAX`] run already.
    async fn start_operation(&self, new: &NewOperation, claim: Option<Claim>, line: &AuditEntry) -> StoreResult<bool>;

    /// Operations, the newest first, at most `limit`.
    async fn operations(&self, limit: usize) -> StoreResult<Vec<Operation>>;

    /// One; `None` when there is none.
    async fn operation(&self, id: Uuid) -> StoreResult<Option<Operation>>;

    /// Claims an operation that runs, is due and that nobody works on, the oldest first; `None` when there is none.
    async fn claim_operation(&self, claim: Claim, now: Timestamp) -> StoreResult<Option<Operation>>;

    /// Acts on the next ones. `None` when the operation has ended or is not this claim's any more: leave it. Done when nothing
    /// is left. When the answer was lost, do it again.
    async fn step_operation(&self, id: Uuid, wish: &StepWish) -> StoreResult<Option<Stepped>>;

    /// Tells what became of the letters that [`Stepped::raw`] named, in their order, each once. What was published goes in any
    /// case, unless it died again meanwhile. `None` as for a step: then nothing is counted.
    async fn tell_raw(&self, id: Uuid, wish: &StepWish, answers: &[RawAnswer]) -> StoreResult<Option<Operation>>;

    /// Lets go of an operation, so that somebody else may go on at once.
    async fn leave_operation(&self, id: Uuid, token: Uuid) -> StoreResult<()>;

    /// Ends an operation before it is done, with its line of the audit log; false = it had ended, and nothing was written.
    async fn cancel_operation(&self, id: Uuid, line: &AuditEntry) -> StoreResult<bool>;

    /// Forgets operations that ended before `before`; answers how many.
    async fn purge_operations(&self, before: Timestamp) -> StoreResult<u64>;
}
