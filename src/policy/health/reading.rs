//! What incidents are concluded from: plain values of one moment, and of some stretches of time before it.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::job::{EndpointName, LaneName, Tenant};

/// What is known at one moment.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Now.
    pub now: Timestamp,
    /// Why the broker does not answer.
    pub broker: Option<String>,
    /// Why the store does not answer: then nothing else is known.
    pub store: Option<String>,
    /// Operations of the store that failed: in the last [`STORE_FAILS_FOR`](super::STORE_FAILS_FOR), and in as long before it.
    pub store_errors: (u64, u64),
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
    /// Jobs that could run now: fresh messages, and jobs whose time has come.
    pub ready: u64,
    /// When an operator paused it; `None` = it is not paused.
    pub paused_at: Option<Timestamp>,
    /// Looks at it in the last [`STUCK_AFTER`](super::STUCK_AFTER), and at how many of them it had jobs that could run.
    pub looks: (u64, u64),
    /// Its calls in that time.
    pub calls: u64,
    /// Jobs that were given back of workers that died in the last [`DIED_TOLD_FOR`](super::DIED_TOLD_FOR).
    pub taken_over: u64,
    /// How old its oldest job is, and by how much it got older in the last half hour, for each second.
    pub oldest: Option<(Duration, f64)>,
    /// What most of its waiting jobs wait for, as a sentence.
    pub held_by: Option<String>,
    /// Of the last hour: jobs that ended, and those that ran out of attempts.
    pub ended: u64,
    /// See [`Self::ended`].
    pub exhausted: u64,
    /// The share of those in the last half hour, and in the last five minutes.
    pub exhausted_lately: (f64, f64),
    /// The endpoint of most of those, and how many.
    pub exhausted_most: Option<(EndpointName, u64)>,
    /// How long 95 % of its jobs waited at most in the last five minutes.
    pub wait_p95: Option<Duration>,
    /// Dead letters, and how many came in the last hour.
    pub letters: u64,
    /// See [`Self::letters`].
    pub letters_new: u64,
    /// Jobs, and their mean time from publish to end, of the last day, of the day before it, and of that three days before.
    pub duration: Mean,
    /// See [`Self::duration`].
    pub duration_yesterday: Mean,
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
    /// Calls and 429s of the last [`SATURATED_AFTER`](super::SATURATED_AFTER).
    pub calls_long: u64,
    /// See [`Self::calls_long`].
    pub limited_long: u64,
    /// 429s a minute, on average of the day before.
    pub limited_usual: f64,
    /// The tenant of most 429s, and its share of them.
    pub limited_most: Option<(Tenant, f64)>,
    /// Share of its calls in the last five minutes, by lane, greatest first.
    pub lanes: Vec<(LaneName, f64)>,
    /// Retries of the last half hour and their mean delay.
    pub backoff: Mean,
    /// The same half hour a day before; where there were none, the whole day until then.
    pub backoff_before: Mean,
    /// Whether that was the half hour.
    pub is_same_hour: bool,
    /// Who is blocked there for the longest time.
    pub blocked: Option<Blocked>,
    /// Share of those retries that are attempt 4 or later.
    pub late: f64,
}

/// An account that is left alone, or only tried.
#[derive(Debug, Clone)]
pub struct Blocked {
    /// Whose; `None` = the endpoint's own.
    pub tenant: Option<Tenant>,
    /// Since when, all tries in between included.
    pub since: Timestamp,
    /// Why; may be empty.
    pub why: String,
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
