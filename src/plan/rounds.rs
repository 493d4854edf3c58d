//! Turns: in rounds, jobs that wait for their turn are released as far as there are tokens and slots for them soon.

use std::collections::BTreeMap;

use super::world::{Event, Gate, World};
use crate::clock::Timestamp;
use crate::policy::turns::{AHEAD, RELEASE_MAX, ROUND, Waiting, slots_soon};
use crate::store::gcra;

impl World<'_> {
    /// Somebody began to wait, or what is known has changed: the next round may be earlier than it seemed.
    pub(super) fn look_again(&mut self, lane: usize) {
        let next = self.round_at(lane, self.now);
        if self.lanes[lane].look_at.is_none_or(|at| at > next) {
            self.look_at(lane, next);
        }
    }

    fn look_at(&mut self, lane: usize, at: Timestamp) {
        self.lanes[lane].look_at = Some(at);
        self.schedule(at, Event::Look(lane));
    }

    /// The first round of a lane at this moment or after it.
    fn round_at(&self, lane: usize, at: Timestamp) -> Timestamp {
        let last = self.lanes[lane].looked_at;
        let rounds = at.since(last).as_micros().div_ceil(ROUND.as_micros()).max(1);
        last.plus(ROUND.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX)))
    }

    /// One round, if it is time for one.
    pub(super) fn look(&mut self, at: usize) {
        if self.lanes[at].look_at != Some(self.now) {
            return; // it was brought forward
        }
        let waiting: Vec<usize> = {
            let gates = self.lanes[at].gates.iter().copied();
            gates.filter(|gate| !self.gates[*gate].parked.is_empty()).collect()
        };
        self.steps += self.lanes[at].gates.len() as u64 / 8; // a look at one is cheap beside an event
        self.lanes[at].look_at = None;
        self.lanes[at].looked_at = self.now;
        if waiting.is_empty() {
            return;
        }
        let released = self.release(at, &waiting);
        let next = if released { self.now.plus(ROUND) } else { self.next_round(at, &waiting) };
        if released {
            self.pump(at);
        }
        // who was parked meanwhile has asked for a round already
        if self.lanes[at].look_at.is_none_or(|look_at| look_at > next) {
            self.look_at(at, next);
        }
    }

    /// The first round in which somebody may be released of those who could not be now. Those in between change nothing.
    fn next_round(&self, at: usize, waiting: &[usize]) -> Timestamp {
        let mut next = Timestamp::MAX;
        for gate in waiting.iter().map(|gate| &self.gates[*gate]).filter(|gate| gate.shut_until.is_none()) {
            let tokens = self.tokens_at(gate);
            // slots become free, and jobs that are on their way are claimed, when something happens
            let event = self.events.peek().map(|std::cmp::Reverse((at, ..))| *at);
            let waits_for_event = !gate.slot_keys.is_empty() || tokens <= self.now;
            next = next.min(if waits_for_event { event.unwrap_or(self.now).min(tokens.max(self.now)) } else { tokens });
        }
        if next == Timestamp::MAX { next } else { self.round_at(at, next.max(self.now)) }
    }

    /// When the next token of a gate is near enough to release a job for it.
    fn tokens_at(&self, gate: &Gate) -> Timestamp {
        let soon = self.now.plus(AHEAD);
        let first = gate.keys.iter().zip(&gate.take.windows);
        let first = first.map(|(key, window)| gcra::first(window, self.keys[*key].due, self.now, soon));
        first.max().unwrap_or(self.now).minus(AHEAD)
    }

    /// Releases whose turn it is; false when it is nobody's.
    fn release(&mut self, at: usize, waiting: &[usize]) -> bool {
        // whoever has no tokens gets no turn, but jobs of it that are on their way need theirs
        let counts = |gate: usize| {
            let gate = &self.gates[gate];
            gate.shut_until.is_none() && (!gate.due.is_empty() || self.tokens_at(gate) <= self.now)
        };
        let gates: Vec<usize> = waiting.iter().copied().filter(|gate| counts(*gate)).collect();
        if gates.is_empty() {
            return false;
        }
        let queued = self.lanes[at].due.len();
        let most = RELEASE_MAX.saturating_sub(u32::try_from(queued).unwrap_or(u32::MAX));
        let mut shares = std::mem::take(&mut self.lanes[at].shares);
        let jobs = shares.turns(&self.waiting(&gates), self.left(&gates), most);
        self.lanes[at].shares = shares;
        let mut released = false;
        for (gate, jobs) in gates.into_iter().zip(jobs) {
            let of_gate = &mut self.gates[gate];
            let jobs = u64::from(jobs).min(of_gate.parked.len());
            for _ in 0..jobs {
                let Some(published) = of_gate.parked.take() else { break };
                of_gate.due.add(published, 1);
                self.lanes[at].due.push_back(gate);
            }
            released |= jobs > 0;
        }
        released
    }

    fn waiting(&self, gates: &[usize]) -> Vec<Waiting<'_, usize>> {
        let waiting = |who: &usize| {
            let gate = &self.gates[*who];
            let tokens = gate.take.windows.iter().map(|window| (window.key.as_str(), gate.cost));
            let slots = gate.slot_keys.iter().map(|key| (self.slot_keys[*key].slot.key.as_str(), 1));
            Waiting {
                who: *who,
                needs: tokens.chain(slots).collect(),
                weight: gate.weight,
                on_their_way: u32::try_from(gate.due.len()).unwrap_or(u32::MAX),
                most: u32::MAX,
            }
        };
        gates.iter().map(waiting).collect()
    }

    /// How much there is of everything that is needed: tokens that can be used soon, slots that are or become free soon.
    fn left(&self, gates: &[usize]) -> BTreeMap<&str, u32> {
        let soon = self.now.plus(AHEAD);
        let mut left: BTreeMap<&str, u32> = BTreeMap::new();
        let mut at_most = |key, much: u32| {
            left.entry(key).and_modify(|known| *known = much.min(*known)).or_insert(much);
        };
        for gate in gates.iter().map(|gate| &self.gates[*gate]) {
            for (key, window) in gate.keys.iter().zip(&gate.take.windows) {
                let first = gcra::first(window, self.keys[*key].due, self.now, soon);
                at_most(window.key.as_str(), gcra::tokens_by(window, first, soon).saturating_mul(gate.cost));
            }
            for key in gate.slot_keys.iter().map(|key| &self.slot_keys[*key]) {
                let in_use = key.used.iter().sum();
                at_most(key.slot.key.as_str(), slots_soon(key.slot.max, in_use, gate.took, AHEAD));
            }
        }
        left
    }
}
