//! Each incident at its threshold: just there, and just not.

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);

fn name<T>(text: &str, new: impl Fn(&str) -> Option<T>) -> T {
    new(text).expect("a legal name")
}

fn lane(text: &str) -> LaneReading {
    LaneReading {
        name: name(text, |text| LaneName::new(text).ok()),
        configured: true,
        realtime: text == "realtime",
        workers: 1,
        work: 0,
        ready: 0,
        paused: false,
        looks: (180, 0),
        ended_lately: 10,
        held_by: None,
        ended: 0,
        exhausted: 0,
        exhausted_most: None,
        wait_p95: None,
        letters: 0,
        letters_new: 0,
        duration: Mean::default(),
        duration_before: Mean::default(),
    }
}

fn crm() -> EndpointReading {
    EndpointReading {
        name: name("crm", |text| EndpointName::new(text).ok()),
        calls: 0,
        limited: 0,
        limited_usual: 0.0,
        limited_most: None,
        lanes: Vec::new(),
        backoff: Mean::default(),
        backoff_before: Mean::default(),
        late: 0.0,
    }
}

fn of_lanes(lanes: Vec<LaneReading>) -> Vec<Incident> {
    incidents(&Reading { now: NOW, lanes, ..Reading::default() })
}

fn of_endpoints(endpoints: Vec<EndpointReading>) -> Vec<Incident> {
    incidents(&Reading { now: NOW, endpoints, ..Reading::default() })
}

/// The only incident there is.
fn only(incidents: &[Incident]) -> (Kind, &str, String) {
    let [one] = incidents else { panic!("one incident, not {incidents:#?}") };
    (one.kind, &one.message, one.step.to_string())
}

fn mean(count: u64, seconds: u64) -> Mean {
    Mean { count, mean: Duration::from_secs(seconds) }
}

#[test]
fn nothing_is_wrong_with_a_quiet_installation() {
    let reading = Reading { now: NOW, lanes: vec![lane("realtime"), lane("bulk")], ..Reading::default() };
    assert_eq!(incidents(&Reading { endpoints: vec![crm()], ..reading }), []);
}

#[test]
fn a_lane_with_work_needs_a_worker() {
    let alone = LaneReading { workers: 0, work: 1, ..lane("bulk") };
    let found = of_lanes(vec![alone.clone()]);
    let (kind, message, step) = only(&found);
    assert_eq!(kind, Kind::NoWorker);
    assert_eq!(message, "lane bulk has 1 job and no live worker; start one: lanes worker --lane bulk");
    assert_eq!(step, "lanes worker --lane bulk");
    let unknown = of_lanes(vec![LaneReading { configured: false, work: 1_204, ..alone.clone() }]);
    assert_eq!(only(&unknown).1, "lane bulk has 1,204 jobs and no live worker; the lane is not configured here");
    assert_eq!(of_lanes(vec![LaneReading { work: 0, ..alone }]), []);
}

#[test]
fn real_time_that_waits_names_who_holds_it_up() {
    let waits = |seconds| LaneReading { wait_p95: Some(Duration::from_secs(seconds)), ..lane("realtime") };
    assert_eq!(of_lanes(vec![waits(5)]), [], "the goal is missed, but nobody has to get up for it");
    let bulk = LaneReading { work: 35_000, wait_p95: Some(Duration::from_secs(900)), ..lane("bulk") };
    let lanes = vec![(bulk.name.clone(), 0.94), (waits(1).name, 0.06)];
    let hubspot = EndpointReading { lanes, ..crm() };
    let reading = Reading { now: NOW, lanes: vec![waits(12), bulk], endpoints: vec![hubspot], ..Reading::default() };
    let found = incidents(&reading);
    let (kind, message, step) = only(&found);
    assert_eq!(kind, Kind::RealtimeWaits);
    assert_eq!(
        message,
        "realtime waits 12 s (p95, goal 2.0 s). bulk makes 94 % of the calls of crm (35,000 jobs wait)."
    );
    assert_eq!(step, "lanes lane pause bulk --for 15m");
    let held = LaneReading { held_by: Some("crm is called 2/s at most".to_owned()), ..waits(12) };
    let found = of_lanes(vec![held]);
    assert!(only(&found).1.ends_with("Its jobs wait because crm is called 2/s at most."));
}

#[test]
fn a_lane_that_moves_nothing_is_stuck() {
    let stuck = LaneReading { ready: 1_204, work: 1_204, ended_lately: 0, looks: (180, 180), ..lane("bulk") };
    let held = LaneReading { held_by: Some("crm limits its callers: 429".to_owned()), ..stuck.clone() };
    let found = of_lanes(vec![held]);
    let (kind, message, _) = only(&found);
    assert_eq!(kind, Kind::LaneStuck);
    assert_eq!(message, "bulk has moved nothing for 15 min (1,204 ready): crm limits its callers: 429.");
    for moves in [
        LaneReading { ended_lately: 1, ..stuck.clone() },
        LaneReading { paused: true, ..stuck.clone() },
        LaneReading { ready: 0, ..stuck.clone() },
        LaneReading { looks: (180, 179), ..stuck.clone() },
        LaneReading { looks: (100, 100), ..stuck },
    ] {
        assert_eq!(of_lanes(vec![moves.clone()]), [], "{moves:?}");
    }
}

#[test]
fn more_than_one_percent_exhausted_is_too_much() {
    let at = |exhausted, ended| LaneReading { ended, exhausted, ..lane("bulk") };
    assert_eq!(of_lanes(vec![at(4, 4)]), [], "four are no trend");
    assert_eq!(of_lanes(vec![at(12, 1_200)]), [], "one percent is allowed");
    let most = Some((crm().name, 38));
    let found = of_lanes(vec![LaneReading { exhausted_most: most, ..at(41, 1_204) }]);
    let (kind, message, step) = only(&found);
    assert_eq!(kind, Kind::Exhaustion);
    assert_eq!(
        message,
        "bulk: 3.4 % of jobs ran out of retries in the last hour (41 of 1,204). Most of them at crm (38)."
    );
    assert_eq!(step, "lanes dead list --lane bulk");
}

#[test]
fn dead_letters_that_pile_up_are_told() {
    let at = |letters, letters_new| LaneReading { letters, letters_new, ..lane("bulk") };
    assert_eq!(of_lanes(vec![at(100, 58)]), []);
    assert_eq!(of_lanes(vec![at(127, 20)]), []);
    let found = of_lanes(vec![at(127, 58)]);
    assert_eq!(only(&found).1, "bulk: 127 dead letters, +58 in the last hour.");
}

#[test]
fn a_spike_of_429s_is_three_times_the_usual() {
    let at = |limited, calls, limited_usual| EndpointReading { calls, limited, limited_usual, ..crm() };
    assert_eq!(of_endpoints(vec![at(60, 1_000, 0.0)]), [], "12 a minute");
    assert_eq!(of_endpoints(vec![at(1_070, 60_000, 0.0)]), [], "less than 2 % of the calls");
    assert_eq!(of_endpoints(vec![at(1_070, 2_000, 80.0)]), [], "less than three times the usual");
    let most = Some((name("acme", |text| Tenant::new(text).ok()), 0.91));
    let found = of_endpoints(vec![EndpointReading { limited_most: most, ..at(1_070, 2_000, 23.8) }]);
    let (kind, message, step) = only(&found);
    assert_eq!(kind, Kind::RateLimitSpike);
    assert_eq!(message, "crm: 214 429s/min, 9x its daily average. 91 % from tenant acme.");
    assert_eq!(step, "lanes limits list --endpoint crm --tenant acme");
    let first = of_endpoints(vec![at(1_070, 2_000, 0.0)]);
    assert_eq!(only(&first).1, "crm: 214 429s/min, it had none for a day.");
}

#[test]
fn backoff_that_doubled_since_yesterday_is_told() {
    let at = |now, before| EndpointReading { backoff: now, backoff_before: before, late: 0.6, ..crm() };
    assert_eq!(of_endpoints(vec![at(mean(9, 240), Mean::default())]), [], "nothing is known of yesterday");
    assert_eq!(of_endpoints(vec![at(mean(9, 240), mean(9, 120))]), []);
    assert_eq!(of_endpoints(vec![at(mean(9, 60), mean(9, 10))]), []);
    let found = of_endpoints(vec![at(mean(9, 240), mean(9, 60))]);
    assert_eq!(
        only(&found).1,
        "Average backoff at crm is 4 min, 60 s yesterday at this hour. 60 % of retries are attempt 4 or later."
    );
}

#[test]
fn jobs_that_take_longer_than_three_days_ago_are_told() {
    let at = |duration, duration_before| LaneReading { duration, duration_before, ..lane("bulk") };
    assert_eq!(of_lanes(vec![at(mean(100, 50), mean(19, 31))]), []);
    assert_eq!(of_lanes(vec![at(mean(100, 46), mean(100, 31))]), []);
    let found = of_lanes(vec![at(mean(100, 50), mean(100, 31))]);
    assert_eq!(only(&found).1, "bulk takes 1.6x as long as three days ago (mean 31 s -> 50 s).");
}

#[test]
fn a_silent_worker_is_named_and_when_its_jobs_return() {
    let at = |over_at| {
        let worker = SilentWorker { name: "b:812".to_owned(), heard_at: NOW.minus(Duration::from_secs(95)), over_at };
        incidents(&Reading { now: NOW, silent: vec![worker], ..Reading::default() })
    };
    let soon = NOW.plus(Duration::from_secs(5));
    assert_eq!(only(&at(soon)).1, format!("worker b:812 is silent for 95 s; its jobs return at {soon}."));
    assert!(only(&at(NOW)).1.ends_with("as soon as another worker looks."));
}

#[test]
fn what_cannot_be_reached_hides_what_is_not_known() {
    let lanes = vec![LaneReading { workers: 0, work: 1, ..lane("bulk") }];
    let why = |text: &str| Some(text.to_owned());
    let reading =
        Reading { now: NOW, broker: why("amqp://h: refused"), store: why("h: refused"), lanes, ..Reading::default() };
    let kinds: Vec<Kind> = incidents(&reading).iter().map(|incident| incident.kind).collect();
    assert_eq!(kinds, [Kind::BrokerUnreachable, Kind::StoreUnreachable]);
}

#[test]
fn the_worst_comes_first() {
    let bulk = LaneReading {
        letters: 127,
        letters_new: 58,
        duration: mean(99, 9),
        duration_before: mean(99, 1),
        ..lane("bulk")
    };
    let alone = LaneReading { workers: 0, work: 1, ..lane("later") };
    let found = of_lanes(vec![bulk, alone]);
    let kinds: Vec<Kind> = found.iter().map(|incident| incident.kind).collect();
    assert_eq!(kinds, [Kind::NoWorker, Kind::DeadLetters, Kind::DurationRising]);
}
