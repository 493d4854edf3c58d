//! The simulation: one event after another, by the rules of the engine's lanes.

use std::cmp::Reverse;
use std::time::Duration;

use super::world::{Event, World};
use super::{CALLS_MAX, LOOK_AGAIN, RATES_FOR_MIN, STEPS_MAX};
use crate::clock::Timestamp;
use crate::policy::turns::{HELD_MAX, OWNED_PER_SLOT};
use crate::store::gcra;

/// Runs until every backlog is done (and rates have had their time), the horizon, or a bound.
pub(super) fn run(world: &mut World<'_>) {
    let end = world.setup.start.plus(world.setup.horizon);
    let half = world.setup.start.plus(world.setup.horizon / 2);
    let has_rates = world.loads.iter().any(|load| load.rate > 0.0);
    let at_least = if has_rates { world.setup.start.plus(RATES_FOR_MIN).min(end) } else { world.setup.start };
    world.begin();
    loop {
        let next = world.events.peek().map(|Reverse((at, ..))| *at);
        if world.half.is_none()
            && (world.calls >= CALLS_MAX / 2 || world.steps >= STEPS_MAX / 2 || next.is_some_and(|at| at >= half))
        {
            world.half = Some(world.mark(None));
        }
        if world.calls > CALLS_MAX || world.steps > STEPS_MAX {
            world.is_cut = true;
            return;
        }
        let is_drained = world.lanes.iter().all(|lane| lane.backlog_left == 0);
        match next {
            Some(at) if at <= end && !(is_drained && at > at_least) => {}
            // nothing more happens before
            _ => {
                world.now = if is_drained { world.now.max(at_least) } else { end };
                return;
            }
        }
        let Some(Reverse((at, _, event))) = world.events.pop() else { return };
        world.now = at;
        world.steps += 1;
        world.happen(event);
    }
}

impl World<'_> {
    fn begin(&mut self) {
        for at in 0..self.gates.len() {
            let (lane, backlog) = (self.gates[at].lane, self.gates[at].backlog);
            self.lanes[lane].backlog_left += backlog;
            self.arrive(at, self.now, backlog);
        }
        for load in 0..self.loads.len() {
            self.publish_next(load, 0);
        }
        (0..self.lanes.len()).for_each(|lane| self.pump(lane));
        if self.present.is_some() {
            self.schedule(self.next_refit(), Event::Refit);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::End(gate, of_backlog) => self.ended(gate, of_backlog),
            Event::Call(gate, published) => {
                let lane = &mut self.lanes[self.gates[gate].lane];
                if lane.calling < lane.slots {
                    lane.granted -= 1;
                    self.call(gate, published);
                } else {
                    lane.overdue.push_back((gate, published));
                }
            }
            Event::Publish(load, nth) => {
                let of_load = &self.of_loads[load];
                let tenant = usize::try_from(nth % of_load.len().max(1) as u64).unwrap_or(0);
                if let Some(gate) = of_load.get(tenant).copied() {
                    self.arrive(gate, self.now, 1);
                    self.publish_next(load, nth + 1);
                    self.pump(self.gates[gate].lane);
                }
            }
            Event::GiveUp(gate) => self.give_up(gate),
            Event::Look(lane) => self.look(lane),
            Event::Refit => {
                for gate in 0..self.gates.len() {
                    self.refit(gate);
                    while self.gates[gate].shut_until.is_some()
                        && let Some((published, _)) = self.let_go(gate)
                    {
                        self.park(gate, published, 1);
                    }
                }
                self.steps += self.gates.len() as u64;
                (0..self.lanes.len()).for_each(|lane| self.look_again(lane));
                self.schedule(self.next_refit(), Event::Refit);
            }
        }
    }

    /// When what is known may have changed.
    fn next_refit(&self) -> Timestamp {
        let opens = self.gates.iter().filter_map(|gate| gate.shut_until).filter(|until| *until > self.now);
        opens.min().unwrap_or(Timestamp::MAX).min(self.now.plus(LOOK_AGAIN))
    }

    /// Jobs come evenly, each at a moment within its own part of the time: the same ones in every simulation.
    fn publish_next(&mut self, load: usize, nth: u64) {
        let rate = self.loads[load].rate;
        if rate > 0.0 {
            #[expect(clippy::cast_precision_loss, reason = "bounded by the calls of a simulation")]
            let after = (nth as f64 + spread(load as u64, nth)) / rate;
            // never the moment of the start: that is the backlog's
            let after = Duration::try_from_secs_f64(after).unwrap_or(Duration::MAX).max(Duration::from_micros(1));
            self.schedule(self.setup.start.plus(after), Event::Publish(load, nth));
        }
    }

    /// Whether fresh jobs of a gate can't be called soon: they wait for their turn.
    fn stands_behind(&self, gate: usize) -> bool {
        let gate = &self.gates[gate];
        let is_shut = gate.shut_until.is_some() || gate.opens_at > self.now.plus(HELD_MAX);
        !gate.is_free() && (is_shut || !gate.parked.is_empty())
    }

    fn arrive(&mut self, at: usize, published: Timestamp, jobs: u64) {
        if jobs == 0 {
            return;
        }
        if self.stands_behind(at) {
            self.park(at, published, jobs);
            return;
        }
        let gate = &mut self.gates[at];
        if gate.fresh.is_empty() {
            self.lanes[gate.lane].fresh.push_back(at);
        }
        gate.fresh.add(published, jobs);
    }

    /// Jobs wait for their turn, and with them all fresh ones of their gate.
    pub(super) fn park(&mut self, at: usize, published: Timestamp, jobs: u64) {
        let gate = &mut self.gates[at];
        let was_empty = gate.parked.is_empty();
        gate.parked.add(published, jobs);
        let lane = gate.lane;
        if !gate.fresh.is_empty() {
            gate.fresh.pour(&mut gate.parked);
            let fresh = &mut self.lanes[lane].fresh;
            if fresh.front() == Some(&at) {
                self.lanes[lane].taken = 0;
            }
            self.lanes[lane].fresh.retain(|other| *other != at);
        }
        if was_empty {
            self.look_again(lane);
        }
    }

    /// Starts whatever may start now in a lane.
    pub(super) fn pump(&mut self, lane: usize) {
        loop {
            self.start_calls(lane);
            self.ask(lane);
            if !self.claim(lane) {
                return;
            }
        }
    }

    fn start_calls(&mut self, at: usize) {
        loop {
            let lane = &mut self.lanes[at];
            if lane.calling >= lane.slots {
                return;
            }
            if let Some((gate, published)) = lane.overdue.pop_front() {
                lane.granted -= 1;
                self.call(gate, published);
                continue;
            }
            // those that are held must not stand for ever behind those that need nothing
            let kept = (lane.held + lane.granted).min(lane.slots / 2);
            if lane.calling + kept >= lane.slots {
                return;
            }
            let Some((gate, published, is_fresh)) = lane.owned.pop_front() else { return };
            self.go_way(gate, published, is_fresh);
        }
    }

    /// Sends a claimed job its way.
    fn go_way(&mut self, at: usize, published: Timestamp, is_fresh: bool) {
        if self.gates[at].is_free() {
            self.call(at, published);
            return;
        }
        if self.gates[at].shut_until.is_some() || is_fresh && self.stands_behind(at) {
            self.park(at, published, 1);
            return;
        }
        let gate = &mut self.gates[at];
        gate.held.push_back((published, self.now));
        let lane = &mut self.lanes[gate.lane];
        lane.held += 1;
        if !gate.asks {
            gate.asks = true;
            lane.asking.push_back(at);
        }
        if !gate.slot_keys.is_empty() {
            for key in &gate.slot_keys {
                self.slot_keys[*key].waiting[gate.lane] += 1;
            }
            self.schedule(self.now.plus(HELD_MAX), Event::GiveUp(at));
        }
    }

    /// The oldest of those held at a gate: when it was published, and since when it is held.
    fn let_go(&mut self, at: usize) -> Option<(Timestamp, Timestamp)> {
        let gate = &mut self.gates[at];
        let first = gate.held.pop_front()?;
        self.lanes[gate.lane].held -= 1;
        for key in &gate.slot_keys {
            self.slot_keys[*key].waiting[gate.lane] -= 1;
        }
        Some(first)
    }

    /// Those who have waited too long for a slot wait for their turn.
    fn give_up(&mut self, at: usize) {
        while self.gates[at].held.front().is_some_and(|(_, since)| self.now.since(*since) >= HELD_MAX) {
            if let Some((published, _)) = self.let_go(at) {
                self.park(at, published, 1);
            }
        }
        self.pump(self.gates[at].lane);
    }

    /// Asks for tokens, while there is room for calls: gates take turns.
    fn ask(&mut self, at: usize) {
        let mut in_vain = 0;
        while in_vain < self.lanes[at].asking.len() {
            let lane = &mut self.lanes[at];
            let room = lane.slots.saturating_sub(lane.calling + lane.granted);
            if room == 0 {
                return;
            }
            let Some(gate) = lane.asking.pop_front() else { return };
            let jobs = self.gates[gate].held.len().min(room).min(self.free_slots(gate));
            if jobs > 0 {
                in_vain = 0;
                self.take(gate, jobs);
            } else {
                in_vain += 1;
            }
            self.gates[gate].asks = !self.gates[gate].held.is_empty();
            if self.gates[gate].asks {
                self.lanes[at].asking.push_back(gate);
            }
        }
    }

    fn take(&mut self, at: usize, jobs: usize) {
        let gate = &mut self.gates[at];
        (gate.take.tokens, gate.take.now) = (u32::try_from(jobs).unwrap_or(u32::MAX), self.now);
        gate.take.until = self.now.plus(HELD_MAX);
        if gate.keys.is_empty() {
            (0..jobs).for_each(|_| self.grant(at, self.now));
            return;
        }
        let due: Vec<Option<Timestamp>> = gate.keys.iter().map(|key| self.keys[*key].due).collect();
        let (taken, after) = gcra::take(&gate.take, &due);
        if taken.granted > 0 {
            for (key, due) in gate.keys.iter().zip(after) {
                self.keys[*key].due = Some(due);
            }
        }
        let is_short = taken.granted < gate.take.tokens;
        if is_short {
            gate.opens_at = taken.opens_at(&gate.take.windows);
        }
        let moments: Vec<Timestamp> = taken.slots(&gate.take.windows).collect();
        for moment in moments {
            // what is granted of the past is a burst: it may go now
            self.grant(at, moment.max(self.now));
        }
        if is_short {
            while let Some((published, _)) = self.let_go(at) {
                self.park(at, published, 1);
            }
        }
    }

    fn grant(&mut self, at: usize, moment: Timestamp) {
        if let Some((published, _)) = self.let_go(at) {
            let gate = &self.gates[at];
            self.lanes[gate.lane].granted += 1;
            for key in &gate.slot_keys {
                self.slot_keys[*key].used[gate.lane] += 1;
            }
            self.schedule(moment, Event::Call(at, published));
        }
    }

    fn call(&mut self, at: usize, published: Timestamp) {
        let gate = &mut self.gates[at];
        let of_backlog = published == self.setup.start;
        gate.backlog_started += u64::from(of_backlog);
        let lane = &mut self.lanes[gate.lane];
        lane.calling += 1;
        lane.started += 1;
        lane.busy += gate.took.as_secs_f64();
        lane.waits.add(self.now.since(published), 1);
        for (key, window) in gate.keys.iter().zip(&gate.take.windows) {
            self.keys[*key].used[gate.lane] += window.interval.as_secs_f64();
        }
        for key in &gate.slot_keys {
            self.slot_keys[*key].busy[gate.lane] += gate.took.as_secs_f64();
        }
        self.calls += 1;
        let ends = self.now.plus(gate.took);
        if let Some(trace) = &mut self.trace {
            trace.push((self.now, at));
        }
        self.schedule(ends, Event::End(at, of_backlog));
    }

    fn ended(&mut self, at: usize, of_backlog: bool) {
        let gate = &self.gates[at];
        let lane = gate.lane;
        let mut others = Vec::new();
        for key in &gate.slot_keys {
            let key = &mut self.slot_keys[*key];
            key.used[lane] -= 1;
            others.extend((0..key.waiting.len()).filter(|other| *other != lane && key.waiting[*other] > 0));
        }
        self.lanes[lane].calling -= 1;
        if of_backlog {
            self.lanes[lane].backlog_left -= 1;
            if self.lanes[lane].backlog_left == 0 {
                self.lanes[lane].drained = Some(self.mark(Some(lane)));
            }
        }
        self.pump(lane);
        others.dedup();
        for other in others {
            self.pump(other);
        }
    }

    /// Claims a job, while there is room for it: released ones first, then tenants in rounds by weight.
    fn claim(&mut self, at: usize) -> bool {
        let lane = &mut self.lanes[at];
        let owned = lane.owned.len() + lane.held + lane.granted + lane.calling;
        if owned >= OWNED_PER_SLOT * lane.slots {
            return false;
        }
        if let Some(gate) = lane.due.pop_front() {
            if let Some(published) = self.gates[gate].due.take() {
                lane.owned.push_back((gate, published, false));
            }
            return true;
        }
        let Some(gate) = lane.fresh.front().copied() else { return false };
        let fresh = &mut self.gates[gate].fresh;
        if let Some(published) = fresh.take() {
            lane.owned.push_back((gate, published, true));
        }
        lane.taken += 1;
        let is_empty = fresh.is_empty();
        if is_empty || lane.fresh.len() > 1 && lane.taken >= self.gates[gate].weight {
            lane.taken = 0;
            lane.fresh.pop_front();
            if !is_empty {
                lane.fresh.push_back(gate);
            }
        }
        true
    }
}

/// A number from 0 to 1 that looks random and is always the same (`SplitMix64`).
#[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
fn spread(load: u64, nth: u64) -> f64 {
    let mut bits = (load << 48) ^ nth;
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}
