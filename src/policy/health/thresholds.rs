//! From where on something needs a person: each number once, for incidents and (`tests/it/observability.rs`) alert rules.

use std::time::Duration;

/// Share of ended jobs that may run out of attempts: over an hour, and still so in the last half.
pub const EXHAUSTED_MAX: f64 = 0.01;
/// So many times [`EXHAUSTED_MAX`] uses up a month of it in two days: over an hour, and still so in the last five minutes.
pub const EXHAUSTED_BURN: f64 = 14.4;
/// Fewer exhausted jobs in an hour than this are no trend.
pub const EXHAUSTED_MIN: u64 = 5;
/// 429s of an endpoint: so many times their daily average,
pub const SPIKE_FACTOR: f64 = 3.0;
/// at least so many a minute,
pub const SPIKE_PER_MINUTE_MIN: f64 = 12.0;
/// and at least this share of its calls.
pub const SPIKE_SHARE_MIN: f64 = 0.02;
/// Share of an endpoint's calls that may get a 429 for [`SATURATED_AFTER`].
pub const SATURATED_SHARE_MAX: f64 = 0.1;
/// See [`SATURATED_SHARE_MAX`].
pub const SATURATED_AFTER: Duration = Duration::from_mins(15);
/// Fewer 429s in that time than this say nothing of its pace.
pub const SATURATED_MIN: u64 = 5;
/// How long an account may be left alone, or only be tried, before somebody is told.
pub const CIRCUIT_OPEN_AFTER: Duration = Duration::from_mins(15);
/// Real-time jobs wait longer than this (p95) when something is wrong.
pub const REALTIME_WAIT_MAX: Duration = Duration::from_secs(5);
/// What they are meant to wait at most.
pub const REALTIME_WAIT_GOAL: Duration = Duration::from_secs(2);
/// A lane with jobs that could run and that calls none for so long is stuck.
pub const STUCK_AFTER: Duration = Duration::from_mins(15);
/// Looks at a lane in that time, from which on they say something: one each five seconds, some missed.
pub(super) const LOOKS_MIN: u64 = 150;
/// The oldest job of a lane may be so old,
pub const AGE_MAX: Duration = Duration::from_hours(1);
/// unless it gets older by less than this share of the time that passes: then the lane catches up.
pub const AGEING_MIN: f64 = 0.5;
/// The average delay of retries is high from here on,
pub const BACKOFF_MIN: Duration = Duration::from_mins(1);
/// when it is so many times that of yesterday.
pub const BACKOFF_FACTOR: f64 = 2.0;
/// Jobs take so many times as long as three days ago.
pub const DURATION_FACTOR: f64 = 1.5;
/// Fewer jobs than this on either day are no trend.
pub const DURATION_JOBS_MIN: u64 = 20;
/// Dead letters of a lane,
pub const LETTERS_MIN: u64 = 100;
/// and how many of them came in the last hour.
pub const LETTERS_NEW_MIN: u64 = 20;
/// A lane that was paused so long ago may have been forgotten.
pub const PAUSED_LONG: Duration = Duration::from_hours(1);
/// For so long it is told that a worker died with jobs in its hands.
pub const DIED_TOLD_FOR: Duration = Duration::from_mins(15);
/// The store fails when it did so in each of two such times, one after the other.
pub const STORE_FAILS_FOR: Duration = Duration::from_mins(5);
