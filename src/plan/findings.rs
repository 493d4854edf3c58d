//! What to know of a forecast, as sentences, each with what would have to change.

use std::collections::BTreeMap;
use std::time::Duration;

use super::capacity::{self, Demand, Group, allowed};
use super::report::max_setting;
use super::words::{self, down, list, pace, span, up};
use super::world::World;
use super::{Change, Finding, FindingKind, LaneForecast};
use crate::job::LaneName;

/// Waits up to this long are no finding: two tokens, or so much.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// Slots that would make a lane faster by less than this are no finding.
const WORTH_IT: f64 = 1.05;

/// All findings, what can't be met first.
pub(super) fn all(world: &World<'_>, groups: &[Group], lanes: &[LaneForecast]) -> Vec<Finding> {
    let mut findings = over_budget(world, groups);
    findings.extend(over_lanes(world));
    findings.extend(over_slots(world));
    findings.extend(lanes.iter().filter_map(|lane| not_drained(world, groups, lane)));
    let is_over = |lane: &LaneName| findings.iter().any(|found| found.kind.is_unmet() && found.lanes.contains(lane));
    let waits: Vec<Finding> =
        lanes.iter().filter(|lane| !is_over(&lane.lane)).filter_map(|lane| no_reserve(world, groups, lane)).collect();
    findings.extend(waits);
    findings.extend(lanes.iter().filter_map(|lane| concurrency(world, lane)));
    findings
}

fn name(world: &World<'_>, lane: usize) -> LaneName {
    world.setup.lanes[lane].name.clone()
}

fn names(world: &World<'_>, demand: &Demand) -> Vec<LaneName> {
    demand.lanes.keys().map(|lane| name(world, *lane)).collect()
}

/// Who wants what: `realtime wants 2/s of crm`, `bulk and realtime want 3/s of crm together`.
fn wants(lanes: &[LaneName], calls: f64, of: &str) -> String {
    let (verb, together) = if lanes.len() == 1 { ("wants", "") } else { ("want", " together") };
    let lanes: Vec<String> = lanes.iter().map(ToString::to_string).collect();
    format!("{} {verb} {} of {of}{together}", list(&lanes), pace(calls))
}

/// By how much rates would have to be lower: of one lane as a rate, of several as a share of what they are.
fn slower(lanes: &[LaneName], all: f64, share: f64) -> Change {
    match lanes {
        [one] => Change { setting: "rate", of: one.to_string(), to: all / share },
        _ => Change { setting: "rate", of: "each".to_owned(), to: 1.0 / share },
    }
}

fn over_budget(world: &World<'_>, groups: &[Group]) -> Vec<Finding> {
    let demands = capacity::of_keys(world);
    let worst =
        |group: &Group| group.keys.iter().map(|key| &demands[*key]).max_by(|a, b| a.share.total_cmp(&b.share)).cloned();
    let over = groups.iter().filter_map(|group| Some((group, worst(group).filter(Demand::is_over)?)));
    // of a limit with reserves, for the same lanes, the narrowest says it all
    let mut narrowest: BTreeMap<_, (&Group, Demand)> = BTreeMap::new();
    for (group, demand) in over {
        let lanes: Vec<usize> = demand.lanes.keys().copied().collect();
        let same = (group.owner.clone(), group.name.clone(), group.per_tenant, group.tenant(world), lanes);
        let known = narrowest.entry(same).or_insert_with(|| (group, demand.clone()));
        if demand.share > known.1.share {
            *known = (group, demand);
        }
    }
    let finding = |(group, demand): (&Group, Demand)| {
        let lanes = names(world, &demand);
        let of_all: f64 = group.keys.iter().map(|key| demands[*key].calls()).sum();
        let (calls, allowed) = (demand.calls(), demand.calls() / demand.share);
        let each = match (group.per_tenant, group.tenant(world)) {
            (true, Some(tenant)) => format!(" for {tenant}"),
            (true, None) if group.keys.len() > 1 => format!(" for each of {} tenants", group.keys.len()),
            _ => String::new(),
        };
        let change = slower(&lanes, of_all, demand.share);
        let requests = group.requests_for(demand.much);
        let or = match (requests, &group.limit) {
            (Some(requests), Some(limit)) => {
                format!(
                    ", or the limit at least {}",
                    words::limit(&crate::policy::limit::Limit { requests, ..limit.clone() })
                )
            }
            _ => String::new(),
        };
        let message = format!(
            "structurally over capacity: {}{each}, {} budget allows {} ({}); {} would have to be at most {}{or}",
            wants(&lanes, calls, group.owner.as_str()),
            if lanes.len() == 1 { "its" } else { "their" },
            pace(allowed),
            how(group),
            if lanes.len() == 1 { "it" } else { "that" },
            pace(allowed),
        );
        let of = format!("{} {}", group.owner, group.name);
        let changes =
            std::iter::once(change).chain(requests.map(|to| Change { setting: "requests", of, to: f64::from(to) }));
        Finding { kind: FindingKind::OverBudget, lanes, message, changes: changes.collect() }
    };
    narrowest.into_values().map(finding).collect()
}

/// `100/min x headroom 0.8`, less what is reserved.
fn how(group: &Group) -> String {
    let headroom = group.limit.as_ref().filter(|limit| limit.headroom < 1.0);
    let headroom = headroom.map(|limit| format!(" x headroom {}", limit.headroom)).unwrap_or_default();
    let less = group.without.as_ref().map(|(lane, share)| format!(", less the reserve {share} of {lane}"));
    format!("{}{headroom}{}", group.name, less.unwrap_or_default())
}

fn over_lanes(world: &World<'_>) -> Vec<Finding> {
    let demands = capacity::of_lanes(world).into_iter().enumerate().filter(|(_, demand)| demand.is_over());
    let finding = |(at, demand): (usize, Demand)| {
        let setup = &world.setup.lanes[at];
        let lanes = vec![setup.name.clone()];
        let (setting, to) = slots_for(world, at, demand.much);
        let message = format!(
            "structurally over capacity: {} wants {}, and its {} slots with calls of {} make {}; it would have to be at most {}, or {setting} at least {to}",
            setup.name,
            pace(demand.calls()),
            world.lanes[at].slots,
            span(Duration::from_secs_f64(demand.much / demand.calls())),
            pace(demand.calls() / demand.share),
            pace(demand.calls() / demand.share),
        );
        let changes = vec![
            slower(&lanes, demand.calls(), demand.share),
            Change { setting, of: setup.name.to_string(), to: f64::from(to) },
        ];
        Finding { kind: FindingKind::OverConcurrency, lanes, message, changes }
    };
    demands.map(finding).collect()
}

/// The setting that gives a lane so many slots, and its value.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, and it is positive")]
fn slots_for(world: &World<'_>, lane: usize, slots: f64) -> (&'static str, u32) {
    let setup = &world.setup.lanes[lane];
    let slots = (slots - 1e-9).ceil() as u32;
    let own = setup.concurrency.saturating_mul(world.setup.workers);
    match setup.global_concurrency {
        Some(max) if max < own => ("global_concurrency", slots),
        _ => ("concurrency", slots.div_ceil(world.setup.workers.max(1))),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, and it is positive")]
fn over_slots(world: &World<'_>) -> Vec<Finding> {
    let mut worst: BTreeMap<(&str, &'static str), (usize, Demand)> = BTreeMap::new();
    for (at, demand) in capacity::of_slots(world).into_iter().enumerate().filter(|(_, demand)| demand.is_over()) {
        let (setting, counted) = max_setting(&world.slot_keys[at].slot.key);
        let known = worst.entry((counted.owner, setting)).or_insert_with(|| (at, demand.clone()));
        if demand.share > known.1.share {
            *known = (at, demand);
        }
    }
    let finding = |((owner, setting), (at, demand)): ((&str, &'static str), (usize, Demand))| {
        let lanes = names(world, &demand);
        let slot = &world.slot_keys[at].slot;
        let without = max_setting(&slot.key).1.without;
        let reserve = |lane: &str| {
            world.setup.budgets.reserves.iter().find(|(of, _)| of.as_str() == lane).map_or(0.0, |(_, r)| *r)
        };
        let to = (demand.much / (1.0 - without.map_or(0.0, reserve)) - 1e-9).ceil() as u32;
        let message = format!(
            "structurally over capacity: {}, and {setting} {} with calls of {} makes {}; {} would have to be at most {}, or {setting} at least {to}",
            wants(&lanes, demand.calls(), owner),
            slot.max,
            span(Duration::from_secs_f64(demand.much / demand.calls())),
            pace(demand.calls() / demand.share),
            if lanes.len() == 1 { "it" } else { "that" },
            pace(demand.calls() / demand.share),
        );
        let changes = vec![
            slower(&lanes, demand.calls(), demand.share),
            Change { setting, of: owner.to_owned(), to: f64::from(to) },
        ];
        Finding { kind: FindingKind::OverConcurrency, lanes, message, changes }
    };
    worst.into_iter().map(finding).collect()
}

fn not_drained(world: &World<'_>, groups: &[Group], lane: &LaneForecast) -> Option<Finding> {
    let horizon = world.setup.horizon;
    if lane.backlog == 0 || lane.drained_after.is_some_and(|after| after <= horizon) {
        return None;
    }
    let lanes = vec![lane.lane.clone()];
    let Some(after) = lane.drained_after else {
        let message = format!(
            "the backlog of {} does not get done: what is published meanwhile takes all there is, or it is blocked",
            lane.lane
        );
        return Some(Finding { kind: FindingKind::NotDrained, lanes, message, changes: Vec::new() });
    };
    let faster = after.as_secs_f64() / horizon.as_secs_f64();
    let mut changes = vec![Change { setting: "for", of: "plan".to_owned(), to: after.as_secs_f64().ceil() }];
    let held = lane.held_by.as_ref();
    let or = match held.map(|held| (held.kind, &held.what)) {
        Some(("budget", what)) => groups.iter().find(|group| group.label(world) == **what).and_then(|group| {
            let requests = group.requests_for(group.pace() * faster)?;
            let limit = crate::policy::limit::Limit { requests, ..group.limit.clone()? };
            let of = format!("{} {}", group.owner, group.name);
            changes.push(Change { setting: "requests", of, to: f64::from(requests) });
            Some(format!(", or a limit of about {}", words::limit(&limit)))
        }),
        Some(("concurrency", _)) => {
            let at = world.setup.lanes.iter().position(|setup| setup.name == lane.lane)?;
            #[expect(clippy::cast_precision_loss, reason = "few")]
            let (setting, to) = slots_for(world, at, world.lanes[at].slots as f64 * faster);
            changes.push(Change { setting, of: lane.lane.to_string(), to: f64::from(to) });
            Some(format!(", or a {setting} of about {to}"))
        }
        _ => None,
    };
    let held = held.map(|held| format!(" ({} holds it back)", held.what)).unwrap_or_default();
    let message = format!(
        "the backlog of {} is not done within {}: it takes about {}{held}; it would need that time{}",
        lane.lane,
        span(horizon),
        span(after),
        or.unwrap_or_default(),
    );
    Some(Finding { kind: FindingKind::NotDrained, lanes, message, changes })
}

/// Jobs that are published now and then wait for a budget that the backlog of another lane uses up.
fn no_reserve(world: &World<'_>, groups: &[Group], lane: &LaneForecast) -> Option<Finding> {
    let at = world.setup.lanes.iter().position(|setup| setup.name == lane.lane)?;
    if lane.rate <= 0.0 || lane.backlog > 0 {
        return None;
    }
    let others = |key: usize| {
        let gates = world.gates.iter().filter(|gate| gate.lane != at && gate.backlog > 0 && gate.keys.contains(&key));
        gates.map(|gate| gate.lane).min()
    };
    let whole = groups.iter().filter(|group| group.without.is_none());
    let demands = capacity::of_keys(world);
    let shared = whole.flat_map(|group| group.keys.iter().map(move |key| (group, *key)));
    let shared = shared.filter_map(|(group, key)| Some((group, key, others(key)?)));
    let own = |key: usize| {
        let gates = world.gates.iter().filter(|gate| gate.lane == at);
        let of = gates
            .flat_map(|gate| gate.keys.iter().zip(&gate.take.windows).map(|(key, window)| (*key, window, gate.rate)));
        of.filter(|(other, ..)| *other == key)
            .map(|(_, window, rate)| window.interval.as_secs_f64() * rate)
            .sum::<f64>()
    };
    let (group, key, other) = shared.max_by(|a, b| own(a.1).total_cmp(&own(b.1)))?;
    let reserves = &world.setup.budgets.reserves;
    let reserve = reserves.iter().find(|(of, _)| *of == lane.lane).map_or(0.0, |(_, share)| *share);
    let needs = (own(key) * 100.0 - 1e-9).ceil() / 100.0;
    if lane.wait.p99 <= (group.interval * 2).max(WAIT_MIN) || reserve >= needs {
        return None;
    }
    let calls = demands[key].lanes.get(&at).copied().unwrap_or(0.0);
    let message = format!(
        "{} waits up to {} (99 % at most {}): the backlog of {} uses the same budget ({}), and its reserve is {reserve}; {}",
        lane.lane,
        span(lane.wait.max),
        span(lane.wait.p99),
        name(world, other),
        group.label(world),
        if needs <= 1.0 {
            format!("a reserve of {} would keep its {} free", up(needs), pace(calls))
        } else {
            format!("no reserve is enough for its {}", pace(calls))
        },
    );
    let change = Change { setting: "reserve", of: lane.lane.to_string(), to: needs };
    Some(Finding { kind: FindingKind::NoReserve, lanes: vec![lane.lane.clone()], message, changes: vec![change] })
}

/// A backlog that is held back by slots, while budgets would allow more.
fn concurrency(world: &World<'_>, lane: &LaneForecast) -> Option<Finding> {
    let held = lane.held_by.as_ref().filter(|held| held.kind != "budget")?;
    let at = world.setup.lanes.iter().position(|setup| setup.name == lane.lane)?;
    let gates = || world.lanes[at].gates.iter().map(|gate| &world.gates[*gate]);
    let allowed = allowed(world, at);
    if lane.backlog == 0 || !allowed.is_finite() || allowed < lane.throughput * WORTH_IT {
        return None;
    }
    let took = gates().map(|gate| gate.took).max()?;
    let needs = allowed * took.as_secs_f64();
    let endpoint = gates().next()?.endpoint.to_string();
    let (setting, to, of) = match held.kind {
        "concurrency" => {
            let (setting, to) = slots_for(world, at, needs);
            (setting, f64::from(to), lane.lane.to_string())
        }
        _ if held.what.starts_with("max_concurrency_per_tenant") => {
            #[expect(clippy::cast_precision_loss, reason = "few")]
            let tenants = gates().filter(|gate| gate.backlog > 0).count().max(1) as f64;
            ("max_concurrency_per_tenant", (needs / tenants).ceil(), endpoint)
        }
        _ => ("max_concurrency", needs.ceil(), endpoint),
    };
    let message = format!(
        "{} is held back by {}: with calls of {} it makes {}, its budgets allow {}; {setting} would have to be at least {}",
        lane.lane,
        held.what,
        span(took),
        pace(lane.throughput),
        pace(allowed),
        down(to),
    );
    let changes = vec![Change { setting, of, to }];
    Some(Finding { kind: FindingKind::Concurrency, lanes: vec![lane.lane.clone()], message, changes })
}
