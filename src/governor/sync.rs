//! Shares what is known of accounts with the other workers: writes what is new, reads what others wrote, claims probes.
//! What operators have said is read in the same round.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::known::{Entry, Told};
use super::{ACCOUNTS_MAX, Governor};
use crate::clock::{SharedClock, Timestamp};
use crate::job::budget::Account;
use crate::job::{EndpointName, Tenant};
use crate::policy::account::Knowledge;
use crate::policy::circuit::Circuit;
use crate::store::{AccountRow, AccountWrite, Store, StoreResult};

/// Longest time until a lesson of another worker is known.
pub const SYNC_EVERY: Duration = Duration::from_millis(250);
/// Shortest time between two rounds, however much is urgent.
const ROUND_MIN: Duration = Duration::from_millis(20);
/// What is newer and leads to the same is written so often.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Most accounts written in one round, beside those that matter at once.
const TELL_MAX: usize = 200;
/// Rows are read again that were written so long before the last look: clocks differ, and commits take time.
const OVERLAP: Duration = Duration::from_secs(5);
/// What nobody has written for so long is forgotten, unless an operator has set it for longer.
const KEPT: Duration = Duration::from_hours(24);
/// Tries at a write that others were quicker with.
pub(super) const TRIES_MAX: usize = 8;

/// Shares what this process and the others know, once, and hears what operators have said.
///
/// # Errors
/// The store did not answer; what is new stays to be told.
pub async fn round(governor: &Governor, store: &dyn Store, now: Timestamp, since: Timestamp) -> StoreResult<()> {
    governor.hear_operators(store.controls().await?, store.concurrencies().await?);
    let rows = store.accounts(since.minus(OVERLAP), ACCOUNTS_MAX).await?;
    governor.hear(rows, now);
    let mut told = Ok(());
    for account in governor.to_tell(now) {
        // one that cannot be told does not keep the others from it
        if let Err(error) = tell(governor, store, &account, now).await {
            told = Err(error);
        }
    }
    told
}

/// Waits for the next round: until something urgent is known here, or others may have written.
pub async fn wait(governor: &Governor, clock: &SharedClock) {
    clock.sleep_until(clock.now().plus(ROUND_MIN)).await;
    tokio::select! {
        () = governor.urgent.notified() => {}
        () = clock.sleep_until(clock.now().plus(SYNC_EVERY)) => {}
    }
}

async fn tell(governor: &Governor, store: &dyn Store, account: &Account, now: Timestamp) -> StoreResult<()> {
    for _ in 0..TRIES_MAX {
        let Some(write) = governor.write_of(account, now) else { return Ok(()) };
        if store.put_account(&write, now).await? {
            governor.told(&write, now);
            return Ok(());
        }
        match store.account(account).await? {
            Some(row) => governor.hear(vec![row], now),
            None => governor.is_gone(account),
        }
    }
    tracing::debug!(%account, "others write it all the time; it is told in the next round");
    Ok(())
}

/// Claims the probe of every circuit that lets one pass, for one call. True for the one worker that was first; heard of
/// within `patience`, or another one may.
///
/// # Errors
/// The store did not answer.
pub async fn probe(
    governor: &Arc<Governor>,
    store: &dyn Store,
    (endpoint, tenant): (&EndpointName, &Tenant),
    now: Timestamp,
    patience: Duration,
) -> StoreResult<bool> {
    let mut claimed = Vec::new();
    for account in governor.to_probe(endpoint, tenant, now) {
        if !claim(governor, store, &account, now, patience).await? {
            for (account, before) in claimed {
                governor.give_up_probe(&account, before);
            }
            return Ok(false);
        }
        claimed.push((account.clone(), now));
    }
    Ok(true)
}

async fn claim(
    governor: &Governor,
    store: &dyn Store,
    account: &Account,
    now: Timestamp,
    patience: Duration,
) -> StoreResult<bool> {
    for _ in 0..TRIES_MAX {
        // as others know it: somebody may have been quicker
        match store.account(account).await? {
            Some(row) => governor.hear(vec![row], now),
            None => governor.is_gone(account),
        }
        let Some(write) = governor.probe_write(account, now, patience) else { return Ok(false) };
        if store.put_account(&write, now).await? {
            let row = AccountRow {
                account: write.account,
                version: write.version,
                changed_at: now,
                knowledge: write.knowledge,
            };
            governor.hear(vec![row], now);
            return Ok(true);
        }
    }
    Ok(false)
}

impl Governor {
    /// The accounts that others have to hear of.
    fn to_tell(&self, now: Timestamp) -> Vec<Account> {
        let accounts = self.read();
        let urgent = accounts.iter().filter(|(_, entry)| entry.told == Told::Nothing);
        let old = |entry: &Entry| entry.told == Told::Old && now.since(entry.told_at) >= TELL_EVERY;
        let rest = accounts.iter().filter(|(_, entry)| old(entry)).take(TELL_MAX);
        urgent.chain(rest).map(|(account, _)| account).collect()
    }

    fn write_of(&self, account: &Account, now: Timestamp) -> Option<AccountWrite> {
        let accounts = self.read();
        let entry = accounts.get(account).filter(|entry| entry.told != Told::Everything)?;
        Some(write(account, entry.version, &entry.knowledge, now))
    }

    fn probe_write(&self, account: &Account, now: Timestamp, patience: Duration) -> Option<AccountWrite> {
        let accounts = self.read();
        let entry = accounts.get(account)?;
        let circuit = entry.knowledge.circuit.probing(self.me, now, patience)?;
        Some(write(account, entry.version, &Knowledge { circuit, ..entry.knowledge.clone() }, now))
    }

    /// The accounts of a call whose circuits let one probe pass.
    fn to_probe(&self, endpoint: &EndpointName, tenant: &Tenant, now: Timestamp) -> Vec<Account> {
        let mut concerned = self.concerned_accounts(endpoint, tenant);
        let accounts = self.read();
        let lets_pass = |account: &Account| {
            let circuit = accounts.get(account).map(|entry| &entry.knowledge.circuit);
            circuit.is_some_and(|circuit| matches!(circuit.door(now), super::Door::Probe(_)))
        };
        concerned.retain(lets_pass);
        concerned
    }

    /// Whether a call that has claimed the probe may still go: nobody has opened the circuit, or claimed it, since.
    pub fn may_probe(&self, endpoint: &EndpointName, tenant: &Tenant, now: Timestamp) -> bool {
        let accounts = self.read();
        let mut all = self.known_of(&accounts, endpoint, tenant).all();
        all.all(|known| match &known.circuit {
            Circuit::Probing { by, until, .. } => *by == self.me && *until > now,
            circuit => matches!(circuit.door(now), super::Door::Open(_)),
        })
    }

    /// The call that has claimed the probe is not made: another one may go at once.
    pub fn forgo_probe(&self, endpoint: &EndpointName, tenant: &Tenant, now: Timestamp) {
        for account in self.concerned_accounts(endpoint, tenant) {
            self.give_up_probe(&account, now);
        }
        self.urgent.notify_one();
    }

    fn concerned_accounts(&self, endpoint: &EndpointName, tenant: &Tenant) -> Vec<Account> {
        let owner = self.budgets().owner(endpoint);
        let both = |endpoint: &EndpointName| {
            [None, Some(tenant.clone())].map(|tenant| Account { endpoint: endpoint.clone(), tenant })
        };
        let mut concerned: Vec<Account> = [owner, endpoint].into_iter().flat_map(both).collect();
        concerned.sort();
        concerned.dedup();
        concerned
    }

    fn give_up_probe(&self, account: &Account, at: Timestamp) {
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        if accounts.get(account).is_none() {
            return;
        }
        let Some(entry) = accounts.entry(account, ACCOUNTS_MAX) else { return };
        if let Circuit::Probing { opening, by, at: since, .. } = &entry.knowledge.circuit
            && *by == self.me
        {
            let mut opening = opening.clone();
            // later than the probe that it takes back
            opening.at = at.max(since.plus(Duration::from_micros(1)));
            entry.knowledge.circuit = Circuit::Open(opening);
            entry.told = Told::Nothing;
        }
    }

    fn told(&self, write: &AccountWrite, now: Timestamp) {
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = accounts.entry(&write.account, ACCOUNTS_MAX) else { return };
        entry.version = write.version;
        entry.told_at = now;
        // what was learnt while it was written is still to be told
        if read(&write.knowledge).is_some_and(|written| written == entry.knowledge) {
            entry.told = Told::Everything;
        }
    }

    fn is_gone(&self, account: &Account) {
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = accounts.entry(account, ACCOUNTS_MAX) {
            entry.version = 0;
            entry.knowledge.live = None;
        }
    }

    /// Takes in what others wrote.
    fn hear(&self, rows: Vec<AccountRow>, now: Timestamp) {
        if rows.is_empty() {
            return;
        }
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            // most of them were read before: looks overlap
            if accounts.get(&row.account).is_some_and(|entry| entry.version >= row.version && entry.version > 0) {
                continue;
            }
            let Some(stored) = read(&row.knowledge) else {
                tracing::warn!(account = %row.account, "what is stored of this account can't be read, by this version");
                continue;
            };
            let Some(entry) = accounts.entry(&row.account, ACCOUNTS_MAX) else { continue };
            entry.version = row.version;
            entry.knowledge.merge(stored);
        }
        accounts.forget(|entry| {
            entry.told == Told::Everything
                && entry.streak.failures == 0
                && entry.knowledge.is_blank(now)
                && now.since(entry.told_at) > KEPT
        });
        self.known.store(accounts.len(), Ordering::Relaxed);
    }
}

pub(super) fn write(account: &Account, seen: i64, knowledge: &Knowledge, now: Timestamp) -> AccountWrite {
    let kept = now.plus(KEPT);
    let kept_until = match &knowledge.live {
        Some(live) => live.expires_at.map_or(Timestamp::MAX, |at| at.max(kept)),
        None => kept,
    };
    let text = serde_json::to_string(knowledge).expect("plain data becomes JSON");
    let version = now.as_micros().max(seen.saturating_add(1));
    AccountWrite { account: account.clone(), seen, version, kept_until, knowledge: text }
}

pub(super) fn read(text: &str) -> Option<Knowledge> {
    serde_json::from_str(text).ok()
}
