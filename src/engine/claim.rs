//! From a delivery to an owned job: reads the message, claims it in the store, says what became of each copy.

use std::sync::Arc;

use uuid::Uuid;

use super::settle::{Closing, Step};
use super::{Copy, FailureWait, InHand, LaneContext, Owned};
use crate::broker::Delivery;
use crate::clock::Timestamp;
use crate::job::event::{Event, Weakness};
use crate::job::verdict::{DeadReason, WaitReason};
use crate::job::wire::{self, Undecodable};
use crate::job::{DedupKey, Identity, Job, JobMeta, LaneName};
use crate::message::Message;
use crate::store::{
    ClaimContext, Claimed, FreshClaim, Granted, Letter, Next, Payload, RawLetter, Settlement, StoreError, StoreResult,
    StoredJob, WokenClaim, WorkerId,
};

/// Reads a delivery of the fresh queue; what cannot be read, or names an unknown endpoint, is closed as a letter.
pub(super) fn read_fresh(ctx: &LaneContext, delivery: Delivery) -> Result<InHand, Box<Closing>> {
    let Delivery { message, redelivered, receipt } = delivery;
    let now = ctx.clock.now();
    let refused = match wire::decode(&ctx.settings.decode, &message, now, Uuid::new_v4) {
        Ok(decoded) if ctx.endpoints.contains_key(&decoded.job.endpoint) => {
            tell_weaknesses(ctx, &decoded.job, decoded.non_durable);
            let (job, timed) = (Arc::new(decoded.job), decoded.timed);
            return Ok(InHand { receipt, copy: Copy::Fresh { job, redelivered, timed } });
        }
        Ok(decoded) => unknown_endpoint(ctx, &decoded.job),
        Err(refused) => refused,
    };
    let event =
        Event::Refused { lane: ctx.settings.name.clone(), reason: refused.reason, detail: refused.detail.clone() };
    let letter = raw_letter(ctx, &message, refused, now);
    Err(Box::new(Closing { receipt: Some(receipt), step: Step::Bury(Box::new(letter)), event, again: None }))
}

/// Reads a delivery of the due queue: a wake-up, or a message that somebody published there.
pub(super) fn read_due(ctx: &LaneContext, delivery: Delivery) -> Result<InHand, Box<Closing>> {
    match wire::decode_wake_up(&delivery.message) {
        Some((key, instance)) => Ok(InHand { receipt: delivery.receipt, copy: Copy::WakeUp { key, instance } }),
        None => read_fresh(ctx, delivery),
    }
}

fn tell_weaknesses(ctx: &LaneContext, job: &Job, non_durable: bool) {
    let tell = |what| ctx.telemetry.record(&Event::Weak { lane: job.lane.clone(), what });
    match job.identity {
        Identity::Stamped => {}
        Identity::Derived | Identity::DerivedUntimed => tell(Weakness::DerivedIdentity),
        Identity::Minted => tell(Weakness::NoId),
    }
    if non_durable {
        tell(Weakness::NonDurable);
    }
}

fn unknown_endpoint(ctx: &LaneContext, job: &Job) -> Undecodable {
    let mut known: Vec<&str> = ctx.endpoints.keys().map(crate::job::EndpointName::as_str).collect();
    known.sort_unstable();
    Undecodable {
        reason: DeadReason::UnknownEndpoint,
        detail: format!("endpoint {:?} is not configured; configured are: {}", job.endpoint.as_str(), known.join(", ")),
        tenant: Some(job.tenant.clone()),
        id: Some(job.id.as_str().to_owned()),
        endpoint: Some(job.endpoint.as_str().to_owned()),
    }
}

/// The dead letter of a message that never became a job: raw bytes, headers and reason.
pub(super) fn raw_letter(ctx: &LaneContext, message: &Message, refused: Undecodable, now: Timestamp) -> RawLetter {
    let letter = Letter {
        instance: wire::raw_instance(&ctx.settings.name, message),
        lane: ctx.settings.name.clone(),
        tenant: refused.tenant,
        id: refused.id,
        endpoint: refused.endpoint,
        reason: refused.reason,
        detail: refused.detail,
        published_at: None,
        died_at: now,
        attempts: 0,
        generation: 1,
        copies: 1,
        raw: true,
        body_bytes: message.body.len() as u64,
    };
    RawLetter { letter, payload: Payload { meta: wire::pack_raw(message), body: message.body.clone() } }
}

/// A copy and the token made for its claim.
#[derive(Debug)]
pub(super) struct Claiming {
    pub in_hand: InHand,
    pub token: Uuid,
    /// Why it waits for its turn instead of running.
    pub in_turn: Option<WaitReason>,
}

/// What a batch of claims led to.
#[derive(Debug, Default)]
pub(super) struct ClaimResult {
    /// Granted: to be called.
    pub owned: Vec<Owned>,
    /// Everything else: to be closed.
    pub closings: Vec<Closing>,
}

/// Claims copies of one kind, repeating until the store answers: while it is down, or fails as a whole, the lane pauses,
/// holding at most its prefetch. Only a single claim that the store rejects for its content becomes a letter.
pub(super) async fn claim(ctx: &LaneContext, batch: Vec<Claiming>) -> ClaimResult {
    let mut result = ClaimResult::default();
    let mut work = vec![batch];
    let mut wait = FailureWait::new();
    while let Some(batch) = work.pop() {
        let (asked_at, worker) = (ctx.clock.now(), ctx.liveness.worker());
        let answer = send(ctx, worker, asked_at, &batch).await;
        ctx.telemetry.store_operation("claim", ctx.clock.now().since(asked_at), answer.is_ok());
        match answer {
            Ok(answers) => {
                for (claiming, claimed) in batch.into_iter().zip(answers) {
                    if let Copy::Fresh { job, timed: true, .. } = &claiming.in_hand.copy {
                        ctx.progress.claimed(job.published_at);
                    }
                    sort_out(ctx, worker, claiming, claimed, &mut result);
                }
            }
            Err(StoreError::Rejected { .. }) if batch.len() > 1 => {
                work.extend(batch.into_iter().map(|claiming| vec![claiming]));
            }
            Err(StoreError::Rejected { why, .. }) => {
                result.closings.extend(batch.into_iter().map(|claiming| refuse(ctx, claiming, &why)));
            }
            Err(error) => {
                tracing::warn!(lane = %ctx.settings.name, %error, "nothing can be claimed, the lane pauses");
                wait.wait(&*ctx.clock).await;
                work.push(batch);
            }
        }
    }
    result
}

async fn send(ctx: &LaneContext, worker: WorkerId, now: Timestamp, batch: &[Claiming]) -> StoreResult<Vec<Claimed>> {
    let context = ClaimContext { worker, now, window: ctx.settings.window };
    let woken: Vec<WokenClaim> = batch
        .iter()
        .filter_map(|claiming| match &claiming.in_hand.copy {
            Copy::WakeUp { key, instance } => {
                Some(WokenClaim { key: *key, instance: *instance, token: claiming.token })
            }
            Copy::Fresh { .. } => None,
        })
        .collect();
    if !woken.is_empty() {
        return ctx.store.claim_woken(context, &woken).await;
    }
    let fresh: Vec<FreshClaim> = batch
        .iter()
        .filter_map(|claiming| match &claiming.in_hand.copy {
            Copy::Fresh { job, redelivered, .. } => {
                let claim = fresh_claim(job, *redelivered, claiming.token);
                Some(FreshClaim { in_turn: claiming.in_turn, ..claim })
            }
            Copy::WakeUp { .. } => None,
        })
        .collect();
    ctx.store.claim_fresh(context, &fresh).await
}

fn fresh_claim(job: &Job, redelivered: bool, token: Uuid) -> FreshClaim {
    FreshClaim {
        key: job.key(),
        instance: job.instance,
        token,
        lane: job.lane.clone(),
        tenant: job.tenant.clone(),
        id: job.id.clone(),
        endpoint: job.endpoint.clone(),
        published_at: job.published_at,
        payload_sha256: job.payload_sha256(),
        payload: Payload { meta: wire::pack_meta(&job.meta), body: job.body.clone() },
        identity: job.identity,
        redelivered,
        in_turn: None,
    }
}

fn sort_out(ctx: &LaneContext, worker: WorkerId, claiming: Claiming, claimed: Claimed, result: &mut ClaimResult) {
    let lane = ctx.settings.name.clone();
    let Claiming { in_hand, token, in_turn } = claiming;
    let event = match claimed {
        Claimed::Run(granted) => {
            match own(&lane, worker, in_hand, token, granted) {
                Ok(owned) => result.owned.push(owned),
                Err(closing) => result.closings.push(*closing),
            }
            return;
        }
        Claimed::InTurn => {
            if let Copy::Fresh { job, .. } = &in_hand.copy {
                ctx.backlog.add((job.endpoint.clone(), job.tenant.clone()));
            }
            ctx.in_turn.tell();
            Event::Waiting { lane, reason: in_turn.unwrap_or(WaitReason::Budget) }
        }
        Claimed::Parked => {
            ctx.parked.tell();
            Event::Waiting { lane, reason: WaitReason::KeyBusy }
        }
        Claimed::Duplicate { original, different_payload: true, .. } => {
            if let Copy::Fresh { job, .. } = &in_hand.copy {
                // never silently dropped: it may be another job
                let id = job.id.as_str();
                let detail = format!("id {id:?} belongs to {original} in this window, and its payload differs");
                let (job, reason) = (Arc::clone(job), DeadReason::DuplicateIdDifferentPayload);
                result.closings.push(refusal(ctx, &job, in_hand, reason, detail));
                return;
            }
            Event::Stale { lane }
        }
        Claimed::Duplicate { original, .. } => match &in_hand.copy {
            Copy::Fresh { job, .. } => Event::Duplicate { lane, instance: job.instance, original },
            Copy::WakeUp { .. } => Event::Stale { lane },
        },
        Claimed::Stale => Event::Stale { lane },
        Claimed::Superseded { by, row } => Event::Died {
            lane,
            endpoint: row.endpoint,
            tenant: row.tenant,
            instance: row.instance,
            reason: DeadReason::Superseded,
            detail: format!("{by} has, or may have, succeeded with the same id"),
        },
    };
    result.closings.push(Closing { receipt: Some(in_hand.receipt), step: Step::AckOnly, event, again: None });
}

/// The store refuses this one claim for good.
fn refuse(ctx: &LaneContext, claiming: Claiming, why: &str) -> Closing {
    match &claiming.in_hand.copy {
        Copy::Fresh { job, .. } => {
            let job = Arc::clone(job);
            refusal(ctx, &job, claiming.in_hand, DeadReason::Undecodable, format!("the store refuses it: {why}"))
        }
        // its row carries the job: the sweeper publishes the wake-up again
        Copy::WakeUp { .. } => Closing {
            receipt: Some(claiming.in_hand.receipt),
            step: Step::AckOnly,
            event: Event::Stale { lane: ctx.settings.name.clone() },
            again: None,
        },
    }
}

fn refusal(ctx: &LaneContext, job: &Job, in_hand: InHand, reason: DeadReason, detail: String) -> Closing {
    let refused = Undecodable {
        reason,
        detail: detail.clone(),
        tenant: Some(job.tenant.clone()),
        id: Some(job.id.as_str().to_owned()),
        endpoint: Some(job.endpoint.as_str().to_owned()),
    };
    let mut letter = raw_letter(ctx, &wire::encode(job), refused, ctx.clock.now());
    letter.letter.published_at = Some(job.published_at);
    Closing {
        receipt: Some(in_hand.receipt),
        step: Step::Bury(Box::new(letter)),
        event: Event::Refused { lane: ctx.settings.name.clone(), reason, detail },
        again: None,
    }
}

/// Puts claim, copy and row together. A stored job that cannot be read back is closed as dead: its letter keeps the bytes.
fn own(
    lane: &LaneName,
    worker: WorkerId,
    in_hand: InHand,
    token: Uuid,
    mut granted: Granted,
) -> Result<Owned, Box<Closing>> {
    let (job, key) = match (&in_hand.copy, granted.stored.take()) {
        (Copy::Fresh { job, .. }, _) if job.instance == granted.instance => (Arc::clone(job), job.key()),
        (Copy::Fresh { job, .. }, _) => (Arc::new(Job { instance: granted.instance, ..Job::clone(job) }), job.key()),
        (Copy::WakeUp { key, .. }, Some(stored)) => match wire::unpack_meta(&stored.payload.meta) {
            Ok(meta) => (Arc::new(read_back(granted.instance, meta, *stored)), *key),
            Err(detail) => return Err(Box::new(unreadable(*key, token, &granted, *stored, detail, in_hand))),
        },
        (Copy::WakeUp { key, .. }, None) => {
            // against the store's contract; the job must not hang in `run` because of it
            let next = Next::Waiting { reason: WaitReason::Interrupted, resume_at: Timestamp::EPOCH, counted: false };
            let (key, instance) = (*key, granted.instance);
            tracing::error!(%instance, "the store granted a wake-up without its row: a bug in the store");
            let settlement = Settlement { key, instance, token, next, effect_possible: false, attempt: None };
            return Err(Box::new(Closing {
                receipt: Some(in_hand.receipt),
                step: Step::Settle(settlement),
                event: Event::Waiting { lane: lane.clone(), reason: WaitReason::Interrupted },
                again: Some(in_hand.copy),
            }));
        }
    };
    Ok(Owned { in_hand, job, key, token, worker, granted, is_probe: false })
}

fn read_back(instance: Uuid, meta: JobMeta, stored: StoredJob) -> Job {
    Job {
        instance,
        identity: Identity::Stamped,
        lane: stored.lane,
        tenant: stored.tenant,
        id: stored.id,
        endpoint: stored.endpoint,
        published_at: stored.published_at,
        meta,
        body: stored.payload.body,
    }
}

fn unreadable(
    key: DedupKey,
    token: Uuid,
    granted: &Granted,
    stored: StoredJob,
    detail: String,
    in_hand: InHand,
) -> Closing {
    let reason = DeadReason::Undecodable;
    let next = Next::Dead { reason, detail: detail.clone(), counted: false };
    let settlement = Settlement { key, instance: granted.instance, token, next, effect_possible: false, attempt: None };
    let event = Event::Died {
        lane: stored.lane,
        endpoint: stored.endpoint,
        tenant: stored.tenant,
        instance: granted.instance,
        reason,
        detail,
    };
    Closing { receipt: Some(in_hand.receipt), step: Step::Settle(settlement), event, again: Some(in_hand.copy) }
}
