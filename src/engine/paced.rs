//! Jobs that need tokens of a budget before they may be called: whose turn it is to ask, whose time has come, who waits
//! in the store instead. Decides and remembers; asking, calling and parking are the lane's.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use super::{Copy, Owned};
use crate::clock::Timestamp;
use crate::job::budget::{Take, Taken, Window};
use crate::job::{EndpointName, Tenant};

/// Longest time that a job is held for its token. Who would wait longer waits in the store, where it holds up nobody.
pub(super) const HELD_MAX: Duration = Duration::from_millis(500);
/// A token that is overdue, because no slot was free, is given up: used later it would make a burst. By how much: so many
/// intervals, within these bounds.
const LATE_INTERVALS: u32 = 8;
const LATE_MIN: Duration = Duration::from_millis(5);
const LATE_MAX: Duration = Duration::from_millis(100);

/// Whose jobs wait together: each needs the same tokens.
pub(super) type GateKey = (EndpointName, Tenant);

/// That a job has its tokens, or needs none. Only this file makes one, so nothing is called without.
#[derive(Debug)]
pub(super) struct Pass(());

/// What a job that was claimed has to do for its tokens.
pub(super) enum Entry {
    /// Nothing: it is not limited.
    Free(Owned, Pass),
    /// It is held; the lane asks for its tokens.
    Held,
    /// It waits in the store for its turn.
    Park(Owned),
}

#[derive(Debug)]
struct Gate {
    windows: Vec<Window>,
    waiting: VecDeque<Owned>,
    /// A wish of it is on its way.
    asking: bool,
    /// Jobs of it that have their tokens.
    granted: usize,
    /// No token is to be had before.
    opens_at: Timestamp,
}

/// A job with its tokens, for a moment that may be still ahead. The earliest is the greatest; equal ones in order.
#[derive(Debug)]
struct Granted {
    at: Reverse<(Timestamp, u64)>,
    key: GateKey,
    owned: Owned,
}

impl PartialEq for Granted {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Granted {}

impl PartialOrd for Granted {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Granted {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

/// The jobs of one lane that need tokens.
#[derive(Debug, Default)]
pub(super) struct Paced {
    gates: HashMap<GateKey, Gate>,
    /// Gates with jobs that wait, whoever asked longest ago first.
    round: VecDeque<GateKey>,
    granted: BinaryHeap<Granted>,
    given: u64,
    held: usize,
    /// Tokens that were asked for and not answered yet.
    wished: usize,
}

impl Paced {
    /// Jobs held: waiting for an answer, or for their moment.
    pub fn len(&self) -> usize {
        self.held
    }

    /// Lets a job in. A fresh one whose gate is shut, or has jobs in the store that were published before it, goes there.
    pub fn enter(&mut self, owned: Owned, windows: Vec<Window>, backlog: &Backlog, now: Timestamp) -> Entry {
        if windows.is_empty() {
            return Entry::Free(owned, Pass(()));
        }
        let key = (owned.job.endpoint.clone(), owned.job.tenant.clone());
        let shut = self.gates.get(&key).is_some_and(|gate| gate.opens_at > now.plus(HELD_MAX));
        let is_fresh = matches!(owned.in_hand.copy, Copy::Fresh { .. });
        if is_fresh && (shut || backlog.has(&key)) {
            return Entry::Park(owned);
        }
        let gate = self.gates.entry(key.clone()).or_insert_with(|| Gate {
            windows: Vec::new(),
            waiting: VecDeque::new(),
            asking: false,
            granted: 0,
            opens_at: Timestamp::EPOCH,
        });
        gate.windows = windows;
        if gate.waiting.is_empty() && !gate.asking {
            self.round.push_back(key);
        }
        gate.waiting.push_back(owned);
        self.held += 1;
        Entry::Held
    }

    /// The next wish, while there is `room` for calls: gates take turns.
    pub fn next_wish(&mut self, room: usize, now: Timestamp) -> Option<(GateKey, Take)> {
        let room = room.saturating_sub(self.granted.len() + self.wished);
        if room == 0 {
            return None;
        }
        let key = self.round.pop_front()?;
        let gate = self.gates.get_mut(&key)?;
        gate.asking = true;
        let jobs = gate.waiting.len().min(room);
        self.wished += jobs;
        let tokens = u32::try_from(jobs).unwrap_or(u32::MAX);
        let wish = Take { windows: gate.windows.clone(), tokens, now, until: now.plus(HELD_MAX) };
        Some((key, wish))
    }

    /// Slots to keep for the jobs that are held, of so many: they must not stand for ever behind those that need no tokens.
    pub fn reserved(&self, slots: usize) -> usize {
        self.held.min(slots / 2)
    }

    /// Takes the answer to a wish. Answers who has to wait in the store: there is no token for it in time.
    pub fn answered(&mut self, key: &GateKey, wish: &Take, taken: &Taken, now: Timestamp) -> Vec<Owned> {
        self.wished = self.wished.saturating_sub(wish.tokens as usize);
        // the lane stopped meanwhile: everybody has left, the tokens are lost
        let Some(gate) = self.gates.get_mut(key) else { return Vec::new() };
        gate.asking = false;
        // a slow answer moves the moments, it does not void them: or a slow store would let nobody pass
        let waited = now.since(wish.now);
        let moved = if waited > lateness(&wish.windows) { waited } else { Duration::ZERO };
        for slot in taken.slots(&wish.windows) {
            // what is granted of the past is a burst: it may go now
            let slot = slot.max(wish.now).plus(moved);
            let Some(owned) = gate.waiting.pop_front() else { break };
            self.given += 1;
            gate.granted += 1;
            self.granted.push(Granted { at: Reverse((slot, self.given)), key: key.clone(), owned });
        }
        let mut park = Vec::new();
        if taken.granted < wish.tokens {
            gate.opens_at = taken.opens_at(&wish.windows);
            park.extend(gate.waiting.drain(..));
        } else if !gate.waiting.is_empty() {
            self.round.push_back(key.clone());
        }
        self.held -= park.len();
        self.forget_open(wish.now);
        park
    }

    /// The next job whose moment has come. One that comes too late for its tokens asks again, before the others.
    pub fn due(&mut self, now: Timestamp) -> Option<(Owned, Pass)> {
        let (mut late, mut next) = (Vec::new(), None);
        while next.is_none() && self.granted.peek().is_some_and(|next| next.at.0.0 <= now) {
            let Some(Granted { at: Reverse((slot, _)), key, owned }) = self.granted.pop() else { break };
            let gate = self.gates.get_mut(&key).expect("a gate is kept while a job of it has tokens");
            gate.granted -= 1;
            if now.since(slot) <= lateness(&gate.windows) {
                self.held -= 1;
                next = Some((owned, Pass(())));
            } else {
                late.push((key, owned));
            }
        }
        for (key, owned) in late.into_iter().rev() {
            let gate = self.gates.get_mut(&key).expect("nobody forgot it meanwhile");
            if gate.waiting.is_empty() && !gate.asking {
                self.round.push_back(key);
            }
            gate.waiting.push_front(owned);
        }
        next
    }

    /// When the next job's moment comes.
    pub fn next_moment(&self) -> Option<Timestamp> {
        self.granted.peek().map(|next| next.at.0.0)
    }

    /// Forgets gates that nobody waits at and that are open again: a tenant that left must not be remembered for ever.
    fn forget_open(&mut self, now: Timestamp) {
        self.gates.retain(|_, gate| gate.asking || gate.granted > 0 || !gate.waiting.is_empty() || gate.opens_at > now);
    }

    /// Everybody leaves: the lane stops.
    pub fn drain(&mut self) -> Vec<Owned> {
        let waiting = self.gates.drain().flat_map(|(_, gate)| gate.waiting);
        let all: Vec<Owned> = self.granted.drain().map(|granted| granted.owned).chain(waiting).collect();
        self.round.clear();
        (self.held, self.wished) = (0, 0);
        all
    }
}

/// How much a token of these windows may be overdue.
fn lateness(windows: &[Window]) -> Duration {
    let shortest = windows.iter().map(|window| window.interval).min().unwrap_or_default();
    (shortest * LATE_INTERVALS).clamp(LATE_MIN, LATE_MAX)
}

/// Whose jobs wait in the store for their turn: fresh ones queue up behind them, so that they go in publish order.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    gates: RwLock<HashSet<GateKey>>,
}

impl Backlog {
    fn has(&self, key: &GateKey) -> bool {
        self.gates.read().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    /// One more was parked.
    pub fn add(&self, key: GateKey) {
        self.gates.write().unwrap_or_else(PoisonError::into_inner).insert(key);
    }

    /// What the store says.
    pub fn set(&self, gates: HashSet<GateKey>) {
        *self.gates.write().unwrap_or_else(PoisonError::into_inner) = gates;
    }
}
