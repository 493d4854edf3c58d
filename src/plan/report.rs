//! From a simulation to what is told of it.

use std::time::Duration;

use super::capacity::{self, Group};
use super::findings;
use super::world::{Mark, World};
use super::{BudgetForecast, Forecast, HeldBy, LaneForecast, WaitForecast};
use crate::policy::pacing::Counted;

/// What is used less of than this holds nobody back.
const HOLDS_BACK: f64 = 0.85;
/// Waits of jobs that were not simulated are told of so many of them.
const TAIL_STEPS: u64 = 1_000;

/// Tells what was simulated.
pub(super) fn forecast(world: &mut World<'_>) -> Forecast {
    let groups = capacity::groups(world);
    let lanes: Vec<LaneForecast> = (0..world.lanes.len()).filter_map(|lane| self::lane(world, &groups, lane)).collect();
    let whole = groups.iter().filter(|group| group.without.is_none());
    let budgets = whole.map(|group| budget(world, group)).collect();
    let findings = findings::all(world, &groups, &lanes);
    let simulated = world.now.since(world.setup.start);
    Forecast { lanes, budgets, findings, simulated, calls: world.calls, is_cut: world.is_cut }
}

fn lane(world: &mut World<'_>, groups: &[Group], at: usize) -> Option<LaneForecast> {
    if world.lanes[at].gates.is_empty() {
        return None;
    }
    let gates = || world.lanes[at].gates.iter().map(|gate| &world.gates[*gate]);
    let backlog = gates().map(|gate| gate.backlog).sum();
    let rate = gates().map(|gate| gate.rate).sum();
    let waiting =
        |gate: &super::world::Gate| gate.fresh.len() + gate.parked.len() + gate.due.len() + gate.held.len() as u64;
    let left = gates().map(waiting).sum::<u64>() + (world.lanes[at].owned.len() + world.lanes[at].granted) as u64;
    let mark = world.lanes[at].drained.clone();
    let is_estimate = mark.is_none() && backlog > 0;
    let drained_after = match &mark {
        Some(mark) => Some(mark.at.since(world.setup.start)),
        None if backlog > 0 => estimate(world, at),
        None => None,
    };
    let mark = mark.unwrap_or_else(|| world.mark(Some(at)));
    let elapsed = mark.at.since(world.setup.start).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "bounded by the calls of a simulation")]
    let throughput = if elapsed > 0.0 { mark.started as f64 / elapsed } else { 0.0 };
    if is_estimate {
        add_tail(world, at, drained_after);
    }
    let waits = &world.lanes[at].waits;
    let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| waits.quantile(share));
    Some(LaneForecast {
        lane: world.setup.lanes[at].name.clone(),
        backlog,
        rate,
        drained_after,
        is_estimate,
        left,
        throughput,
        wait: WaitForecast { p50, p95, p99, max: waits.max() },
        held_by: held_by(world, groups, at, &mark),
    })
}

/// When a backlog will be done that was not simulated to its end: every budget and every slot goes on at the pace of the
/// later half. `None` when nothing moved.
#[expect(clippy::cast_precision_loss, reason = "about")]
fn estimate(world: &World<'_>, at: usize) -> Option<Duration> {
    let half = world.half.as_ref()?;
    let elapsed = world.now.since(half.at).as_secs_f64();
    let (mut left, mut done) = (0_u64, 0_u64);
    let mut keys = vec![(0_u64, 0_u64); world.keys.len() + world.slot_keys.len()];
    for gate in &world.lanes[at].gates {
        let of = &world.gates[*gate];
        let of_gate = (of.backlog - of.backlog_started, of.backlog_started - half.of_gates[*gate]);
        (left, done) = (left + of_gate.0, done + of_gate.1);
        for key in of.keys.iter().copied().chain(of.slot_keys.iter().map(|key| world.keys.len() + key)) {
            keys[key] = (keys[key].0 + of_gate.0, keys[key].1 + of_gate.1);
        }
    }
    if done == 0 {
        return None;
    }
    let takes = |(left, done): (u64, u64)| left as f64 / done as f64 * elapsed;
    // a budget of which nothing was used in that half is not what it waits for
    let most =
        keys.into_iter().filter(|(left, done)| *left > 0 && *done > 0).map(takes).fold(takes((left, done)), f64::max);
    Some(world.now.since(world.setup.start) + Duration::try_from_secs_f64(most).ok()?)
}

/// Those who are left wait for evenly longer times, up to the end.
fn add_tail(world: &mut World<'_>, at: usize, drained_after: Option<Duration>) {
    let Some(last) = drained_after else { return };
    let now = world.now.since(world.setup.start);
    let left: u64 =
        world.lanes[at].gates.iter().map(|gate| &world.gates[*gate]).map(|g| g.backlog - g.backlog_started).sum();
    let steps = left.min(TAIL_STEPS);
    for step in 0..steps {
        let jobs = left / steps + u64::from(step < left % steps);
        let share = u32::try_from(step + 1).unwrap_or(u32::MAX);
        let waited = now + last.saturating_sub(now) * share / u32::try_from(steps).unwrap_or(u32::MAX);
        world.lanes[at].waits.add(waited, jobs);
    }
}

/// What was used most of all that the jobs of a lane need.
fn held_by(world: &World<'_>, groups: &[Group], at: usize, mark: &Mark) -> Option<HeldBy> {
    let elapsed = mark.at.since(world.setup.start).as_secs_f64();
    if elapsed <= 0.0 {
        return None;
    }
    let (lane, setup) = (&world.lanes[at], &world.setup.lanes[at]);
    #[expect(clippy::cast_precision_loss, reason = "few")]
    let slots = lane.slots as f64;
    let what = match setup.global_concurrency.filter(|max| (*max as usize) == lane.slots) {
        Some(max) => format!("global_concurrency {max} of {}", setup.name),
        None => format!("concurrency {} of {}", setup.concurrency, setup.name),
    };
    let mut most = HeldBy { kind: "concurrency", what, used: mark.busy / (slots * elapsed) };
    for gate in lane.gates.iter().map(|gate| &world.gates[*gate]) {
        for key in &gate.slot_keys {
            let slot = &world.slot_keys[*key].slot;
            let used = mark.slots_busy.get(*key).copied().unwrap_or(0.0) / (f64::from(slot.max) * elapsed);
            if used > most.used {
                let (setting, counted) = max_setting(&slot.key);
                let less = counted.without.map(|lane| format!(" less the reserve of {lane}")).unwrap_or_default();
                let what = format!("{setting} {} of {}{less}", slot.max, counted.owner);
                most = HeldBy { kind: "max_concurrency", what, used };
            }
        }
        for (key, window) in gate.keys.iter().zip(&gate.take.windows) {
            let may = elapsed + (window.tolerance + window.interval).as_secs_f64();
            let used = mark.used.get(*key).copied().unwrap_or(0.0) / may;
            // of equal ones the first: that is the narrower one, less a reserve
            if used > most.used
                && let Some(group) = groups.iter().find(|group| group.keys.contains(key))
            {
                most = HeldBy { kind: "budget", what: group.label(world), used };
            }
        }
    }
    Some(most).filter(|most| most.used >= HOLDS_BACK)
}

/// The setting that a slot is of.
pub(super) fn max_setting(key: &str) -> (&'static str, Counted<'_>) {
    let counted = Counted::of(key);
    (if counted.tenant.is_some() { "max_concurrency_per_tenant" } else { "max_concurrency" }, counted)
}

#[expect(clippy::cast_precision_loss, reason = "few")]
fn budget(world: &World<'_>, group: &Group) -> BudgetForecast {
    let elapsed = world.now.since(world.setup.start).as_secs_f64();
    let interval = group.interval.as_secs_f64();
    let tolerance = |key: &usize| {
        let gates = world.gates.iter();
        let of = gates.flat_map(|gate| gate.keys.iter().zip(&gate.take.windows)).find(|(other, _)| *other == key);
        of.map_or(0.0, |(_, window)| (window.tolerance + window.interval).as_secs_f64())
    };
    // equal ones have equal bursts
    let may = group.keys.len() as f64 * (elapsed + group.keys.first().map_or(0.0, tolerance));
    let used_by = |lane: usize| group.keys.iter().map(|key| world.keys[*key].used[lane]).sum::<f64>();
    let used: f64 = (0..world.lanes.len()).map(used_by).sum();
    let by_lane = (0..world.lanes.len()).map(|lane| (world.setup.lanes[lane].name.clone(), used_by(lane) / may));
    let used_of_limit = group.limit.as_ref().map(|limit| {
        let windows = (elapsed / limit.per.as_secs_f64()).max(1.0);
        used / interval / (f64::from(limit.requests) * windows * group.keys.len() as f64)
    });
    BudgetForecast {
        endpoint: group.owner.clone(),
        limit: group.name.clone(),
        scope: if group.per_tenant { "tenant" } else { "endpoint" },
        tenant: group.tenant(world),
        tenants: if group.per_tenant { group.keys.len() } else { 0 },
        pace: group.pace() * group.keys.len() as f64,
        used_of_limit,
        used_of_pace: used / may,
        by_lane: by_lane.filter(|(_, share)| *share > 0.0).collect(),
    }
}
