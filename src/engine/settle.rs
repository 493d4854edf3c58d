//! The one place that settles: row, then ack, then the one event. Read the law in ARCHITECTURE.md before a change here.

use std::sync::Arc;

use super::{Copy, InHand, LaneContext, until_answered};
use crate::broker::{self, Receipt};
use crate::job::event::{AttemptNext, Event};
use crate::store::{Next, RawLetter, Settled, Settlement, State};

/// A copy on its way out.
#[derive(Debug)]
pub(super) struct Closing {
    /// Settles the delivery; `None` once it was given up (its session is over).
    pub receipt: Option<Receipt>,
    /// What the store has to commit first.
    pub step: Step,
    /// What is told afterwards.
    pub event: Event,
    /// What is decided again when somebody else owns the row; `Some` for every settlement.
    pub again: Option<Copy>,
}

impl Closing {
    /// Bytes of bodies that have to be written.
    pub(super) fn body_bytes(&self) -> usize {
        match &self.step {
            Step::Bury(letter) => letter.payload.body.len(),
            Step::AckOnly | Step::Settle(_) => 0,
        }
    }
}

/// What has to be committed before the ack.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing: another row already says everything.
    AckOnly,
    /// The row of a claimed job.
    Settle(Settlement),
    /// The dead letter of a message that never became a job.
    Bury(Box<RawLetter>),
}

/// Commits, acks, tells. Answers the copies about which has to be decided again: zero rows were hit, somebody else owns
/// the job, and an ack from memory could lose it.
pub(super) async fn close(ctx: &LaneContext, closings: Vec<Closing>) -> Vec<InHand> {
    let settled = commit(ctx, &closings).await;
    let mut receipts = Vec::with_capacity(closings.len());
    let mut events = Vec::with_capacity(closings.len());
    let mut again = Vec::new();
    let mut settled = settled.into_iter();
    for closing in closings {
        let Closing { receipt, step, mut event, again: copy } = closing;
        if let Step::Settle(settlement) = step {
            match settled.next() {
                Some(Settled::Applied(state)) => reconcile(ctx, &settlement, state, &mut event),
                Some(Settled::Lost) | None => {
                    tell_late_result(ctx, &event);
                    if let (Some(receipt), Some(copy)) = (receipt, copy) {
                        again.push(InHand { receipt, copy });
                    }
                    continue;
                }
            }
        }
        receipts.extend(receipt);
        events.push(event);
    }
    broker::ack(receipts).await;
    for event in &events {
        ctx.telemetry.record(event);
    }
    again
}

/// A call was made although its job had been taken over meanwhile: what came of it must be seen somewhere.
fn tell_late_result(ctx: &LaneContext, event: &Event) {
    if let Event::Attempt(attempt) = event {
        ctx.telemetry.record(&Event::LateResult {
            job: Arc::clone(&attempt.job),
            attempt: attempt.attempt,
            class: attempt.class,
            status: attempt.status,
        });
    }
}

async fn commit(ctx: &LaneContext, closings: &[Closing]) -> Vec<Settled> {
    let mut settlements = Vec::new();
    let mut letters = Vec::new();
    for closing in closings {
        match &closing.step {
            Step::AckOnly => {}
            Step::Settle(settlement) => settlements.push(settlement.clone()),
            Step::Bury(letter) => letters.push(RawLetter::clone(letter)),
        }
    }
    if !letters.is_empty() {
        until_answered(ctx, "bury", || ctx.store.bury(&letters)).await;
    }
    if settlements.is_empty() {
        return Vec::new();
    }
    let settlements = Arc::new(settlements);
    until_answered(ctx, "settle", || {
        let settlements = Arc::clone(&settlements);
        async move { ctx.store.settle(ctx.clock.now(), &settlements).await }
    })
    .await
}

/// What the row became may differ from what was asked for: a cancel came while the job ran.
fn reconcile(ctx: &LaneContext, settlement: &Settlement, state: State, event: &mut Event) {
    match (&settlement.next, state) {
        (Next::Waiting { .. }, State::Cancelled) => match event {
            Event::Attempt(attempt) => attempt.next = AttemptNext::Cancelled,
            _ => *event = Event::Cancelled { lane: ctx.settings.name.clone() },
        },
        (Next::Waiting { .. }, _) => ctx.parked.tell(),
        _ => {}
    }
}
