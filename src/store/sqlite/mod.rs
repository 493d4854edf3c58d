//! The embedded store: one SQLite file, one writer, every role in one transaction each.

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

use async_trait::async_trait;
use sqlx::{Sqlite as Dialect, Transaction};
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
use crate::db::Sqlite;
use crate::job::LaneName;
use crate::job::budget::{Account, Take, Taken};

/// A store in an SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    db: Sqlite,
}

impl SqliteStore {
    /// A store in an open file.
    pub fn new(db: Sqlite) -> Self {
        Self { db }
    }

    async fn run<T>(&self, what: &'static str, call: impl Future<Output = Answer<T>> + Send) -> StoreResult<T> {
        bounded(&self.db.address, what, call).await
    }
}

/// Begins a transaction that writes; takes the file's write lock at once.
async fn begin(db: &Sqlite) -> Answer<Transaction<'static, Dialect>> {
    // boxed: this future is large, and it is part of every other one
    Ok(Box::pin(db.write.begin_with("BEGIN IMMEDIATE")).await?)
}

#[async_trait]
impl JobStore for SqliteStore {
    async fn claim_fresh(&self, ctx: ClaimContext, claims: &[FreshClaim]) -> StoreResult<Vec<Claimed>> {
        self.run("claim", claims::fresh(&self.db, &ctx, claims)).await
    }

    async fn claim_woken(&self, ctx: ClaimContext, claims: &[WokenClaim]) -> StoreResult<Vec<Claimed>> {
        self.run("claim by wake-up", claims::woken(&self.db, &ctx, claims)).await
    }

    async fn settle(&self, now: Timestamp, settlements: &[Settlement]) -> StoreResult<Vec<Settled>> {
        self.run("settle", settle::settle(&self.db, now, settlements)).await
    }

    async fn release(
        &self,
        lane: &LaneName,
        now: Timestamp,
        limit: usize,
        queued_max: usize,
    ) -> StoreResult<Vec<Wake>> {
        self.run("release", release::release(&self.db, lane, now, limit, queued_max)).await
    }

    async fn next_due(&self, lane: &LaneName) -> StoreResult<Option<Timestamp>> {
        self.run("next due", release::next_due(&self.db, lane)).await
    }

    async fn sweep_queued(
        &self,
        lane: &LaneName,
        now: Timestamp,
        released_before: Timestamp,
        limit: usize,
    ) -> StoreResult<Vec<Wake>> {
        self.run("sweep queued", sweep::queued(&self.db, lane, now, released_before, limit)).await
    }

    async fn sweep_run(&self, now: Timestamp, poison_after: u32, limit: usize) -> StoreResult<Vec<TakenOver>> {
        self.run("sweep run", sweep::run(&self.db, now, poison_after, limit)).await
    }

    async fn replay(&self, instance: Uuid, now: Timestamp) -> StoreResult<Replayed> {
        self.run("replay", operator::replay(&self.db, instance, now, None)).await
    }

    async fn hasten(&self, instances: &[Uuid], now: Timestamp, line: &AuditEntry) -> StoreResult<Vec<Hastened>> {
        self.run("hurry jobs", operator::hasten(&self.db, instances, now, line)).await
    }

    async fn cancel(&self, instance: Uuid, now: Timestamp) -> StoreResult<CancelAnswer> {
        self.run("cancel", operator::cancel(&self.db, instance, now, None)).await
    }

    async fn raise_mark(&self, lane: &LaneName, now: Timestamp, published_at: Timestamp) -> StoreResult<()> {
        self.run("raise mark", retention::raise_mark(&self.db, lane, now, published_at)).await
    }

    async fn mark(&self, lane: &LaneName, minutes: u32) -> StoreResult<Option<Timestamp>> {
        self.run("mark", retention::mark(&self.db, lane, minutes)).await
    }

    async fn purge(&self, lane: &LaneName, retention: Retention) -> StoreResult<Purged> {
        self.run("purge", retention::purge(&self.db, lane, &retention)).await
    }
}

#[async_trait]
impl AccountStore for SqliteStore {
    async fn accounts(&self, since: Timestamp, limit: usize) -> StoreResult<Vec<AccountRow>> {
        self.run("read accounts", accounts::changed(&self.db, since, limit)).await
    }

    async fn account(&self, account: &Account) -> StoreResult<Option<AccountRow>> {
        self.run("read an account", accounts::one(&self.db, account)).await
    }

    async fn put_account(&self, write: &AccountWrite, now: Timestamp) -> StoreResult<bool> {
        self.run("write an account", accounts::put(&self.db.write, write, now)).await
    }

    async fn purge_accounts(&self, before: Timestamp) -> StoreResult<u64> {
        self.run("purge accounts", accounts::purge(&self.db, before)).await
    }
}

#[async_trait]
impl ControlStore for SqliteStore {
    async fn controls(&self) -> StoreResult<Vec<ControlRow>> {
        self.run("read controls", controls::all(&self.db)).await
    }

    async fn put_control(&self, write: &ControlWrite, line: &AuditEntry) -> StoreResult<bool> {
        self.run("write a control", controls::put(&self.db, write, line)).await
    }

    async fn concurrencies(&self) -> StoreResult<Vec<ConcurrencyRow>> {
        self.run("read calls at a time", controls::concurrencies(&self.db)).await
    }

    async fn put_concurrency(&self, write: &ConcurrencyWrite, line: &AuditEntry) -> StoreResult<bool> {
        self.run("write calls at a time", controls::put_concurrency(&self.db, write, line)).await
    }

    async fn put_account_audited(&self, write: &AccountWrite, now: Timestamp, line: &AuditEntry) -> StoreResult<bool> {
        self.run("write an account", controls::put_account(&self.db, write, now, line)).await
    }

    async fn cancel_audited(&self, instance: Uuid, now: Timestamp, line: &AuditEntry) -> StoreResult<CancelAnswer> {
        self.run("cancel", operator::cancel(&self.db, instance, now, Some(line))).await
    }

    async fn replay_audited(&self, instance: Uuid, now: Timestamp, line: &AuditEntry) -> StoreResult<Replayed> {
        self.run("replay", operator::replay(&self.db, instance, now, Some(line))).await
    }

    async fn discard_audited(
        &self,
        instance: Uuid,
        seen: Option<(Timestamp, u32)>,
        line: &AuditEntry,
    ) -> StoreResult<bool> {
        self.run("discard", letters::discard(&self.db, instance, seen, Some(line))).await
    }

    async fn log(&self, line: &AuditEntry) -> StoreResult<()> {
        self.run("write the audit log", controls::write(&self.db, line)).await
    }

    async fn purge_controls(&self, before: Timestamp) -> StoreResult<u64> {
        self.run("purge controls", controls::purge(&self.db, before)).await
    }

    async fn audit(&self, filter: &AuditFilter, limit: usize) -> StoreResult<Vec<AuditRow>> {
        self.run("read the audit log", controls::audit(&self.db, filter, limit)).await
    }

    async fn purge_audit(&self, before: Timestamp, limit: usize) -> StoreResult<u64> {
        self.run("purge the audit log", controls::purge_audit(&self.db, before, limit)).await
    }
}

#[async_trait]
impl BudgetStore for SqliteStore {
    async fn take(&self, wish: &Take) -> StoreResult<Taken> {
        self.run("take tokens", budgets::take(&self.db, wish)).await
    }

    async fn peek(&self, keys: &[String]) -> StoreResult<Vec<(String, Timestamp)>> {
        self.run("look at budgets", budgets::peek(&self.db, keys)).await
    }

    async fn purge_budgets(&self, before: Timestamp) -> StoreResult<u64> {
        self.run("purge budgets", budgets::purge(&self.db, before)).await
    }

    async fn gates(&self, lane: &LaneName, after: Option<&Gate>, limit: usize) -> StoreResult<Vec<Gate>> {
        self.run("gates", budgets::gates(&self.db, lane, after, limit)).await
    }

    async fn release_turns(&self, lane: &LaneName, now: Timestamp, turns: &[Turn]) -> StoreResult<Vec<Wake>> {
        self.run("release turns", budgets::release(&self.db, lane, now, turns)).await
    }
}

#[async_trait]
impl SlotStore for SqliteStore {
    async fn renew_slots(&self, holder: &Holder, now: Timestamp, asks: &[SlotAsk]) -> StoreResult<Vec<u32>> {
        self.run("renew slots", slots::renew(&self.db, holder, now, asks)).await
    }

    async fn slots(&self, keys: &[String]) -> StoreResult<Vec<SlotUse>> {
        self.run("look at slots", slots::uses(&self.db, keys)).await
    }
}

#[async_trait]
impl WorkerStore for SqliteStore {
    async fn register(&self, name: &str, lanes: &str, now: Timestamp) -> StoreResult<WorkerId> {
        self.run("register", workers::register(&self.db, name, lanes, now)).await
    }

    async fn heartbeat(&self, worker: WorkerId, now: Timestamp) -> StoreResult<bool> {
        self.run("heartbeat", workers::heartbeat(&self.db, worker, now)).await
    }

    async fn deregister(&self, worker: WorkerId) -> StoreResult<()> {
        self.run("deregister", workers::deregister(&self.db, worker)).await
    }

    async fn bury_workers(&self, before: Timestamp, except: WorkerId) -> StoreResult<u64> {
        self.run("bury workers", workers::bury(&self.db, before, except)).await
    }

    async fn workers(&self) -> StoreResult<Vec<WorkerRow>> {
        self.run("workers", workers::list(&self.db)).await
    }
}

#[async_trait]
impl LetterStore for SqliteStore {
    async fn bury(&self, letters: &[RawLetter]) -> StoreResult<()> {
        self.run("bury", letters::bury(&self.db, letters)).await
    }

    async fn letters(&self, filter: &LetterFilter) -> StoreResult<Vec<Letter>> {
        self.run("letters", letters::list(&self.db, filter)).await
    }

    async fn letter(&self, instance: Uuid) -> StoreResult<Option<RawLetter>> {
        self.run("letter", letters::get(&self.db, instance)).await
    }

    async fn discard(&self, instance: Uuid) -> StoreResult<bool> {
        self.run("discard", letters::discard(&self.db, instance, None, None)).await
    }

    async fn letter_counts(&self) -> StoreResult<Vec<(LaneName, u64)>> {
        self.run("letter counts", letters::counts(&self.db)).await
    }

    async fn letter_groups(&self, limit: usize) -> StoreResult<Vec<LetterGroup>> {
        self.run("group letters", letters::groups(&self.db, limit)).await
    }

    async fn purge_letters(&self, before: Timestamp, limit: usize) -> StoreResult<u64> {
        self.run("purge letters", letters::purge(&self.db, before, limit)).await
    }
}

#[async_trait]
impl ReadingStore for SqliteStore {
    async fn time(&self) -> StoreResult<Timestamp> {
        self.run("time", readings::time(&self.db)).await
    }

    async fn warnings(&self) -> StoreResult<Vec<String>> {
        self.run("warnings", readings::warnings(&self.db)).await
    }

    async fn state_counts(&self) -> StoreResult<Vec<StateCount>> {
        self.run("state counts", readings::state_counts(&self.db)).await
    }

    async fn jobs(&self, filter: &JobFilter) -> StoreResult<Vec<JobRow>> {
        self.run("jobs", readings::jobs(&self.db, filter)).await
    }

    async fn job(&self, instance: Uuid) -> StoreResult<Option<JobRow>> {
        self.run("job", readings::job(&self.db, instance)).await
    }

    async fn payload(&self, instance: Uuid) -> StoreResult<Option<Payload>> {
        self.run("payload", readings::payload(&self.db, instance)).await
    }

    async fn held(&self, limit: usize) -> StoreResult<Vec<HeldCount>> {
        self.run("count who waits for a turn", readings::held(&self.db, limit)).await
    }

    async fn ahead(&self, job: &JobRow, most: usize) -> StoreResult<u64> {
        self.run("count who goes before", readings::ahead(&self.db, job, most)).await
    }

    async fn attempts(&self, instance: Uuid) -> StoreResult<Vec<AttemptRecord>> {
        self.run("attempts", readings::attempts(&self.db, instance)).await
    }
}
