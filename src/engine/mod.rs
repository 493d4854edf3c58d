//! The read flow: the only room that drives. Deliveries come in on the left, every one is settled on the right.
//!
//! Reading order: `settings`, `intake` (deliveries in), `lane` (the state machine of one lane), `claim`, `call`,
//! `hand` and `paced` (copies and jobs that wait for a moment), `slots`, `backlog`,
//! `settle` (the only ack), `pausing` and `concurrency` (what operators say), `releaser` (due rows), `turns` (rows that wait for a budget), `upkeep` (liveness, sweeps, retention), `operations` (work on many), `worker` (all of it together).

pub mod settings;
mod intake;
pub use intake::queues;
mod lane;
mod hand;
mod paced;
mod backlog;
mod slots;
mod times;
mod claim;
mod call;
mod settle;
mod pausing;
mod concurrency;
mod releaser;
mod turns;
mod upkeep;
mod lessons;
mod graveyard;
mod history;
mod monitor;
pub mod operations;
pub mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;

use crate::broker::{Broker, Receipt};
use crate::clock::{self, SharedClock, Timestamp};
use crate::dispatch::Dispatch;
use crate::governor::Governor;
use crate::job::{DedupKey, EndpointName, Job};
use crate::store::{Granted, Store, StoreError, WorkerId};
use crate::telemetry::Telemetry;
use crate::telemetry::health::Health;
use backlog::Backlog;
use settings::{EndpointSettings, LaneSettings};
use times::CallTimes;

/// First wait after the store or the broker failed; doubles up to [`FAILURE_WAIT_MAX`].
const FAILURE_WAIT_MIN: Duration = Duration::from_millis(100);
/// Longest wait between two tries at a store or broker that fails.
const FAILURE_WAIT_MAX: Duration = Duration::from_secs(5);

/// What the parts of one lane share. Nothing in it is shared with another lane but handles that never block.
#[derive(Debug)]
struct LaneContext {
    settings: LaneSettings,
    endpoints: Arc<HashMap<EndpointName, EndpointSettings>>,
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    dispatch: Arc<dyn Dispatch>,
    telemetry: Telemetry,
    clock: SharedClock,
    liveness: Arc<Liveness>,
    health: Health,
    parked: Parked,
    governor: Arc<Governor>,
    times: CallTimes,
    backlog: Backlog,
    in_turn: Parked,
    progress: Progress,
}

/// A copy of a job that the broker delivered, with the receipt that settles it.
#[derive(Debug)]
struct InHand {
    receipt: Receipt,
    copy: Copy,
}

impl InHand {
    fn body_bytes(&self) -> usize {
        match &self.copy {
            Copy::Fresh { job, .. } => job.body.len(),
            Copy::WakeUp { .. } => 0,
        }
    }
}

/// What was delivered.
#[derive(Debug, Clone)]
enum Copy {
    /// A message as published; `timed`: its publish time is its publisher's, not ours.
    Fresh { job: Arc<Job>, redelivered: bool, timed: bool },
    /// A hint that the job was released.
    WakeUp { key: DedupKey, instance: Uuid },
}

/// A job whose claim was granted: nobody else calls it until it is settled with `token`.
#[derive(Debug)]
struct Owned {
    in_hand: InHand,
    job: Arc<Job>,
    key: DedupKey,
    token: Uuid,
    /// Who claimed it: after this worker was declared dead and registered anew, it is somebody else's.
    worker: WorkerId,
    granted: Granted,
    /// Its call shows whether a circuit can be closed.
    is_probe: bool,
}

/// Who this worker is in the store, and when the store last heard of it.
#[derive(Debug)]
pub(crate) struct Liveness {
    worker: AtomicI64,
    /// Asked-at time of the last heartbeat that was answered.
    heard_at: AtomicI64,
    /// Since when every heartbeat was answered in time.
    steady_since: AtomicI64,
    lease: Duration,
}

/// Heartbeats per lease.
const BEATS_PER_LEASE: u32 = 3;

impl Liveness {
    fn new(worker: WorkerId, now: Timestamp, lease: Duration) -> Self {
        let now = now.as_micros();
        let (heard_at, steady_since) = (AtomicI64::new(now), AtomicI64::new(now));
        Self { worker: AtomicI64::new(worker.0), heard_at, steady_since, lease }
    }

    /// Time between two heartbeats, and the longest wait before a failed one is sent again.
    fn beat_every(&self) -> Duration {
        self.lease / BEATS_PER_LEASE
    }

    fn worker(&self) -> WorkerId {
        WorkerId(self.worker.load(Ordering::Acquire))
    }

    fn heard(&self, worker: WorkerId, asked_at: Timestamp) {
        self.worker.store(worker.0, Ordering::Release);
        let before = self.heard_at.swap(asked_at.as_micros(), Ordering::AcqRel);
        if asked_at.since(Timestamp::from_micros(before)) > 2 * self.beat_every() {
            self.steady_since.store(asked_at.as_micros(), Ordering::Release);
        }
    }

    /// Whether the silence of others can be their death. After an outage of the store everybody was silent, and a
    /// heartbeat that hangs is given up late: whoever lives is heard again within a lease, so nobody is buried before.
    fn may_bury(&self, now: Timestamp) -> bool {
        let steady_since = Timestamp::from_micros(self.steady_since.load(Ordering::Acquire));
        self.may_call(now) && now.since(steady_since) >= self.lease
    }

    /// False once our lease may be over: others may run our jobs, so no new call may begin.
    fn may_call(&self, now: Timestamp) -> bool {
        now.since(Timestamp::from_micros(self.heard_at.load(Ordering::Acquire))) < self.lease
    }
}

/// Tells whoever brings jobs of a lane back that one was parked.
#[derive(Debug, Default)]
struct Parked {
    notify: Notify,
}

impl Parked {
    fn tell(&self) {
        self.notify.notify_one();
    }

    async fn told(&self) {
        self.notify.notified().await;
    }
}

/// How far a lane has consumed, for the watermark of retention (ARCHITECTURE.md, "Forgetting").
#[derive(Debug, Default)]
struct Progress {
    /// The highest publish time claimed.
    claimed: AtomicI64,
    /// When the last delivery came, or the session began; 0 while there is no session.
    heard_at: AtomicI64,
    /// Jobs that this worker has claimed and not yet settled.
    owned: AtomicUsize,
    /// Copies are in hand that are not settled yet.
    busy: AtomicBool,
}

/// A lane that has a session, nothing in hand, and was given nothing for so long has consumed everything.
const IDLE_AFTER: Duration = Duration::from_mins(1);

impl Progress {
    fn claimed(&self, published_at: Timestamp) {
        self.claimed.fetch_max(published_at.as_micros(), Ordering::Relaxed);
    }

    fn heard(&self, now: Timestamp) {
        self.heard_at.store(now.as_micros(), Ordering::Relaxed);
    }

    fn holds(&self, owned: usize, busy: bool) {
        self.owned.store(owned, Ordering::Relaxed);
        self.busy.store(busy, Ordering::Relaxed);
    }

    fn session_over(&self) {
        self.heard_at.store(0, Ordering::Relaxed);
    }

    /// The mark to record for this minute; `None` while nothing is known or the lane is not consuming.
    fn mark(&self, now: Timestamp, slack: Duration) -> Option<Timestamp> {
        let heard_at = self.heard_at.load(Ordering::Relaxed);
        if heard_at == 0 {
            return None;
        }
        let idle = !self.busy.load(Ordering::Relaxed);
        if idle && now.since(Timestamp::from_micros(heard_at)) >= IDLE_AFTER {
            return Some(now.minus(slack));
        }
        let claimed = self.claimed.load(Ordering::Relaxed);
        (claimed > 0).then(|| Timestamp::from_micros(claimed))
    }
}

/// Waits that grow while something keeps failing. The wait is spread by a hash so that workers do not return in step.
#[derive(Debug)]
struct FailureWait {
    next: Duration,
}

impl FailureWait {
    const fn new() -> Self {
        Self { next: FAILURE_WAIT_MIN }
    }

    async fn wait(&mut self, clock: &dyn clock::Clock) {
        self.wait_at_most(clock, FAILURE_WAIT_MAX).await;
    }

    async fn wait_at_most(&mut self, clock: &dyn clock::Clock, most: Duration) {
        let spread = u32::from(Uuid::new_v4().as_bytes()[0]) % 64;
        clock::sleep(clock, (self.next + self.next * spread / 256).min(most)).await;
        self.next = (self.next * 2).min(FAILURE_WAIT_MAX);
    }
}

/// Repeats a store operation that nothing can be wrong with until it is answered.
async fn until_answered<T, F>(ctx: &LaneContext, operation: &'static str, mut send: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut wait = FailureWait::new();
    loop {
        match until_decided(ctx, operation, &mut send).await {
            Ok(answer) => return answer,
            Err(why) => {
                tracing::error!(lane = %ctx.settings.name, operation, why, "the store rejects it, trying again");
                wait.wait(&*ctx.clock).await;
            }
        }
    }
}

/// Repeats a store operation until the store takes it, or rejects an entry of it (`Err` says why). Sending it again
/// unchanged is safe by the store's contract.
async fn until_decided<T, F>(
    ctx: &LaneContext,
    operation: &'static str,
    mut send: impl FnMut() -> F,
) -> Result<T, String>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut wait = FailureWait::new();
    loop {
        let asked_at = ctx.clock.now();
        let answer = send().await;
        ctx.telemetry.store_operation(operation, ctx.clock.now().since(asked_at), answer.is_ok());
        match answer {
            Ok(answer) => return Ok(answer),
            Err(StoreError::Rejected { why, .. }) => return Err(why),
            Err(error) => {
                tracing::warn!(lane = %ctx.settings.name, operation, %error, "the store failed, trying again");
                wait.wait(&*ctx.clock).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    #[test]
    fn only_the_steady_bury() {
        let worker = WorkerId(1);
        let liveness = Liveness::new(worker, at(0), Duration::from_secs(15));
        let heard = |seconds| liveness.heard(worker, at(seconds));
        let steady = |seconds| liveness.may_bury(at(seconds));
        heard(5);
        heard(10);
        assert!(!steady(14), "it has just begun: who was silent before may be back in a moment");
        assert!(steady(15));
        heard(20);
        assert!(steady(20), "one heartbeat that failed is no outage");
        assert!(steady(34));
        assert!(!steady(35), "its lease is over: it may be the dead one");
        heard(35);
        assert!(!steady(35) && !steady(44), "after an outage everybody was silent");
        heard(40);
        heard(45);
        assert!(!steady(49) && steady(50));
    }

    #[test]
    fn only_a_lane_that_consumes_has_a_mark() {
        let (progress, slack) = (Progress::default(), Duration::from_mins(2));
        let mark = |seconds| progress.mark(at(seconds), slack);
        assert_eq!(mark(1_000), None, "no session yet");
        progress.heard(at(1_000));
        assert_eq!(mark(1_059), None, "nothing claimed yet, and not idle for a minute");
        assert_eq!(mark(1_060), Some(at(940)), "idle: everything is consumed, but for what is on its way");
        progress.claimed(at(500));
        progress.claimed(at(400));
        progress.holds(1, true);
        assert_eq!(mark(9_000), Some(at(500)), "with work in hand only what was claimed is known");
        progress.holds(0, false);
        progress.session_over();
        assert_eq!(mark(9_000), None, "cut off from the broker is not idle");
    }
}
