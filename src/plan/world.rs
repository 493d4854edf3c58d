//! What is simulated: lanes, gates (a lane's jobs of one endpoint and tenant), windows, slots, and what will happen next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use super::line::Line;
use super::waits::Waits;
use super::{Load, Present, Setup, Way};
use crate::clock::Timestamp;
use crate::job::budget::{Slot, Take, Window};
use crate::job::{EndpointName, Tenant};
use crate::policy::pacing::{Counted, Fit, Known};
use crate::policy::turns::{ROUND, Shares};

/// A window, and what was taken of it.
#[derive(Debug)]
pub(super) struct Key {
    pub name: String,
    /// Its theoretical arrival time.
    pub due: Option<Timestamp>,
    /// Time that one token takes.
    pub interval: Duration,
    /// Time that the calls of each lane took of it, in seconds.
    pub used: Vec<f64>,
}

/// Slots that all workers share.
#[derive(Debug)]
pub(super) struct SlotKey {
    pub slot: Slot,
    /// Taken, by lane.
    pub used: Vec<u32>,
    /// Wanted by jobs that are held, by lane.
    pub waiting: Vec<u32>,
    /// Time for which they were taken, by lane, in seconds.
    pub busy: Vec<f64>,
}

/// A lane's jobs of one endpoint and tenant.
#[derive(Debug)]
pub(super) struct Gate {
    pub lane: usize,
    pub endpoint: EndpointName,
    pub tenant: Tenant,
    pub took: Duration,
    pub weight: u32,
    pub cost: u32,
    /// The wish for its tokens, used again for each ask.
    pub take: Take,
    /// Its windows, in the same order.
    pub keys: Vec<usize>,
    pub slot_keys: Vec<usize>,
    pub shut_until: Option<Timestamp>,
    /// Published and not claimed.
    pub fresh: Line,
    /// Held for tokens or slots: when each was published, and since when it is held.
    pub held: VecDeque<(Timestamp, Timestamp)>,
    /// Waiting for their turn.
    pub parked: Line,
    /// Released, and not claimed.
    pub due: Line,
    pub opens_at: Timestamp,
    /// It stands in its lane's round of those who ask.
    pub asks: bool,
    pub backlog: u64,
    pub rate: f64,
    pub backlog_started: u64,
}

impl Gate {
    /// Nothing is needed for a call.
    pub fn is_free(&self) -> bool {
        self.keys.is_empty() && self.slot_keys.is_empty() && self.shut_until.is_none()
    }
}

/// How things stood at a moment.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub at: Timestamp,
    pub started: u64,
    /// Of each window, time taken by all lanes.
    pub used: Vec<f64>,
    /// Of each key of slots.
    pub slots_busy: Vec<f64>,
    pub busy: f64,
    /// Jobs of the backlog called, by gate.
    pub of_gates: Vec<u64>,
}

/// A lane.
#[derive(Debug)]
pub(super) struct Lane {
    /// Most calls in flight.
    pub slots: usize,
    pub calling: usize,
    /// Jobs that have their tokens and wait for their moment.
    pub granted: usize,
    /// Jobs that are held and have no tokens yet.
    pub held: usize,
    /// Whose moment came while no slot was free.
    pub overdue: VecDeque<(usize, Timestamp)>,
    /// Released jobs that are not claimed, by gate.
    pub due: VecDeque<usize>,
    /// Claimed: the gate, when it was published, whether it comes from the queue.
    pub owned: VecDeque<(usize, Timestamp, bool)>,
    /// Gates with fresh jobs; the first one is next, and so many of it were taken.
    pub fresh: VecDeque<usize>,
    pub taken: u32,
    /// Gates with jobs that are held, whoever asked longest ago first.
    pub asking: VecDeque<usize>,
    /// Its gates, in the order in which they are looked at.
    pub gates: Vec<usize>,
    /// When turns were looked at, and are next.
    pub looked_at: Timestamp,
    pub look_at: Option<Timestamp>,
    /// Who has had how many turns.
    pub shares: Shares<usize>,
    pub waits: Waits,
    pub started: u64,
    pub busy: f64,
    /// Jobs of the backlog that are not done.
    pub backlog_left: u64,
    pub drained: Option<Mark>,
}

/// What will happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// A call ended: its gate, and whether its job was of the backlog.
    End(usize, bool),
    /// The moment of a job's tokens: its gate, and when it was published.
    Call(usize, Timestamp),
    /// The next job of a load: which load, and the how manieth.
    Publish(usize, u64),
    /// A job has been held for long enough.
    GiveUp(usize),
    /// Turns of a lane.
    Look(usize),
    /// What is known may have changed.
    Refit,
}

/// All of it.
pub(super) struct World<'a> {
    pub setup: &'a Setup,
    pub loads: &'a [Load],
    pub present: Option<&'a Present<'a>>,
    pub now: Timestamp,
    pub events: BinaryHeap<Reverse<(Timestamp, u64, Event)>>,
    pub sequence: u64,
    pub lanes: Vec<Lane>,
    pub gates: Vec<Gate>,
    /// The gates of each load, by tenant.
    pub of_loads: Vec<Vec<usize>>,
    pub keys: Vec<Key>,
    pub slot_keys: Vec<SlotKey>,
    pub names: HashMap<String, usize>,
    pub slot_names: HashMap<String, usize>,
    pub calls: u64,
    pub steps: u64,
    /// How things stood half-way.
    pub half: Option<Mark>,
    pub is_cut: bool,
    /// Each call: when, and of which gate. For tests.
    pub trace: Option<Vec<(Timestamp, usize)>>,
}

impl<'a> World<'a> {
    pub fn new(setup: &'a Setup, loads: &'a [Load], present: Option<&'a Present<'a>>) -> Self {
        let mut world = Self {
            setup,
            loads,
            present,
            now: setup.start,
            events: BinaryHeap::new(),
            sequence: 0,
            lanes: (0..setup.lanes.len()).map(|at| lane(setup, at)).collect(),
            gates: Vec::new(),
            of_loads: Vec::new(),
            keys: Vec::new(),
            slot_keys: Vec::new(),
            names: HashMap::new(),
            slot_names: HashMap::new(),
            calls: 0,
            steps: 0,
            half: None,
            is_cut: false,
            trace: None,
        };
        world.add_gates();
        for at in 0..world.gates.len() {
            world.refit(at);
        }
        world
    }

    /// In the order in which a store tells who waits: by endpoint, then by tenant.
    fn add_gates(&mut self) {
        let mut whose: BTreeMap<(usize, &EndpointName, &Tenant), usize> = BTreeMap::new();
        let lane_of = |load: &Load| self.setup.lanes.iter().position(|lane| lane.name == load.lane);
        for load in self.loads {
            let Some(lane) = lane_of(load) else { continue };
            for tenant in &load.tenants {
                whose.insert((lane, &load.endpoint, tenant), 0);
            }
        }
        let mut gates = Vec::with_capacity(whose.len());
        for (at, (&(lane, endpoint, tenant), gate)) in whose.iter_mut().enumerate() {
            *gate = at;
            gates.push(self.gate(lane, endpoint, tenant));
            self.lanes[lane].gates.push(at);
        }
        for load in self.loads {
            let lane = lane_of(load);
            let gate = |tenant| lane.and_then(|lane| whose.get(&(lane, &load.endpoint, tenant)).copied());
            let of_load: Vec<usize> = load.tenants.iter().filter_map(gate).collect();
            for (nth, at) in of_load.iter().enumerate() {
                let all = of_load.len() as u64;
                gates[*at].backlog += load.backlog / all + u64::from((nth as u64) < load.backlog % all);
                #[expect(clippy::cast_precision_loss, reason = "few")]
                let share = load.rate / all as f64;
                gates[*at].rate += share;
            }
            self.of_loads.push(of_load);
        }
        self.gates = gates;
    }

    fn gate(&self, lane: usize, endpoint: &EndpointName, tenant: &Tenant) -> Gate {
        let setup = self.setup;
        Gate {
            lane,
            endpoint: endpoint.clone(),
            tenant: tenant.clone(),
            took: setup.latency.get(endpoint).copied().unwrap_or(setup.latency_usual),
            weight: setup.budgets.weight(tenant),
            cost: setup.budgets.endpoint(endpoint).cost.max(1),
            take: Take { windows: Vec::new(), tokens: 0, now: setup.start, until: setup.start },
            keys: Vec::new(),
            slot_keys: Vec::new(),
            shut_until: None,
            fresh: Line::default(),
            held: VecDeque::new(),
            parked: Line::default(),
            due: Line::default(),
            opens_at: Timestamp::from_micros(i64::MIN),
            asks: false,
            backlog: 0,
            rate: 0.0,
            backlog_started: 0,
        }
    }

    /// Looks at what a gate has to fit.
    pub fn refit(&mut self, at: usize) {
        let gate = &self.gates[at];
        let (lane, endpoint, tenant) = (&self.setup.lanes[gate.lane].name, &gate.endpoint, &gate.tenant);
        let cost = gate.cost;
        let slots = self.setup.budgets.slots(lane, endpoint, tenant);
        let configured = || match self.setup.budgets.fit(lane, endpoint, tenant, Known::default(), 1.0, self.now) {
            Fit::Windows(windows) => (windows, None),
            Fit::UsedUp(until) => (Vec::new(), Some(until)),
        };
        let (windows, shut_until) =
            match self.present.map_or(Way::Unknown, |known| (known.way)(lane, endpoint, tenant, self.now)) {
                Way::Windows(windows) => (windows, None),
                Way::Shut(until) => (Vec::new(), Some(until)),
                Way::Unknown => configured(),
            };
        // the first answer ends those, soon
        let lasts = |window: &Window| !Counted::of(&window.key).is_for_first_calls();
        let windows: Vec<Window> = windows.into_iter().filter(lasts).collect();
        let keys = windows.iter().map(|window| self.key(&window.key, window.interval / cost)).collect();
        // slots are of the configuration: they stay what they were
        let slot_keys = slots.into_iter().map(|slot| self.slot_key(slot)).collect();
        let gate = &mut self.gates[at];
        (gate.keys, gate.slot_keys, gate.shut_until) = (keys, slot_keys, shut_until);
        gate.take.windows = windows;
    }

    fn key(&mut self, name: &str, interval: Duration) -> usize {
        if let Some(at) = self.names.get(name) {
            self.keys[*at].interval = interval;
            return *at;
        }
        let due = self.present.and_then(|known| known.due.get(name).copied());
        let used = vec![0.0; self.lanes.len()];
        self.keys.push(Key { name: name.to_owned(), due, interval, used });
        self.names.insert(name.to_owned(), self.keys.len() - 1);
        self.keys.len() - 1
    }

    fn slot_key(&mut self, slot: Slot) -> usize {
        if let Some(at) = self.slot_names.get(&slot.key) {
            return *at;
        }
        let lanes = self.lanes.len();
        self.slot_names.insert(slot.key.clone(), self.slot_keys.len());
        self.slot_keys.push(SlotKey { slot, used: vec![0; lanes], waiting: vec![0; lanes], busy: vec![0.0; lanes] });
        self.slot_keys.len() - 1
    }

    /// How things stand now, for one lane.
    pub fn mark(&self, lane: Option<usize>) -> Mark {
        let sum = |values: &[f64]| values.iter().sum::<f64>();
        Mark {
            at: self.now,
            started: lane.map_or(0, |lane| self.lanes[lane].started),
            used: self.keys.iter().map(|key| sum(&key.used)).collect(),
            slots_busy: self.slot_keys.iter().map(|key| sum(&key.busy)).collect(),
            busy: lane.map_or(0.0, |lane| self.lanes[lane].busy),
            of_gates: self.gates.iter().map(|gate| gate.backlog_started).collect(),
        }
    }

    pub fn schedule(&mut self, at: Timestamp, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }
}

fn lane(setup: &Setup, at: usize) -> Lane {
    let of = &setup.lanes[at];
    let slots = of.concurrency.saturating_mul(setup.workers).min(of.global_concurrency.unwrap_or(u32::MAX)).max(1);
    // the lanes look at turns one after another, not all in the same moment
    let phase = ROUND * u32::try_from(at).unwrap_or(0) / u32::try_from(setup.lanes.len()).unwrap_or(1);
    Lane {
        slots: slots as usize,
        calling: 0,
        granted: 0,
        held: 0,
        overdue: VecDeque::new(),
        due: VecDeque::new(),
        owned: VecDeque::new(),
        fresh: VecDeque::new(),
        taken: 0,
        asking: VecDeque::new(),
        gates: Vec::new(),
        looked_at: setup.start.minus(ROUND).plus(phase),
        look_at: None,
        shares: Shares::default(),
        waits: Waits::default(),
        started: 0,
        busy: 0.0,
        backlog_left: 0,
        drained: None,
    }
}
