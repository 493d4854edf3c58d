//! What an operator does while workers run: sets limits, pauses, with an end and a name, and takes everything back. Each
//! change is written with its line of the audit log. The command line, the pages and the API all come through here.

pub mod jobs;

use std::fmt;
use std::time::Duration;

use super::ACCOUNTS_MAX;
use super::sync::TRIES_MAX;
use super::sync::{read, write};
use crate::clock::Timestamp;
use crate::job::Tenant;
use crate::job::budget::Account;
use crate::job::control::{Pause, Paused, Speaker, Target};
use crate::policy::account::{Knowledge, LiveLimits};
use crate::policy::limit::{HEADROOM, LIMITS_MAX, Limit, Scope};
use crate::policy::pacing::{Budgets, Known, Limits, Source};
use crate::store::{AuditEntry, ControlRow, ControlWrite, Store, StoreError, StoreResult};

/// Most pauses at a time: every worker reads all of them four times a second.
pub const PAUSES_MAX: usize = 1_000;

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
    /// There is no such thing (any more).
    #[error("{0}")]
    NotFound(String),
    /// The broker did not take what had to be published.
    #[error("{0}")]
    Publish(String),
    /// The store did not answer, or others write all the time.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Longest time that something is paused or limited for, with an end.
pub const LASTS_MAX: Duration = Duration::from_hours(24 * 366);

/// When it ends what lasts so long from now on; `None` = when somebody says so.
///
/// # Errors
/// It is no time, or a longer one than [`LASTS_MAX`].
pub fn end_of(lasts: Option<Duration>, now: Timestamp) -> Result<Option<Timestamp>, OperatorError> {
    match lasts {
        Some(lasts) if lasts.is_zero() || lasts > LASTS_MAX => Err(OperatorError::Wrong(
            "it can last up to 366 days; without a time it lasts until it is taken back".to_owned(),
        )),
        lasts => Ok(lasts.map(|lasts| now.plus(lasts))),
    }
}

/// Pauses a target until `until` (`None` = until it is resumed), instead of a pause that there was. Workers follow within a
/// second. Answers that one, while it lasts.
///
/// # Errors
/// The end has passed already, there are too many pauses, or the store did not answer.
pub async fn pause(
    store: &dyn Store,
    target: &Target,
    until: Option<Timestamp>,
    by: &Speaker,
    now: Timestamp,
) -> Result<Option<Paused>, OperatorError> {
    if until.is_some_and(|until| until <= now) {
        return Err(OperatorError::Wrong("a pause has to end later than it begins".to_owned()));
    }
    let pause = Pause { until, author: by.author.clone(), note: by.note.clone(), set_at: now };
    for _ in 0..TRIES_MAX {
        let rows = store.controls().await?;
        let row = rows.iter().find(|row| row.target == *target);
        if row.is_none() && rows.len() >= PAUSES_MAX {
            let why =
                format!("{PAUSES_MAX} pauses are the most there can be: resume some, or pause a lane or an endpoint");
            return Err(OperatorError::Wrong(why));
        }
        let before = lasting(row, now);
        let line = entry(by, "pause", target, pause_text(before.as_ref()), pause_text_of(&pause), now);
        let write = control(target, row, Some(pause.clone()), now);
        if store.put_control(&write, &line).await? {
            return Ok(before);
        }
    }
    Err(contended(&target.to_string()).into())
}

/// Ends a pause. Workers follow within a second. Answers the pause that it was; `None` = there was none, and nothing is
/// written.
///
/// # Errors
/// The store did not answer.
pub async fn resume(store: &dyn Store, target: &Target, by: &Speaker, now: Timestamp) -> StoreResult<Option<Paused>> {
    for _ in 0..TRIES_MAX {
        let rows = store.controls().await?;
        let row = rows.iter().find(|row| row.target == *target);
        let Some(before) = lasting(row, now) else { return Ok(None) };
        let line = entry(by, "resume", target, pause_text(Some(&before)), NOT_PAUSED.to_owned(), now);
        if store.put_control(&control(target, row, None, now), &line).await? {
            return Ok(Some(before));
        }
    }
    Err(contended(&target.to_string()))
}

const NOT_PAUSED: &str = "not paused";

fn lasting(row: Option<&ControlRow>, now: Timestamp) -> Option<Paused> {
    let row = row?;
    let paused = Paused { target: row.target.clone(), pause: row.pause.clone() };
    Some(paused).filter(|paused| paused.pause.lasts(now))
}

fn pause_text(paused: Option<&Paused>) -> String {
    paused.map_or(NOT_PAUSED.to_owned(), |paused| pause_text_of(&paused.pause))
}

fn pause_text_of(pause: &Pause) -> String {
    pause.until.map_or("paused until resumed".to_owned(), |until| format!("paused until {until}"))
}

fn control(target: &Target, row: Option<&ControlRow>, pause: Option<Pause>, now: Timestamp) -> ControlWrite {
    let seen = row.map_or(0, |row| row.version);
    ControlWrite { target: target.clone(), seen, version: now.as_micros().max(seen.saturating_add(1)), pause }
}

/// A line of the log.
pub fn entry(
    by: &Speaker,
    action: &str,
    target: &impl fmt::Display,
    before: String,
    after: String,
    now: Timestamp,
) -> AuditEntry {
    AuditEntry {
        at: now,
        actor: by.author.clone(),
        source: by.source,
        action: action.to_owned(),
        target: target.to_string(),
        before,
        after,
        note: by.note.clone(),
    }
}

/// Sets limits of an account that replace the configured ones, until `expires_at`. Workers know within a second.
///
/// # Errors
/// The wish makes no sense, or the store did not answer.
pub async fn set_limits(
    store: &dyn Store,
    account: &Account,
    wish: &Wish,
    by: &Speaker,
    now: Timestamp,
    expires_at: Option<Timestamp>,
) -> Result<(), OperatorError> {
    set_live(store, account, wish.limits().map_err(OperatorError::Wrong)?, by, now, expires_at).await
}

/// Makes so many percent of the calls of an account that its limits allow now, until `expires_at`: all its limits are set
/// lower. Workers know within a second.
///
/// # Errors
/// Nothing limits the account, it shares the limits of all tenants, or the store did not answer.
pub async fn slow(
    store: &dyn Store,
    budgets: &Budgets,
    account: &Account,
    percent: u32,
    by: &Speaker,
    now: Timestamp,
    expires_at: Option<Timestamp>,
) -> Result<(), OperatorError> {
    let wrong = |why: String| Err(OperatorError::Wrong(why));
    if !(1..=99).contains(&percent) {
        return wrong(format!("{percent} percent is no slowing down: 1 to 99"));
    }
    let known = async |tenant: Option<Tenant>| -> StoreResult<Option<Knowledge>> {
        let whose = Account { endpoint: account.endpoint.clone(), tenant };
        Ok(store.account(&whose).await?.and_then(|row| read(&row.knowledge)))
    };
    let endpoint = known(None).await?;
    let tenant = if account.tenant.is_some() { known(account.tenant.clone()).await? } else { None };
    let known = Known { endpoint: endpoint.as_ref(), tenant: tenant.as_ref(), ..Known::default() };
    let of = match (&account.tenant, endpoint.as_ref().and_then(|known| known.live(now))) {
        (Some(tenant), _) => budgets.limits(&account.endpoint, tenant, known, now),
        (None, Some(live)) => Limits { limits: &live.limits, of_tenant: false, source: Source::Live(live) },
        (None, None) => {
            let limits = &budgets.endpoint(&account.endpoint).limits;
            Limits { limits, of_tenant: false, source: Source::Configured }
        }
    };
    if account.tenant.is_some() && !of.of_tenant && of.limits.iter().any(|limit| limit.scope == Scope::Endpoint) {
        return wrong(format!(
            "all tenants share the limits of {}: slow down all of it, or pause the tenant there",
            account.endpoint
        ));
    }
    let slower = |limit: &Limit| Limit { requests: part(limit.requests, percent), ..limit.clone() };
    let limits: Vec<Limit> = of.limits.iter().map(slower).collect();
    if limits.iter().all(|limit| limit.requests == 0) {
        return wrong(format!("nothing limits {}: set limits, or pause it", Target::from(account.clone())));
    }
    set_live(store, account, limits, by, now, expires_at).await
}

/// That share of calls, at least one; 0 stays 0, which is no limit.
fn part(requests: u32, percent: u32) -> u32 {
    let part = u64::from(requests) * u64::from(percent) / 100;
    u32::try_from(part).unwrap_or(u32::MAX).max(requests.min(1))
}

async fn set_live(
    store: &dyn Store,
    account: &Account,
    limits: Vec<Limit>,
    by: &Speaker,
    now: Timestamp,
    expires_at: Option<Timestamp>,
) -> Result<(), OperatorError> {
    let live = LiveLimits { limits, author: by.author.clone(), set_at: now, expires_at };
    change(store, account, now, |known| {
        let before = limits_text(known.live(now));
        known.live = Some(live.clone());
        Some(entry(by, "set_limits", &Target::from(account.clone()), before, limits_text(Some(&live)), now))
    })
    .await?;
    Ok(())
}

/// Takes back what an operator has set for an account, and forgets what was learnt of it; of an endpoint also what was
/// learnt of its tenants, who keep what was set for them. True = there was something.
///
/// # Errors
/// The store did not answer.
pub async fn reset(store: &dyn Store, account: &Account, by: &Speaker, now: Timestamp) -> StoreResult<bool> {
    let rows = store.accounts(Timestamp::EPOCH, ACCOUNTS_MAX).await?;
    let of_tenants = rows.into_iter().map(|row| row.account);
    let of_tenants = of_tenants.filter(|other| account.tenant.is_none() && other.endpoint == account.endpoint);
    let mut all: Vec<Account> = of_tenants.filter(|other| other != account).collect();
    // the last one, whose line tells what was done
    all.push(account.clone());
    let mut something = false;
    for one in &all {
        change(store, one, now, |known| {
            let blank = Knowledge { live: None, ..known.clone() }.is_blank(now);
            something |= !blank || one == account && known.live.is_some();
            let before = limits_text(known.live(now));
            if one == account {
                known.live = None;
            }
            known.forget(now);
            let told = something && one == account;
            told.then(|| entry(by, "reset_limits", &Target::from(account.clone()), before, limits_text(None), now))
        })
        .await?;
    }
    Ok(something)
}

/// `50/60s, 40000/86400s, 0.8 of it, until 2027-01-15T08:00:00Z`
fn limits_text(live: Option<&LiveLimits>) -> String {
    let Some(live) = live else { return "as configured".to_owned() };
    let mut parts: Vec<String> =
        live.limits.iter().map(|limit| format!("{}/{}s", limit.requests, limit.per.as_secs_f64())).collect();
    match live.limits.first() {
        None => parts.push("not limited".to_owned()),
        Some(limit) => {
            parts.push(format!("{} of it", limit.headroom));
            parts.extend(limit.burst.map(|burst| format!("bursts of {burst}")));
            parts.extend((limit.scope == Scope::Endpoint).then(|| "shared".to_owned()));
        }
    }
    parts.extend(live.expires_at.map(|at| format!("until {at}")));
    parts.join(", ")
}

/// Changes what is known of an account, with a line of the audit log where `edit` answers one.
async fn change(
    store: &dyn Store,
    account: &Account,
    now: Timestamp,
    mut edit: impl FnMut(&mut Knowledge) -> Option<AuditEntry>,
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
        let line = edit(&mut known);
        let write = write(account, seen, &known, now);
        let written = match line {
            Some(line) => store.put_account_audited(&write, now, &line).await?,
            None => store.put_account(&write, now).await?,
        };
        if written {
            return Ok(());
        }
    }
    Err(contended(&account.to_string()))
}

pub(super) fn contended(what: &str) -> StoreError {
    let why = format!("what is said of {what} was written by others again and again; try again");
    StoreError::Unavailable { address: "operator".to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_in_one_line() {
        let limit = |requests, secs| Limit {
            requests,
            per: Duration::from_secs(secs),
            burst: None,
            scope: Scope::Tenant,
            headroom: 0.8,
        };
        let live = |limits| LiveLimits { limits, author: "ada".to_owned(), set_at: Timestamp::EPOCH, expires_at: None };
        assert_eq!(limits_text(None), "as configured");
        assert_eq!(limits_text(Some(&live(Vec::new()))), "not limited");
        assert_eq!(limits_text(Some(&live(vec![limit(50, 60), limit(9, 1)]))), "50/60s, 9/1s, 0.8 of it");
        let until = LiveLimits { expires_at: Some(Timestamp::from_secs(60)), ..live(vec![limit(1, 1)]) };
        assert_eq!(limits_text(Some(&until)), "1/1s, 0.8 of it, until 1970-01-01T00:01:00Z");
    }
}
