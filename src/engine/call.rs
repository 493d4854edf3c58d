//! From an owned job to its closing: may it be called now, the call, what the facts mean, what the row shall say.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::paced::Pass;
use super::settle::{Closing, Step};
use super::{LaneContext, Owned};
use crate::clock::Timestamp;
use crate::dispatch::Call;
use crate::governor::Observed;
use crate::job::CallLimits;
use crate::job::event::{AttemptEvent, AttemptNext, Event, RateSeen};
use crate::job::outcome::{Answer, Outcome};
use crate::job::trace::Context;
use crate::job::verdict::{Class, DeadReason, Verdict, WaitReason};
use crate::policy::admit::{Admission, Suspicion, admit};
use crate::policy::circuit::Shown;
use crate::policy::classify::{Judgement, judge};
use crate::policy::headers::{self, RateReading};
use crate::store::{AttemptRecord, IN_TURN, Next, Settlement};

/// A job that may be called now. Only [`check`] makes one, so nothing is called without a granted claim, the tokens of its
/// budgets and admission.
#[derive(Debug)]
pub(super) struct Admitted {
    owned: Owned,
    limits: CallLimits,
    pass: Pass,
}

impl Admitted {
    /// The next death of a worker would quarantine it.
    pub(super) fn is_suspect(&self, suspicion: Suspicion) -> bool {
        suspicion.falls_on(self.owned.granted.takeovers)
    }
}

/// Decides whether an owned job that has its tokens may be called now; if not, its closing says why.
pub(super) fn check(
    ctx: &LaneContext,
    owned: Owned,
    pass: Pass,
    suspicion: Suspicion,
) -> Result<Admitted, (Box<Closing>, Pass)> {
    match admissible(ctx, owned, suspicion) {
        Ok((owned, limits)) => Ok(Admitted { owned, limits, pass }),
        Err(closing) => Err((closing, pass)),
    }
}

/// Decides whether an owned job may be called now, tokens aside.
pub(super) fn admissible(
    ctx: &LaneContext,
    owned: Owned,
    suspicion: Suspicion,
) -> Result<(Owned, CallLimits), Box<Closing>> {
    let now = ctx.clock.now();
    let Some(endpoint) = ctx.endpoints.get(&owned.job.endpoint) else {
        let detail = format!("endpoint {:?} is not configured any more", owned.job.endpoint.as_str());
        return Err(Box::new(bury(owned, DeadReason::UnknownEndpoint, detail)));
    };
    let meta = &owned.job.meta;
    let most = ctx.settings.retry.max_attempts;
    let limits = CallLimits {
        max_attempts: meta.max_attempts.map_or(most, |wish| wish.min(most)),
        timeout: meta
            .timeout_ms
            .map_or(endpoint.timeout, |ms| std::time::Duration::from_millis(ms).min(endpoint.timeout)),
    };
    let granted = &owned.granted;
    match admit(meta, granted.attempt, limits.max_attempts, granted.takeovers, suspicion, now) {
        Admission::Go => Ok((owned, limits)),
        Admission::Wait { reason, until } => Err(Box::new(park(owned, reason, until, false))),
        Admission::Dead { reason, detail } => Err(Box::new(bury(owned, reason, detail))),
    }
}

/// Gives an owned job back, to be called by whoever is next; no attempt is spent.
pub(super) fn give_back(owned: Owned, now: Timestamp, effect_possible: bool) -> Closing {
    park(owned, WaitReason::Interrupted, now, effect_possible)
}

/// Parks an owned job whose lane is paused: it is due, and comes back first of all once the lane releases anything again;
/// no attempt is spent.
pub(super) fn await_resume(owned: Owned, now: Timestamp) -> Closing {
    park(owned, WaitReason::Paused, now, false)
}

/// Parks an owned job until its turn in its budget, or until it may be called at all; no attempt is spent.
pub(super) fn await_turn(ctx: &LaneContext, owned: Owned, reason: WaitReason) -> Closing {
    ctx.backlog.add((owned.job.endpoint.clone(), owned.job.tenant.clone()));
    park(owned, reason, IN_TURN, false)
}

fn park(owned: Owned, reason: WaitReason, until: Timestamp, effect_possible: bool) -> Closing {
    let event = Event::Waiting { lane: owned.job.lane.clone(), reason };
    let next = Next::Waiting { reason, resume_at: until, counted: false };
    closing(owned, next, effect_possible, None, event)
}

fn bury(owned: Owned, reason: DeadReason, detail: String) -> Closing {
    let job = &owned.job;
    let event = Event::Died {
        lane: job.lane.clone(),
        endpoint: job.endpoint.clone(),
        tenant: job.tenant.clone(),
        instance: job.instance,
        reason,
        detail: detail.clone(),
    };
    closing(owned, Next::Dead { reason, detail, counted: false }, false, None, event)
}

fn closing(
    owned: Owned,
    next: Next,
    effect_possible: bool,
    attempt: Option<Box<AttemptRecord>>,
    event: Event,
) -> Closing {
    let Owned { in_hand, job, key, token, .. } = owned;
    let settlement = Settlement { key, instance: job.instance, token, next, effect_possible, attempt };
    Closing { receipt: Some(in_hand.receipt), step: Step::Settle(settlement), event, again: Some(in_hand.copy) }
}

/// Calls and judges. When `cut` fires first the call is given up: its outcome is unknown, its attempt not counted. The pass
/// is given back with its end.
pub(super) async fn call(ctx: Arc<LaneContext>, admitted: Admitted, cut: CancellationToken) -> (Closing, Pass) {
    let Admitted { owned, limits, pass } = admitted;
    let started_at = ctx.clock.now();
    let since = owned.granted.released_at.unwrap_or(owned.job.published_at);
    let held_back = owned.granted.held_since.map_or(pass.held_for, |held_since| started_at.since(held_since));
    ctx.telemetry.record(&Event::Started {
        job: Arc::clone(&owned.job),
        waited: started_at.since(since),
        held_back: pass.is_governed().then_some(held_back),
    });
    let call = Call {
        job: Arc::clone(&owned.job),
        attempt: owned.granted.attempt,
        generation: owned.granted.generation,
        trace: trace(&ctx, &owned),
        timeout: limits.timeout,
    };
    let outcome = tokio::select! {
        biased;
        outcome = AssertUnwindSafe(ctx.dispatch.call(call)).catch_unwind() => outcome,
        () = cut.cancelled() => {
            if owned.is_probe {
                ctx.governor.forgo_probe(&owned.job.endpoint, &owned.job.tenant, ctx.clock.now());
            }
            return (give_back(owned, ctx.clock.now(), true), pass);
        }
    };
    let outcome = outcome.unwrap_or_else(|_| Outcome {
        started_at,
        ended_at: ctx.clock.now(),
        answer: Answer::NoAnswer("the call panicked; this is a bug in lanes or in the handler".to_owned()),
    });
    ctx.times.add(&owned.job.endpoint, outcome.duration());
    (conclude(&ctx, owned, limits, held_back, &outcome), pass)
}

/// The call's place in its trace: known before the call, which carries it, and after it, when it is told. Each claim has
/// another token.
fn trace(ctx: &LaneContext, owned: &Owned) -> Option<Context> {
    ctx.telemetry.is_traced().then(|| Context::of_call(&owned.job, owned.token))
}

fn conclude(ctx: &LaneContext, owned: Owned, limits: CallLimits, held_back: Duration, outcome: &Outcome) -> Closing {
    let Some(endpoint) = ctx.endpoints.get(&owned.job.endpoint) else {
        return give_back(owned, outcome.ended_at, true);
    };
    let attempt = owned.granted.attempt;
    let judge_of = |most| judge(&endpoint.rules, &ctx.settings.retry, most, attempt, owned.job.instance, outcome);
    let mut judged = judge_of(limits.max_attempts);
    // a probe asks how the account is. That it is still blocked is not held against the job that happened to ask, and after
    // its delay another one asks; but for calls that may have had an effect, and where the publisher said how many there may be
    let is_last = matches!(judged.verdict, Verdict::Dead { reason: DeadReason::Exhausted, .. });
    let spared = owned.is_probe && is_last && !judged.effect_possible && owned.job.meta.max_attempts.is_none();
    if spared {
        judged = judge_of(limits.max_attempts.saturating_add(1));
    }
    let job_duration = outcome.ended_at.since(owned.job.published_at);
    let (next, told) = match &judged.verdict {
        Verdict::Done => (Next::Done, AttemptNext::Done { job_duration }),
        Verdict::Retry { at, delay, reason, capped } => (
            // only calls that were sent count
            Next::Waiting { reason: *reason, resume_at: *at, counted: judged.class != Class::NotSent && !spared },
            AttemptNext::Retry { delay: *delay, at: *at, reason: *reason, capped: *capped },
        ),
        Verdict::Dead { reason, detail } => (
            Next::Dead { reason: *reason, detail: detail.clone(), counted: true },
            AttemptNext::Dead { reason: *reason, job_duration },
        ),
    };
    let readings = rate_readings(outcome);
    let learnt = observe(ctx, &owned, &judged, &readings, outcome);
    let record = (attempt > 1 || judged.class != Class::Ok).then(|| Box::new(record(&owned, &judged, outcome)));
    let effect_possible = judged.effect_possible;
    let event = Event::Attempt(Box::new(AttemptEvent {
        job: Arc::clone(&owned.job),
        attempt,
        trace: trace(ctx, &owned),
        started_at: outcome.started_at,
        duration: outcome.duration(),
        status: outcome.status(),
        class: judged.class,
        detail: judged.detail,
        retry_after: judged.retry_after,
        rate_headers: rate_headers(outcome),
        rate_readings: readings.iter().map(|seen| RateSeen { limit: seen.limit, remaining: seen.remaining }).collect(),
        learnt,
        held_back,
        next: told,
    }));
    closing(owned, next, effect_possible, record, event)
}

fn rate_headers(outcome: &Outcome) -> Vec<(String, String)> {
    match &outcome.answer {
        Answer::Http(answer) => answer.headers.clone(),
        _ => Vec::new(),
    }
}

/// Budgets are told on every answer, a success included: that is when there is still something left to see.
fn rate_readings(outcome: &Outcome) -> Vec<RateReading> {
    let Answer::Http(answer) = &outcome.answer else { return Vec::new() };
    if answer.headers.is_empty() {
        return Vec::new();
    }
    headers::readings(answer, outcome.ended_at).into_iter().filter(RateReading::counts_requests).collect()
}

/// What the answer says of the account goes to the governor, before the job's own fate is written: whoever asks next
/// knows it. Answers what was learnt, for the log.
fn observe(
    ctx: &LaneContext,
    owned: &Owned,
    judged: &Judgement,
    readings: &[RateReading],
    outcome: &Outcome,
) -> Option<String> {
    let shown = Shown {
        class: judged.class,
        retry_after: judged.retry_after.map(|wait| wait.min(ctx.settings.retry.max_retry_after)),
        started_at: outcome.started_at,
        ended_at: outcome.ended_at,
        detail: judged.detail.clone(),
    };
    let Observed { learnt, circuits } = ctx.governor.observe(&owned.job.endpoint, &owned.job.tenant, &shown, readings);
    for (account, circuit) in circuits {
        let until = circuit.opening().map(|opening| opening.until);
        ctx.telemetry.record(&Event::Circuit {
            account,
            state: circuit.word(),
            until,
            detail: if until.is_some() { judged.detail.clone() } else { String::new() },
        });
    }
    learnt
}

/// The journal's entry: every failure, and the success that came after failures.
fn record(owned: &Owned, judged: &Judgement, outcome: &Outcome) -> AttemptRecord {
    let (next, reason, resume_at) = match &judged.verdict {
        Verdict::Done => ("done", "", None),
        Verdict::Retry { at, reason, .. } => ("retry", reason.as_str(), Some(*at)),
        Verdict::Dead { reason, .. } => ("dead", reason.as_str(), None),
    };
    AttemptRecord {
        generation: owned.granted.generation,
        attempt: owned.granted.attempt,
        started_at: outcome.started_at,
        duration_us: u64::try_from(outcome.duration().as_micros()).unwrap_or(u64::MAX),
        class: judged.class.as_str().to_owned(),
        status: outcome.status(),
        detail: judged.detail.clone(),
        retry_after_ms: judged.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        rate_headers: rate_headers(outcome),
        next: next.to_owned(),
        reason: reason.to_owned(),
        resume_at,
    }
}
