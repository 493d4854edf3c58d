//! Incidents and alerts are one truth: the same kinds, and the same numbers in the rules as in `policy::health`.

use std::collections::BTreeSet;
use std::time::Duration;

use lanes::policy::health;

use super::files::{Rule, alerts};

/// A second alert of a kind that has one: the same trouble, far worse.
const WORSE: [(&str, health::Kind); 1] = [("LanesRetryExhaustionBudgetBurn", health::Kind::Exhaustion)];

#[test]
fn every_kind_of_incident_has_its_alert_and_every_alert_its_kind() {
    let told: BTreeSet<String> = health::Kind::ALL.iter().map(|kind| kind.alert().to_owned()).collect();
    let worse = WORSE.iter().map(|(alert, _)| (*alert).to_owned());
    let expected: BTreeSet<String> = told.into_iter().chain(worse).collect();
    let names: BTreeSet<String> = alerts().into_iter().map(|alert| alert.name).collect();
    assert_eq!(expected, names);
}

fn alert(name: &str) -> Rule {
    alerts().into_iter().find(|alert| alert.name == name).unwrap_or_else(|| panic!("there is no {name}"))
}

/// `15m` as seconds.
fn lasts(alert: &Rule) -> Option<u64> {
    let text = alert.body["for"].as_str()?;
    let (number, unit) = text.split_at(text.len() - 1);
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        other => panic!("{}: for {other:?}", alert.name),
    };
    Some(number.parse::<u64>().expect("a number") * factor)
}

/// How often `text` stands in an expression, not as the beginning of a longer number.
fn compares(alert: &Rule, text: &str) -> usize {
    let expr = alert.expr.split_whitespace().collect::<Vec<_>>().join(" ") + " ";
    let ends = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_digit() || next == '.');
    expr.match_indices(text).filter(|(at, _)| ends(&expr[at + text.len()..])).count()
}

#[test]
fn alerts_have_the_thresholds_of_incidents() {
    let seconds = |duration: Duration| duration.as_secs();
    let minutes = |duration: Duration| format!("[{}m]", duration.as_secs() / 60);
    let per_second = health::SPIKE_PER_MINUTE_MIN / 60.0;
    let burn = format!("> {} * {}", health::EXHAUSTED_BURN, health::EXHAUSTED_MAX);
    let saturated = format!("{})) >= {}", minutes(health::SATURATED_AFTER), health::SATURATED_MIN);
    let died = format!("(increase(lanes_jobs_taken_over_total{})) > 0", minutes(health::DIED_TOLD_FOR));
    let fails = format!("(increase(lanes_store_errors_total{})) > 0", minutes(health::STORE_FAILS_FOR));
    let table: [(&str, String, usize); 21] = [
        ("LanesRetryExhaustionBudgetBurn", burn, 2),
        ("LanesRetryExhaustionBudgetBurn", format!(">= {}", health::EXHAUSTED_MIN), 1),
        ("LanesRetryExhaustionHigh", format!("> {}", health::EXHAUSTED_MAX), 2),
        ("LanesRetryExhaustionHigh", format!(">= {}", health::EXHAUSTED_MIN), 1),
        ("LanesRateLimitSpike", format!("> {per_second}"), 1),
        ("LanesRateLimitSpike", format!("> {}", health::SPIKE_SHARE_MIN), 1),
        ("LanesRateLimitSpike", format!("> {} *", health::SPIKE_FACTOR), 1),
        ("LanesRateLimitSaturated", format!("> {}", health::SATURATED_SHARE_MAX), 1),
        ("LanesRateLimitSaturated", saturated, 1),
        ("LanesRealtimeWaitHigh", format!("> {}", seconds(health::REALTIME_WAIT_MAX)), 1),
        ("LanesBacklogNotDraining", format!("> {}", seconds(health::AGE_MAX)), 1),
        ("LanesBacklogNotDraining", format!("> {}", health::AGEING_MIN), 1),
        ("LanesBackoffRising", format!("> {}", seconds(health::BACKOFF_MIN)), 1),
        ("LanesBackoffRising", format!("> {} *", health::BACKOFF_FACTOR), 1),
        ("LanesDurationTrendingUp", format!("> {} *", health::DURATION_FACTOR), 1),
        ("LanesDurationTrendingUp", format!(">= {}", health::DURATION_JOBS_MIN), 2),
        ("LanesDeadLettersPilingUp", format!("> {}", health::LETTERS_MIN), 1),
        ("LanesDeadLettersPilingUp", format!("> {}", health::LETTERS_NEW_MIN), 1),
        ("LanesWorkerDied", died, 1),
        ("LanesStoreErrors", fails, 1),
        ("LanesLanePausedLong", "== 1".to_owned(), 1),
    ];
    for (name, text, times) in table {
        assert_eq!(compares(&alert(name), &text), times, "{name}: {text}");
    }
}

#[test]
fn alerts_wait_as_long_as_incidents_look_back() {
    for (name, expected) in [
        ("LanesRateLimitSaturated", health::SATURATED_AFTER),
        ("LanesCircuitOpen", health::CIRCUIT_OPEN_AFTER),
        ("LanesLaneStarved", health::STUCK_AFTER),
        ("LanesStoreErrors", health::STORE_FAILS_FOR),
        ("LanesLanePausedLong", health::PAUSED_LONG),
    ] {
        assert_eq!(lasts(&alert(name)), Some(expected.as_secs()), "{name}");
    }
}
