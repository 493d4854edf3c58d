//! The state machine of one lane: what is in hand, what is owned, what is being called, and what may start next.
//!
//! One task owns all of it, so there is no lock and no race; claims, calls and settlements run beside it and report back.
//! Batches are natural: what is ready goes at once, and the next batch gathers while the last ones are in flight. No timer.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::call::{self, Admitted};
use super::claim::{self, ClaimResult, Claiming};
use super::intake::{self, Arrival};
use super::paced::{Entry, GateKey, Paced, Pass};
use super::settle::{self, Closing};
use super::{InHand, LaneContext, Owned, until_answered};
use crate::broker;
use crate::clock::{Clock, Timestamp};
use crate::job::budget::{Take, Taken};
use crate::policy::admit::Suspicion;
use crate::store::{BATCH_BYTES_MAX, BATCH_MAX};

/// Most claim statements, and most settle statements, of one lane in flight.
const STATEMENTS_IN_FLIGHT_MAX: usize = 2;
/// A second statement beside the first has to be worth it: one that is smaller than the first, and than this, waits for
/// more to gather. A lane with little to do is not held back by that: its statements are of one or two.
const SECOND_STATEMENT_MIN: usize = 128;
/// Jobs owned or being claimed, per concurrency slot: one set is called while the next is claimed.
const OWNED_PER_SLOT: usize = 2;
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
        asked: usize,
        result: ClaimResult,
    },
    Called {
        suspect: bool,
        closing: Box<Closing>,
    },
    Asked {
        key: GateKey,
        wish: Take,
        taken: Taken,
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
    fresh: VecDeque<InHand>,
    owned: VecDeque<Owned>,
    paced: Paced,
    closings: Vec<Closing>,
    claiming: usize,
    claims_in_flight: usize,
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
            fresh: VecDeque::new(),
            owned: VecDeque::new(),
            paced: Paced::default(),
            closings: Vec::new(),
            claiming: 0,
            claims_in_flight: 0,
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
            Arrival::SessionOver => {
                // unclaimed copies come back by themselves; claimed ones are carried by their rows
                self.due.clear();
                self.fresh.clear();
                return;
            }
        };
        for delivery in deliveries {
            let read = if due { claim::read_due(&self.ctx, delivery) } else { claim::read_fresh(&self.ctx, delivery) };
            match read {
                Ok(in_hand) if due => self.due.push_back(in_hand),
                Ok(in_hand) => self.fresh.push_back(in_hand),
                Err(closing) => self.closings.push(*closing),
            }
        }
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::Claimed { asked, result } => {
                self.claims_in_flight -= 1;
                self.claiming -= asked;
                self.owned.extend(result.owned);
                self.closings.extend(result.closings);
            }
            Report::Called { suspect, closing } => {
                self.calling -= 1;
                if suspect {
                    self.suspect_is_running = false;
                }
                self.closings.push(*closing);
            }
            Report::Asked { key, wish, taken } => {
                let park = self.paced.answered(&key, &wish, &taken, self.ctx.clock.now());
                self.closings.extend(park.into_iter().map(|owned| call::await_turn(&self.ctx, owned)));
            }
            Report::Closed { asked, again } => {
                self.settles_in_flight -= 1;
                self.settling -= asked;
                self.due.extend(again);
            }
            // the process ends, and whoever is next takes over what this lane owned
            Report::Failed => panic!("a helper of lane {} panicked", self.ctx.settings.name),
        }
    }

    /// The stop: nothing unclaimed is kept, what is owned and not yet called goes back uncounted.
    fn wind_down(&mut self) {
        // given back at once: other workers must not wait for the end of our drain
        let receipts: Vec<_> = self.due.drain(..).chain(self.fresh.drain(..)).map(|in_hand| in_hand.receipt).collect();
        if !receipts.is_empty() {
            tokio::spawn(broker::give_back(receipts));
        }
        let now = self.ctx.clock.now();
        let owned = self.owned.drain(..).chain(self.paced.drain());
        self.closings.extend(owned.map(|owned| call::give_back(owned, now, false)));
    }

    fn is_empty(&self) -> bool {
        self.claims_in_flight == 0 && self.calling == 0 && self.settles_in_flight == 0 && self.closings.is_empty()
    }

    /// Starts whatever may start now.
    fn pump(&mut self) {
        self.start_calls();
        self.start_claims();
        self.start_settles();
        self.ctx.telemetry.inflight(&self.ctx.settings.name, self.calling);
        let held = self.owned.len() + self.paced.len();
        let busy = !self.is_empty() || !self.due.is_empty() || !self.fresh.is_empty() || held > 0;
        self.ctx.progress.holds(held + self.calling, busy);
    }

    /// First the jobs whose tokens have come, then those that need none; the others ask for theirs.
    fn start_calls(&mut self) {
        let (now, slots) = (self.ctx.clock.now(), self.ctx.settings.concurrency);
        while self.calling < slots {
            let mut next = self.paced.due(now);
            if next.is_none() && self.calling + self.paced.reserved(slots) < slots {
                next = self.next_unpaced(now);
            }
            let Some((owned, pass)) = next else { break };
            match self.admit(owned, pass, now) {
                Ok(admitted) => self.start_call(admitted),
                Err(closing) => self.closings.push(*closing),
            }
        }
        self.ask_for_tokens(now);
    }

    /// The next owned job that needs no tokens; those before it that need some are let in to wait for them.
    fn next_unpaced(&mut self, now: Timestamp) -> Option<(Owned, Pass)> {
        while let Some(owned) = self.owned.pop_front() {
            // who may not be called takes no token
            let owned = match call::admissible(&self.ctx, owned, self.suspicion()) {
                Ok((owned, _)) => owned,
                Err(closing) => {
                    self.closings.push(*closing);
                    continue;
                }
            };
            let (lane, job) = (&self.ctx.settings.name, &owned.job);
            let windows = self.ctx.budgets.windows(lane, &job.endpoint, &job.tenant);
            match self.paced.enter(owned, windows, &self.ctx.backlog, now) {
                Entry::Free(owned, pass) => return Some((owned, pass)),
                Entry::Held => {}
                Entry::Park(owned) => self.closings.push(call::await_turn(&self.ctx, owned)),
            }
        }
        None
    }

    fn ask_for_tokens(&mut self, now: Timestamp) {
        if self.paced.len() == 0 {
            return;
        }
        let room = self.ctx.settings.concurrency - self.calling;
        while let Some((key, wish)) = self.paced.next_wish(room, now) {
            let (ctx, reports) = (Arc::clone(&self.ctx), self.reports.clone());
            help(reports, async move {
                let taken = until_answered(&ctx, "take tokens", || ctx.store.take(&wish)).await;
                Report::Asked { key, wish, taken }
            });
        }
    }

    /// When a job may be called that cannot be called now: its token's time, while a slot is free for it.
    fn next_moment(&self) -> Option<Timestamp> {
        self.paced.next_moment().filter(|_| self.calling < self.ctx.settings.concurrency)
    }

    fn admit(&self, owned: Owned, pass: Pass, now: Timestamp) -> Result<Admitted, Box<Closing>> {
        let liveness = &self.ctx.liveness;
        if !liveness.may_call(now) || owned.worker != liveness.worker() {
            // our lease is, or was, over: whoever took the row over must not find us calling
            return Err(Box::new(call::give_back(owned, now, false)));
        }
        call::check(&self.ctx, owned, pass, self.suspicion())
    }

    fn suspicion(&self) -> Suspicion {
        Suspicion { poison_after: self.ctx.settings.poison_after, is_running: self.suspect_is_running }
    }

    fn start_call(&mut self, admitted: Admitted) {
        self.calling += 1;
        let suspect = admitted.is_suspect(self.suspicion());
        self.suspect_is_running |= suspect;
        let (ctx, reports, cut) = (Arc::clone(&self.ctx), self.reports.clone(), self.end.cut.clone());
        help(reports, async move {
            let closing = Box::new(call::call(ctx, admitted, cut).await);
            Report::Called { suspect, closing }
        });
    }

    fn start_claims(&mut self) {
        let most = OWNED_PER_SLOT * self.ctx.settings.concurrency;
        while self.claims_in_flight < STATEMENTS_IN_FLIGHT_MAX {
            let room =
                most.saturating_sub(self.claiming + self.owned.len() + self.paced.len() + self.calling).min(BATCH_MAX);
            let starving = self.owned.is_empty() && self.calling + self.claiming < self.ctx.settings.concurrency;
            if room < self.ctx.settings.concurrency / 2 && !starving {
                return; // slots free up one by one: a claim for each would cost more than the calls
            }
            // due first: a released job must not wait behind the backlog
            let from = if self.due.is_empty() { &mut self.fresh } else { &mut self.due };
            if self.claims_in_flight > 0 && from.len().min(room) < self.claiming.min(SECOND_STATEMENT_MIN) {
                return;
            }
            let batch = take_one_kind(from, room);
            if batch.is_empty() {
                return;
            }
            self.claims_in_flight += 1;
            self.claiming += batch.len();
            let (ctx, reports, asked) = (Arc::clone(&self.ctx), self.reports.clone(), batch.len());
            help(reports, async move { Report::Claimed { asked, result: claim::claim(&ctx, batch).await } });
        }
    }

    fn start_settles(&mut self) {
        while self.settles_in_flight < STATEMENTS_IN_FLIGHT_MAX && !self.closings.is_empty() {
            if self.settles_in_flight > 0 && self.closings.len() < self.settling.min(SECOND_STATEMENT_MIN) {
                return;
            }
            let mut bytes = 0;
            let fits = |closing: &&Closing| {
                let before = bytes;
                bytes += closing.body_bytes();
                before == 0 || bytes <= BATCH_BYTES_MAX
            };
            let count = self.closings.iter().take(BATCH_MAX).take_while(fits).count();
            let rest = self.closings.split_off(count);
            let batch = std::mem::replace(&mut self.closings, rest);
            self.settles_in_flight += 1;
            self.settling += count;
            let (ctx, reports) = (Arc::clone(&self.ctx), self.reports.clone());
            help(reports, async move { Report::Closed { asked: count, again: settle::close(&ctx, batch).await } });
        }
    }
}

async fn come(clock: &dyn Clock, moment: Option<Timestamp>) {
    if let Some(moment) = moment {
        clock.sleep_until(moment).await;
    }
}

/// Takes from the front at most `room` copies of the kind that is in front, so that a batch is one statement.
fn take_one_kind(from: &mut VecDeque<InHand>, room: usize) -> Vec<Claiming> {
    let kind = |in_hand: &InHand| matches!(in_hand.copy, super::Copy::Fresh { .. });
    let Some(first) = from.front().map(kind) else { return Vec::new() };
    let mut bytes = 0;
    let fits = |in_hand: &&InHand| {
        let before = bytes;
        bytes += in_hand.body_bytes();
        kind(in_hand) == first && (before == 0 || bytes <= BATCH_BYTES_MAX)
    };
    let count = from.iter().take(room).take_while(fits).count();
    from.drain(..count).map(|in_hand| Claiming { in_hand, token: Uuid::new_v4() }).collect()
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
