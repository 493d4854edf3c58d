//! Counts by time for whoever has no Prometheus: gathered here, written to the store by the engine.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::series::{OTHER, TENANT_LABELS_MAX};
use crate::job::event::{AttemptEvent, AttemptNext, Event};
use crate::job::history::{Count, Measure, Series, attempt_bucket, wait_bucket};
use crate::job::verdict::{Class, DeadReason};
use crate::job::{EndpointName, Job, LaneName};

/// A retry after this attempt, or a later one, is a late one.
const LATE_ATTEMPT: u32 = 3;
/// Most series between two times that they are taken; more parts are counted together.
const SERIES_MAX: usize = 4_096;

/// What was counted since it was last taken.
#[derive(Debug, Default)]
pub(super) struct Rollup(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    series: HashMap<Series, Count>,
    /// Tenants of each endpoint that have a series.
    tenants: HashMap<String, Vec<String>>,
}

impl Rollup {
    /// Counts what an event says.
    pub fn record(&self, event: &Event) {
        let mut counts = self.lock();
        match event {
            Event::Started { job, waited, .. } => {
                counts.add(Measure::Waited, wait_bucket(*waited), job.lane.as_str(), "", one());
            }
            Event::Attempt(attempt) => counts.attempt(attempt),
            Event::LateResult { job, class, .. } => counts.called(job, *class),
            Event::Refused { lane, .. } => counts.add(Measure::Died, 0, lane.as_str(), "", one()),
            Event::Died { lane, endpoint, reason, .. } => counts.died(lane, endpoint, *reason),
            Event::Cancelled { lane } => counts.add(Measure::Ended, 0, lane.as_str(), "", one()),
            Event::TakenOver { lane, .. } => counts.add(Measure::TakenOver, 0, lane.as_str(), "", one()),
            _ => {}
        }
    }

    /// Counts a look at a lane, whether it had jobs that could run, and how old its oldest was.
    pub fn looked(&self, lane: &LaneName, backlogged: bool, age: Option<Duration>) {
        let mut counts = self.lock();
        counts.add(Measure::Looked, 0, lane.as_str(), "", one());
        if backlogged {
            counts.add(Measure::Backlogged, 0, lane.as_str(), "", one());
        }
        if let Some(age) = age {
            counts.add(Measure::Aged, 0, lane.as_str(), "", timed(age));
        }
    }

    /// Counts an operation of the store that failed.
    pub fn store_failed(&self) {
        self.lock().add(Measure::StoreErrors, 0, "", "", one());
    }

    /// What was counted since the last time.
    pub fn take(&self) -> Vec<(Series, Count)> {
        std::mem::take(&mut *self.lock()).series.into_iter().collect()
    }

    /// Counts what was taken and could not be written.
    pub fn give_back(&self, taken: Vec<(Series, Count)>) {
        let mut counts = self.lock();
        for (series, count) in taken {
            counts.add_to(series, count);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
