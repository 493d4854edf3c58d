//! What an API allows, as configured, and the window of a budget that keeps to it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::job::budget::Window;

/// Share of a limit that is used, unless configured: the rest absorbs what the network bunches together.
pub const HEADROOM: f64 = 0.8;
/// Most limits of one endpoint.
pub const LIMITS_MAX: usize = 8;
/// What binary fractions leave of a division that comes out even.
const ROUNDING: f64 = 1e-6;
/// A share never leaves less than this of a limit.
const SHARE_MIN: f64 = 0.01;
/// The slowest that a pace gets, as a share of what is allowed.
pub const SPEED_MIN: f64 = 1.0 / 64.0;

/// What an API allows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// So many calls; 0 = no limit.
    pub requests: u32,
    /// In this time.
    pub per: Duration,
    /// Calls that may be made at once after a rest; `None` = half of what the headroom leaves, at least one.
    pub burst: Option<u32>,
    /// Whose calls are counted together.
    pub scope: Scope,
    /// Share of it that is used, above 0 and at most 1.
    pub headroom: f64,
}

/// Whose calls are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Those of one tenant.
    Tenant,
    /// Those of all tenants.
    Endpoint,
}

impl Scope {
    /// The scope as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Endpoint => "endpoint",
        }
    }
}

impl Limit {
    /// Most calls in the time of the limit: its pace, and a burst.
    pub fn most_in_window(&self) -> f64 {
        (self.tokens() + ROUNDING).floor() + if self.burst.is_some() { self.burst() } else { 0.0 }
    }

    fn tokens(&self) -> f64 {
        f64::from(self.requests) * self.headroom
    }

    /// Never above the limit: pace and burst together fit it, half of what is left is for the network.
    fn burst(&self) -> f64 {
        let spare = f64::from(self.requests) * (1.0 - self.headroom) / 2.0;
        // more at once than in the whole time is no limit any more
        self.burst.map_or((spare + ROUNDING).floor(), |burst| f64::from(burst.min(self.requests))).max(1.0)
    }

    /// Calls a second that lanes allows itself, without a burst.
    pub fn pace(&self) -> f64 {
        self.tokens() / self.per.as_secs_f64()
    }

    /// The window that keeps `share` of the limit. Who goes slower than it allows, `speed` below 1, has no burst.
    pub fn window(&self, key: String, share: f64, speed: f64) -> Window {
        let share = share.max(SHARE_MIN);
        let tokens = self.tokens() * share * speed.max(SPEED_MIN);
        let interval = Duration::from_micros(whole_micros(self.per.as_secs_f64() * 1e6 / tokens));
        let burst = if speed < 1.0 { 1.0 } else { (self.burst() * share + ROUNDING).floor().max(1.0) };
        Window::new(key, interval, interval.mul_f64(burst - 1.0))
    }
}

/// Rounded up: a token that takes longer is never one too many.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, and it is not negative")]
fn whole_micros(micros: f64) -> u64 {
    ((micros - ROUNDING).ceil() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(requests: u32, per: Duration) -> Limit {
        Limit { requests, per, burst: None, scope: Scope::Tenant, headroom: HEADROOM }
    }

    #[test]
    fn a_limit_is_paced_below_itself() {
        let window = limit(100, Duration::from_mins(1)).window("key".to_owned(), 1.0, 1.0);
        assert_eq!(window.interval, Duration::from_millis(750));
        assert_eq!(window.tolerance, Duration::from_millis(750 * 9));
    }

    #[test]
    fn a_slower_pace_has_no_burst() {
        let window = limit(100, Duration::from_mins(1)).window("key".to_owned(), 1.0, 0.5);
        assert_eq!((window.interval, window.tolerance), (Duration::from_millis(1_500), Duration::ZERO));
    }

    #[test]
    fn no_setting_is_too_large() {
        for (requests, per) in [(1, Duration::from_hours(24 * 366)), (u32::MAX, Duration::from_millis(1))] {
            let limit = Limit { burst: Some(u32::MAX), headroom: 0.01, ..limit(requests, per) };
            let window = limit.window(String::new(), 0.0, 1.0);
            assert!(window.interval >= Duration::from_micros(1));
            assert!(i64::try_from(window.tolerance.as_micros()).expect("fits") < i64::MAX / 1_000);
        }
    }

    proptest! {
        /// Pace and burst together never exceed what the API allows, for every limit that has room for a call.
        #[test]
        fn pace_and_burst_fit_the_limit(requests in 2_u32..100_000, per_ms in 100_u64..100_000_000, headroom in 0.1_f64..0.8) {
            let limit = Limit { headroom, ..limit(requests, Duration::from_millis(per_ms)) };
            prop_assume!(limit.tokens() >= 1.0);
            let window = limit.window(String::new(), 1.0, 1.0);
            let span = Duration::from_millis(per_ms);
            let most = 1 + (window.tolerance + span).as_micros() / window.interval.as_micros();
            prop_assert!(most <= u128::from(requests), "{most} of {requests}");
        }
    }
}
