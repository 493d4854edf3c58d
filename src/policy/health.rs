//! Incidents: what needs a person, as one sentence that names the cause, and the next step. The thresholds are those of the
//! alert rules (`deploy/prometheus/lanes.rules.yml`).

mod sentences;
mod steps;

use std::time::Duration;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::job::{EndpointName, LaneName, Tenant};

pub use steps::Step;

/// Share of ended jobs that may run out of attempts.
pub const EXHAUSTED_MAX: f64 = 0.01;
/// Fewer exhausted jobs than this are no trend.
const EXHAUSTED_MIN: u64 = 5;
/// 429s of an endpoint: so many times their daily average,
const SPIKE_FACTOR: f64 = 3.0;
/// at least so many a minute,
const SPIKE_PER_MINUTE_MIN: f64 = 12.0;
/// and at least this share of its calls.
const SPIKE_SHARE_MIN: f64 = 0.02;
/// Real-time jobs wait longer than this (p95) when something is wrong.
const REALTIME_WAIT_MAX: Duration = Duration::from_secs(5);
/// What they are meant to wait at most.
pub const REALTIME_WAIT_GOAL: Duration = Duration::from_secs(2);
/// A lane with fresh messages that finishes nothing for so long is stuck.
pub const STUCK_AFTER: Duration = Duration::from_mins(15);
/// Looks at a lane in that time, from which on they say something: one each five seconds, some missed.
const LOOKS_MIN: u64 = 150;
/// The average delay of retries is high from here on,
const BACKOFF_MIN: Duration = Duration::from_mins(1);
/// when it is so many times that of yesterday.
const BACKOFF_FACTOR: f64 = 2.0;
/// Jobs take so many times as long as three days ago.
const DURATION_FACTOR: f64 = 1.5;
/// Fewer jobs than this on either day are no trend.
const DURATION_JOBS_MIN: u64 = 20;
/// Dead letters of a lane, and how many of them came in the last hour.
const LETTERS_MIN: u64 = 100;
const LETTERS_NEW_MIN: u64 = 20;

/// What is known at one moment.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Now.
    pub now: Timestamp,
    /// Why the broker does not answer.
    pub broker: Option<String>,
    /// Why the store does not answer: then nothing else is known.
    pub store: Option<String>,
    /// The lanes.
    pub lanes: Vec<LaneReading>,
    /// The endpoints that were called lately.
    pub endpoints: Vec<EndpointReading>,
    /// Workers that fell silent.
    pub silent: Vec<SilentWorker>,
}

/// One lane.
#[derive(Debug, Clone)]
pub struct LaneReading {
    /// Its name.
    pub name: LaneName,
    /// It is in the configuration.
    pub configured: bool,
    /// It is the one whose jobs somebody waits for.
    pub realtime: bool,
    /// Living workers.
    pub workers: u64,
    /// Jobs that need a worker.
    pub work: u64,
    /// Fresh messages that no worker has claimed.
    pub ready: u64,
    /// An operator paused it.
    pub paused: bool,
    /// Looks at it in the last [`STUCK_AFTER`], and at how many of them it had fresh messages.
    pub looks: (u64, u64),
    /// Jobs that ended in that time.
    pub ended_lately: u64,
    /// What most of its waiting jobs wait for, as a sentence.
    pub held_by: Option<String>,
    /// Of the last hour: jobs that ended, and those that ran out of attempts.
    pub ended: u64,
    /// See [`Self::ended`].
    pub exhausted: u64,
    /// The endpoint of most of those, and how many.
    pub exhausted_most: Option<(EndpointName, u64)>,
    /// How long 95 % of its jobs waited at most in the last five minutes.
    pub wait_p95: Option<Duration>,
    /// Dead letters, and how many came in the last hour.
    pub letters: u64,
    /// See [`Self::letters`].
    pub letters_new: u64,
    /// Jobs, and their mean time from publish to end, of the last day and of the day three days before.
    pub duration: Mean,
    /// See [`Self::duration`].
    pub duration_before: Mean,
}

/// A mean.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Mean {
    /// Of how many.
    pub count: u64,
    /// The mean.
    pub mean: Duration,
}

/// One endpoint.
#[derive(Debug, Clone)]
pub struct EndpointReading {
    /// Its name.
    pub name: EndpointName,
    /// Calls and 429s of the last five minutes.
    pub calls: u64,
    /// See [`Self::calls`].
    pub limited: u64,
    /// 429s a minute, on average of the day before.
    pub limited_usual: f64,
    /// The tenant of most 429s, and its share of them.
    pub limited_most: Option<(Tenant, f64)>,
    /// Share of its calls in the last five minutes, by lane, greatest first.
    pub lanes: Vec<(LaneName, f64)>,
    /// Retries of the last half hour and their mean delay.
    pub backoff: Mean,
    /// The same half hour a day before.
    pub backoff_before: Mean,
    /// Share of those retries that are attempt 4 or later.
    pub late: f64,
}

/// A worker that is not heard.
#[derive(Debug, Clone)]
pub struct SilentWorker {
    /// Its name (`host:pid`).
    pub name: String,
    /// Since when.
    pub heard_at: Timestamp,
    /// When others take its jobs over.
    pub over_at: Timestamp,
}

/// Whether somebody waits for the jobs of this lane: the one of that name.
pub fn is_realtime(lane: &LaneName) -> bool {
    lane.as_str() == "realtime"
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Customers notice it now.
    Critical,
    /// Somebody has to look at it today.
    Warning,
    /// A trend.
    Info,
}

/// What kind of incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The broker does not answer.
    BrokerUnreachable,
    /// The store does not answer.
    StoreUnreachable,
    /// A lane has jobs and nobody works on it.
    NoWorker,
    /// Real-time jobs wait too long.
    RealtimeWaits,
    /// A worker died.
    WorkerSilent,
    /// Too many jobs run out of attempts.
    Exhaustion,
    /// An endpoint refuses far more calls than usual.
    RateLimitSpike,
    /// A lane has jobs and finishes none.
    LaneStuck,
    /// Dead letters are piling up.
    DeadLetters,
    /// Delays of retries are rising.
    BackoffRising,
    /// Jobs take longer than they did.
    DurationRising,
}

impl Kind {
    /// As a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BrokerUnreachable => "broker_unreachable",
            Self::StoreUnreachable => "store_unreachable",
            Self::NoWorker => "no_worker",
            Self::RealtimeWaits => "realtime_waits",
            Self::WorkerSilent => "worker_silent",
            Self::Exhaustion => "exhaustion",
            Self::RateLimitSpike => "rate_limit_spike",
            Self::LaneStuck => "lane_stuck",
            Self::DeadLetters => "dead_letters",
            Self::BackoffRising => "backoff_rising",
            Self::DurationRising => "duration_rising",
        }
    }
}

/// Something that needs a person.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Incident {
    /// Its kind.
    pub kind: Kind,
    /// How bad.
    pub severity: Severity,
    /// Its lane.
    pub lane: Option<LaneName>,
    /// Its endpoint.
    pub endpoint: Option<EndpointName>,
    /// Its tenant.
    pub tenant: Option<Tenant>,
    /// What is wrong, and why.
    pub message: String,
    /// The next step.
    pub step: Step,
    /// What else would help at once, the gentlest first.
    pub also: Vec<Step>,
}

/// Everything that needs a person, the worst first.
pub fn incidents(reading: &Reading) -> Vec<Incident> {
    let mut incidents = Vec::new();
    incidents.extend(reading.broker.as_ref().map(|why| sentences::unreachable(Kind::BrokerUnreachable, why)));
    if let Some(why) = &reading.store {
        incidents.push(sentences::unreachable(Kind::StoreUnreachable, why));
        return incidents; // nobody knows who is alive
    }
    for lane in &reading.lanes {
        of_lane(reading, lane, &mut incidents);
    }
    for endpoint in &reading.endpoints {
        of_endpoint(endpoint, &mut incidents);
    }
    incidents.extend(reading.silent.iter().map(|worker| sentences::silent(worker, reading.now)));
    incidents.sort_by_key(|incident| (incident.severity, incident.kind));
    incidents
}

fn of_lane(reading: &Reading, lane: &LaneReading, incidents: &mut Vec<Incident>) {
    if lane.workers == 0 && lane.work > 0 {
        incidents.push(sentences::no_worker(lane));
    } else if is_stuck(lane) {
        incidents.push(sentences::stuck(lane));
    }
    if lane.realtime && lane.wait_p95.is_some_and(|wait| wait > REALTIME_WAIT_MAX) {
        incidents.push(sentences::realtime_waits(lane, &reading.endpoints, &reading.lanes));
    }
    if lane.exhausted >= EXHAUSTED_MIN && share(lane.exhausted, lane.ended) > EXHAUSTED_MAX {
        incidents.push(sentences::exhaustion(lane));
    }
    if lane.letters > LETTERS_MIN && lane.letters_new > LETTERS_NEW_MIN {
        incidents.push(sentences::dead_letters(lane));
    }
    let (now, before) = (lane.duration, lane.duration_before);
    let counts = now.count >= DURATION_JOBS_MIN && before.count >= DURATION_JOBS_MIN;
    if counts && now.mean.as_secs_f64() > DURATION_FACTOR * before.mean.as_secs_f64() {
        incidents.push(sentences::duration_rising(lane));
    }
}

/// It had fresh messages at every look for a while, and no job of it ended.
fn is_stuck(lane: &LaneReading) -> bool {
    let (looks, backlogged) = lane.looks;
    lane.ready > 0 && !lane.paused && lane.ended_lately == 0 && looks >= LOOKS_MIN && looks == backlogged
}

fn of_endpoint(endpoint: &EndpointReading, incidents: &mut Vec<Incident>) {
    let a_minute = per_minute(endpoint.limited);
    let is_spike = a_minute > SPIKE_PER_MINUTE_MIN
        && share(endpoint.limited, endpoint.calls) > SPIKE_SHARE_MIN
        && a_minute > SPIKE_FACTOR * endpoint.limited_usual;
    if is_spike {
        incidents.push(sentences::spike(endpoint, a_minute));
    }
    let (now, before) = (endpoint.backoff.mean, endpoint.backoff_before.mean);
    let is_known = endpoint.backoff_before.count > 0;
    if is_known && now > BACKOFF_MIN && now.as_secs_f64() > BACKOFF_FACTOR * before.as_secs_f64() {
        incidents.push(sentences::backoff_rising(endpoint));
    }
}

/// Of five minutes.
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn per_minute(in_five_minutes: u64) -> f64 {
    in_five_minutes as f64 / 5.0
}

/// A share; 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "a share for people")]
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests;
