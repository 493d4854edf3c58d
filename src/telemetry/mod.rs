//! The single fan-out: everything that happens becomes metrics and log lines here and nowhere else.

pub mod health;
mod by_sink;
mod by_tenant;
mod lines;
pub mod logs;
pub mod metrics;
#[cfg(feature = "otlp")]
pub mod otlp;
mod rollup;
mod series;
mod settled;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::metrics::Recorder;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

pub use self::by_sink::Notified;
use self::metrics::Kind;
use self::rollup::Rollup;
pub use self::series::{ENDPOINT_LABELS_MAX, LANE_LABELS_MAX, OTHER, PUBLISH_SOURCES, TENANT_LABELS_MAX};
use self::series::{Finished, LaneSeries, Maker, RouteSeries, Series};
pub use self::settled::Settled;
use self::settled::{Tally, Verdict};
use crate::clock::Timestamp;
use crate::job::event::{AttemptEvent, AttemptNext, Event, RateSeen, Weakness};
use crate::job::history;
use crate::job::verdict::{Class, DeadReason};
use crate::job::{EndpointName, Job, LaneName, Tenant};

/// States of `lanes_queue_jobs`, in the order of [`QueueReading`].
const QUEUE_STATES: [&str; 5] = ["ready", "running", "waiting", "held", "queued"];
/// How often [`PrometheusHandle::run_upkeep`] has to be called, or samples pile up until the next scrape.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Where everything is told. Cheap to clone; never asked.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

struct Inner {
    series: Series,
    rollup: Rollup,
    tally: Tally,
    spans: OnceLock<Box<dyn Spans>>,
}

/// Where calls go as spans of their traces.
pub trait Spans: Send + Sync {
    /// Takes a call that has ended; never waits.
    fn record(&self, call: &AttemptEvent);
}

/// The jobs of a lane that are alive, over all workers where nothing else is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueReading {
    /// Fresh messages in the broker that no worker has claimed.
    pub ready: u64,
    /// Claimed by this worker.
    pub running: u64,
    /// Waiting in the store until a time of their own.
    pub waiting: u64,
    /// Waiting in the store for their turn: held back by a budget, a block, a pause, or slots.
    pub held: u64,
    /// Released: due, on their way to a worker.
    pub queued: u64,
    /// Publish time of the oldest of them, where known.
    pub oldest_published_at: Option<Timestamp>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("settled", &self.settled()).finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Telemetry whose metrics go to `recorder`; log lines go to `tracing`.
    pub fn new(recorder: impl Recorder + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            series: Series::new(Maker::new(recorder)),
            rollup: Rollup::default(),
            tally: Tally::default(),
            spans: OnceLock::new(),
        }))
    }

    /// Telemetry that can be scraped: the handle renders `/metrics`; call its `run_upkeep` each [`UPKEEP_INTERVAL`].
    pub fn prometheus() -> (Self, PrometheusHandle) {
        let mut builder = PrometheusBuilder::new();
        for metric in metrics::ALL {
            if let Kind::Histogram(buckets) = metric.kind {
                builder = builder
                    .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
                    .expect("every histogram of the table has buckets");
            }
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        (Self::new(recorder), handle)
    }

    /// Makes the series of these lanes and endpoints exist, at 0, so that alerts see their first increment.
    pub fn prime(&self, lanes: &[LaneName], endpoints: &[EndpointName]) {
        for lane in lanes {
            let lane = self.0.series.lane(lane);
            for source in PUBLISH_SOURCES {
                self.0.series.published(&lane, source, 0);
            }
            for endpoint in endpoints {
                self.0.series.route(&lane, endpoint);
            }
        }
    }

    /// Tells what happened: metrics, and at most one log line.
    pub fn record(&self, event: &Event) {
        let series = &self.0.series;
        lines::write(event);
        self.0.rollup.record(event);
        match event {
            Event::Published { lane, source } => series.published(&series.lane(lane), source, 1),
            Event::Duplicate { lane, .. } => {
                series.lane(lane).deduplicated.increment(1);
                self.count(Verdict::Duplicate);
            }
            Event::Stale { lane } => {
                series.lane(lane).stale.increment(1);
                self.count(Verdict::Stale);
            }
            Event::Waiting { lane, reason } => {
                series.lane(lane).waiting(*reason).increment(1);
                self.count(Verdict::Wait);
            }
            Event::Started { job, waited, held_back } => {
                let lane = series.lane(&job.lane);
                lane.wait.record(*waited);
                if let Some(held_back) = held_back {
                    series.route(&lane, &job.endpoint).throttle_wait.record(*held_back);
                }
            }
            // its gauge shows all accounts of the endpoint: it is set by whoever looks at them
            Event::Circuit { .. } => {}
            Event::Attempt(attempt) => self.attempt(attempt),
            Event::Refused { lane, reason, .. } => {
                series.lane(lane).refused(*reason).increment(1);
                self.count(Verdict::Dead);
            }
            Event::LateResult { job, class, status, .. } => drop(self.called(job, *class, *status)),
            Event::Died { lane, endpoint, reason, .. } => {
                let lane = series.lane(lane);
                lane.finished(Finished::of(*reason)).increment(1);
                // found before a call: the calls that used its attempts up ended with their workers
                if *reason == DeadReason::Exhausted {
                    series.route(&lane, endpoint).retried_exhausted.increment(1);
                }
                self.count(Verdict::Dead);
            }
            Event::Cancelled { lane } => {
                series.lane(lane).finished(Finished::Cancelled).increment(1);
                self.count(Verdict::Cancelled);
            }
            Event::TakenOver { lane, .. } => series.lane(lane).taken_over.increment(1),
            Event::Weak { lane, what } => {
                let lane = series.lane(lane);
                match what {
                    Weakness::NoId => &lane.without_id,
                    Weakness::DerivedIdentity => &lane.derived_identity,
                    Weakness::NonDurable => &lane.non_durable,
                }
                .increment(1);
            }
        }
    }

    /// Counts a call that has ended, whether or not its result still counts for its job.
    fn called(&self, job: &Job, class: Class, status: Option<u16>) -> (Arc<LaneSeries>, Arc<RouteSeries>) {
        let series = &self.0.series;
        let lane = series.lane(&job.lane);
        let route = series.route(&lane, &job.endpoint);
        route.attempts(class).increment(1);
        if let Some(status) = status {
            series.response(&route, status);
        }
        if class == Class::RateLimited {
            series.rate_limited(&lane, &route, &job.tenant);
        }
        (lane, route)
    }

    /// Tells of calls as spans from now on. Only once, before anything is called.
    pub fn trace_to(&self, spans: Box<dyn Spans>) {
        // a second one would split traces: the first stays
        let _second = self.0.spans.set(spans);
    }

    /// Whether calls are told as spans.
    pub fn is_traced(&self) -> bool {
        self.0.spans.get().is_some()
    }

    fn attempt(&self, event: &AttemptEvent) {
        if let Some(spans) = self.0.spans.get() {
            spans.record(event);
        }
        let (lane, route) = self.called(&event.job, event.class, event.status);
        route.attempt_duration.record(event.duration);
        if let Some(budget) = tightest(&event.rate_readings) {
            self.0.series.budget(&route, &event.job.tenant, budget);
        }
        let retried = event.attempt > 1;
        match &event.next {
            AttemptNext::Done { job_duration } => {
                lane.finished(Finished::Succeeded).increment(1);
                lane.duration.record(*job_duration);
                if retried {
                    route.retried_succeeded.increment(1);
                }
                self.count(Verdict::Done);
            }
            AttemptNext::Retry { delay, reason, .. } => {
                route.retries(*reason).increment(1);
                route.backoff.record(*delay);
                self.count(Verdict::Retry);
            }
            AttemptNext::Dead { reason, job_duration } => {
                lane.finished(Finished::of(*reason)).increment(1);
                lane.duration.record(*job_duration);
                if retried && *reason == DeadReason::Exhausted {
                    route.retried_exhausted.increment(1);
                }
                self.count(Verdict::Dead);
            }
            AttemptNext::Cancelled => {
                lane.finished(Finished::Cancelled).increment(1);
                self.count(Verdict::Cancelled);
            }
        }
    }

    fn count(&self, verdict: Verdict) {
        self.0.tally.0[verdict as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// What was settled since the start, by verdict.
    pub fn settled(&self) -> Settled {
        let [done, dead, retry, wait, duplicate, stale, cancelled] =
            self.0.tally.0.each_ref().map(|count| count.load(Ordering::Relaxed));
        Settled { done, dead, retry, wait, duplicate, stale, cancelled }
    }

    /// Calls of `lane` in flight in this worker.
    pub fn inflight(&self, lane: &LaneName, jobs: usize) {
        self.0.series.lane(lane).inflight.set(as_f64(jobs));
    }

    /// Most calls of `lane` in flight in this worker.
    pub fn concurrency_limit(&self, lane: &LaneName, jobs: usize) {
        self.0.series.lane(lane).concurrency_limit.set(as_f64(jobs));
    }

    /// The pace, in calls a second, at which `tenant` is let call `endpoint`.
    pub fn pacing(&self, lane: &LaneName, endpoint: &EndpointName, tenant: &Tenant, pace: f64) {
        if pace.is_finite() {
            let series = &self.0.series;
            series.pacing(&series.route(&series.lane(lane), endpoint), tenant, pace);
        }
    }

    /// The state of an endpoint's circuits, as a word.
    pub fn circuit(&self, endpoint: &EndpointName, word: &str) {
        self.0.series.circuit(endpoint, word);
    }

    /// Whether `lane` is paused.
    pub fn paused(&self, lane: &LaneName, paused: bool) {
        self.0.series.lane(lane).paused.set(f64::from(paused));
    }

    /// The jobs of `lane` that are alive, as broker and store count them.
    pub fn queue(&self, lane: &LaneName, reading: QueueReading) {
        let series = self.0.series.lane(lane);
        let QueueReading { ready, running, waiting, held, queued, oldest_published_at } = reading;
        for (gauge, jobs) in series.states.iter().zip([ready, running, waiting, held, queued]) {
            gauge.set(as_f64(jobs));
        }
        series.oldest.set(oldest_published_at.map_or(0.0, Timestamp::as_secs_f64));
    }

    /// Notes a look at `lane`: whether it had jobs that could run, and how old its oldest job is.
    pub fn looked(&self, lane: &LaneName, backlogged: bool, age: Option<Duration>) {
        self.0.rollup.looked(lane, backlogged, age);
    }

    /// What was counted for the history since this was last asked.
    pub fn take_history(&self) -> Vec<(history::Series, history::Count)> {
        self.0.rollup.take()
    }

    /// Counts again what was taken and could not be written.
    pub fn give_back_history(&self, taken: Vec<(history::Series, history::Count)>) {
        self.0.rollup.give_back(taken);
    }

    /// Dead letters of `lane`.
    pub fn dead_jobs(&self, lane: &LaneName, letters: u64) {
        self.0.series.lane(lane).dead.set(as_f64(letters));
    }

    /// Ended rows of `lane` that were forgotten by age although the lane had not moved past them.
    pub fn purged_by_cap(&self, lane: &LaneName, rows: u64) {
        self.0.series.lane(lane).purged_by_cap.increment(rows);
    }

    /// Whether the broker can be used at this moment.
    pub fn broker_connected(&self, connected: bool) {
        self.0.series.broker_connected.set(f64::from(connected));
    }

    /// Workers with and without a recent heartbeat.
    pub fn workers(&self, alive: usize, stale: usize) {
        self.0.series.workers_alive.set(as_f64(alive));
        self.0.series.workers_stale.set(as_f64(stale));
    }

    /// One operation of the store: its name (a closed set), how long it took, whether it worked.
    pub fn store_operation(&self, operation: &'static str, took: Duration, worked: bool) {
        let series = &self.0.series;
        let make = || series.maker.histogram(&metrics::STORE_OPERATION_DURATION, &[operation]);
        if let Some(histogram) = series.operations.get(&operation, make) {
            histogram.record(took);
        }
        if !worked {
            series.store_errors.increment(1);
            self.0.rollup.store_failed();
        }
    }

    /// So many notices of incidents to a sink (its configured name), by what came of them; 0 makes the series exist.
    pub fn notified(&self, sink: &str, outcome: Notified, notices: u64) {
        let series = &self.0.series;
        series.sinks.notified(&series.maker, sink, outcome, notices);
    }

    /// Whether the running configuration is the last one written.
    pub fn config_reloaded(&self, successful: bool) {
        self.0.series.config_reloaded.set(f64::from(successful));
    }
}

/// The budget that will run out first: the smallest share left, as far as the answer tells what is left.
fn tightest(readings: &[RateSeen]) -> Option<&RateSeen> {
    let share = |seen: &RateSeen| {
        let remaining = seen.remaining?;
        Some(remaining / seen.limit.unwrap_or(remaining).max(1.0))
    };
    let told = readings.iter().filter_map(|seen| Some((seen, share(seen)?)));
    told.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(seen, _)| seen).or_else(|| readings.first())
}

/// A count as a gauge's value; exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "no count comes near 2^53")]
fn as_f64(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}
