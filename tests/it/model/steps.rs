//! Every step that can follow a world: publisher, time, releaser, sweeper, operator, workers, and each fault that is left.

use lanes::clock::Timestamp;
use lanes::job::Identity;
use lanes::job::verdict::{DeadReason, WaitReason};
use lanes::store::decide::{Copy, CopyKind, Verb};
use lanes::store::transition::{self, ClaimWrites, Row, Settle};
use lanes::store::{Next, State};
use uuid::Uuid;

use super::variants::{WINDOW, Without};
use super::world::{
    ATTEMPTS_MAX, At, FRESH, Fault, Faults, LATER, NOW, PUBLISHES_MAX, TOKENS, WAKE_UP, Worker, World, is_live, lapse,
    uuid_of,
};

/// A promise that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// All is quiet, and an accepted message has neither success, letter, cancel nor an honest duplicate verdict.
    Lost,
    /// All is quiet, and a replay command has vanished.
    Replay,
    /// A world from which no fault-free path leads to quiet.
    Stuck,
    /// Two instances of one id, published within the window, both had their effect.
    Dup,
    /// All is quiet, and a letter has no payload any more.
    Gone,
    /// One instance had its effect twice although no fault happened.
    Twice,
    /// A job was claimed again after an operator had been told that it would not be called any more.
    Cancel,
    /// Two rows hold the key.
    Key,
}

/// A step and where it leads.
pub struct Step {
    pub label: &'static str,
    pub instance: usize,
    pub fault: bool,
    pub breaks: Option<Violation>,
    pub to: World,
}

/// What is explored.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    pub without: Without,
    /// When the instances of the id are published.
    pub published_at: &'static [Timestamp],
    pub faults: Faults,
    pub replays: u8,
    pub cancels: u8,
    /// Jobs that an operator hurries. Where there are any, a retry waits for a time that has not come.
    pub hastens: u8,
    /// How many takeovers make a job poisonous.
    pub poison_after: u32,
    /// Budgets: a job may have to wait for its turn, before its claim or after it.
    pub turns: bool,
}

impl Model {
    pub fn start(&self) -> World {
        World::start(self.faults, [self.replays, self.cancels, self.hastens])
    }

    /// Two instances are published within the window.
    pub fn near(&self, a: usize, b: usize) -> bool {
        self.published_at[a].distance(self.published_at[b]) < WINDOW
    }

    /// Appends every step that can follow `from`.
    pub fn steps(&self, from: &World, into: &mut Vec<Step>) {
        let mut steps = Steps { model: self, from, into };
        steps.publisher();
        for (instance, row) in from.rows.iter().enumerate() {
            if let Some(row) = row {
                steps.time(instance, row);
                steps.operator(instance, row);
                if from.releaser.is_none() {
                    steps.releaser_and_sweeper(instance, row);
                }
            }
        }
        if let Some(instance) = from.releaser {
            steps.wake_up(instance);
        }
        match from.workers {
            [None, None] => steps.free_worker(0),
            [a, b] => [a, b].iter().enumerate().for_each(|(slot, worker)| match worker {
                None => steps.free_worker(slot),
                Some(worker) => steps.busy_worker(slot, worker),
            }),
        }
    }
}

struct Steps<'a> {
    model: &'a Model,
    from: &'a World,
    into: &'a mut Vec<Step>,
}

impl Steps<'_> {
    fn step(&mut self, label: &'static str, instance: usize, change: impl FnOnce(&mut World)) {
        self.push(label, instance, false, None, change);
    }

    /// A step that can be taken only while its fault is left.
    fn fault(&mut self, fault: Fault, label: &'static str, instance: usize, change: impl FnOnce(&mut World)) {
        self.fault_that_breaks(fault, None, label, instance, change);
    }

    fn fault_that_breaks(
        &mut self,
        fault: Fault,
        breaks: Option<Violation>,
        label: &'static str,
        instance: usize,
        change: impl FnOnce(&mut World),
    ) {
        if self.from.faults[fault as usize] > 0 {
            self.push(label, instance, true, breaks, |world| {
                world.faults[fault as usize] -= 1;
                change(world);
            });
        }
    }

    fn push(
        &mut self,
        label: &'static str,
        instance: usize,
        fault: bool,
        breaks: Option<Violation>,
        change: impl FnOnce(&mut World),
    ) {
        let mut to = *self.from;
        change(&mut to);
        self.into.push(Step { label, instance, fault, breaks, to });
    }

    fn publisher(&mut self) {
        let i = self.from.published;
        if i == self.model.published_at.len() {
            return;
        }
        let publish = |copies| {
            move |world: &mut World| {
                world.published += 1;
                world.ready[i][FRESH] += copies;
            }
        };
        self.step("is published", i, publish(1));
        self.fault(Fault::Confirm, "is published, confirm lost, is published again", i, publish(2));
    }

    fn time(&mut self, i: usize, row: &Row) {
        let from = self.from;
        let over = |world: &mut World| world.rows[i].iter_mut().for_each(lapse);
        let copies = from.ready[i];
        let in_hand = |kind| from.workers.iter().flatten().any(|worker| worker.instance == i && worker.kind == kind);
        let in_flight = |kind: usize| copies[kind] > 0 || in_hand(kind);
        let woken = in_flight(WAKE_UP) || from.releaser == Some(i);
        match (row.state, is_live(row)) {
            (State::Run, true) if !from.is_owned(i) => self.step("lease over", i, over),
            (State::Run, true) => self.fault(Fault::Zombie, "lease over under a living worker", i, over),
            (State::Waiting, true) => self.step("its time comes", i, over),
            (State::Queued, true) if !woken => self.step("grace over", i, over),
            (State::Queued, true) => self.fault(Fault::Slow, "grace over, wake-up still queued", i, over),
            // Longer than the broker can take to redeliver: nobody holds this job any more.
            (State::Run, false) if !row.has_payload && !woken && !in_flight(FRESH) => {
                let letter = Row { state: State::Dead, effect_possible: true, holds_key: false, ..*row };
                self.step("payload lost: letter", i, |world| world.rows[i] = Some(letter));
            }
            _ => {}
        }
    }

    fn releaser_and_sweeper(&mut self, i: usize, row: &Row) {
        let rules = self.model.without;
        let key_free = !self.from.rows.iter().flatten().any(Row::is_busy);
        let released = |row: Row| {
            move |world: &mut World| {
                world.rows[i] = Some(row);
                world.releaser = (row.state == State::Queued).then_some(i);
            }
        };
        if let Some(row) = rules.release(row, key_free) {
            self.step("released", i, released(row));
            self.fault(Fault::Commit, "released, COMMIT answer lost, releaser gives up", i, |world| {
                world.rows[i] = Some(row);
            });
        }
        if let Some(row) = rules.sweep_queued(row) {
            self.step("swept: grace over, released again", i, released(row));
        }
        if is_live(row) {
            return;
        }
        if let Some(row) = rules.sweep_run(row, self.model.poison_after) {
            let label = match row.state {
                State::Queued => "swept: lease over, released again",
                State::Cancelled => "swept: lease over, cancelled",
                _ => "swept: lease over, letter: poison",
            };
            self.step(label, i, released(row));
        }
    }

    /// The releaser has marked a row and publishes its wake-up.
    fn wake_up(&mut self, i: usize) {
        self.fault(Fault::Crash, "RELEASER CRASH before the wake-up", i, |world| world.releaser = None);
        self.step("wake-up confirmed", i, |world| {
            world.releaser = None;
            world.ready[i][WAKE_UP] += 1;
        });
        self.fault(Fault::Confirm, "wake-up stored, confirm lost, again", i, |world| world.ready[i][WAKE_UP] += 1);
        self.fault(Fault::Confirm, "wake-up not stored, no confirm, again", i, |_| {});
    }

    fn operator(&mut self, i: usize, row: &Row) {
        let rules = self.model.without;
        if self.from.replays > 0
            && let Some(row) = rules.replay(row)
        {
            self.step("replayed by the operator", i, |world| {
                world.rows[i] = Some(row);
                world.replays -= 1;
                world.replayed = Some(i);
            });
        }
        if self.from.cancels > 0
            && let (_, Some(row)) = transition::cancel(row, NOW)
        {
            self.step("cancelled by the operator", i, |world| {
                world.rows[i] = Some(row);
                world.cancels -= 1;
            });
        }
        if self.from.hastens > 0
            && let Some(row) = rules.hasten(row)
        {
            self.step("hurried by the operator", i, |world| {
                world.rows[i] = Some(row);
                world.hastens -= 1;
            });
        }
    }

    fn free_worker(&mut self, slot: usize) {
        for (instance, copies) in self.from.ready.iter().enumerate() {
            for kind in [FRESH, WAKE_UP].into_iter().filter(|kind| copies[*kind] > 0) {
                let label = if kind == FRESH { "message is delivered" } else { "wake-up is delivered" };
                let token = TOKENS[slot];
                let at = At::Got;
                let worker = Worker { instance, kind, at, token, last_attempt: false, can_ack: true, unknown: false };
                self.step(label, instance, |world| {
                    world.ready[instance][kind] -= 1;
                    world.workers[slot] = Some(worker);
                });
            }
        }
    }

    fn busy_worker(&mut self, slot: usize, worker: &Worker) {
        let i = worker.instance;
        let to_queue = |world: &mut World| world.ready[i][worker.kind] += u8::from(worker.can_ack);
        self.fault(Fault::Crash, "WORKER CRASH", i, |world| {
            to_queue(world);
            world.workers[slot] = None;
        });
        if worker.can_ack {
            let cut_off = |world: &mut World| {
                to_queue(world);
                world.workers[slot] = Some(Worker { can_ack: false, ..*worker });
            };
            self.fault(Fault::Zombie, "channel of a living worker dies", i, cut_off);
            let runs = self.from.rows[i].is_some_and(|row| row.state == State::Run && is_live(&row));
            if runs && self.from.is_mine(worker) {
                self.fault(Fault::Zombie, "worker paused: channel dies and lease over", i, |world| {
                    cut_off(world);
                    world.rows[i].iter_mut().for_each(lapse);
                });
            }
        }
        match worker.at {
            At::Got => self.decides(slot, worker),
            At::Call => {
                self.calls(slot, worker);
                if self.model.turns {
                    self.step("gets no token in time", i, |world| {
                        world.workers[slot] = Some(Worker { at: At::Turn, last_attempt: false, ..*worker });
                    });
                }
            }
            At::Turn => {
                let turn = Next::Waiting { reason: WaitReason::Budget, resume_at: NOW, counted: false };
                self.settles(slot, worker, &turn);
            }
            At::Done => self.settles(slot, worker, &Next::Done),
            At::Park => {
                let resume_at = if self.model.hastens > 0 { LATER } else { NOW };
                let retry = Next::Waiting { reason: WaitReason::RateLimited, resume_at, counted: true };
                self.settles(slot, worker, &retry);
            }
            At::Bury => {
                let letter = Next::Dead { reason: DeadReason::Exhausted, detail: String::new(), counted: true };
                self.settles(slot, worker, &letter);
            }
            At::Ack => self.step("is acked", i, |world| world.workers[slot] = None),
        }
    }

    fn decides(&mut self, slot: usize, worker: &Worker) {
        let i = worker.instance;
        let copy = self.copy_of(worker);
        let own = self.from.rows[i].as_ref();
        let others: Vec<Row> =
            self.from.rows.iter().flatten().filter(|row| row.instance != copy.instance).copied().collect();
        let (verb, writes) = self.model.without.claim(&copy, own, &others);
        let commit = |world: &mut World| {
            let rows = [writes.displaced, writes.own];
            rows.into_iter().flatten().for_each(|row| world.rows[index_of(row.instance)] = Some(row));
        };
        match verb {
            Verb::Run | Verb::Continue => {
                let claimed = writes.own.as_ref().or(own).expect("a claimed row");
                let promised = own.is_some_and(|own| own.cancel_requested);
                let breaks = (verb == Verb::Run && promised).then_some(Violation::Cancel);
                let last_attempt = claimed.attempt >= ATTEMPTS_MAX;
                self.push("is claimed", i, false, breaks, |world| {
                    commit(world);
                    world.workers[slot] = Some(Worker { at: At::Call, last_attempt, ..*worker });
                });
                if verb == Verb::Run {
                    self.fault_that_breaks(Fault::Commit, breaks, "is claimed, COMMIT answer lost", i, commit);
                }
                if verb == Verb::Run && worker.kind == FRESH && self.model.turns {
                    self.waits_for_its_turn(slot, worker, &writes);
                }
            }
            Verb::Park | Verb::BackToWaiting | Verb::Superseded { .. } => {
                let is_letter = matches!(verb, Verb::Superseded { .. });
                let label = if is_letter { "is a letter again: superseded" } else { "waits for the key" };
                self.step(label, i, |world| {
                    commit(world);
                    world.workers[slot] = Some(Worker { at: At::Ack, ..*worker });
                });
                self.fault(Fault::Commit, "waits or is superseded, COMMIT answer lost", i, commit);
            }
            Verb::Duplicate { of, .. } => self.step("is acked: duplicate", i, |world| {
                world.workers[slot] = None;
                world.dropped[i][index_of(of)] |= worker.can_ack;
            }),
            Verb::Stale => self.step("is acked: stale", i, |world| world.workers[slot] = None),
            Verb::Remint => unreachable!("every publisher of the model stamps its instance"),
        }
    }

    /// There is no budget for it soon: the claim makes a waiting row of it. Its turn comes at any time, like a retry's.
    fn waits_for_its_turn(&mut self, slot: usize, worker: &Worker, writes: &ClaimWrites) {
        let i = worker.instance;
        let parked = transition::claim_in_turn(*writes, Verb::Run, WaitReason::Budget, NOW);
        let own = parked.own.map(|row| Row { resume_at: Some(NOW), held_since: None, ..row });
        let commit = |world: &mut World| {
            let rows = [parked.displaced, own];
            rows.into_iter().flatten().for_each(|row| world.rows[index_of(row.instance)] = Some(row));
        };
        self.step("is claimed to wait for its turn", i, |world| {
            commit(world);
            world.workers[slot] = Some(Worker { at: At::Ack, ..*worker });
        });
        self.fault(Fault::Commit, "waits for its turn, COMMIT answer lost", i, commit);
    }

    fn copy_of(&self, worker: &Worker) -> Copy {
        let kind = match worker.kind {
            FRESH => CopyKind::Fresh {
                published_at: self.model.published_at[worker.instance],
                payload_sha256: [0; 32],
                identity: Identity::Stamped,
                redelivered: false,
            },
            _ => CopyKind::WakeUp,
        };
        Copy { kind, instance: uuid_of(worker.instance), token: worker.token }
    }

    fn calls(&mut self, slot: usize, worker: &Worker) {
        let (i, from, model) = (worker.instance, self.from, self.model);
        let succeeded_near =
            (0..from.published).any(|j| j != i && from.effects[j] > 0 && model.near(i, j)) && from.effects[i] == 0;
        let first_generation = from.rows[i].is_some_and(|row| row.generation == 1);
        let breaks = if succeeded_near {
            Some(Violation::Dup)
        } else if from.effects[i] > 0 && from.faults == model.faults && first_generation {
            Some(Violation::Twice)
        } else {
            None
        };
        let failed = if worker.last_attempt { At::Bury } else { At::Park };
        let goes_on =
            |at, unknown| move |world: &mut World| world.workers[slot] = Some(Worker { at, unknown, ..*worker });
        let takes_effect = |world: &mut World| world.effects[i] = (world.effects[i] + 1).min(3);
        self.push("POST -> 200", i, false, breaks, |world| {
            takes_effect(world);
            goes_on(At::Done, false)(world);
        });
        self.step("POST -> 429", i, goes_on(failed, false));
        self.fault_that_breaks(Fault::Response, breaks, "POST has its effect, response lost", i, |world| {
            takes_effect(world);
            goes_on(failed, true)(world);
        });
    }

    fn settles(&mut self, slot: usize, worker: &Worker, next: &Next) {
        let i = worker.instance;
        let row = self.from.rows[i].expect("rows of claimed jobs stay");
        let at = |at| move |world: &mut World| world.workers[slot] = Some(Worker { at, unknown: false, ..*worker });
        match self.model.without.settle(&row, worker.token, next, worker.unknown) {
            Settle::Write(row) => {
                self.step("is settled", i, |world| {
                    world.rows[i] = Some(row);
                    at(At::Ack)(world);
                });
                self.fault(Fault::Commit, "is settled, COMMIT answer lost", i, |world| world.rows[i] = Some(row));
            }
            Settle::Already(_) => self.step("was settled before", i, at(At::Ack)),
            Settle::Lost => self.step("settle hits 0 rows: decides again", i, at(At::Got)),
        }
    }
}

fn index_of(instance: Uuid) -> usize {
    (0..PUBLISHES_MAX).find(|i| uuid_of(*i) == instance).expect("an instance of the model")
}
