//! The PostgreSQL store: claims and settlements in whole batches, one HOT update per finished job.

mod accounts;
mod budgets;
mod claims;
mod history;
mod controls;
mod letters;
mod many;
mod notices;
mod operations;
mod operator;
mod readings;
mod release;
mod retention;
mod rows;
mod settle;
mod slots;
mod sweep;
mod workers;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::fault::{Answer, bounded};
use super::{
    AccountRow, AccountStore, AccountWrite, AttemptRecord, AuditEntry, AuditFilter, AuditRow, BudgetStore,
    CancelAnswer, ClaimContext, Claimed, ConcurrencyRow, ConcurrencyWrite, ControlRow, ControlStore, ControlWrite,
    FreshClaim, Gate, Hastened, HeldCount, Holder, JobFilter, JobRow, JobStore, Letter, LetterFilter, LetterGroup,
    LetterStore, Payload, Purged, RawLetter, ReadingStore, Replayed, Retention, Settled, Settlement, SlotAsk,
    SlotStore, SlotUse, StateCount, StoreResult, TakenOver, Turn, Wake, WokenClaim, WorkerId, WorkerRow, WorkerStore,
};
use crate::clock::Timestamp;
use crate::db;
use crate::job::LaneName;
use crate::job::budget::{Account, Take, Taken};

/// A store in a PostgreSQL database, over one pool: each lane has its own, so that no lane waits for another's.
#[derive(Clone)]
pub struct PgStore {
    pool: PgPool,
    address: Arc<str>,
}

impl PgStore {
    /// A store over `pool`; errors show `url`, without its password.
    pub fn new(pool: PgPool, url: &str) -> Self {
        Self { pool, address: db::redact(url).into() }
    }

    async fn run<T>(&self, what: &'static str, call: impl Future<Output = Answer<T>> + Send) -> StoreResult<T> {
        bounded(&self.address, what, call).await
    }
}

impl fmt::Debug for PgStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgStore").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Begins a transaction whose every statement sees what was committed before it.
async fn begin(pool: &PgPool) -> Answer<Transaction<'static, Postgres>> {
    // boxed: this future is large, and it is part of every other one
    Ok(Box::pin(pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED")).await?)
}

/// Ends a transaction before its answer is told. One that is merely dropped is rolled back by the pool some time later,
/// and until then the rows it looked at are locked: whoever skips locked rows would pass them over.
async fn end<T>(tx: Transaction<'static, Postgres>, answer: Answer<T>) -> Answer<T> {
    if answer.is_ok() {
        tx.commit().await?;
    } else {
        tx.rollback().await?;
    }
    answer
}

#[async_trait]
impl JobStore for PgStore {
    async fn claim_fresh(&self, ctx: ClaimContext, claims: &[FreshClaim]) -> StoreResult<Vec<Claimed>> {
        self.run("claim", claims::fresh(&self.pool, &ctx, claims)).await
    }

    async fn claim_woken(&self, ctx: ClaimContext, claims: &[WokenClaim]) -> StoreResult<Vec<Claimed>> {
        self.run("claim by wake-up", claims::woken(&self.pool, &ctx, claims)).await
    }

    async fn settle(&self, now: Timestamp, settlements: &[Settlement]) -> StoreResult<Vec<Settled>> {
        self.run("settle", settle::settle(&self.pool, now, settlements)).await
    }

    async fn release(
        &self,
        lane: &LaneName,
        now: Timestamp,
        limit: usize,
        queued_max: usize,
    ) -> StoreResult<Vec<Wake>> {
        self.run("release", release::release(&self.pool, lane, now, limit, queued_max)).await
    }

    async fn next_due(&self, lane: &LaneName) -> StoreResult<Option<Timestamp>> {
        self.run("next due", release::next_due(&self.pool, lane)).await
    }

    async fn sweep_queued(
        &self,
        lane: &LaneName,
        now: Timestamp,
        released_before: Timestamp,
        limit: usize,
    ) -> StoreResult<Vec<Wake>> {
        self.run("sweep queued", sweep::queued(&self.pool, lane, now, released_before, limit)).await
    }

    async fn sweep_run(&self, now: Timestamp, poison_after: u32, limit: usize) -> StoreResult<Vec<TakenOver>> {
        sweep::run(self, now, poison_after, limit).await
    }

    async fn replay(&self, instance: Uuid, now: Timestamp) -> StoreResult<Replayed> {
        self.run("replay", operator::replay(&self.pool, instance, now, None)).await
    }

    async fn hasten(&self, instances: &[Uuid], now: Timestamp, line: &AuditEntry) -> StoreResult<Vec<Hastened>> {
        self.run("hurry jobs", operator::hasten(&self.pool, instances, now, line)).await
    }

    async fn cancel(&self, instance: Uuid, now: Timestamp) -> StoreResult<CancelAnswer> {
        self.run("cancel", operator::cancel(&self.pool, instance, now, None)).await
    }

    async fn raise_mark(&self, lane: &LaneName, now: Timestamp, published_at: Timestamp) -> StoreResult<()> {
        self.run("raise mark", retention::raise_mark(&self.pool, lane, now, published_at)).await
    }

    async fn mark(&self, lane: &LaneName, minutes: u32) -> StoreResult<Option<Timestamp>> {
        self.run("mark", retention::mark(&self.pool, lane, minutes)).await
    }

    async fn purge(&self, lane: &LaneName, retention: Retention) -> StoreResult<Purged> {
        self.run("purge", retention::purge(&self.pool, lane, &retention)).await
    }
}

#[async_trait]
impl AccountStore for PgStore {
    async fn accounts(&self, since: Timestamp, limit: usize) -> StoreResult<Vec<AccountRow>> {
        self.run("read accounts", accounts::changed(&self.pool, since, limit)).await
    }

    async fn account(&self, account: &Account) -> StoreResult<Option<AccountRow>> {
        self.run("read an account", accounts::one(&self.pool, account)).await
    }

    async fn put_account(&self, write: &AccountWrite, now: Timestamp) -> StoreResult<bool> {
        self.run("write an account", accounts::put(&self.pool, write, now)).await
    }

    async fn purge_accounts(&self, before: Timestamp) -> StoreResult<u64> {
        self.run("purge accounts", accounts::purge(&self.pool, before)).await
    }
}

#[async_trait]
impl ControlStore for PgStore {
    async fn controls(&self) -> StoreResult<Vec<ControlRow>> {
        self.run("read controls", controls::all(&self.pool)).await
    }

    async fn put_control(&self, write: &ControlWrite, line: &AuditEntry) -> StoreResult<bool> {
        self.run("write a control", controls::put(&self.pool, write, line)).await
    }

    async fn concurrencies(&self) -> StoreResult<Vec<ConcurrencyRow>> {
        self.run("read calls at a time", controls::concurrencies(&self.pool)).await
    }

    async fn put_concurrency(&self, write: &ConcurrencyWrite, line: &AuditEntry) -> StoreResult<bool> {
        self.run("write calls at a time", controls::put_concurrency(&self.pool, write, line)).await
    }

    async fn put_account_audited(&self, write: &AccountWrite, now: Timestamp, line: &AuditEntry) -> StoreResult<bool> {
        self.run("write an account", controls::put_account(&self.pool, write, now, line)).await
    }

    async fn cancel_audited(&self, instance: Uuid, now: Timestamp, line: &AuditEntry) -> StoreResult<CancelAnswer> {
        self.run("cancel", operator::cancel(&self.pool, instance, now, Some(line))).await
    }

    async fn replay_audited(&self, instance: Uuid, now: Timestamp, line: &AuditEntry) -> StoreResult<Replayed> {
        self.run("replay", operator::replay(&self.pool, instance, now, Some(line))).await
    }

    async fn discard_audited(
        &self,
        instance: Uuid,
        seen: Option<(Timestamp, u32)>,
        line: &AuditEntry,
    ) -> StoreResult<bool> {
        self.run("discard", letters::discard(&self.pool, instance, seen, Some(line))).await
    }

    async fn log(&self, line: &AuditEntry) -> StoreResult<()> {
        self.run("write the audit log", controls::write(&self.pool, line)).await
    }

    async fn purge_controls(&self, before: Timestamp) -> StoreResult<u64> {
        self.run("purge controls", controls::purge(&self.pool, before)).await
    }

    async fn audit(&self, filter: &AuditFilter, limit: usize) -> StoreResult<Vec<AuditRow>> {
        self.run("read the audit log", controls::audit(&self.pool, filter, limit)).await
    }

    async fn purge_audit(&self, before: Timestamp, limit: usize) -> StoreResult<u64> {
        self.run("purge the audit log", controls::purge_audit(&self.pool, before, limit)).await
    }
}

#[async_trait]
impl BudgetStore for PgStore {
    async fn take(&self, wish: &Take) -> StoreResult<Taken> {
        self.run("take tokens", budgets::take(&self.pool, wish)).await
    }

    async fn peek(&self, keys: &[String]) -> StoreResult<Vec<(String, Timestamp)>> {
        self.run("look at budgets", budgets::peek(&self.pool, keys)).await
    }

    async fn purge_budgets(&self, before: Timestamp) -> StoreResult<u64> {
        self.run("purge budgets", budgets::purge(&self.pool, before)).await
    }

    async fn gates(&self, lane: &LaneName, after: Option<&Gate>, limit: usize) -> StoreResult<Vec<Gate>> {
        self.run("gates", budgets::gates(&self.pool, lane, after, limit)).await
    }

    async fn release_turns(&self, lane: &LaneName, now: Timestamp, turns: &[Turn]) -> StoreResult<Vec<Wake>> {
        self.run("release turns", budgets::release(&self.pool, lane, now, turns)).await
    }
}

#[async_trait]
impl SlotStore for PgStore {
    async fn renew_slots(&self, holder: &Holder, now: Timestamp, asks: &[SlotAsk]) -> StoreResult<Vec<u32>> {
        self.run("renew slots", slots::renew(&self.pool, holder, now, asks)).await
    }

    async fn slots(&self, keys: &[String]) -> StoreResult<Vec<SlotUse>> {
        self.run("look at slots", slots::uses(&self.pool, keys)).await
    }
}

#[async_trait]
impl WorkerStore for PgStore {
    async fn register(&self, name: &str, lanes: &str, now: Timestamp) -> StoreResult<WorkerId> {
        self.run("register", workers::register(&self.pool, name, lanes, now)).await
    }

    async fn heartbeat(&self, worker: WorkerId, now: Timestamp) -> StoreResult<bool> {
        self.run("heartbeat", workers::heartbeat(&self.pool, worker, now)).await
    }

    async fn deregister(&self, worker: WorkerId) -> StoreResult<()> {
        self.run("deregister", workers::deregister(&self.pool, worker)).await
    }

    async fn bury_workers(&self, before: Timestamp, except: WorkerId) -> StoreResult<u64> {
        self.run("bury workers", workers::bury(&self.pool, before, except)).await
    }

    async fn workers(&self) -> StoreResult<Vec<WorkerRow>> {
        self.run("workers", workers::list(&self.pool)).await
    }
}

#[async_trait]
impl LetterStore for PgStore {
    async fn bury(&self, letters: &[RawLetter]) -> StoreResult<()> {
        self.run("bury", letters::bury(&self.pool, letters)).await
    }

    async fn letters(&self, filter: &LetterFilter) -> StoreResult<Vec<Letter>> {
        self.run("letters", letters::list(&self.pool, filter)).await
    }

    async fn letter(&self, instance: Uuid) -> StoreResult<Option<RawLetter>> {
        self.run("letter", letters::get(&self.pool, instance)).await
    }

    async fn discard(&self, instance: Uuid) -> StoreResult<bool> {
        self.run("discard", letters::discard(&self.pool, instance, None, None)).await
    }

    async fn letter_counts(&self) -> StoreResult<Vec<(LaneName, u64)>> {
        self.run("letter counts", letters::counts(&self.pool)).await
    }

    async fn letter_groups(&self, limit: usize) -> StoreResult<Vec<LetterGroup>> {
        self.run("group letters", letters::groups(&self.pool, limit)).await
    }

    async fn purge_letters(&self, before: Timestamp, limit: usize) -> StoreResult<u64> {
        self.run("purge letters", letters::purge(&self.pool, before, limit)).await
    }
}

#[async_trait]
impl ReadingStore for PgStore {
    async fn time(&self) -> StoreResult<Timestamp> {
        self.run("time", readings::time(&self.pool)).await
    }

    async fn warnings(&self) -> StoreResult<Vec<String>> {
        self.run("warnings", readings::warnings(&self.pool)).await
    }

    async fn state_counts(&self) -> StoreResult<Vec<StateCount>> {
        self.run("state counts", readings::state_counts(&self.pool)).await
    }

    async fn jobs(&self, filter: &JobFilter) -> StoreResult<Vec<JobRow>> {
        self.run("jobs", readings::jobs(&self.pool, filter)).await
    }

    async fn job(&self, instance: Uuid) -> StoreResult<Option<JobRow>> {
        self.run("job", readings::job(&self.pool, instance)).await
    }

    async fn payload(&self, instance: Uuid) -> StoreResult<Option<Payload>> {
        self.run("payload", readings::payload(&self.pool, instance)).await
    }

    async fn held(&self, limit: usize) -> StoreResult<Vec<HeldCount>> {
        self.run("count who waits for a turn", readings::held(&self.pool, limit)).await
    }

    async fn ahead(&self, job: &JobRow, most: usize) -> StoreResult<u64> {
        self.run("count who goes before", readings::ahead(&self.pool, job, most)).await
    }

    async fn attempts(&self, instance: Uuid) -> StoreResult<Vec<AttemptRecord>> {
        self.run("attempts", readings::attempts(&self.pool, instance)).await
    }
}
