//! Jobs that need tokens of a budget, or a slot, before they may be called: whose turn it is to ask, whose time has come,
//! who waits in the store instead. Decides and remembers; asking, calling and parking are the lane's.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use super::Owned;
use super::slots::Slots;
use crate::clock::Timestamp;
use crate::job::budget::{Slot, Take, Taken, Window};
use crate::job::verdict::WaitReason;
use crate::job::{EndpointName, Tenant};
use crate::policy::turns::HELD_MAX;

/// A token that is overdue, because no slot of the lane was free, is given up: used later it would make a burst. By how
/// much: so many intervals, within these bounds.
const LATE_INTERVALS: u32 = 8;
const LATE_MIN: Duration = Duration::from_millis(5);
const LATE_MAX: Duration = Duration::from_millis(100);

/// Whose jobs wait together: each needs the same tokens.
pub(super) type GateKey = (EndpointName, Tenant);

/// That a job has its tokens and slots, or needs none. Only this file makes one, so nothing is called without. Given back
/// when its call has ended.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Pass {
    slots: Vec<Slot>,
    /// It had to take tokens or slots.
    governed: bool,
    /// It has tokens.
    has_tokens: bool,
    /// How long the job was held.
    pub held_for: Duration,
}

impl Pass {
    /// Whether its job had to take tokens or slots.
    pub fn is_governed(&self) -> bool {
        self.governed
    }

    /// Whether its job has tokens.
    pub fn has_tokens(&self) -> bool {
        self.has_tokens
    }
}

/// Tokens to ask for.
#[derive(Debug)]
pub(super) struct Wish {
    pub key: GateKey,
    pub take: Take,
}

#[derive(Debug)]
struct Waiting {
    owned: Owned,
    since: Timestamp,
}

#[derive(Debug, Default)]
struct Gate {
    windows: Vec<Window>,
    slots: Vec<Slot>,
    waiting: VecDeque<Waiting>,
    /// A wish of it is on its way.
    asking: bool,
    /// Jobs of it that have their tokens.
    granted: usize,
    /// No token is to be had before.
    opens_at: Timestamp,
}

impl Gate {
    /// Nobody waits at it, and it is open.
    fn is_idle(&self, now: Timestamp) -> bool {
        !self.asking && self.granted == 0 && self.waiting.is_empty() && self.opens_at <= now
    }
}

/// A job with its tokens, for a moment that may be still ahead. The earliest is the greatest; equal ones in order.
#[derive(Debug)]
struct Granted {
    at: Reverse<(Timestamp, u64)>,
    key: GateKey,
    waited: Waiting,
    slots: Vec<Slot>,
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

/// The jobs of one lane that need tokens or slots.
#[derive(Debug, Default)]
pub(super) struct Paced {
    gates: HashMap<GateKey, Gate>,
    /// Gates with jobs that wait, whoever asked longest ago first.
    round: VecDeque<GateKey>,
    granted: BinaryHeap<Granted>,
    pub slots: Slots,
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

    /// Whether the last answer was that a job of this gate would have to wait longer than it may be held.
    pub fn is_shut(&self, key: &GateKey, now: Timestamp) -> bool {
        self.gates.get(key).is_some_and(|gate| gate.opens_at > now.plus(HELD_MAX))
    }

    /// Whether jobs of this gate wait for an answer.
    pub fn has_waiting(&self, key: &GateKey) -> bool {
        self.gates.get(key).is_some_and(|gate| !gate.waiting.is_empty())
    }

    /// When the first of the gates that are shut is not so any more.
    pub fn next_opening(&self, now: Timestamp) -> Option<Timestamp> {
        let openings = self.gates.values().map(|gate| gate.opens_at.minus(HELD_MAX));
        openings.filter(|at| *at > now).min()
    }

    /// Whether any gate is shut, or may be.
    pub fn has_gates(&self) -> bool {
        !self.gates.is_empty()
    }

    /// The pass of a job that needs nothing.
    pub fn free() -> Pass {
        Pass::default()
    }

    /// Holds a job until it has its tokens and its slots.
    pub fn enter(&mut self, owned: Owned, windows: Vec<Window>, slots: Vec<Slot>, now: Timestamp) {
        let key = (owned.job.endpoint.clone(), owned.job.tenant.clone());
        let gate = self.gates.entry(key.clone()).or_default();
        (gate.windows, gate.slots) = (windows, slots);
        if gate.waiting.is_empty() && !gate.asking {
            self.round.push_back(key);
        }
        gate.waiting.push_back(Waiting { owned, since: now });
        self.held += 1;
    }

    /// The pass of a probe, while there is a slot for it: it needs no tokens.
    pub fn probe(&mut self, slots: Vec<Slot>, now: Timestamp) -> Option<Pass> {
        if self.slots.free(&slots, now) == 0 {
            return None;
        }
        self.slots.take(&slots, 1);
        Some(Pass { slots, governed: true, ..Pass::default() })
    }

    /// The next wish, while there is `room` for calls: gates take turns. Whoever needs no tokens but slots is let pass.
    pub fn next_wish(&mut self, room: usize, now: Timestamp) -> Option<Wish> {
        for _ in 0..self.round.len() {
            let room = room.saturating_sub(self.granted.len() + self.wished);
            if room == 0 {
                return None;
            }
            let key = self.round.pop_front()?;
            let Some(gate) = self.gates.get_mut(&key) else { continue };
            let jobs = gate.waiting.len().min(room).min(self.slots.free(&gate.slots, now));
            if jobs == 0 {
                self.round.push_back(key);
                continue;
            }
            let slots = gate.slots.clone();
            self.slots.take(&slots, jobs);
            if gate.windows.is_empty() {
                self.grant(&key, &slots, std::iter::repeat_n(now, jobs));
                self.ask_again(&key);
                continue;
            }
            gate.asking = true;
            self.wished += jobs;
            let tokens = u32::try_from(jobs).unwrap_or(u32::MAX);
            let take = Take { windows: gate.windows.clone(), tokens, now, until: now.plus(HELD_MAX) };
            return Some(Wish { key, take });
        }
        None
    }

    fn ask_again(&mut self, key: &GateKey) {
        if self.gates.get(key).is_some_and(|gate| !gate.waiting.is_empty() && !gate.asking) {
            self.round.push_back(key.clone());
        }
    }

    /// Gives moments to those who wait at a gate, in order; their slots are taken already. Answers how many it gave.
    fn grant(&mut self, key: &GateKey, slots: &[Slot], moments: impl Iterator<Item = Timestamp>) -> usize {
        let Some(gate) = self.gates.get_mut(key) else { return 0 };
        let before = self.granted.len();
        for at in moments {
            let Some(waited) = gate.waiting.pop_front() else { break };
            self.given += 1;
            gate.granted += 1;
            let at = Reverse((at, self.given));
            self.granted.push(Granted { at, key: key.clone(), waited, slots: slots.to_vec() });
        }
        self.granted.len() - before
    }

    /// Slots of the lane to keep for the jobs that are held, of so many: they must not stand for ever behind those that
    /// need nothing.
    pub fn reserved(&self, slots: usize) -> usize {
        self.held.min(slots / 2)
    }

    /// Takes the answer to a wish. Answers who has to wait in the store: there is no token for it in time.
    pub fn answered(&mut self, wish: &Wish, taken: &Taken, now: Timestamp) -> Vec<Owned> {
        let Wish { key, take } = wish;
        self.wished = self.wished.saturating_sub(take.tokens as usize);
        let Some(gate) = self.gates.get_mut(key) else { return Vec::new() };
        gate.asking = false;
        let slots = gate.slots.clone();
        // a slow answer moves the moments, it does not void them: or a slow store would let nobody pass
        let waited = now.since(take.now);
        let moved = if waited > lateness(&take.windows) { waited } else { Duration::ZERO };
        // what is granted of the past is a burst: it may go now
        let moments = taken.slots(&take.windows).map(|at| at.max(take.now).plus(moved));
        let given = self.grant(key, &slots, moments);
        self.slots.give_back(&slots, (take.tokens as usize).saturating_sub(given));
        let mut park = Vec::new();
        if let Some(gate) = self.gates.get_mut(key) {
            let all = taken.granted >= take.tokens;
            gate.opens_at = if all { Timestamp::EPOCH } else { taken.opens_at(&take.windows) };
            if !all {
                park.extend(gate.waiting.drain(..).map(|waiting| waiting.owned));
            }
        }
        self.ask_again(key);
        self.held -= park.len();
        self.forget_open(take.now);
        park
    }

    /// The next job whose moment has come. One that comes too late for its tokens asks again, before the others.
    pub fn due(&mut self, now: Timestamp) -> Option<(Owned, Pass)> {
        let (mut late, mut next, mut called) = (Vec::new(), None, None);
        while next.is_none() && self.granted.peek().is_some_and(|next| next.at.0.0 <= now) {
            let Some(granted) = self.granted.pop() else { break };
            let gate = self.gates.get_mut(&granted.key).expect("a gate is kept while a job of it has tokens");
            gate.granted -= 1;
            if gate.windows.is_empty() || now.since(granted.at.0.0) <= lateness(&gate.windows) {
                self.held -= 1;
                let held_for = now.since(granted.waited.since);
                let has_tokens = !gate.windows.is_empty();
                next =
                    Some((granted.waited.owned, Pass { slots: granted.slots, governed: true, has_tokens, held_for }));
                called = Some(granted.key);
            } else {
                late.push(granted);
            }
        }
        for Granted { key, waited, slots, .. } in late.into_iter().rev() {
            self.slots.give_back(&slots, 1);
            let gate = self.gates.get_mut(&key).expect("a gate is kept while jobs of it come back");
            if gate.waiting.is_empty() && !gate.asking {
                self.round.push_back(key);
            }
            gate.waiting.push_front(waited);
        }
        // not before those that came too late are back: they may be of the same gate
        if let Some(key) = called.filter(|key| self.gates.get(key).is_some_and(|gate| gate.is_idle(now))) {
            self.gates.remove(&key);
        }
        next
    }

    /// A call has ended, or is not made after all.
    pub fn ended(&mut self, pass: &Pass) {
        self.slots.give_back(&pass.slots, 1);
    }

    /// Those who have waited too long for a slot: they wait in the store, and why.
    pub fn without_slot(&mut self, now: Timestamp) -> Vec<(Owned, WaitReason)> {
        let mut park = Vec::new();
        for gate in self.gates.values_mut().filter(|gate| !gate.slots.is_empty() && !gate.asking) {
            while gate.waiting.front().is_some_and(|first| now.since(first.since) >= HELD_MAX) {
                park.extend(gate.waiting.pop_front().map(|waiting| (waiting.owned, WaitReason::Concurrency)));
            }
        }
        if !park.is_empty() {
            self.held -= park.len();
            let gates = &self.gates;
            self.round.retain(|key| gates.get(key).is_some_and(|gate| !gate.waiting.is_empty()));
            self.forget_open(now);
        }
        park
    }

    /// Says to the slots who waits for them.
    pub fn count_waiting(&mut self) {
        self.slots.forget_waiting();
        for gate in self.gates.values().filter(|gate| !gate.slots.is_empty()) {
            self.slots.waits(&gate.slots, gate.waiting.len());
        }
    }

    /// When the next job's moment comes, or somebody has waited too long for a slot.
    pub fn next_moment(&self) -> Option<Timestamp> {
        self.granted.peek().map(|next| next.at.0.0)
    }

    /// When somebody will have waited too long for a slot.
    pub fn next_giving_up(&self) -> Option<Timestamp> {
        let gates = self.gates.values().filter(|gate| !gate.slots.is_empty() && !gate.asking);
        gates.filter_map(|gate| gate.waiting.front()).map(|first| first.since.plus(HELD_MAX)).min()
    }

    /// Forgets gates that nobody waits at and that are open again: a tenant that left must not be remembered for ever.
    fn forget_open(&mut self, now: Timestamp) {
        self.gates.retain(|_, gate| !gate.is_idle(now));
    }

    /// Everybody leaves: the lane stops, or rests. A wish that is on its way is answered, and gives its slots back then.
    pub fn drain(&mut self) -> Vec<Owned> {
        let mut all = Vec::with_capacity(self.held);
        for granted in self.granted.drain() {
            self.slots.give_back(&granted.slots, 1);
            all.push(granted.waited.owned);
        }
        for gate in self.gates.values_mut() {
            all.extend(gate.waiting.drain(..).map(|waiting| waiting.owned));
            gate.granted = 0;
        }
        self.gates.retain(|_, gate| gate.asking);
        self.round.clear();
        self.held = 0;
        all
    }
}

/// How much a token of these windows may be overdue.
fn lateness(windows: &[Window]) -> Duration {
    let shortest = windows.iter().map(|window| window.interval).min().unwrap_or_default();
    (shortest * LATE_INTERVALS).clamp(LATE_MIN, LATE_MAX)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use std::sync::Arc;
    use uuid::Uuid;

    use super::*;
    use crate::broker::{Receipt, Session};
    use crate::engine::{Copy, InHand};
    use crate::job::{DedupKey, Identity, Job, JobId, JobMeta, LaneName};
    use crate::store::{Granted as Claim, WorkerId};

    const START: Timestamp = Timestamp::from_secs(1_000);
    const INTERVAL: Duration = Duration::from_millis(10);

    #[derive(Debug)]
    struct Nowhere;

    #[async_trait]
    impl Session for Nowhere {
        async fn ack(&self, _tags: Vec<u64>) {}
        async fn give_back(&self, _tags: Vec<u64>) {}
    }

    fn at(millis: u64) -> Timestamp {
        START.plus(Duration::from_millis(millis))
    }

    fn owned(id: &str, tenant: &str) -> Owned {
        let instance = Uuid::new_v4();
        let job = Job {
            instance,
            identity: Identity::Stamped,
            lane: LaneName::new("bulk").expect("legal"),
            tenant: Tenant::new(tenant).expect("legal"),
            id: JobId::new(id).expect("legal"),
            endpoint: EndpointName::new("crm").expect("legal"),
            published_at: START,
            meta: JobMeta::default(),
            body: bytes::Bytes::new(),
        };
        let key = DedupKey::of(&job.lane, &job.tenant, &job.id);
        let copy = Copy::WakeUp { key, instance };
        let granted = Claim {
            instance,
            attempt: 0,
            generation: 1,
            takeovers: 0,
            effect_possible: false,
            released_at: None,
            held_since: None,
            stored: None,
        };
        let in_hand = InHand { receipt: Receipt::new(Arc::new(Nowhere), 1), copy };
        let worker = WorkerId(1);
        Owned { in_hand, job: Arc::new(job), key, token: Uuid::new_v4(), worker, granted, is_probe: false }
    }

    fn windows() -> Vec<Window> {
        vec![Window::new("crm".to_owned(), INTERVAL, Duration::ZERO)]
    }

    fn id_of(due: Option<(Owned, Pass)>) -> Option<String> {
        due.map(|(owned, _)| owned.job.id.as_str().to_owned())
    }

    /// Jobs of one gate that have asked for their tokens.
    fn asked(ids: &[&str]) -> (Paced, Wish) {
        let mut paced = Paced::default();
        for id in ids {
            paced.enter(owned(id, "acme"), windows(), Vec::new(), START);
        }
        let wish = paced.next_wish(100, START).expect("they need tokens");
        assert_eq!(wish.take.tokens as usize, ids.len());
        assert!(paced.next_wish(100, START).is_none(), "one wish of a gate at a time");
        (paced, wish)
    }

    fn taken(granted: u32, first: Timestamp) -> Taken {
        Taken { granted, first: vec![first] }
    }

    #[test]
    fn jobs_go_at_their_moments_and_the_rest_waits_in_the_store() {
        let (mut paced, wish) = asked(&["a", "b", "c"]);
        let parked = paced.answered(&wish, &taken(2, START), START);
        assert_eq!(parked.iter().map(|owned| owned.job.id.as_str()).collect::<Vec<_>>(), ["c"]);
        assert_eq!((paced.len(), paced.next_moment()), (2, Some(START)));
        assert_eq!(id_of(paced.due(START)).as_deref(), Some("a"));
        assert_eq!(id_of(paced.due(START)), None);
        assert_eq!(id_of(paced.due(at(10))).as_deref(), Some("b"));
        assert_eq!((paced.len(), paced.next_moment(), paced.has_gates()), (0, None, true));
        paced.forget_open(at(20));
        assert!(!paced.has_gates(), "a gate that is open and empty is forgotten");
    }

    #[test]
    fn who_comes_too_late_asks_again_before_the_others() {
        let (mut paced, wish) = asked(&["a", "b", "c"]);
        assert!(paced.answered(&wish, &taken(3, START), START).is_empty());
        assert_eq!(id_of(paced.due(at(200))), None, "these tokens are too old: they would make a burst");
        paced.enter(owned("d", "acme"), windows(), Vec::new(), at(200));
        let wish = paced.next_wish(100, at(200)).expect("asks again");
        assert_eq!(wish.take.tokens, 4);
        assert!(paced.answered(&wish, &taken(4, at(200)), at(200)).is_empty());
        let order: Vec<_> = (0..4).filter_map(|n| id_of(paced.due(at(200 + 10 * n)))).collect();
        assert_eq!(order, ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_gate_outlives_the_call_of_its_last_job_while_an_earlier_one_comes_back() {
        let (mut paced, wish) = asked(&["a", "b"]);
        let far = taken(1, START);
        assert_eq!(paced.answered(&wish, &far, START).len(), 1);
        paced.enter(owned("c", "acme"), windows(), Vec::new(), at(85));
        let wish = paced.next_wish(100, at(85)).expect("it needs a token");
        assert!(paced.answered(&wish, &taken(1, at(85)), at(85)).is_empty());
        // "a" is too late, "c" is not, and nobody else is at the gate
        assert_eq!(id_of(paced.due(at(90))).as_deref(), Some("c"));
        let wish = paced.next_wish(100, at(90)).expect("the late one asks again");
        assert_eq!((wish.take.tokens, paced.len()), (1, 1));
        assert!(paced.answered(&wish, &taken(1, at(90)), at(90)).is_empty());
        assert_eq!(id_of(paced.due(at(90))).as_deref(), Some("a"));
        assert!(!paced.has_gates());
    }

    #[test]
    fn who_finds_no_slot_in_time_waits_in_the_store() {
        let slots = vec![Slot { key: "crm".to_owned(), max: 1 }];
        let mut paced = Paced::default();
        paced.enter(owned("a", "acme"), Vec::new(), slots, START);
        assert!(paced.next_wish(100, START).is_none());
        assert_eq!(paced.without_slot(at(499)).len(), 0);
        let given_up = paced.without_slot(at(500));
        assert_eq!(given_up.iter().map(|(_, why)| *why).collect::<Vec<_>>(), [WaitReason::Concurrency]);
        assert_eq!((paced.len(), paced.has_gates(), paced.round.len()), (0, false, 0));
    }

    #[test]
    fn a_stop_gives_everybody_back_and_a_late_answer_finds_nobody() {
        let (mut paced, wish) = asked(&["a", "b"]);
        assert_eq!(paced.drain().len(), 2);
        assert!(paced.answered(&wish, &taken(2, START), START).is_empty());
        assert_eq!((paced.len(), paced.next_moment(), paced.has_gates()), (0, None, false));
    }

    #[test]
    fn after_a_rest_no_slot_and_no_wish_is_missing() {
        let slots = vec![Slot { key: "crm".to_owned(), max: 2 }];
        let mut paced = Paced::default();
        let enter = |paced: &mut Paced, id: &str| paced.enter(owned(id, "acme"), windows(), slots.clone(), START);
        enter(&mut paced, "a");
        enter(&mut paced, "b");
        paced.count_waiting();
        let asks = paced.slots.asks(START).expect("slots are wanted");
        paced.slots.renewed(&asks, &[2], START);
        let old = paced.next_wish(100, START).expect("there are slots");
        assert_eq!((old.take.tokens, paced.slots.free(&slots, START)), (2, 0));
        assert_eq!(paced.drain().len(), 2);
        // the rest was over before the answer came: who is new waits for it, and gets what it brings
        enter(&mut paced, "c");
        assert!(paced.next_wish(100, START).is_none(), "one wish of a gate at a time");
        assert!(paced.answered(&old, &taken(2, START), START).is_empty());
        assert_eq!(paced.slots.free(&slots, START), 1, "one is the newcomer's");
        let (c, pass) = paced.due(START).expect("it has a token");
        assert_eq!((c.job.id.as_str(), paced.len()), ("c", 0));
        paced.ended(&pass);
        assert_eq!((paced.slots.free(&slots, START), paced.wished), (2, 0));
    }
}
