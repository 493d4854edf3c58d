//! Events as log lines: at most one each, untrusted text only as quoted fields, `error` only where somebody must act.

use std::fmt::Write as _;
use std::time::Duration;

use tracing::{debug, error, info, trace, warn};

use crate::clock::Timestamp;
use crate::job::budget::Account;
use crate::job::event::{AttemptEvent, AttemptNext, Event};
use crate::job::verdict::{Class, DeadReason, WaitReason};
use crate::job::{Job, Tenant};

/// Most characters of a failure's text in a line; the journal of attempts has the rest.
const DETAIL_CHARS_MAX: usize = 300;
/// Most characters of all rate headers in a line.
const RATE_HEADERS_CHARS_MAX: usize = 1_000;
/// The target of all lines about jobs, for filters such as `lanes::job=debug`.
macro_rules! target {
    () => {
        "lanes::job"
    };
}

/// Writes the line of `event`, if it deserves one.
pub(super) fn write(event: &Event) {
    match event {
        Event::Attempt(attempt) => write_attempt(attempt),
        Event::Published { lane, source } => {
            trace!(target: target!(), lane = lane.as_str(), source, "published to {lane}");
        }
        Event::Duplicate { lane, instance, original } => {
            debug!(target: target!(), lane = lane.as_str(), %instance, %original, "dropped a duplicate in {lane}");
        }
        Event::Stale { lane } => debug!(target: target!(), lane = lane.as_str(), "dropped a stale copy in {lane}"),
        Event::Waiting { lane, reason } => {
            debug!(target: target!(), lane = lane.as_str(), reason = reason.as_str(), "job waits: {reason}");
        }
        Event::Started { job, waited, held_back } => {
            let (lane, waited_ms, held_back_ms) = (job.lane.as_str(), millis(*waited), held_back.map(millis));
            trace!(target: target!(), lane, instance = %job.instance, waited_ms, held_back_ms, "calling");
        }
        Event::Circuit { account, state, until, detail } => write_circuit(account, state, *until, detail),
        Event::LateResult { job, attempt, class, status } => warn!(
            target: target!(),
            lane = job.lane.as_str(),
            endpoint = job.endpoint.as_str(),
            tenant = job.tenant.as_str(),
            job_id = job.id.as_str(),
            instance = %job.instance,
            trace_id = trace_id(job),
            attempt,
            result = class.as_str(),
            status,
            "result came too late: the job had been taken over while {} was called", job.endpoint
        ),
        Event::Refused { lane, reason, detail } => warn!(
            target: target!(),
            lane = lane.as_str(),
            reason = reason.as_str(),
            detail = short(detail),
            "message refused in {lane}: {reason}; it is a dead letter"
        ),
        Event::Died { lane, endpoint, tenant, instance, reason, detail } => {
            let (lane_name, endpoint, tenant) = (lane.as_str(), endpoint.as_str(), tenant.as_str());
            let (reason_word, detail) = (reason.as_str(), short(detail));
            if *reason == DeadReason::Exhausted {
                error!(
                    target: target!(), lane = lane_name, endpoint, tenant, %instance, reason = reason_word, detail,
                    "retries exhausted in {lane}: see `lanes dead show {instance}`"
                );
            } else {
                warn!(
                    target: target!(), lane = lane_name, endpoint, tenant, %instance, reason = reason_word, detail,
                    "job died in {lane}: {reason}; see `lanes dead show {instance}`"
                );
            }
        }
        Event::Cancelled { lane } => info!(target: target!(), lane = lane.as_str(), "job cancelled in {lane}"),
        Event::TakenOver { lane, instance, takeovers } => warn!(
            target: target!(),
            lane = lane.as_str(),
            %instance,
            takeovers,
            "a worker died with a job of {lane}; it was given back"
        ),
        Event::Weak { lane, what } => {
            debug!(target: target!(), lane = lane.as_str(), what = ?what, "message in {lane} lacks something");
        }
    }
}

fn write_circuit(account: &Account, state: &str, until: Option<Timestamp>, detail: &str) {
    let (endpoint, tenant) = (account.endpoint.as_str(), account.tenant.as_ref().map(Tenant::as_str));
    if let Some(until) = until {
        warn!(
            target: target!(), endpoint, tenant, state, %until, detail = short(detail),
            "nothing is called of {endpoint} until {until}: then one call goes first"
        );
    } else {
        info!(target: target!(), endpoint, tenant, state, "{endpoint} works again: its pace rises");
    }
}

/// One line with everything that is known about a call, at the level its result asks for.
macro_rules! attempt_line {
    ($level:ident, $event:expr, { $($field:tt)* }, $($message:tt)+) => {{
        let event: &AttemptEvent = $event;
        let job: &Job = &event.job;
        $level!(
            target: target!(),
            lane = job.lane.as_str(),
            endpoint = job.endpoint.as_str(),
            tenant = job.tenant.as_str(),
            job_id = job.id.as_str(),
            instance = %job.instance,
            trace_id = trace_id(job),
            attempt = event.attempt,
            result = event.class.as_str(),
            status = event.status,
            duration_ms = millis(event.duration),
            $($field)*
            retry_after_ms = event.retry_after.map(millis),
            rate_headers = rate_headers(&event.rate_headers),
            learnt = event.learnt.as_deref(),
            held_back_ms = (!event.held_back.is_zero()).then(|| millis(event.held_back)),
            detail = short(&event.detail),
            $($message)+
        )
    }};
}

fn write_attempt(event: &AttemptEvent) {
    let (lane, endpoint, attempt) = (&event.job.lane, &event.job.endpoint, event.attempt);
    let instance = event.job.instance;
    match &event.next {
        AttemptNext::Done { job_duration } => {
            attempt_line!(debug, event, { job_duration_ms = millis(*job_duration), }, "done by {endpoint}");
        }
        AttemptNext::Retry { delay, at, reason, capped } => {
            let what = if *reason == WaitReason::RateLimited { "rate limited" } else { "failed" };
            attempt_line!(
                warn, event,
                { reason = reason.as_str(), backoff_ms = millis(*delay), resume_at = %at, capped, },
                "{what} by {endpoint} on attempt {attempt}: again in {delay:?}"
            );
        }
        AttemptNext::Dead { reason: DeadReason::Exhausted, job_duration } => attempt_line!(
            error, event,
            { reason = DeadReason::Exhausted.as_str(), job_duration_ms = millis(*job_duration), },
            "retries exhausted in {lane} after attempt {attempt} at {endpoint}: see `lanes dead show {instance}`"
        ),
        AttemptNext::Dead { reason, job_duration } => attempt_line!(
            warn, event,
            { reason = reason.as_str(), job_duration_ms = millis(*job_duration), },
            "job died in {lane} on attempt {attempt} at {endpoint}: {reason}; see `lanes dead show {instance}`"
        ),
        AttemptNext::Cancelled if event.class == Class::RateLimited => {
            attempt_line!(warn, event, { reason = "cancelled", }, "rate limited by {endpoint}; the job was cancelled");
        }
        AttemptNext::Cancelled => {
            attempt_line!(info, event, { reason = "cancelled", }, "the job was cancelled while {endpoint} was called");
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The start of a text, cut between characters; nothing when there is none.
fn short(text: &str) -> Option<&str> {
    let start = text.char_indices().nth(DETAIL_CHARS_MAX).map_or(text, |(end, _)| &text[..end]);
    (!start.is_empty()).then_some(start)
}

fn rate_headers(headers: &[(String, String)]) -> Option<String> {
    let mut text = String::new();
    for (name, value) in headers {
        if text.len() + name.len() + value.len() > RATE_HEADERS_CHARS_MAX {
            break;
        }
        let separator = if text.is_empty() { "" } else { "; " };
        write!(text, "{separator}{name}: {value}").expect("writing to a String cannot fail");
    }
    (!text.is_empty()).then_some(text)
}

/// The trace a job belongs to: the second part of its `traceparent`.
fn trace_id(job: &Job) -> Option<&str> {
    job.meta.traceparent.as_deref()?.split('-').nth(1)
}
