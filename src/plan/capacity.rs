//! What rates ask of every budget, and what it has: the part of the answer that needs no simulation.

use std::collections::BTreeMap;
use std::time::Duration;

use super::words;
use super::world::World;
use crate::job::{EndpointName, Tenant};
use crate::policy::limit::Limit;
use crate::policy::pacing::{Counted, Known};

/// A budget: one window, or the equal ones of several tenants.
#[derive(Debug)]
pub(super) struct Group {
    pub owner: EndpointName,
    /// Of each tenant.
    pub per_tenant: bool,
    /// The lane whose reserve it leaves, and the reserve.
    pub without: Option<(String, f64)>,
    /// The limit that it keeps, where it is configured.
    pub limit: Option<Limit>,
    pub name: String,
    /// Time that one token takes.
    pub interval: Duration,
    pub keys: Vec<usize>,
}

impl Group {
    /// `crm 100/min per tenant`.
    pub fn label(&self, world: &World<'_>) -> String {
        let whose = match self.tenant(world) {
            Some(tenant) => format!(" of {tenant}"),
            None if self.per_tenant => " per tenant".to_owned(),
            None => String::new(),
        };
        let less = match &self.without {
            Some((lane, reserve)) => format!(" less the reserve of {lane} ({reserve})"),
            None => String::new(),
        };
        format!("{} {}{whose}{less}", self.owner, self.name)
    }

    /// The tenant, when it is the budget of one alone, who has a name.
    pub fn tenant(&self, world: &World<'_>) -> Option<String> {
        let [key] = self.keys[..] else { return None };
        let tenant = Counted::of(&world.keys[key].name).tenant?;
        (tenant != Tenant::unnamed().as_str()).then(|| tenant.to_owned())
    }

    /// Tokens a second.
    pub fn pace(&self) -> f64 {
        1.0 / self.interval.as_secs_f64()
    }

    /// The share of the limit that it gives out.
    pub fn share(&self) -> f64 {
        self.without.as_ref().map_or(1.0, |(_, reserve)| 1.0 - reserve)
    }

    /// The smallest number of requests, as the limit counts them, for so many tokens a second.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, and it is positive")]
    pub fn requests_for(&self, tokens: f64) -> Option<u32> {
        /// What rounding to microseconds can make of it, and more.
        const TRIES_MAX: u32 = 1_000;
        let limit = self.limit.as_ref()?;
        let first = (tokens * limit.per.as_secs_f64() / (limit.headroom * self.share())).ceil() as u32;
        let fits = |requests: &u32| {
            let limit = Limit { requests: *requests, ..limit.clone() };
            limit.window(String::new(), self.share(), 1.0).interval.as_secs_f64() * tokens <= 1.0 + 1e-9
        };
        (first.saturating_sub(1).max(1)..=first.saturating_add(TRIES_MAX)).find(fits)
    }
}

/// What equal windows have in common: owner, what they count, whether of one tenant, the lane whose reserve they leave, and
/// the time that one token takes.
type Same<'a> = (&'a str, &'a str, bool, Option<&'a str>, Duration);

/// All budgets that a load counts in.
pub(super) fn groups(world: &World<'_>) -> Vec<Group> {
    let mut groups: BTreeMap<Same<'_>, Vec<usize>> = BTreeMap::new();
    for (at, key) in world.keys.iter().enumerate() {
        let counted = Counted::of(&key.name);
        let same = (counted.owner, counted.what, counted.tenant.is_some(), counted.without, key.interval);
        groups.entry(same).or_default().push(at);
    }
    let group = |((owner, what, per_tenant, without, interval), keys): (Same<'_>, Vec<usize>)| {
        let owner = EndpointName::new(owner).ok()?;
        let reserves = &world.setup.budgets.reserves;
        let reserve = |lane: &str| reserves.iter().find(|(of, _)| of.as_str() == lane).map_or(0.0, |(_, share)| *share);
        let without = without.map(|lane| (lane.to_owned(), reserve(lane)));
        let tenant = Counted::of(&world.keys[keys[0]].name).tenant;
        let mut group = Group { owner, per_tenant, without, limit: None, name: String::new(), interval, keys };
        group.limit = limit(world, &group, what, tenant);
        group.name = match (&group.limit, what.strip_prefix("learnt:")) {
            (Some(limit), _) => words::limit(limit),
            (None, Some(_)) => format!("{} (learnt)", words::pace(group.pace())),
            (None, None) => format!("{} (not as configured)", words::pace(group.pace())),
        };
        Some(group)
    };
    let mut groups: Vec<Group> = groups.into_iter().filter_map(group).collect();
    groups.sort_by(|a, b| {
        (&a.owner, a.interval, &a.without.is_some()).cmp(&(&b.owner, b.interval, &b.without.is_some()))
    });
    groups
}

/// The configured limit that a window keeps.
fn limit(world: &World<'_>, group: &Group, what: &str, tenant: Option<&str>) -> Option<Limit> {
    let tenant = tenant.and_then(|tenant| Tenant::new(tenant).ok()).unwrap_or_else(Tenant::unnamed);
    let budgets = &world.setup.budgets;
    let limits = budgets.limits(&group.owner, &tenant, Known::default(), world.setup.start).limits;
    let is_it = |limit: &&Limit| {
        limit.per.as_millis().to_string() == what
            && limit.window(String::new(), group.share(), 1.0).interval.abs_diff(group.interval)
                <= Duration::from_micros(1)
    };
    limits.iter().find(is_it).cloned()
}

/// What rates ask of one window or of slots.
#[derive(Debug, Clone, Default)]
pub(super) struct Demand {
    /// Calls a second, by lane.
    pub lanes: BTreeMap<usize, f64>,
    /// The share of it that they need; above 1 it is too much.
    pub share: f64,
    /// Tokens a second, or slots.
    pub much: f64,
}

impl Demand {
    /// More than there is. What comes out even fits.
    pub fn is_over(&self) -> bool {
        self.share > 1.0 + 1e-9
    }

    /// Calls a second of all lanes.
    pub fn calls(&self) -> f64 {
        self.lanes.values().sum()
    }

    fn add(&mut self, lane: usize, rate: f64, share: f64, much: f64) {
        *self.lanes.entry(lane).or_default() += rate;
        self.share += share;
        self.much += much;
    }
}

/// What rates ask of each window.
pub(super) fn of_keys(world: &World<'_>) -> Vec<Demand> {
    let mut demands = vec![Demand::default(); world.keys.len()];
    for gate in world.gates.iter().filter(|gate| gate.rate > 0.0) {
        for (key, window) in gate.keys.iter().zip(&gate.take.windows) {
            let share = gate.rate * window.interval.as_secs_f64();
            demands[*key].add(gate.lane, gate.rate, share, gate.rate * f64::from(gate.cost));
        }
    }
    demands
}

/// What rates ask of the slots that all workers share.
pub(super) fn of_slots(world: &World<'_>) -> Vec<Demand> {
    let mut demands = vec![Demand::default(); world.slot_keys.len()];
    for gate in world.gates.iter().filter(|gate| gate.rate > 0.0) {
        let much = gate.rate * gate.took.as_secs_f64();
        for key in &gate.slot_keys {
            demands[*key].add(gate.lane, gate.rate, much / f64::from(world.slot_keys[*key].slot.max), much);
        }
    }
    demands
}

/// What rates ask of the slots of each lane.
pub(super) fn of_lanes(world: &World<'_>) -> Vec<Demand> {
    let mut demands = vec![Demand::default(); world.lanes.len()];
    for gate in world.gates.iter().filter(|gate| gate.rate > 0.0) {
        let much = gate.rate * gate.took.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "few")]
        let slots = world.lanes[gate.lane].slots as f64;
        demands[gate.lane].add(gate.lane, gate.rate, much / slots, much);
    }
    demands
}

/// Calls a second that budgets allow the backlog of a lane; infinite where one has none.
pub(super) fn allowed(world: &World<'_>, lane: usize) -> f64 {
    // of each endpoint: what its tenants may have together, and what all of them may have
    let mut owners: BTreeMap<&EndpointName, (f64, f64)> = BTreeMap::new();
    for gate in world.gates.iter().filter(|gate| gate.lane == lane && gate.backlog > 0) {
        let mut own = f64::INFINITY;
        let owner = owners.entry(world.setup.budgets.owner(&gate.endpoint)).or_insert((0.0, f64::INFINITY));
        for (key, window) in gate.keys.iter().zip(&gate.take.windows) {
            let pace = 1.0 / window.interval.as_secs_f64();
            if Counted::of(&world.keys[*key].name).tenant.is_some() {
                own = own.min(pace);
            } else {
                owner.1 = owner.1.min(pace);
            }
        }
        owner.0 += own;
    }
    owners.values().map(|(own, shared)| own.min(*shared)).sum()
}
