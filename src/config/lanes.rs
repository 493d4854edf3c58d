//! `[lanes.X]` and `[lanes.X.retry]`.

use std::time::Duration;

use super::budgets::cap;
use super::problem::similar;
use super::reader::Reader;
use super::specs::LaneSpec;
use super::value::{Word, duration, duration_text, integer, number, text, word};
use crate::job::control::CONCURRENCY_MAX;
use crate::job::{EndpointName, LaneName};
use crate::policy::backoff::RetryPolicy;
use crate::policy::control::usual_prefetch;

/// Calls in flight of one lane in one worker, when nothing is configured.
const CONCURRENCY: u32 = 8;
/// Names of queues that are not lanes'.
const RESERVED: [&str; 1] = ["dead"];

/// All lanes, in the order of the file.
pub fn read(root: &Reader<'_>) -> Vec<LaneSpec> {
    let endpoints = root.names("endpoints");
    check_alike(root, "lanes");
    let lanes: Vec<_> =
        root.named_tables("lanes", |name, table| lane(name, table, &endpoints)).into_iter().flatten().collect();
    if root.names("lanes").is_empty() {
        root.problem("lanes", "there is no lane, so there is nothing to do", Some("add a table [lanes.bulk]"));
    }
    let reserved: f64 = lanes.iter().map(|lane| lane.reserve).sum();
    if reserved > 1.0 {
        let message = format!("the lanes reserve {reserved:.2} of every budget, more than all of it");
        root.problem("lanes", &message, Some("reserve is a share: together at most 1"));
    }
    lanes
}

fn lane(name: &str, table: &Reader<'_>, endpoints: &[&str]) -> Option<LaneSpec> {
    const MODES: &[(&str, bool)] = &[("parallel", false), ("sequential", true)];
    let concurrency = table.get_or("concurrency", CONCURRENCY, integer(1..=CONCURRENCY_MAX));
    let usual = u32::from(usual_prefetch(concurrency));
    let prefetch = table.get_or("prefetch", usual, integer(1..=u32::from(u16::MAX)));
    if prefetch < concurrency {
        let message =
            format!("is {prefetch}, less than concurrency, which is {concurrency}: calls would never be that many");
        table.problem("prefetch", &message, Some("remove it, or make it larger"));
    }
    let reserve = table.get_or("reserve", 0.0, number(0.0..=1.0));
    let mode = table.get_or("mode", Word { word: "parallel", value: false }, word(MODES));
    let global_concurrency = cap(table, "global_concurrency");
    if mode.value {
        table.not_yet("mode");
    }
    let default_endpoint = known_endpoint(table, "default_endpoint", endpoints);
    let retry = table.table("retry", retry);
    if RESERVED.contains(&name) {
        table.table_problem(&format!("the name {name:?} is taken by lanes itself"), "choose another name");
    }
    match LaneName::new(name) {
        Ok(name) => Some(LaneSpec {
            name,
            concurrency,
            global_concurrency,
            prefetch: u16::try_from(prefetch).unwrap_or(u16::MAX),
            reserve,
            retry,
            default_endpoint,
        }),
        Err(error) => {
            table.table_problem(&error.to_string(), "rename the lane");
            None
        }
    }
}

/// The endpoint that `key` names, which has to be configured.
pub fn known_endpoint(table: &Reader<'_>, key: &'static str, endpoints: &[&str]) -> Option<EndpointName> {
    let name = table.get(key, text)?;
    if endpoints.contains(&name.as_str()) {
        return EndpointName::new(&name).ok(); // a bad name is a problem of its own table
    }
    let help = match similar(&name, endpoints.iter().copied()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("add a table [endpoints.{name}]"),
    };
    table.problem(key, &format!("there is no endpoint {name:?}"), Some(&help));
    None
}

/// Names that a variable could not tell apart.
pub fn check_alike(root: &Reader<'_>, key: &str) {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let names = root.names(key);
    for (at, name) in names.iter().enumerate() {
        if let Some(other) = names[..at].iter().find(|other| plain(other) == plain(name)) {
            let message = format!("{other:?} and {name:?} differ only in case or '-' and '_'");
            root.problem(key, &message, Some("rename one: metrics, queues and variables would mix them up"));
        }
    }
}

fn retry(table: &Reader<'_>) -> RetryPolicy {
    const DAY: Duration = Duration::from_hours(24);
    const LEAST: Duration = Duration::from_millis(1);
    let usual = RetryPolicy::default();
    let first_delay = table.get_or("first_delay", usual.first_delay, duration(LEAST..=30 * DAY));
    let max_delay = table.get_or("max_delay", usual.max_delay, duration(LEAST..=30 * DAY));
    if first_delay > max_delay {
        let help = Some("doubling starts at first_delay and ends at max_delay");
        if table.is_set("first_delay") {
            let message = format!("is longer than max_delay, which is {}", duration_text(max_delay));
            table.problem("first_delay", &message, help);
        } else {
            let message = format!("is shorter than first_delay, which is {}", duration_text(first_delay));
            table.problem("max_delay", &message, help);
        }
    }
    RetryPolicy {
        max_attempts: table.get_or("max_attempts", usual.max_attempts, integer(1..=1_000)),
        first_delay,
        max_delay,
        jitter: table.get_or("jitter", usual.jitter, number(0.0..=1.0)),
        max_retry_after: table.get_or("max_retry_after", usual.max_retry_after, duration(Duration::ZERO..=30 * DAY)),
    }
}
