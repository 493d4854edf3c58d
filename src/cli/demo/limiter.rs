//! The fake API's rate limit: an exact token bucket (GCRA), one per tenant, as a pure function of time.

use std::time::Duration;

use crate::clock::Timestamp;

const NANOS_PER_MINUTE: u64 = 60_000_000_000;

/// What a tenant's call meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// It may pass.
    Allowed {
        /// Calls that would pass at this moment, after this one.
        remaining: u64,
    },
    /// It is one too many.
    Limited {
        /// The next call passes after this time.
        retry_after: Duration,
    },
}

/// The budget of one tenant: never more than `burst + per_minute / 60 * t` calls pass in any `t` seconds.
#[derive(Debug, Clone)]
pub struct Limiter {
    /// Nanoseconds that one call costs, rounded up: rather one call less than one too many.
    cost: u64,
    /// Nanoseconds of cost that may be used at once.
    burst: u64,
    /// When the first call came; all nanoseconds count from here.
    epoch: Option<Timestamp>,
    /// When everything used so far will have been paid back.
    paid_back: u64,
}

impl Limiter {
    /// A full bucket of `burst` calls that is refilled by `per_minute` calls a minute. Both are at least 1.
    pub fn new(per_minute: u64, burst: u64) -> Self {
        let cost = NANOS_PER_MINUTE.div_ceil(per_minute.max(1));
        Self { cost, burst: cost.saturating_mul(burst.max(1)), epoch: None, paid_back: 0 }
    }

    /// Asks for one call at `now`; a call that passes is taken from the budget.
    pub fn ask(&mut self, now: Timestamp) -> Grant {
        let since = now.since(*self.epoch.get_or_insert(now));
        let now = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let owed = self.paid_back.saturating_sub(now);
        let after = owed.saturating_add(self.cost);
        if after > self.burst {
            return Grant::Limited { retry_after: Duration::from_nanos(after - self.burst) };
        }
        self.paid_back = now.saturating_add(after);
        Grant::Allowed { remaining: (self.burst - after) / self.cost }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    #[test]
    fn a_burst_passes_then_the_pace_holds() {
        let mut limiter = Limiter::new(600, 3); // one call every 100 ms
        assert_eq!(limiter.ask(at(0)), Grant::Allowed { remaining: 2 });
        assert_eq!(limiter.ask(at(0)), Grant::Allowed { remaining: 1 });
        assert_eq!(limiter.ask(at(0)), Grant::Allowed { remaining: 0 });
        assert_eq!(limiter.ask(at(0)), Grant::Limited { retry_after: Duration::from_millis(100) });
        assert_eq!(limiter.ask(at(60)), Grant::Limited { retry_after: Duration::from_millis(40) });
        assert_eq!(limiter.ask(at(100)), Grant::Allowed { remaining: 0 });
        assert_eq!(
            limiter.ask(at(100_000)),
            Grant::Allowed { remaining: 2 },
            "the bucket holds no more than the burst"
        );
    }

    #[test]
    fn who_comes_when_told_passes() {
        let mut limiter = Limiter::new(7, 1);
        assert!(matches!(limiter.ask(at(0)), Grant::Allowed { .. }));
        let Grant::Limited { retry_after } = limiter.ask(at(1)) else { panic!("two calls at once") };
        assert!(matches!(limiter.ask(at(2).plus(retry_after)), Grant::Allowed { .. }));
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_burst_and_pace(
            per_minute in 1_u64..20_000,
            burst in 1_u64..50,
            gaps in prop::collection::vec(0_i64..400, 1..300),
        ) {
            let mut limiter = Limiter::new(per_minute, burst);
            let mut passed = Vec::new();
            let mut now = 0;
            for gap in gaps {
                now += gap;
                if matches!(limiter.ask(at(now)), Grant::Allowed { .. }) {
                    passed.push(now);
                }
            }
            for (first, start) in passed.iter().enumerate() {
                for (last, end) in passed.iter().enumerate().skip(first) {
                    let millis = u64::try_from(end - start).expect("times grow");
                    let (calls, most) = ((last - first) as u64 + 1, burst + per_minute * millis / 60_000);
                    prop_assert!(calls <= most, "{calls} calls in {millis} ms, at most {most} are allowed");
                }
            }
        }
    }
}
