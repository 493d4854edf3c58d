//! Forecasts against what can be worked out by hand.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::policy::limit::{HEADROOM, Limit, Scope};
use crate::policy::pacing::EndpointBudget;

const MINUTE: Duration = Duration::from_mins(1);

fn lane(name: &str) -> LaneName {
    LaneName::new(name).expect("a lane")
}

fn crm() -> EndpointName {
    EndpointName::new("crm").expect("an endpoint")
}

fn tenants(count: usize) -> Vec<Tenant> {
    (1..=count).map(|nth| Tenant::new(&format!("t{nth}")).expect("a tenant")).collect()
}

fn limit(requests: u32, per: Duration, scope: Scope) -> Limit {
    Limit { requests, per, burst: None, scope, headroom: HEADROOM }
}

fn setup(limits: Vec<Limit>, reserve: f64) -> Setup {
    let lane_setup = |name, concurrency| LaneSetup { name: lane(name), concurrency, global_concurrency: None };
    Setup {
        budgets: Budgets {
            endpoints: HashMap::from([(crm(), EndpointBudget { limits, ..EndpointBudget::default() })]),
            reserves: vec![(lane("realtime"), reserve)],
            ..Budgets::default()
        },
        lanes: vec![lane_setup("realtime", 64), lane_setup("bulk", 8)],
        workers: 1,
        latency: BTreeMap::new(),
        latency_usual: Duration::from_millis(200),
        horizon: Duration::from_hours(24),
        start: Timestamp::from_secs(1_800_000_000),
    }
}

fn load(name: &str, of: usize, backlog: u64, rate: f64) -> Load {
    Load { lane: lane(name), endpoint: crm(), tenants: tenants(of), backlog, rate }
}

fn of<'a>(forecast: &'a Forecast, name: &str) -> &'a LaneForecast {
    forecast.lanes.iter().find(|of| of.lane == lane(name)).expect("the lane has a load")
}

fn drained(forecast: &Forecast, name: &str) -> f64 {
    of(forecast, name).drained_after.expect("it is drained").as_secs_f64()
}

#[track_caller]
fn assert_near(left: f64, right: f64, share: f64) {
    assert!((left - right).abs() <= share * right, "{left} is not {right}");
}

fn kinds(forecast: &Forecast) -> Vec<FindingKind> {
    forecast.findings.iter().map(|finding| finding.kind).collect()
}

fn per_tenant(requests: u32) -> Vec<Limit> {
    vec![limit(requests, MINUTE, Scope::Tenant)]
}

#[test]
fn one_tenant_drains_at_the_pace_of_its_limit() {
    let forecast = plan(&setup(per_tenant(100), 0.0), &[load("bulk", 1, 35_000, 0.0)], None);
    assert_near(drained(&forecast, "bulk"), 35_000.0 / (80.0 / 60.0), 0.01);
    let bulk = of(&forecast, "bulk");
    assert_eq!((bulk.held_by.as_ref().map(|held| held.kind), bulk.left, bulk.is_estimate), (Some("budget"), 0, false));
    assert_near(bulk.wait.p50.as_secs_f64() * 2.0, drained(&forecast, "bulk"), 0.03);
    assert_near(forecast.budgets[0].used_of_pace, 1.0, 0.01);
    assert_near(forecast.budgets[0].used_of_limit.expect("configured"), 0.8, 0.01);
    assert!(forecast.is_met() && forecast.findings.is_empty(), "{:?}", forecast.findings);
}

#[test]
fn forty_tenants_drain_forty_times_as_fast_while_there_are_slots() {
    let mut setup = setup(per_tenant(100), 0.0);
    setup.lanes[1].concurrency = 100;
    let loads = [load("bulk", 40, 35_000, 0.0)];
    let forecast = plan(&setup, &loads, None);
    // each has a burst of ten at the start
    assert_near(drained(&forecast, "bulk"), (35_000.0 / 40.0 - 10.0) / (80.0 / 60.0), 0.02);
    setup.lanes[1].concurrency = 8;
    let forecast = plan(&setup, &loads, None);
    assert_near(drained(&forecast, "bulk"), 35_000.0 / 40.0, 0.02);
    let finding = &forecast.findings[0];
    assert_eq!((finding.kind, forecast.is_met()), (FindingKind::Concurrency, true), "{finding:?}");
    assert_near(finding.changes[0].to, 11.0, 0.01);
    setup.workers = 2;
    assert_near(drained(&plan(&setup, &loads, None), "bulk"), (35_000.0 / 40.0 - 10.0) / (80.0 / 60.0), 0.02);
    setup.lanes[1].global_concurrency = Some(4);
    let forecast = plan(&setup, &loads, None);
    assert_near(drained(&forecast, "bulk"), 35_000.0 / 20.0, 0.02);
    assert_eq!(forecast.findings[0].changes[0].setting, "global_concurrency");
}

#[test]
fn a_reserve_keeps_real_time_from_waiting_and_its_lack_is_found() {
    let limits = || per_tenant(200);
    let loads = [load("realtime", 1, 0, 0.5), load("bulk", 1, 5_000, 0.0)];
    let forecast = plan(&setup(limits(), 0.2), &loads, None);
    let interval = 60.0 / 160.0;
    assert!(of(&forecast, "realtime").wait.p99.as_secs_f64() < 2.0 * interval, "{:?}", of(&forecast, "realtime").wait);
    assert!(forecast.findings.is_empty(), "{:?}", forecast.findings);
    let loads = [load("realtime", 1, 0, 1.5), load("bulk", 1, 5_000, 0.0)];
    let forecast = plan(&setup(limits(), 0.0), &loads, None);
    assert_eq!(kinds(&forecast), [FindingKind::NoReserve], "{forecast:?}");
    let reserve = forecast.findings[0].changes[0].to;
    let forecast = plan(&setup(limits(), reserve), &loads, None);
    assert!(forecast.findings.is_empty() && of(&forecast, "realtime").wait.p99.as_secs_f64() < 2.0, "{forecast:?}");
}

#[test]
fn two_lanes_and_two_limits_all_or_none() {
    let second = limit(10, Duration::from_secs(1), Scope::Tenant);
    let day = Limit { burst: Some(1), ..limit(40_000, Duration::from_hours(24), Scope::Endpoint) };
    let mut setup = setup(vec![second, day], 0.0);
    let loads = [load("realtime", 1, 1_000, 0.0), load("bulk", 1, 1_000, 0.0)];
    let forecast = plan(&setup, &loads, None);
    let last = drained(&forecast, "bulk").max(drained(&forecast, "realtime"));
    assert_near(last, 2_000.0 / (32_000.0 / 86_400.0), 0.02);
    let used: Vec<f64> = forecast.budgets.iter().map(|budget| budget.used_of_pace).collect();
    assert_eq!(forecast.budgets.iter().map(|budget| budget.scope).collect::<Vec<_>>(), ["tenant", "endpoint"]);
    assert_near(used[1], 1.0, 0.01);
    // nothing is taken of the one when the other gives nothing
    assert_near(used[0], 32_000.0 / 86_400.0 / 8.0, 0.02);
    setup.budgets.endpoints.get_mut(&crm()).expect("there").limits.pop();
    let forecast = plan(&setup, &loads, None);
    let last = drained(&forecast, "bulk").max(drained(&forecast, "realtime"));
    assert_near(last, 2_000.0 / 8.0, 0.02);
}

#[test]
fn weights_share_a_budget() {
    // a round has to have tokens for more than one job of each
    let mut setup = setup(vec![limit(6_000, MINUTE, Scope::Endpoint)], 0.0);
    setup.lanes[1].concurrency = 100;
    setup.budgets.weights.insert(tenants(2)[1].clone(), 3);
    let loads = [load("bulk", 2, 8_000, 0.0)];
    let mut world = world::World::new(&setup, &loads, None);
    world.trace = Some(Vec::new());
    run::run(&mut world);
    let calls = world.trace.expect("kept");
    let early: Vec<usize> = calls[1_000..3_000].iter().map(|(_, gate)| *gate).collect();
    let heavy = early.iter().filter(|gate| **gate == 1).count();
    assert_near(f64::from(u32::try_from(heavy).expect("few")), 1_500.0, 0.05);
}

#[test]
fn slots_of_an_endpoint_hold_back() {
    let mut setup = setup(per_tenant(6_000), 0.0);
    setup.budgets.endpoints.get_mut(&crm()).expect("there").max_concurrency = Some(2);
    let forecast = plan(&setup, &[load("bulk", 4, 2_000, 0.0)], None);
    assert_near(drained(&forecast, "bulk"), 200.0, 0.05);
    let bulk = of(&forecast, "bulk");
    assert_eq!(bulk.held_by.as_ref().map(|held| held.kind), Some("max_concurrency"), "{bulk:?}");
    assert_eq!(kinds(&forecast), [FindingKind::Concurrency]);
    let forecast = plan(&setup, &[load("realtime", 4, 0, 11.0)], None);
    assert_eq!(kinds(&forecast), [FindingKind::OverConcurrency]);
    assert_near(forecast.findings[0].changes[1].to, 3.0, 0.001);
    // two lanes have equal parts
    let both = [load("bulk", 4, 2_000, 0.0), load("realtime", 4, 2_000, 0.0)];
    let forecast = plan(&setup, &both, None);
    assert_near(drained(&forecast, "bulk"), drained(&forecast, "realtime"), 0.1);
    assert_near(drained(&forecast, "bulk").max(drained(&forecast, "realtime")), 400.0, 0.05);
}

#[test]
fn a_lane_needs_slots_for_its_rate() {
    let mut setup = setup(Vec::new(), 0.0);
    setup.lanes[0].concurrency = 4;
    let fits = plan(&setup, &[load("realtime", 1, 0, 19.0)], None);
    assert!(fits.findings.is_empty() && of(&fits, "realtime").wait.max < Duration::from_millis(250), "{fits:?}");
    let over = plan(&setup, &[load("realtime", 1, 0, 21.0)], None);
    assert_eq!((kinds(&over), over.is_met()), (vec![FindingKind::OverConcurrency], false));
    assert_near(over.findings[0].changes[1].to, 5.0, 0.001);
}

#[test]
fn a_backlog_that_takes_too_long_is_told_with_the_time_it_takes() {
    let mut setup = setup(per_tenant(100), 0.0);
    setup.horizon = Duration::from_hours(2);
    let loads = [load("bulk", 1, 35_000, 0.0)];
    let forecast = plan(&setup, &loads, None);
    assert_eq!((kinds(&forecast), forecast.is_met()), (vec![FindingKind::NotDrained], false));
    assert!(of(&forecast, "bulk").is_estimate);
    assert_near(drained(&forecast, "bulk"), 35_000.0 / (80.0 / 60.0), 0.01);
    assert_near(of(&forecast, "bulk").wait.p50.as_secs_f64() * 2.0, drained(&forecast, "bulk"), 0.03);
    let requests = forecast.findings[0].changes.iter().find(|change| change.setting == "requests").expect("told").to;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a limit")]
    let limits = per_tenant(requests as u32 + 1);
    setup.budgets.endpoints.get_mut(&crm()).expect("there").limits = limits;
    assert!(plan(&setup, &loads, None).is_met());
}

#[test]
fn what_is_too_much_to_simulate_is_told_from_its_pace() {
    let mut setup = setup(per_tenant(60_000), 0.0);
    setup.lanes[1].concurrency = 1_000;
    let forecast = plan(&setup, &[load("bulk", 2, 5_000_000, 0.0)], None);
    assert!(forecast.is_cut && forecast.calls <= CALLS_MAX + 1 && of(&forecast, "bulk").is_estimate);
    assert_near(drained(&forecast, "bulk"), 5_000_000.0 / 1_600.0, 0.02);
}

#[test]
fn a_load_has_one_forecast() {
    let loads = [load("realtime", 7, 0, 3.0), load("bulk", 13, 3_000, 0.0)];
    let once = plan(&setup(per_tenant(100), 0.1), &loads, None);
    assert_eq!(once, plan(&setup(per_tenant(100), 0.1), &loads, None));
}

#[test]
fn what_is_known_counts_beside_the_configuration() {
    let setup = setup(per_tenant(100), 0.0);
    let opens = setup.start.plus(Duration::from_mins(5));
    let way =
        |_: &LaneName, _: &EndpointName, _: &Tenant, now| if now < opens { Way::Shut(opens) } else { Way::Unknown };
    let present = Present { way: &way, due: HashMap::new() };
    let forecast = plan(&setup, &[load("bulk", 1, 90, 0.0)], Some(&present));
    assert_near(drained(&forecast, "bulk"), 300.0 + 60.0, 0.01);
    let taken = |key: &str| (key.to_owned(), opens);
    let due = HashMap::from([taken("crm\u{1f}t1\u{1f}60000")]);
    let present = Present { way: &|_: &_, _: &_, _: &_, _| Way::Unknown, due };
    let forecast = plan(&setup, &[load("bulk", 1, 80, 0.0)], Some(&present));
    assert!(drained(&forecast, "bulk") > 59.0, "the burst was taken before");
}

/// Calls of each window in any time: pace and burst, and one.
fn assert_paced(world: &world::World<'_>, span: Duration) -> Result<(), TestCaseError> {
    let calls = world.trace.as_ref().expect("kept");
    for key in 0..world.keys.len() {
        let needs = |gate: usize| world.gates[gate].keys.iter().position(|other| *other == key);
        let window = world.gates.iter().enumerate().find_map(|(at, gate)| Some(&gate.take.windows[needs(at)?]));
        let Some(window) = window else { continue };
        let used: Vec<Timestamp> = calls.iter().filter(|(_, gate)| needs(*gate).is_some()).map(|(at, _)| *at).collect();
        let most = 2 + (window.tolerance + span).as_micros() / window.interval.as_micros();
        let mut first = 0;
        for (nth, at) in used.iter().enumerate() {
            while at.since(used[first]) >= span {
                first += 1;
            }
            prop_assert!((nth - first) as u128 <= most, "{} of {most} in {span:?}", nth - first + 1);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Found exactly when more is published than a budget allows, and what it would have to be is enough.
    #[test]
    fn over_capacity_is_found_exactly(
        requests in 1_u32..2_000, per in 1_u64..600, rate in 0.01_f64..20.0, of_tenant: bool, spread in 1_usize..5,
        reserve in 0.0_f64..0.5, bulk: bool,
    ) {
        let scope = if of_tenant { Scope::Tenant } else { Scope::Endpoint };
        let limits = vec![limit(requests, Duration::from_secs(per), scope)];
        let name = if bulk { "bulk" } else { "realtime" };
        let mut setup = setup(limits.clone(), reserve);
        (setup.horizon, setup.lanes[0].concurrency, setup.lanes[1].concurrency) = (MINUTE, 100, 100);
        let share = if bulk { 1.0 - reserve } else { 1.0 };
        let budgets = if of_tenant { spread } else { 1 };
        let window = limits[0].window(String::new(), share, 1.0);
        let allowed = f64::from(u32::try_from(budgets).expect("few")) / window.interval.as_secs_f64();
        prop_assume!((rate - allowed).abs() > 1e-6 * allowed);
        let forecast = plan(&setup, &[load(name, spread, 0, rate)], None);
        let found = forecast.findings.iter().find(|finding| finding.kind == FindingKind::OverBudget);
        prop_assert_eq!(found.is_some(), rate > allowed, "{} of {}: {:?}", rate, allowed, forecast.findings);
        prop_assert_eq!(forecast.is_met(), rate <= allowed);
        let Some(found) = found else { return Ok(()) };
        for change in &found.changes {
            let (mut changed, mut rate) = (setup.clone(), rate);
            match change.setting {
                "rate" => rate = change.to,
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a limit")]
                "requests" => changed.budgets.endpoints.get_mut(&crm()).expect("there").limits[0].requests = change.to as u32,
                other => prop_assert!(false, "{}", other),
            }
            let again = plan(&changed, &[load(name, spread, 0, rate)], None);
            prop_assert!(again.is_met(), "{:?} is not enough: {:?}", change, again.findings);
        }
        prop_assert_eq!(found.changes.len(), 2);
    }

    /// For any load: no budget ever gives more than pace and burst, and no lane has more calls in flight than slots.
    #[test]
    fn simulated_calls_keep_to_the_budgets(
        limits in prop::collection::vec((1_u32..100, 1_u64..100, any::<bool>()), 1..3),
        spread in 1_usize..4, backlog in 0_u64..400, rate in 0.0_f64..4.0, reserve in 0.0_f64..0.6,
        cap in prop::option::of(1_u32..4), span in 1_u64..100,
    ) {
        let limits = limits.into_iter().map(|(requests, per, of_tenant)| {
            limit(requests, Duration::from_secs(per), if of_tenant { Scope::Tenant } else { Scope::Endpoint })
        });
        let mut setup = setup(limits.collect(), reserve);
        setup.horizon = Duration::from_mins(15);
        setup.budgets.endpoints.get_mut(&crm()).expect("there").max_concurrency = cap;
        let loads = [load("realtime", spread, 0, rate), load("bulk", spread, backlog, 0.0)];
        let mut world = world::World::new(&setup, &loads, None);
        world.trace = Some(Vec::new());
        run::run(&mut world);
        assert_paced(&world, Duration::from_secs(span))?;
        let calls = world.trace.as_ref().expect("kept");
        let took = setup.latency_usual;
        for lane in 0..2 {
            let of: Vec<Timestamp> = calls.iter().filter(|(_, gate)| world.gates[*gate].lane == lane).map(|(at, _)| *at).collect();
            let most = world.lanes[lane].slots.min(cap.map_or(usize::MAX, |cap| cap as usize));
            prop_assert!(of.windows(most + 1).all(|calls| calls[most].since(calls[0]) >= took));
        }
        // whoever came is called, or still there
        let called = calls.len() as u64;
        let report = report::forecast(&mut world);
        let published = report.lanes.iter().map(|lane| lane.left).sum::<u64>() + called;
        prop_assert!(published >= backlog);
        prop_assert!(of(&report, "bulk").drained_after.is_some() || backlog == 0 || of(&report, "bulk").left > 0);
    }
}
