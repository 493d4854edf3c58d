//! Exact limiters as APIs have them: each lets a call in or refuses it, and a refused call counts for nothing.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use lanes::clock::Timestamp;

/// How calls are counted.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// Every call is remembered: at most so many in any time of that length.
    SlidingLog,
    /// The generic cell rate algorithm: an even pace, and so many at once after a rest.
    Gcra { burst: u32 },
    /// A count that begins anew at the full multiples of the time.
    FixedWindow,
}

/// Whose calls are counted together.
#[derive(Clone, Copy, PartialEq)]
pub enum Scope {
    All,
    Tenant,
}

/// What a limiter would tell in headers.
#[derive(Clone, Copy)]
pub struct Standing {
    pub limit: u32,
    pub per: Duration,
    pub remaining: u32,
    pub reset_in: Duration,
}

/// One limit of the API.
pub struct Limiter {
    kind: Kind,
    scope: Scope,
    requests: u32,
    per: Duration,
    counts: HashMap<String, Count>,
    /// Calls that this limiter refused.
    pub refused: usize,
}

struct Count {
    log: VecDeque<Timestamp>,
    /// Theoretical arrival time.
    due: Timestamp,
    window: i64,
    used: u32,
}

impl Default for Count {
    fn default() -> Self {
        Self { log: VecDeque::new(), due: Timestamp::EPOCH, window: 0, used: 0 }
    }
}

impl Limiter {
    pub fn new(kind: Kind, scope: Scope, requests: u32, per: Duration) -> Self {
        Self { kind, scope, requests, per, counts: HashMap::new(), refused: 0 }
    }

    /// A limit that changes in mid-run.
    pub fn set_requests(&mut self, requests: u32) {
        self.requests = requests;
    }

    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::SlidingLog => "sliding log",
            Kind::Gcra { .. } => "GCRA",
            Kind::FixedWindow => "fixed window",
        }
    }

    /// Whether a call fits now, and where not, when it would.
    pub fn wait(&mut self, tenant: &str, now: Timestamp) -> Option<Duration> {
        let (kind, requests, per, interval) = (self.kind, self.requests as usize, self.per, self.interval());
        let count = self.count(tenant, now);
        let wait = match kind {
            Kind::SlidingLog => {
                let over = (count.log.len() + 1).checked_sub(requests).filter(|over| *over > 0)?;
                count.log[over - 1].plus(per).since(now)
            }
            Kind::Gcra { burst } => count.due.minus(interval * (burst - 1)).since(now),
            Kind::FixedWindow if (count.used as usize) < requests => Duration::ZERO,
            Kind::FixedWindow => window_start(count.window + 1, per).since(now),
        };
        (!wait.is_zero()).then_some(wait)
    }

    /// Counts a call that was let in.
    pub fn take(&mut self, tenant: &str, now: Timestamp) {
        let interval = self.interval();
        let count = self.count(tenant, now);
        count.log.push_back(now);
        count.due = count.due.max(now).plus(interval);
        count.used += 1;
    }

    pub fn standing(&mut self, tenant: &str, now: Timestamp) -> Standing {
        let (kind, limit, per, interval) = (self.kind, self.requests, self.per, self.interval());
        let count = self.count(tenant, now);
        let (used, reset_in) = match kind {
            Kind::SlidingLog => (
                u32::try_from(count.log.len()).unwrap_or(u32::MAX),
                count.log.front().map_or(Duration::ZERO, |first| first.plus(per).since(now)),
            ),
            Kind::Gcra { burst } => {
                let ahead = count.due.since(now);
                let used = u32::try_from(ahead.as_micros().div_ceil(interval.as_micros())).unwrap_or(u32::MAX);
                (limit.saturating_sub(burst) + used, ahead)
            }
            Kind::FixedWindow => (count.used, window_start(count.window + 1, per).since(now)),
        };
        Standing { limit, per, remaining: limit.saturating_sub(used), reset_in }
    }

    fn interval(&self) -> Duration {
        self.per / self.requests
    }

    /// What is counted for a tenant, without what is over.
    fn count(&mut self, tenant: &str, now: Timestamp) -> &mut Count {
        let key = if self.scope == Scope::Tenant { tenant } else { "" };
        let count = self.counts.entry(key.to_owned()).or_default();
        while count.log.front().is_some_and(|first| now.since(*first) >= self.per) {
            count.log.pop_front();
        }
        let window = now.as_micros() / micros(self.per);
        if count.window != window {
            (count.window, count.used) = (window, 0);
        }
        count
    }
}

fn window_start(window: i64, per: Duration) -> Timestamp {
    Timestamp::from_micros(window * micros(per))
}

fn micros(per: Duration) -> i64 {
    i64::try_from(per.as_micros()).expect("a short time")
}
