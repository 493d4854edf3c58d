//! What operators have said: whether what a job needs is paused (its lane, its endpoint, its tenant), and how many calls a
//! lane makes at a time; until when, and by whom.

use std::collections::HashMap;

use crate::clock::Timestamp;
use crate::job::control::{Concurrency, Paused, Target};
use crate::job::{EndpointName, LaneName, Tenant};

/// When a pause ends, as a moment; one without an end is after all others.
fn end(paused: &Paused) -> Timestamp {
    paused.pause.until.unwrap_or(Timestamp::MAX)
}

/// The pauses that are known, found without an allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pauses {
    lanes: HashMap<LaneName, Paused>,
    endpoints: HashMap<EndpointName, Paused>,
    tenants: HashMap<Tenant, Paused>,
    tenants_at: HashMap<EndpointName, HashMap<Tenant, Paused>>,
}

impl FromIterator<Paused> for Pauses {
    fn from_iter<I: IntoIterator<Item = Paused>>(all: I) -> Self {
        let mut known = Self::default();
        for paused in all {
            match paused.target.clone() {
                Target::Lane(lane) => drop(known.lanes.insert(lane, paused)),
                Target::Endpoint(endpoint) => drop(known.endpoints.insert(endpoint, paused)),
                Target::Tenant(tenant) => drop(known.tenants.insert(tenant, paused)),
                Target::TenantAt(endpoint, tenant) => {
                    known.tenants_at.entry(endpoint).or_default().insert(tenant, paused);
                }
            }
        }
        known
    }
}

impl Pauses {
    /// None at all, not even one that has ended.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The pause of a lane; `None` = it works.
    pub fn of_lane(&self, lane: &LaneName, now: Timestamp) -> Option<&Paused> {
        self.lanes.get(lane).filter(|paused| paused.pause.lasts(now))
    }

    /// The pause of a whole endpoint; `None` = it may be called.
    pub fn of_endpoint(&self, endpoint: &EndpointName, now: Timestamp) -> Option<&Paused> {
        self.endpoints.get(endpoint).filter(|paused| paused.pause.lasts(now))
    }

    /// The pause that holds back calls of a tenant to an endpoint, of several the one that ends last; `None` = none does.
    pub fn of_call(&self, endpoint: &EndpointName, tenant: &Tenant, now: Timestamp) -> Option<&Paused> {
        let both = self.tenants_at.get(endpoint).and_then(|tenants| tenants.get(tenant));
        let all = [self.endpoints.get(endpoint), self.tenants.get(tenant), both];
        all.into_iter().flatten().filter(|paused| paused.pause.lasts(now)).max_by_key(|paused| end(paused))
    }

    /// The pause that holds back a job, of several the one that ends last; `None` = none does.
    pub fn of_job(&self, lane: &LaneName, endpoint: &EndpointName, tenant: &Tenant, now: Timestamp) -> Option<&Paused> {
        let both = [self.of_lane(lane, now), self.of_call(endpoint, tenant, now)];
        both.into_iter().flatten().max_by_key(|paused| end(paused))
    }

    /// Those that last, in the order of their targets.
    pub fn lasting(&self, now: Timestamp) -> Vec<&Paused> {
        let at = self.tenants_at.values().flat_map(HashMap::values);
        let all = self.lanes.values().chain(self.endpoints.values()).chain(self.tenants.values()).chain(at);
        let mut lasting: Vec<&Paused> = all.filter(|paused| paused.pause.lasts(now)).collect();
        lasting.sort_by(|a, b| a.target.cmp(&b.target));
        lasting
    }
}

/// How many calls lanes make at a time in each worker, where operators have said so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Concurrencies(HashMap<LaneName, Concurrency>);

impl FromIterator<(LaneName, Concurrency)> for Concurrencies {
    fn from_iter<I: IntoIterator<Item = (LaneName, Concurrency)>>(all: I) -> Self {
        Self(all.into_iter().collect())
    }
}

impl Concurrencies {
    /// None at all, not even one that has ended.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was said of a lane, while it lasts; `None` = as configured.
    pub fn of_lane(&self, lane: &LaneName, now: Timestamp) -> Option<&Concurrency> {
        self.0.get(lane).filter(|concurrency| concurrency.lasts(now))
    }
}

/// Messages in hand per call, so that the next ones are there when a call ends; and the bounds of that.
const PREFETCH_PER_CALL: u32 = 4;
const PREFETCH_MIN: u32 = 32;
const PREFETCH_MAX: u32 = 1_000;

/// Messages that a lane has in hand and not yet acked, of one queue, when nothing is configured: a few for each of its calls,
/// and never fewer than there are calls.
pub fn usual_prefetch(calls: u32) -> u16 {
    let usual = calls.saturating_mul(PREFETCH_PER_CALL).clamp(PREFETCH_MIN, PREFETCH_MAX).max(calls);
    u16::try_from(usual).unwrap_or(u16::MAX)
}

/// Messages that a lane has in hand which makes more calls, or fewer, than is configured: for more it needs more, for fewer
/// the configured number is not too many.
pub fn prefetch(configured: u16, configured_calls: usize, calls: u32) -> u16 {
    if calls as usize <= configured_calls { configured } else { usual_prefetch(calls).max(configured) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::control::{CONCURRENCY_MAX, Pause};

    #[test]
    fn what_was_said_of_a_lane_counts_until_its_end() {
        let said = |calls, until: Option<i64>| Concurrency {
            calls,
            until: until.map(at),
            author: "ada".to_owned(),
            note: String::new(),
            set_at: at(0),
        };
        let known: Concurrencies = [(lane(), said(3, Some(10)))].into_iter().collect();
        let calls = |seconds| known.of_lane(&lane(), at(seconds)).map(|said| said.calls);
        assert_eq!((calls(9), calls(10)), (Some(3), None), "it ends by itself");
        assert_eq!(known.of_lane(&LaneName::new("realtime").expect("legal"), at(0)), None);
        let known: Concurrencies = [(lane(), said(3, None))].into_iter().collect();
        assert!(known.of_lane(&lane(), at(1_000_000)).is_some() && !known.is_empty());
    }

    #[test]
    fn there_are_always_as_many_messages_in_hand_as_calls() {
        for calls in [1, 7, 8, 9, 250, 1_000, 1_001, CONCURRENCY_MAX] {
            assert!(u32::from(usual_prefetch(calls)) >= calls, "{calls}");
            assert!(u32::from(prefetch(8, 8, calls)) >= calls || calls <= 8, "{calls}");
        }
        assert_eq!((usual_prefetch(1), usual_prefetch(64), usual_prefetch(900)), (32, 256, 1_000));
        assert_eq!((prefetch(500, 8, 4), prefetch(500, 8, 9), prefetch(8, 8, 16)), (500, 500, 64));
    }

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    fn lane() -> LaneName {
        LaneName::new("bulk").expect("legal")
    }

    fn endpoint(name: &str) -> EndpointName {
        EndpointName::new(name).expect("legal")
    }

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name).expect("legal")
    }

    fn paused(target: Target, until: Option<i64>) -> Paused {
        let pause = Pause { until: until.map(at), author: "ada".to_owned(), note: String::new(), set_at: at(0) };
        Paused { target, pause }
    }

    #[test]
    fn a_pause_holds_what_it_names_until_its_end() {
        let crm_for_acme = Target::TenantAt(endpoint("crm"), tenant("acme"));
        let all = [
            paused(Target::Lane(lane()), Some(10)),
            paused(Target::Endpoint(endpoint("erp")), None),
            paused(Target::Tenant(tenant("globex")), Some(20)),
            paused(crm_for_acme, Some(30)),
        ];
        let known: Pauses = all.into_iter().collect();
        let lane_is_paused = |seconds| known.of_lane(&lane(), at(seconds)).is_some();
        assert!(lane_is_paused(9) && !lane_is_paused(10), "it ends by itself");
        assert_eq!(known.of_lane(&LaneName::new("realtime").expect("legal"), at(0)), None);
        let held = |name: &str, whose: &str, seconds| {
            known.of_call(&endpoint(name), &tenant(whose), at(seconds)).map(|paused| paused.pause.until)
        };
        assert_eq!(held("erp", "acme", 1_000_000), Some(None));
        assert_eq!(held("crm", "acme", 29), Some(Some(at(30))));
        assert_eq!((held("crm", "acme", 30), held("crm", "initech", 0)), (None, None));
        assert_eq!(held("crm", "globex", 19), Some(Some(at(20))));
        assert_eq!(held("erp", "globex", 19), Some(None), "of both the one that lasts longer");
        assert_eq!(known.lasting(at(10)).len(), 3);
    }

    #[test]
    fn of_a_job_the_pause_counts_that_ends_last() {
        let all = [paused(Target::Lane(lane()), Some(10)), paused(Target::Endpoint(endpoint("crm")), Some(20))];
        let known: Pauses = all.into_iter().collect();
        let whose = |seconds| {
            let paused = known.of_job(&lane(), &endpoint("crm"), &tenant("acme"), at(seconds));
            paused.map(|paused| paused.target.to_string())
        };
        assert_eq!(whose(5).as_deref(), Some("endpoint crm"));
        assert_eq!(whose(20), None);
        let other = known.of_job(&lane(), &endpoint("erp"), &tenant("acme"), at(5));
        assert_eq!(other.map(|paused| paused.target.to_string()).as_deref(), Some("lane bulk"));
    }

    #[test]
    fn nothing_is_paused_without_a_word() {
        assert!(Pauses::default().is_empty());
        assert_eq!(Pauses::default().of_job(&lane(), &endpoint("crm"), &tenant("acme"), at(0)), None);
    }
}
