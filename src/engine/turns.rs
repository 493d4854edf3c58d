//! Brings back the jobs that wait for their turn in a budget: as many as it has tokens for soon, in publish order,
//! tenants in rounds. It looks at the budgets as they are, so a limit that was changed acts on those who wait already.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::paced::{GateKey, HELD_MAX};
use super::{LaneContext, releaser, until_answered};
use crate::clock::Timestamp;
use crate::job::budget::Window;
use crate::policy::pacing::{self, Waiting};
use crate::store::{Gate, Turn, Wake, gcra};

/// Most endpoints and tenants that are looked at in one round.
const GATES_MAX: usize = 1_000;
/// Most jobs of a lane whose turn has come and that are not claimed yet.
pub(super) const RELEASE_MAX: u32 = 500;
/// Time between two rounds while somebody waits.
const ROUND: Duration = Duration::from_millis(200);
/// Jobs are released so much before their tokens: they are on their way for a while, and are held no longer than this.
const AHEAD: Duration = HELD_MAX.saturating_sub(Duration::from_millis(100));
/// Time between two looks while nobody waits: until jobs are seen that another worker parked.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Runs until `stop`.
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
    /// Whose turn is first in the next round.
    first: usize,
}

async fn round(ctx: &LaneContext, pass: &mut Pass) {
    let lane = &ctx.settings.name;
    let after = pass.after.take();
    let gates = until_answered(ctx, "gates", || ctx.store.gates(lane, after.as_ref(), GATES_MAX)).await;
    pass.seen.extend(gates.iter().map(|gate| (gate.endpoint.clone(), gate.tenant.clone())));
    if gates.len() == GATES_MAX {
        pass.after = gates.last().cloned();
    } else {
        ctx.backlog.set(std::mem::take(&mut pass.seen));
    }
    if gates.is_empty() {
        if after.is_none() {
            wait(ctx).await;
        }
        return;
    }
    let now = ctx.clock.now();
    let wakes = release(ctx, &gates, now, &mut pass.first).await;
    releaser::publish(ctx, wakes).await;
    ctx.clock.sleep_until(now.plus(ROUND)).await;
}

async fn wait(ctx: &LaneContext) {
    tokio::select! {
        () = ctx.clock.sleep_until(ctx.clock.now().plus(LOOK_AGAIN)) => {}
        () = ctx.in_turn.told() => {}
    }
}

async fn release(ctx: &LaneContext, gates: &[Gate], now: Timestamp, first: &mut usize) -> Vec<Wake> {
    let lane = &ctx.settings.name;
    let windows: Vec<Vec<Window>> =
        gates.iter().map(|gate| ctx.budgets.windows(lane, &gate.endpoint, &gate.tenant)).collect();
    let known: HashMap<&str, &Window> = windows.iter().flatten().map(|window| (window.key.as_str(), window)).collect();
    let keys: Vec<String> = known.keys().map(|key| (*key).to_owned()).collect();
    let due: HashMap<String, Timestamp> =
        until_answered(ctx, "look at budgets", || ctx.store.peek(&keys)).await.into_iter().collect();
    let soon = now.plus(AHEAD);
    let left = known.iter().map(|(key, window)| {
        let first = gcra::first(window, due.get(*key).copied(), now);
        (*key, gcra::tokens_by(window, first, soon))
    });
    let waiting: Vec<Waiting<'_>> = gates
        .iter()
        .zip(&windows)
        .map(|(gate, windows)| Waiting {
            windows: windows.iter().map(|window| window.key.as_str()).collect(),
            weight: ctx.budgets.weights.get(&gate.tenant).copied().unwrap_or(1),
            on_their_way: u32::try_from(gate.queued).unwrap_or(u32::MAX),
        })
        .collect();
    let queued: u32 = waiting.iter().map(|one| one.on_their_way).fold(0, u32::saturating_add);
    let jobs = pacing::turns(&waiting, left.collect(), RELEASE_MAX.saturating_sub(queued), *first % gates.len());
    let turns: Vec<Turn> = gates.iter().zip(jobs).filter(|(_, jobs)| *jobs > 0).map(turn).collect();
    *first = (*first + turns.len()) % gates.len();
    if turns.is_empty() {
        return Vec::new();
    }
    until_answered(ctx, "release turns", || ctx.store.release_turns(lane, now, &turns)).await
}

fn turn((gate, jobs): (&Gate, u32)) -> Turn {
    Turn { endpoint: gate.endpoint.clone(), tenant: gate.tenant.clone(), jobs, queued: gate.queued }
}
