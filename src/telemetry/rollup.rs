//! Counts by time for whoever has no Prometheus: gathered here, written to the store by the engine.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::series::{Cache, LANE_LABELS_MAX, OTHER, TENANT_LABELS_MAX};
use crate::job::event::{AttemptEvent, AttemptNext, Event};
use crate::job::history::{Count, Measure, Series, attempt_bucket, wait_bucket};
use crate::job::verdict::{Class, DeadReason};
use crate::job::{EndpointName, Job, LaneName};

/// A retry after this attempt, or a later one, is a late one.
const LATE_ATTEMPT: u32 = 3;
/// Most series between two times that they are taken; more parts are counted together.
const SERIES_MAX: usize = 4_096;

/// What was counted since it was last taken. Each lane counts for itself, so that none stands behind another one's counts.
pub(super) struct Rollup {
    lanes: Cache<LaneName, Arc<Mutex<Counts>>>,
    /// Of all lanes beyond the bound.
    others: Mutex<Counts>,
    /// What was taken and could not be written; no lane counts here.
    returned: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    series: HashMap<Series, Count>,
    /// Tenants of each endpoint that have a series.
    tenants: HashMap<String, Vec<String>>,
}

impl Default for Rollup {
    fn default() -> Self {
        Self { lanes: Cache::new(LANE_LABELS_MAX), others: Mutex::default(), returned: Mutex::default() }
    }
}

impl Rollup {
    /// Counts what an event says.
    pub fn record(&self, event: &Event) {
        match event {
            Event::Started { job, waited, .. } => self.of_lane(&job.lane, |counts| {
                counts.add(Measure::Waited, wait_bucket(*waited), job.lane.as_str(), "", one());
            }),
            Event::Attempt(attempt) => self.of_lane(&attempt.job.lane, |counts| counts.attempt(attempt)),
            Event::LateResult { job, class, .. } => self.of_lane(&job.lane, |counts| counts.called(job, *class)),
            Event::Refused { lane, .. } => {
                self.of_lane(lane, |counts| counts.add(Measure::Died, 0, lane.as_str(), "", one()));
            }
            Event::Died { lane, endpoint, reason, .. } => {
                self.of_lane(lane, |counts| counts.died(lane, endpoint, *reason));
            }
            Event::Cancelled { lane } => {
                self.of_lane(lane, |counts| counts.add(Measure::Ended, 0, lane.as_str(), "", one()));
            }
            Event::TakenOver { lane, .. } => {
                self.of_lane(lane, |counts| counts.add(Measure::TakenOver, 0, lane.as_str(), "", one()));
            }
            _ => {}
        }
    }

    /// Counts a look at a lane, whether it had jobs that could run, and how old its oldest was.
    pub fn looked(&self, lane: &LaneName, backlogged: bool, age: Option<Duration>) {
        self.of_lane(lane, |counts| {
            counts.add(Measure::Looked, 0, lane.as_str(), "", one());
            if backlogged {
                counts.add(Measure::Backlogged, 0, lane.as_str(), "", one());
            }
            if let Some(age) = age {
                counts.add(Measure::Aged, 0, lane.as_str(), "", timed(age));
            }
        });
    }

    /// Counts an operation of the store that failed, of no lane.
    pub fn store_failed(&self) {
        lock(&self.others).add(Measure::StoreErrors, 0, "", "", one());
    }

    /// What was counted since the last time, of all lanes together.
    pub fn take(&self) -> Vec<(Series, Count)> {
        let mut all = Counts::default();
        // first what has waited longest for its series
        all.merge(std::mem::take(&mut *lock(&self.returned)));
        for lane in self.lanes.all() {
            let counts = std::mem::take(&mut *lock(&lane)); // the lane counts on while this is merged
            all.merge(counts);
        }
        all.merge(std::mem::take(&mut *lock(&self.others)));
        all.series.into_iter().collect()
    }

    /// Counts what was taken and could not be written.
    pub fn give_back(&self, taken: Vec<(Series, Count)>) {
        let mut returned = lock(&self.returned);
        for (series, count) in taken {
            returned.add_to(series, count);
        }
    }

    fn of_lane(&self, lane: &LaneName, count: impl FnOnce(&mut Counts)) {
        match self.lanes.get(lane, Arc::default) {
            Some(counts) => count(&mut lock(&counts)),
            None => count(&mut lock(&self.others)),
        }
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

const fn one() -> Count {
    Count { count: 1, total: 0 }
}

fn timed(duration: Duration) -> Count {
    Count { count: 1, total: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX) }
}

impl Counts {
    fn attempt(&mut self, event: &AttemptEvent) {
        self.called(&event.job, event.class);
        let (lane, endpoint) = (&event.job.lane, &event.job.endpoint);
        self.add(Measure::Took, 0, endpoint.as_str(), "", timed(event.duration));
        match &event.next {
            AttemptNext::Done { job_duration } => {
                self.add(Measure::Succeeded, 0, lane.as_str(), "", one());
                self.add(Measure::Duration, 0, lane.as_str(), "", timed(*job_duration));
            }
            AttemptNext::Retry { delay, .. } => {
                self.add(Measure::Retries, attempt_bucket(event.attempt), endpoint.as_str(), "", timed(*delay));
                if event.attempt >= LATE_ATTEMPT {
                    self.add(Measure::LateRetries, 0, endpoint.as_str(), "", one());
                }
            }
            AttemptNext::Dead { reason, job_duration } => {
                self.died(lane, endpoint, *reason);
                self.add(Measure::Duration, 0, lane.as_str(), "", timed(*job_duration));
            }
            AttemptNext::Cancelled => self.add(Measure::Ended, 0, lane.as_str(), "", one()),
        }
    }

    fn called(&mut self, job: &Job, class: Class) {
        let endpoint = job.endpoint.as_str();
        self.add(Measure::CallsByLane, 0, endpoint, job.lane.as_str(), one());
        let tenant = self.tenant(endpoint, job.tenant.as_str());
        self.add(Measure::Calls, 0, endpoint, &tenant, one());
        if class == Class::RateLimited {
            self.add(Measure::RateLimited, 0, endpoint, &tenant, one());
        }
    }

    fn died(&mut self, lane: &LaneName, endpoint: &EndpointName, reason: DeadReason) {
        self.add(Measure::Died, 0, lane.as_str(), "", one());
        match reason {
            DeadReason::Exhausted => self.add(Measure::Exhausted, 0, lane.as_str(), endpoint.as_str(), one()),
            _ => self.add(Measure::Ended, 0, lane.as_str(), "", one()),
        }
    }

    /// Adds what another one has counted; of each endpoint no more tenants keep their names than in one.
    fn merge(&mut self, other: Self) {
        for (mut series, count) in other.series {
            if matches!(series.measure, Measure::Calls | Measure::RateLimited) && series.part != OTHER {
                series.part = self.tenant(&series.subject, &series.part);
            }
            self.add_to(series, count);
        }
    }

    /// The tenant's own name while there are few, one name for all the others.
    fn tenant(&mut self, endpoint: &str, tenant: &str) -> String {
        let known = match self.tenants.get_mut(endpoint) {
            Some(known) => known,
            None => self.tenants.entry(endpoint.to_owned()).or_default(),
        };
        if !known.iter().any(|name| name == tenant) {
            if known.len() >= TENANT_LABELS_MAX {
                return OTHER.to_owned();
            }
            known.push(tenant.to_owned());
        }
        tenant.to_owned()
    }

    fn add(&mut self, measure: Measure, bucket: u8, subject: &str, part: &str, count: Count) {
        self.add_to(Series { measure, bucket, subject: subject.to_owned(), part: part.to_owned() }, count);
    }

    fn add_to(&mut self, mut series: Series, count: Count) {
        if self.series.len() >= SERIES_MAX && !self.series.contains_key(&series) {
            OTHER.clone_into(&mut series.part);
            OTHER.clone_into(&mut series.subject);
        }
        self.series.entry(series).or_default().add(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(name: &str) -> LaneName {
        LaneName::new(name).expect("a legal lane name")
    }

    fn died(rollup: &Rollup, of: &LaneName) {
        let endpoint = EndpointName::new("crm").expect("legal");
        let (lane, reason) = (of.clone(), DeadReason::Exhausted);
        let tenant = crate::job::Tenant::new("acme").expect("legal");
        let (instance, detail) = (uuid::Uuid::nil(), String::new());
        rollup.record(&Event::Died { lane, endpoint, tenant, instance, reason, detail });
    }

    #[test]
    fn no_lane_waits_for_the_counts_of_another() {
        let (rollup, bulk, realtime) = (Rollup::default(), lane("bulk"), lane("realtime"));
        died(&rollup, &bulk);
        let counts = rollup.lanes.get(&bulk, Arc::default).expect("there is room");
        let held = lock(&counts);
        // somebody is at the counts of the other lane for as long as this takes
        died(&rollup, &realtime);
        rollup.looked(&realtime, true, None);
        rollup.give_back(Vec::new());
        drop(held);
        let taken = rollup.take();
        let of = |measure, subject: &str| {
            taken.iter().filter(|(series, _)| series.measure == measure && series.subject == subject).count()
        };
        assert_eq!(
            (of(Measure::Died, "bulk"), of(Measure::Died, "realtime"), of(Measure::Looked, "realtime")),
            (1, 1, 1)
        );
        assert_eq!(rollup.take(), []);
    }

    #[test]
    fn lanes_are_counted_together_within_the_bounds_of_one() {
        let rollup = Rollup::default();
        let tenants = TENANT_LABELS_MAX;
        for name in ["bulk", "realtime"] {
            rollup.of_lane(&lane(name), |counts| {
                for nth in 0..tenants {
                    let tenant = counts.tenant("crm", &format!("{name}-{nth}"));
                    counts.add(Measure::Calls, 0, "crm", &tenant, one());
                }
                counts.add(Measure::CallsByLane, 0, "crm", name, one());
                counts.add(Measure::Retries, 0, "crm", "", one());
            });
        }
        let taken = rollup.take();
        let calls: Vec<_> = taken.iter().filter(|(series, _)| series.measure == Measure::Calls).collect();
        assert_eq!(calls.len(), tenants + 1, "the tenants of one lane, and all others");
        assert_eq!(calls.iter().map(|(_, count)| count.count).sum::<u64>(), 2 * tenants as u64);
        let retries = taken.iter().find(|(series, _)| series.measure == Measure::Retries).expect("counted");
        assert_eq!(retries.1.count, 2);
        rollup.give_back(taken.clone());
        let sum = |all: &[(Series, Count)]| all.iter().map(|(_, count)| count.count).sum::<u64>();
        assert_eq!(sum(&rollup.take()), sum(&taken), "nothing is lost by a write that failed");
        let many = (0..SERIES_MAX + 10).map(|nth| {
            (Series { measure: Measure::Died, bucket: 0, subject: format!("{nth}"), part: String::new() }, one())
        });
        rollup.give_back(many.collect());
        let taken = rollup.take();
        assert!(taken.len() <= SERIES_MAX + 1, "{}", taken.len());
        assert_eq!(sum(&taken), SERIES_MAX as u64 + 10);
    }
}
