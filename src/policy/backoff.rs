//! How long a job waits before its next call; the only module that names the `backoff` crate.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Doublings after which every delay has reached any cap that fits a `Duration`; bounds the walk for absurd attempts.
const DOUBLINGS_MAX: u32 = 96;

/// How often and after which waits a job is called again.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Most calls of one job.
    pub max_attempts: u32,
    /// The wait after the first call; it doubles from call to call.
    pub first_delay: Duration,
    /// The longest wait that doubling leads to.
    pub max_delay: Duration,
    /// Share of the wait, 0 to 1, by which it may be longer; never shorter.
    pub jitter: f64,
    /// The longest wait that a server can ask for.
    pub max_retry_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            first_delay: Duration::from_mins(2),
            max_delay: Duration::from_mins(16),
            jitter: 0.1,
            max_retry_after: Duration::from_hours(24),
        }
    }
}

/// A wait that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    /// How long.
    pub wait: Duration,
    /// The server asked for more than `max_retry_after`; it was cut.
    pub capped: bool,
}

/// The wait after call number `attempt` (1 for the first).
///
/// Doubling from `first_delay` up to `max_delay`; at least what the server asked for, up to `max_retry_after`; then
/// lengthened by a share that `instance` and `attempt` determine, so that jobs which failed together do not come back
/// together and the same job always gets the same answer.
pub fn delay(policy: &RetryPolicy, attempt: u32, retry_after: Option<Duration>, instance: Uuid) -> Delay {
    let asked = retry_after.unwrap_or_default();
    let floor = doubled(policy, attempt).max(asked.min(policy.max_retry_after));
    let wait = floor.saturating_add(stretch(floor, policy.jitter, instance, attempt));
    Delay { wait, capped: asked > policy.max_retry_after }
}

/// `min(first_delay * 2^(attempt - 1), max_delay)`.
///
/// The crate's state is rebuilt from the attempt number for each decision, because a job outlives any process. Its
/// defaults (growth of 1.5, cap of 60 s, end after 15 min, jitter to both sides) are all replaced. Its *answers* are not
/// used: even without jitter they are off by a random nanosecond. Its interval is exact.
fn doubled(policy: &RetryPolicy, attempt: u32) -> Duration {
    let mut schedule = ExponentialBackoff {
        initial_interval: policy.first_delay,
        current_interval: policy.first_delay,
        multiplier: 2.0,
        randomization_factor: 0.0,
        max_interval: policy.max_delay,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    for _ in 1..attempt.min(DOUBLINGS_MAX) {
        if schedule.current_interval >= policy.max_delay || schedule.next_backoff().is_none() {
            break;
        }
    }
    schedule.current_interval.min(policy.max_delay)
}

/// A part of `wait` between nothing and `share` of it.
fn stretch(wait: Duration, share: f64, instance: Uuid, attempt: u32) -> Duration {
    // NaN and negative shares count as none
    let share = if share > 0.0 { share.min(1.0) } else { 0.0 };
    let extra = wait.as_secs_f64() * share * unit_hash(instance, attempt);
    let most = wait.as_secs_f64() * share;
    Duration::try_from_secs_f64(extra.min(most)).unwrap_or_default()
}

/// A number in `0.0..1.0`, evenly spread, the same for the same arguments on every machine.
#[expect(clippy::cast_precision_loss, reason = "53 bits are taken, which an f64 holds exactly")]
fn unit_hash(instance: Uuid, attempt: u32) -> f64 {
    let digest = Sha256::new().chain_update(instance.as_bytes()).chain_update(attempt.to_be_bytes()).finalize();
    let mut head = [0; 8];
    head.copy_from_slice(&digest[..8]);
    (u64::from_be_bytes(head) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mins(n: u64) -> Duration {
        Duration::from_mins(n)
    }

    fn plain() -> RetryPolicy {
        RetryPolicy { jitter: 0.0, ..RetryPolicy::default() }
    }

    fn wait(policy: &RetryPolicy, attempt: u32, retry_after: Option<Duration>) -> Duration {
        delay(policy, attempt, retry_after, Uuid::nil()).wait
    }

    #[test]
    fn the_default_doubles_from_two_to_sixteen_minutes() {
        let waits: Vec<_> = (1..=6).map(|attempt| wait(&plain(), attempt, None)).collect();
        assert_eq!(waits, [mins(2), mins(4), mins(8), mins(16), mins(16), mins(16)]);
    }

    #[test]
    fn a_server_can_lengthen_but_never_shorten() {
        assert_eq!(wait(&plain(), 1, Some(mins(1))), mins(2));
        assert_eq!(wait(&plain(), 1, Some(mins(30))), mins(30));
        assert_eq!(wait(&plain(), 9, Some(mins(30))), mins(30));
    }

    #[test]
    fn what_a_server_asks_is_cut_at_the_configured_most() {
        let policy = RetryPolicy { max_retry_after: mins(60), ..plain() };
        assert_eq!(delay(&policy, 1, Some(mins(61)), Uuid::nil()), Delay { wait: mins(60), capped: true });
        assert_eq!(delay(&policy, 1, Some(mins(60)), Uuid::nil()), Delay { wait: mins(60), capped: false });
    }

    #[test]
    fn absurd_policies_stay_within_their_cap() {
        let policy = RetryPolicy { first_delay: mins(9), max_delay: mins(3), ..plain() };
        assert_eq!(wait(&policy, 1, None), mins(3));
        let policy = RetryPolicy { first_delay: Duration::ZERO, ..plain() };
        assert_eq!(wait(&policy, u32::MAX, None), Duration::ZERO);
        for jitter in [f64::NAN, f64::INFINITY, -1.0] {
            let most = if jitter == f64::INFINITY { mins(4) } else { mins(2) };
            assert!(wait(&RetryPolicy { jitter, ..plain() }, 1, None) <= most);
        }
    }

    #[test]
    fn jitter_spreads_over_its_whole_range() {
        let policy = RetryPolicy::default();
        let extras: Vec<f64> =
            (0..1_000).map(|n| delay(&policy, 1, None, Uuid::from_u128(n)).wait.as_secs_f64() / 120.0 - 1.0).collect();
        assert!(extras.iter().any(|&extra| extra < 0.005) && extras.iter().any(|&extra| extra > 0.095));
        let mean = extras.iter().sum::<f64>() / 1_000.0;
        assert!((0.045..0.055).contains(&mean), "{mean}");
    }

    fn policies() -> impl Strategy<Value = RetryPolicy> {
        (0..4_000_000_u64, 0..90_000_000_u64, 0.0..=1.0_f64, 0..400_000_000_u64).prop_map(
            |(first, most, jitter, asked)| RetryPolicy {
                max_attempts: 5,
                first_delay: Duration::from_millis(first),
                max_delay: Duration::from_millis(most),
                jitter,
                max_retry_after: Duration::from_millis(asked),
            },
        )
    }

    proptest! {
        #[test]
        fn delays_keep_their_bounds(
            policy in policies(), attempt in 1..=u32::MAX, asked in proptest::option::of(0..800_000_000_u64), id: u128,
        ) {
            let asked = asked.map(Duration::from_millis);
            let instance = Uuid::from_u128(id);
            let Delay { wait, capped } = delay(&policy, attempt, asked, instance);
            let granted = asked.unwrap_or_default().min(policy.max_retry_after);
            let exact = u32::try_from(1_u64 << (attempt - 1).min(31)).ok()
                .and_then(|factor| policy.first_delay.checked_mul(factor)).unwrap_or(Duration::MAX);
            let floor = if policy.first_delay.is_zero() { Duration::ZERO } else { exact.min(policy.max_delay) }.max(granted);
            // milliseconds that double 31 times pass every cap tried here
            prop_assert!(wait >= floor, "{wait:?} < {floor:?}");
            prop_assert!(wait <= floor.mul_f64(1.0 + policy.jitter) + Duration::from_micros(1));
            prop_assert_eq!(capped, asked.unwrap_or_default() > policy.max_retry_after);
            prop_assert_eq!(delay(&policy, attempt, asked, instance).wait, wait);
        }

        #[test]
        fn delays_never_shrink_from_attempt_to_attempt(policy in policies(), attempt in 1..80_u32) {
            let policy = RetryPolicy { jitter: 0.0, ..policy };
            prop_assert!(wait(&policy, attempt, None) <= wait(&policy, attempt + 1, None));
        }
    }
}
