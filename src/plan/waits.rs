//! How long jobs waited: counts in buckets that are 1.6 % wide, so that any number of jobs takes the same memory.

use std::time::Duration;

/// Buckets for each doubling of the time.
const PER_DOUBLING: u64 = 64;

/// The waits of a lane's jobs.
#[derive(Debug, Clone, Default)]
pub(super) struct Waits {
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

impl Waits {
    /// Counts jobs that waited so long.
    pub fn add(&mut self, waited: Duration, jobs: u64) {
        let at = bucket(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
        if self.buckets.len() <= at {
            self.buckets.resize(at + 1, 0);
        }
        self.buckets[at] += jobs;
        self.count += jobs;
        self.max = self.max.max(waited);
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The wait that this share of the jobs did not exceed; never below it, and at most 1.6 % above.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a share")]
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_micros(upper(at as u64)).min(self.max);
            }
        }
        self.max
    }
}

/// Exact below [`PER_DOUBLING`], then so many buckets for each doubling.
fn bucket(micros: u64) -> usize {
    let doublings = u64::from((micros / PER_DOUBLING).checked_ilog2().map_or(0, |log| log + 1));
    let within = if doublings == 0 { micros } else { (micros >> (doublings - 1)) - PER_DOUBLING };
    usize::try_from(doublings * PER_DOUBLING + within).unwrap_or(usize::MAX)
}

/// The longest wait of a bucket.
fn upper(at: u64) -> u64 {
    let (doublings, within) = (at / PER_DOUBLING, at % PER_DOUBLING);
    if doublings == 0 { within } else { ((PER_DOUBLING + within + 1) << (doublings - 1)) - 1 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_of_a_line_of_waits() {
        let mut waits = Waits::default();
        (1..=1_000).for_each(|second| waits.add(Duration::from_secs(second), 1));
        for (share, seconds) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0)] {
            let found = waits.quantile(share).as_secs_f64();
            assert!(found >= seconds && found <= seconds * 1.016, "{share}: {found}");
        }
        assert_eq!((waits.quantile(1.0), waits.max()), (waits.max(), Duration::from_secs(1_000)));
        assert_eq!(Waits::default().quantile(0.5), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn a_wait_is_never_told_as_shorter(micros in 0_u64..(1 << 50)) {
            let told = upper(bucket(micros) as u64);
            prop_assert!(told >= micros && told - micros <= micros / PER_DOUBLING, "{micros} as {told}");
            prop_assert!(bucket(told) == bucket(micros) && bucket(told + 1) == bucket(told) + 1);
        }
    }
}
