//! The fake API's book: what it answers to each call, and the count of everything that it saw.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limiter::{Grant, Limiter};
use crate::clock::Timestamp;

/// One call in so many is answered with a 503, as if a server of the API were restarting.
const HICCUP_EVERY: u64 = 97;
/// What a `Retry-After` of the API says at least: it speaks in whole seconds, as most do.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
/// Real-time latencies that are kept, the newest: an hour of webhooks.
const SAMPLES_MAX: usize = 100_000;
/// Jobs that are remembered to tell a needless call; more than a demo can make.
const JOBS_MAX: usize = 1_000_000;

/// The body of the demo's calls: a contact of a customer database.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Contact {
    /// Its e-mail address; the API refuses a text without `@`.
    pub email: String,
    /// Its account; [`IN_MAINTENANCE`] is never available.
    pub account: String,
    /// When the event happened, microseconds since 1970. Only webhooks have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at_us: Option<i64>,
}

/// The account for which the API always answers 503.
pub const IN_MAINTENANCE: &str = "in-maintenance";

/// A call as the API gets it.
#[derive(Debug, Clone)]
pub struct Call {
    /// `Lanes-Lane`.
    pub lane: String,
    /// `Lanes-Tenant`.
    pub tenant: String,
    /// `Lanes-Job-Id`.
    pub job: String,
    /// `Idempotency-Key`: an operator's replay has a new one.
    pub idempotency_key: String,
    /// The body.
    pub contact: Contact,
}

/// What the API answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 200.
    Ok {
        /// `X-RateLimit-Remaining`.
        remaining: u64,
    },
    /// 422: never going to work.
    Refused {
        /// `X-RateLimit-Remaining`.
        remaining: u64,
    },
    /// 429.
    Limited {
        /// `Retry-After`, whole seconds.
        retry_after: Duration,
    },
    /// 503.
    Unavailable,
}

/// Calls counted by what they were answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// All of them.
    pub total: u64,
    /// Answered 200.
    pub ok: u64,
    /// Answered 429.
    pub limited: u64,
    /// Answered 422.
    pub refused: u64,
    /// Answered 503.
    pub unavailable: u64,
    /// That were not their job's first.
    pub retries: u64,
    /// Answered 200, and not their job's first.
    pub retried_ok: u64,
    /// Made for a job that had been answered 200 or 422 before: needless.
    pub needless: u64,
    /// In flight now.
    pub in_flight: u64,
}

impl Calls {
    fn count(&mut self, answer: Answer, retry: bool, needless: bool) {
        self.total += 1;
        self.retries += u64::from(retry);
        self.needless += u64::from(needless);
        match answer {
            Answer::Ok { .. } => {
                self.ok += 1;
                self.retried_ok += u64::from(retry);
            }
            Answer::Limited { .. } => self.limited += 1,
            Answer::Refused { .. } => self.refused += 1,
            Answer::Unavailable => self.unavailable += 1,
        }
    }
}

/// One webhook's way from its publish to its first call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When the call arrived.
    pub at: Timestamp,
    /// Microseconds since the publish.
    pub micros: u64,
}

#[derive(Debug, Default)]
struct JobSeen {
    calls: u32,
    over: bool,
}

/// Everything the API knows.
#[derive(Debug)]
pub struct Book {
    per_minute: u64,
    burst: u64,
    total: u64,
    limiters: HashMap<String, Limiter>,
    jobs: HashMap<JobKey, JobSeen>,
    by_lane: BTreeMap<String, Calls>,
    by_tenant: BTreeMap<String, Calls>,
    samples: VecDeque<Sample>,
    unchecked: u64,
}

/// Lane, tenant, job id, and the generation of an operator's replay.
type JobKey = [String; 4];

impl Book {
    /// The book of an API that allows each tenant `per_minute` calls a minute, a second's worth of them at once.
    pub fn new(per_minute: u64) -> Self {
        Self {
            per_minute,
            burst: burst(per_minute),
            total: 0,
            limiters: HashMap::new(),
            jobs: HashMap::new(),
            by_lane: BTreeMap::new(),
            by_tenant: BTreeMap::new(),
            samples: VecDeque::new(),
            unchecked: 0,
        }
    }

    /// A call arrives at `now`: what is it answered?
    pub fn arrive(&mut self, call: &Call, now: Timestamp) -> Answer {
        self.total += 1;
        let answer = self.answer(call, now);
        let (retry, needless) = self.remember(call, answer);
        if let (Some(sent_at), false) = (call.contact.sent_at_us, retry) {
            if self.samples.len() == SAMPLES_MAX {
                self.samples.pop_front();
            }
            let waited = now.since(Timestamp::from_micros(sent_at));
            self.samples.push_back(Sample { at: now, micros: u64::try_from(waited.as_micros()).unwrap_or(u64::MAX) });
        }
        for calls in self.places(call) {
            calls.count(answer, retry, needless);
            calls.in_flight += 1;
        }
        answer
    }

    /// Its answer has been sent.
    pub fn leave(&mut self, call: &Call) {
        for calls in self.places(call) {
            calls.in_flight = calls.in_flight.saturating_sub(1);
        }
    }

    fn places(&mut self, call: &Call) -> [&mut Calls; 2] {
        [self.by_lane.entry(call.lane.clone()).or_default(), self.by_tenant.entry(call.tenant.clone()).or_default()]
    }

    fn answer(&mut self, call: &Call, now: Timestamp) -> Answer {
        if call.contact.account == IN_MAINTENANCE || self.total.is_multiple_of(HICCUP_EVERY) {
            return Answer::Unavailable;
        }
        let (per_minute, burst) = (self.per_minute, self.burst);
        let limiter = self.limiters.entry(call.tenant.clone()).or_insert_with(|| Limiter::new(per_minute, burst));
        match limiter.ask(now) {
            Grant::Limited { retry_after } => Answer::Limited { retry_after: whole_seconds(retry_after) },
            Grant::Allowed { remaining } if call.contact.email.contains('@') => Answer::Ok { remaining },
            Grant::Allowed { remaining } => Answer::Refused { remaining },
        }
    }

    /// Whether the job has been called before, and whether it was over.
    fn remember(&mut self, call: &Call, answer: Answer) -> (bool, bool) {
        let generation = call.idempotency_key.split_once(':').map_or("", |(_, generation)| generation);
        let key = [&*call.lane, &*call.tenant, &*call.job, generation].map(ToOwned::to_owned);
        if self.jobs.len() >= JOBS_MAX && !self.jobs.contains_key(&key) {
            self.unchecked += 1;
            return (false, false);
        }
        let seen = self.jobs.entry(key).or_default();
        let (retry, needless) = (seen.calls > 0, seen.over);
        seen.calls += 1;
        seen.over |= matches!(answer, Answer::Ok { .. } | Answer::Refused { .. });
        (retry, needless)
    }

    /// Calls of a lane.
    pub fn lane(&self, lane: &str) -> Calls {
        self.by_lane.get(lane).copied().unwrap_or_default()
    }

    /// Calls of a tenant.
    pub fn tenant(&self, tenant: &str) -> Calls {
        self.by_tenant.get(tenant).copied().unwrap_or_default()
    }

    /// Calls of jobs that are not remembered, because there are more than the book has room for.
    pub fn unchecked(&self) -> u64 {
        self.unchecked
    }

    /// Microseconds that webhooks took whose call arrived from `from` until before `to`, in order of size.
    pub fn latencies(&self, from: Timestamp, to: Timestamp) -> Vec<u64> {
        let first = self.samples.partition_point(|sample| sample.at < from);
        let mut micros: Vec<u64> =
            self.samples.range(first..).take_while(|sample| sample.at < to).map(|sample| sample.micros).collect();
        micros.sort_unstable();
        micros
    }
}

/// Calls that a tenant may make at once: what a second allows.
pub fn burst(per_minute: u64) -> u64 {
    (per_minute / 60).max(1)
}

fn whole_seconds(wait: Duration) -> Duration {
    let secs = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Duration::from_secs(secs).max(RETRY_AFTER_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(tenant: &str, job: &str, attempt: &str) -> Call {
        Call {
            lane: "bulk".to_owned(),
            tenant: tenant.to_owned(),
            job: job.to_owned(),
            idempotency_key: format!("0190-{attempt}"),
            contact: Contact { email: "a@example.com".to_owned(), account: tenant.to_owned(), sent_at_us: None },
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_secs(1_000)
    }

    #[test]
    fn each_tenant_has_a_limit_of_its_own() {
        let mut book = Book::new(120);
        assert_eq!(book.arrive(&call("globex", "1", ""), now()), Answer::Ok { remaining: 1 });
        assert_eq!(book.arrive(&call("globex", "2", ""), now()), Answer::Ok { remaining: 0 });
        let limited = Answer::Limited { retry_after: Duration::from_secs(1) };
        assert_eq!(book.arrive(&call("globex", "3", ""), now()), limited);
        assert_eq!(book.arrive(&call("acme", "1", ""), now()), Answer::Ok { remaining: 1 });
        assert_eq!((book.tenant("globex").ok, book.tenant("globex").limited, book.tenant("acme").ok), (2, 1, 1));
        assert_eq!((book.lane("bulk").total, book.lane("bulk").in_flight), (4, 4));
    }

    #[test]
    fn a_call_after_the_last_answer_is_needless_and_a_retry_is_not() {
        let mut book = Book::new(60);
        book.arrive(&call("globex", "1", ""), now());
        book.arrive(&call("globex", "2", ""), now());
        assert_eq!(book.lane("bulk").limited, 1);
        let later = now().plus(Duration::from_secs(5));
        book.arrive(&call("globex", "2", ""), later);
        assert_eq!((book.lane("bulk").retries, book.lane("bulk").retried_ok, book.lane("bulk").needless), (1, 1, 0));
        book.arrive(&call("globex", "1", ""), later);
        assert_eq!(book.lane("bulk").needless, 1, "job 1 had been answered 200");
        book.arrive(&call("globex", "1", ":g2"), later);
        assert_eq!(book.lane("bulk").needless, 1, "an operator asked for it again");
    }

    #[test]
    fn content_decides_between_refused_and_unavailable() {
        let mut book = Book::new(6_000);
        let mut broken = call("globex", "1", "");
        broken.contact.email = "nobody".to_owned();
        assert!(matches!(book.arrive(&broken, now()), Answer::Refused { .. }));
        let mut closed = call("globex", "2", "");
        closed.contact.account = IN_MAINTENANCE.to_owned();
        assert_eq!(book.arrive(&closed, now()), Answer::Unavailable);
    }

    #[test]
    fn latencies_are_those_of_first_calls_within_the_time_asked_for() {
        let mut book = Book::new(6_000);
        for (job, sent_ms, seen_ms) in [("1", 0, 7), ("2", 10, 13), ("2", 10, 500), ("3", 900, 901)] {
            let mut webhook = call("acme", job, "");
            webhook.contact.sent_at_us = Some(sent_ms * 1_000);
            book.arrive(&webhook, Timestamp::from_millis(seen_ms));
        }
        assert_eq!(book.latencies(Timestamp::EPOCH, Timestamp::from_millis(901)), [3_000, 7_000]);
    }
}
