//! Time as a value: `Timestamp`, the `Clock` seam, the system clock, a clock moved by hand, and the bound on real I/O.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A point in time, in microseconds since the Unix epoch (UTC). All arithmetic saturates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);
    /// Later than anything lanes will ever store.
    pub const MAX: Self = Self(i64::MAX);

    /// From microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// From whole seconds since the epoch.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Seconds since the epoch, with a fraction, as Prometheus wants it.
    #[expect(clippy::cast_precision_loss, reason = "microseconds of this era fit 53 bits")]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// This moment plus `duration`.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros_of(duration)))
    }

    /// This moment minus `duration`.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros_of(duration)))
    }

    /// Time from `earlier` to this moment; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The distance between two moments, whichever is first.
    pub fn distance(self, other: Self) -> Duration {
        Duration::from_micros(self.0.abs_diff(other.0))
    }

    /// Reads RFC 3339 text (`2026-11-22T03:30:00Z`, any offset); `None` when it is not that.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        text.trim().parse::<jiff::Timestamp>().ok().map(|at| Self(at.as_microsecond()))
    }
}

fn micros_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(at) => at.fmt(f),
            Err(_) => write!(f, "{} us since 1970", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where time comes from. Everything that decides takes `now` as an argument; everything that waits asks the clock.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present moment.
    fn now(&self) -> Timestamp;
    /// Completes once `now() >= at`.
    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()>;
}

/// A clock that many parts hold.
pub type SharedClock = Arc<dyn Clock>;

/// Waits for `duration` by `clock`.
pub async fn sleep(clock: &dyn Clock, duration: Duration) {
    clock.sleep_until(clock.now().plus(duration)).await;
}

/// Wall time at start plus monotonic time since, plus a measured offset to the store's clock.
///
/// A step of the machine's wall clock is therefore invisible until the offset is measured again.
#[derive(Debug, Clone)]
pub struct SystemClock(Arc<SystemClockInner>);

#[derive(Debug)]
struct SystemClockInner {
    started_at_micros: i64,
    started: Instant,
    offset_micros: AtomicI64,
}

impl SystemClock {
    /// A clock that agrees with the machine's wall clock now.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clocks")]
    pub fn new() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(Arc::new(SystemClockInner {
            started_at_micros: micros_of(wall),
            started: Instant::now(),
            offset_micros: AtomicI64::new(0),
        }))
    }

    /// Makes `now()` answer what the store's clock showed when ours showed `ours`; returns the change in microseconds.
    pub fn follow(&self, ours: Timestamp, theirs: Timestamp) -> i64 {
        let change = theirs.0.saturating_sub(ours.0);
        self.0.offset_micros.fetch_add(change, Ordering::Relaxed);
        change
    }

    fn instant_of(&self, at: Timestamp) -> Instant {
        self.0.started + at.since(Timestamp(self.0.started_at_micros + self.0.offset_micros.load(Ordering::Relaxed)))
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.started_at_micros + self.0.offset_micros.load(Ordering::Relaxed))
            .plus(self.0.started.elapsed())
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that sleeps on the runtime's timer")]
    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            // the timer rounds to milliseconds and the offset may move: look again after waking
            while this.now() < at {
                tokio::time::sleep_until(this.instant_of(at).into()).await;
            }
        })
    }
}

/// A clock for tests: it stands still until it is moved by hand.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<watch::Sender<Timestamp>>);

impl ManualClock {
    /// A clock that shows `start`.
    pub fn new(start: Timestamp) -> Self {
        Self(Arc::new(watch::Sender::new(start)))
    }

    /// Moves the clock forward and wakes every sleeper that is due.
    pub fn advance(&self, duration: Duration) {
        self.0.send_modify(|now| *now = now.plus(duration));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.borrow()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let mut seen = self.0.subscribe();
        Box::pin(async move {
            if seen.wait_for(|now| *now >= at).await.is_err() {
                std::future::pending::<()>().await; // the clock is gone: time never comes
            }
        })
    }
}

/// The time an I/O operation was allowed has passed.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("no answer within {0:?}")]
pub struct TimedOut(pub Duration);

/// Bounds real I/O (a query, a publish, a connect) by real time, which no injected clock can move.
///
/// # Errors
/// [`TimedOut`] when `future` has not finished after `limit`; it is dropped then.
#[expect(clippy::disallowed_methods, reason = "the one place that bounds I/O with the runtime's timer")]
pub async fn within<F: Future>(limit: Duration, future: F) -> Result<F::Output, TimedOut> {
    tokio::time::timeout(limit, future).await.map_err(|_| TimedOut(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_only_who_is_due() {
        let clock = ManualClock::new(Timestamp::from_secs(100));
        let mut early = clock.sleep_until(Timestamp::from_secs(101));
        let mut late = clock.sleep_until(Timestamp::from_secs(110));
        clock.advance(Duration::from_secs(5));
        (&mut early).await;
        assert!(futures_util::FutureExt::now_or_never(&mut late).is_none());
        clock.advance(Duration::from_secs(5));
        late.await;
    }

    #[test]
    fn following_the_store_moves_now() {
        let clock = SystemClock::new();
        let ours = clock.now();
        clock.follow(ours, ours.plus(Duration::from_hours(1)));
        assert!(clock.now().since(ours) >= Duration::from_hours(1));
    }

    #[test]
    fn text_form_is_rfc_3339() {
        let at = Timestamp::parse_rfc3339("2026-11-22T05:30:00.25+02:00").expect("valid");
        assert_eq!(at.to_string(), "2026-11-22T03:30:00.25Z");
        assert_eq!(Timestamp::parse_rfc3339("yesterday"), None);
    }
}
