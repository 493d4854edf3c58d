//! Breadth-first through every world, then backwards from the quiet ones: what is found first is the shortest way to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use lanes::store::State;

use super::steps::{Model, Step, Violation};
use super::world::World;

/// What an exploration found.
pub struct Report {
    pub worlds: usize,
    /// Most effects of one instance in any history: 1 = no call was ever repeated.
    pub effects: u8,
    /// The shortest way to each kind of violation, as its steps.
    pub violations: BTreeMap<Violation, Vec<String>>,
}

impl Report {
    /// Steps of the shortest counterexample of this kind.
    pub fn steps_to(&self, violation: Violation) -> Option<usize> {
        self.violations.get(&violation).map(Vec::len)
    }

    /// Counterexamples as text; empty when there are none.
    pub fn text(&self) -> String {
        self.violations.iter().fold(String::new(), |mut text, (violation, steps)| {
            let _ = writeln!(text, "{violation:?} in {} steps: {}", steps.len(), steps.join(" | "));
            text
        })
    }
}

/// Every world that was reached, numbered in the order of discovery, with an open hash table over them.
struct Seen {
    worlds: Vec<u128>,
    /// The world from which each was first reached.
    parents: Vec<u32>,
    slots: Vec<u32>,
}

const FREE: u32 = u32::MAX;

impl Seen {
    fn new(start: u128) -> Self {
        let mut seen = Self { worlds: Vec::new(), parents: Vec::new(), slots: vec![FREE; 1 << 12] };
        seen.number(start, FREE);
        seen
    }

    /// The number of `world`; a new one when it is seen for the first time.
    fn number(&mut self, world: u128, parent: u32) -> u32 {
        if self.worlds.len() * 2 >= self.slots.len() {
            self.slots = vec![FREE; self.slots.len() * 2];
            for index in 0..self.worlds.len() {
                let slot = self.slot_of(self.worlds[index]);
                self.slots[slot] = index_u32(index);
            }
        }
        let slot = self.slot_of(world);
        if self.slots[slot] == FREE {
            self.slots[slot] = index_u32(self.worlds.len());
            self.worlds.push(world);
            self.parents.push(parent);
        }
        self.slots[slot]
    }

    /// Where `world` is, or where it belongs.
    #[expect(clippy::cast_possible_truncation, reason = "a hash takes any bits")]
    fn slot_of(&self, world: u128) -> usize {
        const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
        let folded = ((world as u64).wrapping_mul(ODD) ^ (world >> 64) as u64).wrapping_mul(ODD);
        let mask = self.slots.len() - 1;
        let mut slot = (folded >> 32) as usize & mask;
        while self.slots[slot] != FREE && self.worlds[self.slots[slot] as usize] != world {
            slot = (slot + 1) & mask;
        }
        slot
    }
}

fn index_u32(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than four billion worlds")
}

/// Visits every world that `model` can reach.
pub fn explore(model: &Model) -> Report {
    let mut seen = Seen::new(model.start().pack());
    let mut found: BTreeMap<Violation, (u32, Option<String>)> = BTreeMap::new();
    let mut quiet = Vec::new();
    let mut backwards: Vec<(u32, u32)> = Vec::new();
    let mut effects = 0;
    let mut steps: Vec<Step> = Vec::new();
    let mut head = 0;
    while head < seen.worlds.len() {
        let number = index_u32(head);
        let world = World::unpack(seen.worlds[head], model.published_at);
        debug_assert_eq!(world.pack(), seen.worlds[head], "a world and its number say the same");
        effects = effects.max(world.effects.into_iter().max().unwrap_or(0));
        if world.is_quiet(model.published_at.len()) {
            quiet.push(number);
            quiet_violations(model, &world).for_each(|violation| {
                found.entry(violation).or_insert((number, None));
            });
        }
        if world.rows.iter().flatten().filter(|row| row.holds_key).count() > 1 {
            found.entry(Violation::Key).or_insert((number, None));
        }
        steps.clear();
        model.steps(&world, &mut steps);
        for step in &steps {
            if let Some(violation) = step.breaks {
                found.entry(violation).or_insert_with(|| (number, Some(describe(step))));
            }
            let to = seen.number(step.to.pack(), number);
            if !step.fault {
                backwards.push((to, number));
            }
        }
        head += 1;
    }
    if let Some(stuck) = first_that_cannot_reach(&quiet, &backwards, seen.worlds.len()) {
        found.insert(Violation::Stuck, (stuck, None));
    }
    let violations = found
        .into_iter()
        .map(|(violation, (number, last))| {
            let mut way = trace(model, &seen, number);
            way.extend(last);
            (violation, way)
        })
        .collect();
    Report { worlds: seen.worlds.len(), effects, violations }
}

/// Backward reachability over fault-free steps, each given as (to, from).
fn first_that_cannot_reach(goals: &[u32], backwards: &[(u32, u32)], worlds: usize) -> Option<u32> {
    let mut first_edge = vec![0_u32; worlds + 1];
    for (to, _) in backwards {
        first_edge[*to as usize + 1] += 1;
    }
    for world in 0..worlds {
        first_edge[world + 1] += first_edge[world];
    }
    let mut next_edge = first_edge.clone();
    let mut sources = vec![0; backwards.len()];
    for (to, from) in backwards {
        sources[next_edge[*to as usize] as usize] = *from;
        next_edge[*to as usize] += 1;
    }
    let mut reaches = vec![false; worlds];
    let mut todo = goals.to_vec();
    while let Some(world) = todo.pop() {
        let world = world as usize;
        if !std::mem::replace(&mut reaches[world], true) {
            todo.extend(&sources[first_edge[world] as usize..first_edge[world + 1] as usize]);
        }
    }
    reaches.iter().position(|reaches| !reaches).map(index_u32)
}

/// What must not be when all is quiet.
fn quiet_violations(model: &Model, world: &World) -> impl Iterator<Item = Violation> {
    let lost = (0..world.published).any(|i| !is_accounted_for(model, world, i, &mut Vec::new()));
    let replay = world.replayed.is_some_and(|i| world.rows[i].is_none_or(|row| row.generation < 2));
    let gone = world.rows.iter().flatten().any(|row| row.state == State::Dead && !row.has_payload);
    [(lost, Violation::Lost), (replay, Violation::Replay), (gone, Violation::Gone)]
        .into_iter()
        .filter_map(|(broken, violation)| broken.then_some(violation))
}

/// It succeeded, is a letter or cancelled, or was dropped as duplicate of one in its window that is accounted for.
fn is_accounted_for(model: &Model, world: &World, i: usize, asked: &mut Vec<usize>) -> bool {
    let ended = world.rows[i].is_some_and(|row| matches!(row.state, State::Dead | State::Cancelled));
    asked.push(i);
    world.effects[i] > 0
        || ended
        || (0..world.published).any(|j| {
            world.dropped[i][j] && !asked.contains(&j) && model.near(i, j) && is_accounted_for(model, world, j, asked)
        })
}

fn describe(step: &Step) -> String {
    format!("{} {}", step.instance + 1, step.label)
}

/// The steps that first led to this world.
fn trace(model: &Model, seen: &Seen, number: u32) -> Vec<String> {
    let mut way = Vec::new();
    let mut to = number;
    let mut steps = Vec::new();
    while seen.parents[to as usize] != FREE {
        let from = seen.parents[to as usize];
        steps.clear();
        model.steps(&World::unpack(seen.worlds[from as usize], model.published_at), &mut steps);
        let taken = steps.iter().find(|step| step.to.pack() == seen.worlds[to as usize]).expect("a step of this trace");
        way.push(describe(taken));
        to = from;
    }
    way.reverse();
    way
}
