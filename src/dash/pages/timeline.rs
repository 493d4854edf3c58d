//! What befell a job, in words and in order: every call, and why each wait was as long as it was.

use std::time::Duration;

use maud::{Markup, html};

use super::parts::{moment, took};
use crate::clock::Timestamp;
use crate::dash::mask;
use crate::governor::view::Hold;
use crate::observe::words::{self, duration, shorten};
use crate::store::{AttemptRecord, JobRow};

/// A shorter time between two steps is not worth a line.
const WORTH: Duration = Duration::from_millis(500);
/// Most characters of a failure.
const DETAIL_MAX: usize = 200;

/// One step.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// When; `None` = it lasts.
    at: Option<Timestamp>,
    kind: &'static str,
    mark: &'static str,
    text: String,
}

/// The steps of a job, the first one first.
pub(super) fn steps(row: &JobRow, attempts: &[AttemptRecord], hold: Option<&Hold>, now: Timestamp) -> Vec<Step> {
    let mut steps = vec![step(Some(row.published_at), "", "○", "published".to_owned())];
    let mut ready_at = row.published_at;
    for record in attempts {
        let waited = record.started_at.since(ready_at);
        if waited >= WORTH {
            let why = if ready_at == row.published_at {
                "until a worker took it and its budgets had room"
            } else {
                "until its turn came"
            };
            steps.push(step(None, "wait", "◷", format!("waited {} {why}", took(waited))));
        }
        steps.push(call(record));
        let ended = record.started_at.plus(Duration::from_micros(record.duration_us));
        ready_at = record.resume_at.unwrap_or(ended);
        if let Some(resume_at) = record.resume_at {
            steps.push(step(None, "wait", "◷", delay(record, resume_at.since(ended))));
        }
    }
    let kind = if row.ended_at.is_some() { "" } else { "now" };
    steps.push(step(row.ended_at, kind, "●", mask::text(&words::state_of(row, hold, now))));
    steps
}

fn step(at: Option<Timestamp>, kind: &'static str, mark: &'static str, text: String) -> Step {
    Step { at, kind, mark, text }
}

/// What a call did, in a line.
fn call(record: &AttemptRecord) -> Step {
    let number = if record.generation > 1 {
        format!("{}.{}", record.generation, record.attempt)
    } else {
        record.attempt.to_string()
    };
    let answer = match record.status {
        Some(status) => format!("answered {status}"),
        None => "got no answer".to_owned(),
    };
    let detail = shorten(&mask::text(&record.detail), DETAIL_MAX);
    let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
    let time = took(Duration::from_micros(record.duration_us));
    let text = format!("call {number} {answer} after {time} ({}){detail}", record.class.replace('_', " "));
    let ok = record.next == "done";
    step(Some(record.started_at), if ok { "good" } else { "bad" }, if ok { "✓" } else { "✕" }, text)
}

/// Why the wait after a call was as long as it was.
pub(super) fn delay(record: &AttemptRecord, waited: Duration) -> String {
    let time = duration(waited);
    let Some(asked) = record.retry_after_ms.map(Duration::from_millis) else {
        return format!("a wait of {time}: the delay after call {}, longer by some jitter", record.attempt);
    };
    // jitter makes waits longer, never shorter
    if asked.as_secs_f64() * 1.25 + 1.0 >= waited.as_secs_f64() {
        format!("a wait of {time}: the API asked for {} (Retry-After)", duration(asked))
    } else {
        format!(
            "a wait of {time}: the delay after call {} is longer than the {} that the API asked for (Retry-After)",
            record.attempt,
            duration(asked)
        )
    }
}

/// Steps as a list.
pub(super) fn show(steps: &[Step]) -> Markup {
    html! {
        ol.timeline {
            @for step in steps {
                li class=(step.kind) {
                    span.mark aria-hidden="true" { (step.mark) }
                    div {
                        @if let Some(at) = step.at { p.at { (moment(at)) } }
                        p { (step.text) }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(retry_after: Option<u64>) -> AttemptRecord {
        AttemptRecord {
            generation: 1,
            attempt: 2,
            started_at: Timestamp::from_secs(100),
            duration_us: 210_000,
            class: "rate_limited".to_owned(),
            status: Some(429),
            detail: "slow down, token=abc".to_owned(),
            retry_after_ms: retry_after,
            rate_headers: Vec::new(),
            next: "retry".to_owned(),
            reason: "rate_limited".to_owned(),
            resume_at: Some(Timestamp::from_secs(340)),
        }
    }

    #[test]
    fn a_delay_says_why_it_is_as_long_as_it_is() {
        let told = |asked, waited| delay(&record(asked), Duration::from_secs(waited));
        assert_eq!(told(None, 240), "a wait of 4m: the delay after call 2, longer by some jitter");
        assert_eq!(told(Some(300_000), 310), "a wait of 5m 10s: the API asked for 5m (Retry-After)");
        assert_eq!(
            told(Some(60_000), 240),
            "a wait of 4m: the delay after call 2 is longer than the 1m that the API asked for (Retry-After)"
        );
    }

    #[test]
    fn a_call_is_told_in_a_line_without_secrets() {
        let told = call(&record(None));
        assert_eq!(told.text, "call 2 answered 429 after 0.21 s (rate limited): slow down, token=•••");
    }
}
