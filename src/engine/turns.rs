//! Brings back the jobs that wait for their turn in a budget: as many as it has tokens for soon, in publish order,
//! tenants in rounds. It looks at the budgets as they are, so a limit that was changed acts on those who wait already.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::paced::GateKey;
use super::{LaneContext, pausing, releaser, until_answered};
use crate::clock::Timestamp;
use crate::governor::Way;
use crate::job::budget::{Slot, Window};
use crate::policy;
use crate::policy::turns::{AHEAD, GATES_MAX, RELEASE_MAX, ROUND, Shares, Waiting};
use crate::store::{Gate, Turn, Wake, gcra};

/// Time between two looks while nobody waits: until jobs are seen that another worker parked.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Runs until `stop`; rests while the lane is paused.
pub(super) async fn run(ctx: Arc<LaneContext>, stop: CancellationToken) {
    let mut pass = Pass::default();
    loop {
        // giving up half-way is safe at every point: what is marked and not published is swept
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = round(&ctx, &mut pass) => {}
        }
    }
}

/// How far the look at all who wait has come; where there are many it takes several rounds.
#[derive(Debug, Default)]
struct Pass {
    /// The last one looked at.
    after: Option<Gate>,
    /// Who was seen in this pass.
    seen: HashSet<GateKey>,
    /// Who has had how many turns.
    shares: Shares<GateKey>,
}

async fn round(ctx: &LaneContext, pass: &mut Pass) {
    pausing::over(ctx).await;
    let lane = &ctx.settings.name;
    let after = pass.after.take();
    let gates = until_answered(ctx, "gates", || ctx.store.gates(lane, after.as_ref(), GATES_MAX)).await;
    if gates.is_empty() {
        if after.is_none() {
            ctx.backlog.set(HashSet::new());
            wait(ctx).await;
        }
        return;
    }
    let now = ctx.clock.now();
    let wakes = release(ctx, &gates, now, &mut pass.shares).await;
    let released = !wakes.is_empty();
    releaser::publish(ctx, wakes).await;
    // whose last jobs have just gone has no backlog any more: fresh ones of it need not queue up
    let left = if released {
        until_answered(ctx, "gates", || ctx.store.gates(lane, after.as_ref(), GATES_MAX)).await
    } else {
        gates
    };
    pass.seen.extend(left.iter().map(|gate| (gate.endpoint.clone(), gate.tenant.clone())));
    if left.len() == GATES_MAX {
        pass.after = left.last().cloned();
    } else {
        ctx.backlog.set(std::mem::take(&mut pass.seen));
    }
    ctx.clock.sleep_until(now.plus(ROUND)).await;
}

async fn wait(ctx: &LaneContext) {
    tokio::select! {
        () = ctx.clock.sleep_until(ctx.clock.now().plus(LOOK_AGAIN)) => {}
        () = ctx.in_turn.told() => {}
    }
}

async fn release(ctx: &LaneContext, gates: &[Gate], now: Timestamp, shares: &mut Shares<GateKey>) -> Vec<Wake> {
    let lane = &ctx.settings.name;
    let ways: Vec<Needs> = gates.iter().map(|gate| needs(ctx, gate, now)).collect();
    let mut left = left(ctx, &ways, now).await;
    let taken_first = taken_first(ctx, now).await;
    left.iter_mut().filter(|(key, _)| taken_first.contains(**key)).for_each(|(_, left)| *left = 0);
    let waiting: Vec<Waiting<'_, GateKey>> = gates
        .iter()
        .zip(&ways)
        .map(|(gate, needs)| Waiting {
            who: (gate.endpoint.clone(), gate.tenant.clone()),
            needs: needs.all(),
            weight: ctx.governor.budgets().weight(&gate.tenant),
            on_their_way: u32::try_from(gate.queued).unwrap_or(u32::MAX),
            most: needs.most,
        })
        .collect();
    let queued: u32 = waiting.iter().map(|one| one.on_their_way).fold(0, u32::saturating_add);
    let most = RELEASE_MAX.saturating_sub(queued);
    let jobs = shares.turns(&waiting, left, most);
    let turns: Vec<Turn> = gates.iter().zip(jobs).filter(|(_, jobs)| *jobs > 0).map(turn).collect();
    if turns.is_empty() {
        return Vec::new();
    }
    until_answered(ctx, "release turns", || ctx.store.release_turns(lane, now, &turns)).await
}

/// What each job of a gate needs before it may be called.
#[derive(Debug, Default)]
struct Needs {
    windows: Vec<Window>,
    cost: u32,
    slots: Vec<Slot>,
    /// How long a call takes.
    took: Duration,
    most: u32,
}

impl Needs {
    fn all(&self) -> Vec<(&str, u32)> {
        let windows = self.windows.iter().map(|window| (window.key.as_str(), self.cost));
        windows.chain(self.slots.iter().map(|slot| (slot.key.as_str(), 1))).collect()
    }
}

fn needs(ctx: &LaneContext, gate: &Gate, now: Timestamp) -> Needs {
    let Gate { endpoint, tenant, .. } = gate;
    let lane_calls = u32::try_from(ctx.concurrency(now)).unwrap_or(u32::MAX);
    let (windows, most) = match ctx.governor.way(&ctx.settings.name, endpoint, tenant, now) {
        // as many as the lane can call soon: fresh jobs of others must not stand behind all of them
        Way::Free => (Vec::new(), policy::turns::slots_soon(lane_calls, 0, ctx.times.of(endpoint), AHEAD)),
        Way::Paced(windows) => (windows, u32::MAX),
        Way::Shut { .. } => return Needs::default(),
        Way::Probe(_) => (Vec::new(), 1),
    };
    Needs {
        windows,
        cost: ctx.governor.budgets().endpoint(endpoint).cost.max(1),
        slots: ctx.governor.slots(&ctx.settings.name, endpoint, tenant),
        took: ctx.times.of(endpoint),
        most,
    }
}

/// How much there is of everything that is needed: tokens that can be used soon, slots that are or become free soon.
async fn left<'a>(ctx: &LaneContext, needs: &'a [Needs], now: Timestamp) -> BTreeMap<&'a str, u32> {
    let mut left: BTreeMap<&str, u32> = BTreeMap::new();
    let mut at_most = |key: &'a str, much: u32| {
        left.entry(key).and_modify(|known| *known = much.min(*known)).or_insert(much);
    };
    let soon = now.plus(AHEAD);
    let keys = distinct(needs.iter().flat_map(|needs| &needs.windows).map(|window| &window.key));
    if !keys.is_empty() {
        let due: HashMap<String, Timestamp> =
            until_answered(ctx, "look at budgets", || ctx.store.peek(&keys)).await.into_iter().collect();
        for needs in needs {
            for window in &needs.windows {
                let first = gcra::first(window, due.get(&window.key).copied(), now, soon);
                at_most(&window.key, gcra::tokens_by(window, first, soon).saturating_mul(needs.cost));
            }
        }
    }
    let keys = distinct(needs.iter().flat_map(|needs| &needs.slots).map(|slot| &slot.key));
    if !keys.is_empty() {
        let used = until_answered(ctx, "look at slots", || ctx.store.slots(&keys)).await;
        let in_use: HashMap<&str, u32> = used.iter().map(|used| (used.key.as_str(), used.in_use)).collect();
        for needs in needs {
            for slot in &needs.slots {
                let in_use = in_use.get(slot.key.as_str()).copied().unwrap_or(0);
                at_most(&slot.key, policy::turns::slots_soon(slot.max, in_use, needs.took, AHEAD));
            }
        }
    }
    left
}

/// Windows for whose tokens jobs of a lane wait that goes first: this lane gets what is left once nobody waits there.
async fn taken_first(ctx: &LaneContext, now: Timestamp) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for lane in ctx.governor.budgets().before(&ctx.settings.name) {
        let gates = until_answered(ctx, "gates", || ctx.store.gates(lane, None, GATES_MAX)).await;
        for Gate { endpoint, tenant, .. } in gates {
            if let Way::Paced(windows) = ctx.governor.way(lane, &endpoint, &tenant, now) {
                keys.extend(windows.into_iter().map(|window| window.key));
            }
        }
    }
    keys
}

fn distinct<'a>(keys: impl Iterator<Item = &'a String>) -> Vec<String> {
    keys.collect::<BTreeSet<_>>().into_iter().cloned().collect()
}

fn turn((gate, jobs): (&Gate, u32)) -> Turn {
    Turn { endpoint: gate.endpoint.clone(), tenant: gate.tenant.clone(), jobs, queued: gate.queued }
}
