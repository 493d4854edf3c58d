//! What operators have said, as this process knows it (pauses, calls at a time): read with every job, renewed with what is
//! known of accounts, told to who waits.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::{Governor, Way};
use crate::clock::Timestamp;
use crate::job::control::{Concurrency, Paused};
use crate::job::verdict::WaitReason;
use crate::job::{EndpointName, LaneName, Tenant};
use crate::policy::control::{Concurrencies, Pauses};
use crate::store::{ConcurrencyRow, ControlRow};

/// What operators have said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// What is paused.
    pauses: Pauses,
    /// How many calls lanes make at a time.
    concurrencies: Concurrencies,
}

/// What is known of it.
#[derive(Debug)]
pub(super) struct KnownPauses {
    /// Seen by whoever waits for a change.
    all: watch::Sender<Said>,
    /// Nearly always there are none: then nothing is locked.
    any: AtomicBool,
    /// Any lane makes another number of calls than is configured.
    any_concurrency: AtomicBool,
    /// The store has told them at least once.
    heard: AtomicBool,
}

impl Default for KnownPauses {
    fn default() -> Self {
        let [any, any_concurrency, heard] = [const { AtomicBool::new(false) }; 3];
        Self { all: watch::Sender::new(Said::default()), any, any_concurrency, heard }
    }
}

impl KnownPauses {
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    fn find<T>(&self, look: impl FnOnce(&Pauses) -> Option<T>) -> Option<T> {
        if self.any() { look(&self.all.borrow().pauses) } else { None }
    }

    /// The way of calls of a tenant to an endpoint, where a pause shuts it.
    pub fn way(&self, endpoint: &EndpointName, tenant: &Tenant, now: Timestamp) -> Option<Way> {
        let shut = |paused: &Paused| Way::Shut { until: paused.pause.until, reason: WaitReason::Paused };
        self.find(|all| all.of_call(endpoint, tenant, now).map(shut))
    }
}

impl Governor {
    /// The pause of a lane, while it lasts.
    pub fn lane_pause(&self, lane: &LaneName, now: Timestamp) -> Option<Paused> {
        self.pauses.find(|all| all.of_lane(lane, now).cloned())
    }

    /// The pause that holds back calls of a tenant to an endpoint, while it lasts; of several the one that ends last.
    pub fn call_pause(&self, endpoint: &EndpointName, tenant: &Tenant, now: Timestamp) -> Option<Paused> {
        self.pauses.find(|all| all.of_call(endpoint, tenant, now).cloned())
    }

    /// The pause of a whole endpoint, while it lasts.
    pub fn endpoint_pause(&self, endpoint: &EndpointName, now: Timestamp) -> Option<Paused> {
        self.pauses.find(|all| all.of_endpoint(endpoint, now).cloned())
    }

    /// The pause that holds back a job, its lane's included, while it lasts; of several the one that ends last.
    pub fn job_pause(
        &self,
        (lane, endpoint, tenant): (&LaneName, &EndpointName, &Tenant),
        now: Timestamp,
    ) -> Option<Paused> {
        self.pauses.find(|all| all.of_job(lane, endpoint, tenant, now).cloned())
    }

    /// Every pause that lasts, in the order of their targets.
    pub fn lasting_pauses(&self, now: Timestamp) -> Vec<Paused> {
        self.pauses.all.borrow().pauses.lasting(now).into_iter().cloned().collect()
    }

    /// Whether the store has told what is paused, at least once.
    pub fn knows_pauses(&self) -> bool {
        self.pauses.heard.load(Ordering::Acquire)
    }

    /// How many calls a lane makes at a time in each worker, where an operator has said so; `None` = as configured.
    pub fn concurrency(&self, lane: &LaneName, now: Timestamp) -> Option<Concurrency> {
        if !self.pauses.any_concurrency.load(Ordering::Relaxed) {
            return None;
        }
        self.pauses.all.borrow().concurrencies.of_lane(lane, now).cloned()
    }

    /// Tells of changes of what operators say, and when it is known at first. That something ends by itself is no change:
    /// whoever waits looks at its end too.
    pub fn operator_changes(&self) -> watch::Receiver<Said> {
        self.pauses.all.subscribe()
    }

    /// Takes in what operators have said.
    pub(super) fn hear_operators(&self, pauses: Vec<ControlRow>, concurrencies: Vec<ConcurrencyRow>) {
        let heard_before = self.pauses.heard.load(Ordering::Acquire);
        let is_silent = pauses.is_empty() && concurrencies.is_empty();
        if heard_before && is_silent && *self.pauses.all.borrow() == Said::default() {
            return;
        }
        let pause = |ControlRow { target, pause, .. }| Paused { target, pause };
        let heard = Said {
            pauses: pauses.into_iter().map(pause).collect(),
            concurrencies: concurrencies.into_iter().map(|row| (row.lane, row.concurrency)).collect(),
        };
        self.pauses.all.send_if_modified(|known| {
            // before anybody is woken, so that he looks
            self.pauses.any.store(!heard.pauses.is_empty(), Ordering::Release);
            self.pauses.any_concurrency.store(!heard.concurrencies.is_empty(), Ordering::Release);
            self.pauses.heard.store(true, Ordering::Release);
            let is_new = !heard_before || *known != heard;
            *known = heard;
            is_new
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::control::{Pause, Target};
    use crate::policy::pacing::Budgets;

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    fn row(target: Target, until: Option<i64>) -> ControlRow {
        let pause = Pause { until: until.map(at), author: "ada".to_owned(), note: String::new(), set_at: at(0) };
        ControlRow { target, version: 1, pause }
    }

    #[test]
    fn a_pause_shuts_the_way_until_it_ends_or_is_taken_back() {
        let governor = Governor::new(Budgets::default());
        let (lane, crm) = (LaneName::new("bulk").expect("legal"), EndpointName::new("crm").expect("legal"));
        let (acme, other) = (Tenant::new("acme").expect("legal"), Tenant::new("globex").expect("legal"));
        let way = |tenant, seconds| governor.way(&lane, &crm, tenant, at(seconds));
        let mut changes = governor.operator_changes();
        assert!(!governor.knows_pauses());
        governor.hear_operators(Vec::new(), Vec::new());
        assert!(changes.has_changed().expect("it lives") && governor.knows_pauses() && !governor.knows_any());
        changes.mark_unchanged();
        governor.hear_operators(Vec::new(), Vec::new());
        assert!(!changes.has_changed().expect("it lives"));
        let all = || vec![row(Target::Lane(lane.clone()), None), row(Target::Tenant(acme.clone()), Some(10))];
        governor.hear_operators(all(), Vec::new());
        assert!(changes.has_changed().expect("it lives") && governor.knows_any());
        assert_eq!(way(&acme, 9), Way::Shut { until: Some(at(10)), reason: WaitReason::Paused });
        assert_eq!((way(&acme, 10), way(&other, 9)), (Way::Free, Way::Free), "of the lane its own loop knows");
        assert!(governor.lane_pause(&lane, at(1_000)).is_some());
        changes.mark_unchanged();
        governor.hear_operators(all(), Vec::new());
        assert!(!changes.has_changed().expect("it lives"), "nothing new");
        governor.hear_operators(Vec::new(), Vec::new());
        assert!(changes.has_changed().expect("it lives") && !governor.knows_any());
        assert_eq!((governor.lane_pause(&lane, at(0)), way(&acme, 0)), (None, Way::Free));
    }
    #[test]
    fn how_many_calls_a_lane_makes_is_told_and_taken_back() {
        let governor = Governor::new(Budgets::default());
        let lane = LaneName::new("bulk").expect("legal");
        let said = |calls| {
            let (author, note, set_at) = ("ada".to_owned(), String::new(), at(0));
            let concurrency = Concurrency { calls, until: Some(at(10)), author, note, set_at };
            vec![ConcurrencyRow { lane: lane.clone(), version: 1, concurrency }]
        };
        let calls = |seconds| governor.concurrency(&lane, at(seconds)).map(|said| said.calls);
        assert_eq!(calls(0), None);
        let mut changes = governor.operator_changes();
        governor.hear_operators(Vec::new(), said(3));
        assert!(changes.has_changed().expect("it lives") && !governor.knows_any(), "it holds back nobody's jobs");
        assert_eq!((calls(9), calls(10)), (Some(3), None));
        changes.mark_unchanged();
        governor.hear_operators(Vec::new(), said(3));
        assert!(!changes.has_changed().expect("it lives"), "nothing new");
        governor.hear_operators(Vec::new(), Vec::new());
        assert!(changes.has_changed().expect("it lives"));
        assert_eq!(calls(0), None);
    }
}
