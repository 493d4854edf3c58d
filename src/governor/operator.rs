//! What an operator does to budgets while workers run: sets limits, with an end and a name, and takes everything back.

use std::time::Duration;

use super::ACCOUNTS_MAX;
use super::sync::TRIES_MAX;
use super::sync::{read, write};
use crate::clock::Timestamp;
use crate::job::budget::Account;
use crate::policy::account::{Knowledge, LiveLimits};
use crate::policy::limit::{HEADROOM, LIMITS_MAX, Limit, Scope};
use crate::store::{Store, StoreError, StoreResult};

/// Longest name of an author, in characters.
const AUTHOR_CHARS_MAX: usize = 100;

/// Limits as they are asked for.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Calls and the time in which: several at once; none = not limited.
    pub limits: Vec<(u32, Duration)>,
    /// Calls at once after a rest.
    pub burst: Option<u32>,
    /// Share that is used.
    pub headroom: Option<f64>,
    /// They are one budget for all tenants.
    pub shared: bool,
}

impl Wish {
    /// The limits.
    ///
    /// # Errors
    /// What is wrong with them, for a person.
    fn limits(&self) -> Result<Vec<Limit>, String> {
        if self.limits.len() > LIMITS_MAX {
            return Err(format!("{} limits, at most {LIMITS_MAX} are possible", self.limits.len()));
        }
        let headroom = self.headroom.unwrap_or(HEADROOM);
        if !(0.01..=1.0).contains(&headroom) {
            return Err(format!("headroom {headroom} is not a share: 0.01 to 1"));
        }
        let mut limits: Vec<Limit> = Vec::new();
        for (requests, per) in &self.limits {
            if *per < Duration::from_millis(1) || limits.iter().any(|limit| limit.per == *per) {
                return Err(format!("two limits per {per:?}, or one of no time at all"));
            }
            let scope = if self.shared { Scope::Endpoint } else { Scope::Tenant };
            limits.push(Limit { requests: *requests, per: *per, burst: self.burst, scope, headroom });
        }
        Ok(limits)
    }
}

/// Why an operator's word was not written.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Wrong(String),
    /// The store did not answer, or others write all the time.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Sets limits of an account that replace the configured ones, until `expires_at`. Workers know within a second.
///
/// # Errors
/// The wish makes no sense, or the store did not answer.
pub async fn set_limits(
    store: &dyn Store,
    account: &Account,
    wish: &Wish,
    author: &str,
    now: Timestamp,
    expires_at: Option<Timestamp>,
) -> Result<(), OperatorError> {
    let limits = wish.limits().map_err(OperatorError::Wrong)?;
    let author: String = author.chars().take(AUTHOR_CHARS_MAX).collect();
    let live = LiveLimits { limits, author, set_at: now, expires_at };
    change(store, account, now, |known| known.live = Some(live.clone())).await?;
    Ok(())
}

/// Takes back what an operator has set for an account, and forgets what was learnt of it; of an endpoint also what was
/// learnt of its tenants, who keep what was set for them. True = there was something.
///
/// # Errors
/// The store did not answer.
pub async fn reset(store: &dyn Store, account: &Account, now: Timestamp) -> StoreResult<bool> {
    let rows = store.accounts(Timestamp::EPOCH, ACCOUNTS_MAX).await?;
    let of_tenants = rows.into_iter().map(|row| row.account);
    let of_tenants = of_tenants.filter(|other| account.tenant.is_none() && other.endpoint == account.endpoint);
    let mut all: Vec<Account> = of_tenants.filter(|other| other != account).collect();
    all.push(account.clone());
    let mut something = false;
    for one in &all {
        change(store, one, now, |known| {
            let blank = Knowledge { live: None, ..known.clone() }.is_blank(now);
            something |= !blank || one == account && known.live.is_some();
            if one == account {
                known.live = None;
            }
            known.forget(now);
        })
        .await?;
    }
    Ok(something)
}

async fn change(
    store: &dyn Store,
    account: &Account,
    now: Timestamp,
    mut edit: impl FnMut(&mut Knowledge),
) -> StoreResult<()> {
    for _ in 0..TRIES_MAX {
        let row = store.account(account).await?;
        let seen = row.as_ref().map_or(0, |row| row.version);
        let mut known = match row {
            None => Knowledge::default(),
            Some(row) => read(&row.knowledge).ok_or_else(|| StoreError::Failed {
                address: "accounts".to_owned(),
                why: format!("what is known of {account} was written by another version; use that one"),
            })?,
        };
        edit(&mut known);
        if store.put_account(&write(account, seen, &known, now), now).await? {
            return Ok(());
        }
    }
    let why = format!("what is known of {account} was written by others again and again; try again");
    Err(StoreError::Unavailable { address: "accounts".to_owned(), why })
}
