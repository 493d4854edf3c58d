//! What may be called now, by all that this process knows: limits, lessons, blocks, pauses. Decisions are `policy`'s; it remembers.
//!
//! Every answer of an API passes through [`Governor::observe`]; [`sync`] shares what was learnt with the other workers.

pub mod hurry;
mod known;
pub mod lanes;
pub mod operations;
pub mod operator;
mod pauses;
pub mod sync;
pub mod view;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::job::budget::{Account, Slot, Window};
use crate::job::verdict::{Class, WaitReason};
use crate::job::{EndpointName, LaneName, Tenant};
use crate::policy::account::Change;
use crate::policy::circuit::{Cause, Circuit, Door, Shown};
use crate::policy::headers::RateReading;
use crate::policy::learn::Lesson;
use crate::policy::pacing::{Budgets, Fit, Known, Learn};
use known::Accounts;
use pauses::KnownPauses;

/// Most accounts that are remembered; beyond it the configuration alone counts.
pub const ACCOUNTS_MAX: usize = 50_000;

/// A block that ends later by no more than that is the same one.
const SAME_END: Duration = Duration::from_secs(1);

/// What the answers of an endpoint were like: none was heard, they tell no limits, they tell some.
const UNHEARD: u8 = 0;
const SILENT: u8 = 1;
const TELLS: u8 = 2;

/// What a call has to do before it may be made.
#[derive(Debug, Clone, PartialEq)]
pub enum Way {
    /// Nothing.
    Free,
    /// Take a token of each of these windows.
    Paced(Vec<Window>),
    /// Wait.
    Shut {
        /// When to ask again; `None` = once an operator says so.
        until: Option<Timestamp>,
        /// Why.
        reason: WaitReason,
    },
    /// Become the one that shows how things are: ask [`sync::probe`].
    Probe(WaitReason),
}

/// What an answer led to.
#[derive(Debug, Default)]
pub struct Observed {
    /// What was learnt, for the log.
    pub learnt: Option<String>,
    /// Circuits that changed their state.
    pub circuits: Vec<(Account, Circuit)>,
}

/// What this process knows. Shared by all lanes: every call is short and waits for nothing.
#[derive(Debug)]
pub struct Governor {
    budgets: Budgets,
    accounts: RwLock<Accounts>,
    /// How many accounts are known: most jobs are of endpoints that nothing is known of.
    known: AtomicUsize,
    /// What the answers of each configured endpoint were like, so far.
    heard: HashMap<EndpointName, AtomicU8>,
    /// What operators have said.
    pauses: KnownPauses,
    /// Something that everybody has to know at once.
    urgent: Notify,
    /// Who sends the probes of this process.
    me: Uuid,
}

impl Governor {
    /// One that knows the configuration.
    pub fn new(budgets: Budgets) -> Self {
        let (accounts, known, pauses, urgent) = Default::default();
        let heard = budgets.endpoints.iter().map(|(name, budget)| {
            let start = if budget.learn == Learn::Off { SILENT } else { UNHEARD };
            (name.clone(), AtomicU8::new(start))
        });
        Self { heard: heard.collect(), budgets, accounts, known, pauses, urgent, me: Uuid::new_v4() }
    }

    /// One that shows people what holds jobs back. It hears no answers, so it does not wait for the first of them.
    pub fn observer(budgets: Budgets) -> Self {
        Self { heard: HashMap::new(), ..Self::new(budgets) }
    }

    /// What is configured.
    pub fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// Whether nothing can stand in the way of a call to `endpoint`: no limit is configured, nothing is known.
    pub fn is_plain(&self, endpoint: &EndpointName) -> bool {
        self.known.load(Ordering::Relaxed) == 0
            && self.budgets.endpoint(self.budgets.owner(endpoint)).limits.is_empty()
            && self.budgets.overrides.is_empty()
    }

    /// Whether anything is known that could hold back any call.
    pub fn knows_any(&self) -> bool {
        self.known.load(Ordering::Relaxed) > 0
            || self.pauses.any()
            || self.budgets.endpoints.values().any(|budget| !budget.limits.is_empty())
    }

    /// The state of an endpoint's circuits as a word: that of the one that is shut most.
    pub fn circuit_word(&self, endpoint: &EndpointName) -> &'static str {
        self.read().circuit_word(endpoint)
    }

    /// What a call has to do now; that its lane is paused is not its own affair ([`Governor::lane_pause`]).
    pub fn way(&self, lane: &LaneName, endpoint: &EndpointName, tenant: &Tenant, now: Timestamp) -> Way {
        if let Some(shut) = self.pauses.way(endpoint, tenant, now) {
            return shut;
        }
        let heard = self.heard.get(endpoint).map_or(SILENT, |heard| heard.load(Ordering::Relaxed));
        if heard == SILENT && self.is_plain(endpoint) {
            return Way::Free;
        }
        let accounts = self.read();
        let known = self.known_of(&accounts, endpoint, tenant);
        let speed = match known.door(now) {
            Door::Open(speed) => speed,
            Door::Shut { until, cause } => return Way::Shut { until: Some(until), reason: reason(cause) },
            Door::Probe(cause) => return Way::Probe(reason(cause)),
        };
        match self.budgets.fit(lane, endpoint, tenant, known, speed, now) {
            Fit::UsedUp(until) => Way::Shut { until: Some(until), reason: WaitReason::Budget },
            Fit::Windows(windows) if !windows.is_empty() => Way::Paced(windows),
            // before it was heard what it allows, not everybody goes at once
            Fit::Windows(_) if self.is_new(&accounts, heard, endpoint, tenant) => {
                Way::Paced(vec![self.budgets.first_calls(endpoint, tenant)])
            }
            Fit::Windows(_) => Way::Free,
        }
    }

    /// Whether no answer was heard of an account that may tell what it allows: of an endpoint that was never heard, or of
    /// another account of one that does tell.
    fn is_new(&self, accounts: &Accounts, heard: u8, endpoint: &EndpointName, tenant: &Tenant) -> bool {
        let room = accounts.len() < ACCOUNTS_MAX;
        heard == UNHEARD
            || heard == TELLS && room && accounts.get(&self.budgets.taught_account(endpoint, tenant)).is_none()
    }

    fn hear_endpoint(&self, endpoint: &EndpointName, shown: &Shown, readings: &[RateReading]) {
        let Some(heard) = self.heard.get(endpoint) else { return };
        // one that tells only when it refuses does not tell beforehand what it allows
        let tells = !readings.is_empty() && shown.class == Class::Ok;
        if tells && heard.load(Ordering::Relaxed) == UNHEARD {
            heard.store(TELLS, Ordering::Relaxed);
        } else if !matches!(shown.class, Class::NotSent | Class::Unknown) {
            // who has told once is known to tell
            let _was_heard = heard.compare_exchange(UNHEARD, SILENT, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// The slots that a call takes while it is in flight.
    pub fn slots(&self, lane: &LaneName, endpoint: &EndpointName, tenant: &Tenant) -> Vec<Slot> {
        self.budgets.slots(lane, endpoint, tenant)
    }

    /// Takes in what a call showed.
    pub fn observe(
        &self,
        endpoint: &EndpointName,
        tenant: &Tenant,
        shown: &Shown,
        readings: &[RateReading],
    ) -> Observed {
        self.hear_endpoint(endpoint, shown, readings);
        if self.says_nothing_new(endpoint, tenant, shown, readings) {
            return Observed::default();
        }
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        let mut observed = Observed::default();
        let mut all = Change::default();
        for (account, shown, readings) in self.concerned(&mut accounts, endpoint, tenant, shown, readings) {
            let how = self.budgets.observing(&account.endpoint);
            let Some(entry) = accounts.entry(&account, ACCOUNTS_MAX) else { continue };
            let before = entry.knowledge.circuit.clone();
            let change = entry.knowledge.observe(&how, &mut entry.streak, &shown, readings);
            entry.changed(change);
            all = Change { any: all.any | change.any, urgent: all.urgent | change.urgent };
            if change.any && (shown.class == Class::RateLimited || change.urgent) {
                observed.learnt = learnt(&entry.knowledge.lessons, &entry.knowledge.circuit, shown.ended_at);
            }
            if is_news(&before, &entry.knowledge.circuit) {
                observed.circuits.push((account, entry.knowledge.circuit.clone()));
            }
        }
        self.known.store(accounts.len(), Ordering::Relaxed);
        drop(accounts);
        if all.urgent {
            self.urgent.notify_one();
        }
        observed
    }

    /// A success that tells nothing, of accounts that nothing is wrong with: nearly every answer.
    fn says_nothing_new(
        &self,
        endpoint: &EndpointName,
        tenant: &Tenant,
        shown: &Shown,
        readings: &[RateReading],
    ) -> bool {
        if !matches!(shown.class, Class::Ok | Class::Permanent) || !readings.is_empty() {
            return false;
        }
        self.known.load(Ordering::Relaxed) == 0 || self.read().all_quiet(self.budgets.owner(endpoint), endpoint, tenant)
    }

    /// The accounts that a call says something about, and what it says about each: a limit is that of the account whose
    /// limits its answers tell; that the endpoint fails, of the tenant's, and of the whole endpoint's once it fails
    /// several tenants.
    fn concerned<'a>(
        &self,
        accounts: &mut Accounts,
        endpoint: &EndpointName,
        tenant: &Tenant,
        shown: &Shown,
        readings: &'a [RateReading],
    ) -> Vec<(Account, Shown, &'a [RateReading])> {
        let taught = self.budgets.taught_account(endpoint, tenant);
        let of_tenant = Account { endpoint: endpoint.clone(), tenant: Some(tenant.clone()) };
        let of_endpoint = Account { endpoint: endpoint.clone(), tenant: None };
        let works = matches!(shown.class, Class::Ok | Class::Permanent);
        let mut concerned = vec![(taught.clone(), shown.clone(), readings)];
        if shown.class != Class::RateLimited {
            let several = accounts.fails_several(&of_endpoint, tenant, works);
            let mut add = |account: Account| {
                if account != taught {
                    concerned.push((account, shown.clone(), &[]));
                }
            };
            if works {
                // of those that nothing is known of nothing is remembered
                [of_tenant, of_endpoint]
                    .into_iter()
                    .filter(|account| accounts.get(account).is_some())
                    .for_each(&mut add);
            } else {
                add(of_tenant);
                if several {
                    add(of_endpoint);
                }
            }
            // that all tenants together fail is not said by one; and of a success there is nothing to remember
            let blank = works && readings.is_empty() && accounts.get(&taught).is_none();
            if blank || !works && taught.tenant.is_none() && !several {
                concerned.remove(0);
            }
        }
        concerned
    }

    fn known_of<'a>(&'a self, accounts: &'a Accounts, endpoint: &EndpointName, tenant: &Tenant) -> Known<'a> {
        let owner = self.budgets.owner(endpoint);
        let [all, one] = accounts.of(owner, tenant);
        let own = if owner == endpoint { [None, None] } else { accounts.of(endpoint, tenant) };
        Known { endpoint: all, tenant: one, own }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Accounts> {
        self.accounts.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether people have to be told: not each time that calls which were on their way say the same.
fn is_news(before: &Circuit, after: &Circuit) -> bool {
    let until = |circuit: &Circuit| circuit.opening().map(|opening| opening.until);
    match (until(before), until(after)) {
        (Some(old), Some(new)) => new > old.plus(SAME_END) || before.word() != after.word(),
        (None, None) => false,
        _ => true,
    }
}

fn reason(cause: Cause) -> WaitReason {
    match cause {
        Cause::CoolDown => WaitReason::Cooldown,
        Cause::Failing => WaitReason::Circuit,
    }
}

/// What was learnt, as the log says it.
fn learnt(lessons: &[Lesson], circuit: &Circuit, now: Timestamp) -> Option<String> {
    let mut parts: Vec<String> = lessons.iter().filter(|lesson| lesson.heard_at == now).map(describe).collect();
    if let Some(opening) = circuit.opening() {
        parts.push(format!("blocked until {}", opening.until));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// `x-ratelimit: 100 per 60s, 0 left, resets at 2027-01-15T08:00:00Z`
pub fn describe(lesson: &Lesson) -> String {
    let mut text = lesson.name.clone();
    if let Some(limit) = lesson.limit {
        text = format!("{text}: {limit}");
        if let Some(window) = lesson.window {
            text = format!("{text} per {window:?}");
        }
    }
    if let Some(remaining) = lesson.remaining {
        text = format!("{text}, {remaining} left");
    }
    if let Some(reset_at) = lesson.reset_at {
        text = format!("{text}, resets at {reset_at}");
    }
    text
}
