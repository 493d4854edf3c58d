//! One state of the whole system - broker, store, workers, releaser, operator, faults still to come - and its 128 bits.

use lanes::clock::Timestamp;
use lanes::store::transition::{Reason, Row};
use lanes::store::{State, WorkerId};
use uuid::Uuid;

/// Most publishes of one id in a run.
pub const PUBLISHES_MAX: usize = 3;
/// The only present there is; a lease or a grace that is over is a fact of the row, see [`is_live`].
pub const NOW: Timestamp = Timestamp::from_secs(1_000_000);
/// A time that has not come.
pub const LATER: Timestamp = Timestamp::from_secs(2_000_000);
/// Calls per generation before a job becomes a letter.
pub const ATTEMPTS_MAX: u32 = 2;

const LIVING: WorkerId = WorkerId(1);
const BURIED: WorkerId = WorkerId(2);
/// The token a worker claims with, by slot. Tokens are random, so all that matters of one is whether the row still has it.
pub const TOKENS: [Uuid; 2] = [Uuid::from_u128(0xA), Uuid::from_u128(0xB)];
const TOKEN_OF_NOBODY: Uuid = Uuid::from_u128(0xF);

/// What can go wrong, each a limited number of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A worker or the releaser dies at any step.
    Crash,
    /// A publish confirm is lost: the message was stored or not, and is published again.
    Confirm,
    /// A COMMIT took effect, its answer was lost.
    Commit,
    /// A worker is paused: its lease ends, or its channel dies, or both, and it goes on.
    Zombie,
    /// The call had its effect, the HTTP response was lost.
    Response,
    /// A row's grace ends although its wake-up still lies in the due queue.
    Slow,
}

/// How often each [`Fault`] may (still) happen.
pub type Faults = [u8; 6];

/// Kinds of copies, as an index.
pub const FRESH: usize = 0;
/// See [`FRESH`].
pub const WAKE_UP: usize = 1;

/// Where a worker stands with the copy in its hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// It decides next.
    Got,
    /// It has claimed and calls next.
    Call,
    /// It has claimed, and there is no budget for the call soon; it settles for its turn next.
    Turn,
    /// The call worked; it settles next.
    Done,
    /// The call failed; it settles for a retry next.
    Park,
    /// The last call failed; it settles for a letter next.
    Bury,
    /// The row says all there is to say; it acks next.
    Ack,
}

const STATIONS: [At; 7] = [At::Got, At::Call, At::Turn, At::Done, At::Park, At::Bury, At::Ack];

/// A worker with a copy in its hand.
#[derive(Debug, Clone, Copy)]
pub struct Worker {
    pub instance: usize,
    pub kind: usize,
    pub at: At,
    pub token: Uuid,
    /// The attempt it claimed was the last allowed one.
    pub last_attempt: bool,
    /// The broker still waits for its ack; false = the channel died and the copy is back in the queue.
    pub can_ack: bool,
    /// Its call may have had an effect that nobody saw.
    pub unknown: bool,
}

/// One state of everything.
#[derive(Debug, Clone, Copy)]
pub struct World {
    /// How many publishes of the id have happened.
    pub published: usize,
    /// Copies in the broker, by instance and kind.
    pub ready: [[u8; 2]; PUBLISHES_MAX],
    pub workers: [Option<Worker>; 2],
    /// The instance whose wake-up the releaser has marked and not yet published.
    pub releaser: Option<usize>,
    /// The rows of the key: real rows, as the store has them.
    pub rows: [Option<Row>; PUBLISHES_MAX],
    /// Calls that had their effect, by instance.
    pub effects: [u8; PUBLISHES_MAX],
    /// `dropped[i][j]`: a copy of i was acked as duplicate of j.
    pub dropped: [[bool; PUBLISHES_MAX]; PUBLISHES_MAX],
    pub faults: Faults,
    pub replays: u8,
    pub cancels: u8,
    pub hastens: u8,
    /// The instance that was replayed.
    pub replayed: Option<usize>,
}

impl World {
    pub fn start(faults: Faults, [replays, cancels, hastens]: [u8; 3]) -> Self {
        Self {
            published: 0,
            ready: [[0; 2]; PUBLISHES_MAX],
            workers: [None; 2],
            releaser: None,
            rows: [None; PUBLISHES_MAX],
            effects: [0; PUBLISHES_MAX],
            dropped: [[false; PUBLISHES_MAX]; PUBLISHES_MAX],
            faults,
            replays,
            cancels,
            hastens,
            replayed: None,
        }
    }

    /// A worker that lives has this row's claim.
    pub fn is_owned(&self, instance: usize) -> bool {
        self.workers.iter().flatten().any(|worker| worker.instance == instance && self.is_mine(worker))
    }

    /// The row has this worker's token.
    pub fn is_mine(&self, worker: &Worker) -> bool {
        worker.at != At::Ack && self.rows[worker.instance].is_some_and(|row| row.token == Some(worker.token))
    }

    /// Nothing is left to happen but what an operator or a publisher starts.
    pub fn is_quiet(&self, publishes: usize) -> bool {
        self.published == publishes
            && self.ready.as_flattened().iter().all(|copies| *copies == 0)
            && self.workers.iter().all(Option::is_none)
            && self.releaser.is_none()
            && self.rows.iter().flatten().all(|row| !row.state.is_alive())
    }

    /// All that can still matter, as a number: equal numbers behave alike. Free workers come first, workers are alike.
    pub fn pack(&self) -> u128 {
        let mut bits = Packer::default();
        bits.put(self.published, 2);
        self.ready.as_flattened().iter().for_each(|copies| bits.put(usize::from(*copies), 3));
        let (a, b) = (self.pack_worker(0), self.pack_worker(1));
        bits.put(a.min(b), 9);
        bits.put(a.max(b), 9);
        bits.put(pack_choice(self.releaser), 2);
        self.rows.iter().for_each(|row| bits.put(row.as_ref().map_or(0, pack_row), 11));
        self.effects.iter().for_each(|effects| bits.put(usize::from(*effects), 2));
        self.dropped.as_flattened().iter().for_each(|dropped| bits.put(usize::from(*dropped), 1));
        self.faults.iter().for_each(|left| bits.put(usize::from(*left), 2));
        bits.put(usize::from(self.replays), 1);
        bits.put(usize::from(self.cancels), 1);
        bits.put(usize::from(self.hastens), 1);
        bits.put(pack_choice(self.replayed), 2);
        bits.word
    }

    /// The world behind a number; `published_at` are the publish times of the instances.
    pub fn unpack(packed: u128, published_at: &[Timestamp]) -> Self {
        let mut bits = Packer { word: packed, at: 0 };
        let mut world = Self::start([0; 6], [0; 3]);
        world.published = bits.take(2);
        world.ready.as_flattened_mut().iter_mut().for_each(|copies| *copies = bits.take_u8(3));
        let workers = [bits.take(9), bits.take(9)];
        world.releaser = bits.take(2).checked_sub(1);
        let rows: [usize; PUBLISHES_MAX] = std::array::from_fn(|_| bits.take(11));
        world.effects.iter_mut().for_each(|effects| *effects = bits.take_u8(2));
        world.dropped.as_flattened_mut().iter_mut().for_each(|dropped| *dropped = bits.take(1) == 1);
        world.faults.iter_mut().for_each(|left| *left = bits.take_u8(2));
        world.replays = bits.take_u8(1);
        world.cancels = bits.take_u8(1);
        world.hastens = bits.take_u8(1);
        world.replayed = bits.take(2).checked_sub(1);
        for (instance, code) in rows.into_iter().enumerate().filter(|(_, code)| *code != 0) {
            world.rows[instance] = Some(unpack_row(code, instance, published_at[instance]));
        }
        for (slot, code) in workers.into_iter().enumerate().filter(|(_, code)| *code != 0) {
            world.unpack_worker(slot, code);
        }
        world
    }

    fn pack_worker(&self, slot: usize) -> usize {
        let Some(worker) = &self.workers[slot] else { return 0 };
        let mut bits = Packer::default();
        bits.put(worker.instance + 1, 2);
        bits.put(worker.kind, 1);
        bits.put(worker.at as usize, 3);
        bits.put(usize::from(self.is_mine(worker)), 1);
        bits.put(usize::from(worker.can_ack), 1);
        // What a failed call leads to is decided at the call, what an unknown one leaves behind is told by the settle.
        let note = if worker.at == At::Call { worker.last_attempt } else { worker.unknown };
        bits.put(usize::from(note), 1);
        usize::try_from(bits.word).expect("nine bits")
    }

    fn unpack_worker(&mut self, slot: usize, code: usize) {
        let mut bits = Packer { word: code as u128, at: 0 };
        let instance = bits.take(2) - 1;
        let kind = bits.take(1);
        let at = STATIONS[bits.take(3)];
        let mine = bits.take(1) == 1;
        let can_ack = bits.take(1) == 1;
        let note = bits.take(1) == 1;
        let token = TOKENS[slot];
        if let (true, Some(row)) = (mine, &mut self.rows[instance]) {
            row.token = Some(token);
        }
        let (last_attempt, unknown) = if at == At::Call { (note, false) } else { (false, note) };
        self.workers[slot] = Some(Worker { instance, kind, at, token, last_attempt, can_ack, unknown });
    }
}

/// The lease of a running row, the grace of a queued one, or the wait of a waiting one is not over.
pub fn is_live(row: &Row) -> bool {
    match row.state {
        State::Run => row.worker == Some(LIVING),
        State::Queued => row.released_at == Some(NOW),
        State::Waiting => row.resume_at == Some(LATER),
        State::Done | State::Dead | State::Cancelled => false,
    }
}

/// Who claims.
pub const CLAIMANT: WorkerId = LIVING;

/// Time passes: the lease, the grace or the wait of this row is over.
pub fn lapse(row: &mut Row) {
    match row.state {
        State::Run => row.worker = Some(BURIED),
        State::Waiting => row.resume_at = Some(NOW),
        _ => row.released_at = Some(Timestamp::EPOCH),
    }
}

/// The instance's name in the store.
pub fn uuid_of(instance: usize) -> Uuid {
    Uuid::from_u128(instance as u128 + 1)
}

fn pack_choice(instance: Option<usize>) -> usize {
    instance.map_or(0, |instance| instance + 1)
}

fn pack_row(row: &Row) -> usize {
    let alive = row.state.is_alive();
    let attempt = if alive { row.attempt.min(ATTEMPTS_MAX) } else { 0 };
    let mut bits = Packer::default();
    bits.put(usize::try_from(row.state.code()).expect("positive"), 3);
    bits.put(attempt as usize, 2);
    bits.put(row.generation as usize - 1, 1);
    bits.put(usize::from(is_live(row)), 1);
    for fact in [row.effect_possible, row.holds_key, row.has_payload, row.cancel_requested && alive] {
        bits.put(usize::from(fact), 1);
    }
    usize::try_from(bits.word).expect("eleven bits")
}

fn unpack_row(code: usize, instance: usize, published_at: Timestamp) -> Row {
    let mut bits = Packer { word: code as u128, at: 0 };
    let state = State::from_code(i16::from(bits.take_u8(3))).expect("packed from a state");
    let attempt = u32::from(bits.take_u8(2));
    let generation = u32::from(bits.take_u8(1)) + 1;
    let live = bits.take(1) == 1;
    let [effect_possible, holds_key, has_payload, cancel_requested] = std::array::from_fn(|_| bits.take(1) == 1);
    let released_at = if live { NOW } else { Timestamp::EPOCH };
    Row {
        instance: uuid_of(instance),
        state,
        reason: Reason::None,
        attempt,
        generation,
        takeovers: 0,
        effect_possible,
        cancel_requested,
        holds_key,
        has_payload,
        token: (state == State::Run).then_some(TOKEN_OF_NOBODY),
        worker: (state == State::Run).then_some(if live { LIVING } else { BURIED }),
        published_at,
        payload_sha256: [0; 32],
        resume_at: (state == State::Waiting).then_some(if live { LATER } else { NOW }),
        released_at: (state == State::Queued).then_some(released_at),
        ended_at: (!state.is_alive()).then_some(NOW),
        held_since: None,
    }
}

/// Puts small numbers one after another into a word, and takes them out in the same order.
#[derive(Default)]
struct Packer {
    word: u128,
    at: u32,
}

impl Packer {
    fn put(&mut self, value: usize, width: u32) {
        assert!(value < 1 << width, "{value} does not fit {width} bits");
        self.word |= (value as u128) << self.at;
        self.at += width;
        debug_assert!(self.at <= u128::BITS);
    }

    fn take(&mut self, width: u32) -> usize {
        let value = usize::try_from((self.word >> self.at) & ((1 << width) - 1)).expect("a small number");
        self.at += width;
        value
    }

    fn take_u8(&mut self, width: u32) -> u8 {
        u8::try_from(self.take(width)).expect("at most eight bits")
    }
}
