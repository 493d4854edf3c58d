//! Incidents: what needs a person, as one sentence that names the cause, and the next step. The thresholds are those of the
//! alert rules (`deploy/prometheus/lanes.rules.yml`).

mod reading;
mod sentences;
mod steps;
mod thresholds;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::job::{EndpointName, LaneName, Tenant};

pub use reading::*;
pub use steps::Step;
use thresholds::LOOKS_MIN;
pub use thresholds::*;

/// Whether somebody waits for the jobs of this lane: the one of that name.
pub fn is_realtime(lane: &LaneName) -> bool {
    lane.as_str() == "realtime"
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The broker does not answer.
    BrokerUnreachable,
    /// The store does not answer.
    StoreUnreachable,
    /// The store answers, and again and again not.
    StoreErrors,
    /// A lane has jobs and nobody works on it.
    NoWorker,
    /// Real-time jobs wait too long.
    RealtimeWaits,
    /// A worker is not heard, and nobody has taken its jobs over yet.
    WorkerSilent,
    /// A worker died with jobs in its hands.
    WorkerDied,
    /// Too many jobs run out of attempts.
    Exhaustion,
    /// An endpoint refuses far more calls than usual.
    RateLimitSpike,
    /// An endpoint refuses many calls all the time.
    RateLimitSaturated,
    /// An endpoint, or one tenant's account there, has not been called freely for long.
    CircuitOpen,
    /// A lane has jobs that could run and calls none.
    LaneStuck,
    /// A lane's oldest job is old and gets older.
    BacklogAges,
    /// Dead letters are piling up.
    DeadLetters,
    /// Delays of retries are rising.
    BackoffRising,
    /// Jobs take longer than they did.
    DurationRising,
    /// A lane is paused, perhaps forgotten.
    LanePausedLong,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::BrokerUnreachable,
        Self::StoreUnreachable,
        Self::StoreErrors,
        Self::NoWorker,
        Self::RealtimeWaits,
        Self::WorkerSilent,
        Self::WorkerDied,
        Self::Exhaustion,
        Self::RateLimitSpike,
        Self::RateLimitSaturated,
        Self::CircuitOpen,
        Self::LaneStuck,
        Self::BacklogAges,
        Self::DeadLetters,
        Self::BackoffRising,
        Self::DurationRising,
        Self::LanePausedLong,
    ];

    /// As a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BrokerUnreachable => "broker_unreachable",
            Self::StoreUnreachable => "store_unreachable",
            Self::StoreErrors => "store_errors",
            Self::NoWorker => "no_worker",
            Self::RealtimeWaits => "realtime_waits",
            Self::WorkerSilent => "worker_silent",
            Self::WorkerDied => "worker_died",
            Self::Exhaustion => "exhaustion",
            Self::RateLimitSpike => "rate_limit_spike",
            Self::RateLimitSaturated => "rate_limit_saturated",
            Self::CircuitOpen => "circuit_open",
            Self::LaneStuck => "lane_stuck",
            Self::BacklogAges => "backlog_ages",
            Self::DeadLetters => "dead_letters",
            Self::BackoffRising => "backoff_rising",
            Self::DurationRising => "duration_rising",
            Self::LanePausedLong => "lane_paused_long",
        }
    }

    /// Where it is told what to do, in this repository.
    pub fn runbook(self) -> String {
        format!("docs/runbook.md#{}", self.alert().to_ascii_lowercase())
    }

    /// The alert that tells the same where there is Prometheus; its section of docs/runbook.md has the same name.
    pub const fn alert(self) -> &'static str {
        match self {
            Self::BrokerUnreachable => "LanesBrokerDisconnected",
            Self::StoreUnreachable | Self::StoreErrors => "LanesStoreErrors",
            Self::NoWorker => "LanesAbsent",
            Self::RealtimeWaits => "LanesRealtimeWaitHigh",
            Self::WorkerSilent => "LanesWorkerDown",
            Self::WorkerDied => "LanesWorkerDied",
            Self::Exhaustion => "LanesRetryExhaustionHigh",
            Self::RateLimitSpike => "LanesRateLimitSpike",
            Self::RateLimitSaturated => "LanesRateLimitSaturated",
            Self::CircuitOpen => "LanesCircuitOpen",
            Self::LaneStuck => "LanesLaneStarved",
            Self::BacklogAges => "LanesBacklogNotDraining",
            Self::DeadLetters => "LanesDeadLettersPilingUp",
            Self::BackoffRising => "LanesBackoffRising",
            Self::DurationRising => "LanesDurationTrendingUp",
            Self::LanePausedLong => "LanesLanePausedLong",
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

impl Incident {
    /// The store does not answer, so that nothing else is known.
    pub fn unreachable_store(why: &str) -> Self {
        sentences::unreachable(Kind::StoreUnreachable, why)
    }
}

/// Everything that needs a person, the worst first.
pub fn incidents(reading: &Reading) -> Vec<Incident> {
    let mut incidents = Vec::new();
    incidents.extend(reading.broker.as_ref().map(|why| sentences::unreachable(Kind::BrokerUnreachable, why)));
    if let Some(why) = &reading.store {
        incidents.push(sentences::unreachable(Kind::StoreUnreachable, why));
        return incidents; // nobody knows who is alive
    }
    let (errors, errors_before) = reading.store_errors;
    if errors > 0 && errors_before > 0 {
        incidents.push(sentences::store_errors(errors));
    }
    for lane in &reading.lanes {
        of_lane(reading, lane, &mut incidents);
    }
    for endpoint in &reading.endpoints {
        of_endpoint(endpoint, reading.now, &mut incidents);
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
    if lane.taken_over > 0 {
        incidents.push(sentences::worker_died(lane));
    }
    if lane.realtime && lane.wait_p95.is_some_and(|wait| wait > REALTIME_WAIT_MAX) {
        incidents.push(sentences::realtime_waits(lane, &reading.endpoints, &reading.lanes));
    }
    if let Some(severity) = exhaustion(lane) {
        incidents.push(sentences::exhaustion(lane, severity));
    }
    if lane.letters > LETTERS_MIN && lane.letters_new > LETTERS_NEW_MIN {
        incidents.push(sentences::dead_letters(lane));
    }
    if let Some((age, _)) = lane.oldest.filter(|(age, ageing)| *age > AGE_MAX && *ageing > AGEING_MIN) {
        incidents.push(sentences::backlog_ages(lane, age));
    }
    if takes_longer(lane) {
        incidents.push(sentences::duration_rising(lane));
    }
    if let Some(at) = lane.paused_at.filter(|at| reading.now.since(*at) > PAUSED_LONG) {
        incidents.push(sentences::paused_long(lane, reading.now.since(at)));
    }
}

/// How bad it is that jobs run out of attempts; `None` = it is not.
fn exhaustion(lane: &LaneReading) -> Option<Severity> {
    let (hour, (half_hour, five_minutes)) = (share(lane.exhausted, lane.ended), lane.exhausted_lately);
    let burns = EXHAUSTED_BURN * EXHAUSTED_MAX;
    if lane.exhausted < EXHAUSTED_MIN {
        None
    } else if hour > burns && five_minutes > burns {
        Some(Severity::Critical)
    } else {
        (hour > EXHAUSTED_MAX && half_hour > EXHAUSTED_MAX).then_some(Severity::Warning)
    }
}

/// Jobs of it could run at every look for a while, and none was called.
fn is_stuck(lane: &LaneReading) -> bool {
    let (looks, backlogged) = lane.looks;
    lane.ready > 0 && lane.paused_at.is_none() && lane.calls == 0 && looks >= LOOKS_MIN && looks == backlogged
}

/// Far longer than three days ago, and not on its way down.
fn takes_longer(lane: &LaneReading) -> bool {
    let (now, yesterday, before) = (lane.duration, lane.duration_yesterday, lane.duration_before);
    let counts = now.count >= DURATION_JOBS_MIN && before.count >= DURATION_JOBS_MIN && yesterday.count > 0;
    counts && now.mean.as_secs_f64() > DURATION_FACTOR * before.mean.as_secs_f64() && now.mean >= yesterday.mean
}

fn of_endpoint(endpoint: &EndpointReading, now: Timestamp, incidents: &mut Vec<Incident>) {
    let a_minute = per_minute(endpoint.limited);
    let part = share(endpoint.limited, endpoint.calls);
    if a_minute > SPIKE_PER_MINUTE_MIN && part > SPIKE_SHARE_MIN && a_minute > SPIKE_FACTOR * endpoint.limited_usual {
        incidents.push(sentences::spike(endpoint, a_minute));
    }
    let part_long = share(endpoint.limited_long, endpoint.calls_long);
    let many = endpoint.limited_long >= SATURATED_MIN;
    if many && part > SATURATED_SHARE_MAX && part_long > SATURATED_SHARE_MAX {
        incidents.push(sentences::saturated(endpoint, part_long));
    }
    if let Some(blocked) = endpoint.blocked.as_ref().filter(|blocked| now.since(blocked.since) > CIRCUIT_OPEN_AFTER) {
        incidents.push(sentences::circuit_open(endpoint, blocked, now));
    }
    let (backoff, before) = (endpoint.backoff.mean, endpoint.backoff_before.mean);
    let is_known = endpoint.backoff_before.count > 0;
    if is_known && backoff > BACKOFF_MIN && backoff.as_secs_f64() > BACKOFF_FACTOR * before.as_secs_f64() {
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
