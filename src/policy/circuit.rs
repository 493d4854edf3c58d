//! Whether an account may be called at all: blocked by a `Retry-After` or by failures, then one probe, then a ramp.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::limit::SPEED_MIN;
use crate::clock::Timestamp;
use crate::job::verdict::Class;

/// Pace at the start of a ramp, as a share of what is allowed.
const RAMP_FROM: f64 = 0.1;
/// A ramp takes this share of the time that the circuit was open, within bounds.
const RAMP_SHARE: u32 = 10;
const RAMP_MIN: Duration = Duration::from_secs(1);
const RAMP_MAX: Duration = Duration::from_secs(30);
/// Longest text that says why a circuit is open, in characters.
const DETAIL_CHARS_MAX: usize = 200;

/// When an account counts as failing, and for how long it is left alone then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitRules {
    /// Failures in a row that open the circuit; 0 = never.
    pub failures: u32,
    /// How long it is open the first time; it doubles each time that the probe fails.
    pub open: Duration,
    /// The longest that it is open.
    pub open_max: Duration,
}

impl Default for CircuitRules {
    fn default() -> Self {
        Self { failures: 10, open: Duration::from_secs(10), open_max: Duration::from_mins(5) }
    }
}

impl CircuitRules {
    /// Only a `Retry-After` blocks.
    pub const NEVER: Self = Self { failures: 0, open: Duration::ZERO, open_max: Duration::ZERO };

    /// How long it is open for the `times`-th time in a row.
    fn open_for(&self, times: u32) -> Duration {
        self.open.saturating_mul(1_u32.checked_shl(times.saturating_sub(1)).unwrap_or(u32::MAX)).min(self.open_max)
    }
}

/// Why nothing is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The API limits us, and said or showed that it goes on doing so.
    CoolDown,
    /// It fails call after call.
    Failing,
}

impl Cause {
    /// The cause as a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CoolDown => "cool_down",
            Self::Failing => "failing",
        }
    }

    fn of(class: Class) -> Self {
        if class == Class::RateLimited { Self::CoolDown } else { Self::Failing }
    }
}

/// The state of a circuit breaker, and since when.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Circuit {
    /// Calls go through.
    #[default]
    Closed,
    /// Nothing is called.
    Open(Opening),
    /// One call is on its way that shows how things are.
    Probing {
        /// Why it was open.
        opening: Opening,
        /// When the probe was sent.
        at: Timestamp,
        /// When another one may be sent, should nothing be heard of it.
        until: Timestamp,
        /// Who sends it.
        by: Uuid,
    },
    /// The probe worked: the pace rises.
    Ramping {
        /// Since when.
        at: Timestamp,
        /// When the pace is what it was.
        until: Timestamp,
        /// How often in a row it had been open.
        times: u32,
    },
}

/// A time in which nothing is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Why.
    pub cause: Cause,
    /// Since when, with all the times before it in a row.
    pub since: Timestamp,
    /// When this state was decided.
    pub at: Timestamp,
    /// When the probe may go.
    pub until: Timestamp,
    /// The how manieth time in a row.
    pub times: u32,
    /// The failure, for a person.
    pub detail: String,
}

/// What a circuit says to a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Door {
    /// Go, at this share of the pace.
    Open(f64),
    /// Wait.
    Shut {
        /// When to ask again.
        until: Timestamp,
        /// Why.
        cause: Cause,
    },
    /// One may go, and shows how things are: whoever writes down first that it is the one.
    Probe(Cause),
}

/// What one call showed.
#[derive(Debug, Clone)]
pub struct Shown {
    /// What its facts meant.
    pub class: Class,
    /// What the API asked us to wait, cut to the most that we do.
    pub retry_after: Option<Duration>,
    /// When the call began.
    pub started_at: Timestamp,
    /// When its answer came.
    pub ended_at: Timestamp,
    /// The failure, for a person.
    pub detail: String,
}

impl Circuit {
    /// What it says to a call now.
    pub fn door(&self, now: Timestamp) -> Door {
        match self {
            Self::Closed => Door::Open(1.0),
            Self::Open(opening) if now < opening.until => Door::Shut { until: opening.until, cause: opening.cause },
            Self::Probing { opening, until, .. } if now < *until => Door::Shut { until: *until, cause: opening.cause },
            Self::Open(opening) | Self::Probing { opening, .. } => Door::Probe(opening.cause),
            Self::Ramping { at, until, .. } => Door::Open(speed(*at, *until, now)),
        }
    }

    /// The state in which `by` sends the probe, where one may be sent; heard of within `patience`, or another one goes.
    pub fn probing(&self, by: Uuid, now: Timestamp, patience: Duration) -> Option<Self> {
        let (Self::Open(opening) | Self::Probing { opening, .. }) = self else { return None };
        matches!(self.door(now), Door::Probe(_)).then(|| Self::Probing {
            opening: opening.clone(),
            at: now,
            until: now.plus(patience),
            by,
        })
    }

    /// The state after what a call showed, when that changes it. `failures`: in a row, this one included. Calls that had
    /// begun before the state did say nothing about it, but that a `Retry-After` may be longer.
    pub fn after(&self, rules: &CircuitRules, failures: u32, shown: &Shown) -> Option<Self> {
        let late = self.at().is_some_and(|at| shown.started_at < at);
        match shown.class {
            Class::Ok | Class::Permanent => {
                // a call that an open circuit let pass, because its process had not heard of it, shows nothing
                let Self::Probing { opening, .. } = self else { return None };
                (!late).then(|| Self::ramp(opening, shown.ended_at))
            }
            // RFC 9110, 10.2.3: with a 503 it says for how long the service is unavailable
            class @ (Class::RateLimited | Class::Transient) if shown.retry_after.is_some() => {
                let until = shown.ended_at.plus(shown.retry_after.unwrap_or_default());
                let longer = self.opening().is_none_or(|opening| !late || until > opening.until);
                longer.then(|| self.open(Cause::of(class), until, shown, late))
            }
            class => {
                let probe_failed = matches!(self, Self::Probing { .. });
                let many = rules.failures > 0 && failures >= rules.failures && !matches!(self, Self::Open(_));
                if late || !(probe_failed || many) {
                    return None;
                }
                // who is blocked by a Retry-After alone has no other measure
                let open_for =
                    rules.open_for(self.times() + 1).max(if rules.failures == 0 { RAMP_MIN } else { Duration::ZERO });
                Some(self.open(Cause::of(class), shown.ended_at.plus(open_for), shown, false))
            }
        }
    }

    fn open(&self, cause: Cause, until: Timestamp, shown: &Shown, late: bool) -> Self {
        let before = self.opening();
        Self::Open(Opening {
            cause,
            since: before.map_or(shown.ended_at, |before| before.since),
            at: shown.ended_at,
            until,
            times: if late { self.times() } else { self.times() + 1 },
            detail: shown.detail.chars().take(DETAIL_CHARS_MAX).collect(),
        })
    }

    fn ramp(opening: &Opening, now: Timestamp) -> Self {
        let takes = (now.since(opening.since) / RAMP_SHARE).clamp(RAMP_MIN, RAMP_MAX);
        Self::Ramping { at: now, until: now.plus(takes), times: opening.times }
    }

    /// When this state began; `None` for one that has no history.
    pub fn at(&self) -> Option<Timestamp> {
        match self {
            Self::Closed => None,
            Self::Open(opening) => Some(opening.at),
            Self::Probing { at, .. } | Self::Ramping { at, .. } => Some(*at),
        }
    }

    fn times(&self) -> u32 {
        match self {
            Self::Closed => 0,
            Self::Open(opening) | Self::Probing { opening, .. } => opening.times,
            Self::Ramping { times, .. } => *times,
        }
    }

    /// Why and until when nothing is called, while that is so.
    pub fn opening(&self) -> Option<&Opening> {
        match self {
            Self::Open(opening) | Self::Probing { opening, .. } => Some(opening),
            Self::Closed | Self::Ramping { .. } => None,
        }
    }

    /// The later of two states of one circuit, as two workers know it.
    #[must_use]
    pub fn later(self, other: Self) -> Self {
        // of two that were decided in the same moment the one that is shut
        let rank = |circuit: &Self| (circuit.at(), circuit.opening().map(|opening| opening.until));
        if rank(&other) > rank(&self) { other } else { self }
    }

    /// True once a ramp is over, and nothing is left to remember.
    pub fn is_over(&self, now: Timestamp) -> bool {
        matches!(self, Self::Ramping { until, .. } if *until <= now)
    }

    /// The state as a word, the label of a metric.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Closed | Self::Ramping { .. } => "closed",
            Self::Open(_) => "open",
            Self::Probing { .. } => "half_open",
        }
    }
}

/// How fast a ramp is at a moment.
fn speed(at: Timestamp, until: Timestamp, now: Timestamp) -> f64 {
    if now >= until {
        return 1.0;
    }
    let whole = until.since(at).as_secs_f64();
    let passed = now.since(at).as_secs_f64();
    (RAMP_FROM + (1.0 - RAMP_FROM) * passed / whole.max(f64::MIN_POSITIVE)).clamp(SPEED_MIN, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: CircuitRules =
        CircuitRules { failures: 3, open: Duration::from_secs(10), open_max: Duration::from_secs(35) };

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    fn shown(class: Class, seconds: i64) -> Shown {
        Shown { class, retry_after: None, started_at: at(seconds), ended_at: at(seconds), detail: "503".to_owned() }
    }

    fn limited(seconds: i64, wait: u64) -> Shown {
        Shown { retry_after: Some(Duration::from_secs(wait)), ..shown(Class::RateLimited, seconds) }
    }

    fn open_until(circuit: &Circuit) -> Timestamp {
        match circuit.door(at(0)) {
            Door::Shut { until, .. } => until,
            door => panic!("{door:?}"),
        }
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_failed_probe_opens_it_for_longer() {
        let failing =
            |circuit: &Circuit, failures, second| circuit.after(&RULES, failures, &shown(Class::Transient, second));
        assert_eq!(failing(&Circuit::Closed, 2, 1), None);
        let mut circuit = failing(&Circuit::Closed, 3, 1).expect("opens");
        for (times, (until, next)) in [(11, 31), (31, 66), (66, 101)].into_iter().enumerate() {
            assert_eq!(open_until(&circuit), at(until), "opened {times} times before");
            assert_eq!(circuit.probing(Uuid::nil(), at(until - 1), Duration::from_secs(60)), None, "too early");
            assert_eq!(circuit.door(at(until)), Door::Probe(Cause::Failing));
            let probing = circuit.probing(Uuid::nil(), at(until), Duration::from_secs(60)).expect("may go");
            assert_eq!(probing.door(at(until + 59)), Door::Shut { until: at(until + 60), cause: Cause::Failing });
            assert_eq!(probing.door(at(until + 60)), Door::Probe(Cause::Failing), "its sender is dead");
            circuit = failing(&probing, 1, until).expect("opens again at the first failure");
            assert_eq!(open_until(&circuit), at(next));
        }
    }

    #[test]
    fn a_retry_after_opens_it_at_once_and_a_shorter_one_that_comes_late_changes_nothing() {
        let circuit = Circuit::Closed.after(&RULES, 1, &limited(1, 60)).expect("opens");
        assert_eq!(open_until(&circuit), at(61));
        assert_eq!(circuit.after(&RULES, 2, &limited(0, 10)), None, "had begun before");
        let longer = circuit.after(&RULES, 2, &limited(0, 90)).expect("is longer");
        assert_eq!(open_until(&longer), at(90));
        assert_eq!(circuit.after(&RULES, 2, &shown(Class::Ok, 0)), None, "a late success closes nothing");
        assert_eq!(Circuit::Closed.after(&CircuitRules::NEVER, 100, &shown(Class::Unknown, 1)), None);
    }

    #[test]
    fn a_probe_that_works_starts_a_ramp() {
        let open = Circuit::Closed.after(&RULES, 1, &limited(0, 100)).expect("opens");
        let probing = open.probing(Uuid::nil(), at(100), Duration::from_secs(60)).expect("may go");
        let ramping = probing.after(&RULES, 0, &shown(Class::Permanent, 100)).expect("the endpoint answers");
        let speed = |second| match ramping.door(at(second)) {
            Door::Open(speed) => speed,
            door => panic!("{door:?}"),
        };
        assert!((speed(100) - 0.1).abs() < 1e-9 && (speed(105) - 0.55).abs() < 1e-9, "{} {}", speed(100), speed(105));
        assert!((speed(110) - 1.0).abs() < 1e-9 && ramping.is_over(at(110)) && !ramping.is_over(at(109)));
        let again = ramping.after(&RULES, 1, &limited(103, 50)).expect("opens again");
        assert!(matches!(again, Circuit::Open(Opening { times: 2, .. })));
    }

    #[test]
    fn of_two_states_the_later_one_counts() {
        let open = Circuit::Closed.after(&RULES, 1, &limited(1, 60)).expect("opens");
        let longer = Circuit::Closed.after(&RULES, 1, &limited(1, 90)).expect("opens");
        let ramping = Circuit::Ramping { at: at(2), until: at(9), times: 1 };
        assert_eq!(Circuit::Closed.later(open.clone()), open);
        assert_eq!(open.clone().later(longer.clone()), longer);
        assert_eq!(ramping.clone().later(open), ramping);
    }
}
