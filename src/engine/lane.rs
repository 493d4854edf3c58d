//! The state machine of one lane: what is in hand, what is owned, what is being called, and what may start next.
//!
//! One task owns all of it, so there is no lock and no race; claims, calls and settlements run beside it and report back.
//! Batches are natural: what is ready goes at once, and the next batch gathers while the last ones are in flight. No timer.

mod starts;

use std::collections::VecDeque;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::call;
use super::claim::{self, ClaimResult};
use super::hand::Hand;
use super::intake::{self, Arrival};
use super::paced::{Paced, Pass, Wish};
use super::settle::Closing;
use super::{Copy, InHand, LaneContext, Owned, pausing};
use crate::broker;
use crate::clock::{Clock, Timestamp};
use crate::job::budget::Taken;
use crate::job::verdict::WaitReason;
use crate::policy::turns::OWNED_PER_SLOT;
use crate::store::SlotAsk;

/// Most claim statements, and most settle statements, of one lane in flight.
const STATEMENTS_IN_FLIGHT_MAX: usize = 2;
/// A probe of which nothing is heard for so long after its call's time was over is lost.
const PROBE_MARGIN: Duration = Duration::from_secs(5);
/// Messages of other tasks that may wait for the lane's task.
const REPORTS_MAX: usize = 1_024;
/// Arrivals that may wait for the lane's task; each holds a batch of deliveries, bounded by the prefetch.
const ARRIVALS_MAX: usize = 16;

/// When a lane has to end.
#[derive(Debug, Clone)]
pub(super) struct LaneEnd {
    /// Take nothing new, finish what is in flight.
    pub stop: CancellationToken,
    /// Cut the calls that are still in flight.
    pub cut: CancellationToken,
}

/// What the lane's helpers report.
#[derive(Debug)]
enum Report {
    Claimed {
        /// Of them, those that are to be called.
        counted: usize,
        result: ClaimResult,
    },
    Called {
        suspect: bool,
        closing: Box<Closing>,
        pass: Pass,
    },
    Asked {
        wish: Wish,
        taken: Taken,
    },
    Slots {
        asks: Vec<SlotAsk>,
        held: Vec<u32>,
        asked_at: Timestamp,
    },
    Probed {
        owned: Box<Owned>,
        reason: WaitReason,
    },
    Closed {
        asked: usize,
        again: Vec<InHand>,
    },
    /// A helper panicked: a bug. Nothing is known of what it had in hand.
    Failed,
}

/// The lane's state.
struct Lane {
    ctx: Arc<LaneContext>,
    end: LaneEnd,
    reports: mpsc::Sender<Report>,
    due: VecDeque<InHand>,
    fresh: Hand,
    owned: VecDeque<Owned>,
    paced: Paced,
    closings: Vec<Closing>,
    claiming: usize,
    claims_in_flight: usize,
    /// Jobs that ask to be the probe of a circuit.
    probing: usize,
    /// Those that are, and go next.
    probes: VecDeque<(Owned, Pass)>,
    /// Nothing comes in: what is not claimed is given back.
    intake_rests: bool,
    /// When the pause ends by itself, as of the last look; `None` = there is none, or it has no end.
    pause_ends: Option<Timestamp>,
    /// When an operator's number of calls ends by itself, as of the last look.
    concurrency_ends: Option<Timestamp>,
    /// Most calls of this lane here, as of the last look.
    calls_max: usize,
    calling: usize,
    suspect_is_running: bool,
    settling: usize,
    settles_in_flight: usize,
}

/// Runs one lane until it is told to end and everything it owns is settled or given back.
pub(super) async fn run(ctx: Arc<LaneContext>, end: LaneEnd) {
    let (arrived, mut arrivals) = mpsc::channel(ARRIVALS_MAX);
    let (reports, mut reported) = mpsc::channel(REPORTS_MAX);
    // dropped with this task, so that a lane that dies does not go on taking deliveries
    let intake = AbortOnDropHandle::new(tokio::spawn(intake::run(Arc::clone(&ctx), arrived, end.stop.clone())));
    let mut lane = Lane::new(ctx, end, reports);
    let mut batch = Vec::new();
    let mut intake_is_over = false;
    // as this loop has seen it: nothing may be let in between the look at the stop and the end
    let mut stopping = false;
    let mut said = lane.ctx.governor.operator_changes();
    lane.pump(); // says whether it is paused
    loop {
        let moment = lane.next_moment();
        tokio::select! {
            biased;
            _ = reported.recv_many(&mut batch, REPORTS_MAX) => {}
            // after the stop too: what the intake was just handing over is given back, not kept until the last call ends
            arrival = arrivals.recv(), if !intake_is_over => match arrival {
                Some(arrival) => lane.arrive(arrival),
                None => intake_is_over = true,
            },
            () = lane.end.stop.cancelled(), if !stopping => {}
            // it has its sender in the governor, which the lane holds
            _ = said.changed() => {}
            () = come(&*lane.ctx.clock, moment), if moment.is_some() => {}
        }
        for report in batch.drain(..) {
            lane.take(report);
        }
        while let Ok(arrival) = arrivals.try_recv() {
            lane.arrive(arrival);
        }
        stopping = lane.end.stop.is_cancelled();
        if stopping {
            lane.wind_down();
        } else {
            // a lane that is given nothing any more must not look as if it had nothing to do
            assert!(!intake_is_over, "the intake of lane {} ended before the stop", lane.ctx.settings.name);
        }
        lane.pump();
        if stopping && lane.is_empty() {
            break;
        }
    }
    if let Err(error) = intake.await {
        tracing::error!(lane = %lane.ctx.settings.name, %error, "the intake task failed");
    }
}

impl Lane {
    fn new(ctx: Arc<LaneContext>, end: LaneEnd, reports: mpsc::Sender<Report>) -> Self {
        Self {
            ctx,
            end,
            reports,
            due: VecDeque::new(),
            fresh: Hand::default(),
            owned: VecDeque::new(),
            paced: Paced::default(),
            closings: Vec::new(),
            claiming: 0,
            claims_in_flight: 0,
            probing: 0,
            probes: VecDeque::new(),
            intake_rests: false,
            pause_ends: None,
            concurrency_ends: None,
            calls_max: 0,
            calling: 0,
            suspect_is_running: false,
            settling: 0,
            settles_in_flight: 0,
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        let (deliveries, due) = match arrival {
            Arrival::Due(deliveries) => (deliveries, true),
            Arrival::Fresh(deliveries) => (deliveries, false),
            Arrival::Paused => {
                self.intake_rests = true;
                self.give_back_unclaimed();
                return;
            }
            Arrival::Resized => {
                self.give_back_unclaimed();
                return;
            }
            Arrival::SessionOver => {
                // unclaimed copies come back by themselves; claimed ones are carried by their rows
                self.due.clear();
                self.fresh = Hand::default();
                return;
            }
        };
        self.intake_rests = false;
        for delivery in deliveries {
            let read = if due { claim::read_due(&self.ctx, delivery) } else { claim::read_fresh(&self.ctx, delivery) };
            match read {
                Ok(in_hand) if due || matches!(in_hand.copy, Copy::WakeUp { .. }) => self.due.push_back(in_hand),
                Ok(in_hand) => self.fresh.push(in_hand),
                Err(closing) => self.closings.push(*closing),
            }
        }
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::Claimed { counted, result } => {
                self.claims_in_flight -= 1;
                self.claiming -= counted;
                self.owned.extend(result.owned);
                self.closings.extend(result.closings);
            }
            Report::Called { suspect, closing, pass } => {
                self.calling -= 1;
                self.paced.ended(&pass);
                if suspect {
                    self.suspect_is_running = false;
                }
                self.closings.push(*closing);
            }
            Report::Asked { wish, taken } => {
                let park = self.paced.answered(&wish, &taken, self.ctx.clock.now());
                let park = park.into_iter().map(|owned| call::await_turn(&self.ctx, owned, WaitReason::Budget));
                self.closings.extend(park);
            }
            Report::Slots { asks, held, asked_at } => self.paced.slots.renewed(&asks, &held, asked_at),
            Report::Probed { owned, reason } => self.probed(*owned, reason),
            Report::Closed { asked, again } => {
                self.settles_in_flight -= 1;
                self.settling -= asked;
                self.due.extend(again);
            }
            // the process ends, and whoever is next takes over what this lane owned
            Report::Failed => panic!("a helper of lane {} panicked", self.ctx.settings.name),
        }
    }

    /// The probe goes first of all; whoever else wanted to be it waits for what it shows.
    fn probed(&mut self, owned: Owned, reason: WaitReason) {
        self.probing -= 1;
        if !owned.is_probe {
            self.closings.push(call::await_turn(&self.ctx, owned, reason));
            return;
        }
        let slots = self.ctx.governor.slots(&self.ctx.settings.name, &owned.job.endpoint, &owned.job.tenant);
        let now = self.ctx.clock.now();
        let pass = if slots.is_empty() { Some(Paced::free()) } else { self.paced.probe(slots, now) };
        if let Some(pass) = pass {
            self.probes.push_back((owned, pass));
        } else {
            self.forgo_probe(&owned, now);
            self.closings.push(call::await_turn(&self.ctx, owned, WaitReason::Concurrency));
        }
    }

    /// A job that was to show how things are is not called: another one may be.
    fn forgo_probe(&self, owned: &Owned, now: Timestamp) {
        if owned.is_probe {
            self.ctx.governor.forgo_probe(&owned.job.endpoint, &owned.job.tenant, now);
        }
    }

    /// The stop: nothing unclaimed is kept, what is owned and not yet called goes back uncounted.
    fn wind_down(&mut self) {
        self.give_back_unclaimed();
        let now = self.ctx.clock.now();
        for owned in self.let_go(now) {
            self.closings.push(call::give_back(owned, now, false));
        }
    }

    /// A pause: what is owned and not yet called waits uncounted in the store; calls in flight go on.
    fn rest(&mut self, now: Timestamp) {
        if self.intake_rests {
            self.give_back_unclaimed();
        }
        for owned in self.let_go(now) {
            self.closings.push(call::await_resume(owned, now));
        }
    }

    /// Jobs that are owned and not being called.
    fn held(&self) -> usize {
        self.owned.len() + self.paced.len() + self.probing + self.probes.len()
    }

    /// A lane that makes fewer calls than before owns fewer jobs: those that were claimed for calls which it does not make any
    /// more are for whoever has room, uncounted. Calls in flight, and jobs that are about to get their tokens, go on.
    fn let_excess_go(&mut self, now: Timestamp) {
        let most = OWNED_PER_SLOT * self.ctx.concurrency(now);
        let excess = (self.calling + self.claiming + self.held()).saturating_sub(most).min(self.owned.len());
        for owned in self.owned.split_off(self.owned.len() - excess) {
            self.closings.push(call::give_back(owned, now, false));
        }
    }

    /// Gives back what is in hand and not claimed, at once: other workers must not wait for what is in flight here.
    fn give_back_unclaimed(&mut self) {
        let receipts: Vec<_> = self.due.drain(..).chain(self.fresh.drain()).map(|in_hand| in_hand.receipt).collect();
        if !receipts.is_empty() {
            tokio::spawn(broker::give_back(receipts));
        }
    }

    /// Everything that is owned and not yet called.
    fn let_go(&mut self, now: Timestamp) -> Vec<Owned> {
        let mut all = Vec::new();
        for (owned, pass) in std::mem::take(&mut self.probes) {
            self.paced.ended(&pass);
            self.forgo_probe(&owned, now);
            all.push(Owned { is_probe: false, ..owned });
        }
        all.extend(self.owned.drain(..));
        all.extend(self.paced.drain());
        all
    }

    fn is_empty(&self) -> bool {
        self.claims_in_flight == 0
            && self.probing == 0
            && self.calling == 0
            && self.settles_in_flight == 0
            && self.closings.is_empty()
    }

    /// Starts whatever may start now.
    fn pump(&mut self) {
        let now = self.ctx.clock.now();
        let paused = pausing::pause_of(&self.ctx);
        self.pause_ends = paused.as_ref().and_then(|paused| paused.pause.until);
        self.concurrency_ends = self.ctx.concurrency_ends(now);
        self.ctx.telemetry.concurrency_limit(&self.ctx.settings.name, self.ctx.concurrency(now));
        if paused.is_some() {
            self.rest(now);
            self.calls_max = 0;
            // what others can have is given back
            self.ask_for_slots(now);
        } else {
            self.let_excess_go(now);
            self.start_calls();
            self.start_claims();
        }
        self.start_settles();
        self.ctx.telemetry.paused(&self.ctx.settings.name, paused.is_some());
        self.ctx.telemetry.inflight(&self.ctx.settings.name, self.calling);
        let held = self.held();
        let busy = !self.is_empty() || !self.due.is_empty() || !self.fresh.is_empty() || held > 0;
        self.ctx.progress.holds(held + self.calling, busy);
    }
}

async fn come(clock: &dyn Clock, moment: Option<Timestamp>) {
    if let Some(moment) = moment {
        clock.sleep_until(moment).await;
    }
}

/// Runs a piece of work beside the lane's task; its report comes whatever happens to it.
fn help(reports: mpsc::Sender<Report>, work: impl Future<Output = Report> + Send + 'static) {
    tokio::spawn(async move {
        let report = AssertUnwindSafe(work).catch_unwind().await.unwrap_or(Report::Failed);
        if reports.send(report).await.is_err() {
            tracing::debug!("a lane ended before its helper reported");
        }
    });
}
