//! What is counted over time: measures, and what was counted of them in a stretch of time.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::verdict::words;
use crate::clock::Timestamp;

/// Upper bounds of the buckets of waits, in milliseconds; a last bucket holds what is longer.
pub const WAIT_BOUNDS_MS: [u64; 14] =
    [10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000];

/// The last bucket of attempts holds later ones too.
pub const ATTEMPT_BUCKET_MAX: u8 = 8;

words! {
    /// What is counted. `subject` and `part` of a [`Count`] say of what.
    Measure {
        /// Jobs of a lane (subject) that succeeded.
        Succeeded = "succeeded",
        /// Jobs of a lane that ran out of attempts; part: the endpoint.
        Exhausted = "exhausted",
        /// Jobs of a lane that ended otherwise.
        Ended = "ended",
        /// Dead letters of a lane.
        Died = "died",
        /// Jobs of a lane by how long they waited for their call; the bucket says how long.
        Waited = "waited",
        /// Jobs of a lane that ended after a call; the total is their time from publish, in microseconds.
        Duration = "duration",
        /// Calls of an endpoint (subject); part: the lane.
        CallsByLane = "calls_by_lane",
        /// Calls of an endpoint; part: the tenant.
        Calls = "calls",
        /// Calls of an endpoint that it refused for its rate limit; part: the tenant.
        RateLimited = "rate_limited",
        /// Calls of an endpoint whose end was seen; the total is how long they took, in microseconds.
        Took = "took",
        /// Retries of an endpoint; the total is their delays, in microseconds. The bucket is the attempt that failed, at most
        /// [`ATTEMPT_BUCKET_MAX`].
        Retries = "retries",
        /// Those of them after the third attempt or a later one.
        LateRetries = "late_retries",
        /// Looks at a lane by a worker.
        Looked = "looked",
        /// Those at which it had jobs that could run.
        Backlogged = "backlogged",
        /// Looks at a lane that had jobs; the total is the age of the oldest at each of them, in microseconds.
        Aged = "aged",
        /// Jobs of a lane that were given back of a worker that died.
        TakenOver = "taken_over",
        /// Operations of the store that failed; the subject is empty.
        StoreErrors = "store_errors",
    }
}

/// What a count is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Series {
    /// What is counted.
    pub measure: Measure,
    /// For waits: the index into [`WAIT_BOUNDS_MS`], or one more. For retries: the attempt. 0 otherwise.
    pub bucket: u8,
    /// A lane or an endpoint, as the measure says.
    pub subject: String,
    /// What else is told apart; empty where nothing is.
    pub part: String,
}

/// How many, and the total of what was measured of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub count: u64,
    /// The total, in the measure's unit; 0 where nothing but the number counts.
    pub total: u64,
}

impl Count {
    /// Adds another count of the same.
    pub fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.total = self.total.saturating_add(other.total);
    }
}

/// The bucket of a wait.
pub fn wait_bucket(waited: Duration) -> u8 {
    let millis = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    let bucket = WAIT_BOUNDS_MS.iter().take_while(|bound| millis > **bound).count();
    u8::try_from(bucket).unwrap_or(u8::MAX)
}

/// The bucket of a retry.
pub fn attempt_bucket(attempt: u32) -> u8 {
    u8::try_from(attempt).unwrap_or(u8::MAX).min(ATTEMPT_BUCKET_MAX)
}

/// How finely time is told apart, and how long it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Ten seconds, kept for a day.
    Fine,
    /// A minute, kept for a week.
    Coarse,
}

impl Step {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Fine, Self::Coarse];

    /// Length of one step.
    pub const fn length(self) -> Duration {
        match self {
            Self::Fine => Duration::from_secs(10),
            Self::Coarse => Duration::from_mins(1),
        }
    }

    /// How long counts are kept.
    pub const fn kept(self) -> Duration {
        match self {
            Self::Fine => Duration::from_hours(24),
            // a comparison with three days ago looks at a day before that
            Self::Coarse => Duration::from_hours(7 * 24),
        }
    }
}

/// A stretch of time, cut into pieces of one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pieces {
    /// Which steps are added up.
    pub step: Step,
    /// Length of a piece: a whole number of steps. Pieces begin at multiples of it since 1970.
    pub width: Duration,
    /// From the step that holds this moment,
    pub since: Timestamp,
    /// to before this one.
    pub until: Timestamp,
}

impl Pieces {
    /// Beginning of the piece of this length that holds a moment.
    pub fn start_of(width: Duration, at: Timestamp) -> Timestamp {
        let length = i64::try_from(width.as_micros()).unwrap_or(i64::MAX).max(1);
        Timestamp::from_micros(at.as_micros().div_euclid(length).saturating_mul(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_in_the_first_bucket_that_holds_it() {
        let bucket = |millis| wait_bucket(Duration::from_millis(millis));
        assert_eq!((bucket(0), bucket(10), bucket(11), bucket(5_000)), (0, 0, 1, 7));
        assert_eq!((bucket(3_600_000), bucket(3_600_001), bucket(u64::MAX)), (13, 14, 14));
    }
}
