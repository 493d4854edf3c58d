//! From limits, configured, set by an operator and learnt, to the windows that each call has to fit.

use std::collections::HashMap;
use std::time::Duration;

use super::account::{Knowledge, LiveLimits, Observing};
use super::circuit::{CircuitRules, Door};
use super::learn::{Lead, Lesson};
use super::limit::{HEADROOM, Limit, Scope};
use crate::clock::Timestamp;
use crate::job::budget::{Account, Slot, Window};
use crate::job::{EndpointName, LaneName, Tenant};

/// Pace of a ramp where nobody knows what is allowed: calls a second at its start, and how much more at its end.
const BLIND_RAMP_FROM: f64 = 2.0;
const BLIND_RAMP_GROWTH: f64 = 1_024.0;
/// Calls a second of an account before its first answer was heard: who knows what it allows.
const FIRST_PACE: f64 = 10.0;
/// And so many at once.
pub const FIRST_BURST: u32 = 5;
/// What its window counts.
const FIRST: &str = "first";
/// Separates the parts of a window's key.
const PART: char = '\u{1f}';

/// Whose limits an answer tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learn {
    /// Those of the tenant that the call was for.
    Tenant,
    /// Those of all tenants: they share one account at the API.
    Endpoint,
    /// Nobody's: neither rate headers nor a 429 change the pace. A `Retry-After` still blocks.
    Off,
}

/// What is configured for the budgets of one endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointBudget {
    /// Limits; empty = not limited.
    pub limits: Vec<Limit>,
    /// Tokens that one call takes, at least 1.
    pub cost: u32,
    /// The endpoint whose limits, lessons and operator's settings it shares; `None` = its own.
    pub shares: Option<EndpointName>,
    /// Whose limits its answers tell of.
    pub learn: Learn,
    /// When it counts as failing.
    pub circuit: CircuitRules,
    /// Most calls in flight, over all workers.
    pub max_concurrency: Option<u32>,
    /// Most calls in flight for each tenant, over all workers.
    pub max_concurrency_per_tenant: Option<u32>,
}

impl EndpointBudget {
    /// Whether its limits are one budget for all tenants.
    pub fn is_shared(&self) -> bool {
        !self.limits.is_empty() && self.limits.iter().all(|limit| limit.scope == Scope::Endpoint)
    }
}

impl Default for EndpointBudget {
    fn default() -> Self {
        Self {
            limits: Vec::new(),
            cost: 1,
            shares: None,
            learn: Learn::Tenant,
            circuit: CircuitRules::default(),
            max_concurrency: None,
            max_concurrency_per_tenant: None,
        }
    }
}

/// All configured budgets.
#[derive(Debug, Clone, Default)]
pub struct Budgets {
    /// Of each endpoint. One that is not here has what [`EndpointBudget::default`] says.
    pub endpoints: HashMap<EndpointName, EndpointBudget>,
    /// What replaces the limits of an endpoint for one tenant.
    pub overrides: HashMap<(Tenant, EndpointName), Vec<Limit>>,
    /// Shares in the round among tenants that wait for the same budget; 1 where nothing is said.
    pub weights: HashMap<Tenant, u32>,
    /// Shares of every budget that the other lanes cannot take.
    pub reserves: Vec<(LaneName, f64)>,
    /// The most that a call costs, of all endpoints that share the budgets of one; 1 where nothing is said.
    pub costs_max: HashMap<EndpointName, u32>,
}

/// What is known of the accounts that a call counts in: its endpoint's and its tenant's there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    /// Of all tenants together.
    pub endpoint: Option<&'a Knowledge>,
    /// Of the tenant.
    pub tenant: Option<&'a Knowledge>,
    /// The same two of an endpoint that shares the budgets of another one, and fails for itself.
    pub own: [Option<&'a Knowledge>; 2],
}

impl<'a> Known<'a> {
    /// Each of them that anything is known of.
    pub fn all(self) -> impl Iterator<Item = &'a Knowledge> {
        self.endpoint.into_iter().chain(self.tenant).chain(self.own.into_iter().flatten())
    }

    /// May a call be made now, and at which share of the pace? Both accounts have to agree.
    pub fn door(self, now: Timestamp) -> Door {
        self.all().map(|known| known.door(now)).fold(Door::Open(1.0), stricter)
    }
}

/// What both doors allow.
fn stricter(left: Door, right: Door) -> Door {
    match (left, right) {
        (Door::Shut { until: a, .. }, Door::Shut { until: b, .. }) => {
            if a >= b {
                left
            } else {
                right
            }
        }
        (Door::Shut { .. }, _) => left,
        (_, Door::Shut { .. }) => right,
        (Door::Probe(_), _) => left,
        (_, Door::Probe(_)) => right,
        (Door::Open(a), Door::Open(b)) => Door::Open(a.min(b)),
    }
}

/// Where the limits of a call come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Source<'a> {
    /// The configuration.
    Configured,
    /// An operator.
    Live(&'a LiveLimits),
}

/// The limits of a call, and where they come from.
#[derive(Debug)]
pub struct Limits<'a> {
    /// The limits.
    pub limits: &'a [Limit],
    /// They are those of the tenant alone, whatever their scope says.
    pub of_tenant: bool,
    /// Where they come from.
    pub source: Source<'a>,
}

/// What a call has to fit, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub enum Fit {
    /// These windows; none = not limited.
    Windows(Vec<Window>),
    /// An answer told that nothing is left until then.
    UsedUp(Timestamp),
}

impl Budgets {
    /// What is configured for an endpoint.
    pub fn endpoint(&self, endpoint: &EndpointName) -> &EndpointBudget {
        static USUAL: std::sync::LazyLock<EndpointBudget> = std::sync::LazyLock::new(EndpointBudget::default);
        self.endpoints.get(endpoint).unwrap_or(&USUAL)
    }

    /// The endpoint whose budgets a call to `endpoint` counts in.
    pub fn owner<'a>(&'a self, endpoint: &'a EndpointName) -> &'a EndpointName {
        self.endpoint(endpoint).shares.as_ref().unwrap_or(endpoint)
    }

    /// The account of which an answer tells the limits.
    pub fn taught_account(&self, endpoint: &EndpointName, tenant: &Tenant) -> Account {
        let owner = self.owner(endpoint);
        let tenant = (self.endpoint(owner).learn != Learn::Endpoint).then(|| tenant.clone());
        Account { endpoint: owner.clone(), tenant }
    }

    /// How the accounts of an endpoint are observed.
    pub fn observing(&self, endpoint: &EndpointName) -> Observing {
        let owner = self.endpoint(self.owner(endpoint));
        let headroom = owner.limits.first().map_or(HEADROOM, |limit| limit.headroom);
        Observing { circuit: self.endpoint(endpoint).circuit, learns: owner.learn != Learn::Off, headroom }
    }

    /// The share of a tenant in each round.
    pub fn weight(&self, tenant: &Tenant) -> u32 {
        self.weights.get(tenant).copied().unwrap_or(1)
    }

    /// The limits of a call: what is set for the tenant goes before what is set for all, and an operator's word before
    /// the configuration's.
    pub fn limits<'a>(
        &'a self,
        endpoint: &'a EndpointName,
        tenant: &Tenant,
        known: Known<'a>,
        now: Timestamp,
    ) -> Limits<'a> {
        let owner = self.owner(endpoint);
        let live = |known: Option<&'a Knowledge>| known.and_then(|known| known.live(now));
        if let Some(live) = live(known.tenant) {
            return Limits { limits: &live.limits, of_tenant: true, source: Source::Live(live) };
        }
        // asked for every job: where nobody has an override, nothing is looked up
        let overrides = (!self.overrides.is_empty()).then_some(&self.overrides);
        if let Some(own) = overrides.and_then(|overrides| overrides.get(&(tenant.clone(), owner.clone()))) {
            return Limits { limits: own, of_tenant: true, source: Source::Configured };
        }
        if let Some(live) = live(known.endpoint) {
            return Limits { limits: &live.limits, of_tenant: false, source: Source::Live(live) };
        }
        Limits { limits: &self.endpoint(owner).limits, of_tenant: false, source: Source::Configured }
    }

    /// The windows that a call has to fit: one for each limit, configured and learnt, and one more for each reserve of
    /// another lane, which counts the calls of all lanes but that one. A call of a higher cost takes longer in each.
    pub fn fit(
        &self,
        lane: &LaneName,
        endpoint: &EndpointName,
        tenant: &Tenant,
        known: Known<'_>,
        speed: f64,
        now: Timestamp,
    ) -> Fit {
        let owner = self.owner(endpoint);
        let of = self.limits(endpoint, tenant, known, now);
        let mut windows = Vec::new();
        let slowed = known.all().map(|known| known.slowed_to(now)).fold(speed, f64::min);
        for limit in of.limits.iter().filter(|limit| limit.requests > 0) {
            let for_tenant = of.of_tenant || limit.scope == Scope::Tenant;
            let key = key(owner, for_tenant.then_some(tenant), &limit.per.as_millis().to_string());
            self.with_reserves(&mut windows, lane, key, |key, share| limit.window(key, share, slowed));
        }
        let headroom = self.observing(endpoint).headroom;
        for (known, whose) in [(known.endpoint, None), (known.tenant, Some(tenant))] {
            for lesson in known.into_iter().flat_map(|known| &known.lessons) {
                match lesson.lead(headroom, now) {
                    Lead::Shut(until) => return Fit::UsedUp(until),
                    Lead::Pace { per_second, burst } if !is_implied(&of, whose, lesson, per_second) => {
                        let key = key(owner, whose, &format!("learnt:{}", lesson.name));
                        let pace = Pace { per_second: per_second * speed, burst };
                        self.with_reserves(&mut windows, lane, key, |key, share| pace.window(key, share));
                    }
                    Lead::Free | Lead::Pace { .. } => {}
                }
            }
        }
        let blind = known.all().map(|known| known.blind_slowed_to(now)).fold(speed, f64::min);
        if windows.is_empty() && blind < 1.0 {
            let pace = Pace { per_second: BLIND_RAMP_FROM * BLIND_RAMP_GROWTH.powf(blind), burst: 1 };
            // where it was the endpoint that failed, all tenants come back together
            let all = [known.endpoint, known.own[0]].into_iter().flatten();
            let together = all.map(|known| known.door(now)).any(|door| door != Door::Open(1.0));
            windows.push(pace.window(key(owner, (!together).then_some(tenant), "ramp"), 1.0));
        }
        let cost = self.endpoint(endpoint).cost.max(1);
        let cost_max = self.costs_max.get(owner).copied().unwrap_or(1).max(cost);
        Fit::Windows(windows.into_iter().map(|window| window.reaching(cost_max).costing(cost)).collect())
    }

    /// The window for the first calls of an account, of which nothing is configured, known or heard.
    pub fn first_calls(&self, endpoint: &EndpointName, tenant: &Tenant) -> Window {
        let pace = Pace { per_second: FIRST_PACE, burst: FIRST_BURST };
        pace.window(key(self.owner(endpoint), Some(tenant), FIRST), 1.0)
    }

    /// The lanes that go first where this one takes from the same budgets: those with a reserve, before those without.
    pub fn before<'a>(&'a self, lane: &LaneName) -> impl Iterator<Item = &'a LaneName> + use<'a> {
        let has_one = self.reserves.iter().any(|(of, share)| of == lane && *share > 0.0);
        let reserving = self.reserves.iter().filter(move |(_, share)| !has_one && *share > 0.0);
        reserving.map(|(of, _)| of)
    }

    fn with_reserves(
        &self,
        windows: &mut Vec<Window>,
        lane: &LaneName,
        key: String,
        window: impl Fn(String, f64) -> Window,
    ) {
        for (reserving, reserve) in self.reserves.iter().filter(|(of, reserve)| of != lane && *reserve > 0.0) {
            windows.push(window(format!("{key}{PART}{reserving}"), 1.0 - reserve));
        }
        windows.push(window(key, 1.0));
    }

    /// The slots that a call takes while it is in flight. A reserve of another lane holds for them too, but leaves one.
    pub fn slots(&self, lane: &LaneName, endpoint: &EndpointName, tenant: &Tenant) -> Vec<Slot> {
        let budget = self.endpoint(endpoint);
        let caps = [(budget.max_concurrency, None), (budget.max_concurrency_per_tenant, Some(tenant))];
        let mut slots = Vec::new();
        for (max, whose) in caps.into_iter().filter_map(|(max, whose)| Some((max.filter(|max| *max > 0)?, whose))) {
            let key = key(endpoint, whose, "calls");
            for (reserving, reserve) in self.reserves.iter().filter(|(of, reserve)| of != lane && *reserve > 0.0) {
                slots.push(Slot { key: format!("{key}{PART}{reserving}"), max: share_of(max, 1.0 - reserve) });
            }
            slots.push(Slot { key, max });
        }
        slots
    }
}

/// What a window counts, or a slot, as its key says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counted<'a> {
    /// The endpoint whose budget it is.
    pub owner: &'a str,
    /// Whose calls; `None` = those of all tenants.
    pub tenant: Option<&'a str>,
    /// Which of their budgets: of a configured limit its time in milliseconds.
    pub what: &'a str,
    /// It counts the calls of all lanes but this one, so that its reserve is left; `None` = it counts all.
    pub without: Option<&'a str>,
}

impl<'a> Counted<'a> {
    /// Whether it counts for the first calls only, until an answer was heard.
    pub fn is_for_first_calls(&self) -> bool {
        self.what == FIRST
    }

    /// What is counted under a key.
    pub fn of(key: &'a str) -> Self {
        let mut parts = key.split(PART);
        let owner = parts.next().unwrap_or_default();
        let tenant = parts.next().filter(|tenant| !tenant.is_empty());
        Self { owner, tenant, what: parts.next().unwrap_or_default(), without: parts.next() }
    }
}

/// Whether these windows count the first calls only: the first answer, which is on its way, ends them.
pub fn end_with_the_first_answer(windows: &[Window]) -> bool {
    !windows.is_empty() && windows.iter().all(|window| Counted::of(&window.key).is_for_first_calls())
}

/// Calls a second that these windows allow all lanes together, without bursts; infinite where there is none.
pub fn pace_of(windows: &[Window]) -> f64 {
    let whole = windows.iter().filter(|window| window.key.matches(PART).count() == 2);
    whole.map(|window| 1.0 / window.interval.as_secs_f64()).fold(f64::INFINITY, f64::min)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a u32")]
fn share_of(max: u32, share: f64) -> u32 {
    ((f64::from(max) * share) as u32).max(1)
}

fn key(owner: &EndpointName, tenant: Option<&Tenant>, what: &str) -> String {
    format!("{owner}{PART}{}{PART}{what}", tenant.map_or("", Tenant::as_str))
}

/// A limit of the same time or a shorter one, whose pace is lower, keeps to the lesson as well; what was learnt of all
/// tenants together only one that they share.
fn is_implied(of: &Limits<'_>, whose: Option<&Tenant>, lesson: &Lesson, per_second: f64) -> bool {
    let window = lesson.window.unwrap_or(Duration::MAX);
    let counts = |limit: &&Limit| whose.is_some() || !of.of_tenant && limit.scope == Scope::Endpoint;
    let limits = of.limits.iter().filter(counts);
    limits.filter(|limit| limit.requests > 0).any(|limit| limit.per <= window && limit.pace() <= per_second)
}

/// A pace that was learnt.
struct Pace {
    per_second: f64,
    burst: u32,
}

impl Pace {
    fn window(&self, key: String, share: f64) -> Window {
        let interval = Duration::try_from_secs_f64(1.0 / (self.per_second * share).max(f64::MIN_POSITIVE));
        let interval = interval.unwrap_or(INTERVAL_MAX).clamp(Duration::from_micros(1), INTERVAL_MAX);
        let burst = (f64::from(self.burst) * share).floor().max(1.0);
        Window::new(key, interval, interval.mul_f64(burst - 1.0))
    }
}

/// The longest time that one token takes of a pace that was learnt.
const INTERVAL_MAX: Duration = Duration::from_hours(24);
