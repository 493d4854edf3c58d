//! A real worker with a rate-limited API, scraped by a real Prometheus: every panel and every rule has an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::sync::Arc;

use lanes::clock::{SharedClock, SystemClock};
use lanes::telemetry::metrics::{ALL, Kind};
use serde_json::Value;

use super::{files, metric_of, promql};
use crate::cli::Desk;
use crate::flow::rig::{Api, Reply, Seen};
use crate::services::{Prometheus, http_get};

/// Jobs of each lane: more than the worker can call while the test lasts, so that it always has some.
const JOBS: usize = 1_500;
/// Calls between two looks. They are paced, about 32 a second: what the test waits for is their coming.
const CALLS_A_LOOK: usize = 16;
/// Looks before what still has no answer fails the test: a minute at that pace.
const LOOKS_MAX: usize = 120;

/// What the API answers to a job's n-th call: most work at once, some of everything else.
fn answer(seen: &Seen, nth: usize) -> Reply {
    let number: usize = seen.job_id.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let status = match (number % 20, nth) {
        (3, 1) => 429,
        (7, _) => 422,
        (5, _) | (9 | 19, 1) => 503, // the first until it is exhausted
        _ => 200,
    };
    Reply::status(status).header("x-ratelimit-limit", 100).header("x-ratelimit-remaining", 60)
}

fn config(api: &str, port: u16) -> String {
    let retry = "retry = { max_attempts = 2, first_delay = \"100ms\", max_delay = \"1s\" }";
    format!(
        "[http]\nlisten = \"127.0.0.1:{port}\"\n[log]\nlevel = \"warn\"\n\
         [lanes.realtime]\nconcurrency = 4\nreserve = 0.2\n{retry}\n[lanes.bulk]\nconcurrency = 4\n{retry}\n\
         [endpoints.crm]\nurl = \"{api}\"\nlearn = \"off\"\n\
         [[endpoints.crm.limits]]\nrequests = 1200\nper = \"1m\"\n"
    )
}

/// Lines of jobs for two tenants; every tenth id comes twice.
fn jobs(lane: &str) -> String {
    (0..JOBS).fold(String::new(), |mut text, number| {
        let tenant = ["acme", "globex"][number % 2];
        for _ in 0..=usize::from(number % 10 == 0) {
            let _ = writeln!(text, r#"{{"id":"{lane}-{number}","tenant":"{tenant}","body":{{"number":{number}}}}}"#);
        }
        text
    })
}

/// The worker; it ends with the test.
struct Worker {
    child: Child,
    port: u16,
}

impl Worker {
    fn start(desk: &Desk, port: u16) -> Self {
        let log = File::create(desk.path("worker.log")).expect("a log file");
        let child = desk.command(&["worker"]).stdout(Stdio::null()).stderr(log).spawn().expect("the worker starts");
        Self { child, port }
    }

    fn metrics(&self) -> String {
        let (status, text) = http_get(self.port, "/metrics");
        assert!(status.contains(" 200 "), "{status}: {text}");
        text
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // it may have ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Prometheus as it is shipped, in a hurry: it scrapes `port` and evaluates every rule once a second.
fn prometheus(port: u16) -> Prometheus {
    let shipped = files::read("deploy/prometheus/prometheus.yml");
    let config = shipped.replace("worker:9464", &format!("127.0.0.1:{port}")).replace(": 15s", ": 1s");
    assert!(config.matches(": 1s").count() == 2 && config.contains(&port.to_string()), "{config}");
    let mut rules = files::rules();
    for group in rules["groups"].as_sequence_mut().expect("groups") {
        group.as_mapping_mut().expect("a group").remove("interval");
    }
    let rules = serde_yaml_ng::to_string(&rules).expect("it is written as it was read");
    Prometheus::start(&[("prometheus.yml", config), (files::RULES, rules)])
}

/// What Grafana puts in for its variables when all of everything is chosen.
fn filled_in(expr: &str) -> String {
    let filled = expr.replace("$__rate_interval", "15s").replace("$__range", "1m");
    ["lane", "endpoint", "tenant"].iter().fold(filled, |text, name| text.replace(&format!("${name}"), ".*"))
}

/// Everything that must have an answer.
fn questions() -> BTreeSet<String> {
    let panels = files::panels().into_iter().map(|panel| filled_in(&panel.expr));
    let recorded = files::recordings().into_iter().map(|rule| rule.name);
    let variables =
        files::variables().into_iter().map(|(series, label)| format!("count by ({label}) ({})", filled_in(&series)));
    panels.chain(recorded).chain(variables).collect()
}

/// Whether there is a number for `expr` now.
fn is_answered(prometheus: &Prometheus, expr: &str) -> bool {
    let query: String = url::form_urlencoded::byte_serialize(expr.as_bytes()).collect();
    let answer = prometheus.get(&format!("/api/v1/query?query={query}"));
    assert_eq!(answer["status"], "success", "{expr}: {answer}");
    let found = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{expr}: {answer}"));
    let number = |sample: &Value| sample["value"][1].as_str().and_then(|text| text.parse::<f64>().ok());
    found.iter().any(|sample| number(sample).is_some_and(f64::is_finite))
}

/// What is wrong with rules, in Prometheus' own words.
fn ill_rules(prometheus: &Prometheus) -> Vec<String> {
    let answer = prometheus.get("/api/v1/rules");
    let groups = answer["data"]["groups"].as_array().expect("groups");
    let rules: Vec<&Value> = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules")).collect();
    assert_eq!(rules.len(), files::alerts().len() + files::recordings().len());
    let ill = rules.into_iter().filter(|rule| rule["health"] != "ok");
    ill.map(|rule| format!("{}: {} {}", rule["name"], rule["health"], rule["lastError"])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_and_every_rule_is_answered_from_a_real_worker() {
    let clock: SharedClock = Arc::new(SystemClock::new());
    let api = Api::start(clock, Arc::new(answer)).await;
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let desk = Desk::new(&api.url);
    desk.write("lanes.toml", &config(&api.url, free.port()));
    for lane in ["realtime", "bulk"] {
        desk.lanes_with(&["publish", lane, "--endpoint", "crm", "--from", "-"], &jobs(lane)).ends(0);
    }
    let worker = Worker::start(&desk, free.port());
    let mut calls = api.until_calls(1).await.len();
    let prometheus = prometheus(worker.port);
    let (mut open, mut ill) = (questions(), Vec::new());
    for _ in 0..LOOKS_MAX {
        open.retain(|expr| !is_answered(&prometheus, expr));
        ill = ill_rules(&prometheus);
        if open.is_empty() && ill.is_empty() {
            break;
        }
        calls += CALLS_A_LOOK;
        api.until_calls(calls).await;
    }
    assert!(open.is_empty() && ill.is_empty(), "no answer: {open:#?}\nill: {ill:#?}\n{}", worker.metrics());
    judge(&worker.metrics());
}

/// Holds what a worker shows against the table of metrics, and against what rules and dashboards select.
fn judge(text: &str) {
    let types: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    for (name, kind) in &types {
        let metric = ALL.iter().find(|metric| metric.name == *name).unwrap_or_else(|| panic!("{name} is in no table"));
        let expected = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        assert_eq!(*kind, expected, "{name}");
    }
    let mut missing = BTreeSet::new();
    for query in files::queries() {
        for selector in promql::selectors(&query.expr) {
            let Some(metric) = metric_of(&selector.name) else { continue };
            if !types.contains_key(metric.name) {
                missing.insert(format!("{}: a worker does not show {}", query.place, metric.name));
            }
            let plain = selector.matchers.iter().filter(|matcher| matcher.op.starts_with('=') && matcher.label != "le");
            for matcher in plain.filter(|matcher| !matcher.value.contains(['$', '*', '+', '.'])) {
                for value in matcher.value.split('|') {
                    let pair = format!("{}=\"{value}\"", matcher.label);
                    let shown = |line: &str| line.starts_with(&format!("{}{{", selector.name)) && line.contains(&pair);
                    if !text.lines().any(shown) {
                        missing.insert(format!("{}: no {} has {pair}", query.place, selector.name));
                    }
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
