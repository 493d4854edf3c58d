//! Series as cached handles, found by lane and endpoint without an allocation, and bounded in number.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use ::metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, Unit};

use super::by_sink::SinkSeries;
use super::by_tenant::BudgetSeries;
use super::metrics::{self as table, Kind, Metric};
use crate::job::event::RateSeen;
use crate::job::verdict::{Class, DeadReason, WaitReason};
use crate::job::{EndpointName, LaneName, Tenant};

/// Most lanes with series of their own; the rest share `other`.
pub const LANE_LABELS_MAX: usize = 100;
/// Most endpoints per lane with series of their own; the rest share `other`.
pub const ENDPOINT_LABELS_MAX: usize = 200;
/// Most tenants with series of their own, for the life of the process: the first that meet a rate limit, and apart from
/// them the first whose answers tell a budget.
pub const TENANT_LABELS_MAX: usize = 50;
/// Most publish sources.
const SOURCE_LABELS_MAX: usize = 20;
/// Who publishes: the closed set of the label `source`.
pub const PUBLISH_SOURCES: [&str; 3] = ["cli", "library", "operation"];
/// States of a circuit: the closed set of the label `state` of `lanes_circuit_state`.
const CIRCUIT_STATES: [&str; 3] = ["closed", "open", "half_open"];
/// The label value of everything beyond a bound.
pub const OTHER: &str = "other";

const METADATA: Metadata<'static> = Metadata::new("lanes", Level::INFO, Some("lanes"));

/// How a job ended, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// It worked.
    Succeeded,
    /// All allowed attempts failed.
    Exhausted,
    /// It will never work, or must not be tried again.
    Failed,
    /// An operator ended it.
    Cancelled,
    /// Its time to live passed.
    Expired,
}

impl Finished {
    const ALL: [&'static str; 5] = ["succeeded", "exhausted", "failed", "cancelled", "expired"];

    /// The outcome of a job that died of `reason`.
    pub fn of(reason: DeadReason) -> Self {
        match reason {
            DeadReason::Exhausted => Self::Exhausted,
            DeadReason::Expired => Self::Expired,
            DeadReason::Failed
            | DeadReason::Poison
            | DeadReason::Ambiguous
            | DeadReason::Superseded
            | DeadReason::Undecodable
            | DeadReason::UnknownEndpoint
            | DeadReason::TooLarge
            | DeadReason::DuplicateIdDifferentPayload
            | DeadReason::BrokerDeadLettered => Self::Failed,
        }
    }
}

/// Makes handles of the table's metrics.
pub(super) struct Maker(Box<dyn Recorder + Send + Sync>);

impl Maker {
    pub fn new(recorder: impl Recorder + Send + Sync + 'static) -> Self {
        for metric in table::ALL {
            let unit = metric.name.ends_with("_seconds").then_some(Unit::Seconds);
            let name = KeyName::from_const_str(metric.name);
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, unit, metric.help.into()),
                Kind::Gauge => recorder.describe_gauge(name, unit, metric.help.into()),
                Kind::Histogram(_) => recorder.describe_histogram(name, unit, metric.help.into()),
            }
        }
        Self(Box::new(recorder))
    }

    pub fn counter(&self, metric: &Metric, values: &[&str]) -> Counter {
        self.0.register_counter(&key(metric, values), &METADATA)
    }

    pub fn gauge(&self, metric: &Metric, values: &[&str]) -> Gauge {
        self.0.register_gauge(&key(metric, values), &METADATA)
    }

    pub fn histogram(&self, metric: &Metric, values: &[&str]) -> Histogram {
        self.0.register_histogram(&key(metric, values), &METADATA)
    }

    fn counters<'a>(&self, metric: &Metric, values: &[&str], last: impl IntoIterator<Item = &'a str>) -> Vec<Counter> {
        last.into_iter().map(|last| self.counter(metric, &[values, &[last]].concat())).collect()
    }
}

fn key(metric: &Metric, values: &[&str]) -> Key {
    debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
    let labels: Vec<_> =
        metric.labels.iter().zip(values).map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(metric.name, labels)
}

/// A map that hands out what it has and makes what it lacks, up to a bound.
pub(super) struct Cache<K, V> {
    entries: RwLock<HashMap<K, V>>,
    max: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    pub fn new(max: usize) -> Self {
        Self { entries: RwLock::default(), max }
    }

    /// `None` when the bound is reached and `key` is not among those inside.
    pub fn get(&self, key: &K, make: impl FnOnce() -> V) -> Option<V> {
        if let Some(found) = self.entries.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Some(found.clone());
        }
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = entries.get(key) {
            return Some(found.clone());
        }
        if entries.len() >= self.max {
            return None;
        }
        let value = make();
        entries.insert(key.clone(), value.clone());
        Some(value)
    }

    /// Everything that was made.
    pub fn all(&self) -> Vec<V> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// The series of one lane. Everything an alert compares exists, at 0, from the start.
pub(super) struct LaneSeries {
    name: String,
    pub published: Cache<&'static str, Counter>,
    pub deduplicated: Counter,
    pub stale: Counter,
    pub taken_over: Counter,
    pub purged_by_cap: Counter,
    pub without_id: Counter,
    pub derived_identity: Counter,
    pub non_durable: Counter,
    pub wait: Histogram,
    pub duration: Histogram,
    pub inflight: Gauge,
    pub concurrency_limit: Gauge,
    pub paused: Gauge,
    pub dead: Gauge,
    pub oldest: Gauge,
    pub states: [Gauge; 5],
    finished: Vec<Counter>,
    waiting: Vec<Counter>,
    refused: Vec<Counter>,
    routes: Cache<EndpointName, Arc<RouteSeries>>,
    other_route: OnceLock<Arc<RouteSeries>>,
}

impl LaneSeries {
    fn new(maker: &Maker, name: &str) -> Self {
        let lane = &[name][..];
        Self {
            published: Cache::new(SOURCE_LABELS_MAX),
            deduplicated: maker.counter(&table::JOBS_DEDUPLICATED, lane),
            stale: maker.counter(&table::JOBS_STALE, lane),
            taken_over: maker.counter(&table::JOBS_TAKEN_OVER, lane),
            purged_by_cap: maker.counter(&table::JOBS_PURGED_BY_CAP, lane),
            without_id: maker.counter(&table::JOBS_WITHOUT_ID, lane),
            derived_identity: maker.counter(&table::DERIVED_IDENTITY, lane),
            non_durable: maker.counter(&table::NON_DURABLE_MESSAGES, lane),
            wait: maker.histogram(&table::JOB_WAIT, lane),
            duration: maker.histogram(&table::JOB_DURATION, lane),
            inflight: maker.gauge(&table::LANE_INFLIGHT, lane),
            concurrency_limit: maker.gauge(&table::LANE_CONCURRENCY_LIMIT, lane),
            paused: maker.gauge(&table::LANE_PAUSED, lane),
            dead: maker.gauge(&table::DEAD_JOBS, lane),
            oldest: maker.gauge(&table::QUEUE_OLDEST, lane),
            states: super::QUEUE_STATES.map(|state| maker.gauge(&table::QUEUE_JOBS, &[name, state])),
            finished: maker.counters(&table::JOBS_FINISHED, lane, Finished::ALL),
            waiting: maker.counters(&table::JOBS_WAITING, lane, WaitReason::ALL.iter().map(|reason| reason.as_str())),
            refused: maker.counters(
                &table::MESSAGES_REFUSED,
                lane,
                DeadReason::ALL.iter().map(|reason| reason.as_str()),
            ),
            routes: Cache::new(ENDPOINT_LABELS_MAX),
            other_route: OnceLock::new(),
            name: name.to_owned(),
        }
    }

    pub fn finished(&self, outcome: Finished) -> &Counter {
        &self.finished[outcome as usize]
    }

    pub fn waiting(&self, reason: WaitReason) -> &Counter {
        &self.waiting[reason as usize]
    }

    pub fn refused(&self, reason: DeadReason) -> &Counter {
        &self.refused[reason as usize]
    }
}

/// The series of one endpoint in one lane.
pub(super) struct RouteSeries {
    endpoint: String,
    pub attempt_duration: Histogram,
    pub backoff: Histogram,
    pub throttle_wait: Histogram,
    pub retried_succeeded: Counter,
    pub retried_exhausted: Counter,
    attempts: Vec<Counter>,
    retries: Vec<Counter>,
    hits: Cache<Tenant, Counter>,
    other_hits: Counter,
    codes: Cache<u16, Counter>,
    remaining: BudgetSeries,
    limit: BudgetSeries,
    pacing: BudgetSeries,
}

/// Reasons for which a call leads to another one.
const RETRY_REASONS: [WaitReason; 2] = [WaitReason::RateLimited, WaitReason::Transient];

impl RouteSeries {
    fn new(maker: &Maker, lane: &str, endpoint: &str) -> Self {
        let route = &[lane, endpoint][..];
        Self {
            endpoint: endpoint.to_owned(),
            attempt_duration: maker.histogram(&table::ATTEMPT_DURATION, route),
            backoff: maker.histogram(&table::RETRY_BACKOFF, route),
            throttle_wait: maker.histogram(&table::THROTTLE_WAIT, route),
            retried_succeeded: maker.counter(&table::RETRIED_JOBS, &[lane, endpoint, "succeeded"]),
            retried_exhausted: maker.counter(&table::RETRIED_JOBS, &[lane, endpoint, "exhausted"]),
            attempts: maker.counters(&table::ATTEMPTS, route, Class::ALL.map(Class::as_str)),
            retries: maker.counters(&table::RETRIES_SCHEDULED, route, RETRY_REASONS.map(WaitReason::as_str)),
            hits: Cache::new(TENANT_LABELS_MAX),
            other_hits: maker.counter(&table::RATE_LIMIT_HITS, &[lane, endpoint, OTHER]),
            codes: Cache::new(usize::from(STATUS_MAX)),
            remaining: BudgetSeries::new(&table::RATE_LIMIT_REMAINING),
            limit: BudgetSeries::new(&table::RATE_LIMIT_LIMIT),
            pacing: BudgetSeries::new(&table::PACING),
        }
    }

    pub fn attempts(&self, class: Class) -> &Counter {
        &self.attempts[class as usize]
    }

    /// Every other reason cannot follow a call; it would be counted as transient.
    pub fn retries(&self, reason: WaitReason) -> &Counter {
        &self.retries[usize::from(reason != WaitReason::RateLimited)]
    }
}

/// The largest status with a series of its own.
const STATUS_MAX: u16 = 599;

/// All series.
pub(super) struct Series {
    pub maker: Maker,
    lanes: Cache<LaneName, Arc<LaneSeries>>,
    other_lane: OnceLock<Arc<LaneSeries>>,
    tenants: Cache<Tenant, ()>,
    /// Apart from `tenants`, so that answers that only tell a budget take no place from those that hit a limit.
    budget_tenants: Cache<Tenant, ()>,
    pub operations: Cache<&'static str, Histogram>,
    pub store_errors: Counter,
    pub broker_connected: Gauge,
    circuits: Cache<EndpointName, Arc<[Gauge; 3]>>,
    pub sinks: SinkSeries,
    pub config_reloaded: Gauge,
    pub workers_alive: Gauge,
    pub workers_stale: Gauge,
    dropped_labels: Counter,
}

impl Series {
    pub fn new(maker: Maker) -> Self {
        maker.gauge(&table::BUILD_INFO, &[env!("CARGO_PKG_VERSION")]).set(1);
        let config_reloaded = maker.gauge(&table::CONFIG_LAST_RELOAD_SUCCESSFUL, &[]);
        config_reloaded.set(1); // what the process started with was read
        Self {
            lanes: Cache::new(LANE_LABELS_MAX),
            other_lane: OnceLock::new(),
            tenants: Cache::new(TENANT_LABELS_MAX),
            budget_tenants: Cache::new(TENANT_LABELS_MAX),
            operations: Cache::new(LANE_LABELS_MAX),
            store_errors: maker.counter(&table::STORE_ERRORS, &[]),
            broker_connected: maker.gauge(&table::BROKER_CONNECTED, &[]),
            circuits: Cache::new(ENDPOINT_LABELS_MAX),
            sinks: SinkSeries::default(),
            config_reloaded,
            workers_alive: maker.gauge(&table::WORKERS, &["alive"]),
            workers_stale: maker.gauge(&table::WORKERS, &["stale"]),
            dropped_labels: maker.counter(&table::METRICS_DROPPED_LABELS, &[]),
            maker,
        }
    }

    pub fn lane(&self, name: &LaneName) -> Arc<LaneSeries> {
        self.lanes.get(name, || Arc::new(LaneSeries::new(&self.maker, name.as_str()))).unwrap_or_else(|| {
            self.dropped_labels.increment(1);
            self.other_lane.get_or_init(|| Arc::new(LaneSeries::new(&self.maker, OTHER))).clone()
        })
    }

    pub fn route(&self, lane: &LaneSeries, endpoint: &EndpointName) -> Arc<RouteSeries> {
        let make = || Arc::new(RouteSeries::new(&self.maker, &lane.name, endpoint.as_str()));
        lane.routes.get(endpoint, make).unwrap_or_else(|| {
            self.dropped_labels.increment(1);
            lane.other_route.get_or_init(|| Arc::new(RouteSeries::new(&self.maker, &lane.name, OTHER))).clone()
        })
    }

    /// Counts `jobs` publishes; 0 makes the series exist.
    pub fn published(&self, lane: &LaneSeries, source: &'static str, jobs: u64) {
        let make = || self.maker.counter(&table::JOBS_PUBLISHED, &[&lane.name, source]);
        match lane.published.get(&source, make) {
            Some(counter) => counter.increment(jobs),
            None => self.dropped_labels.increment(1),
        }
    }

    pub fn rate_limited(&self, lane: &LaneSeries, route: &RouteSeries, tenant: &Tenant) {
        let named = self.tenants.get(tenant, || ()).and_then(|()| {
            let values = [lane.name.as_str(), route.endpoint.as_str(), tenant.as_str()];
            route.hits.get(tenant, || self.maker.counter(&table::RATE_LIMIT_HITS, &values))
        });
        named
            .unwrap_or_else(|| {
                self.dropped_labels.increment(1);
                route.other_hits.clone()
            })
            .increment(1);
    }

    pub fn budget(&self, route: &RouteSeries, tenant: &Tenant, seen: &RateSeen) {
        let named = self.budget_tenants.get(tenant, || ()).map(|()| tenant);
        if named.is_none() {
            self.dropped_labels.increment(1);
        }
        for (series, value) in [(&route.remaining, seen.remaining), (&route.limit, seen.limit)] {
            if let Some(value) = value {
                series.set(&self.maker, &route.endpoint, named, value);
            }
        }
    }

    pub fn pacing(&self, route: &RouteSeries, tenant: &Tenant, pace: f64) {
        let named = self.budget_tenants.get(tenant, || ()).map(|()| tenant);
        if named.is_none() {
            self.dropped_labels.increment(1);
        }
        route.pacing.set(&self.maker, &route.endpoint, named, pace);
    }

    pub fn circuit(&self, endpoint: &EndpointName, word: &str) {
        let make = || {
            let gauge = |state| self.maker.gauge(&table::CIRCUIT_STATE, &[endpoint.as_str(), state]);
            Arc::new(CIRCUIT_STATES.map(gauge))
        };
        match self.circuits.get(endpoint, make) {
            Some(gauges) => {
                for (state, gauge) in CIRCUIT_STATES.iter().zip(&*gauges) {
                    gauge.set(f64::from(*state == word));
                }
            }
            None => self.dropped_labels.increment(1),
        }
    }

    pub fn response(&self, route: &RouteSeries, status: u16) {
        let code = status.min(STATUS_MAX + 1);
        let make = || {
            let text = if code > STATUS_MAX { OTHER.to_owned() } else { code.to_string() };
            self.maker.counter(&table::UPSTREAM_RESPONSES, &[&route.endpoint, &text])
        };
        if let Some(counter) = route.codes.get(&code, make) {
            counter.increment(1);
        }
    }
}
