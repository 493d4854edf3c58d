//! Rules, alerts, dashboards and runbook agree with each other, with promtool, and with what a real worker shows.

mod files;
mod live;
mod promql;
mod thresholds;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use lanes::telemetry::metrics::{ALL, Kind, Metric};
use serde_yaml_ng::Value;

use files::{RULES, TESTS, alerts, dashboards, panels, queries, read, recordings, root, rules, yaml};

/// What Prometheus adds to every series, or makes by itself.
const ADDED_LABELS: [&str; 4] = ["job", "instance", "le", "alertname"];
const MADE_BY_PROMETHEUS: [&str; 2] = ["up", "ALERTS"];

/// Runs promtool on the rules of `dir`.
pub fn promtool(dir: &Path, arguments: &[&str]) -> Output {
    Command::new("promtool").args(arguments).current_dir(dir).output().unwrap_or_else(|error| {
        panic!("promtool does not run ({error}): apt-get install -y prometheus, or run scripts/test")
    })
}

fn accepted(output: &Output) -> Result<(), String> {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&text).into_owned()) }
}

#[test]
fn the_rules_are_rules() {
    let checked = promtool(&root().join("deploy/prometheus"), &["check", "rules", RULES]);
    accepted(&checked).unwrap_or_else(|why| panic!("{why}"));
    assert!(alerts().len() >= 10 && recordings().len() >= 10);
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    thread::scope(|scope| {
        for file in TESTS {
            scope.spawn(move || {
                let tested = promtool(&root().join("deploy/prometheus"), &["test", "rules", file]);
                accepted(&tested).unwrap_or_else(|why| panic!("{why}"));
            });
        }
    });
}

/// The alerts that a case of the tests expects to fire, and those that it expects to be silent.
fn expected(case: &Value, firing: bool) -> BTreeSet<String> {
    let checks = case["alert_rule_test"].as_sequence().expect("checks");
    let fires = |check: &Value| check["exp_alerts"].as_sequence().is_some_and(|alerts| !alerts.is_empty());
    let of = |check: &Value| check["alertname"].as_str().expect("a name").to_owned();
    checks.iter().filter(|check| fires(check) == firing).map(of).collect()
}

#[test]
fn every_alert_is_seen_firing_and_silent() {
    let files = TESTS.map(yaml);
    let cases = || files.iter().flat_map(|file| file["tests"].as_sequence().expect("cases"));
    let names: BTreeSet<String> = alerts().into_iter().map(|alert| alert.name).collect();
    for firing in [true, false] {
        let seen: BTreeSet<String> = cases().flat_map(|case| expected(case, firing)).collect();
        assert_eq!(seen, names, "firing: {firing}");
    }
}

/// Whether the tests say that `alert` is missing when it cannot fire. Only the cases that look at it are run.
fn is_missed(alert: &str) -> bool {
    let mut mutant = rules();
    let groups = mutant["groups"].as_sequence_mut().expect("groups");
    let all = groups.iter_mut().flat_map(|group| group["rules"].as_sequence_mut().expect("rules"));
    for rule in all.filter(|rule| rule["alert"].as_str() == Some(alert)) {
        rule["expr"] = "vector(0) > 1".into();
    }
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, file: &Value| {
        let text = serde_yaml_ng::to_string(file).expect("it is written as it was read");
        fs::write(dir.path().join(name), text).expect("a file");
    };
    write(RULES, &mutant);
    TESTS.iter().any(|name| {
        let mut tests = yaml(name);
        let cases = tests["tests"].as_sequence_mut().expect("cases");
        cases.retain(|case| [true, false].iter().any(|firing| expected(case, *firing).contains(alert)));
        if cases.is_empty() {
            return false;
        }
        write(name, &tests);
        let verdict = accepted(&promtool(dir.path(), &["test", "rules", name]));
        verdict.is_err_and(|why| why.contains(&format!("alertname: {alert},")))
    })
}

#[test]
fn an_alert_that_cannot_fire_is_missed() {
    let names: Vec<String> = alerts().into_iter().map(|alert| alert.name).collect();
    let survivors: Vec<&String> = thread::scope(|scope| {
        let halves = [0, 1].map(|half| {
            let mine = names.iter().skip(half).step_by(2);
            scope.spawn(move || mine.filter(|name| !is_missed(name)).collect::<Vec<_>>())
        });
        halves.into_iter().flat_map(|half| half.join().expect("no panic")).collect()
    });
    assert!(survivors.is_empty(), "no test misses {survivors:?}");
}

#[test]
fn every_alert_tells_a_person_what_to_do() {
    let runbook = read("docs/runbook.md");
    let sections: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    for alert in alerts() {
        let (name, annotations) = (&alert.name, &alert.body["annotations"]);
        assert!(sections.contains(name.as_str()), "docs/runbook.md has no section {name}");
        let expected = format!("docs/runbook.md#{}", name.to_lowercase());
        assert_eq!(annotations["runbook_url"].as_str(), Some(expected.as_str()), "{name}");
        for text in ["summary", "description"] {
            assert!(annotations[text].as_str().is_some_and(|text| text.ends_with('.')), "{name} has no {text}");
        }
        let severity = alert.body["labels"]["severity"].as_str().unwrap_or_default();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: severity {severity:?}");
    }
    assert_eq!(sections.len(), alerts().len(), "a section for each alert, and no other: {sections:?}");
    let titles: BTreeSet<String> = panels().into_iter().map(|panel| panel.title).collect();
    for (line, quoted) in runbook.lines().flat_map(|line| files::panels_named(line).into_iter().map(move |q| (line, q)))
    {
        assert!(titles.iter().any(|title| title.starts_with(&quoted)), "no panel {quoted:?}: {line}");
    }
}

/// The metric that a series belongs to: a histogram has several.
fn metric_of(series: &str) -> Option<&'static Metric> {
    ALL.iter().find(|metric| {
        let parts = ["_bucket", "_sum", "_count"].map(|part| format!("{}{part}", metric.name));
        match metric.kind {
            Kind::Histogram(_) => parts.iter().any(|part| part == series),
            _ => metric.name == series,
        }
    })
}

/// The labels of each recorded series, as far as its name and its expression tell.
fn recorded_labels() -> BTreeMap<String, Vec<String>> {
    recordings().into_iter().map(|rule| (rule.name, promql::grouped(&rule.expr))).collect()
}

#[test]
fn what_rules_and_dashboards_ask_for_is_emitted() {
    let recorded = recorded_labels();
    let mut problems = Vec::new();
    for query in queries() {
        let selectors = promql::selectors(&query.expr);
        assert!(!selectors.is_empty(), "{}: {}", query.place, query.expr);
        let mut labels: BTreeSet<&str> = ADDED_LABELS.into();
        for selector in &selectors {
            let own: Vec<&str> = match (metric_of(&selector.name), recorded.get(&selector.name)) {
                (Some(metric), _) => metric.labels.to_vec(),
                (_, Some(labels)) => labels.iter().map(String::as_str).collect(),
                _ if MADE_BY_PROMETHEUS.contains(&selector.name.as_str()) => vec!["alertstate"],
                _ => {
                    problems.push(format!("{}: nothing emits or records {}", query.place, selector.name));
                    continue;
                }
            };
            for matcher in selector.matchers.iter().filter(|matcher| !ADDED_LABELS.contains(&matcher.label.as_str())) {
                if !own.contains(&matcher.label.as_str()) {
                    problems.push(format!("{}: {} has no label {}", query.place, selector.name, matcher.label));
                }
            }
            labels.extend(own);
        }
        let unknown = promql::grouped(&query.expr).into_iter().filter(|label| !labels.contains(label.as_str()));
        problems.extend(unknown.map(|label| format!("{}: nothing there has the label {label}", query.place)));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_recording_is_named_after_its_labels_and_used() {
    let used: BTreeSet<String> =
        queries().iter().flat_map(|query| promql::selectors(&query.expr)).map(|selector| selector.name).collect();
    for (name, labels) in recorded_labels() {
        assert!(used.contains(&name), "{name} is recorded for nobody");
        let level = name.split(':').next().unwrap_or_default();
        assert!(labels.iter().any(|label| label == level), "{name}: {labels:?}");
    }
}

#[test]
fn panels_explain_themselves_and_fit_beside_each_other() {
    let all = dashboards();
    assert_eq!(all.len(), 2);
    for (file, board) in &all {
        assert_eq!(format!("{}.json", board["uid"].as_str().expect("a uid")), *file);
        let variables: BTreeSet<&str> = board["templating"]["list"]
            .as_array()
            .expect("variables")
            .iter()
            .filter_map(|v| v["name"].as_str())
            .collect();
        let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
        for panel in board["panels"].as_array().expect("panels") {
            let title = panel["title"].as_str().expect("a title");
            assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{file}: the id of {title:?} is taken");
            let place = |side: &str| panel["gridPos"][side].as_u64().expect("a place");
            for (x, y) in (0..place("w")).flat_map(|x| (0..place("h")).map(move |y| (x, y))) {
                let cell = (place("x") + x, place("y") + y);
                assert!(cell.0 < 24 && cells.insert(cell), "{file}: {title:?} lies over another panel");
            }
            if panel["type"] == "row" {
                continue;
            }
            assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{file}: {title:?}");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{file}: {title:?} has no unit");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{file}: {title:?}");
        }
        let text = board["panels"].to_string();
        for variable in files::variables_in(&text) {
            assert!(variables.contains(variable.as_str()), "{file}: no variable {variable}");
        }
    }
}
