//! What will happen before it happens: the real decisions on a simulated clock, fed with a configuration and a load.
//!
//! Pure: no I/O, no clock, no randomness. Tokens are [`crate::store::gcra`]'s, windows and slots `policy::pacing`'s, turns
//! `policy::turns`'; what is modelled is the engine around them, all workers as one: a lane's slots, who is held, who waits in
//! its turn. What it leaves out: the time of store and broker, failing calls, and that workers hear of each other's slots a
//! moment later.

mod capacity;
mod findings;
mod line;
mod report;
mod rounds;
mod run;
mod slots;
mod waits;
mod words;
mod world;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::job::budget::Window;
use crate::job::{EndpointName, LaneName, Tenant};
use crate::policy::pacing::Budgets;
use crate::policy::turns;

pub use words::{pace, span};

/// Most tenants that a load is spread over: as many as the engine looks at in one round.
pub const TENANTS_MAX: usize = turns::GATES_MAX;
/// Most calls that are simulated. What is beyond is told from the pace that the calls had by then.
pub const CALLS_MAX: u64 = 2_000_000;
/// Most steps of a simulation: events, and looks at who waits.
const STEPS_MAX: u64 = 30_000_000;
/// Rates are simulated for so long at least.
pub const RATES_FOR_MIN: Duration = Duration::from_mins(10);
/// How often what is known of accounts is looked at again, while the simulated time goes on.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What is configured, as far as it matters here.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Limits, weights, reserves.
    pub budgets: Budgets,
    /// The lanes, in the order in which they are shown.
    pub lanes: Vec<LaneSetup>,
    /// How many workers run.
    pub workers: u32,
    /// How long a call takes, by endpoint.
    pub latency: BTreeMap<EndpointName, Duration>,
    /// How long a call takes elsewhere.
    pub latency_usual: Duration,
    /// The longest time that is simulated.
    pub horizon: Duration,
    /// When it begins.
    pub start: Timestamp,
}

/// One lane.
#[derive(Debug, Clone)]
pub struct LaneSetup {
    /// Its name.
    pub name: LaneName,
    /// Calls in flight, per worker.
    pub concurrency: u32,
    /// Most calls in flight, over all workers.
    pub global_concurrency: Option<u32>,
}

/// Jobs of one lane for one endpoint, spread evenly over tenants.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// The lane.
    pub lane: LaneName,
    /// The endpoint that they call.
    pub endpoint: EndpointName,
    /// Whose jobs they are; never empty.
    pub tenants: Vec<Tenant>,
    /// Jobs that are there at the start.
    pub backlog: u64,
    /// Jobs a second that are published from then on; 0 = none.
    pub rate: f64,
}

/// What a call has to do before it may be made, as far as is known.
#[derive(Debug, Clone, PartialEq)]
pub enum Way {
    /// Take a token of each of these windows; none = nothing.
    Windows(Vec<Window>),
    /// Wait until then.
    Shut(Timestamp),
    /// Nobody knows before it was tried: what is configured counts.
    Unknown,
}

/// What is known beside the configuration.
pub struct Present<'a> {
    /// What a call has to do at a moment.
    pub way: &'a dyn Fn(&LaneName, &EndpointName, &Tenant, Timestamp) -> Way,
    /// The theoretical arrival times of the windows that have one.
    pub due: HashMap<String, Timestamp>,
}

/// What will happen.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// Each lane that has a load.
    pub lanes: Vec<LaneForecast>,
    /// Each budget that a load counts in.
    pub budgets: Vec<BudgetForecast>,
    /// What to know and what to change.
    pub findings: Vec<Finding>,
    /// The time that was simulated.
    pub simulated: Duration,
    /// Calls that were simulated.
    pub calls: u64,
    /// It was too much to simulate all of it: the rest is told from the pace that it had by then.
    pub is_cut: bool,
}

impl Forecast {
    /// Whether all that is asked for can be met.
    pub fn is_met(&self) -> bool {
        self.findings.iter().all(|finding| !finding.kind.is_unmet())
    }
}

/// What will happen in one lane.
#[derive(Debug, Clone, PartialEq)]
pub struct LaneForecast {
    /// The lane.
    pub lane: LaneName,
    /// Jobs that were there at the start.
    pub backlog: u64,
    /// Jobs a second that are published.
    pub rate: f64,
    /// How long it takes until the last job of the backlog is done; `None` = there was none, or it never is.
    pub drained_after: Option<Duration>,
    /// That time was not simulated to its end.
    pub is_estimate: bool,
    /// Jobs that had not been called when the simulation ended.
    pub left: u64,
    /// Calls a second, until it was drained, or to the end.
    pub throughput: f64,
    /// Time from publish to call.
    pub wait: WaitForecast,
    /// What holds it back; `None` = nothing but the time that its calls take.
    pub held_by: Option<HeldBy>,
}

/// Time from publish to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitForecast {
    /// Half of the jobs wait no longer.
    pub p50: Duration,
    /// 95 % wait no longer.
    pub p95: Duration,
    /// 99 % wait no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// What holds a lane back.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldBy {
    /// `budget`, `concurrency` (of the lane) or `max_concurrency` (of an endpoint).
    pub kind: &'static str,
    /// In words.
    pub what: String,
    /// The share of it that was used.
    pub used: f64,
}

/// What will be used of one budget, or of equal ones of several tenants.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetForecast {
    /// The endpoint whose it is.
    pub endpoint: EndpointName,
    /// The limit in words: `100/1m`.
    pub limit: String,
    /// `tenant` or `endpoint`: whose calls are counted together.
    pub scope: &'static str,
    /// The tenant, where it is the budget of one alone.
    pub tenant: Option<String>,
    /// How many tenants have one like this.
    pub tenants: usize,
    /// Tokens a second of all of them together, without bursts.
    pub pace: f64,
    /// Share that was used of what the limit allows, on average; `None` where the limit is not known.
    pub used_of_limit: Option<f64>,
    /// Share that was used of what may be used.
    pub used_of_pace: f64,
    /// That share by lane.
    pub by_lane: Vec<(LaneName, f64)>,
}

/// What kind of thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindingKind {
    /// More is published than a budget allows.
    OverBudget,
    /// More is published than the slots of a lane or of an endpoint can call.
    OverConcurrency,
    /// A backlog is not done in the time.
    NotDrained,
    /// Jobs wait because another lane's backlog uses their budget too.
    NoReserve,
    /// More slots would make it faster.
    Concurrency,
}

impl FindingKind {
    /// The kind as a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OverBudget => "over_budget",
            Self::OverConcurrency => "over_concurrency",
            Self::NotDrained => "not_drained",
            Self::NoReserve => "no_reserve",
            Self::Concurrency => "concurrency",
        }
    }

    /// Whether what is asked for can't be met.
    pub const fn is_unmet(self) -> bool {
        matches!(self, Self::OverBudget | Self::OverConcurrency | Self::NotDrained)
    }
}

/// Something to know, and what would have to change.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// The lanes that it is about.
    pub lanes: Vec<LaneName>,
    /// In words, with what would have to change.
    pub message: String,
    /// What would have to change; each by itself is enough.
    pub changes: Vec<Change>,
}

/// A setting, or a load, and what it would have to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Which: `rate`, `requests`, `reserve`, `concurrency`, `global_concurrency`, `max_concurrency`,
    /// `max_concurrency_per_tenant` or `for` (in seconds).
    pub setting: &'static str,
    /// Of what: a lane, or an endpoint. Of a rate of several lanes together: of each, as a share.
    pub of: String,
    /// What it would have to be: at most this for a rate, at least this for all others.
    pub to: f64,
}

/// Finds out what will happen.
pub fn plan(setup: &Setup, loads: &[Load], present: Option<&Present<'_>>) -> Forecast {
    let mut world = world::World::new(setup, loads, present);
    run::run(&mut world);
    report::forecast(&mut world)
}
