//! A store that stands before the real one: each call first meets what the test has in store for it.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use lanes::clock::Timestamp;
use lanes::job::LaneName;
use lanes::job::budget::{Account, Take, Taken};
use lanes::job::history::{Count, Measure, Pieces, Series, Step};
use lanes::job::operation::{Action, Group, NewOperation, Operation, Selection};
use lanes::store::{
    AccountRow, AccountStore, AccountWrite, AttemptRecord, AuditEntry, AuditFilter, AuditRow, BudgetStore,
    CancelAnswer, Claim, ClaimContext, Claimed, ConcurrencyRow, ConcurrencyWrite, ControlRow, ControlStore,
    ControlWrite, FreshClaim, Gate, Hastened, HeldCount, HistoryStore, Holder, JobFilter, JobRow, JobStore, Letter,
    LetterFilter, LetterGroup, LetterStore, NoticeStore, NoticesRow, OperationStore, Payload, Piece, Purged, RawAnswer,
    RawLetter, ReadingStore, Replayed, Retention, Settled, Settlement, SlotAsk, SlotStore, SlotUse, StateCount,
    StepWish, Stepped, Store, StoreError, StoreResult, TakenOver, Turn, Wake, WokenClaim, WorkerId, WorkerRow,
    WorkerStore,
};
use tokio::sync::watch;
use uuid::Uuid;

/// A call as the weather sees it.
#[derive(Debug, Clone, Copy)]
pub enum Asked<'a> {
    ClaimFresh(&'a [FreshClaim]),
    ClaimWoken,
    Settle(&'a [Settlement]),
    BuryLetters(&'a [RawLetter]),
    Release,
    SweepRun,
    Register,
    Heartbeat,
    BuryWorkers,
    /// What is paused is read, in each round that shares what is known of accounts.
    Controls,
    /// The last step of each round of retention.
    PurgeLetters,
    /// Everything else.
    Other,
}

/// Answers before the store does: an error is what the caller gets, a wait is a wait.
pub type Forecast = Arc<dyn Fn(Asked<'_>) -> BoxFuture<'static, StoreResult<()>> + Send + Sync>;

/// Weather that lets everything pass.
pub fn clear() -> Forecast {
    Arc::new(|_| ready(Ok(())))
}

/// Lets a call pass once the gate is open.
pub fn once(gate: &watch::Receiver<bool>) -> BoxFuture<'static, StoreResult<()>> {
    let mut gate = gate.clone();
    Box::pin(async move {
        gate.wait_for(|open| *open).await.expect("the test holds the gate");
        Ok(())
    })
}

pub fn ready(answer: StoreResult<()>) -> BoxFuture<'static, StoreResult<()>> {
    Box::pin(std::future::ready(answer))
}

pub fn unavailable() -> StoreError {
    StoreError::Unavailable { address: "weather:".to_owned(), why: "a storm".to_owned() }
}

pub fn failed() -> StoreError {
    StoreError::Failed { address: "weather:".to_owned(), why: "a flood".to_owned() }
}

pub fn rejected() -> StoreError {
    StoreError::Rejected { address: "weather:".to_owned(), why: "hail".to_owned() }
}

/// The store behind the weather.
pub struct Weather {
    store: Arc<dyn Store>,
    forecast: Mutex<Forecast>,
}

impl fmt::Debug for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weather").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Weather {
    pub fn before(store: &Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store: Arc::clone(store), forecast: Mutex::new(clear()) })
    }

    pub fn turns(&self, forecast: Forecast) {
        *self.forecast.lock().expect("not poisoned") = forecast;
    }

    async fn meet(&self, asked: Asked<'_>) -> StoreResult<()> {
        let forecast = Arc::clone(&self.forecast.lock().expect("not poisoned"));
        forecast(asked).await
    }
}

#[async_trait]
impl JobStore for Weather {
    async fn claim_fresh(&self, ctx: ClaimContext, claims: &[FreshClaim]) -> StoreResult<Vec<Claimed>> {
        self.meet(Asked::ClaimFresh(claims)).await?;
        self.store.claim_fresh(ctx, claims).await
    }

    async fn claim_woken(&self, ctx: ClaimContext, claims: &[WokenClaim]) -> StoreResult<Vec<Claimed>> {
        self.meet(Asked::ClaimWoken).await?;
        self.store.claim_woken(ctx, claims).await
    }

    async fn settle(&self, now: Timestamp, settlements: &[Settlement]) -> StoreResult<Vec<Settled>> {
        self.meet(Asked::Settle(settlements)).await?;
        self.store.settle(now, settlements).await
    }

    async fn release(
        &self,
        lane: &LaneName,
        now: Timestamp,
        limit: usize,
        queued_max: usize,
    ) -> StoreResult<Vec<Wake>> {
        self.meet(Asked::Release).await?;
        self.store.release(lane, now, limit, queued_max).await
    }

    async fn next_due(&self, lane: &LaneName) -> StoreResult<Option<Timestamp>> {
        self.meet(Asked::Other).await?;
        self.store.next_due(lane).await
    }

    async fn sweep_queued(
        &self,
        lane: &LaneName,
        now: Timestamp,
        released_before: Timestamp,
        limit: usize,
    ) -> StoreResult<Vec<Wake>> {
        self.meet(Asked::Other).await?;
        self.store.sweep_queued(lane, now, released_before, limit).await
    }

    async fn sweep_run(&self, now: Timestamp, poison_after: u32, limit: usize) -> StoreResult<Vec<TakenOver>> {
        self.meet(Asked::SweepRun).await?;
        self.store.sweep_run(now, poison_after, limit).await
    }

    async fn replay(&self, instance: Uuid, now: Timestamp) -> StoreResult<Replayed> {
        self.meet(Asked::Other).await?;
        self.store.replay(instance, now).await
    }

    async fn hasten(&self, instances: &[Uuid], now: Timestamp, line: &AuditEntry) -> StoreResult<Vec<Hastened>> {
        self.meet(Asked::Other).await?;
        self.store.hasten(instances, now, line).await
    }

    async fn cancel(&self, instance: Uuid, now: Timestamp) -> StoreResult<CancelAnswer> {
        self.meet(Asked::Other).await?;
        self.store.cancel(instance, now).await
    }

    async fn raise_mark(&self, lane: &LaneName, now: Timestamp, published_at: Timestamp) -> StoreResult<()> {
        self.meet(Asked::Other).await?;
        self.store.raise_mark(lane, now, published_at).await
    }

    async fn mark(&self, lane: &LaneName, minutes: u32) -> StoreResult<Option<Timestamp>> {
        self.meet(Asked::Other).await?;
        self.store.mark(lane, minutes).await
    }

    async fn purge(&self, lane: &LaneName, retention: Retention) -> StoreResult<Purged> {
        self.meet(Asked::Other).await?;
        self.store.purge(lane, retention).await
    }
}

#[async_trait]
impl HistoryStore for Weather {
    async fn add_history(&self, at: Timestamp, counts: &[(Series, Count)]) -> StoreResult<()> {
        self.meet(Asked::Other).await?;
        self.store.add_history(at, counts).await
    }

    async fn history(
        &self,
        step: Step,
        since: Timestamp,
        until: Timestamp,
        measures: &[Measure],
    ) -> StoreResult<Vec<(Series, Count)>> {
        self.meet(Asked::Other).await?;
        self.store.history(step, since, until, measures).await
    }

    async fn history_pieces(&self, pieces: Pieces, measures: &[Measure], limit: usize) -> StoreResult<Vec<Piece>> {
        self.meet(Asked::Other).await?;
        self.store.history_pieces(pieces, measures, limit).await
    }

    async fn purge_history(&self, now: Timestamp, limit: usize) -> StoreResult<u64> {
        self.meet(Asked::Other).await?;
        self.store.purge_history(now, limit).await
    }
}

#[async_trait]
impl OperationStore for Weather {
    async fn plan(&self, action: Action, selection: &Selection) -> StoreResult<Vec<Group>> {
        self.meet(Asked::Other).await?;
        self.store.plan(action, selection).await
    }

    async fn start_operation(&self, new: &NewOperation, claim: Option<Claim>, line: &AuditEntry) -> StoreResult<bool> {
        self.meet(Asked::Other).await?;
        self.store.start_operation(new, claim, line).await
    }

    async fn operations(&self, limit: usize) -> StoreResult<Vec<Operation>> {
        self.meet(Asked::Other).await?;
        self.store.operations(limit).await
    }

    async fn operation(&self, id: Uuid) -> StoreResult<Option<Operation>> {
        self.meet(Asked::Other).await?;
        self.store.operation(id).await
    }

    async fn claim_operation(&self, claim: Claim, now: Timestamp) -> StoreResult<Option<Operation>> {
        self.meet(Asked::Other).await?;
        self.store.claim_operation(claim, now).await
    }

    async fn step_operation(&self, id: Uuid, wish: &StepWish) -> StoreResult<Option<Stepped>> {
        self.meet(Asked::Other).await?;
        self.store.step_operation(id, wish).await
    }

    async fn tell_raw(&self, id: Uuid, wish: &StepWish, answers: &[RawAnswer]) -> StoreResult<Option<Operation>> {
        self.meet(Asked::Other).await?;
        self.store.tell_raw(id, wish, answers).await
    }

    async fn leave_operation(&self, id: Uuid, token: Uuid) -> StoreResult<()> {
        self.meet(Asked::Other).await?;
        self.store.leave_operation(id, token).await
    }

    async fn cancel_operation(&self, id: Uuid, line: &AuditEntry) -> StoreResult<bool> {
        self.meet(Asked::Other).await?;
        self.store.cancel_operation(id, line).await
    }

    async fn purge_operations(&self, before: Timestamp) -> StoreResult<u64> {
        self.meet(Asked::Other).await?;
        self.store.purge_operations(before).await
    }
}

#[async_trait]
impl NoticeStore for Weather {
    async fn notices(&self) -> StoreResult<Option<NoticesRow>> {
        self.meet(Asked::Other).await?;
        self.store.notices().await
    }

    async fn put_notices(&self, seen: i64, state: &str, now: Timestamp) -> StoreResult<bool> {
        self.meet(Asked::Other).await?;
        self.store.put_notices(seen, state, now).await
    }
}

#[async_trait]
impl AccountStore for Weather {
    async fn accounts(&self, since: Timestamp, limit: usize) -> StoreResult<Vec<AccountRow>> {
        self.meet(Asked::Other).await?;
        self.store.accounts(since, limit).await
    }

    async fn account(&self, account: &Account) -> StoreResult<Option<AccountRow>> {
        self.meet(Asked::Other).await?;
        self.store.account(account).await
    }

    async fn put_account(&self, write: &AccountWrite, now: Timestamp) -> StoreResult<bool> {
        self.meet(Asked::Other).await?;
        self.store.put_account(write, now).await
    }

    async fn purge_accounts(&self, before: Timestamp) -> StoreResult<u64> {
        self.meet(Asked::Other).await?;
        self.store.purge_accounts(before).await
    }
}

#[async_trait]
impl ControlStore for Weather {
    async fn controls(&self) -> StoreResult<Vec<ControlRow>> {
        self.meet(Asked::Controls).await?;
        self.store.controls().await
    }

    async fn put_control(&self, write: &ControlWrite, line: &AuditEntry) -> StoreResult<bool> {
        self.meet(Asked::Other).await?;
        self.store.put_control(write, line).await
    }

    async fn concurrencies(&self) -> StoreResult<Vec<ConcurrencyRow>> {
        self.meet(Asked::Other).await?;
        self.store.concurrencies().await
    }

    async fn put_concurrency(&self, write: &ConcurrencyWrite, line: &AuditEntry) -> StoreResult<bool> {
        self.meet(Asked::Other).await?;
        self.store.put_concurrency(write, line).await
    }

    async fn put_account_audited(&self, write: &AccountWrite, now: Timestamp, line: &AuditEntry) -> StoreResult<bool> {
        self.meet(Asked::Other).await?;
        self.store.put_account_audited(write, now, line).await
    }

    async fn cancel_audited(&self, instance: Uuid, now: Timestamp, line: &AuditEntry) -> StoreResult<CancelAnswer> {
        self.meet(Asked::Other).await?;
        self.store.cancel_audited(instance, now, line).await
    }

    async fn replay_audited(&self, instance: Uuid, now: Timestamp, line: &AuditEntry) -> StoreResult<Replayed> {
        self.meet(Asked::Other).await?;
        self.store.replay_audited(instance, now, line).await
    }

    async fn discard_audited(
        &self,
        instance: Uuid,
        seen: Option<(Timestamp, u32)>,
        line: &AuditEntry,
    ) -> StoreResult<bool> {
        self.meet(Asked::Other).await?;
        self.store.discard_audited(instance, seen, line).await
    }

    async fn log(&self, line: &AuditEntry) -> StoreResult<()> {
        self.meet(Asked::Other).await?;
        self.store.log(line).await
    }

    async fn purge_controls(&self, before: Timestamp) -> StoreResult<u64> {
        self.meet(Asked::Other).await?;
        self.store.purge_controls(before).await
    }

    async fn audit(&self, filter: &AuditFilter, limit: usize) -> StoreResult<Vec<AuditRow>> {
        self.meet(Asked::Other).await?;
        self.store.audit(filter, limit).await
    }

    async fn purge_audit(&self, before: Timestamp, limit: usize) -> StoreResult<u64> {
        self.meet(Asked::Other).await?;
        self.store.purge_audit(before, limit).await
    }
}

#[async_trait]
impl BudgetStore for Weather {
    async fn take(&self, wish: &Take) -> StoreResult<Taken> {
        self.meet(Asked::Other).await?;
        self.store.take(wish).await
    }

    async fn peek(&self, keys: &[String]) -> StoreResult<Vec<(String, Timestamp)>> {
        self.meet(Asked::Other).await?;
        self.store.peek(keys).await
    }

    async fn purge_budgets(&self, before: Timestamp) -> StoreResult<u64> {
        self.meet(Asked::Other).await?;
        self.store.purge_budgets(before).await
    }

    async fn gates(&self, lane: &LaneName, after: Option<&Gate>, limit: usize) -> StoreResult<Vec<Gate>> {
        self.meet(Asked::Other).await?;
        self.store.gates(lane, after, limit).await
    }

    async fn release_turns(&self, lane: &LaneName, now: Timestamp, turns: &[Turn]) -> StoreResult<Vec<Wake>> {
        self.meet(Asked::Other).await?;
        self.store.release_turns(lane, now, turns).await
    }
}

#[async_trait]
impl SlotStore for Weather {
    async fn renew_slots(&self, holder: &Holder, now: Timestamp, asks: &[SlotAsk]) -> StoreResult<Vec<u32>> {
        self.meet(Asked::Other).await?;
        self.store.renew_slots(holder, now, asks).await
    }

    async fn slots(&self, keys: &[String]) -> StoreResult<Vec<SlotUse>> {
        self.meet(Asked::Other).await?;
        self.store.slots(keys).await
    }
}

#[async_trait]
impl WorkerStore for Weather {
    async fn register(&self, name: &str, lanes: &str, now: Timestamp) -> StoreResult<WorkerId> {
        self.meet(Asked::Register).await?;
        self.store.register(name, lanes, now).await
    }

    async fn heartbeat(&self, worker: WorkerId, now: Timestamp) -> StoreResult<bool> {
        self.meet(Asked::Heartbeat).await?;
        self.store.heartbeat(worker, now).await
    }

    async fn deregister(&self, worker: WorkerId) -> StoreResult<()> {
        self.meet(Asked::Other).await?;
        self.store.deregister(worker).await
    }

    async fn bury_workers(&self, before: Timestamp, except: WorkerId) -> StoreResult<u64> {
        self.meet(Asked::BuryWorkers).await?;
        self.store.bury_workers(before, except).await
    }

    async fn workers(&self) -> StoreResult<Vec<WorkerRow>> {
        self.meet(Asked::Other).await?;
        self.store.workers().await
    }
}

#[async_trait]
impl LetterStore for Weather {
    async fn bury(&self, letters: &[RawLetter]) -> StoreResult<()> {
        self.meet(Asked::BuryLetters(letters)).await?;
        self.store.bury(letters).await
    }

    async fn letters(&self, filter: &LetterFilter) -> StoreResult<Vec<Letter>> {
        self.meet(Asked::Other).await?;
        self.store.letters(filter).await
    }

    async fn letter(&self, instance: Uuid) -> StoreResult<Option<RawLetter>> {
        self.meet(Asked::Other).await?;
        self.store.letter(instance).await
    }

    async fn discard(&self, instance: Uuid) -> StoreResult<bool> {
        self.meet(Asked::Other).await?;
        self.store.discard(instance).await
    }

    async fn letter_counts(&self) -> StoreResult<Vec<(LaneName, u64)>> {
        self.meet(Asked::Other).await?;
        self.store.letter_counts().await
    }

    async fn letter_groups(&self, limit: usize) -> StoreResult<Vec<LetterGroup>> {
        self.meet(Asked::Other).await?;
        self.store.letter_groups(limit).await
    }

    async fn purge_letters(&self, before: Timestamp, limit: usize) -> StoreResult<u64> {
        self.meet(Asked::PurgeLetters).await?;
        self.store.purge_letters(before, limit).await
    }
}

#[async_trait]
impl ReadingStore for Weather {
    async fn time(&self) -> StoreResult<Timestamp> {
        self.meet(Asked::Other).await?;
        self.store.time().await
    }

    async fn warnings(&self) -> StoreResult<Vec<String>> {
        self.meet(Asked::Other).await?;
        self.store.warnings().await
    }

    async fn state_counts(&self) -> StoreResult<Vec<StateCount>> {
        self.meet(Asked::Other).await?;
        self.store.state_counts().await
    }

    async fn jobs(&self, filter: &JobFilter) -> StoreResult<Vec<JobRow>> {
        self.meet(Asked::Other).await?;
        self.store.jobs(filter).await
    }

    async fn job(&self, instance: Uuid) -> StoreResult<Option<JobRow>> {
        self.meet(Asked::Other).await?;
        self.store.job(instance).await
    }

    async fn payload(&self, instance: Uuid) -> StoreResult<Option<Payload>> {
        self.meet(Asked::Other).await?;
        self.store.payload(instance).await
    }

    async fn held(&self, limit: usize) -> StoreResult<Vec<HeldCount>> {
        self.meet(Asked::Other).await?;
        self.store.held(limit).await
    }

    async fn ahead(&self, job: &JobRow, most: usize) -> StoreResult<u64> {
        self.meet(Asked::Other).await?;
        self.store.ahead(job, most).await
    }

    async fn attempts(&self, instance: Uuid) -> StoreResult<Vec<AttemptRecord>> {
        self.meet(Asked::Other).await?;
        self.store.attempts(instance).await
    }
}
