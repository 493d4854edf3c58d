//! The one place that settles: row, then ack, then the one event. Read the law in ARCHITECTURE.md before a change here.

use std::sync::Arc;

use super::{Copy, InHand, LaneContext, until_decided};
use crate::broker::{self, Receipt};
use crate::job::event::{AttemptNext, Event};
use crate::store::{IN_TURN, Next, RawLetter, Settled, Settlement, State};

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
///
/// An entry that the store rejects fails alone: the rest of its batch goes on.
pub(super) async fn close(ctx: &LaneContext, closings: Vec<Closing>) -> Vec<InHand> {
    let mut again = Vec::new();
    let mut work = vec![closings];
    while let Some(mut batch) = work.pop() {
        match commit(ctx, &batch).await {
            Ok(settled) => again.extend(finish(ctx, batch, settled).await),
            Err(_) if batch.len() > 1 => work.extend(batch.into_iter().map(|closing| vec![closing])),
            Err(why) if batch.iter_mut().any(forgo_journal) => {
                tracing::error!(lane = %ctx.settings.name, why, "the store rejects what is told of a call; closed without");
                work.push(batch);
            }
            Err(why) => batch.iter().for_each(|closing| tell_rejected(ctx, closing, &why)),
        }
    }
    again
}

/// Leaves out the journal's entry, which may be what is rejected; false = there is none.
fn forgo_journal(closing: &mut Closing) -> bool {
    match &mut closing.step {
        Step::Settle(settlement) => settlement.attempt.take().is_some(),
        Step::AckOnly | Step::Bury(_) => false,
    }
}

/// Nothing can be committed, so nothing is acked: the row of the job, or the message, is there for the next worker.
fn tell_rejected(ctx: &LaneContext, closing: &Closing, why: &str) {
    let instance = match &closing.step {
        Step::Settle(settlement) => Some(settlement.instance),
        Step::Bury(letter) => Some(letter.letter.instance),
        Step::AckOnly => None,
    };
    tracing::error!(lane = %ctx.settings.name, ?instance, why,
        "the store rejects how this ends; it stays as it is until this worker ends, and the next one tries again");
}

async fn finish(ctx: &LaneContext, closings: Vec<Closing>, settled: Vec<Settled>) -> Vec<InHand> {
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

/// Letters go last: settlements sent again are answered as before, a letter sent again would count as another copy.
async fn commit(ctx: &LaneContext, closings: &[Closing]) -> Result<Vec<Settled>, String> {
    let mut settlements = Vec::new();
    let mut letters = Vec::new();
    for closing in closings {
        match &closing.step {
            Step::AckOnly => {}
            Step::Settle(settlement) => settlements.push(settlement.clone()),
            Step::Bury(letter) => letters.push(RawLetter::clone(letter)),
        }
    }
    let mut settled = Vec::new();
    if !settlements.is_empty() {
        let settlements = Arc::new(settlements);
        settled = until_decided(ctx, "settle", || {
            let settlements = Arc::clone(&settlements);
            async move { ctx.store.settle(ctx.clock.now(), &settlements).await }
        })
        .await?;
    }
    if !letters.is_empty() {
        until_decided(ctx, "bury", || ctx.store.bury(&letters)).await?;
    }
    Ok(settled)
}

/// What the row became may differ from what was asked for: a cancel came while the job ran.
fn reconcile(ctx: &LaneContext, settlement: &Settlement, state: State, event: &mut Event) {
    match (&settlement.next, state) {
        (Next::Waiting { .. }, State::Cancelled) => match event {
            Event::Attempt(attempt) => attempt.next = AttemptNext::Cancelled,
            _ => *event = Event::Cancelled { lane: ctx.settings.name.clone() },
        },
        (Next::Waiting { resume_at, .. }, _) if *resume_at == IN_TURN => ctx.in_turn.tell(),
        (Next::Waiting { .. }, _) => ctx.parked.tell(),
        _ => {}
    }
}
