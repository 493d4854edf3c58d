//! From configured limits to the windows that each call has to fit, and to the turns of those who wait.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::job::budget::Window;
use crate::job::{EndpointName, LaneName, Tenant};

/// Share of a limit that is used, unless configured: the rest absorbs what the network bunches together.
pub const HEADROOM: f64 = 0.8;
/// Most limits of one endpoint.
pub const LIMITS_MAX: usize = 8;
/// What binary fractions leave of a division that comes out even.
const ROUNDING: f64 = 1e-6;
/// A reserve never leaves the other lanes less than this share.
const SHARE_MIN: f64 = 0.01;

/// What an API allows.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    /// So many calls; 0 = no limit.
    pub requests: u32,
    /// In this time.
    pub per: Duration,
    /// Calls that may be made at once after a rest; `None` = half of what the headroom leaves, at least one.
    pub burst: Option<u32>,
    /// Whose calls are counted together.
    pub scope: Scope,
    /// Share of it that is used, above 0 and at most 1.
    pub headroom: f64,
}

/// Whose calls are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Those of one tenant.
    Tenant,
    /// Those of all tenants.
    Endpoint,
}

impl Limit {
    /// Most calls in the time of the limit: its pace, and a burst.
    pub fn most_in_window(&self) -> f64 {
        (self.tokens() + ROUNDING).floor() + if self.burst.is_some() { self.burst() } else { 0.0 }
    }

    fn tokens(&self) -> f64 {
        f64::from(self.requests) * self.headroom
    }

    /// Never above the limit: pace and burst together fit it, half of what is left is for the network.
    fn burst(&self) -> f64 {
        let spare = f64::from(self.requests) * (1.0 - self.headroom) / 2.0;
        // more at once than in the whole time is no limit any more
        self.burst.map_or((spare + ROUNDING).floor(), |burst| f64::from(burst.min(self.requests))).max(1.0)
    }

    fn window(&self, key: String, share: f64) -> Window {
        let interval = Duration::from_micros(whole_micros(self.per.as_secs_f64() * 1e6 / (self.tokens() * share)));
        let burst = (self.burst() * share + ROUNDING).floor().max(1.0);
        Window { key, interval, tolerance: interval.mul_f64(burst - 1.0) }
    }
}

/// Rounded up: a token that takes longer is never one too many.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, and it is not negative")]
fn whole_micros(micros: f64) -> u64 {
    ((micros - ROUNDING).ceil() as u64).max(1)
}

/// All configured budgets.
#[derive(Debug, Clone, Default)]
pub struct Budgets {
    /// Of each endpoint; empty = not limited.
    pub limits: HashMap<EndpointName, Vec<Limit>>,
    /// What replaces the limits of an endpoint for one tenant.
    pub overrides: HashMap<(Tenant, EndpointName), Vec<Limit>>,
    /// Shares in the round among tenants that wait for the same budget; 1 where nothing is said.
    pub weights: HashMap<Tenant, u32>,
    /// Shares of every budget that the other lanes cannot take.
    pub reserves: Vec<(LaneName, f64)>,
}

impl Budgets {
    /// The windows that a call has to fit: one for each limit, and one more for each reserve of another lane, which
    /// counts the calls of all lanes but that one. Empty = not limited.
    pub fn windows(&self, lane: &LaneName, endpoint: &EndpointName, tenant: &Tenant) -> Vec<Window> {
        let mut windows = Vec::new();
        for (limit, key, _) in self.limits_of(endpoint, tenant) {
            for (reserving, reserve) in self.reserves.iter().filter(|(of, reserve)| of != lane && *reserve > 0.0) {
                windows.push(limit.window(format!("{key}\u{1f}{reserving}"), (1.0 - reserve).max(SHARE_MIN)));
            }
            windows.push(limit.window(key, 1.0));
        }
        windows
    }

    /// The windows that a `Retry-After` closes: every call of every lane counts in them. Those of the tenant alone, where
    /// it has some: what one tenant was told is not said of the others.
    pub fn cool_down_windows(&self, endpoint: &EndpointName, tenant: &Tenant) -> Vec<Window> {
        let limits: Vec<_> = self.limits_of(endpoint, tenant).collect();
        let own = limits.iter().any(|(_, _, scope)| *scope == Scope::Tenant);
        let closed = limits.into_iter().filter(|(_, _, scope)| !own || *scope == Scope::Tenant);
        closed.map(|(limit, key, _)| limit.window(key, 1.0)).collect()
    }

    /// The limits of a call, under what key each is counted, and whose calls it counts.
    fn limits_of(&self, endpoint: &EndpointName, tenant: &Tenant) -> impl Iterator<Item = (&Limit, String, Scope)> {
        // asked for every job: where nothing is limited, nothing is looked up
        let overrides = (!self.overrides.is_empty()).then_some(&self.overrides);
        let own = overrides.and_then(|overrides| overrides.get(&(tenant.clone(), endpoint.clone())));
        let limits = own.or_else(|| self.limits.get(endpoint)).map_or(&[][..], Vec::as_slice);
        let is_own = own.is_some();
        limits.iter().filter(|limit| limit.requests > 0).map(move |limit| {
            // an override counts for its tenant alone
            let scope = if is_own { Scope::Tenant } else { limit.scope };
            let whose = if scope == Scope::Tenant { tenant.as_str() } else { "" };
            (limit, format!("{endpoint}\u{1f}{whose}\u{1f}{}", limit.per.as_millis()), scope)
        })
    }
}

/// Somebody's jobs that wait for their turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting<'a> {
    /// Of which windows they need a token each; empty = of none any more.
    pub windows: Vec<&'a str>,
    /// Share in each round.
    pub weight: u32,
    /// Tokens that its jobs will take which are on their way already.
    pub on_their_way: u32,
}

/// Whose turn it is: how many of each may go now, round by round, each as many as its weight, as long as every window
/// it needs has a token `left`. At most `most` in all. The first round begins with the one at `start`.
pub fn turns<'a>(waiting: &[Waiting<'a>], mut left: BTreeMap<&'a str, u32>, most: u32, start: usize) -> Vec<u32> {
    for one in waiting {
        for key in &one.windows {
            left.entry(key).and_modify(|tokens| *tokens = tokens.saturating_sub(one.on_their_way));
        }
    }
    let mut turns = vec![0; waiting.len()];
    let (mut total, mut gave) = (0, true);
    while gave && total < most {
        gave = false;
        for step in 0..waiting.len() {
            let at = (start + step) % waiting.len();
            for _ in 0..waiting[at].weight.max(1) {
                let windows = &waiting[at].windows;
                let fits = windows.iter().all(|key| left.get(key).is_some_and(|tokens| *tokens > 0));
                if !fits || total == most {
                    break;
                }
                for key in windows {
                    left.entry(key).and_modify(|tokens| *tokens -= 1);
                }
                turns[at] += 1;
                total += 1;
                gave = true;
            }
        }
    }
    turns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(requests: u32, per: Duration, scope: Scope) -> Limit {
        Limit { requests, per, burst: None, scope, headroom: HEADROOM }
    }

    fn budgets(limits: Vec<Limit>, reserve: f64) -> Budgets {
        Budgets {
            limits: HashMap::from([(endpoint(), limits)]),
            reserves: vec![(lane("realtime"), reserve), (lane("bulk"), 0.0)],
            ..Budgets::default()
        }
    }

    fn lane(name: &str) -> LaneName {
        LaneName::new(name).expect("a name")
    }

    fn endpoint() -> EndpointName {
        EndpointName::new("crm").expect("a name")
    }

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name).expect("a name")
    }

    #[test]
    fn a_limit_is_paced_below_itself() {
        let budgets = budgets(vec![limit(100, Duration::from_mins(1), Scope::Tenant)], 0.0);
        let windows = budgets.windows(&lane("bulk"), &endpoint(), &tenant("acme"));
        let [window] = &windows[..] else { panic!("{windows:?}") };
        assert_eq!(window.interval, Duration::from_millis(750));
        assert_eq!(window.tolerance, Duration::from_millis(750 * 9));
    }

    #[test]
    fn zero_is_no_limit() {
        let budgets = budgets(vec![limit(0, Duration::from_mins(1), Scope::Tenant)], 0.5);
        assert_eq!(budgets.windows(&lane("bulk"), &endpoint(), &tenant("acme")), []);
    }

    #[test]
    fn scopes_and_overrides_count_apart() {
        let mut budgets = budgets(vec![limit(100, Duration::from_mins(1), Scope::Endpoint)], 0.0);
        let key = |budgets: &Budgets, name| budgets.windows(&lane("bulk"), &endpoint(), &tenant(name))[0].key.clone();
        assert_eq!(key(&budgets, "acme"), key(&budgets, "globex"));
        let own = vec![limit(500, Duration::from_mins(1), Scope::Endpoint)];
        budgets.overrides.insert((tenant("acme"), endpoint()), own);
        assert_ne!(key(&budgets, "acme"), key(&budgets, "globex"));
        let pace = |name| budgets.windows(&lane("bulk"), &endpoint(), &tenant(name))[0].interval;
        assert_eq!(pace("globex"), 5 * pace("acme"));
    }

    #[test]
    fn a_reserve_slows_the_others_down_and_not_its_own_lane() {
        let budgets = budgets(vec![limit(100, Duration::from_mins(1), Scope::Tenant)], 0.2);
        let of = |name| budgets.windows(&lane(name), &endpoint(), &tenant("acme"));
        assert_eq!(of("realtime").len(), 1);
        let bulk = of("bulk");
        assert_eq!(bulk.len(), 2);
        assert_eq!(bulk[1], of("realtime")[0], "all lanes count in the whole budget");
        assert_eq!(bulk[0].interval, Duration::from_micros(937_500));
        assert_eq!(bulk[0].tolerance, bulk[0].interval * 7);
    }

    #[test]
    fn a_retry_after_closes_the_windows_of_its_tenant_for_every_lane() {
        let (minute, day) = (Duration::from_mins(1), Duration::from_hours(24));
        let both = vec![limit(100, minute, Scope::Tenant), limit(40_000, day, Scope::Endpoint)];
        let budgets = budgets(both, 0.2);
        let closed = budgets.cool_down_windows(&endpoint(), &tenant("acme"));
        assert_eq!(closed, [budgets.windows(&lane("realtime"), &endpoint(), &tenant("acme"))[0].clone()]);
        let shared = Budgets { limits: HashMap::from([(endpoint(), vec![limit(9, day, Scope::Endpoint)])]), ..budgets };
        assert_eq!(shared.cool_down_windows(&endpoint(), &tenant("acme")).len(), 1);
    }

    #[test]
    fn no_setting_is_too_large() {
        for (requests, per) in [(1, Duration::from_hours(24 * 366)), (u32::MAX, Duration::from_millis(1))] {
            let limit = Limit { burst: Some(u32::MAX), headroom: 0.01, ..limit(requests, per, Scope::Tenant) };
            let window = limit.window(String::new(), SHARE_MIN);
            assert!(window.interval >= Duration::from_micros(1));
            assert!(i64::try_from(window.tolerance.as_micros()).expect("fits") < i64::MAX / 1_000);
        }
    }

    #[test]
    fn turns_go_round_by_weight() {
        let left = BTreeMap::from([("crm", 7), ("acme", 1)]);
        let waiting = |windows: &[&'static str], weight| Waiting { windows: windows.to_vec(), weight, on_their_way: 0 };
        let all = [waiting(&["crm"], 1), waiting(&["crm"], 2), waiting(&["crm", "acme"], 1)];
        assert_eq!(turns(&all, left.clone(), 100, 0), [2, 4, 1]);
        assert_eq!(turns(&all, left.clone(), 2, 1), [0, 2, 0], "who was last begins next time");
        assert_eq!(turns(&all[..1], left.clone(), 100, 0), [7], "a lone one gets everything");
        assert_eq!(turns(&[], left.clone(), 100, 0), Vec::<u32>::new());
    }

    #[test]
    fn who_is_on_the_way_has_had_its_turn() {
        let left = BTreeMap::from([("crm", 3)]);
        let all = [Waiting { windows: vec!["crm"], weight: 1, on_their_way: 2 }];
        assert_eq!(turns(&all, left.clone(), 100, 0), [1]);
        let free = [Waiting { windows: vec![], weight: 1, on_their_way: 2 }];
        assert_eq!(turns(&free, left.clone(), 5, 0), [5], "whose limit was taken away waits for nothing");
    }

    proptest! {
        /// Pace and burst together never exceed what the API allows, for every limit that has room for a call.
        #[test]
        fn pace_and_burst_fit_the_limit(requests in 2_u32..100_000, per_ms in 100_u64..100_000_000, headroom in 0.1_f64..0.8) {
            let limit = Limit { headroom, ..limit(requests, Duration::from_millis(per_ms), Scope::Tenant) };
            prop_assume!(limit.tokens() >= 1.0);
            let window = limit.window(String::new(), 1.0);
            let span = Duration::from_millis(per_ms);
            let most = 1 + (window.tolerance + span).as_micros() / window.interval.as_micros();
            prop_assert!(most <= u128::from(requests), "{most} of {requests}");
        }
    }
}
