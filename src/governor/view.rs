//! What people are shown of budgets: why jobs wait and until when, and the state of every account.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::{Governor, Way, describe};
use crate::clock::Timestamp;
use crate::job::budget::Window;
use crate::job::control::Paused;
use crate::job::verdict::WaitReason;
use crate::job::{EndpointName, LaneName, Tenant};
use crate::policy::account::Knowledge;
use crate::policy::circuit::{Circuit, Door, Opening};
use crate::policy::limit::Limit;
use crate::policy::pacing::{Source, pace_of};
use crate::store::{HeldCount, IN_TURN, JobRow, LIST_MAX, State, Store, StoreResult, gcra};

/// Most jobs that are counted before one.
const AHEAD_MAX: usize = 1_000_000;

/// Why jobs wait.
#[derive(Debug, Clone, PartialEq)]
pub struct Hold {
    /// The reason as a word.
    pub reason: WaitReason,
    /// Until when, as far as can be told; of a job with others before it: about when its turn comes. `None` of a pause = until
    /// it is resumed.
    pub until: Option<Timestamp>,
    /// The reason as a sentence.
    pub why: String,
}

/// Jobs of one lane, endpoint and tenant that wait for their turn, and why.
#[derive(Debug, Clone)]
pub struct Held {
    /// Which.
    pub of: HeldCount,
    /// What holds back the next of them; `None` = it is about to go.
    pub next: Option<Hold>,
    /// When the last of them will go, at this pace.
    pub last_at: Option<Timestamp>,
}

/// The state of one account.
#[derive(Debug, Clone)]
pub struct AccountState {
    /// Its endpoint.
    pub endpoint: EndpointName,
    /// Its tenant; `None` = what is said of all tenants, or of each that has nothing of its own.
    pub tenant: Option<Tenant>,
    /// Its limits.
    pub limits: Vec<LimitState>,
    /// `configured`, or `live`: set by an operator.
    pub source: &'static str,
    /// Who set them, where an operator did, and until when they count.
    pub set_by: Option<(String, Timestamp, Option<Timestamp>)>,
    /// What answers told, as sentences.
    pub learnt: Vec<String>,
    /// Calls left as the last answer told, and when there will be more.
    pub left: Option<(f64, Option<Timestamp>)>,
    /// Calls a second that are made at most; `None` = as many as there are.
    pub pace: Option<f64>,
    /// `open`, `slowed`, `cool_down`, `failing`, `probing` or `paused`.
    pub state: &'static str,
    /// Since when it has been blocked, tries in between included; a pause does not count.
    pub since: Option<Timestamp>,
    /// Until when nothing is called, while that is so.
    pub until: Option<Timestamp>,
    /// Why nothing is called.
    pub detail: String,
    /// Jobs that wait for their turn, in all lanes.
    pub held: u64,
}

impl AccountState {
    /// The smallest limit that is set; what was only learnt has none here.
    pub fn most(&self) -> Option<f64> {
        self.limits.iter().map(|limit| f64::from(limit.requests)).min_by(f64::total_cmp)
    }

    /// Which share is left, as the last answer told; those with nothing to compare with come last.
    pub fn share_left(&self) -> f64 {
        match (self.left, self.most()) {
            (Some((left, _)), Some(most)) if most > 0.0 => (left / most).min(1.0),
            (Some((left, _)), _) if left < 1.0 => 0.0,
            (Some(_), _) => 1.0,
            (None, _) => 2.0,
        }
    }
}

/// One limit.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitState {
    /// Calls.
    pub requests: u32,
    /// In this time.
    pub per: Duration,
    /// `tenant` or `endpoint`.
    pub scope: &'static str,
    /// Share that is used.
    pub headroom: f64,
    /// Calls at once after a rest; `None` = the default.
    pub burst: Option<u32>,
}

impl From<&Limit> for LimitState {
    fn from(limit: &Limit) -> Self {
        Self {
            requests: limit.requests,
            per: limit.per,
            scope: limit.scope.as_str(),
            headroom: limit.headroom,
            burst: limit.burst,
        }
    }
}

/// Why a job waits, by what is known now; `None` for one whose own time says it, or that does not wait.
///
/// # Errors
/// The store did not answer.
pub async fn hold_of(
    governor: &Governor,
    store: &dyn Store,
    job: &JobRow,
    now: Timestamp,
) -> StoreResult<Option<Hold>> {
    let own = match job.state {
        State::Waiting => job.resume_at.unwrap_or(now),
        State::Queued => now,
        _ => return Ok(None),
    };
    // one whose own time is after the pause is not held back by it
    let paused = governor.job_pause((&job.lane, &job.endpoint, &job.tenant), now);
    let holds = |paused: &Paused| own == IN_TURN || paused.pause.until.is_none_or(|until| until > own);
    if let Some(paused) = paused.filter(holds) {
        return Ok(Some(hold_by(&paused)));
    }
    if own != IN_TURN {
        return Ok(None);
    }
    let ahead = store.ahead(job, AHEAD_MAX).await?;
    let due = due_of(governor, store, [(&job.lane, &job.endpoint, &job.tenant)], now).await?;
    Ok(governor.hold((&job.lane, &job.endpoint, &job.tenant), &due, ahead, now))
}

/// Who waits for a turn, most jobs first, and why.
///
/// # Errors
/// The store did not answer.
pub async fn held(governor: &Governor, store: &dyn Store, now: Timestamp) -> StoreResult<Vec<Held>> {
    let counts = store.held(LIST_MAX).await?;
    let whose = counts.iter().map(|count| (&count.lane, &count.endpoint, &count.tenant));
    let due = due_of(governor, store, whose, now).await?;
    let held = counts.into_iter().map(|count| {
        let whose = (&count.lane, &count.endpoint, &count.tenant);
        let next = governor.hold(whose, &due, 0, now);
        let last = governor.hold(whose, &due, count.jobs.saturating_sub(1), now);
        Held { next, last_at: last.and_then(|last| last.until), of: count }
    });
    Ok(held.collect())
}

type Whose<'a> = (&'a LaneName, &'a EndpointName, &'a Tenant);

/// The arrival times of all windows that these calls have to fit.
async fn due_of<'a>(
    governor: &Governor,
    store: &dyn Store,
    whose: impl IntoIterator<Item = Whose<'a>>,
    now: Timestamp,
) -> StoreResult<HashMap<String, Timestamp>> {
    let keys: BTreeSet<String> = whose
        .into_iter()
        .filter_map(|(lane, endpoint, tenant)| match governor.way(lane, endpoint, tenant, now) {
            Way::Paced(windows) => Some(windows),
            _ => None,
        })
        .flatten()
        .map(|window| window.key)
        .collect();
    let keys: Vec<String> = keys.into_iter().collect();
    Ok(if keys.is_empty() { HashMap::new() } else { store.peek(&keys).await?.into_iter().collect() })
}

impl Governor {
    /// What holds back a job with so many before it.
    fn hold(
        &self,
        (lane, endpoint, tenant): Whose<'_>,
        due: &HashMap<String, Timestamp>,
        ahead: u64,
        now: Timestamp,
    ) -> Option<Hold> {
        if let Some(paused) = self.job_pause((lane, endpoint, tenant), now) {
            return Some(hold_by(&paused));
        }
        match self.way(lane, endpoint, tenant, now) {
            Way::Free => {
                let slots = self.slots(lane, endpoint, tenant);
                let max = slots.iter().map(|slot| slot.max).min()?;
                let why = format!("at most {max} calls of {endpoint} may be in flight at a time for it");
                Some(Hold { reason: WaitReason::Concurrency, until: None, why })
            }
            Way::Probe(reason) => {
                let why = format!("{endpoint} was blocked: one call goes first and shows whether it works again");
                Some(Hold { reason, until: Some(now), why })
            }
            Way::Shut { until, reason } => {
                let why = self.why_shut(endpoint, tenant, now);
                Some(Hold { reason, until, why })
            }
            Way::Paced(windows) => {
                let (at, window) = windows
                    .iter()
                    .map(|window| (turn_at(window, due.get(&window.key).copied(), ahead, now), window))
                    .max_by_key(|(at, _)| *at)?;
                let pace = pace_text(1.0 / window.interval.as_secs_f64());
                let why = match ahead {
                    0 => format!("its turn is next: {endpoint} is called {pace} at most"),
                    1 => format!("one job goes before it: {endpoint} is called {pace} at most"),
                    _ => format!("{ahead} jobs go before it: {endpoint} is called {pace} at most"),
                };
                Some(Hold { reason: WaitReason::Budget, until: Some(at.max(now)), why })
            }
        }
    }

    fn why_shut(&self, endpoint: &EndpointName, tenant: &Tenant, now: Timestamp) -> String {
        let accounts = self.read();
        let known = self.known_of(&accounts, endpoint, tenant);
        let opening = known.all().filter(|known| matches!(known.door(now), Door::Shut { .. }));
        if let Some(opening) = opening.filter_map(|known| known.circuit.opening()).max_by_key(|opening| opening.until) {
            return opened(endpoint, opening);
        }
        let used_up = known.all().flat_map(|known| &known.lessons);
        let used_up = used_up.filter(|lesson| lesson.remaining.is_some_and(|left| left < 1.0)).map(describe).next();
        format!("{endpoint} has nothing left ({})", used_up.unwrap_or_default())
    }

    /// The state of every account that something is configured for or known of, or that jobs wait for; `held`: who waits.
    pub fn accounts(&self, lane: &LaneName, held: &[HeldCount], now: Timestamp) -> Vec<AccountState> {
        let mut jobs: BTreeMap<(EndpointName, Option<Tenant>), u64> = BTreeMap::new();
        for endpoint in self.budgets.endpoints.keys() {
            jobs.entry((self.budgets.owner(endpoint).clone(), None)).or_default();
        }
        for (tenant, endpoint) in self.budgets.overrides.keys() {
            jobs.entry((endpoint.clone(), Some(tenant.clone()))).or_default();
        }
        let accounts = self.read();
        for (account, _) in accounts.iter() {
            jobs.entry((account.endpoint, account.tenant)).or_default();
        }
        for count in held {
            let owner = self.budgets.owner(&count.endpoint).clone();
            *jobs.entry((owner.clone(), Some(count.tenant.clone()))).or_default() += count.jobs;
            *jobs.entry((owner, None)).or_default() += count.jobs;
        }
        drop(accounts);
        for paused in self.lasting_pauses(now) {
            if let (None, Some(endpoint), tenant) = paused.target.parts() {
                jobs.entry((endpoint.clone(), tenant.cloned())).or_default();
            }
        }
        jobs.into_iter().map(|((endpoint, tenant), held)| self.account(lane, endpoint, tenant, held, now)).collect()
    }

    fn account(
        &self,
        lane: &LaneName,
        endpoint: EndpointName,
        tenant: Option<Tenant>,
        held: u64,
        now: Timestamp,
    ) -> AccountState {
        let accounts = self.read();
        // what is said of all tenants is what a tenant has of whom nothing is known: no tenant's name is this one
        let nobody = Tenant::unnamed();
        let known = match &tenant {
            Some(tenant) => self.known_of(&accounts, &endpoint, tenant),
            None => crate::policy::pacing::Known { endpoint: accounts.of(&endpoint, &nobody)[0], ..Default::default() },
        };
        let whose = tenant.as_ref().unwrap_or(&nobody);
        let limits = self.budgets.limits(&endpoint, whose, known, now);
        let own = if tenant.is_some() { known.tenant } else { known.endpoint };
        let lessons = own.map(|own| &own.lessons[..]).unwrap_or_default();
        let left = lessons.iter().filter_map(|lesson| Some((lesson.remaining?, lesson.reset_at)));
        let paused = match &tenant {
            Some(tenant) => self.call_pause(&endpoint, tenant, now),
            None => self.endpoint_pause(&endpoint, now),
        };
        let since = own.filter(|_| paused.is_none()).and_then(|own| own.circuit.opening()).map(|opening| opening.since);
        let (state, until, detail) = match &paused {
            Some(paused) => ("paused", paused.pause.until, hold_by(paused).why),
            None => state_of(own, now),
        };
        let pace = match self.budgets.fit(lane, &endpoint, whose, known, 1.0, now) {
            crate::policy::pacing::Fit::Windows(windows) => Some(pace_of(&windows)).filter(|pace| pace.is_finite()),
            crate::policy::pacing::Fit::UsedUp(_) => Some(0.0),
        };
        AccountState {
            limits: limits.limits.iter().map(LimitState::from).collect(),
            source: if matches!(limits.source, Source::Live(_)) { "live" } else { "configured" },
            set_by: match limits.source {
                Source::Live(live) => Some((live.author.clone(), live.set_at, live.expires_at)),
                Source::Configured => None,
            },
            learnt: lessons.iter().map(describe).collect(),
            left: left.min_by(|(a, _), (b, _)| a.total_cmp(b)),
            pace,
            state,
            since,
            until,
            detail,
            held,
            endpoint,
            tenant,
        }
    }
}

fn state_of(known: Option<&Knowledge>, now: Timestamp) -> (&'static str, Option<Timestamp>, String) {
    let Some(known) = known else { return ("open", None, String::new()) };
    let detail = known.circuit.opening().map(|opening| opening.detail.clone()).unwrap_or_default();
    match known.door(now) {
        Door::Open(speed) if speed < 1.0 || known.slowed_to(now) < 1.0 => ("slowed", None, detail),
        Door::Open(_) => ("open", None, detail),
        Door::Probe(_) => ("probing", None, detail),
        Door::Shut { until, .. } if matches!(known.circuit, Circuit::Probing { .. }) => {
            ("probing", Some(until), detail)
        }
        Door::Shut { until, cause } => (cause.as_str(), Some(until), detail),
    }
}

/// `lane bulk is paused by ada@home: the CRM is being moved`
fn hold_by(Paused { target, pause }: &Paused) -> Hold {
    let mut why = format!("{target} is paused by {}", pause.author);
    if pause.until.is_none() {
        why.push_str(", until it is resumed");
    }
    if !pause.note.is_empty() {
        why = format!("{why}: {}", pause.note);
    }
    Hold { reason: WaitReason::Paused, until: pause.until, why }
}

fn opened(endpoint: &EndpointName, opening: &Opening) -> String {
    let what = match opening.cause {
        crate::policy::circuit::Cause::CoolDown => "limits its callers",
        crate::policy::circuit::Cause::Failing => "fails",
    };
    format!("{endpoint} {what}: {}", opening.detail)
}

/// When a job may go that has so many before it.
fn turn_at(window: &Window, due: Option<Timestamp>, ahead: u64, now: Timestamp) -> Timestamp {
    let first = gcra::first(window, due, now, now);
    let before = window.interval.saturating_mul(u32::try_from(ahead).unwrap_or(u32::MAX));
    first.plus(before)
}

/// A pace in the unit in which it is a number that people can read.
pub fn pace_text(per_second: f64) -> String {
    const UNITS: [(f64, &str); 4] = [(1.0, "s"), (60.0, "min"), (3_600.0, "h"), (86_400.0, "day")];
    let (factor, unit) = UNITS.into_iter().find(|(factor, _)| per_second * factor >= 1.0).unwrap_or(UNITS[3]);
    let number = per_second * factor;
    let text = if number >= 100.0 { format!("{number:.0}") } else { format!("{number:.1}") };
    format!("{}/{unit}", text.strip_suffix(".0").unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_told_in_a_unit_that_can_be_read() {
        for (pace, text) in
            [(1_600.0, "1600/s"), (8.0, "8/s"), (80.0 / 60.0, "1.3/s"), (0.5, "30/min"), (0.001, "3.6/h")]
        {
            assert_eq!(pace_text(pace), text);
        }
        assert_eq!(pace_text(2.0 / 86_400.0), "2/day");
    }
}
