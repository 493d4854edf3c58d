//! What every event does to the metrics and the log, exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use lanes::clock::Timestamp;
use lanes::job::event::{AttemptEvent, AttemptNext, Event, RateSeen, Weakness};
use lanes::job::verdict::{Class, DeadReason, WaitReason};
use lanes::job::{EndpointName, Identity, Job, JobId, JobMeta, LaneName, Tenant};
use lanes::telemetry::logs::{self, Format};
use lanes::telemetry::metrics::{ALL, Kind};
use lanes::telemetry::{ENDPOINT_LABELS_MAX, QueueReading, Settled, TENANT_LABELS_MAX, Telemetry};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::Value;
use uuid::Uuid;

const SECRET: &str = "s3cr3t-canary";

fn lane() -> LaneName {
    LaneName::new("bulk").expect("valid")
}

fn endpoint() -> EndpointName {
    EndpointName::new("crm").expect("valid")
}

fn tenant(name: &str) -> Tenant {
    Tenant::new(name).expect("valid")
}

fn job() -> Arc<Job> {
    Arc::new(Job {
        instance: Uuid::from_u128(7),
        identity: Identity::Stamped,
        lane: lane(),
        tenant: tenant("acme"),
        id: JobId::new("order-42").expect("valid"),
        endpoint: endpoint(),
        published_at: Timestamp::from_secs(1),
        meta: JobMeta {
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            path: Some(format!("/x?key={SECRET}")),
            ..JobMeta::default()
        },
        body: Bytes::from_static(SECRET.as_bytes()),
    })
}

fn attempt(attempt: u32, class: Class, status: Option<u16>, next: AttemptNext) -> Event {
    Event::Attempt(Box::new(AttemptEvent {
        learnt: None,
        held_back: Duration::ZERO,
        job: job(),
        attempt,
        trace: None,
        started_at: Timestamp::from_secs(2),
        duration: Duration::from_millis(20),
        status,
        class,
        detail: if class == Class::Ok { String::new() } else { "too fast\n\u{1b}[31m".to_owned() },
        retry_after: (class == Class::RateLimited).then(|| Duration::from_secs(300)),
        rate_headers: vec![("retry-after".to_owned(), "300".to_owned()), ("ratelimit".to_owned(), "r=0".to_owned())],
        rate_readings: Vec::new(),
        next,
    }))
}

fn retry(reason: WaitReason) -> AttemptNext {
    AttemptNext::Retry { delay: Duration::from_secs(300), at: Timestamp::from_secs(302), reason, capped: true }
}

fn done() -> AttemptNext {
    AttemptNext::Done { job_duration: Duration::from_secs(4) }
}

fn dead(reason: DeadReason) -> AttemptNext {
    AttemptNext::Dead { reason, job_duration: Duration::from_secs(4) }
}

fn died(reason: DeadReason) -> Event {
    Event::Died {
        lane: lane(),
        endpoint: endpoint(),
        tenant: tenant("acme"),
        instance: Uuid::from_u128(7),
        reason,
        detail: "why".to_owned(),
    }
}

/// The samples of a scrape by name and labels; label order as in the table.
fn samples(handle: &PrometheusHandle) -> BTreeMap<String, f64> {
    handle
        .render()
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            (series.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

/// What changed in counters and in the counts and sums of histograms.
fn delta(handle: &PrometheusHandle, act: impl FnOnce()) -> BTreeMap<String, f64> {
    let before = samples(handle);
    act();
    samples(handle)
        .into_iter()
        .filter(|(series, _)| !series.contains("_bucket{"))
        .map(|(series, value)| (series.clone(), value - before.get(&series).copied().unwrap_or(0.0)))
        .filter(|(_, change)| change.abs() > 1e-9)
        .map(|(series, change)| (series, (change * 1e6).round() / 1e6))
        .collect()
}

#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<u8>>>);

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn log_of(format: Format, filter: &str, act: impl FnOnce()) -> String {
    let capture = Capture::default();
    let writer = capture.clone();
    let subscriber = logs::subscriber(format, filter, false, move || writer.clone()).expect("a filter");
    tracing::subscriber::with_default(subscriber, act);
    String::from_utf8(capture.0.lock().expect("no panic").clone()).expect("UTF-8")
}

fn lines_of(filter: &str, act: impl FnOnce()) -> Vec<Value> {
    log_of(Format::Json, filter, act)
        .lines()
        .map(|line| serde_json::from_str(line).expect("one object a line"))
        .collect()
}

#[track_caller]
fn check(event: &Event, expected: &[(&str, f64)]) {
    let (telemetry, handle) = Telemetry::prometheus();
    telemetry.prime(&[lane()], &[endpoint()]);
    let changes = delta(&handle, || telemetry.record(event));
    let expected: BTreeMap<_, _> = expected.iter().map(|(series, change)| ((*series).to_owned(), *change)).collect();
    assert_eq!(changes, expected, "{event:?}");
}

#[test]
fn calls_become_metrics() {
    const CALL_TIME: &[(&str, f64)] = &[
        (r#"lanes_attempt_duration_seconds_count{lane="bulk",endpoint="crm"}"#, 1.0),
        (r#"lanes_attempt_duration_seconds_sum{lane="bulk",endpoint="crm"}"#, 0.02),
    ];
    const JOB_TIME: &[(&str, f64)] = &[
        (r#"lanes_job_duration_seconds_count{lane="bulk"}"#, 1.0),
        (r#"lanes_job_duration_seconds_sum{lane="bulk"}"#, 4.0),
    ];
    const BACKOFF: &[(&str, f64)] = &[
        (r#"lanes_retry_backoff_seconds_count{lane="bulk",endpoint="crm"}"#, 1.0),
        (r#"lanes_retry_backoff_seconds_sum{lane="bulk",endpoint="crm"}"#, 300.0),
    ];
    const OK: (&str, f64) = (r#"lanes_attempts_total{lane="bulk",endpoint="crm",result="ok"}"#, 1.0);
    const LIMITED: &[(&str, f64)] = &[
        (r#"lanes_attempts_total{lane="bulk",endpoint="crm",result="rate_limited"}"#, 1.0),
        (r#"lanes_upstream_responses_total{endpoint="crm",code="429"}"#, 1.0),
        (r#"lanes_rate_limit_hits_total{lane="bulk",endpoint="crm",tenant="acme"}"#, 1.0),
    ];
    let code200 = (r#"lanes_upstream_responses_total{endpoint="crm",code="200"}"#, 1.0);
    let succeeded = (r#"lanes_jobs_finished_total{lane="bulk",outcome="succeeded"}"#, 1.0);

    check(&attempt(1, Class::Ok, Some(200), done()), &[CALL_TIME, JOB_TIME, &[OK, code200, succeeded]].concat());
    let retried = (r#"lanes_retried_jobs_total{lane="bulk",endpoint="crm",outcome="succeeded"}"#, 1.0);
    check(
        &attempt(3, Class::Ok, Some(200), done()),
        &[CALL_TIME, JOB_TIME, &[OK, code200, succeeded, retried]].concat(),
    );
    let scheduled = |reason| match reason {
        WaitReason::RateLimited => {
            (r#"lanes_retries_scheduled_total{lane="bulk",endpoint="crm",reason="rate_limited"}"#, 1.0)
        }
        _ => (r#"lanes_retries_scheduled_total{lane="bulk",endpoint="crm",reason="transient"}"#, 1.0),
    };
    check(
        &attempt(1, Class::RateLimited, Some(429), retry(WaitReason::RateLimited)),
        &[CALL_TIME, BACKOFF, LIMITED, &[scheduled(WaitReason::RateLimited)]].concat(),
    );
    let unknown = (r#"lanes_attempts_total{lane="bulk",endpoint="crm",result="unknown"}"#, 1.0);
    check(
        &attempt(2, Class::Unknown, None, retry(WaitReason::Transient)),
        &[CALL_TIME, BACKOFF, &[unknown, scheduled(WaitReason::Transient)]].concat(),
    );
    let exhausted = (r#"lanes_jobs_finished_total{lane="bulk",outcome="exhausted"}"#, 1.0);
    let resolved = (r#"lanes_retried_jobs_total{lane="bulk",endpoint="crm",outcome="exhausted"}"#, 1.0);
    check(
        &attempt(5, Class::RateLimited, Some(429), dead(DeadReason::Exhausted)),
        &[CALL_TIME, JOB_TIME, LIMITED, &[exhausted, resolved]].concat(),
    );
    check(
        &attempt(1, Class::RateLimited, Some(429), dead(DeadReason::Exhausted)),
        &[CALL_TIME, JOB_TIME, LIMITED, &[exhausted]].concat(),
    );
    let failed = (r#"lanes_jobs_finished_total{lane="bulk",outcome="failed"}"#, 1.0);
    let permanent = (r#"lanes_attempts_total{lane="bulk",endpoint="crm",result="permanent"}"#, 1.0);
    let code404 = (r#"lanes_upstream_responses_total{endpoint="crm",code="404"}"#, 1.0);
    check(
        &attempt(2, Class::Permanent, Some(404), dead(DeadReason::Failed)),
        &[CALL_TIME, JOB_TIME, &[failed, permanent, code404]].concat(),
    );
    let cancelled = (r#"lanes_jobs_finished_total{lane="bulk",outcome="cancelled"}"#, 1.0);
    check(
        &attempt(2, Class::RateLimited, Some(429), AttemptNext::Cancelled),
        &[CALL_TIME, LIMITED, &[cancelled]].concat(),
    );
}

#[test]
fn other_events_become_metrics() {
    let (instance, original) = (Uuid::from_u128(7), Uuid::from_u128(8));
    check(
        &Event::Published { lane: lane(), source: "cli" },
        &[(r#"lanes_jobs_published_total{lane="bulk",source="cli"}"#, 1.0)],
    );
    check(
        &Event::Duplicate { lane: lane(), instance, original },
        &[(r#"lanes_jobs_deduplicated_total{lane="bulk"}"#, 1.0)],
    );
    check(&Event::Stale { lane: lane() }, &[(r#"lanes_jobs_stale_total{lane="bulk"}"#, 1.0)]);
    check(
        &Event::Waiting { lane: lane(), reason: WaitReason::NotBefore },
        &[(r#"lanes_jobs_waiting_total{lane="bulk",reason="not_before"}"#, 1.0)],
    );
    check(
        &Event::Started { job: job(), waited: Duration::from_secs(3), held_back: None },
        &[(r#"lanes_job_wait_seconds_count{lane="bulk"}"#, 1.0), (r#"lanes_job_wait_seconds_sum{lane="bulk"}"#, 3.0)],
    );
    check(
        &Event::Refused { lane: lane(), reason: DeadReason::TooLarge, detail: String::new() },
        &[(r#"lanes_messages_refused_total{lane="bulk",reason="too_large"}"#, 1.0)],
    );
    for reason in DeadReason::ALL {
        let outcome = match reason {
            DeadReason::Exhausted => r#"lanes_jobs_finished_total{lane="bulk",outcome="exhausted"}"#,
            DeadReason::Expired => r#"lanes_jobs_finished_total{lane="bulk",outcome="expired"}"#,
            _ => r#"lanes_jobs_finished_total{lane="bulk",outcome="failed"}"#,
        };
        let retried = (r#"lanes_retried_jobs_total{lane="bulk",endpoint="crm",outcome="exhausted"}"#, 1.0);
        let retried = if *reason == DeadReason::Exhausted { &[retried][..] } else { &[] };
        check(&died(*reason), &[&[(outcome, 1.0)], retried].concat());
    }
    check(
        &Event::Cancelled { lane: lane() },
        &[(r#"lanes_jobs_finished_total{lane="bulk",outcome="cancelled"}"#, 1.0)],
    );
    check(
        &Event::TakenOver { lane: lane(), instance, takeovers: 1 },
        &[(r#"lanes_jobs_taken_over_total{lane="bulk"}"#, 1.0)],
    );
    check(
        &Event::LateResult { job: job(), attempt: 2, class: Class::RateLimited, status: Some(429) },
        &[
            (r#"lanes_attempts_total{lane="bulk",endpoint="crm",result="rate_limited"}"#, 1.0),
            (r#"lanes_upstream_responses_total{endpoint="crm",code="429"}"#, 1.0),
            (r#"lanes_rate_limit_hits_total{lane="bulk",endpoint="crm",tenant="acme"}"#, 1.0),
        ],
    );
    check(
        &Event::LateResult { job: job(), attempt: 1, class: Class::Unknown, status: None },
        &[(r#"lanes_attempts_total{lane="bulk",endpoint="crm",result="unknown"}"#, 1.0)],
    );
    for (what, series) in [
        (Weakness::NoId, r#"lanes_jobs_without_id_total{lane="bulk"}"#),
        (Weakness::DerivedIdentity, r#"lanes_derived_identity_total{lane="bulk"}"#),
        (Weakness::NonDurable, r#"lanes_non_durable_messages_total{lane="bulk"}"#),
    ] {
        check(&Event::Weak { lane: lane(), what }, &[(series, 1.0)]);
    }
}

/// Every word of a closed set is a label of its own: catches a table that is out of step with its enum.
#[test]
fn closed_sets_keep_their_words() {
    for reason in WaitReason::ALL {
        let series = format!(r#"lanes_jobs_waiting_total{{lane="bulk",reason="{reason}"}}"#);
        check(&Event::Waiting { lane: lane(), reason: *reason }, &[(&series, 1.0)]);
    }
    for reason in DeadReason::ALL {
        let series = format!(r#"lanes_messages_refused_total{{lane="bulk",reason="{reason}"}}"#);
        check(&Event::Refused { lane: lane(), reason: *reason, detail: String::new() }, &[(&series, 1.0)]);
    }
    for class in Class::ALL {
        let (telemetry, handle) = Telemetry::prometheus();
        let changes = delta(&handle, || telemetry.record(&attempt(1, class, None, AttemptNext::Cancelled)));
        let series = format!(r#"lanes_attempts_total{{lane="bulk",endpoint="crm",result="{}"}}"#, class.as_str());
        assert!(changes.contains_key(&series), "{changes:?}");
    }
}

#[test]
fn readings_become_gauges() {
    let (telemetry, handle) = Telemetry::prometheus();
    telemetry.prime(&[lane()], &[endpoint()]);
    let changes = delta(&handle, || {
        telemetry.inflight(&lane(), 3);
        telemetry.concurrency_limit(&lane(), 8);
        telemetry.paused(&lane(), true);
        let oldest_published_at = Some(Timestamp::from_millis(1500));
        telemetry
            .queue(&lane(), QueueReading { ready: 1, running: 2, waiting: 3, held: 7, queued: 4, oldest_published_at });
        telemetry.dead_jobs(&lane(), 5);
        telemetry.purged_by_cap(&lane(), 6);
        telemetry.broker_connected(true);
        telemetry.workers(2, 1);
        telemetry.store_operation("claim", Duration::from_millis(2), false);
        telemetry.config_reloaded(false);
    });
    let expected = [
        (r#"lanes_lane_inflight_jobs{lane="bulk"}"#, 3.0),
        (r#"lanes_lane_concurrency_limit{lane="bulk"}"#, 8.0),
        (r#"lanes_lane_paused{lane="bulk"}"#, 1.0),
        (r#"lanes_queue_jobs{lane="bulk",state="ready"}"#, 1.0),
        (r#"lanes_queue_jobs{lane="bulk",state="running"}"#, 2.0),
        (r#"lanes_queue_jobs{lane="bulk",state="waiting"}"#, 3.0),
        (r#"lanes_queue_jobs{lane="bulk",state="held"}"#, 7.0),
        (r#"lanes_queue_jobs{lane="bulk",state="queued"}"#, 4.0),
        (r#"lanes_queue_oldest_job_timestamp_seconds{lane="bulk"}"#, 1.5),
        (r#"lanes_dead_jobs{lane="bulk"}"#, 5.0),
        (r#"lanes_jobs_purged_by_cap_total{lane="bulk"}"#, 6.0),
        ("lanes_broker_connected", 1.0),
        (r#"lanes_workers{state="alive"}"#, 2.0),
        (r#"lanes_workers{state="stale"}"#, 1.0),
        (r#"lanes_store_operation_duration_seconds_count{operation="claim"}"#, 1.0),
        (r#"lanes_store_operation_duration_seconds_sum{operation="claim"}"#, 0.002),
        ("lanes_store_errors_total", 1.0),
        ("lanes_config_last_reload_successful", -1.0),
    ];
    assert_eq!(changes, expected.map(|(series, change)| (series.to_owned(), change)).into());
}

#[test]
fn histograms_have_buckets() {
    let (telemetry, handle) = Telemetry::prometheus();
    telemetry.prime(&[lane()], &[endpoint()]);
    telemetry.record(&Event::Started { job: job(), waited: Duration::from_secs(3), held_back: None });
    let samples = samples(&handle);
    assert_eq!(samples[r#"lanes_job_wait_seconds_bucket{lane="bulk",le="2.5"}"#].to_bits(), 0.0_f64.to_bits());
    assert_eq!(samples[r#"lanes_job_wait_seconds_bucket{lane="bulk",le="5"}"#].to_bits(), 1.0_f64.to_bits());
    assert!(!handle.render().contains("quantile="));
}

/// A metric, the labels that rules use, and the label values they select.
type Compared = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

/// What the alert and recording rules compare.
const RULES: &[Compared] = &[
    ("lanes_jobs_published_total", &["lane", "source"], &[("source", "cli"), ("source", "library")]),
    ("lanes_jobs_finished_total", &["lane", "outcome"], &[("outcome", "exhausted")]),
    ("lanes_rate_limit_hits_total", &["endpoint", "tenant"], &[]),
    ("lanes_attempts_total", &["endpoint"], &[("result", "ok"), ("result", "rate_limited")]),
    ("lanes_retried_jobs_total", &["endpoint", "outcome"], &[("outcome", "succeeded"), ("outcome", "exhausted")]),
    ("lanes_retry_backoff_seconds", &["endpoint"], &[]),
    ("lanes_job_wait_seconds", &["lane"], &[]),
    ("lanes_job_duration_seconds", &["lane"], &[]),
    ("lanes_queue_jobs", &["lane", "state"], &[("state", "ready")]),
    ("lanes_queue_oldest_job_timestamp_seconds", &["lane"], &[]),
    ("lanes_lane_paused", &["lane"], &[]),
    ("lanes_workers", &["state"], &[("state", "alive")]),
    ("lanes_jobs_taken_over_total", &["lane"], &[]),
    ("lanes_store_errors_total", &[], &[]),
    ("lanes_broker_connected", &[], &[]),
    ("lanes_dead_jobs", &["lane"], &[]),
    ("lanes_config_last_reload_successful", &[], &[]),
];

#[test]
fn what_the_rules_compare_exists_at_zero_from_the_start() {
    let (telemetry, handle) = Telemetry::prometheus();
    telemetry.prime(&[lane()], &[endpoint()]);
    let samples = samples(&handle);
    for (name, labels, values) in RULES {
        let metric = ALL.iter().find(|metric| metric.name == *name).unwrap_or_else(|| panic!("no metric {name}"));
        for label in *labels {
            assert!(metric.labels.contains(label), "{name} has no label {label}");
        }
        let sample =
            if matches!(metric.kind, Kind::Histogram(_)) { format!("{name}_count") } else { (*name).to_owned() };
        let own: Vec<_> =
            samples.keys().filter(|key| **key == sample || key.starts_with(&format!("{sample}{{"))).collect();
        assert!(!own.is_empty(), "{name} is not there before anything happens");
        for (label, value) in *values {
            let pair = format!("{label}=\"{value}\"");
            assert!(own.iter().any(|key| key.contains(&pair)), "{name} lacks {pair}");
        }
    }
}

#[test]
fn names_follow_the_conventions() {
    let mut names = BTreeSet::new();
    for metric in ALL {
        assert!(names.insert(metric.name), "{} twice", metric.name);
        assert!(metric.name.starts_with("lanes_") && metric.help.ends_with('.'), "{}", metric.name);
        assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
        if let Kind::Histogram(buckets) = metric.kind {
            assert!(metric.name.ends_with("_seconds") && buckets.is_sorted(), "{}", metric.name);
        }
    }
}

#[test]
fn tenants_and_endpoints_are_bounded() {
    let (telemetry, handle) = Telemetry::prometheus();
    let limited = |name: &str, endpoint: &str| {
        let Event::Attempt(mut event) = attempt(1, Class::RateLimited, Some(429), AttemptNext::Cancelled) else {
            panic!("an attempt")
        };
        let mut job = (*event.job).clone();
        job.tenant = tenant(name);
        job.endpoint = EndpointName::new(endpoint).expect("valid");
        event.job = Arc::new(job);
        telemetry.record(&Event::Attempt(event));
    };
    for index in 0..TENANT_LABELS_MAX + 3 {
        limited(&format!("tenant-{index}"), "crm");
    }
    limited("tenant-0", "crm");
    let after = samples(&handle);
    let hits = |tenant: &str| {
        after.get(&format!(r#"lanes_rate_limit_hits_total{{lane="bulk",endpoint="crm",tenant="{tenant}"}}"#)).copied()
    };
    assert_eq!(
        (hits("tenant-0"), hits("tenant-49"), hits("tenant-50"), hits("other")),
        (Some(2.0), Some(1.0), None, Some(3.0))
    );
    assert_eq!(after["lanes_metrics_dropped_labels_total"].to_bits(), 3.0_f64.to_bits());

    for index in 0..ENDPOINT_LABELS_MAX + 5 {
        limited("tenant-0", &format!("endpoint-{index}"));
    }
    let endpoints: BTreeSet<_> = samples(&handle)
        .keys()
        .filter_map(|key| Some(key.split_once("endpoint=\"")?.1.split_once('"')?.0.to_owned()))
        .collect();
    assert_eq!(endpoints.len(), ENDPOINT_LABELS_MAX + 1);
    assert!(endpoints.contains("other"));
}

/// What is left of budgets, as the answers to a tenant's calls describe them.
fn tell_budgets(telemetry: &Telemetry, name: &str, budgets: &[(Option<f64>, Option<f64>)]) {
    let Event::Attempt(mut event) = attempt(1, Class::Ok, Some(200), done()) else { panic!("an attempt") };
    event.job = Arc::new(Job { tenant: tenant(name), ..(*event.job).clone() });
    event.rate_readings = budgets.iter().map(|&(limit, remaining)| RateSeen { limit, remaining }).collect();
    telemetry.record(&Event::Attempt(event));
}

#[test]
fn budgets_become_gauges_of_the_tightest() {
    let (telemetry, handle) = Telemetry::prometheus();
    telemetry.prime(&[lane()], &[endpoint()]);
    let read = |tenant: &str| {
        let samples = samples(&handle);
        let of = |what: &str| {
            samples.get(&format!(r#"lanes_rate_limit_{what}_requests{{endpoint="crm",tenant="{tenant}"}}"#)).copied()
        };
        (of("limit"), of("remaining"))
    };
    tell_budgets(&telemetry, "acme", &[]);
    assert_eq!(read("acme"), (None, None), "nothing told is not nothing left");
    tell_budgets(&telemetry, "acme", &[(Some(100.0), Some(90.0)), (Some(1000.0), Some(20.0)), (Some(5.0), None)]);
    assert_eq!(read("acme"), (Some(1000.0), Some(20.0)));
    tell_budgets(&telemetry, "acme", &[(Some(100.0), Some(90.0)), (None, Some(0.0))]);
    assert_eq!(read("acme"), (Some(1000.0), Some(0.0)));
    tell_budgets(&telemetry, "globex", &[(Some(60.0), None)]);
    assert_eq!(read("globex"), (Some(60.0), None));
    for index in 0..TENANT_LABELS_MAX {
        tell_budgets(&telemetry, &format!("tenant-{index}"), &[(Some(8.0), Some(4.0))]);
    }
    assert_eq!((read("tenant-47"), read("tenant-48")), ((Some(8.0), Some(4.0)), (None, None)));
    assert_eq!(read("other"), (Some(8.0), Some(4.0)));
    let dropped = samples(&handle)["lanes_metrics_dropped_labels_total"];
    assert_eq!(dropped.to_bits(), 2.0_f64.to_bits());
}

#[test]
fn ten_thousand_tenants_are_fifty_and_the_others() {
    let (telemetry, handle) = Telemetry::prometheus();
    telemetry.prime(&[lane()], &[endpoint()]);
    for index in 0..10_000 {
        let name = format!("tenant-{index}");
        let limited = attempt(1, Class::RateLimited, Some(429), AttemptNext::Cancelled);
        let Event::Attempt(mut event) = limited else { panic!("an attempt") };
        event.job = Arc::new(Job { tenant: tenant(&name), ..(*event.job).clone() });
        event.rate_readings = vec![RateSeen { limit: Some(100.0), remaining: Some(0.0) }];
        telemetry.record(&Event::Attempt(event));
        telemetry.pacing(&lane(), &endpoint(), &tenant(&name), 1.0);
    }
    let text = handle.render();
    let mut tenants: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((_, rest)) = line.split_once("tenant=\"") else { continue };
        let (name, value) = (line.split('{').next().expect("a name"), rest.split('"').next().expect("a value"));
        tenants.entry(name).or_default().insert(value);
    }
    let labelled = ALL.iter().filter(|metric| metric.labels.contains(&"tenant")).map(|metric| metric.name);
    assert_eq!(tenants.keys().copied().collect::<BTreeSet<_>>(), labelled.collect());
    for (name, values) in tenants {
        assert!(values.len() == TENANT_LABELS_MAX + 1 && values.contains("other"), "{name}: {}", values.len());
    }
    let samples = samples(&handle);
    let hits = samples.iter().filter(|(key, _)| key.starts_with("lanes_rate_limit_hits_total{"));
    assert_eq!(hits.map(|(_, value)| value).sum::<f64>().to_bits(), 10_000.0_f64.to_bits(), "every hit is counted");
}

#[test]
fn a_rate_limit_is_one_warning_with_everything() {
    let (telemetry, _) = Telemetry::prometheus();
    let event = attempt(2, Class::RateLimited, Some(429), retry(WaitReason::RateLimited));
    let lines = lines_of("info", || telemetry.record(&event));
    let [line] = &lines[..] else { panic!("{lines:?}") };
    for (field, value) in [
        ("level", Value::from("WARN")),
        ("target", "lanes::job".into()),
        ("endpoint", "crm".into()),
        ("tenant", "acme".into()),
        ("lane", "bulk".into()),
        ("job_id", "order-42".into()),
        ("instance", "00000000-0000-0000-0000-000000000007".into()),
        ("trace_id", "0af7651916cd43dd8448eb211c80319c".into()),
        ("attempt", 2.into()),
        ("status", 429.into()),
        ("result", "rate_limited".into()),
        ("backoff_ms", 300_000.into()),
        ("retry_after_ms", 300_000.into()),
        ("resume_at", "1970-01-01T00:05:02Z".into()),
        ("capped", true.into()),
        ("rate_headers", "retry-after: 300; ratelimit: r=0".into()),
        ("detail", "too fast\n\u{1b}[31m".into()),
        ("message", "rate limited by crm on attempt 2: again in 300s".into()),
    ] {
        assert_eq!(line.get(field), Some(&value), "{field} in {line}");
    }
    let text = log_of(Format::Text, "info", || telemetry.record(&event));
    assert!(text.lines().count() == 1 && !text.contains('\u{1b}') && text.contains(r#"tenant="acme""#), "{text}");
}

#[test]
fn every_event_has_its_level() {
    let (telemetry, _) = Telemetry::prometheus();
    let (instance, original) = (Uuid::from_u128(7), Uuid::from_u128(8));
    let cases = [
        (attempt(1, Class::Ok, Some(200), done()), "DEBUG"),
        (attempt(1, Class::Transient, Some(503), retry(WaitReason::Transient)), "WARN"),
        (attempt(5, Class::RateLimited, Some(429), dead(DeadReason::Exhausted)), "ERROR"),
        (attempt(5, Class::Transient, Some(503), dead(DeadReason::Exhausted)), "ERROR"),
        (attempt(1, Class::Permanent, Some(404), dead(DeadReason::Failed)), "WARN"),
        (attempt(1, Class::RateLimited, Some(429), AttemptNext::Cancelled), "WARN"),
        (attempt(1, Class::Transient, Some(503), AttemptNext::Cancelled), "INFO"),
        (died(DeadReason::Exhausted), "ERROR"),
        (died(DeadReason::Poison), "WARN"),
        (Event::Refused { lane: lane(), reason: DeadReason::Undecodable, detail: "x".to_owned() }, "WARN"),
        (Event::TakenOver { lane: lane(), instance, takeovers: 2 }, "WARN"),
        (Event::LateResult { job: job(), attempt: 2, class: Class::Ok, status: Some(200) }, "WARN"),
        (Event::Duplicate { lane: lane(), instance, original }, "DEBUG"),
        (Event::Stale { lane: lane() }, "DEBUG"),
        (Event::Waiting { lane: lane(), reason: WaitReason::Paused }, "DEBUG"),
        (Event::Weak { lane: lane(), what: Weakness::NoId }, "DEBUG"),
        (Event::Cancelled { lane: lane() }, "INFO"),
        (Event::Published { lane: lane(), source: "cli" }, "TRACE"),
        (Event::Started { job: job(), waited: Duration::ZERO, held_back: None }, "TRACE"),
    ];
    for (event, level) in cases {
        let lines = lines_of("trace", || telemetry.record(&event));
        assert_eq!(lines.len(), 1, "{event:?}: {lines:?}");
        assert_eq!(lines[0]["level"], level, "{event:?}");
        assert!(!lines[0].to_string().contains(SECRET), "{}", lines[0]);
    }
}

#[test]
fn exhaustion_tells_everything_once() {
    let (telemetry, _) = Telemetry::prometheus();
    let event = attempt(5, Class::RateLimited, Some(429), dead(DeadReason::Exhausted));
    let lines = lines_of("trace", || telemetry.record(&event));
    let [line] = &lines[..] else { panic!("{lines:?}") };
    for field in
        ["endpoint", "tenant", "lane", "job_id", "instance", "attempt", "status", "rate_headers", "job_duration_ms"]
    {
        assert!(line.get(field).is_some(), "{field} in {line}");
    }
    assert!(line["message"].as_str().is_some_and(|text| text.contains("lanes dead show 00000000-")), "{line}");
}

#[test]
fn details_are_cut() {
    let (telemetry, _) = Telemetry::prometheus();
    let detail = "\u{e9}".repeat(10_000);
    let event = Event::Refused { lane: lane(), reason: DeadReason::Undecodable, detail };
    let lines = lines_of("info", || telemetry.record(&event));
    assert_eq!(lines[0]["detail"].as_str().map(|text| text.chars().count()), Some(300));
}

#[test]
fn settled_deliveries_add_up() {
    let (telemetry, handle) = Telemetry::prometheus();
    let (instance, original) = (Uuid::from_u128(7), Uuid::from_u128(8));
    let events = [
        attempt(1, Class::Ok, Some(200), done()),
        attempt(1, Class::Transient, Some(503), retry(WaitReason::Transient)),
        attempt(5, Class::Transient, Some(503), dead(DeadReason::Exhausted)),
        attempt(5, Class::Transient, Some(503), AttemptNext::Cancelled),
        Event::Refused { lane: lane(), reason: DeadReason::Undecodable, detail: String::new() },
        Event::Duplicate { lane: lane(), instance, original },
        Event::Stale { lane: lane() },
        Event::Waiting { lane: lane(), reason: WaitReason::NotBefore },
        Event::Published { lane: lane(), source: "cli" },
        Event::Started { job: job(), waited: Duration::ZERO, held_back: None },
        Event::LateResult { job: job(), attempt: 1, class: Class::Ok, status: Some(200) },
    ];
    for event in &events {
        telemetry.record(event);
    }
    let settled = telemetry.settled();
    let expected = Settled { done: 1, dead: 2, retry: 1, wait: 1, duplicate: 1, stale: 1, cancelled: 1 };
    assert_eq!((settled, settled.total()), (expected, 8));
    let samples = samples(&handle);
    let sum = |name: &str| {
        samples.iter().filter(|(key, _)| key.split('{').next() == Some(name)).map(|(_, value)| value).sum::<f64>()
    };
    let of_metrics = sum("lanes_jobs_finished_total")
        + sum("lanes_messages_refused_total")
        + sum("lanes_retries_scheduled_total")
        + sum("lanes_jobs_waiting_total")
        + sum("lanes_jobs_deduplicated_total")
        + sum("lanes_jobs_stale_total");
    assert_eq!(of_metrics.to_bits(), 8.0_f64.to_bits());
}

#[test]
fn a_bad_log_filter_says_what_to_write() {
    let error = logs::subscriber(Format::Text, "lanes=shout", false, std::io::sink).err().expect("refused").to_string();
    assert!(error.contains("lanes=shout") && error.contains("info,lanes::job=debug"), "{error}");
    assert!("xml".parse::<Format>().is_err() && "json".parse::<Format>().is_ok());
}
