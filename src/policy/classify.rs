//! From the facts of a call to what they mean and what happens next.

use std::fmt::Write as _;
use std::time::Duration;

use uuid::Uuid;

use super::backoff::{Delay, RetryPolicy, delay};
use super::headers;
use crate::job::outcome::{Answer, HandlerAnswer, HttpAnswer, Outcome};
use crate::job::verdict::{Class, DeadReason, Verdict, WaitReason};

/// Most characters of an answer's body that are shown to people.
pub const DETAIL_CHARS_MAX: usize = 300;

/// What an endpoint's answers mean.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointRules {
    /// Statuses that mean "slow down".
    pub rate_limited_status: Vec<u16>,
    /// A place in a JSON body that means "slow down", whatever the status.
    pub rate_limited_body: Option<BodyRule>,
    /// Statuses of failures that may pass. 2xx is never one.
    pub transient_status: Vec<StatusRange>,
    /// A call that may have had its effect is made again; otherwise it becomes a dead letter "ambiguous".
    pub retry_unknown: bool,
}

impl Default for EndpointRules {
    fn default() -> Self {
        Self {
            rate_limited_status: vec![429],
            rate_limited_body: None,
            transient_status: vec![408.into(), 425.into(), StatusRange { first: 500, last: 599 }],
            retry_unknown: true,
        }
    }
}

impl EndpointRules {
    /// Whether the body of a 2xx answer has to be read to know what it means.
    pub fn needs_body_of_2xx(&self) -> bool {
        self.rate_limited_body.is_some()
    }
}

/// Statuses from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl StatusRange {
    /// Whether `status` is in the range.
    pub fn contains(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

impl From<u16> for StatusRange {
    fn from(status: u16) -> Self {
        Self { first: status, last: status }
    }
}

/// A value at a place in a JSON body.
#[derive(Debug, Clone, PartialEq)]
pub struct BodyRule {
    /// JSON pointer (RFC 6901).
    pub pointer: String,
    /// What has to be there.
    pub equals: serde_json::Value,
}

impl BodyRule {
    fn matches(&self, body: &[u8]) -> bool {
        serde_json::from_slice::<serde_json::Value>(body)
            .is_ok_and(|json| json.pointer(&self.pointer) == Some(&self.equals))
    }
}

/// What a call's facts mean and what follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// What they mean.
    pub class: Class,
    /// What happens to the job.
    pub verdict: Verdict,
    /// What the server asked us to wait, uncut; only of failures.
    pub retry_after: Option<Duration>,
    /// The call may have had an effect that nobody saw.
    pub effect_possible: bool,
    /// For a person; empty when it worked.
    pub detail: String,
}

/// Judges call number `attempt` (1 for the first) of at most `max_attempts`.
pub fn judge(
    rules: &EndpointRules,
    retry: &RetryPolicy,
    max_attempts: u32,
    attempt: u32,
    instance: Uuid,
    outcome: &Outcome,
) -> Judgement {
    let Reading { class, retry_after, effect_possible, detail } = read(rules, outcome);
    let dead = |reason, detail: String| Verdict::Dead { reason, detail };
    let verdict = match class {
        Class::Ok => Verdict::Done,
        Class::Permanent => dead(DeadReason::Failed, detail.clone()),
        _ if effect_possible && !rules.retry_unknown => dead(DeadReason::Ambiguous, detail.clone()),
        _ if attempt >= max_attempts => {
            dead(DeadReason::Exhausted, format!("attempt {attempt} of {max_attempts}: {detail}"))
        }
        _ => {
            let Delay { wait, capped } = delay(retry, attempt, retry_after, instance);
            let reason = if class == Class::RateLimited { WaitReason::RateLimited } else { WaitReason::Transient };
            Verdict::Retry { at: outcome.ended_at.plus(wait), delay: wait, reason, capped }
        }
    };
    Judgement { class, verdict, retry_after, effect_possible, detail }
}

/// What an outcome says, before the job's history is looked at.
struct Reading {
    class: Class,
    retry_after: Option<Duration>,
    effect_possible: bool,
    detail: String,
}

impl Reading {
    fn of(class: Class, detail: impl Into<String>) -> Self {
        Self { class, retry_after: None, effect_possible: class == Class::Unknown, detail: detail.into() }
    }
}

fn read(rules: &EndpointRules, outcome: &Outcome) -> Reading {
    match &outcome.answer {
        Answer::Http(http) => read_http(rules, http, outcome),
        Answer::NotSent(why) => Reading::of(Class::NotSent, why),
        Answer::NoAnswer(why) => Reading::of(Class::Unknown, why),
        Answer::Impossible(why) => Reading::of(Class::Permanent, why),
        Answer::Handler(handler) => match handler {
            HandlerAnswer::Done => Reading::of(Class::Ok, ""),
            HandlerAnswer::RateLimited { retry_after } => {
                Reading { retry_after: *retry_after, ..Reading::of(Class::RateLimited, "rate limited") }
            }
            HandlerAnswer::Retry(why) => Reading::of(Class::Transient, why),
            HandlerAnswer::Failed(why) => Reading::of(Class::Permanent, why),
            // it stopped somewhere in the middle: like a call without an answer
            HandlerAnswer::Panicked(why) => Reading::of(Class::Unknown, format!("handler panicked: {why}")),
        },
    }
}

fn read_http(rules: &EndpointRules, http: &HttpAnswer, outcome: &Outcome) -> Reading {
    let class = class_of(rules, http);
    if class == Class::Ok {
        return Reading::of(class, "");
    }
    Reading {
        retry_after: headers::retry_after(http, outcome.ended_at),
        // a gateway that gave up waiting does not know what happened behind it
        effect_possible: http.status == 504,
        ..Reading::of(class, describe(http))
    }
}

fn class_of(rules: &EndpointRules, http: &HttpAnswer) -> Class {
    let limited = rules.rate_limited_status.contains(&http.status)
        || rules.rate_limited_body.as_ref().is_some_and(|rule| rule.matches(&http.body));
    if limited {
        Class::RateLimited
    } else if (200..300).contains(&http.status) {
        Class::Ok
    } else if rules.transient_status.iter().any(|range| range.contains(http.status)) {
        Class::Transient
    } else {
        Class::Permanent
    }
}

/// `429 Too Many Requests: slow down`
fn describe(http: &HttpAnswer) -> String {
    let mut text = http.status.to_string();
    let name = http::StatusCode::from_u16(http.status).ok().and_then(|status| status.canonical_reason());
    if let Some(name) = name {
        text.push(' ');
        text.push_str(name);
    }
    let shown = &http.body[..http.body.len().min(DETAIL_CHARS_MAX * 4)];
    let body = String::from_utf8_lossy(shown);
    let body = body.trim();
    if !body.is_empty() {
        text.push_str(": ");
        for c in body.chars().take(DETAIL_CHARS_MAX) {
            if misleads(c) {
                // writing to a String cannot fail
                let _ = write!(text, "{}", c.escape_unicode());
            } else if c.is_control() {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        if body.chars().nth(DETAIL_CHARS_MAX).is_some() || http.body.len() > shown.len() {
            text.push('…');
        }
    }
    text
}

/// Characters that turn or break a line of text without being control characters.
fn misleads(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::clock::Timestamp;

    const ENDED: Timestamp = Timestamp::from_secs(1_000_000);

    fn outcome(answer: Answer) -> Outcome {
        Outcome { started_at: ENDED, ended_at: ENDED, answer }
    }

    fn http(status: u16, headers: &[(&str, &str)], body: &str) -> Outcome {
        let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        outcome(Answer::Http(HttpAnswer { status, headers, body: Bytes::copy_from_slice(body.as_bytes()) }))
    }

    fn plain() -> RetryPolicy {
        RetryPolicy { jitter: 0.0, ..RetryPolicy::default() }
    }

    fn judged(rules: &EndpointRules, attempt: u32, outcome: &Outcome) -> Judgement {
        judge(rules, &plain(), 5, attempt, Uuid::nil(), outcome)
    }

    fn retry(minutes: u64, reason: WaitReason) -> Verdict {
        let delay = Duration::from_mins(minutes);
        Verdict::Retry { at: ENDED.plus(delay), delay, reason, capped: false }
    }

    #[test]
    fn default_meaning_of_every_status() {
        let class = |status| judged(&EndpointRules::default(), 1, &http(status, &[], "")).class;
        for status in 100..=599 {
            let expect = match status {
                200..=299 => Class::Ok,
                429 => Class::RateLimited,
                408 | 425 | 500..=599 => Class::Transient,
                _ => Class::Permanent,
            };
            assert_eq!(class(status), expect, "{status}");
        }
    }

    #[test]
    fn facts_lead_to_verdicts() {
        let rules = EndpointRules::default();
        let dead = |reason, detail: &str| Verdict::Dead { reason, detail: detail.into() };
        let table = [
            (http(204, &[], ""), 1, Class::Ok, Verdict::Done, false),
            (http(429, &[], ""), 1, Class::RateLimited, retry(2, WaitReason::RateLimited), false),
            (
                http(429, &[("retry-after", "3600")], ""),
                1,
                Class::RateLimited,
                retry(60, WaitReason::RateLimited),
                false,
            ),
            (http(503, &[], ""), 3, Class::Transient, retry(8, WaitReason::Transient), false),
            (http(504, &[], ""), 1, Class::Transient, retry(2, WaitReason::Transient), true),
            (
                http(500, &[], "boom"),
                5,
                Class::Transient,
                dead(DeadReason::Exhausted, "attempt 5 of 5: 500 Internal Server Error: boom"),
                false,
            ),
            (
                http(422, &[], "no"),
                1,
                Class::Permanent,
                dead(DeadReason::Failed, "422 Unprocessable Entity: no"),
                false,
            ),
            (http(302, &[], ""), 1, Class::Permanent, dead(DeadReason::Failed, "302 Found"), false),
            (outcome(Answer::NotSent("refused".into())), 2, Class::NotSent, retry(4, WaitReason::Transient), false),
            (outcome(Answer::NoAnswer("timeout".into())), 1, Class::Unknown, retry(2, WaitReason::Transient), true),
            (outcome(Answer::Impossible("bad".into())), 1, Class::Permanent, dead(DeadReason::Failed, "bad"), false),
            (outcome(Answer::Handler(HandlerAnswer::Done)), 1, Class::Ok, Verdict::Done, false),
            (
                outcome(Answer::Handler(HandlerAnswer::Panicked("x".into()))),
                1,
                Class::Unknown,
                retry(2, WaitReason::Transient),
                true,
            ),
            (
                outcome(Answer::Handler(HandlerAnswer::RateLimited { retry_after: Some(Duration::from_mins(30)) })),
                1,
                Class::RateLimited,
                retry(30, WaitReason::RateLimited),
                false,
            ),
        ];
        for (outcome, attempt, class, verdict, effect_possible) in table {
            let judged = judged(&rules, attempt, &outcome);
            assert_eq!(
                (judged.class, judged.verdict, judged.effect_possible),
                (class, verdict, effect_possible),
                "{outcome:?}"
            );
        }
    }

    #[test]
    fn what_may_have_happened_is_not_repeated_where_that_is_forbidden() {
        let rules = EndpointRules { retry_unknown: false, ..EndpointRules::default() };
        for outcome in [outcome(Answer::NoAnswer("timeout".into())), http(504, &[], "")] {
            let verdict = judged(&rules, 1, &outcome).verdict;
            assert!(matches!(verdict, Verdict::Dead { reason: DeadReason::Ambiguous, .. }), "{verdict:?}");
        }
        assert_eq!(judged(&rules, 1, &http(503, &[], "")).verdict, retry(2, WaitReason::Transient));
    }

    #[test]
    fn a_body_rule_finds_a_limit_behind_any_status() {
        let rule = BodyRule { pointer: "/errors/0/extensions/code".into(), equals: json!("THROTTLED") };
        let rules = EndpointRules { rate_limited_body: Some(rule), ..EndpointRules::default() };
        let throttled = r#"{"errors":[{"extensions":{"code":"THROTTLED"}}]}"#;
        for status in [200, 403, 500] {
            assert_eq!(judged(&rules, 1, &http(status, &[], throttled)).class, Class::RateLimited);
        }
        assert_eq!(judged(&rules, 1, &http(200, &[], r#"{"errors":[]}"#)).class, Class::Ok);
        assert_eq!(judged(&rules, 1, &http(200, &[], "not json")).class, Class::Ok);
        assert!(rules.needs_body_of_2xx() && !EndpointRules::default().needs_body_of_2xx());
    }

    #[test]
    fn detail_is_short_and_on_one_line() {
        let detail = |body: &str| judged(&EndpointRules::default(), 1, &http(429, &[], body)).detail;
        assert_eq!(detail("slow\n\u{1b}[31mdown\u{202e}"), "429 Too Many Requests: slow\\n\\u{1b}[31mdown\\u{202e}");
        assert_eq!(detail("  "), "429 Too Many Requests");
        let long = detail(&"ü".repeat(1_000));
        assert_eq!(long.chars().count(), "429 Too Many Requests: ".len() + DETAIL_CHARS_MAX + 1);
    }

    proptest! {
        #[test]
        fn every_answer_is_judged(
            status: u16, attempt: u32, max_attempts: u32, body: Vec<u8>, retry_after in ".{0,40}", retry_unknown: bool,
        ) {
            let rules = EndpointRules { retry_unknown, ..EndpointRules::default() };
            let headers = vec![("retry-after".to_owned(), retry_after)];
            let outcome = outcome(Answer::Http(HttpAnswer { status, headers, body: body.into() }));
            let judged = judge(&rules, &plain(), max_attempts, attempt, Uuid::nil(), &outcome);
            prop_assert_eq!(judged.class == Class::Ok, matches!(judged.verdict, Verdict::Done));
            prop_assert_eq!(judged.class == Class::Ok, judged.detail.is_empty());
            prop_assert!(!judged.detail.chars().any(char::is_control));
            if let Verdict::Retry { at, delay, .. } = judged.verdict {
                prop_assert!(attempt < max_attempts && delay >= Duration::from_mins(2) && at == ENDED.plus(delay));
            }
        }
    }
}
