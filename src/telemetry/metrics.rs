//! Every metric that lanes emits: name, kind, labels, buckets and help text, in one table.

/// Delays between two calls of a job: seconds to an hour.
const BACKOFF: &[f64] = &[1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1800.0, 3600.0];
/// From publish to the first call.
const WAIT: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];
/// From publish to the end, retries included.
const LIFE: &[f64] =
    &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 7200.0, 14400.0];
/// One call.
const CALL: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// One operation of the store.
const STORE: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// What a metric does over time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in these buckets (upper bounds).
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name, unit included.
    pub name: &'static str,
    /// What it does over time.
    pub kind: Kind,
    /// Its label names, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($id:ident = $kind:expr, $name:literal, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Metric = Metric { name: $name, kind: $kind, labels: &[$($label),*], help: $help };
        )*
        /// The whole table.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

use Kind::{Counter, Gauge, Histogram};

metrics! {
    JOBS_PUBLISHED = Counter, "lanes_jobs_published_total", ["lane", "source"],
        "Publishes confirmed by the broker.";
    JOBS_DEDUPLICATED = Counter, "lanes_jobs_deduplicated_total", ["lane"],
        "Copies dropped because their job is alive or done within the window.";
    JOBS_STALE = Counter, "lanes_jobs_stale_total", ["lane"],
        "Copies dropped because the job's own row already says everything.";
    JOBS_WAITING = Counter, "lanes_jobs_waiting_total", ["lane", "reason"],
        "Jobs parked before a call, by reason.";
    JOBS_FINISHED = Counter, "lanes_jobs_finished_total", ["lane", "outcome"],
        "Jobs that ended, by outcome.";
    JOBS_TAKEN_OVER = Counter, "lanes_jobs_taken_over_total", ["lane"],
        "Jobs of dead workers given back to their lane.";
    JOBS_PURGED_BY_CAP = Counter, "lanes_jobs_purged_by_cap_total", ["lane"],
        "Ended rows forgotten by age although the lane had not moved past them.";
    JOBS_WITHOUT_ID = Counter, "lanes_jobs_without_id_total", ["lane"],
        "Messages without an id, which cannot be deduplicated.";
    DERIVED_IDENTITY = Counter, "lanes_derived_identity_total", ["lane"],
        "Messages without an instance, whose identity was derived from their content.";
    NON_DURABLE_MESSAGES = Counter, "lanes_non_durable_messages_total", ["lane"],
        "Messages published so that the broker may lose them.";
    MESSAGES_REFUSED = Counter, "lanes_messages_refused_total", ["lane", "reason"],
        "Messages that became dead letters before they were jobs.";
    JOB_WAIT = Histogram(WAIT), "lanes_job_wait_seconds", ["lane"],
        "Time from publish, or from when a job became due, to its call.";
    THROTTLE_WAIT = Histogram(WAIT), "lanes_throttle_wait_seconds", ["lane", "endpoint"],
        "Time that budgets, blocks and slots held a job back before its call; only where there are some for it.";
    JOB_DURATION = Histogram(LIFE), "lanes_job_duration_seconds", ["lane"],
        "Time from publish to the job's end, retries included.";
    ATTEMPTS = Counter, "lanes_attempts_total", ["lane", "endpoint", "result"],
        "Calls, by what their answer meant.";
    ATTEMPT_DURATION = Histogram(CALL), "lanes_attempt_duration_seconds", ["lane", "endpoint"],
        "Time of one call.";
    RATE_LIMIT_HITS = Counter, "lanes_rate_limit_hits_total", ["lane", "endpoint", "tenant"],
        "Calls that the endpoint refused because of its rate limit.";
    RATE_LIMIT_REMAINING = Gauge, "lanes_rate_limit_remaining_requests", ["endpoint", "tenant"],
        "Requests left in the tightest budget that the endpoint's last answer described.";
    RATE_LIMIT_LIMIT = Gauge, "lanes_rate_limit_limit_requests", ["endpoint", "tenant"],
        "Size of the budget that lanes_rate_limit_remaining_requests tells about.";
    PACING = Gauge, "lanes_pacing_requests_per_second", ["endpoint", "tenant"],
        "Pace at which calls are made now, over all workers: what is configured, set or learnt, with its headroom.";
    CIRCUIT_STATE = Gauge, "lanes_circuit_state", ["endpoint", "state"],
        "1 for the state (closed, open, half_open) of the endpoint's circuit, of its tenants' the one that is shut most.";
    RETRIES_SCHEDULED = Counter, "lanes_retries_scheduled_total", ["lane", "endpoint", "reason"],
        "Calls after which the job is called again, by reason.";
    RETRIED_JOBS = Counter, "lanes_retried_jobs_total", ["lane", "endpoint", "outcome"],
        "Jobs called more than once, when they succeeded or were exhausted.";
    RETRY_BACKOFF = Histogram(BACKOFF), "lanes_retry_backoff_seconds", ["lane", "endpoint"],
        "Wait chosen before the next call of a job.";
    UPSTREAM_RESPONSES = Counter, "lanes_upstream_responses_total", ["endpoint", "code"],
        "HTTP answers, by exact status.";
    QUEUE_JOBS = Gauge, "lanes_queue_jobs", ["lane", "state"],
        "Jobs alive by state (ready, waiting for a time, held back by budgets, blocks or pauses, queued), over all workers: aggregate with max, never sum. State running is what this worker alone has claimed: that may be summed.";
    QUEUE_OLDEST = Gauge, "lanes_queue_oldest_job_timestamp_seconds", ["lane"],
        "Publish time of the oldest job alive; 0 = none.";
    DEAD_JOBS = Gauge, "lanes_dead_jobs", ["lane"],
        "Dead letters, over all workers: aggregate with max, never sum.";
    LANE_INFLIGHT = Gauge, "lanes_lane_inflight_jobs", ["lane"],
        "Calls in flight in this worker.";
    LANE_CONCURRENCY_LIMIT = Gauge, "lanes_lane_concurrency_limit", ["lane"],
        "Most calls in flight in this worker.";
    LANE_PAUSED = Gauge, "lanes_lane_paused", ["lane"],
        "1 while the lane is paused.";
    WORKERS = Gauge, "lanes_workers", ["state"],
        "Workers with (alive) and without (stale) a recent heartbeat.";
    BROKER_CONNECTED = Gauge, "lanes_broker_connected", [],
        "1 while this worker can use the broker.";
    STORE_OPERATION_DURATION = Histogram(STORE), "lanes_store_operation_duration_seconds", ["operation"],
        "Time of one operation of the store.";
    STORE_ERRORS = Counter, "lanes_store_errors_total", [],
        "Operations of the store that failed or did not answer in time.";
    NOTIFICATIONS = Counter, "lanes_notifications_total", ["sink", "outcome"],
        "Notices of incidents to the sinks of [[notify]], by outcome (sent, failed, given_up).";
    CONFIG_LAST_RELOAD_SUCCESSFUL = Gauge, "lanes_config_last_reload_successful", [],
        "1 while the running configuration is the last one written.";
    METRICS_DROPPED_LABELS = Counter, "lanes_metrics_dropped_labels_total", [],
        "Observations counted under the label value 'other' because the label has too many values.";
    BUILD_INFO = Gauge, "lanes_build_info", ["version"],
        "Always 1; tells the version.";
}
