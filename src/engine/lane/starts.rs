//! What a lane starts when there is room for it: calls, tokens and slots to ask for, claims, settlements.

use std::collections::VecDeque;
use std::sync::Arc;

use uuid::Uuid;

use super::{Lane, Report, STATEMENTS_IN_FLIGHT_MAX, help};
use crate::clock::Timestamp;
use crate::engine::call::{self, Admitted};
use crate::engine::claim::{self, Claiming};
use crate::engine::paced::{GateKey, Paced, Pass};
use crate::engine::settle::{self, Closing};
use crate::engine::{Copy, InHand, LaneContext, Owned, until_answered};
use crate::governor::{Way, sync};
use crate::job::budget::Slot;
use crate::job::verdict::WaitReason;
use crate::policy::admit::Suspicion;
use crate::policy::pacing;
use crate::policy::turns::OWNED_PER_SLOT;
use crate::store::{BATCH_BYTES_MAX, BATCH_MAX, Holder};

/// A second statement beside the first has to be worth it: one that is smaller than the first, and than this, waits for
/// more to gather. A lane with little to do is not held back by that: its statements are of one or two.
const SECOND_STATEMENT_MIN: usize = 128;

impl Lane {
    /// First the jobs whose tokens have come, then those that need none; the others ask for theirs.
    pub(super) fn start_calls(&mut self) {
        let now = self.ctx.clock.now();
        let slots = self.concurrency(now);
        self.calls_max = slots;
        while self.calling < slots {
            if let Some((owned, pass)) = self.probes.pop_front() {
                self.start_probe(owned, pass, now);
            } else if let Some((owned, pass)) = self.paced.due(now) {
                // what was learnt while it waited counts for it too
                match self.way(&owned, now) {
                    Way::Free => self.admit_and_start(owned, pass, now),
                    Way::Paced(_) if pass.has_tokens() => self.admit_and_start(owned, pass, now),
                    way => {
                        self.paced.ended(&pass);
                        self.go_way(owned, way, now);
                    }
                }
            } else if self.calling + self.paced.reserved(slots) < slots {
                let Some((owned, pass)) = self.next_unpaced(now) else { break };
                self.admit_and_start(owned, pass, now);
            } else {
                break;
            }
        }
        let without = self.paced.without_slot(now);
        self.closings.extend(without.into_iter().map(|(owned, why)| call::await_turn(&self.ctx, owned, why)));
        self.ask_for_tokens(now);
        self.ask_for_slots(now);
    }

    /// Most calls of this lane in this worker: its own number, and its share of what all workers may have.
    fn concurrency(&mut self, now: Timestamp) -> usize {
        let own = self.ctx.concurrency(now);
        let Some(slot) = self.lane_slot() else { return own };
        let waiting = self.owned.len() + self.due.len() + self.fresh.len() + self.paced.len();
        self.paced.slots.set(&slot, self.calling, waiting.min(own.saturating_sub(self.calling)));
        self.paced.slots.granted(&slot, now).min(own)
    }

    /// The slots of all workers' calls of this lane together.
    fn lane_slot(&self) -> Option<Slot> {
        let max = self.ctx.settings.global_concurrency?;
        // no endpoint's name begins like this
        Some(Slot { key: format!("\u{1f}lane\u{1f}{}", self.ctx.settings.name), max })
    }

    fn way(&self, owned: &Owned, now: Timestamp) -> Way {
        self.ctx.governor.way(&self.ctx.settings.name, &owned.job.endpoint, &owned.job.tenant, now)
    }

    /// Sends the probe, unless somebody else has sent one, or was told to wait, since it was claimed.
    fn start_probe(&mut self, owned: Owned, pass: Pass, now: Timestamp) {
        let (endpoint, tenant) = (&owned.job.endpoint, &owned.job.tenant);
        let paused = self.ctx.governor.call_pause(endpoint, tenant, now).is_some();
        if !paused && self.ctx.governor.may_probe(endpoint, tenant, now) {
            return self.admit_and_start(owned, pass, now);
        }
        self.paced.ended(&pass);
        if paused {
            self.forgo_probe(&owned, now);
        }
        let reason = if paused { WaitReason::Paused } else { WaitReason::Circuit };
        self.closings.push(call::await_turn(&self.ctx, owned, reason));
    }

    fn admit_and_start(&mut self, owned: Owned, pass: Pass, now: Timestamp) {
        let probe = owned.is_probe.then(|| Arc::clone(&owned.job));
        match self.admit(owned, pass, now) {
            Ok(admitted) => self.start_call(admitted),
            Err((closing, pass)) => {
                self.paced.ended(&pass);
                if let Some(job) = probe {
                    self.ctx.governor.forgo_probe(&job.endpoint, &job.tenant, now);
                }
                self.closings.push(*closing);
            }
        }
    }

    /// The next owned job that needs nothing; those before it that need something are let in to wait for that.
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
            let way = self.way(&owned, now);
            if let Some(free) = self.go_way(owned, way, now) {
                return Some(free);
            }
        }
        None
    }

    /// Sends a job its way; it comes back when it may be called at once.
    fn go_way(&mut self, owned: Owned, way: Way, now: Timestamp) -> Option<(Owned, Pass)> {
        let (lane, job) = (&self.ctx.settings.name, &owned.job);
        let windows = match way {
            Way::Free => Vec::new(),
            Way::Paced(windows) => windows,
            Way::Shut { reason, .. } => {
                self.closings.push(call::await_turn(&self.ctx, owned, reason));
                return None;
            }
            Way::Probe(reason) => {
                self.claim_probe(owned, reason, now);
                return None;
            }
        };
        let slots = self.ctx.governor.slots(lane, &job.endpoint, &job.tenant);
        if windows.is_empty() && slots.is_empty() {
            return Some((owned, Paced::free()));
        }
        let key = (job.endpoint.clone(), job.tenant.clone());
        let is_fresh = matches!(owned.in_hand.copy, Copy::Fresh { .. });
        if is_fresh && (self.paced.is_shut(&key, now) || self.ctx.backlog.has(&key)) {
            let reason = if windows.is_empty() { WaitReason::Concurrency } else { WaitReason::Budget };
            self.closings.push(call::await_turn(&self.ctx, owned, reason));
            return None;
        }
        self.paced.enter(owned, windows, slots, now);
        None
    }

    /// Asks to be the one call that shows how things are. Meanwhile the job counts as being called.
    fn claim_probe(&mut self, mut owned: Owned, reason: WaitReason, now: Timestamp) {
        let (ctx, reports) = (Arc::clone(&self.ctx), self.reports.clone());
        let timeout = ctx.endpoints.get(&owned.job.endpoint).map(|endpoint| endpoint.timeout).unwrap_or_default();
        self.probing += 1;
        help(reports, async move {
            let whose = (&owned.job.endpoint, &owned.job.tenant);
            let patience = timeout + super::PROBE_MARGIN;
            let won = sync::probe(&ctx.governor, &*ctx.store, whose, now, patience).await;
            let won = won.unwrap_or_else(|error| {
                tracing::warn!(lane = %ctx.settings.name, %error, "no probe is claimed");
                false
            });
            owned.is_probe = won;
            Report::Probed { owned: Box::new(owned), reason }
        });
    }

    fn ask_for_tokens(&mut self, now: Timestamp) {
        if self.paced.len() == 0 {
            return;
        }
        let room = self.calls_max.saturating_sub(self.calling);
        while let Some(wish) = self.paced.next_wish(room, now) {
            let (ctx, reports) = (Arc::clone(&self.ctx), self.reports.clone());
            let pace = pacing::pace_of(&wish.take.windows);
            ctx.telemetry.pacing(&ctx.settings.name, &wish.key.0, &wish.key.1, pace);
            help(reports, async move {
                let taken = until_answered(&ctx, "take tokens", || ctx.store.take(&wish.take)).await;
                Report::Asked { wish, taken }
            });
        }
    }

    pub(super) fn ask_for_slots(&mut self, now: Timestamp) {
        if self.paced.slots.is_empty() && !self.paced.has_gates() {
            return;
        }
        self.paced.count_waiting();
        if self.lane_slot().is_some() {
            self.concurrency(now); // says again who waits for the lane's own
        }
        let Some(asks) = self.paced.slots.asks(now) else { return };
        let (ctx, reports) = (Arc::clone(&self.ctx), self.reports.clone());
        let longest_call = ctx.endpoints.values().map(|endpoint| endpoint.timeout).max().unwrap_or_default();
        let holder = Holder { worker: ctx.liveness.worker(), lane: ctx.settings.name.clone(), longest_call };
        help(reports, async move {
            let held = until_answered(&ctx, "renew slots", || ctx.store.renew_slots(&holder, now, &asks)).await;
            Report::Slots { asks, held, asked_at: now }
        });
    }

    /// When something may be done that cannot be done now.
    pub(super) fn next_moment(&self) -> Option<Timestamp> {
        // a token's time, while a slot is free for it
        let token = self.paced.next_moment().filter(|_| self.calling < self.calls_max);
        // what is in hand may be waiting for it
        let opening = (!self.fresh.is_empty()).then(|| self.paced.next_opening(self.ctx.clock.now())).flatten();
        let moments = [token, opening, self.paced.next_giving_up(), self.paced.slots.next_ask()];
        moments.into_iter().chain([self.pause_ends, self.concurrency_ends]).flatten().min()
    }

    fn admit(&self, owned: Owned, pass: Pass, now: Timestamp) -> Result<Admitted, (Box<Closing>, Pass)> {
        let liveness = &self.ctx.liveness;
        if !liveness.may_call(now) || owned.worker != liveness.worker() {
            // our lease is, or was, over: whoever took the row over must not find us calling
            return Err((Box::new(call::give_back(owned, now, false)), pass));
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
            let (closing, pass) = call::call(ctx, admitted, cut).await;
            Report::Called { suspect, closing: Box::new(closing), pass }
        });
    }

    pub(super) fn start_claims(&mut self) {
        let concurrency = self.ctx.concurrency(self.ctx.clock.now());
        let most = OWNED_PER_SLOT * concurrency;
        while self.claims_in_flight < STATEMENTS_IN_FLIGHT_MAX {
            if self.claim_waiting() {
                continue;
            }
            let room = most.saturating_sub(self.calling + self.claiming + self.held()).min(BATCH_MAX);
            let starving = self.owned.is_empty() && self.calling + self.claiming < concurrency;
            if room < concurrency / 2 && !starving {
                return; // slots free up one by one: a claim for each would cost more than the calls
            }
            // due first: a released job must not wait behind the backlog
            let ready = if self.due.is_empty() { self.fresh.len() } else { self.due.len() };
            if self.claims_in_flight > 0 && ready.min(room) < self.claiming.min(SECOND_STATEMENT_MIN) {
                return;
            }
            let batch = if self.due.is_empty() {
                let (ctx, paced, now) = (&self.ctx, &self.paced, self.ctx.clock.now());
                let most = |key: &GateKey| claims_max(ctx, paced, key, now);
                let most: Option<&dyn Fn(&GateKey) -> usize> = if self.nothing_waits() { None } else { Some(&most) };
                self.fresh.take(room, |tenant| ctx.governor.budgets().weight(tenant), most)
            } else {
                take_one_kind(&mut self.due, room)
            };
            if batch.is_empty() {
                return;
            }
            let claiming = batch.len();
            self.claiming += claiming;
            self.claim(batch.into_iter().map(|in_hand| (in_hand, None)), claiming);
        }
    }

    /// Claims fresh copies whose jobs can't be called soon directly as waiting: they leave, whatever room there is for
    /// calls, and nobody stands behind them. False when there are none.
    fn claim_waiting(&mut self) -> bool {
        if self.fresh.is_empty() || self.nothing_waits() {
            return false;
        }
        let ctx = &self.ctx;
        let now = ctx.clock.now();
        let paced = &self.paced;
        let batch = self.fresh.take_waiting(BATCH_MAX, |key| why_waiting(ctx, paced, key, now));
        if batch.is_empty() {
            return false;
        }
        self.claim(batch.into_iter().map(|(in_hand, reason)| (in_hand, Some(reason))), 0);
        true
    }

    /// Whether no job of this lane can have to wait.
    fn nothing_waits(&self) -> bool {
        self.ctx.backlog.is_empty() && !self.ctx.governor.knows_any() && !self.paced.has_gates()
    }

    fn claim(&mut self, batch: impl Iterator<Item = (InHand, Option<WaitReason>)>, counted: usize) {
        self.claims_in_flight += 1;
        let (ctx, reports) = (Arc::clone(&self.ctx), self.reports.clone());
        let batch: Vec<Claiming> =
            batch.map(|(in_hand, in_turn)| Claiming { in_hand, token: Uuid::new_v4(), in_turn }).collect();
        help(reports, async move { Report::Claimed { counted, result: claim::claim(&ctx, batch).await } });
    }

    pub(super) fn start_settles(&mut self) {
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

/// How many fresh jobs of this gate are claimed to be called. Before the first answer of its endpoint is heard few may be, and
/// claiming more would send them through the store for the time that one answer takes: they stay in hand.
fn claims_max(ctx: &LaneContext, paced: &Paced, key: &GateKey, now: Timestamp) -> usize {
    match ctx.governor.way(&ctx.settings.name, &key.0, &key.1, now) {
        Way::Paced(windows) if pacing::end_with_the_first_answer(&windows) => {
            if paced.is_shut(key, now) || paced.has_waiting(key) { 0 } else { pacing::FIRST_BURST as usize }
        }
        _ => usize::MAX,
    }
}

/// Why a fresh job of this gate can't be called soon; `None` when it may be.
fn why_waiting(ctx: &LaneContext, paced: &Paced, key: &GateKey, now: Timestamp) -> Option<WaitReason> {
    let stands_behind = ctx.backlog.has(key) || paced.is_shut(key, now);
    match ctx.governor.way(&ctx.settings.name, &key.0, &key.1, now) {
        Way::Shut { reason, .. } => Some(reason),
        Way::Probe(reason) => stands_behind.then_some(reason),
        // a backlog need not go through the store for the time that one answer takes
        Way::Paced(windows) if pacing::end_with_the_first_answer(&windows) => None,
        Way::Paced(_) => stands_behind.then_some(WaitReason::Budget),
        // nothing holds it back any more: those that still wait come back beside it
        Way::Free if ctx.governor.slots(&ctx.settings.name, &key.0, &key.1).is_empty() => None,
        Way::Free => stands_behind.then_some(WaitReason::Concurrency),
    }
}

/// Takes from the front at most `room` copies of the kind that is in front, so that a batch is one statement.
fn take_one_kind(from: &mut VecDeque<InHand>, room: usize) -> Vec<InHand> {
    let kind = |in_hand: &InHand| matches!(in_hand.copy, Copy::Fresh { .. });
    let Some(first) = from.front().map(kind) else { return Vec::new() };
    let mut bytes = 0;
    let fits = |in_hand: &&InHand| {
        let before = bytes;
        bytes += in_hand.body_bytes();
        kind(in_hand) == first && (before == 0 || bytes <= BATCH_BYTES_MAX)
    };
    let count = from.iter().take(room).take_while(fits).count();
    from.drain(..count).collect()
}
